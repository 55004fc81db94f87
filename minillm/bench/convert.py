"""The same weights in the formats of other engines: GGUF for llama.cpp, a folder for CTranslate2.
No tokenizer goes with them.

Both functions return the bytes of all weights that one decode step reads: every matrix once, but of
the position table, and of a token table that is not the output head too, only a row, which is left
out.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from ..checkpoints import load_model
from ..errors import InputError
from ..families.gpt2.config import GPT2Config

GGUF_LAYER = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
GGUF_TOP = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}


def in_another_process(function, *args):
    """Return function(*args) of a fresh process, so that what it needs does not count as this one's
    peak memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def bytes_read(sizes: Iterable[tuple[str, int]], config: GPT2Config) -> int:
    """The bytes that one decode step reads, from (checkpoint name, bytes): all but the tables of
    which it takes one row."""
    tables = ("wpe",) if config.tie_word_embeddings else ("wpe", "wte")
    return sum(
        size for name, size in sizes if not name.removeprefix("transformer.").startswith(tables)
    )


def write_gguf(folder: str | Path, path: str | Path, precision: str) -> int:
    """Write GGUF with every matrix as F32, F16, Q8_0 or Q4_0; vectors and the position table, a row
    a token, are F32.

    Source: the GPT-2 graph of llama.cpp (src/models/gpt2.cpp) and the tensor names of the gguf
    package. Raises InputError for a model that this graph does not describe, or whose rows are not
    whole blocks of 32.
    """
    import gguf

    model = load_model(folder)
    config, kind = model.config, gguf.GGMLQuantizationType[precision]
    _refuse_unless_plain("llama.cpp", config, ("gelu_new",))
    if precision.startswith("Q") and (config.n_embd % 32 or config.hidden_dim % 32):
        raise InputError(
            f"{precision} needs rows of whole blocks of 32; n_embd is {config.n_embd}, n_inner"
            f" {config.hidden_dim}"
        )
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    sizes = []
    for name, array in model.parameters.items():
        scope, _, leaf = name.rpartition(".")
        if array.ndim == 1 or scope == "wpe":
            stored, stored_kind = array, gguf.GGMLQuantizationType.F32
        else:  # [in, out] -> [out, in], which the tables already are
            stored = gguf.quantize(
                np.ascontiguousarray(array if scope in GGUF_TOP else array.T), kind
            )
            stored_kind = kind
        writer.add_tensor(f"{_gguf_scope(scope)}.{leaf}", stored, raw_dtype=stored_kind)
        sizes.append((name, stored.nbytes))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return bytes_read(sizes, config)


def _gguf_scope(scope: str) -> str:
    """h.3.attn.c_attn -> blk.3.attn_qkv"""
    if scope in GGUF_TOP:
        return GGUF_TOP[scope]
    _, layer, rest = scope.split(".", 2)
    return f"blk.{layer}.{GGUF_LAYER[rest]}"


def write_ctranslate2(folder: str | Path, target: str | Path, precision: str) -> int:
    """Write a CTranslate2 folder with every matrix as float32, or as int8 with a scale a row; token
    i is called str(i).

    Source: the GPT-2 loader of CTranslate2's converter (converters/transformers.py), here without
    torch.
    """
    from ctranslate2.specs import TransformerDecoderModelSpec, common_spec

    model = load_model(folder)
    config, weights = model.config, model.parameters
    kinds = common_spec.Activation
    bends = {"gelu_new": kinds.GELUTanh, "gelu": kinds.GELU, "relu": kinds.RELU}
    _refuse_unless_plain("CTranslate2", config, tuple(bends))
    spec = TransformerDecoderModelSpec.from_config(
        config.n_layer, config.n_head, activation=bends[config.activation_function]
    )
    spec.config.layer_norm_epsilon = config.layer_norm_epsilon
    spec.register_vocabulary([str(i) for i in range(config.vocab_size)])
    decoder, copy = spec.decoder, np.array  # copies, since quantising works in place
    decoder.scale_embeddings = False
    decoder.embeddings.weight = copy(weights["wte.weight"])
    decoder.projection.weight = copy(
        weights["wte.weight" if config.tie_word_embeddings else "lm_head.weight"]
    )
    decoder.position_encodings.encodings = copy(weights["wpe.weight"])

    def norm(to, name):
        to.gamma, to.beta = copy(weights[f"{name}.weight"]), copy(weights[f"{name}.bias"])

    def linear(to, name):
        to.weight = copy(weights[f"{name}.weight"].T, order="C")  # -> [out, in]
        to.bias = copy(weights[f"{name}.bias"])

    norm(decoder.layer_norm, "ln_f")
    for i, layer in enumerate(decoder.layer):
        norm(layer.self_attention.layer_norm, f"h.{i}.ln_1")
        linear(layer.self_attention.linear[0], f"h.{i}.attn.c_attn")
        linear(layer.self_attention.linear[1], f"h.{i}.attn.c_proj")
        norm(layer.ffn.layer_norm, f"h.{i}.ln_2")
        linear(layer.ffn.linear_0, f"h.{i}.mlp.c_fc")
        linear(layer.ffn.linear_1, f"h.{i}.mlp.c_proj")
    spec.validate()
    spec.optimize(precision)
    Path(target).mkdir(parents=True, exist_ok=True)
    spec.save(str(target))
    stored = {
        name: v for name, v in spec.variables().items() if not isinstance(v, str)
    }  # the second of a tied pair is its name
    ours = {"decoder/embeddings": "wte", "decoder/position_encodings": "wpe"}
    return bytes_read(
        [(ours.get(name.rpartition("/")[0], name), v.num_bytes()) for name, v in stored.items()],
        config,
    )


def _refuse_unless_plain(engine: str, config: GPT2Config, activations: tuple[str, ...]) -> None:
    if config.activation_function not in activations:
        raise InputError(
            f"{engine} has no GPT-2 with activation_function {config.activation_function!r}"
        )
    if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx:
        raise InputError(
            f"{engine} has no GPT-2 whose attention scores are not divided by sqrt(D) alone"
        )
