"""The same weights in the formats of other engines: GGUF for llama.cpp, a folder for CTranslate2.
No tokenizer goes with them.

Both functions return the bytes of all weights that one decode step reads: every matrix once, but of
the position table, and of a token table that is not the output head too, only a row, which is left
out.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..families.family import MATRIX, POSITIONS, TABLE
from ..loading import load_model


def in_another_process(function, *args):
    """Return function(*args) of a fresh process, so that what it needs does not count as this one's
    peak memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def bytes_read(sizes: Mapping[str, int], config) -> int:
    """The bytes that one decode step reads, from {parameter: bytes}: all but the tables of which it
    takes one row."""
    layout = config.layout
    return sum(
        size
        for name, size in sizes.items()
        if layout[name].role != POSITIONS and (layout[name].forms != "wte" or config.tied)
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
    config, family, s = model.config, model.family, model.config.sizes
    kind, f32 = gguf.GGMLQuantizationType[precision], gguf.GGMLQuantizationType.F32
    _refuse_inexpressible("llama.cpp", model)
    if precision.startswith("Q") and (s.C % 32 or s.F % 32):
        raise InputError(
            f"{precision} needs rows of whole blocks of 32; the model's C is {s.C}, its F {s.F}"
        )
    writer = gguf.GGUFWriter(path, family.name)
    writer.add_context_length(s.P)
    writer.add_embedding_length(s.C)
    writer.add_block_count(s.L)
    writer.add_feed_forward_length(s.F)
    writer.add_head_count(s.H)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_vocab_size(s.V)
    writer.add_tokenizer_model("no_vocab")
    sizes = {}
    for name, array in model.parameters.items():
        scope, _, leaf = name.rpartition(".")
        role = model.layout[name].role
        if role in (MATRIX, TABLE):  # [in, out] -> [out, in], which the tables already are
            array = gguf.quantize(np.ascontiguousarray(array if role == TABLE else array.T), kind)
        stored = kind if role in (MATRIX, TABLE) else f32
        writer.add_tensor(f"{family.name_elsewhere('gguf', scope)}.{leaf}", array, raw_dtype=stored)
        sizes[name] = array.nbytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return bytes_read(sizes, config)


def write_ctranslate2(folder: str | Path, target: str | Path, precision: str) -> int:
    """Write a CTranslate2 folder with every matrix as float32, or as int8 with a scale a row; token
    i is called str(i).

    Source: the GPT-2 loader of CTranslate2's converter (converters/transformers.py), here without
    torch.
    """
    from ctranslate2.specs import TransformerDecoderModelSpec, common_spec

    model = load_model(folder)
    config, s = model.config, model.config.sizes
    _refuse_inexpressible("CTranslate2", model)
    kinds = common_spec.Activation
    activations = {"gelu_new": kinds.GELUTanh, "gelu": kinds.GELU, "relu": kinds.RELU}
    spec = TransformerDecoderModelSpec.from_config(
        s.L, s.H, activation=activations[config.activation_function]
    )
    spec.config.layer_norm_epsilon = config.layer_norm_epsilon
    spec.register_vocabulary([str(i) for i in range(s.V)])
    spec.decoder.scale_embeddings = False
    looked_up = []  # what gives a row a token
    for name, array in model.parameters.items():
        scope, _, leaf = name.rpartition(".")
        parameter, place = model.layout[name], spec.decoder
        path = model.family.name_elsewhere("ctranslate2", scope)
        for part in path.split("."):
            place = place[int(part)] if part.isdigit() else getattr(place, part)
        if parameter.role == POSITIONS:
            leaf = "encodings"
        elif parameter.start == "ones" or isinstance(place, common_spec.LayerNormSpec):
            leaf = {"weight": "gamma", "bias": "beta"}[leaf]
        turned = array.T if parameter.role == MATRIX else array  # [in, out] -> [out, in]
        setattr(place, leaf, np.array(turned, order="C"))  # a copy: quantising works in place
        if parameter.role == POSITIONS or (parameter.forms == "wte" and not config.tied):
            looked_up.append(f"decoder/{path}/")
    if config.tied:
        spec.decoder.projection.weight = np.array(spec.decoder.embeddings.weight)
    spec.validate()
    spec.optimize(precision)
    Path(target).mkdir(parents=True, exist_ok=True)
    spec.save(str(target))
    return sum(
        value.num_bytes()
        for name, value in spec.variables().items()
        if not isinstance(value, str)  # the second of a tied pair is its name
        if not name.startswith(tuple(looked_up))
    )


def _refuse_inexpressible(engine: str, model) -> None:
    if why := model.family.inexpressible(engine, model.config):
        raise InputError(f"{engine} has no {model.family.title} {why}")
