"""The one exception that means "what you gave cannot be used": its message is the line a person
reads."""


class InputError(ValueError):
    """A value, file or option given by the user is unusable; the message says what, its value and
    what to do."""
