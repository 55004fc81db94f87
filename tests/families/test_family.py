"""What a family declares is true: sizes, bytes, and that nobody else writes it down."""

import ast
import difflib
import re
from pathlib import Path

import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError, families
from minillm.clock import step_costs
from minillm.weights import KINDS, store_parameters

SHAPE = {"vocab_size": 50, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4}
CONFIGS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "pruned heads": {"n_head": 3, "head_size": 8},
    "odd F": {"n_inner": 37},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=[*CONFIGS])
def test_declared_bytes_are_those_of_the_parameters(changes, kind):
    """A pass over one token reads every parameter once, but one row only of a table that is looked
    up."""
    config = GPT2Config(**SHAPE | changes)
    parameters = store_parameters(GPT2.random(config).parameters, kind, config.layout)
    read = sum(cost.weights for cost in step_costs(config, 1, kind=kind).values())
    rows, wte = config.vocab_size, parameters["wte.weight"].nbytes
    whole = sum(p.nbytes for p in parameters.values()) - parameters["wpe.weight"].nbytes
    whole -= 0 if config.tied else wte
    assert read == pytest.approx(whole + wte / rows + 4 * config.n_embd, rel=1e-12)


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=[*CONFIGS])
def test_each_parameter_forms_a_step_and_has_the_shape_that_its_axes_say(changes):
    config = GPT2Config(**SHAPE | changes)
    family, model = families.of(config), GPT2.random(config)
    assert {n: p.shape for n, p in model.parameters.items()} == config.parameter_shapes()
    steps = family.steps(config)
    for name, parameter in config.layout.items():
        layer, _ = family.local_name(name)
        assert (f"h.{layer}." if layer is not None else "") + parameter.forms in steps
    assert [*model.trace([1, 2])] == [*steps] == model.step_names


NAMES = re.compile(r"\b(c_attn|c_proj|c_fc|lm_head|wpe|q_proj|k_proj|gate_proj|embed_tokens)\b")
# Who may write a family's own names: the families, what they share, and what teaches GPT-2.
MAY = ("families/", "layers/", "exercises/")


def words(tree: ast.AST):
    """The names and the short texts in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 60:
            yield node.value
        for field in ("id", "arg", "attr"):
            yield getattr(node, field, None) or ""


def test_only_families_write_their_names():
    package, found = Path(minillm.__file__).parent, set()
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if not name.startswith(MAY):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {name for word in words(tree) if NAMES.search(word)}
    assert not found


def test_forwards_are_short_and_can_be_read_side_by_side():
    """80 lines each, all counted; what differs is two screens of 60."""
    forwards = [
        Path(families.__file__).with_name(name).joinpath("forward.py").read_text().splitlines()
        for name in ("gpt2", "llama")
    ]
    assert max(map(len, forwards)) <= 80
    assert len([*difflib.unified_diff(*forwards)]) <= 120


def test_a_family_is_found_by_its_config_and_by_its_name():
    assert families.of(GPT2Config()) is families.described({"model_type": "gpt2"})
    others = "'gpt2', 'llama', 'qwen2', 'qwen3'$"  # none that is minillm's own
    with pytest.raises(minillm.InputError, match=f"model_type is 'bert'; minillm reads {others}"):
        families.described({"model_type": "bert"})
    with pytest.raises(minillm.InputError, match="dict is no config of a known family"):
        families.of({})


@pytest.mark.parametrize("family", families.known(), ids=lambda family: family.name)
def test_a_config_without_any_size_is_refused_and_one_size_is_enough(family):
    """What it does not say besides is what transformers takes."""
    if not family.sized_by:
        pytest.skip("a family of the tests")
    for given in ({"model_type": family.name}, {"model_type": family.name, "vocab_size": 9}):
        with pytest.raises(InputError) as error:
            families.parse_config(given, "w/config.json")
        names = ", ".join(family.sized_by)
        assert str(error.value).startswith(f"w/config.json: it says none of {names}: a config must")
    name = family.sized_by[0]
    given = {"model_type": family.name, name: 1}
    assert families.parse_config(given, "w").sizes.L == 1


def test_of_no_model_at_all_nothing_is_made():
    with pytest.raises(InputError, match=r"c: it says none of model_type, n_layer, n_head, n_embd"):
        families.parse_config({}, "c")
    old = {"n_ctx": 8, "n_positions": 8, "vocab_size": 9, "n_embd": 4, "n_layer": 1, "n_head": 2}
    assert families.parse_config(old, "c") == GPT2Config(9, 8, 4, 1, 2)
