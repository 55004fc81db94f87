"""docs/recipes.md: its code, in a package of somebody else's, does what the page says."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import InputError, engines, ops
from minillm.checkpoints import opening
from minillm.cli import main

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"


def code_of(title: str) -> str:
    """The block of Python under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    return section.partition("```python\n")[2].partition("```")[0]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """package(title) -> the recipe's code as a module."""
    folder = tmp_path / "somebody_elses"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    def imported(title: str):
        name = re.sub(r"\W", "_", title)
        (folder / f"{name}.py").write_text(code_of(title), encoding="utf-8")
        return importlib.import_module(f"somebody_elses.{name}")

    yield imported
    for name in [n for n in sys.modules if n.startswith("somebody_elses")]:
        del sys.modules[name]


def test_a_format(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(opening, "FORMATS", {**opening.FORMATS})
    package("A file format")
    model, _ = minillm.load("tales-draft", kernels="numpy")
    file = tmp_path / "model.npz"
    model.save_pretrained(file)
    again = minillm.GPT2.from_pretrained(file, kernels="numpy")
    assert again.config == model.config
    assert np.array_equal(again([1, 2, 3]), model([1, 2, 3]))
    assert main(["info", str(file), "--json"]) == 0 and "n_embd" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"opens \.gguf, \.npz, or a folder"):
        minillm.GPT2.from_pretrained(PAGE)


def test_an_observer(package):
    model, tokenizer = minillm.load("tales-draft", kernels="numpy")
    watching = package("An observer of steps").Sureness(layer=1)
    list(minillm.generate(model, tokenizer, "Once upon", step=watching, max_new_tokens=3))
    (kind, _, first), *others = watching.cycles
    assert kind == "prefill" and [kind for kind, *_ in others] == ["decode"] * 2
    seen = model.trace(tokenizer.encode("Once upon"))["h.1.attn.weights"][0, :, -1]
    np.testing.assert_allclose(first, [-(w[w > 0] @ np.log2(w[w > 0])) for w in seen], rtol=1e-5)
    with pytest.raises(InputError, match=r"no step 'h\.9\.attn\.weights'"):
        model([1], step=type(watching)(layer=9))


def test_a_twin(package):
    twin = package("A twin")
    model, _ = minillm.load("tales-draft", kernels=twin)
    textbook, _ = minillm.load("tales-draft", kernels="numpy")
    assert model.ops is twin and twin.softmax is ops.softmax
    found, expected = model([1, 2, 3]), textbook([1, 2, 3])
    assert found.dtype == np.float32 and not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())


def test_an_engine(package, monkeypatch, capsys):
    """A port with a mistake: its step is named, and the switch that takes it away."""
    monkeypatch.setattr(engines, "ENGINES", {**engines.ENGINES})
    package("An engine")
    assert main(["verify", "tales-draft", "--engine", "port", "The king had"]) == 0
    said = capsys.readouterr().out
    assert "as it is: the first beyond rounding is h.0.mlp.act, position 0: apart by" in said
    assert "+1: GELU by tanh" in said and "+1: all within rounding" in said


def test_every_recipe_is_tried():
    """A family's in families/test_toy_family.py, a sampler's in decoding/test_options.py."""
    headings = re.findall("^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [
        *("A family", "A file format", "A sampler", "An observer of steps", "A twin", "An engine"),
    ]
    assert [h for h in headings if not code_of(h)] == ["A family"]
