"""The same weights in the formats of other engines: GGUF for llama.cpp, a folder for CTranslate2,
which gets no tokenizer.

Both functions return the bytes of all weights that one decode step reads: every matrix once, but of
the position table, and of a token table that is not the output head too, only a row, which is left
out.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from ..checkpoints import llama_cpp
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.find import find_model
from ..errors import InputError
from ..families.family import MATRIX, POSITIONS
from ..loading import convert, load_model, open_checkpoint


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


def write_gguf(model: str | Path, path: str | Path, precision: str | None) -> int:
    """Write GGUF with every matrix as F32, F16, Q8_0, Q4_0 or Q4_1, None: as it is stored;
    see llama_cpp.save_file, which raises.

    Raises InputError, too, for rows that are no whole blocks of 32: they would be 16 bits wide.
    """
    s = (source := open_checkpoint(model)).config.sizes
    if precision and precision.startswith("Q") and (s.C % 32 or s.F % 32):
        raise InputError(
            f"{precision} needs rows of whole blocks of 32; the model's C is {s.C}, its F {s.F}"
        )
    convert(source, path, precision and llama_cpp.KIND[precision])
    return stored_bytes_read(open_checkpoint(path))


def requantize(path: str | Path, target: str | Path, file_type: str) -> None:
    """Write a GGUF file anew with its matrices in another type (llama_cpp.FILE_TYPE), by llama.cpp,
    which leaves the table of tokens in a wider one where it thinks best."""
    import llama_cpp as engine

    silent = engine.llama_log_callback(lambda level, text, data: None)
    engine.llama_log_set(silent, ctypes.c_void_p())
    engine.llama_backend_init()
    options = engine.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize = llama_cpp.FILE_TYPE[file_type], True
    files = (str(name).encode() for name in (path, target))
    if code := engine.llama_model_quantize(*files, ctypes.byref(options)):
        raise InputError(f"llama.cpp cannot write {path} as {file_type} (code {code})")


def stored_bytes_read(checkpoint: Checkpoint) -> int:
    """The bytes that one decode step reads, of matrices as the file has them."""
    return bytes_read({n: t.nbytes for n, t in checkpoint.tensors.items()}, checkpoint.config)


def as_folder(model: str | Path) -> Path:
    """The folder of a model in Hugging Face layout: its own, or one made of it in float32."""
    if (path := find_model(model)).is_dir():
        return path
    folder = Path(mkdtemp())
    in_another_process(convert, path, folder, "float32")
    return folder


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
