"""Every view of the page names its equation, and the lines that it comes from."""

import json
import re
from pathlib import Path

import pytest

import minillm
from minillm import GPT2Config, LlamaConfig
from minillm.page.sources import LEVERS, VIEWS, sources
from minillm.page.static import ALIVE, FILES, LANGUAGES, MODULES


@pytest.mark.parametrize("config", [GPT2Config(n_layer=1), LlamaConfig(num_hidden_layers=1)])
def test_every_view_says_what_it_rests_on(config):
    found = sources(config)
    for name, about in found.items():
        file = Path(minillm.__file__).parents[1] / about["file"]
        lines = file.read_text("utf-8").splitlines()
        first = about["code"].splitlines()[0]
        assert lines[about["line"] - 1].strip() == first, name
    asked = (FILES / "index.html").read_text("utf-8")
    asked += "".join((FILES / f"{name}.js").read_text("utf-8") for name in (*MODULES, *ALIVE))
    places = set(re.findall(r'data-source(?:=|": )"(\w+)"', asked))
    assert places == {*VIEWS, "map"} and found.keys() == {*VIEWS, "map", *LEVERS}
    kinds = (FILES / "views.js").read_text("utf-8").partition("export function pulled")[2]
    for lever in LEVERS:  # is one that two runs may differ in
        assert re.search(rf'\b{lever.removeprefix("lever.")}"?[:\]]|"text"', kinds), lever


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_view_has_a_sentence_and_an_equation(language):
    said = json.loads((FILES / f"{language}.json").read_text("utf-8"))
    assert {f"equation.{view}" for view in (*VIEWS, *LEVERS, "map")} <= said.keys()
    looks = {key: text for key, text in said.items() if key.startswith("look.")}
    views = {key.split(".")[1] for key in looks}
    assert {"attention", "candidates", "cycle", "kept", "lens", "map", "norms", "parting", "patch",
            "step", "table", "tokens"} <= views  # fmt: skip
