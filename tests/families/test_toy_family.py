"""A family is a folder: one of a few lines (toy/), copied to a place outside of minillm and
imported there, can do what GPT-2 can, without a line changed anywhere."""

import dataclasses
import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import Tokenizer, kernels
from minillm.cli import main
from minillm.clock import step_costs
from minillm.clock.limits import Limits
from minillm.families import described
from minillm.model import Model
from minillm.steps import Patch, Relay, Trace, phase_of
from minillm.training.language import LanguageModel
from minillm.training.lora import merged, with_adapters
from minillm.weights import KINDS, store_parameters
from minillm.weights.lora import LoRA
from tests.central import REORDERED, central_differences, relative
from tests.families.able import check_cache, check_decoding, check_fused, check_smaller

# Nothing is a multiple of 16, H D is not C, F is odd, and three heads share a key-value head.
SIZES = {"V": 300, "P": 64, "L": 3, "C": 20, "H": 6, "K": 2, "D": 6, "F": 27}
IDS = np.arange(20).reshape(2, 10) * 7 % 300
needs_numba = pytest.mark.skipif(not kernels.available(), reason="Numba is not installed")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The package, as somebody else's."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(Path(__file__).with_name("toy"), elsewhere / "toy_family")
    sys.path.insert(0, str(elsewhere))
    try:
        return importlib.import_module("toy_family")
    finally:
        sys.path.remove(str(elsewhere))


@pytest.fixture(scope="module")
def model(toy):
    """A random one whose layers all matter, in float64."""
    return lively(toy.ToyConfig(**SIZES))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """One with a tokenizer, as saved."""
    folder = tmp_path_factory.mktemp("saved")
    model.astype(np.float32).save_pretrained(folder)
    Tokenizer.train(["the low lower lowest, the new newer newest"] * 3, 290).save(folder)
    return folder


def lively(config):
    rng, parameters = np.random.default_rng(0), {}
    for name, p in config.layout.items():
        noise = 0.2 * rng.standard_normal(p.shape(config.sizes))
        parameters[name] = noise + (p.start == "ones")
    return Model(config, parameters)


def test_it_is_found_by_the_name_in_its_files(toy, model, folder):
    assert described({"model_type": "toy"}) is described({"architectures": ["ToyForCausalLM"]})
    again, tokenizer = minillm.load(folder, kernels="numpy")
    assert again.family is toy.TOY and again.config == model.config
    assert np.array_equal(again(IDS), model.astype(np.float32)(IDS))
    assert len("".join(m.text for m in minillm.generate(again, tokenizer, "the low"))) > 0
    assert type(Model.random(model.config)(IDS)) is np.ndarray


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_keeps_it_in_every_kind(model, kind, tmp_path):
    stored = model.astype(np.float32).quantize(kind)
    stored.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path, kernels="numpy")
    assert again.stored == (kind if kind.startswith("int") else "float32")
    as_written = stored.quantize(kind.removesuffix("_rounded"))
    assert relative(again(IDS), as_written(IDS)) < REORDERED


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_cached_equals_uncached(model, cut):
    check_cache(model, IDS, cut)


@needs_numba
@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_step_equals_the_readable_forward(model, kind):
    check_fused(model, IDS, kind)


def test_all_decoding(model):
    check_decoding(model, IDS)


def test_steps_are_those_declared_and_can_be_replaced(model):
    trace = model.trace(IDS)
    assert [*trace] == model.step_names
    assert {phase_of(name) for name in trace} == {"embed", "attend", "feed forward", "unembed"}
    for name, parameter in model.layout.items():
        layer, _ = model.family.local_name(name)
        assert (f"h.{layer}." if layer is not None else "") + parameter.forms in trace
    seen = Trace()
    model(IDS, step=Patch({"h.1.mlp.out": np.zeros_like}, then=seen))
    assert np.array_equal(seen["h.1.mlp.residual"], trace["h.1.attn.residual"])
    again = Relay(trace)
    model(IDS, step=again)
    assert all(np.array_equal(again.trace[name], value) for name, value in trace.items())


def test_what_it_costs(model):
    """Each parameter is read once, but of the token table, which is the head as well, a row more;
    FLOPs of the products are two for each number of a matrix, and those of attention."""
    arrays = store_parameters(model.astype(np.float32).parameters, "float32", model.layout)
    read = sum(cost.weights for cost in step_costs(model.config, 1).values())
    table = arrays["tokens.weight"].nbytes
    assert read == pytest.approx(sum(p.nbytes for p in arrays.values()) + table / 300, rel=1e-12)
    products = sum(cost.products for cost in step_costs(model.config, 5).values())
    s, numbers = model.config, sum(p.size for p in model.matrices().values())
    assert products == 2 * (5 * numbers + s.V * s.C) + 2 * 2 * s.L * s.H * s.D * 5 * 5


@needs_numba
@pytest.mark.parametrize("twin", ["numpy", "numba"])
def test_the_clock(folder, twin, tmp_path, capsys):
    """Its table has a row for each phase, with what it costs and should take; the fused step tells
    it what is finished."""
    rates = {"float32": 1e11}
    Limits({}, 1, {2**28: 2e10}, rates, rates, 5e9, 1e-6, 1e-5, 1e-7).save(tmp_path / "limits")
    command = ["clock", "the low", "--model", str(folder), "--kernels", twin, "--json"]
    assert main([*command, "--limits", str(tmp_path / "limits"), "--max-new-tokens=4"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["phase"]: row for row in told["table"] if not row["part"]}
    assert [*rows] == ["embed", "attend", "feed forward", "unembed", "choose", "cycle"]
    assert all(row["decode_ns"] > 0 and row["predicted_s"] > 0 for row in rows.values())
    names = [step["name"] for step in told["cycles"][1]["steps"]]
    assert ("wte" in names) == (twin == "numpy") and "h.2.mlp.residual" in names


def test_smaller_models(model):
    check_smaller(model, IDS)


def test_gradients_are_central_differences(model):
    """Those of a forward of which all is kept, and of one that is computed again."""
    config = dataclasses.replace(model.config, V=11, L=2, C=4, D=2, F=3)
    objective, again = (LanguageModel(lively(config), recompute) for recompute in (False, True))
    batch = (IDS[:, :4] % 11, IDS[:, 1:5] % 11)
    _, gradients = objective.loss_and_gradients(batch)
    _, formed_again = again.loss_and_gradients(batch)
    assert gradients.keys() == formed_again.keys() == config.layout.keys()
    for name, gradient in gradients.items():
        tried = central_differences(
            lambda: objective.losses(batch).mean(), objective.parameters[name]
        )
        assert relative(gradient, tried) < 1e-7, name
        assert np.array_equal(formed_again[name], gradient), name


def test_adapters_are_on_queries_keys_and_values(model):
    adapted = with_adapters(model.astype(np.float32), 2)
    places = {n.split(".", 2)[2] for n, p in adapted.parameters.items() if isinstance(p, LoRA)}
    assert places == {"attn.q.weight", "attn.k.weight", "attn.v.weight"}
    assert np.allclose(merged(adapted)(IDS), model(IDS), atol=1e-4)


@pytest.mark.parametrize("more", ["--recompute", "--lora-rank=2"])
def test_it_is_trained_from_where_it_was(folder, more, tmp_path):
    (tmp_path / "text.txt").write_text("the low lower lowest, the new newer newest\n" * 60)
    command = ["train", "--from", str(folder), "--data", str(tmp_path / "text.txt"), more]
    flags = "--steps=6 --batch-size=4 --context=8 --warmup=1 --log-every=1 --lr=0.01"
    flags += f" --kernels=numpy --sample-prompt=the --out={tmp_path / 'run'}"
    assert main([*command, *flags.split()]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [entry["loss"] for entry in map(json.loads, lines) if "lr" in entry]
    assert losses[-1] < losses[0]
    assert minillm.load(tmp_path / "run", kernels="numpy")[0].family.name == "toy"


def test_a_classifier_begins_with_it(folder, tmp_path, capsys):
    words = {"low": ("low", "lower", "lowest"), "new": ("new", "newer", "newest")}
    lines = [f"{label}\t{a} {b}" for label, w in words.items() for a in w for b in w]
    (tmp_path / "data.tsv").write_text("\n".join(["label\ttext", *lines]))
    out, data = str(tmp_path / "run"), str(tmp_path / "data.tsv")
    begin = ["classify", "train", "--from", str(folder), "--data", data, "--out", out]
    assert main([*begin, "--epochs=2", "--kernels=numpy"]) == 0
    assert main(["classify", "predict", out, "new lower", "--kernels=numpy"]) == 0
    assert "low" in capsys.readouterr().out
