"""What several test files share: where the data lie, tokenizers, and the hostile strings."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from minillm import Tokenizer

# Tests of kernels ask for them by name; the others need not compile any.
os.environ["MINILLM_KERNELS"] = "numpy"
# Tables are as wide as they are, unless a test says how wide the terminal is.
os.environ.pop("COLUMNS", None)
# Each of several processes (pytest -n) has one core: threads of two would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
# Several hundred tests start Python anew, which must not compile the package's sources each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

TESTS = Path(__file__).resolve().parent
TRAINING_TEXT = (
    "the low lower lowest, the new newer newest; it's the wide wider widest <|endoftext|>"
)


def _hostile_strings() -> dict[str, str]:
    """Read {name: text}, a Python literal since JSON would join surrogates; the long ones are
    (text, times)."""
    entries = ast.literal_eval((TESTS / "data" / "hostile.txt").read_text(encoding="utf-8"))
    return {name: e if isinstance(e, str) else e[0] * e[1] for name, e in entries.items()}


HOSTILE = _hostile_strings()


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def hostile_text(request) -> str:
    """Each of the hostile strings of tests/data/hostile.txt in turn."""
    return request.param


@pytest.fixture(scope="session")
def hostile_texts() -> list[str]:
    """All of them."""
    return [*HOSTILE.values()]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """../shared/data beside the checkout: texts and GPT-2's vocabulary, too large for the
    repository."""
    folder = TESTS.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: the shared data are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def gpt2_tokenizer(shared_data) -> Tokenizer:
    """The tokenizer of GPT-2's own files."""
    return Tokenizer.from_pretrained(shared_data / "gpt2")


@pytest.fixture(scope="session")
def small_tokenizer() -> Tokenizer:
    """A tokenizer of at most 40 merges, learnt from one line repeated; knows <|endoftext|>."""
    return Tokenizer.train([TRAINING_TEXT] * 3, 256 + 40 + 1)


@pytest.fixture(scope="session", params=["small", "gpt2"])
def tokenizer(request) -> Tokenizer:
    """Both tokenizers in turn."""
    return request.getfixturevalue(f"{request.param}_tokenizer")
