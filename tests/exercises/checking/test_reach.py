"""The package's own function is no answer, whatever way leads to it."""

import sys

import pytest

from minillm.exercises import check, exercise
from minillm.exercises.student.folder import file_name
from tests.exercises.answers import answers, namespace, with_body_of

BORROWED = {
    "by its name": "def f(x):\n    from minillm.ops import softmax\n    return softmax(x)",
    "by another": "from minillm.ops import softmax as s\ndef f(x):\n    return s(x)",
    "by its module": "from minillm import ops\ndef f(x):\n    return ops.softmax(x)",
    "inside": "def f(x):\n    import minillm.ops as o\n    return o.softmax(x)",
    "all of it": "from minillm.ops import *\nown = softmax\ndef f(x):\n    return own(x)",
    "a kernel": "def f(x):\n    from minillm import kernels\n    return kernels.softmax(x)",
    "by a helper": (
        "import minillm.ops as o\ndef g(x):\n    return o.softmax(x)\nf = lambda x: g(x)"
    ),
    "by a class": (
        "class A:\n    def g(self, x):\n        import minillm.ops as o\n        return"
        " o.softmax(x)\na = A()\ndef f(x):\n    return A().g(x)"
    ),
    "importlib": (
        "import importlib\ndef f(x):\n    return"
        " importlib.import_module('mini' + 'llm.ops').softmax(x)"
    ),
    "__import__": "def f(x):\n    return __import__('minillm.ops').ops.softmax(x)",
    "sys.modules": (
        "import sys, minillm.ops\ndef f(x):\n    return sys.modules['minillm.ops'].softmax(x)"
    ),
    "eval": "def f(x):\n    return eval('__import__(\"minillm.ops\").ops.softmax(x)', {'x': x})",
    "globals of another": (
        "from minillm.ops import log_softmax\ndef f(x):\n    return"
        " log_softmax.__globals__['softmax'](x)"
    ),
    "a default": "from minillm.ops import softmax as s\ndef f(x, s=s):\n    return s(x)",
    "itself": "from minillm.ops import softmax as f",
}


@pytest.mark.parametrize("case", BORROWED)
@pytest.mark.parametrize("where", ["file", "notebook"])
def test_the_packages_own_function_is_no_answer(tmp_path, case, where):
    text = f"{BORROWED[case]}\nsoftmax = f\n"
    file = tmp_path / "0203_softmax.py"
    file.write_text(text)
    result = check("softmax", tmp_path if where == "file" else namespace(text))
    assert result.status == "not as asked" and "minillm's own" in result.message, result


LIBRARY = {
    "by its name": "from other import softmax\n",
    "by another": "from other import softmax as s\nsoftmax = lambda x: s(x)\n",
    "by its module": "import other\n\n\ndef softmax(x):\n    return other.softmax(x)\n",
    "inside": "def softmax(x):\n    from other import softmax as s\n    return s(x)\n",
    "bound": "from other import bound\n\n\ndef softmax(x):\n    return bound(x)\n",
}


@pytest.mark.parametrize("case", LIBRARY)
@pytest.mark.parametrize("where", ["file", "notebook"])
def test_another_librarys_function_is_no_answer(tmp_path, monkeypatch, case, where):
    """As torch.softmax is: of a library that is installed."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "other.py").write_text(
        "from minillm.ops import softmax as ours\n\n\nclass Owner:\n    bound = ours\n\n\n"
        "def softmax(x):\n    return ours(x)\n\n\nbound = softmax.__call__\n"
    )
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.setenv("PYTHONPATH", str(installed), prepend=":")
    monkeypatch.delitem(sys.modules, "other", raising=False)
    (tmp_path / "0203_softmax.py").write_text(LIBRARY[case])
    result = check("softmax", tmp_path if where == "file" else namespace(LIBRARY[case]))
    assert result.status == "not as asked", result
    assert "other: an answer imports numpy, math" in result.message, result


def test_what_of_pythons_own_computes_may_be_imported(tmp_path):
    text = (
        "from __future__ import annotations\n\nimport itertools\nimport math\nimport numpy as np\n"
        "from functools import partial\n\n\ndef softmax(x):\n"
        "    e = np.vectorize(math.exp)(x - x.max(-1, keepdims=True)).astype(x.dtype)\n"
        "    [*itertools.islice(e.flat, 1)]\n"
        "    return partial(np.divide, e)(e.sum(-1, keepdims=True))\n"
    )
    (tmp_path / "0203_softmax.py").write_text(text)
    for where in (tmp_path, namespace(text)):
        assert (result := check("softmax", where)).right, result


FOUND = {
    "work": ("answer = len('über 日本'.encode())", "right"),
    "from the package": ("from minillm.exercises import EXERCISES as e", "not as asked"),
    "the package's module": (
        "import minillm.exercises.student.folder as c\ne = c.EXERCISES",
        "not as asked",
    ),
    "by its path": ("import minillm\ne = minillm.exercises.EXERCISES", "not as asked"),
}


@pytest.mark.parametrize("case", FOUND)
def test_a_number_that_is_looked_up_is_no_prediction(tmp_path, case):
    text, status = FOUND[case]
    look = "" if "answer" in text else "\nanswer = e['bytes_of_a_text'].right()"
    (tmp_path / "0101_bytes_of_a_text.py").write_text(text + look, encoding="utf-8")
    assert check("bytes_of_a_text", tmp_path).status == status


def test_what_a_module_may_have_beside_its_function_takes_no_mark(tmp_path):
    """Annotations, data classes, the version of NumPy."""
    (tmp_path / "0203_softmax.py").write_text(
        "from __future__ import annotations\n\nfrom dataclasses import dataclass\n\n"
        "import numpy as np\n\nSHIFT: float = 0.0\nprint(np.__version__)\n\n\n"
        "@dataclass\nclass Row:\n    x: np.ndarray\n\n\n"
        "def softmax(x: np.ndarray) -> np.ndarray:\n"
        "    e = np.exp(Row(x).x - x.max(-1, keepdims=True) + SHIFT)\n"
        "    return e / e.sum(-1, keepdims=True)\n"
    )
    assert (result := check("softmax", tmp_path)).right, result


def test_what_the_stub_imports_may_be_used():
    """softmax and causal_mask in attention, layer_norm in block: and not the whole in its place."""
    assert check("attention", answers(exercise("attention"))).right
    borrowed = "from minillm.layers.attention import scaled_dot_product_attention as attention"
    assert (
        "minillm's own scaled_dot_product_attention"
        in check("attention", namespace(borrowed)).message
    )


OLD = {
    "attention": "from minillm.attention import causal_mask\nfrom minillm.ops import softmax\n",
    "greedy": (
        "from minillm.exercises.textbook import append\n"
        "from minillm.exercises.textbook import argmax\n"
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_what_a_stub_of_0_1_imports_takes_no_mark(tmp_path, name):
    """In its own file; in another it does."""
    file = tmp_path / file_name(exercise(name))
    file.write_text(f"import numpy as np\n{OLD[name]}\n\n{exercise(name).source()}")
    assert (result := check(name, tmp_path)).right, result
    other = "argmax" if name == "greedy" else "softmax"
    file = tmp_path / file_name(exercise(other))
    file.write_text(f"import numpy as np\n{OLD[name]}\n\n{with_body_of(exercise(other))}")
    assert check(other, tmp_path).status == "not as asked"


def test_a_stub_imports_what_its_answer_looks_up():
    """And nothing that merely has the name of a method: ids.append, logits.argmax."""
    assert "minillm" not in exercise("greedy").stub()
    assert "from minillm.ops import layer_norm\n" in exercise("block").stub()
