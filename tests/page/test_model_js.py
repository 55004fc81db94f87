"""The model in the page is the textbook twin on the same stored weights: tokens, every step,
logits, choices. In node here; in Chromium with -m browser, under a page's own security policy.
"""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import Tokenizer
from minillm.checkpoints.find import bundled_names
from minillm.compression import quantize
from minillm.decoding.options import Options
from minillm.families.gpt2.config import GPT2Config
from minillm.families.llama.config import LlamaConfig
from minillm.page import packing
from minillm.page.packing import KINDS, pack
from minillm.steps import Patch
from tests.families.able import LLAMA3, lively

TESTS = Path(__file__).resolve().parent
GREEDY = {"do_sample": False, "max_new_tokens": 200}
CLOSE = 2e-5  # of logits: sums are in float64 there, in float32 here


@cache
def node() -> str:
    """The program node, from a version on that takes .js for modules."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not there (the JavaScript of the page is run by it)")
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    major, minor = map(int, version[1:].split(".")[:2])
    if not (major >= 23 or (major, minor) >= (22, 7) or (major == 20 and minor >= 19)):
        pytest.skip(f"node is {version.strip()}; needed: 20.19, 22.7 or newer")
    return program


def in_node(file: bytes, tasks: list, tmp_path: Path) -> list:
    """The answers to tasks.js's tasks."""
    (tmp_path / "model.bin").write_bytes(file)
    done = subprocess.run(
        [node(), TESTS / "node.mjs", packing.SCRIPTS, tmp_path / "model.bin"],
        input=json.dumps(tasks),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def floats(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.float32).reshape(*shape or (-1,))


GPT2 = {"vocab_size": 300, "n_positions": 32, "n_embd": 36, "n_layer": 2, "n_head": 3}
LLAMA = {
    "vocab_size": 300,
    "hidden_size": 40,
    "intermediate_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
CONFIGS = {
    "gpt2": GPT2Config(**GPT2),
    "gpt2, gelu, own head": GPT2Config(
        **GPT2, activation_function="gelu", tie_word_embeddings=False
    ),
    "gpt2, relu, scales, narrow heads": GPT2Config(
        **GPT2, activation_function="relu", scale_attn_by_inverse_layer_idx=True, head_size=5
    ),
    "llama": LlamaConfig(**LLAMA),
    "llama, own head, biases": LlamaConfig(
        **LLAMA, tie_word_embeddings=False, attention_bias=True, mlp_bias=True
    ),
    "llama3": LlamaConfig(**LLAMA, rope_scaling=LLAMA3, head_dim=6),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_step_is_the_textbooks(config, small_tokenizer, tmp_path):
    """Worst measured: 1.1e-6 of the largest value of a step."""
    model, before, ids = lively(config), [3, 5, 7], [11, 2, 250, 4]
    for kind in KINDS:
        twin = quantize(model, kind)
        tasks = [["trace", {"before": before, "ids": ids, "last": last}] for last in (False, True)]
        tasks.append(["trace", {"before": [], "ids": ids, "last": False}])
        answers = in_node(pack(model, small_tokenizer, kind), tasks, tmp_path)
        for answer, (_, task) in zip(answers, tasks):
            kv = twin.new_cache()
            if task["before"]:
                twin(task["before"], kv)
            trace = twin.trace(task["ids"], kv, last=task["last"])
            assert [name for name, *_ in answer] == [*trace]
            for name, shape, data in answer:
                wanted = trace[name][0]
                assert tuple(shape) == wanted.shape, name
                error = np.abs(floats(data, *shape) - wanted).max() / np.abs(wanted).max()
                assert error < 1e-5, f"{kind} {name}: {error}"


def compare_greedy(model, tokenizer, answer, prompt, n) -> float:
    """The largest difference of the logits, up to where tokens differ, which they may only where
    the textbook's two largest logits are closer than CLOSE."""
    ids, kv, worst = list(prompt), model.new_cache(), 0.0
    new, found = ids, floats(answer["logits"], len(answer["ids"]), -1)
    for token, logits in zip(answer["ids"], found):
        wanted = model(new, kv, last=True)[0]
        worst = max(worst, float(np.abs(wanted - logits).max()))
        if (best := int(wanted.argmax())) != token:
            first, second = np.sort(wanted)[[-1, -2]]
            assert first - second < CLOSE
            break
        new = [best]
    else:
        assert len(found) == n or answer["finish"] == "eos"
    assert worst < CLOSE
    return worst


MODELS = [(name, kind) for name in bundled_names() for kind in KINDS]
LIVE = [
    m if m == ("tales-draft", "int8") else pytest.param(*m, marks=pytest.mark.live) for m in MODELS
]


@pytest.mark.parametrize("name, kind", LIVE)
def test_bundled_models_write_the_same(name, kind, tmp_path):
    """Worst measured: 1.3e-5."""
    model, tokenizer = minillm.load(name, kernels="numpy")
    prompt = tokenizer.encode("Once upon a time")
    task = ["generate", {"ids": prompt, "options": GREEDY}]
    [answer] = in_node(pack(model, tokenizer, kind), [task], tmp_path)
    worst = compare_greedy(quantize(model, kind), tokenizer, answer, prompt, 200)
    print(name, kind, worst)


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_llama_writes_the_same(kind, small_tokenizer, tmp_path):
    config = LlamaConfig(**LLAMA | {"max_position_embeddings": 256})
    model = lively(config, size=0.1)
    task = ["generate", {"ids": [1, 2, 3], "options": GREEDY}]
    [answer] = in_node(pack(model, small_tokenizer, kind), [task], tmp_path)
    print(compare_greedy(quantize(model, kind), small_tokenizer, answer, [1, 2, 3], 200))


SAMPLED = [
    {"temperature": 0.8},
    {"do_sample": True, "top_k": 20},
    {"top_p": 0.9, "temperature": 1.3},
    {"min_p": 0.05},
    {"top_k": 50, "top_p": 0.95, "min_p": 0.02, "temperature": 0.7},
]


def test_a_seed_draws_the_same_text(tmp_path):
    """A draw would have to fall within 1e-6 of a boundary to go the other way."""
    model, tokenizer = minillm.load("tales-draft", kernels="numpy")
    ids, n = tokenizer.encode("The king"), {"max_new_tokens": 25}
    options = [o | n | {"seed": seed} for seed, o in enumerate(SAMPLED)]
    tasks = [["generate", {"ids": ids, "options": o}] for o in options]
    twin = quantize(model, "int8")
    for answer, given in zip(in_node(pack(model, tokenizer), tasks, tmp_path), options):
        moments = [*minillm.generate(twin, tokenizer, "The king", **given)]
        assert answer["ids"] == [m.id for m in moments]
        assert answer["text"] == "".join(m.text for m in moments)
        np.testing.assert_allclose(answer["logprobs"], [m.logprob for m in moments], atol=1e-4)


def test_draws_are_numpys(small_tokenizer, tmp_path):
    seeds = [0, 1, 2**32 - 1, 2**32, 12345678901234567890, 2**200 + 3]
    tasks = [["random", {"seed": str(seed), "n": 20}] for seed in seeds]
    answers = in_node(pack(lively(CONFIGS["gpt2"]), small_tokenizer), tasks, tmp_path)
    for seed, answer in zip(seeds, answers):
        assert answer == np.random.default_rng(seed).random(20).tolist()


def test_distributions_and_choices(small_tokenizer, tmp_path):
    """Probabilities to 1e-6: float32, summed in another order."""
    rng = np.random.default_rng(0)
    logits = (4 * rng.standard_normal(200)).astype(np.float32)
    logits[50:60] = logits[49]  # ties
    every = [*SAMPLED, {}, {"temperature": 0}, {"temperature": 1e-9}, {"top_k": 1}, {"top_p": 1e-9}]
    every += [{"top_k": 155}, {"top_p": 1.0, "do_sample": True}, {"min_p": 1.0}]
    tasks = [["distribution", {"logits": logits.tolist(), "options": o}] for o in every]
    us = [None, 0.0, 0.25, 0.5, 1 - 2**-53]
    tasks.append(["choose", {"probs": [0, 0.25, 0.25, 0, 0.5, 0], "us": us}])
    tasks.append(["choose", {"probs": [0, 0], "us": [None]}])
    *answers, chosen, none = in_node(
        pack(lively(CONFIGS["gpt2"]), small_tokenizer), tasks, tmp_path
    )
    for answer, given in zip(answers, every):
        wanted = Options(**given).distribution(logits, [])
        np.testing.assert_allclose(floats(answer), wanted, atol=1e-6, err_msg=str(given))
        assert ((floats(answer) > 0) == (wanted > 0)).all(), given
    assert chosen == [4, 1, 2, 4, 4]
    assert "no token can be chosen" in none["error"]


# ---- the tokenizer


def variants(request) -> dict[str, Tokenizer]:
    small = request.getfixturevalue("small_tokenizer")
    tales = Tokenizer.from_pretrained("tales")
    end = dict(tales.special_tokens)

    def changed(**settings):
        return Tokenizer(tales.tokens, tales.merges, end, **settings)

    the = next(i for i, t in enumerate(tales.tokens) if t == b" the")
    return {
        "small": small,
        "tales": tales,
        "llama-bpe": changed(pattern="llama-bpe", ignore_merges=True),
        "qwen2": changed(pattern="qwen2", normalizer="NFC"),
        "smollm": changed(pattern="smollm"),
        "default": changed(pattern="default"),
        "added": changed(added_tokens={" the": the}, normalized=[" the"], template=((5,), (6, 7))),
        "bytes without a token": Tokenizer(
            [None if t in (b"e", b"\xc3") else t for t in small.tokens], [], small.special_tokens
        ),
        "gaps": Tokenizer(
            [None if t in (b"e", b"\xc3") else t for t in small.tokens],
            [],
            small.special_tokens,
            gaps=True,
        ),
    }


def test_tokens_are_pythons_on_hostile_text(request, tmp_path):
    from_conftest = request.getfixturevalue("hostile_texts")
    rng = random.Random(0)
    kinds = [
        "aZé'’ \t\r\n12٣",
        "語ß\u0301\u200d👩‍👧\u202e\ufeff\x85\x1c\u2028",
        "\ud800\udc00<|endoftext|>the",
    ]
    texts = [*from_conftest, *("".join(rng.choices("".join(kinds), k=60)) for _ in range(200))]
    for name, tokenizer in variants(request).items():
        short = [t for t in texts if len(t) < 2000][:40]
        some = texts if name == "tales" else [t for t in texts if len(t) < 20_000]
        model = lively(GPT2Config(vocab_size=tokenizer.vocab_size, n_embd=2, n_layer=1, n_head=1))
        ids = [rng.choices(range(tokenizer.vocab_size), k=30) for _ in range(50)]
        ids = [[i for i in row if tokenizer.tokens[i] is not None] for row in ids]
        tasks = [
            ["encode", {"texts": some}],
            ["encode", {"texts": some, "allowed": "all"}],
            ["decode", {"ids": ids}],
            ["explain", {"texts": short}],
            ["encode", {"texts": ["x"], "allowed": ["constructor"]}],
        ]
        answers = in_node(pack(model, tokenizer), tasks, tmp_path)
        assert answers[0] == [tokenizer.encode(t) for t in some], name
        assert answers[1] == [tokenizer.encode(t, "all") for t in some], name
        assert answers[2] == [tokenizer.decode(row) for row in ids], name
        for told, text in zip(answers[3], short):
            pieces = tokenizer.explain(text)
            assert [p["text"] for p in told] == [p.text for p in pieces], name
            assert [p["ids"] for p in told] == [[*p.ids] for p in pieces], name
            wanted = [[[m.rank, m.at, [*m.left], [*m.right]] for m in p.merges] for p in pieces]
            assert [p["merges"] for p in told] == wanted, name
        assert "no special token" in answers[4]["error"]


# ---- looking and changing


def test_a_step_may_change_what_follows(small_tokenizer, tmp_path):
    model, ids = lively(CONFIGS["llama"]), [3, 1, 4]
    tasks = [
        ["patch", {"ids": ids, "name": "h.0.mlp.act"}],
        ["patch", {"ids": ids, "name": "h.1.attn.weights"}],
        ["patch", {"ids": ids, "name": "h.1.attn.q", "keep": 5}],
        ["logits", {"ids": ids}],
    ]
    *patched, wrong, plain = in_node(pack(model, small_tokenizer, "float32"), tasks, tmp_path)
    for (_, task), answer in zip(tasks, patched):
        changed = model(ids, step=Patch({task["name"]: np.zeros_like}))
        np.testing.assert_allclose(floats(answer, 3, -1), changed, atol=CLOSE)
        assert np.abs(floats(answer) - floats(plain)).max() > 0.01
    assert "h.1.attn.q must return a value of shape 4,3,10" in wrong["error"]


def test_a_text_branches_with_its_cache(small_tokenizer, tmp_path):
    """What a cut cache computes is what a new one does, and what none does."""
    model = lively(CONFIGS["gpt2"])
    tasks = [
        ["branch", {"ids": [1, 2], "at": 3, "id": 77, "n": 8}],
        ["generate", {"ids": [1, 2], "options": GREEDY | {"max_new_tokens": 3}}],
    ]
    file = pack(model, small_tokenizer)
    tasks.append(["uncached", {"ids": [1, 2]}])
    other, first, uncached = in_node(file, tasks, tmp_path)
    assert uncached[:3] == first["ids"]
    tasks = [
        ["generate", {"ids": [1, 2, *first["ids"], 77], "options": GREEDY | {"max_new_tokens": 8}}]
    ]
    [whole] = in_node(file, tasks, tmp_path)
    assert other == whole["ids"]
    tasks = [["generate", {"ids": [1, 2], "options": GREEDY | {"max_new_tokens": 9}}]]
    [cached] = in_node(file, tasks, tmp_path)
    assert uncached == cached["ids"]


def test_what_cannot_be_is_said(small_tokenizer, tmp_path):
    file = pack(lively(CONFIGS["gpt2"]), small_tokenizer)
    tasks = [["logits", {"ids": ids}] for ids in ([], [300], [-1], [1.5], [1] * 33)]
    errors = [a["error"] for a in in_node(file, tasks, tmp_path)]
    assert "give at least one" in errors[0] and "id 300 is outside" in errors[1]
    assert "33 positions do not fit" in errors[4]
    for broken in (b"", b"\xff" * 100, file[: len(file) // 2], file[:3000]):
        [answer] = in_node(broken, tasks, tmp_path)
        assert answer["error"]


def test_the_error_function(small_tokenizer, tmp_path):
    import math

    xs = [-7, -6, -3, -2.5, -2.4999, -1, -1e-9, 0, 1e-300, 0.5, 2, 2.4999, 2.5, 4, 6, 9]
    [found] = in_node(
        pack(lively(CONFIGS["gpt2"]), small_tokenizer), [["erf", {"xs": xs}]], tmp_path
    )
    np.testing.assert_allclose(found, [*map(math.erf, xs)], rtol=1e-14)


# ---- in a browser

PAGE = b"<!doctype html><meta charset=utf-8><title>model</title><p>a model</p>"
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'"


@pytest.mark.browser
@pytest.mark.parametrize("name, kind", MODELS)
def test_in_a_browser_too(name, kind, chromium):
    page, (model, tokenizer) = chromium.new_page(), minillm.load(name, kernels="numpy")
    files = {f"/js/{path.name}": path.read_bytes() for path in packing.SCRIPTS.glob("*.js")}
    files |= {"/": PAGE, "/model": pack(model, tokenizer, kind)}
    files |= {"/tasks.js": (TESTS / "tasks.js").read_bytes()}
    foreign, said = [], []

    def answer(route):
        path = route.request.url.removeprefix("http://minillm.test")
        if path not in files:
            foreign.append(path)
            return route.abort()
        kinds = {"js": "text/javascript", "/": "text/html"}
        route.fulfill(
            body=files[path],
            content_type=kinds.get(path.rpartition(".")[2], "application/octet-stream"),
            headers={"Content-Security-Policy": POLICY},
        )

    page.route("**", answer)
    page.on("console", lambda message: said.append(message.text))
    page.goto("http://minillm.test/")
    ids = tokenizer.encode("Once upon a time")
    tasks = [
        ["generate", {"ids": ids, "options": GREEDY}],
        ["encode", {"texts": ["It's 12 o'clock.\r\n\u2003 語👩‍👧"]}],
    ]
    generated, encoded = page.evaluate(
        """async (tasks) => {
             const {run} = await import("/tasks.js");
             const file = await (await fetch("/model")).arrayBuffer();
             return run("/js", file, tasks);
           }""",
        tasks,
    )
    page.close()
    compare_greedy(quantize(model, kind), tokenizer, generated, ids, 200)
    assert encoded == [tokenizer.encode(tasks[1][1]["texts"][0])]
    assert {*foreign} <= {"/favicon.ico"} and not said
