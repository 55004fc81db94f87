"""Broken files of every format, a tier of its own: `pytest -m fuzz`; MINILLM_FUZZ says how many
inputs a format gets (100000 take minutes each), MINILLM_FUZZ_SEED which."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .fuzz import FORMATS

INPUTS, SEED = os.environ.get("MINILLM_FUZZ", "500"), os.environ.get("MINILLM_FUZZ_SEED", "0")


@pytest.mark.fuzz
@pytest.mark.parametrize("name", FORMATS)
def test_broken_files_are_refused_in_one_line(name):
    """In a process of its own, whose memory can be measured."""
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), name, INPUTS, SEED]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
