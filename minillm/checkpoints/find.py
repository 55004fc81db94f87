"""Where a model lies: a folder, a bundled name, or a name on the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent
BUNDLED = (PACKAGE / "bundled", PACKAGE.parent / "weights")  # in a wheel; in a checkout
HUB_FILES = [
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "vocab.json",
    "merges.txt",
]


def bundled_names() -> list[str]:
    """Return the names of the models that came with the package."""
    return sorted({path.parent.name for root in BUNDLED for path in root.glob("*/config.json")})


def find_folder(name_or_folder: str | Path) -> Path:
    """Return the folder of a model: a folder as it is, a bundled name, or a hub name, downloaded if
    need be."""
    name = str(name_or_folder)
    if os.path.isdir(name):  # unlike Path.is_dir, False for "" and for what is too long for a path
        return Path(name)
    if os.path.isfile(name):
        raise InputError(
            f"model {name!r} is a file; give the folder that holds it, with config.json and the"
            " tokenizer's files"
        )
    for root in BUNDLED:
        if name in bundled_names() and (root / name).is_dir():
            return root / name
    if (
        isinstance(name_or_folder, Path)
        or Path(name).is_absolute()
        or name.count("/") > 1
        or "\\" in name
        or not name
    ):
        raise InputError(f"no folder {name!r}; bundled models: {', '.join(bundled_names())}")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    known = f"model {name!r} is neither a folder nor bundled ({', '.join(bundled_names())})"
    try:
        import huggingface_hub
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError:
        raise InputError(
            f"{known}; to fetch it from the Hugging Face hub: python -m pip install huggingface_hub"
        ) from None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{known}, and the Hugging Face hub did not give it: {reason}") from None
