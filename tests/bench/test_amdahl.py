"""Amdahl's law is found in times that follow it, and in no others."""

import numpy as np
import pytest

from minillm.bench.amdahl import Amdahl, amdahl
from minillm.bench.ledger import Entry


def timed(levers, threads, seconds, rounds=3):
    return Entry(
        levers, threads=threads, prefill=[2 / seconds] * rounds, decode=[1 / seconds] * rounds
    )


def test_amdahls_law_is_found_in_times_that_follow_it():
    law = {n: 0.25 + 0.75 / n for n in (1, 2, 4)}
    entries = [
        timed("plain", 4, law[4]),
        timed("threads:1", 1, law[1]),
        timed("threads:2", 2, law[2]),
    ]
    entries += [
        timed("int8", 4, 1),
        timed("int8+threads:1", 1, 4),
        timed("batch:2", 4, 1),
        Entry("threads:3", threads=3),
    ]
    fits = amdahl(entries)
    assert [(f.base, f.kind) for f in fits] == [
        (b, k) for b in ("plain", "int8") for k in ("prefill", "decode")
    ]
    plain, perfect = fits[1], fits[3]
    assert plain.serial == pytest.approx([0.25] * 3) and plain.threads.tolist() == [1, 2, 4]
    assert plain.line([1, 2, 4]) == pytest.approx([1, 1.6, 1 / 0.4375]) and plain.measured[
        0
    ] == pytest.approx([1, 1.6, 1 / 0.4375])
    assert (
        "2 threads 1.60, 4 threads 2.29; serial share 0.25 (0.25 to 0.25 over rounds): at most 4.0"
        " times" in str(plain)
    )
    assert perfect.serial == pytest.approx([0] * 3, abs=1e-12) and plain.to_dict()[
        "speed_up"
    ] == pytest.approx([1, 1.6, 1 / 0.4375])
    assert amdahl([timed("plain", 2, 1)]) == []


@pytest.mark.parametrize(
    ("serial", "said"),
    [
        (
            [1.2, 1.5, 1.9],
            "no serial share, more threads made it slower (1.20 to 1.90 over rounds)",
        ),
        ([-0.4, 0.5, 0.6], "no serial share, too noisy to fit (-0.40 to 0.60 over rounds)"),
        ([0.2, 0.5, 1.4], "no serial share, too noisy to fit (0.20 to 1.40 over rounds)"),
    ],
)
def test_a_serial_share_that_is_no_share_is_not_said(serial, said):
    found = Amdahl("plain", "decode", np.array([1, 2]), np.ones((3, 2)), np.array(serial))
    assert said in str(found) and "at most" not in str(found) and not found.fits
