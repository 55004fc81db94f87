"""Drafts by name, as the command line and the ledger take them."""

from __future__ import annotations

from collections.abc import Callable

from ..compression import quantize, skip_layers
from ..errors import InputError, require_kind, short
from ..protocol import Model, require_model
from ..tokenizer import Tokenizer, require_tokenizer
from ..weights import KINDS
from .speculative import Draft, ModelDraft, NGramDraft


def named_draft(
    name: str,
    model: Model,
    tokenizer: Tokenizer,
    load: Callable[..., tuple[Model, Tokenizer]],
    n_tokens: int | None = None,
) -> Draft:
    """Return the draft for `model` that is called `name`.

    "ngram": look-up in the text; "skip:N": `model` without N of its layers; a kind of storage
    ("int8", "int4", ...): `model` quantised; anything else is a model to `load` (minillm.load, for
    example), which must have the same tokens.
    """
    require_kind("draft", name, str, "a name: ngram, skip:2, int4, a model to load")
    require_model(model)
    n: dict = {} if n_tokens is None else {"n_tokens": n_tokens}
    if name == "ngram":
        return NGramDraft(**n)
    if name.startswith("skip:"):
        count = name.removeprefix("skip:")
        if not (count.isdecimal() and len(count) < 10):
            raise InputError(f"draft {short(name)}: skip:N needs a number of layers")
        return ModelDraft(skip_layers(model, int(count)), **n)
    if name in KINDS:
        return ModelDraft(quantize(model, name), **n)
    require_tokenizer(tokenizer)
    try:
        other, its_tokenizer = load(name, kernels=model.ops)
    except InputError as error:
        raise InputError(
            f"draft {name!r} is not ngram, skip:N, {', '.join(KINDS)} or a model to load: {error}"
        ) from None
    if its_tokenizer.tokens != tokenizer.tokens:
        raise InputError(
            f"draft {name}: its vocabulary is another one; a draft must have the model's own tokens"
        )
    return ModelDraft(other, **n)
