"""Every proof of a lever is a test; what cannot be read or applied is said."""

from pathlib import Path

import pytest

import minillm
from minillm import InputError
from minillm.bench.levers import LEVERS, Way, apply_levers

MODEL, TOKENIZER = minillm.load("tales-draft")


def test_every_proof_is_a_test():
    source = (Path(__file__).parents[1] / "decoding" / "test_levers.py").read_text()
    for lever in LEVERS.values():
        assert (
            lever.proof is None or f"    {lever.proof},\n" in source[source.index("PROOFS = [") :]
        )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("warp", "^lever warp: there is no 'warp'; known: no-cache"),
        ("int8:3", "int8 takes no value"),
        ("batch", "batch takes a value"),
    ],
)
def test_unreadable_levers(names, message):
    with pytest.raises(InputError, match=message):
        apply_levers(Way(MODEL, TOKENIZER, []), names)
    with pytest.raises(InputError, match="'x' is no int"):
        apply_levers(Way(MODEL, TOKENIZER, []), "batch:x")
