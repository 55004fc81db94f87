"""The page with the model inside: it stays one file that needs nothing, its costs are Python's, and
in a browser (-m browser) it continues another text, branches and comes back, as the textbook does.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import recording
from minillm.cli import main
from minillm.clock.costs import step_costs
from minillm.compression import quantize
from minillm.decoding.plain import greedy_with_cache
from minillm.families.gpt2.config import GPT2Config
from minillm.families.llama.config import LlamaConfig
from minillm.ops import softmax
from minillm.page.packing import pack
from minillm.page.static import ALIVE, FILES, MODULES, bundle, cost_forms, page
from minillm.steps import Patch, local_name

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"
PROMPT = "The king said"


@pytest.fixture(scope="module")
def live():
    """The page of tales-draft with itself inside; and the model and its tokenizer."""
    model, tokenizer = minillm.load("tales-draft", kernels="numpy")
    made = recording.read(RECORDINGS / "tales-draft.recording")
    # what was compared with a reference was the run that comes with the page, and no later one
    made.header["compared"] = {"against": "textbook", "positions": 1, "tolerance": 1e-5}
    steps, layers = len(made.header["steps"]), made.header["model"]["sizes"]["L"]
    made.arrays["distances"] = np.zeros((steps, layers), np.float32)
    return page(made, pack(model, tokenizer)), quantize(model, "int8"), tokenizer


def test_the_model_is_inside_and_nothing_is_fetched(live):
    written, model, tokenizer = live
    inside = re.search(r'<script type="text/plain" id="model">(.*?)</script>', written)[1]
    assert base64.b64decode(inside) == pack(model, tokenizer)
    assert "connect-src" not in written and "unsafe" not in written
    assert len(written) < 2_100_000
    made = recording.read(RECORDINGS / "tales-draft.recording")
    assert 'id="model"' not in page(made) and len(page(made)) < 300_000


def test_every_module_imports_from_those_before_it():
    known = []
    for name in MODULES + ALIVE:
        source = (FILES / f"{name}.js").read_text("utf-8")
        assert {*re.findall(r'^} from "\./(\w+)\.js"|^import .* from "\./(\w+)\.js"', source, re.M)
                } <= {pair for n in known for pair in ((n, ""), ("", n))}  # fmt: skip
        known.append(name)
    assert not re.search(r"^(import|export) ", bundle(MODULES + ALIVE), re.M)
    assert not re.search(r"\beval\(|new Function|innerHTML", bundle(MODULES + ALIVE))


@pytest.mark.parametrize("config", [GPT2Config(n_layer=2), LlamaConfig(num_hidden_layers=2)])
def test_costs_are_pythons(config):
    """Coefficients are rounded to a millionth."""
    forms = np.array(cost_forms(config))
    for T, past in ((1, 40), (7, 0), (13, 5)):
        found = forms @ [1, T, past, T * past, T * T]
        costs = {local_name(n): c for n, c in step_costs(config, T, past, 1, "float32").items()}
        wanted = [[*vars(cost).values()] for cost in costs.values()]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-3)


def test_the_command_says_what_is_missing(capsys):
    assert main(["explore", "a", "--live"]) == 2
    assert "give --save page.html, too" in capsys.readouterr().err


# ---- in a browser


@pytest.fixture
def opened(live, tmp_path, chromium):
    """The page in Chromium, from a file; what it asks for and complains of fails the test."""
    (file := tmp_path / "page.html").write_text(live[0], "utf-8")
    tab, said = chromium.new_page(reduced_motion="reduce"), []  # all words at once
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda r: said.append(r.url) if r.url != file.as_uri() else None)
    tab.goto(file.as_uri())
    yield tab
    tab.close()
    assert not said


def wait_until(tab, true, seconds=60):
    for _ in range(10 * seconds):
        if true():
            return
        tab.wait_for_timeout(100)
    raise AssertionError(f"still {tab.inner_text('#state')!r}, {tab.inner_text('#words')!r}")


def ask(tab, prompt):
    """Type a text and wait for what comes after it."""
    tab.fill("#prompt", prompt)
    tab.press("#prompt", "Enter")
    tab.wait_for_timeout(200)
    wait_until(tab, lambda: not tab.inner_text("#state"))
    tab.keyboard.press("Escape")
    tab.locator("#scope").press("End")
    return tab.locator("#words").text_content()


@pytest.mark.browser
def test_it_continues_branches_and_comes_back(live, opened):
    _, model, tokenizer = live
    ids = tokenizer.encode(PROMPT)
    greedy = greedy_with_cache(model, ids, 40)
    assert ask(opened, PROMPT) == tokenizer.decode(greedy)
    assert tokenizer.decode([greedy[-1]]).strip() in opened.inner_text("#picked")

    opened.click("[data-moment='3']")
    opened.wait_for_timeout(200)  # cards follow a frame later
    logits = model(greedy[: len(ids) + 3])[-1]
    second = int(np.argsort(logits)[-2])
    opened.click("#candidates tbody tr:nth-child(2) button")
    tabs = opened.locator("#runs-tabs button")
    wait_until(opened, lambda: tabs.count() == 3)  # the page's own run, PROMPT, the branch
    other = greedy_with_cache(model, [*greedy[: len(ids) + 3], second], 40)
    opened.locator("#scope").press("End")
    assert opened.locator("#words").text_content() == tokenizer.decode(other)
    assert tokenizer.decode([second]).strip() in tabs.last.inner_text()

    tabs.nth(1).click()
    opened.locator("#scope").press("End")
    assert opened.locator("#words").text_content() == tokenizer.decode(greedy)


@pytest.mark.browser
def test_what_it_records_is_what_python_records(live, opened, tmp_path):
    """Numbers that views show, to the digits that they show."""
    from minillm.record import record

    _, model, tokenizer = live
    ask(opened, PROMPT)
    wanted = record(model, tokenizer, PROMPT, max_new_tokens=40, do_sample=False)
    lens, moment = wanted.arrays["lens.ids"], len(wanted.header["moments"]) - 1
    shown = opened.locator("#lens tbody tr").all_inner_texts()
    assert len(shown) == lens.shape[1]
    for row, ids, p in zip(shown, lens[moment], wanted.arrays["lens.probabilities"][moment]):
        assert wanted.header["tokens"][str(ids[0])].strip() in row
        assert f"{100 * p[0]:.2g}"[:3] in row or f"{100 * p[0]:.0f}" in row
    cache = wanted.header["cycles"][-1]["kept"]
    assert f"{cache / 1000:.3g}" in opened.inner_text("#facts").replace("\u202f", " ")


@pytest.mark.browser
def test_temperature_draws_what_python_draws(live, opened):
    _, model, tokenizer = live
    opened.locator("#temperature").fill("1.2")
    opened.locator("#top_k").fill("20")
    shown = {"temperature": 1.2, "top_k": 20, "top_p": 1, "min_p": 0}  # not the model's own min_p
    settings = shown | {"seed": 1, "max_new_tokens": 40}
    moments = minillm.generate(model, tokenizer, PROMPT, **settings)
    assert ask(opened, PROMPT) == PROMPT + "".join(m.text for m in moments)


@pytest.mark.browser
def test_a_patch_shows_what_follows(live, opened):
    """The same as Python's Patch: head 2 of layer 1 off, and the feed forward of another text."""
    _, model, tokenizer = live
    ask(opened, PROMPT)
    opened.click("[data-moment='0']")
    opened.wait_for_timeout(200)  # cards follow a frame later
    assert opened.locator("#patch table").count() == 0  # until it is asked for
    opened.click("#patch-go")
    ids = tokenizer.encode(PROMPT)
    before = softmax(model(ids, last=True)[0])
    by_name = {tokenizer.decode([i]).removeprefix(" "): i for i in np.argsort(before)}

    def shown():
        rows = opened.locator("#patch table").first.locator("tbody tr").all()
        return {
            r.locator("th").inner_text(): r.locator("td.number").all_inner_texts() for r in rows
        }

    def compare(patch):
        after = softmax(model(ids, last=True, step=patch)[0])
        for word, (was, now) in shown().items():
            i = by_name[word]
            for said, p in ((was, before[i]), (now, after[i])):
                assert abs(float(said.rstrip("%")) - 100 * p) < (0.051 if p < 0.0995 else 0.51)
        assert opened.locator("#patch tr.here").count() == 1

    for control, value in (("layer", "1"), ("head", "2"), ("where", "-1")):
        opened.select_option(f"#patch-{control}", value)
    off = np.ones((1, model.config.n_head, 1, 1), np.float32)
    off[0, 2] = 0
    compare(Patch({"h.1.attn.context": lambda value: value * off}))

    opened.select_option("#patch-part", "mlp.out")
    opened.select_option("#patch-where", str(len(ids) - 1))
    opened.select_option("#patch-into", "taken")
    opened.fill("#patch-text", "Once upon a time there was")
    opened.press("#patch-text", "Tab")
    theirs = model.trace(tokenizer.encode("Once upon a time there was"))["h.1.mlp.out"][:, -1:]
    compare(Patch({"h.1.mlp.out": lambda value: np.concatenate([value[:, :-1], theirs], axis=1)}))


@pytest.mark.browser
@pytest.mark.parametrize("text", ["</script><b id=out>", "\u202ex", "語" * 3000, "a" * 3000, " "])
def test_whatever_is_typed_is_text(opened, text):
    opened.fill("#prompt", text)
    opened.press("#prompt", "Enter")
    opened.wait_for_timeout(300)
    wait_until(
        opened, lambda: not opened.inner_text("#state") or "cannot" in opened.inner_text("#state")
    )
    assert opened.locator("#out").count() == 0
    assert "\u202e" not in opened.locator("#words").text_content()
