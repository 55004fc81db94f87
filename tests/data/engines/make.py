"""Write what llama.cpp shows of itself into this folder anew, for tests without it:

    PYTHONPATH=. python tests/data/engines/make.py

nodes.json: the nodes [name, operation] of a graph of each family, with attention as one operation
and as three. *.recording: a generation that llama.cpp was timed at.
"""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from minillm.clock import measure
from minillm.engines import LlamaCpp
from minillm.engines.llama_cpp import Values
from minillm.loading import load_model, tokenizer_of
from minillm.record import record
from minillm.twins.choose import twin
from tests.engines.small import CONFIGS, saved

HERE = Path(__file__).parent


def main() -> None:
    found = {}
    for name in CONFIGS:
        with TemporaryDirectory() as folder:
            saved(name, Path(folder))
            for flash in (True, False):
                engine = LlamaCpp(folder, 1, flash=flash)
                view = Values(engine)
                key = f"{name} {'fused' if flash else 'apart'}"
                found[key] = engine.nodes.names(view.asked)
    lines = [f"{json.dumps(key)}: {json.dumps(nodes)}" for key, nodes in found.items()]
    about = json.dumps({"llama_cpp_python": engine.versions["llama_cpp_python"]})
    text = ",\n".join([f'"versions": {about}', *lines])
    (HERE / "nodes.json").write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
    for every_step in (False, True):
        engine = LlamaCpp("tales-llama", 1)
        engine.ops = twin("numba")
        model = load_model(replace(engine.checkpoint, as_stored=True), kernels="numba")
        recording = record(
            model,
            tokenizer_of(engine.checkpoint),
            "Once upon a time",
            engine=engine,
            name="tales-llama",
            limits=measure(engine.ops, [model.stored]),
            every_step=every_step,
            max_new_tokens=6,
            do_sample=False,
            attention=[],
            tries=20,
        )
        recording.write(HERE / f"tales-llama-{'steps' if every_step else 'phases'}.recording")


if __name__ == "__main__":
    main()
