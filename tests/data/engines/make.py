"""Write what engines show of themselves into this folder anew, for tests without them:

    PYTHONPATH=. python tests/data/engines/make.py llama.cpp
    PYTHONPATH=. python tests/data/engines/make.py transformers

nodes.json: the nodes [name, operation] of a graph of each family in llama.cpp, with attention as
one operation and as three. *.recording: a generation that an engine was timed at, with its versions
in the head. Those of llama.cpp are of llama-cpp-python 0.3.36, those of transformers of 5.24.0.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from minillm.clock import measure
from minillm.engines import ENGINES, LlamaCpp
from minillm.engines.llama_cpp import Values
from minillm.loading import load_model, tokenizer_of
from minillm.record import record
from minillm.twins.choose import twin
from tests.engines.small import CONFIGS, saved

HERE = Path(__file__).parent


def main(name: str) -> None:
    if name == LlamaCpp.name:
        write_nodes()
    for every_step in (False, True):
        engine = ENGINES[name]("tales-llama", 1)
        engine.ops = twin("numba")
        model = load_model(replace(engine.checkpoint, as_stored=True), kernels="numba")
        recording = record(
            model,
            tokenizer_of(engine.checkpoint),
            "Once upon a time",
            engine=engine,
            name="tales-llama",
            limits=measure(engine.ops, [engine.stored]).without_waiting(),
            every_step=every_step,
            max_new_tokens=6,
            do_sample=False,
            attention=[],
            tries=20,
        )
        of = "" if name == LlamaCpp.name else f"{name}-"
        recording.write(HERE / f"tales-llama-{of}{'steps' if every_step else 'phases'}.recording")


def write_nodes() -> None:
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


if __name__ == "__main__":
    main(sys.argv[1])
