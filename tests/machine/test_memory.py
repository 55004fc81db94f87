"""What this system says of memory, and that it is in bytes."""

import os
import subprocess
import sys

import pytest

from minillm.machine import memory


def test_what_was_held_counts_in_the_peak_also_when_it_is_gone():
    """In a process of its own, whose peak nothing else has raised."""
    code = (
        "from minillm.machine.memory import peak_bytes, address_space\n"
        "before = peak_bytes(); held = bytearray(b'x') * (64 << 20); of = address_space()\n"
        "del held; print(before, peak_bytes(), of)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, peak, space = (None if x == "None" else int(x) for x in done.stdout.split())
    if peak is None:
        pytest.skip("this system does not say")
    # Linux counts some pages late, a processor at a time; the allocator and Python take some more
    assert 63 << 20 <= peak - before < 80 << 20
    assert space is None or space > peak


def test_free_memory_is_less_than_there_is():
    if hasattr(os, "sysconf"):
        assert 0 < memory.free_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("text", "value"),
    [("Vm: 12 kB\nVmHWM:\t 3 kB\n", 3072), ("VmHWM: x kB\n", None), ("Vm: 1 kB", None)],
)
def test_a_table_says_or_does_not(tmp_path, text, value):
    (tmp_path / "status").write_text(text)
    assert memory._table(str(tmp_path / "status"), "VmHWM") == value
    assert memory._table(str(tmp_path / "none"), "VmHWM") is None
