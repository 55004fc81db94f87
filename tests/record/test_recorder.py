"""A recording is made of two runs over the same tokens: its times are a clock's, its values those
of a trace."""

import json
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError, Llama, LlamaConfig
from minillm.cli import main
from minillm.clock import predict
from minillm.clock.costs import step_costs
from minillm.clock.limits import Limits
from minillm.decoding import ModelDraft, NGramDraft, Options
from minillm.decoding.generate import moments
from minillm.ops import softmax
from minillm.record import record
from minillm.recording import ONE, read

LIMITS = Limits(
    {}, 2, {2**16: 1e11, 2**28: 2e10}, {"float32": 9e10}, {"float32": 1e11}, 5e9, 1e-6, 1e-5, 1e-7
)
SHAPES = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
PROMPT = "the lower"


@pytest.fixture(params=["gpt2", "llama"])
def model(request, small_tokenizer):
    """A small model of each family, whose activations are large enough to matter."""
    V = small_tokenizer.vocab_size
    if request.param == "llama":
        config = LlamaConfig(
            vocab_size=V, hidden_size=16, intermediate_size=24, max_position_embeddings=32, **SHAPES
        )
        small = Llama.random(config)
    else:
        small = GPT2.random(GPT2Config(V, n_positions=32, n_embd=16, n_layer=2, n_head=4))
    large = {name: p * 10 for name, p in small.parameters.items() if p.ndim == 2}
    return small.with_parameters(large)


def test_values_are_those_of_a_trace(model, small_tokenizer):
    made = record(model, small_tokenizer, PROMPT, max_new_tokens=6, limits=LIMITS, do_sample=False)
    ids = [*made.header["text"]["ids"], *(m["id"] for m in made.header["moments"])]
    assert ids[-6:] == [m.id for m in moments(model, ids[:-6], Options(max_new_tokens=6))]
    first, trace = len(ids) - 7, model.trace(ids[:-1])
    np.testing.assert_array_equal(made.arrays["candidates.ids"][:, 0], ids[-6:])
    # float32, and one pass instead of one a token: 5e-6 of logits up to 10 is the worst case seen
    near = {"rtol": 1e-4, "atol": 5e-5}
    logits = trace["logits"][0, first:]
    np.testing.assert_allclose(made.arrays["candidates.logits"][:, 0], logits.max(-1), **near)
    np.testing.assert_allclose(made.arrays["chosen"][:, 1], softmax(logits).max(-1), **near)
    np.testing.assert_allclose(made.arrays["lens.chosen"][:, -1], softmax(logits).max(-1), **near)
    norms = np.linalg.norm(trace["h.0.attn.residual"][0], axis=-1)
    np.testing.assert_allclose(made.arrays["norms"][:, 1], norms, **near)
    rows, H = iter(np.split(made.arrays["attention"], np.cumsum(of_rows(made, 2, 4))[:-1])), 4
    assert made.header["attention"] == [*range(len(ids) - 1)]
    for p in made.header["attention"]:
        kept = next(rows).reshape(2, H, p + 1) / ONE
        expected = np.stack([trace[f"h.{i}.attn.weights"][0, :, p, : p + 1] for i in range(2)])
        np.testing.assert_allclose(kept, expected, atol=1 / ONE)


def of_rows(made, L, H):
    return [L * H * (p + 1) for p in made.header["attention"]]


def test_the_lens_is_the_model_cut_off_there(model, small_tokenizer):
    made = record(model, small_tokenizer, PROMPT, max_new_tokens=3, do_sample=False)
    ids = [*made.header["text"]["ids"], *(m["id"] for m in made.header["moments"])]
    cut = softmax(model.with_sizes({}, L=1)(ids)[-4:-1])  # after layer 0: the first of two blocks
    seen = np.take_along_axis(cut, made.arrays["lens.ids"][:, 1].astype(int), -1)
    np.testing.assert_allclose(made.arrays["lens.probabilities"][:, 1], seen, rtol=1e-4)


def test_tokens_of_the_timed_run_are_traced(model, small_tokenizer):
    """Draws differ from run to run; the second run has to take the first one's."""
    came = []
    made = record(
        model, small_tokenizer, PROMPT, told=came.append, max_new_tokens=8, temperature=5.0,
        top_k=50, chunk=1,
    )  # fmt: skip
    assert [m["id"] for m in made.header["moments"]] == [m.id for m in came]
    logprobs = [m["logprob"] for m in made.header["moments"]]
    np.testing.assert_allclose(np.log(made.arrays["chosen"][:, 1]), logprobs, rtol=1e-4)
    assert made.header["runs"]["difference"] < 1e-4  # of logits up to 10; 4e-6 seen
    assert made.arrays["chosen"][:, 3].max() > 0  # and one of them was not the likeliest
    n_prompt = len(made.header["text"]["ids"])
    assert [c["positions"] for c in made.header["cycles"]] == [1] * (n_prompt + 7)
    assert made.header["moments"][0]["cycle"] == n_prompt - 1
    logits, after = made.arrays["candidates.logits"], made.arrays["candidates.after"]
    ratio = np.exp((logits - logits[:, :1]) / 5)  # a temperature of 5
    np.testing.assert_allclose(after / after[:, :1], ratio, rtol=1e-4)


@pytest.mark.parametrize("kept_as", ["float32", "float16"])
def test_costs_and_cache_are_those_of_each_cycle(model, small_tokenizer, kept_as):
    options = {"max_new_tokens": 4, "limits": LIMITS, "cache_dtype": kept_as}
    made = record(model, small_tokenizer, PROMPT, **options)
    L, cached = model.config.sizes.L, np.dtype(kept_as).itemsize
    times = [L if step["layered"] else 1 for step in made.header["steps"]]
    for cycle, costs in zip(made.header["cycles"], made.arrays["costs"]):
        shape = cycle["positions"], cycle["past"]
        expected = step_costs(model.config, *shape, cached=cached)
        whole = (costs * np.array(times)[:, None]).sum(0)
        for n, what in enumerate(("products", "elements", "weights", "cache", "values")):
            assert whole[n] == pytest.approx(sum(getattr(c, what) for c in expected.values()))
        assert cycle["read"] + cycle["written"] == whole[3]
    seconds, names = made.arrays["predicted.seconds"], made.header["names"][0]
    assert seconds.min() >= 0 and np.all(seconds.reshape(4, len(names)).sum(-1) > 0)
    told = predict(model.config, LIMITS, names, *shape, cached=cached)
    np.testing.assert_allclose(seconds[-len(names) :], [told[name].seconds for name in names])


@pytest.mark.parametrize("options", [{"do_sample": False}, {"temperature": 2.0, "seed": 3}])
def test_of_a_batch_the_first_text_is_recorded(model, small_tokenizer, options):
    options = {"max_new_tokens": 5, "limits": LIMITS} | options
    alone = record(model, small_tokenizer, PROMPT, **options)
    made = record(model, small_tokenizer, PROMPT, batch=3, tries=2, **options)
    assert made.text == alone.text and made.header["options"]["batch"] == 3
    assert made.header["runs"]["difference"] < 1e-4  # of logits up to 10: another order of sums
    for one, cycle in zip(alone.header["cycles"], made.header["cycles"]):
        assert cycle["rows"] == 3 and cycle["kept"] == 3 * one["kept"]
    names = made.header["names"][
        0
    ]  # a word is chosen for each text, but for the last two at the end
    assert names.count("next") == 3
    seconds = made.arrays["predicted.seconds"][: len(names)]
    choosing = [seconds[n] for n, name in enumerate(names) if name == "probs"]
    first = alone.arrays["predicted.seconds"][alone.header["names"][0].index("probs")]
    assert sum(choosing) < 3.01 * first  # and not three times that for each


def test_of_a_draft_the_row_of_each_word_is_found(model, small_tokenizer):
    """The model guesses for itself: five words of a pass, one after another in its logits."""
    draft = ModelDraft(model, n_tokens=4)
    made = record(model, small_tokenizer, PROMPT, draft=draft, max_new_tokens=7, do_sample=False)
    verify = [c["kind"] for c in made.header["cycles"]].index("verify")
    assert sum(m["cycle"] == verify for m in made.header["moments"]) == 5
    assert made.header["runs"]["difference"] < 1e-4  # of logits up to 10: another order of sums


def test_of_beams_the_best_text_is_recorded(model, small_tokenizer):
    options = {"max_new_tokens": 6, "num_beams": 3}
    made = record(model, small_tokenizer, PROMPT, **options, limits=LIMITS, tries=2)
    ids = made.header["text"]["ids"]
    best = model.generate(ids, **options)
    assert [*ids, *(m["id"] for m in made.header["moments"])] == [*best]
    assert made.header["runs"]["difference"] < 1e-4  # so the rows that led to it were found
    assert [c["rows"] for c in made.header["cycles"]] == [1, 3, 3, 3, 3, 3]
    assert [m["cycle"] for m in made.header["moments"]] == [*range(6)]
    assert all(names[-1] == "next" and names.count("next") == 1 for names in made.header["names"])
    plain = softmax(model.trace([*best[:-1]])["logits"][0, len(ids) - 1 :])
    np.testing.assert_allclose(
        made.arrays["chosen"][:, 1], plain[range(6), best[len(ids) :]], rtol=1e-3
    )


def test_without_a_cache_nothing_is_kept(model, small_tokenizer):
    made = record(model, small_tokenizer, PROMPT, max_new_tokens=3, use_cache=False)
    n = len(made.header["text"]["ids"])
    assert [c["positions"] for c in made.header["cycles"]] == [n, n + 1, n + 2]
    assert not any(c["kept"] + c["read"] + c["written"] for c in made.header["cycles"])


def test_every_step_says_where_it_is_formed(model, small_tokenizer):
    made = record(model, small_tokenizer, PROMPT, max_new_tokens=2)
    for step in made.header["steps"]:
        assert step["equation"] and step["file"].startswith("minillm/"), step
        source = Path(minillm.__file__).parents[1] / step["file"]
        line = source.read_text("utf-8").splitlines()[step["line"] - 1]
        assert step["code"].splitlines()[0] == line.strip() and "step(" in step["code"], step


def test_positions_of_attention_can_be_chosen(model, small_tokenizer):
    made = record(model, small_tokenizer, PROMPT, max_new_tokens=3, attention=[1, 0])
    assert made.header["attention"] == [0, 1] and made.arrays["attention"].size == 2 * 4 * (1 + 2)
    with pytest.raises(InputError, match="attention of position 99: there are 0 to"):
        record(model, small_tokenizer, PROMPT, max_new_tokens=3, attention=[99])


def test_a_prompt_may_be_ids_and_a_text_may_stop(model, small_tokenizer):
    made = record(model, small_tokenizer, [104, 101], max_new_tokens=5, do_sample=False)
    assert made.header["text"]["prompt"] == small_tokenizer.decode([104, 101])
    assert made.header["text"]["pieces"] == []
    text = "".join(m["text"] for m in made.header["moments"])
    first = record(
        model, small_tokenizer, [104, 101], max_new_tokens=5, do_sample=False, stop=text[-1]
    )
    assert first.header["moments"][-1]["finish"] == "stop"
    assert len(first.header["moments"]) <= 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_return_sequences": 2, "num_beams": 2}, "cannot be had with num_return_sequences=2"),
        ({"num_beams": 2, "batch": 2}, "a batch of 2 cannot be had with num_beams=2"),
        ({"use_cache": False, "batch": 2}, "a batch of 2 cannot be had with use_cache=False"),
        ({"draft": NGramDraft(2), "batch": 2}, "a batch of 2 is recorded of minillm alone"),
        ({"draft": NGramDraft(2), "num_beams": 2}, "num_beams 2 is recorded of minillm alone"),
        ({"batch": 0}, "batch is 0"),
        ({"window": 4}, "a recording cannot be had with window=4"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"limits": Limits({}, 1, {8: 1.0}, {}, {}, 1, 1, 1, 1)}, "the limits are of"),
    ],
)
def test_what_cannot_be_recorded_is_refused(model, small_tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        record(model, small_tokenizer, PROMPT, **options)
    with pytest.raises(InputError, match="the prompt is empty"):
        record(model, small_tokenizer, "")


def test_the_command_writes_one(tmp_path, capsys):
    file = tmp_path / "a.recording"
    args = ["clock", "Once upon a time", "--model", "tales-draft", "--max-new-tokens", "3"]
    assert main([*args, "--no-limits", "--record", str(file)]) == 0
    made = read(file)
    assert made.header["limits"] is None and len(made.header["moments"]) == 3
    assert made.header["model"]["name"] == "tales-draft"
    capsys.readouterr()
    assert main([*args, "--record", str(file), "--draft", "tales-draft"]) == 2
    assert "leave out --draft" in capsys.readouterr().err
    assert json.dumps(made.header, allow_nan=False)
