"""Write the fixed recordings of this folder anew: `python tests/data/recordings/make.py [NAME]`.

They hold what one machine measured once, so that pages drawn from them are the same everywhere.
tales-busy.recording, whose times the verdict's sentences are tested on, was made as `tales` is, on
a machine that was busy, and is not made anew.
"""

import sys
from pathlib import Path

import minillm
from minillm.clock import measure
from minillm.decoding.drafts import named_draft
from minillm.record import record

HERE = Path(__file__).parent


PROMPT = "Once upon a time, there was a little"
SHORT = {"max_new_tokens": 12, "do_sample": False, "tries": 20, "attention": [], "candidates": 1}
MADE = {  # name: (model, options)
    "tales-draft": ("tales-draft", {"max_new_tokens": 16, "do_sample": False}),
    "tales": (  # the README's pictures; the fastest of many tries is one that nobody disturbed
        "tales",
        {"max_new_tokens": 15, "temperature": 0.8, "seed": 25, "tries": 500, "attention": [15]},
    ),
    # two of which the words are tested alone
    "tales-guessed": ("tales", SHORT | {"draft": "tales-draft"}),
    "tales-batch": ("tales", SHORT | {"batch": 4}),
}


def main(names: list[str]) -> None:
    for name in names or MADE:
        model_name, options = MADE[name]
        model, tokenizer = minillm.load(model_name, kernels="numba")
        weights = sum(p.nbytes for p in model.parameters.values())
        limits = measure(model.ops, [model.stored], sizes=[weights])
        if draft := options.get("draft"):
            options = options | {"draft": named_draft(draft, model, tokenizer, minillm.load)}
        made = record(model, tokenizer, PROMPT, name=model_name, limits=limits, **options)
        made.write(HERE / f"{name}.recording")


if __name__ == "__main__":
    main(sys.argv[1:])
