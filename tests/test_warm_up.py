"""warmup compiles all that commands need: after it, none of them compiles anything."""

import argparse
import os
import subprocess
import sys
from importlib import import_module

import pytest

from minillm.cli import ROOMS
from minillm.errors import InputError
from minillm.warm_up import NEEDS, warm_up

# In a process of its own, on an empty cache: warm up, then run every command and collect what is
# compiled all the same. What the commands print goes to stderr.
CHILD = """
import contextlib, os, pathlib, sys
from minillm.cli import main
from minillm.kernels.listeners import compile_listeners
from minillm.warm_up import warm_up

assert warm_up() > 40, "the cache was not empty"
folder = pathlib.Path(sys.argv[1])
(folder / "story.txt").write_text("Once upon a time there was a king who had a daughter. " * 400)
rows = [f"{kind} story number {n}\\t{kind}" for n in range(40) for kind in ("sad", "gay")]
(folder / "table.tsv").write_text("\\n".join(["text\\tlabel", *rows]) + "\\n")
os.chdir(folder)
tiny = "--n-layer 1 --n-head 2 --n-embd 32 --n-positions 32"
tiny += " --steps 2 --batch-size 2 --vocab-size 300"
compiled = []
compile_listeners.append(compiled.append)
for line in (
    "generate Once --max-new-tokens 3",
    "generate Once --max-new-tokens 3 --dtype int8 --window 4",
    "generate Once --max-new-tokens 3 --dtype int4 --draft tales-draft",
    "generate Once --max-new-tokens 3 --dtype float16 --cache-dtype float16",
    "generate Once --max-new-tokens 3 --num-beams 2 --temperature 0",
    "generate Once --max-new-tokens 3 --no-cache",
    "generate Once --max-new-tokens 3 --dtype float64",
    "probs Once",
    "score story.txt",
    "score story.txt --dtype int4_min",
    "score story.txt --precision bfloat16",
    "generate Once --max-new-tokens 3 --precision bfloat16",
    "verify",
    "clock Once --max-new-tokens 3",
    "clock Once --max-new-tokens 3 --every-step --dtype bfloat16",
    "clock --predict 32",
    "compare story.txt --prompt-tokens 8 --max-new-tokens 4 --rounds 1 --quality-tokens 64"
    " --levers sparse:0.5 low-rank:8 heads:4 window:4 int8 skip:1",
    f"train --data story.txt --out run {tiny}",
    f"train --data story.txt --out half {tiny} --precision bfloat16 --optimizer adamw",
    f"train --data story.txt --out llama {tiny} --family llama --n-kv-head 1",
    f"train --data story.txt --out between {tiny} --family between --rope",
    f"train --data story.txt --out tuned --from tales-draft --context 32 --steps 2 --batch-size 2"
    " --lora-rank 2",
    "classify train --data table.tsv --out lstm --model lstm --epochs 1 --vocab-size 300",
    "classify train --data table.tsv --out words --model bag-of-words --epochs 1 --vocab-size 300",
    "classify train --data table.tsv --out tuned-classifier --from tales-draft --epochs 1",
    "classify predict lstm story",
    "bench --ladders --rounds 1",
):
    before = len(compiled)
    with contextlib.redirect_stdout(sys.stderr):
        print("$", line, file=sys.stderr)
        code = main(line.split())
    if code or len(compiled) > before:
        print(line, "-> exit code", code, "compiled", compiled[before:])
"""


@pytest.mark.live
def test_after_warmup_no_command_compiles_anything(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "MINILLM_KERNELS": "numba"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr[-3000:]


def test_every_command_that_computes_can_be_named():
    for name in ROOMS:
        parser = argparse.ArgumentParser()
        import_module(f"minillm.cli.{name}").add_arguments(parser)
        computes = "--kernels" in parser._option_string_actions and name != "info"
        assert name in NEEDS or not computes, name


def test_a_command_without_kernels_is_named():
    with pytest.raises(InputError, match="warmup course: there is nothing to compile; choose from"):
        warm_up(["course"])
