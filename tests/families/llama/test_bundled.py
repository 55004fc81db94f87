"""What is said of Llama, on the one that comes along: `tales-llama`, without a download."""

import json

import numpy as np
import pytest

import minillm
from minillm import Llama, kernels
from minillm.cli import main
from minillm.clock import step_costs
from minillm.decoding import ModelDraft, NGramDraft, Options, Request, generate_batch
from minillm.decoding.generate import moments
from minillm.decoding.scoring import score_long
from minillm.layers.attention import repeat_heads
from minillm.layers.rope import rotate, rotation
from minillm.loading import load_model
from minillm.samples import own_or_sample
from tests.central import relative

GREEDY = {"max_new_tokens": 24, "do_sample": False}


@pytest.fixture(scope="module")
def model() -> Llama:
    return load_model("tales-llama", kernels="numpy")


@pytest.fixture(scope="module")
def tokenizer():
    return minillm.load("tales-llama")[1]


@pytest.fixture(scope="module")
def ids(tokenizer) -> np.ndarray:
    return np.array(tokenizer.encode("Once upon a time there was a king who had three daughters."))


@pytest.fixture(scope="module")
def plain(model, ids) -> list[int]:
    return model.generate(ids, **GREEDY)[len(ids) :].tolist()


def test_it_is_a_llama_as_large_as_tales_draft(model):
    draft = load_model("tales-draft")
    assert type(model) is Llama and model.n_parameters == 991_872
    assert abs(model.n_parameters / draft.n_parameters - 1) < 0.01


def test_grouped_queries_halve_the_cache(model):
    """K = 2 of H = 4: 2 x 2 layers x 2 heads x 32 numbers of 4 bytes a position."""
    draft = load_model("tales-draft")
    ours, theirs = model.new_cache(), draft.new_cache()
    assert ours.nbytes / ours.capacity == 1024 and ours.nbytes * 2 == theirs.nbytes
    read = [sum(c.cache for c in step_costs(m.config, 1, 100).values()) for m in (model, draft)]
    assert read[0] * 2 == read[1]


def test_every_way_of_decoding_writes_the_same(model, ids, plain, tokenizer):
    for more in ({"use_cache": False}, {"chunk": 5}):
        assert model.generate(ids, **GREEDY, **more)[len(ids) :].tolist() == plain
    for draft in (NGramDraft(), ModelDraft(load_model("tales-draft", kernels="numpy"))):
        text = moments(model, ids, Options(**GREEDY), draft=draft)
        assert [moment.id for moment in text] == plain
    requests = [Request(part.tolist(), Options(**GREEDY)) for part in (ids, ids[:4], ids[2:])]
    found = [moment.id for number, moment in generate_batch(model, requests) if number == 0]
    assert found == plain
    fast = load_model("tales-llama", kernels=kernels)
    assert fast._fused and fast.generate(ids, **GREEDY)[len(ids) :].tolist() == plain


def test_scores_know_the_distance_alone(model, ids):
    """Queries and keys turned by positions that are 300 further on have the same products; float64,
    in which the angles are rounded: worst seen 4e-14."""
    trace, scores = model.astype(np.float64).trace(ids), []
    q, k = trace["h.0.attn.q"], trace["h.0.attn.k"]
    for first in (0, 300):
        turn = rotation(first + np.arange(len(ids))[None], 32, 10000.0, dtype=np.float64)
        q_rotated, k_rotated = rotate(q, *turn), rotate(k, *turn)
        scores.append(q_rotated @ repeat_heads(k_rotated, 4).swapaxes(-1, -2) * 32**-0.5)
    assert relative(scores[0], trace["h.0.attn.scores"]) < 1e-12
    assert relative(scores[1], scores[0]) < 1e-12


# What each stored kind may cost, as a share of the bits per byte of float32; its weights are those
# of float16. Measured: 0, -1.9e-5, -6e-6, 0.0081, 0.0089.
COSTS = {"float16": 1e-7, "bfloat16": 1e-4, "int8": 1e-4, "int4_min": 0.012, "int4": 0.012}


def test_quantised_it_says_nearly_the_same(model, tokenizer):
    text = own_or_sample("fables.txt").read_text(encoding="utf-8")[:3000]

    def bits(model) -> float:
        return score_long(model, tokenizer, text, show_progress=False).bits_per_byte

    whole = bits(load_model("tales-llama", kernels="numba"))
    for kind, cost in COSTS.items():
        change = bits(load_model("tales-llama", kind, "numba")) / whole - 1
        assert abs(change) < cost, kind


def test_the_clock_knows_its_steps(capsys):
    arguments = ["clock", "Once upon a time", "--model", "tales-llama", "--max-new-tokens", "3"]
    assert main([*arguments, "--no-limits", "--json", "--every-step"]) == 0
    shown = capsys.readouterr().out
    assert "h.1.attn.k_rotated" in shown and "h.0.mlp.gate" in shown


def test_as_gguf_and_back_it_is_the_same(model, ids, tmp_path, capsys):
    target = tmp_path / "llama.gguf"
    assert main(["convert", "tales-llama", str(target)]) == 0
    found, words = minillm.load(target, "float32", "numpy")
    assert type(found) is Llama and words.encode("king") == minillm.load("tales-llama")[1].encode(
        "king"
    )
    assert np.array_equal(found(ids), model(ids))


def test_its_card_is_true(model):
    from minillm.checkpoints import find_folder

    folder = find_folder("tales-llama")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [r["bits_per_byte"] for r in records if "bits_per_byte" in r][-1]
    assert f"{last:.3f} bits per byte" in (folder / "README.md").read_text()
