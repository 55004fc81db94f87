"""A model's folder as Hugging Face lays it out: config.json, generation_config.json, the tensors in
model.safetensors or in shards that an index names, and the tokenizer's files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from .. import families
from ..errors import InputError, one_line
from ..families.family import MATRIX, TABLE
from ..machine.files import open_regular, write_atomically
from ..machine.forms import short
from ..protocol import Model
from ..tokenizer import Tokenizer
from ..tokenizer.files import has_tokenizer, read
from ..weights import BF16, BFloat16, Weight
from . import safetensors
from .checkpoint import FLOATS, Checkpoint, Tensor, by_canonical_name, dtype_name
from .find import CARD, CONFIG, GENERATION, INDEX, WEIGHTS, shards
from .stored import pack, unpack


def open_folder(folder: Path) -> Checkpoint:
    """Return what lies in a folder; InputError naming the file that is missing or wrong."""
    config = families.read_config(folder)
    family = families.of(config)

    def is_table(name: str) -> bool:
        parameter = config.layout.get(family.canonical(name, config))
        return parameter is not None and parameter.role == TABLE

    return Checkpoint(
        folder,
        family,
        config,
        by_canonical_name(read_tensors(folder, is_table), family, config),
        lambda: Tokenizer(*read(folder)) if has_tokenizer(folder) else None,
        read_about=lambda: read_card(folder),
    )


def read_tensors(folder: Path, is_table: Callable[[str], bool]) -> Iterator[Tensor]:
    """Yield the tensors of model.safetensors in `folder`, or of all shards that its index names.

    is_table: of a tensor's name; see stored.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    if single.exists():
        files: dict[str, set[str]] = {single.name: set()}
    elif index.exists():
        files = shards(index)
    else:
        others = [
            f.name
            for pattern in ("*.safetensors", "*.bin", "*.h5", "*.msgpack", "*.gguf")
            for f in folder.glob(pattern)
        ]
        hint = (
            f"; it has {others[0]}: save it again with save_pretrained of transformers"
            if others
            else ""
        )
        raise InputError(f"{folder} has no {WEIGHTS}{hint}")
    for name, promised in files.items():
        file = folder / name
        if not os.path.isfile(file):  # False, too, for a name that is too long
            raise InputError(f"{index}: names the shard {short(name)}, which is not there")
        tensors, metadata = safetensors.read(file)
        if missing := sorted(promised - set(tensors)):
            raise InputError(
                f"{file}: tensor {missing[0]!r}, which the index promises, is not there"
            )
        for tensor, array in unpack(file, tensors, metadata, is_table).items():
            yield _tensor(file, tensor, array)


def _tensor(file: Path, name: str, array: np.ndarray | Weight) -> Tensor:
    """A tensor of which nothing is read: the array, or those of the Weight, are mapped."""
    floats = "bfloat16" if array.dtype == BF16 else str(array.dtype)
    kind = getattr(array, "kind", floats)
    return Tensor(file, name, array.shape, kind, array.nbytes, lambda: array)


def save_folder(model: Model, folder: Path, dtype=None) -> None:
    """Write config.json, model.safetensors and, where the model has one, generation_config.json
    into `folder`; stored as `dtype` if given, one of FLOATS.

    transformers loads the result, unless matrices are quantised (see stored), which only minillm
    reads.
    """
    if (dtype := dtype_name(dtype)) not in (None, *FLOATS):
        raise InputError(
            f"parameters cannot be stored as {dtype}; it must be one of {', '.join(FLOATS)}"
        )
    family, config, values = model.family, model.config.to_dict(), model.config.generation or {}
    folder.mkdir(parents=True, exist_ok=True)
    arrays, quantized = {}, {}
    for name, parameter in model.parameters.items():
        stored = isinstance(parameter, Weight)
        if stored and parameter.block > 1 and dtype is None:
            quantized[family.stored(name)] = parameter
        else:  # low rank and sparse ones become whole matrices
            array = parameter.dense() if stored else np.asarray(parameter)
            kind = dtype or (parameter.kind if stored else str(array.dtype))
            if family.turned and model.layout[name].role == MATRIX:
                array = np.ascontiguousarray(array.T)
            arrays[family.stored(name)] = _as_stored(name, array, kind)
    tensors, metadata = pack(quantized)
    safetensors.write(folder / WEIGHTS, arrays | tensors, {"format": "pt", **metadata})
    config |= {"dtype": dtype or model.stored}
    for file, table in ((CONFIG, config), (GENERATION, values)):
        if table or (folder / file).exists():  # not another model's
            write_atomically(folder / file, (json.dumps(table, indent=2) + "\n").encode())


MOST_CARD = 100_000
HUB = "https://huggingface.co/"
BASE = "general.base_model."
CARD_KEYS = {  # of the card's front matter -> GGUF's
    "model_name": "general.name",
    "license": "general.license",
    "license_name": "general.license.name",
    "license_link": "general.license.link",
    "source": "general.source.url",
    "base_model": f"{BASE}0.repo_url",
}


def read_card(folder: Path) -> dict[str, object]:
    """Name, licence and source of a folder's model, by GGUF's keys: what its card says, else where
    it lies."""
    place = folder.resolve()
    about: dict[str, object] = {"general.name": place.name}
    if place.parent.name == "snapshots":  # fetched from the hub
        name = place.parent.parent.name.removeprefix("models--").replace("--", "/")
        about = {"general.name": name.rpartition("/")[2], "general.source.url": HUB + name}
    if (path := folder / CARD).is_file():
        with open_regular(path) as file:  # the front matter is at its beginning
            text = file.read(MOST_CARD).decode(errors="replace")
        front = re.match(r"---\r?\n(.*?)\n---", text, re.DOTALL)
        line = r"^(\w+):[ ]*(?:\r?\n[ ]*-[ ]*)?(.+)$"  # of a list, the first
        said = dict(re.findall(line, front[1] if front else "", re.M))
        values = {key: _unquoted(said[key].strip()) for key in CARD_KEYS if key in said}
        about |= {CARD_KEYS[key]: value for key, value in values.items() if value}
        if (base := values.get("base_model")) and "://" not in base:
            about |= {f"{BASE}count": 1, f"{BASE}0.name": base.rpartition("/")[2]}
            about[f"{BASE}0.repo_url"] = HUB + base
    return about


def save_card(folder: Path, about: Mapping[str, object]) -> None:
    """Write a card that keeps a model's name, licence and source, unless there is one."""
    if (folder / CARD).exists():
        return
    said = {key: str(about.get(theirs) or "") for key, theirs in CARD_KEYS.items()}
    said["base_model"] = said["base_model"].removeprefix(HUB)
    front = [f"{key}: {_quoted(one_line(value))}" for key, value in said.items() if value]
    title = str(about.get("general.name", folder.resolve().name))
    lines = ["---", *front, "library_name: transformers", "---", "", f"# {one_line(title)}", ""]
    write_atomically(folder / CARD, "\n".join(lines).encode(errors="replace"))


def _quoted(text: str) -> str:
    """A text as YAML has it, in quotation marks where it needs them."""
    plain = re.fullmatch(r"[\w./-]+(://[\w./-]+)?", text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def _unquoted(text: str) -> str:
    with suppress(ValueError):
        return str(json.loads(text)) if text.startswith('"') else text.strip("'")
    return text


def _as_stored(name: str, array: np.ndarray, kind: str) -> np.ndarray:
    """The array in one of FLOATS; InputError where a number is too large for it."""
    if kind == "bfloat16":
        return BFloat16.to_stored(array.astype(np.float32)).view(BF16)
    with np.errstate(over="ignore"):
        converted = array.astype(kind, copy=False)
    if (overflown := np.isfinite(array) & ~np.isfinite(converted)).any():
        largest = np.abs(array[overflown]).max()
        raise InputError(f"{name} has values up to {largest:.3g}, too large for {kind}")
    return converted
