"""Adapters in peft's form: read and written, to the same update; what is more than LoRA is refused.

The tests with `peft` itself are live."""

import json
import math

import numpy as np
import pytest

from minillm import GPT2Config, InputError
from minillm.checkpoints import safetensors
from minillm.families.llama.qwen import Qwen3Config
from minillm.model import Model
from minillm.training import peft
from minillm.training.lora import load_adapters, merged, save_adapters, with_adapters
from minillm.weights import BF16, BFloat16
from minillm.weights.lora import LoRA
from tests.families.able import lively
from tests.families.llama.test_llama import FAMILIES

CONFIGS = {"gpt2": GPT2Config(97, 64, 32, 2, 4), **FAMILIES}
MATRICES = {"gpt2": "c_attn,mlp.c_proj"}
IDS = np.arange(20).reshape(2, 10) * 3 % 97
every_family = pytest.mark.parametrize("name", CONFIGS)


def adapted(name, rank=2, alpha=3.0) -> Model:
    """A model whose adapters have learnt something."""
    model = lively(CONFIGS[name], np.float32)
    matrices = MATRICES.get(name, "q_proj,v_proj,down_proj")
    fresh, r = with_adapters(model, rank, alpha, matrices), np.random.default_rng(0)
    learnt = {
        n: LoRA(p.weight, p.lora_a, 0.3 * r.standard_normal(p.lora_b.shape, np.float32), p.scale)
        for n, p in fresh.parameters.items()
        if isinstance(p, LoRA)
    }
    return model.with_parameters(learnt)


@pytest.fixture
def folder(tmp_path):
    """Adapters of Qwen3 as peft has them."""
    save_adapters(adapted("qwen3"), tmp_path, "peft")
    return tmp_path


def spoilt(folder, **said):
    """The same folder, whose config says something else."""
    path = folder / peft.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    return folder


@every_family
def test_there_and_back(name, tmp_path):
    model = adapted(name)
    save_adapters(model, tmp_path, "peft")
    assert {f.name for f in tmp_path.iterdir()} == {peft.CONFIG, peft.WEIGHTS}
    back = load_adapters(lively(CONFIGS[name], np.float32), tmp_path)
    np.testing.assert_array_equal(back(IDS), model(IDS))


def test_names_and_shapes_are_pefts(folder):
    tensors, _ = safetensors.read(folder / peft.WEIGHTS)
    at = "base_model.model.model.layers.2.mlp.down_proj.lora_"
    assert (tensors[f"{at}A.weight"].shape, tensors[f"{at}B.weight"].shape) == ((2, 48), (32, 2))
    said = json.loads((folder / peft.CONFIG).read_text())
    assert (said["r"], said["lora_alpha"], said["fan_in_fan_out"]) == (2, 3.0, False)


def test_ranks_and_scales_may_differ(tmp_path):
    one, other = adapted("llama"), adapted("llama", 3, 5.0).parameters
    name = "model.layers.1.self_attn.q_proj.weight"
    model = one.with_parameters({name: other[name]})
    save_adapters(model, tmp_path, "peft")
    said = json.loads((tmp_path / peft.CONFIG).read_text())
    module = name.removesuffix(".weight")
    assert (said["rank_pattern"], said["alpha_pattern"]) == ({module: 3}, {module: 5.0})
    back = load_adapters(lively(CONFIGS["llama"], np.float32), tmp_path)
    np.testing.assert_allclose(back(IDS), model(IDS), atol=1e-6)


def test_numbers_of_16_bits(folder):
    tensors, _ = safetensors.read(folder / peft.WEIGHTS)
    narrow = {n: BFloat16.to_stored(np.array(a)).view(BF16) for n, a in tensors.items()}
    safetensors.write(folder / peft.WEIGHTS, narrow, {"format": "pt"})
    found = load_adapters(lively(CONFIGS["qwen3"], np.float32), folder)
    np.testing.assert_allclose(found(IDS), adapted("qwen3")(IDS), atol=0.1)


def test_the_scale_with_rslora(folder):
    found = load_adapters(lively(CONFIGS["qwen3"], np.float32), spoilt(folder, use_rslora=True))
    scales = {p.scale for p in found.parameters.values() if isinstance(p, LoRA)}
    assert scales == {3.0 / 2**0.5}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; minillm reads LORA"),
        ({"use_dora": True}, "use_dora is True; minillm reads plain LoRA"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is"),
        ({"alpha_pattern": {"(a+)+": 2}}, r"alpha_pattern has '\(a\+\)\+'; minillm reads names"),
        ({"lora_alpha": "3"}, "lora_alpha is '3'; it must be of type float"),
        ({"lora_alpha": math.inf}, "the scale of .* is inf; needed: a number"),
    ],
    ids=str,
)
def test_what_is_more_than_lora_is_refused_by_name(folder, said, message):
    with pytest.raises(InputError, match=message):
        load_adapters(lively(CONFIGS["qwen3"], np.float32), spoilt(folder, **said))


def test_tensors_that_do_not_belong(folder):
    other = lively(Qwen3Config(**{**vars(CONFIGS["qwen3"]), "num_hidden_layers": 1}), np.float32)
    with pytest.raises(InputError, match=r"layers.1.* is no factor of a matrix of the model"):
        load_adapters(other, folder)
    tensors, _ = safetensors.read(folder / peft.WEIGHTS)
    first = next(iter(tensors))
    kept = {name: np.array(a) for name, a in tensors.items() if name != first}
    safetensors.write(folder / peft.WEIGHTS, kept, {})
    with pytest.raises(InputError, match=r"float32 \(0, 0\) and .* no pair of float32"):
        load_adapters(lively(CONFIGS["qwen3"], np.float32), folder)
    with pytest.raises(InputError, match="the model has no adapters to save"):
        save_adapters(other, folder, "peft")
    with pytest.raises(InputError, match="form is 'hf'"):
        save_adapters(other, folder, "hf")


@pytest.mark.live
@every_family
def test_peft_says_the_same(name, tmp_path):
    """Both ways; worst measured: logits 6e-6, of up to 10."""
    library = pytest.importorskip("peft")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model, ids = adapted(name), torch.as_tensor(IDS)
    lively(CONFIGS[name], np.float32).save_pretrained(tmp_path / "base")
    save_adapters(model, tmp_path / "ours", "peft")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = library.PeftModel.from_pretrained(base, tmp_path / "ours")
    assert sum("lora_A" in n for n, _ in theirs.named_parameters()) == sum(
        isinstance(p, LoRA) for p in model.parameters.values()
    )
    with torch.no_grad():
        np.testing.assert_allclose(theirs(ids).logits.numpy(), model(IDS), atol=3e-5)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    settings = library.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["c_attn", "c_proj"] if name == "gpt2" else ["k_proj", "up_proj"],
        fan_in_fan_out=name == "gpt2",
        init_lora_weights="gaussian",
        use_rslora=name == "llama",
        rank_pattern={"c_attn": 2, "up_proj": 3},
        task_type="CAUSAL_LM",
    )
    theirs = library.get_peft_model(base, settings)
    for n, p in theirs.named_parameters():
        if "lora_B" in n:
            torch.nn.init.normal_(p, std=0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    found = load_adapters(lively(CONFIGS[name], np.float32), tmp_path / "theirs")
    with torch.no_grad():
        np.testing.assert_allclose(theirs(ids).logits.numpy(), found(IDS), atol=3e-5)
    np.testing.assert_allclose(merged(found)(IDS), found(IDS), atol=3e-5)
