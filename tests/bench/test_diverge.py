"""Where two models part: a changed weight is found at its step and moment, rounding is not."""

from types import SimpleNamespace

import numpy as np
import pytest

from minillm import GPT2Config, InputError, LlamaConfig, ops
from minillm.bench.diverge import diverge
from minillm.bench.rounding import Side, compared
from minillm.exercises import exercise
from minillm.families.family import MATRIX, POSITIONS, TABLE
from minillm.families.llama.qwen import Qwen3Config
from minillm.model import model_of
from minillm.steps import Relay
from minillm.twins.choose import twin
from tests.families.able import lively

LLAMA = {
    "vocab_size": 67,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
CONFIGS = [
    GPT2Config(vocab_size=67, n_positions=32, n_embd=24, n_layer=2, n_head=3),
    LlamaConfig(**LLAMA),
    Qwen3Config(**LLAMA, head_dim=6, tie_word_embeddings=False),
]
MODELS = [lively(config) for config in CONFIGS]
IDS, NEW = [5, 40, 3, 17, 66, 8, 21, 30], 6


def formed_by(model, name: str) -> str:
    """The step that a parameter forms."""
    layer, _ = model.family.local_name(name)
    forms = model.layout[name].forms
    return forms if layer is None else f"h.{layer}.{forms}"


def with_one_change(model, name: str, index, times: float):
    """The model with one weight changed so that its step, in the pass over IDS, is apart by `times`
    its rounding, measured between twins: float32's and float64's."""
    step, exact, weights = formed_by(model, name), Side(model).exact, model.parameters[name]
    trace = model.trace(IDS, last=True)

    def from_its_inputs(parameters) -> np.ndarray:
        relay = Relay(trace)
        exact.with_parameters(parameters)(IDS, last=True, step=relay)
        return relay.trace[step]

    one = weights.astype(np.float64)
    one[index] += 1.0
    plain = from_its_inputs({})
    rounding = max(abs(trace[step] - plain).max(), np.finfo(np.float32).eps / 2 * abs(plain).max())
    new = weights.copy()
    new[index] += times * rounding / abs(from_its_inputs({name: one}) - plain).max()
    return model.with_parameters({name: new})


def used(model, name: str, rng):
    """The index of one number of a parameter that the pass over IDS uses."""
    index = [int(rng.integers(n)) for n in model.parameters[name].shape]
    if model.layout[name].role == POSITIONS:
        index[0] = int(rng.integers(len(IDS)))
    if model.layout[name].role == TABLE and model.layout[name].forms == "wte":
        index[0] = int(rng.choice(IDS))
    return tuple(index)


@pytest.mark.parametrize("seed", range(20))
def test_a_seeded_change_of_one_weight_is_found_at_its_step(seed):
    """Ten times its step's rounding, anywhere in models of three families: twenty of twenty."""
    rng = np.random.default_rng(seed)
    model = MODELS[seed % 3]
    name = str(rng.choice([*model.parameters]))
    other = with_one_change(model, name, used(model, name, rng), times=10)
    found = diverge(model, other, IDS, max_new_tokens=NEW)
    assert (found.moment, found.steps[0].name) == (0, formed_by(model, name))
    assert [(change.name, change.count) for change in found.changed] == [(name, 1)]
    assert {step.name for step in found.steps} <= {formed_by(model, name), "logits"}  # where tied


@pytest.mark.parametrize("table", ["wpe.weight", "model.embed_tokens.weight"])
def test_what_is_used_later_is_found_later(table):
    """A row of a table that only a later position, or a later token, takes."""
    model = MODELS[0] if table == "wpe.weight" else MODELS[2]  # whose head is a matrix of its own
    same = diverge(model, model, IDS, max_new_tokens=NEW)
    text, n = same.ids_a, len(IDS)
    at = (
        n + 3 if table == "wpe.weight" else next(i for i in range(n, n + NEW) if text[i] not in IDS)
    )
    new = model.parameters[table].copy()
    new[at if table == "wpe.weight" else text[at]] += 0.5
    found = diverge(model, model.with_parameters({table: new}), IDS, max_new_tokens=NEW)
    step = found.steps[0]
    assert (found.moment, step.position, step.name) == (at - n + 1, at, formed_by(model, table))
    assert found.ids_a == text and found.apart[: found.moment] == [0.0] * found.moment


def test_who_writes_and_which_moment_is_compared_is_shown(bar_of):
    shown = bar_of("minillm.bench.diverge")
    diverge(MODELS[0], MODELS[0], IDS, max_new_tokens=2)
    writing = [("writing", 0, 2, "A"), ("writing", 1, 2, "B")]
    assert shown == [*writing, ("comparing", 0, 2), ("comparing", 1, 2)]


def test_what_is_within_rounding_is_not_found():
    """A change by a tenth of a step's rounding."""
    for seed, model in enumerate(MODELS):
        rng = np.random.default_rng(seed)
        for name in rng.choice([n for n, p in model.layout.items() if p.role == MATRIX], 4):
            other = with_one_change(model, name, used(model, name, rng), times=0.1)
            assert diverge(model, other, IDS, max_new_tokens=2).moment is None


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.family.name)
def test_rounding_alone_is_no_difference(model):
    """Kernels sum in another order; float64 rounds where it does not show."""
    fast = model_of(model.config, model.parameters, twin("numba"))
    for a, b in ((model, fast), (model, model.astype(np.float64))):
        found = diverge(a, b, IDS, max_new_tokens=NEW)
        assert found.moment is None and found.formed == len(model.step_names) + 1
        assert max(found.apart) < 1e-4


def test_a_stored_kind_differs_where_it_is_first_multiplied_by():
    model = lively(GPT2Config(vocab_size=67, n_positions=32, n_embd=32, n_layer=2, n_head=4))
    found = diverge(model, model.quantize("int8"), IDS, max_new_tokens=NEW)
    assert found.moment == 0 and found.steps[0].name in ("wte", "h.0.attn.c_attn")
    matrices = {formed_by(model, name) for name in model.matrices()}
    assert matrices <= {step.name for step in found.steps} <= {*matrices, "wte", "logits"}


def test_another_function_is_found_where_the_weights_are_the_same():
    model = MODELS[0]
    wrong = SimpleNamespace(**vars(ops) | {"gelu_new": exercise("gelu_new").function("erf_gelu")})
    found = diverge(model, model_of(model.config, model.parameters, wrong), IDS, max_new_tokens=2)
    assert found.steps[0].name == "h.0.mlp.act" and not found.changed
    assert {step.name for step in found.steps} == {"h.0.mlp.act", "h.1.mlp.act"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sides", [(0,), (1,), (2, 3), (0, 1), (0, 1, 2, 3)])
def test_no_rounding_hides_what_is_not_finite(bad, sides):
    """a, b and both in float64, some of which are not finite in one number; equal infinities of
    both are no difference, and neither are textbooks that overflow."""
    values = [np.ones((1, 3, 4), np.float64 if i > 1 else np.float32) for i in range(4)]
    for side in sides:
        values[side][0, 1, 2] = bad
    found = compared("h.0.ln_1", 3, *values)
    same = sides == (2, 3) or (np.isinf(bad) and {0, 1} <= {*sides})
    assert found.differs == (not same) and np.isfinite(found.rounding)
    assert same or ((found.position, found.index) == (1, (0, 1, 2)) and "not finite" in str(found))


# ---- the texts


def test_texts_are_those_that_each_writes_and_branch_where_they_part():
    model = MODELS[0]
    other = lively(CONFIGS[0], seed=1)
    found = diverge(model, other, IDS, max_new_tokens=NEW)
    n, m = len(IDS), found.parting
    assert found.ids_a == model.generate(IDS, NEW).tolist()
    assert found.ids_b == other.generate(IDS, NEW).tolist()
    assert found.ids_a[: n + m] == found.ids_b[: n + m] and len(found.apart) == m + 1
    assert [*found.candidates] == [found.ids_a[n + m], found.ids_b[n + m]]
    branch = found.ids_b[: n + m + 1]
    assert found.crossed == model.generate(branch, NEW - m - 1).tolist()


def test_texts_that_part_at_the_last_token_have_no_branch():
    model, other = MODELS[0], lively(CONFIGS[0], seed=2)
    parting = diverge(model, other, IDS, max_new_tokens=NEW).parting
    found = diverge(model, other, IDS, max_new_tokens=parting + 1)
    assert found.parting == parting and found.crossed is None


def test_draws_alone_are_said_to_be_draws():
    model = MODELS[0]
    options = {"max_new_tokens": NEW, "temperature": 2.0}
    same = diverge(model, model, IDS, seeds=(1, 1), **options)
    assert same.parting is None and same.moment is None and same.ids_a == same.ids_b
    found = diverge(model, model, IDS, seeds=(1, 2), **options)
    assert found.moment == found.parting and found.steps[0].name == "next"
    assert found.ids_b == model.generate(IDS, seed=2, do_sample=True, **options).tolist()
    assert found.apart[0] == 0.0


def test_options_that_differ_show_in_the_probabilities():
    """What generation_config.json says is part of a model."""
    model = MODELS[0]
    config = CONFIGS[0].__class__(**{**vars(CONFIGS[0]), "generation": {"temperature": 0.5}})
    other = model_of(config, model.parameters)
    found = diverge(model, other, IDS, seeds=(1, 1), max_new_tokens=2)
    assert (found.moment, found.steps[0].name) == (0, "probs")


# ---- what cannot be compared


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (0, 1, {}, "A is a GPT-2 and B a Llama"),
        (1, 2, {}, "A is a Llama and B a Qwen3"),
        (0, 0, {"max_new_tokens": 60}, "60 new ones are more than the 32 positions"),
    ],
)
def test_what_cannot_be_compared_is_one_line(a, b, options, message):
    with pytest.raises(InputError, match=message):
        diverge(MODELS[a], MODELS[b], IDS, **options)


def test_sizes_must_be_the_same():
    wider = lively(GPT2Config(vocab_size=67, n_positions=32, n_embd=48, n_layer=2, n_head=3))
    with pytest.raises(InputError, match="A has C = 24 and B C = 48"):
        diverge(MODELS[0], wider, IDS)
