"""Classifiers: gradients against differences, padding, learning, keeping, resuming, and the command
line."""

from __future__ import annotations

import numpy as np
import pytest

from minillm import GPT2, GPT2Config
from minillm.errors import InputError
from minillm.tasks.classify import (
    BagOfWords,
    Pooled,
    Result,
    Transformer,
    load_classifier,
    settings_of,
    train_classifier,
)
from minillm.tasks.examples import Words
from minillm.tasks.lstm import LSTM, LSTMConfig

GOOD, BAD = ["fine", "bright", "lovely", "glad"], ["dull", "grey", "dreary", "sad"]
SMALL = {
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "vocab_size": 300,
    "batch_size": 8,
    "kernels": "numpy",
    "context": 40,
}
IDS = np.random.default_rng(0).integers(0, 11, (3, 6))
LENGTHS = np.array([2, 6, 1])
LABELS = np.array([2, 0, 1])


def classifier(kind: str, pool: str = "mean", dtype=np.float64):
    rng = np.random.default_rng(1)
    if kind == "bag-of-words":
        parameters = {
            "weight": rng.standard_normal((11, 3)).astype(dtype),
            "bias": rng.standard_normal(3).astype(dtype),
        }
        return BagOfWords("abc", Words([]), 6, parameters)
    if kind == "lstm":
        body = LSTM.random(LSTMConfig(11, 8, 1), dtype=dtype)
    else:
        body = Transformer(GPT2.random(GPT2Config(11, 6, 8, 2, 2), dtype=dtype))
        for (
            parameter
        ) in body.parameters.values():  # as far from their start as training would bring them
            parameter += 0.3 * rng.standard_normal(parameter.shape)
    score = {
        "weight": rng.standard_normal((8, 3)).astype(dtype),
        "bias": rng.standard_normal(3).astype(dtype),
    }
    return Pooled(body, score, pool, "abc", None, 6)


EVERY = [
    ("transformer", "mean"),
    ("transformer", "last"),
    ("lstm", "mean"),
    ("lstm", "last"),
    ("bag-of-words", ""),
]


@pytest.fixture
def data(tmp_path):
    """Two hundred and forty short texts, whose label one of their words tells."""
    rng = np.random.default_rng(5)
    lines = []
    for n in range(240):
        words = list(
            rng.choice(["the", "a", "day", "was", "very", "and", "so", "it"], rng.integers(5, 10))
        )
        words.insert(rng.integers(len(words)), rng.choice((GOOD, BAD)[n % 2]))
        lines.append(f"{' '.join(words)}\t{('up', 'down')[n % 2]}")
    (tmp_path / "data.tsv").write_text("\n".join(lines))
    return tmp_path / "data.tsv"


# ---- gradients


@pytest.mark.parametrize(("kind", "pool"), EVERY)
def test_every_gradient_against_differences(kind, pool):
    """In float64, 12 numbers of each parameter (e = 1e-6): cancellation leaves 1e-9; the worst seen
    was 7e-10."""
    model, rng = classifier(kind, pool), np.random.default_rng(2)
    batch = (IDS, LENGTHS, LABELS)
    _, gradients = model.loss_and_gradients(batch)
    assert gradients.keys() == model.parameters.keys()
    for name, parameter in model.parameters.items():
        for index in (tuple(rng.integers(0, parameter.shape)) for _ in range(12)):
            before, losses = parameter[index], []
            for e in (1e-6, -1e-6):
                parameter[index] = before + e
                losses.append(model.loss_and_gradients(batch)[0])
            parameter[index] = before
            expected = (losses[0] - losses[1]) / 2e-6
            assert abs(gradients[name][index] - expected) < 2e-8 * max(1, abs(expected)), (
                name,
                index,
            )


@pytest.mark.parametrize(("kind", "pool"), EVERY)
def test_unequal_parts_add_up_to_the_whole(kind, pool):
    """float64, sums in another order: worst seen 2e-16."""
    model, n = classifier(kind, pool), len(LABELS)
    loss, expected = model.loss_and_gradients((IDS, LENGTHS, LABELS))
    parts = [(IDS[part], LENGTHS[part], LABELS[part]) for part in (slice(1), slice(1, n))]
    assert [model.n_targets(part) for part in parts] == [1, n - 1]
    losses, gradients = zip(*(model.loss_and_gradients(part, n) for part in parts))
    assert sum(losses) == pytest.approx(loss, rel=1e-14)
    for name, gradient in expected.items():
        found = gradients[0][name] + gradients[1][name]
        assert np.abs(found - gradient).max() <= 1e-14 * max(1, np.abs(gradient).max()), name


@pytest.mark.parametrize(("kind", "pool"), EVERY)
def test_padding_changes_nothing(kind, pool):
    model = classifier(kind, pool)
    logits = model.forward(IDS, LENGTHS)
    for row, n in enumerate(LENGTHS):
        assert np.abs(model.forward(IDS[row : row + 1, :n], [n]) - logits[row]).max() < 1e-13
    _, gradients = model.loss_and_gradients((IDS, LENGTHS, LABELS))
    other = np.where(np.arange(6) < LENGTHS[:, None], IDS, 10 - IDS)
    _, same = model.loss_and_gradients((other, LENGTHS, LABELS))
    for name, gradient in gradients.items():
        assert np.abs(gradient - same[name]).max() < 1e-13, name


@pytest.mark.parametrize(("kind", "pool"), EVERY)
def test_float32_stays_float32(kind, pool):
    model = classifier(kind, pool, np.float32)
    assert model.forward(IDS, LENGTHS).dtype == np.float32
    _, gradients = model.loss_and_gradients((IDS, LENGTHS, LABELS))
    assert {g.dtype for g in gradients.values()} == {np.dtype(np.float32)}


# ---- training


@pytest.mark.parametrize("kind", ["transformer", "lstm", "bag-of-words"])
def test_learns_and_is_kept(kind, data, tmp_path):
    flags = SMALL | {"model": kind, "epochs": 10, "lr": 1e-2}
    reports = []
    model, result, _ = train_classifier(tmp_path / "run", data, echo=reports.append, **flags)
    assert (
        result.accuracy == 1.0
        and result.confusion.tolist() == [[12, 0], [0, 12]]
        and result.labels == ["down", "up"]
    )
    assert [r["epoch"] for r in reports] == list(range(1, 11))
    again = load_classifier(tmp_path / "run", "numpy")
    texts = ["a dreary day", "", "so it was lovely " * 30]
    assert np.array_equal(again.log_probabilities(texts), model.log_probabilities(texts))
    assert np.allclose(np.exp(again.log_probabilities(texts)).sum(axis=1), 1)
    with pytest.raises(InputError, match="there is a run already"):
        train_classifier(tmp_path / "run", data, **flags)


def test_begins_with_a_trained_model(data, tmp_path, small_tokenizer):
    first = GPT2.random(GPT2Config(small_tokenizer.vocab_size, 32, 16, 1, 2), seed=7)
    first.save_pretrained(tmp_path / "first")
    small_tokenizer.save(tmp_path / "first")
    flags = {"kernels": "numpy", "steps": 1, "lr": 1e-9, "warmup": 0}
    model, _, _ = train_classifier(tmp_path / "run", data, start=str(tmp_path / "first"), **flags)
    assert np.allclose(model.parameters["wte.weight"], first.parameters["wte.weight"], atol=1e-6)
    assert model.tokenizer.merges == small_tokenizer.merges and model.context == 32
    with pytest.raises(InputError, match=r"context is 64; .* has 32 positions"):
        train_classifier(tmp_path / "two", data, start=str(tmp_path / "first"), context=64)
    with pytest.raises(InputError, match="is a Transformer; --model lstm"):
        settings_of("first", model="lstm")


def test_resumed_equals_uninterrupted(data, tmp_path):
    flags = SMALL | {"model": "lstm", "epochs": 2, "checkpoint_every": 5}
    whole, _, _ = train_classifier(tmp_path / "whole", data, **flags)

    class Killed(Exception):
        pass

    def kill(record):
        raise Killed

    with pytest.raises(
        Killed
    ):  # at the first evaluation, after step 27; the last checkpoint is of step 25
        train_classifier(tmp_path / "cut", data, echo=kill, **flags)
    rest, _, _ = train_classifier(tmp_path / "cut", None, resume=True, kernels="numpy")
    for name, parameter in whole.parameters.items():
        assert np.array_equal(parameter, rest.parameters[name]), name
    with pytest.raises(InputError, match=r"has lr 0.003, not 0.1"):
        train_classifier(tmp_path / "cut", None, resume=True, lr=0.1)


def test_held_out_texts_of_ones_own(data, tmp_path):
    (tmp_path / "test.csv").write_text("text,label\na glad day,up\nit was sad,sideways\n")
    with pytest.raises(
        InputError, match=r"test.csv: label 'sideways' was never seen in training; known: down, up"
    ):
        train_classifier(tmp_path / "run", data, test=tmp_path / "test.csv", **SMALL)
    (tmp_path / "test.csv").write_text("text,label\na glad day,up\n")
    _, result, _ = train_classifier(
        tmp_path / "run2", data, test=tmp_path / "test.csv", **SMALL | {"steps": 2}
    )
    assert result.confusion.sum() == 1


def test_result():
    result = Result(["a", "b"], np.array([[3, 1], [0, 4]]), 0.5)
    assert result.accuracy == 7 / 8 and result.to_dict()["confusion"] == [[3, 1], [0, 4]]
