"""Settings: presets, TOML files and flags, and one line for whatever cannot be."""

import dataclasses

import pytest

from minillm import InputError
from minillm.tasks.settings import ClassifySettings
from minillm.training.settings import Settings, presets, settings


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid(name):
    assert settings(name).n_layer == settings(name).model_config(300, 0).sizes.L


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    (tmp_path / "s.toml").write_text("steps = 7\nlr = 1\n")
    plan, preset = settings("tiny", tmp_path / "s.toml", lr=0.5), settings("tiny")
    assert (plan.steps, plan.lr, plan.n_embd) == (7, 0.5, preset.n_embd)
    assert Settings(**plan.to_dict()) == plan


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("steps = ", "not valid TOML"),
        ("stepz = 3", "'stepz' is no setting; known: batch_size, "),
        ("steps = 1.5", "steps is 1.5; it must be of type int"),
        ("steps = true", "steps is True; it must be of type int"),
        ("steps = [3]", r"steps is \[3\]; it must be of type int"),
        ("recompute = 1", "recompute is 1; it must be of type bool"),
        ("schedule = 3", "schedule is 3; it must be of type str"),
        ("steps = 0", "steps is 0; it must be at least 1"),
        ("lr = nan", "lr is nan; it must be above 0, at most 1000"),
        ("lr = 0", "lr is 0; it must be above 0"),
        ("lr = 1e4", "lr is 10000.0; it must be above 0, at most 1000"),
        ("weight_decay = 1e9", "weight_decay is 1000000000.0; it must be 0 to 1000"),
        ("rope_theta = 1e-300", r"rope_theta is 1e-300; it must be 1e-06 to 1e\+12"),
        ("beta2 = 1.0", "beta2 is 1.0; it must be 0 to below 1"),
        ("optimizer = 'adam'", "optimizer is 'adam'; it must be adamw, muon, sgd"),
        ("context = 300", "context is 300; the model has n_positions 256"),
        ("accumulate = 3", "batch_size 16 cannot be run in accumulate 3 equal parts"),
        ("vocab_size = 100", "vocab_size is 100; it must be at least 257"),
    ],
)
def test_what_cannot_be(toml, said, tmp_path):
    (tmp_path / "s.toml").write_text(toml)
    with pytest.raises(InputError, match=said):
        settings(file=tmp_path / "s.toml")


@pytest.mark.parametrize("kind", [Settings, ClassifySettings])
def test_no_number_may_be_infinite_or_nan(kind):
    numbers = [f.name for f in dataclasses.fields(kind) if str(f.type).startswith("float")]
    assert len(numbers) >= 7
    for name in numbers:
        for value in (float("inf"), float("-inf"), float("nan"), 1e300):
            with pytest.raises(InputError, match=rf"{name} is -?(inf|nan|1e\+300); it must be"):
                kind(**{name: value})


def test_unknown_presets_and_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"preset is 'huge'; it must be one of .*tiny"):
        settings("huge")
    with pytest.raises(InputError, match=r"no.toml: there is no such file"):
        settings(file=tmp_path / "no.toml")
    (tmp_path / "latin.toml").write_bytes(b"sample_prompt = 'caf\xe9'")
    with pytest.raises(InputError, match=r"latin.toml: not valid TOML"):
        settings(file=tmp_path / "latin.toml")


def test_what_may_change_on_resuming_is_what_leaves_the_curve_alone():
    free = {f.name for f in dataclasses.fields(Settings) if not f.metadata["curve"]}
    assert free == {
        "recompute",
        "log_every",
        "eval_every",
        "eval_tokens",
        "sample_every",
        "sample_prompt",
        "checkpoint_every",
        "keep_checkpoints",
    }


def test_the_families_to_choose_from_are_those_that_say_how():
    """Settings are read without importing any of them."""
    from minillm import families
    from minillm.training.settings import FAMILIES

    names = [family.name for family in families.known() if family.knobs]
    assert names == [*FAMILIES]
    known = {f.name for f in dataclasses.fields(Settings)}
    for family in families.known():
        fields = {f.name for f in dataclasses.fields(family.config)}
        assert family.knobs.keys() <= known and {*family.knobs.values()} <= fields
