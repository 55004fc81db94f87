"""Published facts: a model that they are true of, one of which each is false, one of another
shape."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, cli, load, ops
from minillm.checkpoints import find_folder
from minillm.published import FACTS, check, facts_of


def ignore(*args) -> None:
    """Progress that nobody sees."""


@pytest.fixture(scope="module")
def small():
    """A model, its tokenizer, and facts of the published kind that are true of it."""
    model, tokenizer = load("tales-draft")
    texts = {text: tokenizer.encode(text) for text in ("Once upon a time", "The fox said")}
    greedy, prompts = [], []
    for text, ids in texts.items():
        new = model.generate(ids, 7, temperature=0)[len(ids) :].tolist()
        greedy.append({"text": text, "ids": ids, "continuation": new})
        logits = model(ids)[-1].astype(np.float64) - 50  # the same differences, all others
        top = np.argsort(-logits)[:50].tolist()
        prompt = {"text": text, "ids": ids, "top_ids": top, "top_logits": logits[top].tolist()}
        prompt["logsumexp"] = float(logits[0] - ops.log_softmax(logits)[0])
        prompts.append(prompt | {"mean_logit": float(logits.mean())})
    facts = {
        "parameters": model.n_parameters,
        "tensors": len(model.parameters),
        "cache_bytes_per_token": 2 * 4 * model.config.n_layer * model.config.n_embd,
        "greedy": greedy,
        "logits": {"tolerance": 0.05, "prompts": prompts},
        "tokenizer": {
            "vocab_size": tokenizer.vocab_size,
            "merges": len(tokenizer.merges),
            "special_tokens": tokenizer.special_tokens,
            "ids": [[text, ids] for text, ids in texts.items()],
        },
    }
    return model, tokenizer, facts


def test_true_facts_are_ok(small):
    model, tokenizer, facts = small
    found = [*check(facts, model, tokenizer, ignore)]
    assert len(found) == 3 + 3 + 2 + 2 + 2 and all(fact.ok for fact in found), found


def other(facts, *path, by):
    """The facts with one number changed."""
    facts = copy.deepcopy(facts)
    place = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = by(place[path[-1]]) if callable(by) else by
    return facts


@pytest.mark.parametrize(
    "path, by, difference",
    [
        (("parameters",), 1, ","),
        (("tensors",), 1, ""),
        (("cache_bytes_per_token",), 1, "2,048"),
        (("tokenizer", "vocab_size"), 5, "4,096"),
        (("tokenizer", "merges"), 5, ""),
        (("tokenizer", "special_tokens"), {}, "endoftext"),
        (("tokenizer", "ids", 1, 1), [1], "["),
        (("greedy", 1, "continuation", 6), 3, "token 7 is"),
        (("logits", "prompts", 0, "top_ids", 0), 3, "the likeliest is"),
        (("logits", "prompts", 0, "top_logits", 49), lambda x: x + 0.06, "differences up to 0.06"),
        (("logits", "prompts", 1, "logsumexp"), lambda x: x - 0.06, "differences up to 0.06"),
        (("logits", "prompts", 1, "mean_logit"), lambda x: x + 1, "differences up to 1"),
        (("logits", "prompts", 1, "mean_logit"), float("nan"), "differences up to nan"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),  # a lambda's str is its address
)
def test_each_false_fact_is_seen_alone(small, path, by, difference):
    model, tokenizer, facts = small
    found = [*check(other(facts, *path, by=by), model, tokenizer, ignore)]
    [wrong] = [fact for fact in found if not fact.ok]
    assert difference in wrong.difference


def test_a_model_of_another_shape_differs_and_no_error_is_raised(small):
    facts = facts_of("openai-community/gpt2")
    found = [*check(facts, *small[:2], ignore)]
    assert [fact.ok for fact in found[-7:]] == [False] * 7
    assert "outside the vocabulary of 4096" in found[-1].difference
    assert not any(
        fact.ok for fact in check(facts, GPT2.random(GPT2Config(300, 8, 6, 1, 2)), None, ignore)
    )


def test_facts_are_found_by_name():
    assert facts_of("somewhere/gpt2")["tensors"] == 148
    assert facts_of("gpt2-xl").keys() == {"parameters", "tokenizer"}
    assert facts_of("tales") is None
    assert len(facts_of("gpt2")["logits"]["prompts"]) == 5


def test_the_file_agrees_with_itself_and_with_gpt2s_tokenizer(gpt2_tokenizer):
    facts = json.loads(FACTS.read_bytes())["models"]["gpt2"]
    for text in [*facts["greedy"], *facts["logits"]["prompts"]]:
        assert gpt2_tokenizer.encode(text["text"]) == text["ids"]
    for text in facts["logits"]["prompts"]:
        assert len(text["top_ids"]) == len(text["top_logits"]) == 50
        assert text["top_logits"] == sorted(text["top_logits"], reverse=True)
        assert text["mean_logit"] < text["top_logits"][0] < text["logsumexp"]
    small = GPT2.random(GPT2Config(300, 8, 6, 1, 2))
    found = [*check(facts_of("gpt2"), small, gpt2_tokenizer, ignore)]
    assert sum(fact.ok for fact in found) == 10  # those of the tokenizer


def test_verify_says_diff_in_lines_and_by_its_exit_code(tmp_path, capsys):
    for name in ("config.json", "model.safetensors", "vocab.json", "merges.txt"):
        (tmp_path / "gpt2").mkdir(exist_ok=True)
        shutil.copy(find_folder("tales-draft") / name, tmp_path / "gpt2")
    assert cli.main(["verify", str(tmp_path / "gpt2")]) == 1
    out, err = capsys.readouterr()
    assert "\nDIFF  124,439,808 parameters; here:" in out and "\nDIFF  50 largest logits" in out
    assert not err
    assert cli.main(["verify", str(tmp_path / "gpt2"), "--json"]) == 1
    [result] = json.loads(capsys.readouterr()[0])
    assert not result["ok"] and len(result["published"]) == 20


@pytest.mark.live
def test_random_weights_of_the_124m_shape(tmp_path, shared_data):
    GPT2.random(GPT2Config()).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(shared_data / "gpt2" / name, tmp_path)
    found = [*check(facts_of("gpt2"), *load(tmp_path), ignore)]
    assert [fact.ok for fact in found] == [True] * 13 + [False] * 7
