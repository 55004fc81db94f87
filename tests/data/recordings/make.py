"""Write the fixed recordings of this folder anew: `python tests/data/recordings/make.py`.

They hold what one machine measured once, so that pages drawn from them are the same everywhere.
"""

from pathlib import Path

import minillm
from minillm.clock import measure
from minillm.record import record

HERE = Path(__file__).parent


def main() -> None:
    model, tokenizer = minillm.load("tales-draft", kernels="numba")
    weights = sum(p.nbytes for p in model.parameters.values())
    limits = measure(model.ops, [model.stored], sizes=[weights])
    recording = record(
        model,
        tokenizer,
        "Once upon a time, there was a little",
        name="tales-draft",
        limits=limits,
        max_new_tokens=16,
        do_sample=False,
    )
    recording.write(HERE / "tales-draft.recording")


if __name__ == "__main__":
    main()
