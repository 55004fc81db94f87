"""The drawing: every step and block is there, shapes are those of a real pass, a family that nobody
knew draws too, and the pictures in docs/ are current.

`python tests/page/test_drawing.py` writes those.
"""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from math import prod
from pathlib import Path

import numpy as np
import pytest

from minillm import families
from minillm.cli import main
from minillm.errors import InputError
from minillm.families import family as declared
from minillm.families import read_config
from minillm.families.family import CHOOSE, StepInfo
from minillm.families.gpt2.config import GPT2Config
from minillm.families.llama.config import LlamaConfig
from minillm.model import model_of
from minillm.page.drawing import CSS, drawing, words_of
from minillm.steps import local_name, phase_of

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "gpt2": GPT2Config(vocab_size=50, n_positions=16, n_embd=12, n_layer=2, n_head=3),
    "gpt2 with its own head": GPT2Config(
        vocab_size=50, n_positions=16, n_embd=12, n_layer=2, n_head=3, tie_word_embeddings=False
    ),
    "llama": LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
    ),
}
SHOWN = {"gpt2": lambda: read_config(ROOT / "weights" / "tales"), "llama": LlamaConfig}


def parts(svg: str, kind: str) -> dict[str, ET.Element]:
    """{name: element} of the parts of a kind."""
    found = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")
    return {g.attrib[f"data-{kind}"]: g for g in found if f"data-{kind}" in g.attrib}


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_every_step_block_and_phase_is_a_part(config):
    svg, steps = drawing(config), families.of(config).steps(config) | CHOOSE
    assert parts(svg, "step").keys() == {*map(local_name, steps)}
    assert [*parts(svg, "layer")] == [str(i) for i in range(config.sizes.L)]
    assert parts(svg, "phase").keys() == {phase_of(name) for name in steps}
    assert parts(svg, "part").keys() == {"ids", "stream", "cache", "loop"}


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_shapes_are_those_of_a_pass(config):
    """T = 5 new positions after 2: S = 7."""
    shapes = families.of(config).shapes(config)
    rng = np.random.default_rng(0)
    model = model_of(config, {n: rng.random(s, np.float32) for n, s in shapes.items()})
    cache = model.new_cache()
    model([1, 2], cache)
    trace = model.trace([1, 2, 3, 4, 5], cache)
    for name, part in parts(drawing(config), "step").items():
        if name in CHOOSE:
            continue
        said = part[0].text.split("; ")[0]  # <title>
        shape = re.search(r"[\dTS,]+( [→×+] [\dTS,]+)*$", said.split(": ", 1)[1])[0]
        numbers = re.sub(r",|.*→ ", "", shape).replace("T", "5").replace("S", "7")
        size = sum(prod(map(int, term.split(" × "))) for term in numbers.split(" + "))
        value = trace[name if name in trace else f"h.1.{name}"]
        assert size * (5 if "→" in shape else 1) == value.size, said


def test_a_family_that_nobody_knew_draws(monkeypatch):
    class OtherConfig(LlamaConfig):
        pass

    def steps(config):
        known = {}
        for name, step in llama.steps(config).items():
            known[name] = step
            if name.endswith("attn.v"):
                known |= {
                    name[:-1] + new: StepInfo("attend", new) for new in ("q_normed", "k_normed")
                }
            elif name.endswith("mlp.up"):
                known[name[:-2] + "router"] = StepInfo("feed forward", "router")
        return known

    llama = families.of(LlamaConfig())
    other = dataclasses.replace(llama, title="Other", config=OtherConfig, steps=steps)
    monkeypatch.setitem(declared._families, OtherConfig, other)
    svg = drawing(OtherConfig(num_hidden_layers=2))
    assert {"attn.q_normed", "attn.k_normed", "mlp.router"} <= parts(svg, "step").keys()
    assert "Other: each token id" in svg


@pytest.mark.parametrize(
    "here, step, layer, phase",
    [
        ("h.1.attn.scores", "attn.scores", "1", None),
        ("attn.scores", "attn.scores", None, None),
        ("h.1.mlp.residual", "mlp.residual", "1", None),
        ("h.0", None, "0", None),
        ("feed forward", None, None, "feed forward"),
        ("logits", "logits", None, None),
    ],
)
def test_here_is_marked_and_nothing_else(here, step, layer, phase):
    svg = drawing(SMALL["gpt2"], here)
    for kind, name in (("step", step), ("layer", layer), ("phase", phase)):
        marked = [n for n, g in parts(svg, kind).items() if g.get("class") == "here"]
        assert marked == ([name] if name else [])
    assert ("you are here" in svg) == (phase is None)


@pytest.mark.parametrize("here", ["h.2.attn.scores", "attention", "h.7", "", "<x>"])
def test_what_is_nowhere_is_refused(here):
    with pytest.raises(InputError, match="there is no step"):
        drawing(SMALL["gpt2"], here)


class Asked(dict):
    """Words that remember what was looked up."""

    def get(self, key, default=None):
        self[key] = key
        return default


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_chinese_has_all_words(config):
    asked = Asked()
    drawing(config, "h.0.attn.k", asked)
    known = words_of("zh")
    assert asked.keys() - known.keys() <= {"q", "k", "v"}
    for english, other in known.items():
        assert sorted(re.findall(r"{\w+}", english)) == sorted(re.findall(r"{\w+}", other))


def test_a_notebook_is_told_in_words():
    picture, told = drawing(GPT2Config(n_layer=2))._repr_svg_()
    assert picture.startswith("<svg") and told["alt"].startswith("GPT-2: each token id becomes")


def test_words_cannot_break_out():
    words = {"token ids": "</text><script>alert(1)</script>", "norm": "\" onload=alert(1) '&"}
    svg = drawing(SMALL["llama"], "h.0", words)
    assert "<script" not in svg
    assert parts(svg, "step")["ln_1"][0].text.startswith("h.*.ln_1: \" onload=alert(1) '&")


def test_a_page_may_bring_the_style_itself():
    assert "<style" in drawing(SMALL["gpt2"]) and "style" not in drawing(SMALL["gpt2"], css=False)
    assert "prefers-color-scheme:dark" in CSS


@pytest.mark.parametrize("name", SHOWN)
def test_the_pictures_in_docs_are_current(name):
    picture = (ROOT / "docs" / f"{name}.svg").read_text("utf-8")
    assert picture == drawing(SHOWN[name]()), "run: python tests/page/test_drawing.py"


def test_the_command_draws(tmp_path, capsys):
    file = tmp_path / "model.svg"
    assert main(["info", "tales-draft", "--svg", str(file), "--language", "zh"]) in (0, None)
    assert "注意力" in file.read_text("utf-8")
    assert main(["info", "tales-draft", "--svg", str(tmp_path / "model.png")]) == 2
    assert "must end in one of .svg" in capsys.readouterr().err
    assert main(["info", "tales-draft", "--svg", str(file), "--here", "h.9"]) == 2
    assert "there is no step 'h.9'" in capsys.readouterr().err


if __name__ == "__main__":
    for name, config in SHOWN.items():
        (ROOT / "docs" / f"{name}.svg").write_text(drawing(config()), "utf-8")
