"""What a look into llama.cpp costs, as a table for docs/engines.md; on a machine that does nothing
else, some two minutes:

    PYTHONPATH=. python tests/engines/measure.py [tokens]
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from minillm import GPT2, GPT2Config
from minillm.engines import LlamaCpp
from minillm.engines.price import price


def main(tokens: int = 90) -> None:
    print(
        "| model | threads | stamps | ms a token | looking costs | quartiles | own count | around |"
    )
    print("| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |")
    with TemporaryDirectory() as folder:
        shape = Path(folder) / "124m"
        GPT2.random(GPT2Config()).save_pretrained(shape)
        models = {
            "SmolLM2": ("smollm2", None),
            "124M F32": (shape, None),
            "124M Q8_0": (shape, "int8"),
        }
        for name, (path, dtype) in models.items():
            for threads in (1, 2):
                engine = LlamaCpp(path, threads, dtype)
                for every_step in (False, True):
                    p = price(engine, range(100, 132), tokens, every_step)
                    assert p.same, "looking changed the logits"
                    low, middle, high = (f"{share:+.1%}" for share in p.shares)
                    assert p.own and p.within
                    ms, around = sorted(p.without)[tokens // 2] / 1e6, p.inside - p.within
                    print(
                        f"| {name} | {threads} | {p.stamps} | {ms:.2f} | {middle} | {low} to {high}"
                        f" | {p.within / p.own - 1:+.1%} | {around:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
