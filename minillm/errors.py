"""The one exception that means "what you gave cannot be used": its message is the line a person
reads, and how such lines are worded."""

import operator
import reprlib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches


class InputError(ValueError):
    """A value, file or option given by the user is unusable; the message says what, its value and
    what to do."""

    def __init__(self, message: str = ""):
        super().__init__(one_line(message))


MOST = 1000  # characters of a message


def one_line(message: str) -> str:
    """A message without line ends, and with the middle of a long one left out: its ends say where,
    and what to do."""
    message = " ".join(message.splitlines())
    if len(message) <= MOST:
        return message
    return f"{message[: MOST // 2]} [...] {message[-MOST // 3 :]}"


# What pip is told of a module, where that differs, or others belong to it. Extras are named nowhere
# else: no index has minillm itself.
PACKAGES = {
    "llama_cpp": "llama-cpp-python",
    "jupyterlab": "jupyterlab anywidget",
    "mpi4py": "mpi4py mpich",
}


def install(module: str) -> str:
    """The command that installs a module, wherever minillm itself comes from."""
    return f"python -m pip install {PACKAGES.get(module, module)}"


def not_installed(module: str, needed_by: str = "") -> str:
    """That a module is not there, by whom it is needed, and how to install it."""
    needed = f", which {needed_by} needs," if needed_by else ""
    return f"{module}{needed} is not installed: {install(module)}"


def not_imported(error: ImportError, *wanted: str) -> str:
    """Why the modules `wanted` could not be imported: which is not installed, one of them or one
    that they need, or what else it is."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return f"{' or '.join(wanted)} cannot be imported: {error}"
    module = error.name.partition(".")[0]
    return not_installed(module, "" if module in wanted else " or ".join(wanted))


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxlong = _repr.maxother = 80


def short(value) -> str:
    """repr(value), or its two ends where it is long."""
    try:
        return _repr.repr(value)
    except ValueError:  # Python's own limit to the digits of a number
        return "a number of thousands of digits"


def count(n: int, noun: str) -> str:
    """1, "piece" -> "1 piece"; 2048, "token" -> "2,048 tokens"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


MOST_WHOLE = 10**100  # far beyond any use; Python refuses to write down what is far longer


def whole_number(name: str, value, least: int = 1) -> int:
    """Return `value` as an int; InputError unless it is a whole number (not 3.0, not True) of at
    least `least`, of a hundred digits at most."""
    try:
        if not isinstance(value, bool) and least <= (number := operator.index(value)) < MOST_WHOLE:
            return number
    except TypeError:
        pass
    raise InputError(f"{name} is {short(value)}; it must be a whole number of at least {least}")


def require_kind(name: str, value, kind, what: str):
    """Return `value` if it is an instance of `kind`; InputError else. what: what it must be."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is {short(value)}; it must be {what}")
    return value


def several(name: str, value, what: str) -> Iterator:
    """Return an iterator over `value`; InputError for what has no items, and for text, which would
    be taken letter by letter. what: what it must be."""
    try:  # isinstance of Iterable says yes to an array of no axes
        if not isinstance(value, (str, bytes)):
            return iter(value)
    except TypeError:
        pass
    raise InputError(f"{name} is {short(value)}; it must be {what}")


def require_one_of(name: str, value, known: Iterable[str]) -> str:
    """Return `value` if it is one of the `known` names; InputError else."""
    known = list(known)
    if isinstance(value, str) and value in known:
        return value
    raise InputError(f"{name} is {short(value)}; it must be one of {', '.join(known)}")


def near_names(name, known: Iterable[str]) -> list[str]:
    """The known names that begin or end with `name` ("weights" for h.0.attn.weights, "wte" for
    wte.weight), else those like it."""
    known = [str(k) for k in known]
    of_it = [k for k in known if k.endswith(f".{name}") or k.startswith(f"{name}.")]
    return of_it[:3] or get_close_matches(str(name), known, cutoff=0.5)


class UnknownName(InputError, KeyError):
    """Nothing has this name; the message is one line with the names that are near."""

    __str__ = Exception.__str__  # KeyError's own would quote the line


def require(name: str, value, part: str, how: str) -> None:
    """Raise InputError unless `value`, called `name`, has the attribute `part`; how: what gives
    one."""
    if isinstance(value, type) or not hasattr(value, part):
        what = short(value) if isinstance(value, (str, type)) else f"a {type(value).__name__}"
        raise InputError(f"{name} is {what}, which is no {name}: {how}")
