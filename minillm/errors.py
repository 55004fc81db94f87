"""The one exception that means "what you gave cannot be used": its message is the line a person
reads."""

import operator


class InputError(ValueError):
    """A value, file or option given by the user is unusable; the message says what, its value and
    what to do."""

    def __init__(self, message: str = ""):
        super().__init__(one_line(message))


MOST = 1000  # characters of a message


def one_line(message: str) -> str:
    """A message with the middle of a long one left out: its ends say where, and what to do."""
    if len(message) <= MOST:
        return message
    return f"{message[: MOST // 2]} [...] {message[-MOST // 3 :]}"


def whole_number(name: str, value, least: int = 1) -> int:
    """Return `value` as an int; InputError unless it is a whole number (not 3.0, not True) of at
    least `least`."""
    try:
        if not isinstance(value, bool) and (number := operator.index(value)) >= least:
            return number
    except TypeError:
        pass
    raise InputError(f"{name} is {value!r:.60}; it must be a whole number of at least {least}")


def require(name: str, value, part: str, how: str) -> None:
    """Raise InputError unless `value`, called `name`, has the attribute `part`; how: what gives
    one."""
    if isinstance(value, type) or not hasattr(value, part):
        what = f"{value!r:.60}" if isinstance(value, (str, type)) else f"a {type(value).__name__}"
        raise InputError(f"{name} is {what}, which is no {name}: {how}")
