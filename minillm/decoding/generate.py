"""Generation from end to end: choose a strategy (plain, beam, speculative), and add the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import InputError, count
from ..ids import checked_ids
from ..machine.quota import require_memory
from ..protocol import Model, require_model
from ..steps import Step, identity
from ..tokenizer import Tokenizer, require_tokenizer
from .beam import beam_search, best_beams
from .cycle import Continuation, Moment, checked_for, positions_for, shown, stop_tokens
from .options import Options
from .plain import one_by_one
from .speculative import Draft, speculate
from .text import TextStream


def moments(
    model: Model,
    ids: Sequence[int],
    options: Options,
    step: Step = identity,
    draft: Draft | None = None,
    tokenizer: Tokenizer | None = None,
) -> Iterator[Moment]:
    """Yield one moment for each new token (text left empty): prefill the prompt, then one decode
    cycle a token. tokenizer: only its tokens are chosen."""
    text = Continuation(model, ids, options, tokenizer=tokenizer)
    step = checked_for(model, step, choices=text.options.num_beams == 1)
    if draft is not None:
        return speculate(model, text, draft, step)
    if text.options.num_beams > 1:
        return beam_search(model, text, step)
    return one_by_one(model, text, step)


def generate(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    stop: Sequence[str] | str = (),
    draft: Draft | None = None,
    step: Step = identity,
    **options,
) -> Iterator[Moment]:
    """Continue `prompt` and yield the moments as they come; "".join(m.text for m in ...) is the new
    text.

    prompt: text, in which <|endoftext|> and other specials count as such, or ids. stop: strings
    before which to end. options: see decoding.Options (max_new_tokens, temperature, top_k, top_p,
    num_beams, seed, ...). With beams, all moments come at the end. draft: guesses tokens that the
    model then only checks, see decoding.speculative. Raises InputError for an empty prompt,
    unusable options, and what does not fit.
    """
    require_model(model)
    require_tokenizer(tokenizer)
    if isinstance(prompt, (list, tuple)) and any(isinstance(part, str) for part in prompt):
        raise InputError(
            "a list of texts is given as prompt, where one is due: give tokenizer.encode_batch(...)"
            " to decoding.generate_batch"
        )
    if tokenizer.vocab_size > model.config.sizes.V:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {model.config.sizes.V}"
        )
    ids = tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt
    chosen = Options(**options)
    if chosen.num_return_sequences > 1:
        raise InputError(
            f"num_return_sequences {chosen.num_return_sequences}: minillm.generate yields the"
            " tokens of one text; model.generate(ids, ...) returns several"
        )
    return _with_text(
        moments(model, ids, chosen, step, draft, tokenizer), TextStream(tokenizer, stop)
    )


def _with_text(stream: Iterator[Moment], text: TextStream) -> Iterator[Moment]:
    for moment in stream:
        moment = shown(moment, text)
        yield moment
        if moment.finish:
            return


def generate_ids(model: Model, ids, max_new_tokens: int | None = None, **options) -> np.ndarray:
    """Return ids [T] or [B,T] with the new ones after them, int64, as transformers' generate does.

    num_return_sequences = n gives n rows for each prompt, the best beam first: [n,T'] or [B n,T'].
    Rows are generated one after another; the first draws from `seed`'s own stream, each other one
    from a stream spawned from it. Shorter ones are filled up with the stop token (0 if there is
    none).
    """
    require_model(model)
    chosen = Options(max_new_tokens=max_new_tokens, **options).on(model)
    ids, single = checked_ids(ids, model.config.sizes.V)
    n, (B, T) = chosen.num_return_sequences, ids.shape
    longest = T + chosen.new_tokens(T, positions_for(model, chosen))
    require_memory(
        f"{count(n * B, 'text')} of {longest} ids",
        2 * 8 * n * B * longest,
        "fewer num_return_sequences or max_new_tokens",
    )
    if chosen.num_beams > 1:
        texts = [Continuation(model, row, chosen) for row in ids]
        rows = [beam.ids for text in texts for beam in best_beams(model, text)]
    else:
        rng = np.random.default_rng(chosen.seed)
        rows = []
        for row in ids:
            for _ in range(n):
                stream = rng.spawn(1)[0] if rows else rng
                text = Continuation(model, row, chosen, rng=stream)
                for _ in one_by_one(model, text):
                    pass
                rows.append(text.ids)
    fill = next(iter(stop_tokens(model, chosen)), 0)
    out = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for row, to in zip(rows, out):
        to[: len(row)] = row
    return out[0] if single and n == 1 else out
