"""Everything that can be asked of a generation: one row an option, checked once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property

import numpy as np

from .. import ops as numpy_ops
from ..errors import InputError, count, require_kind, short, whole_number
from ..protocol import Model
from . import filters

DEFAULT_NEW_TOKENS = 64

# What transformers' generate takes besides, and what to do here instead.
INSTEAD = {
    name: instead
    for names, instead in (
        ("generation_config", "give its entries as options"),
        ("inputs input_ids inputs_embeds", "give the ids as first argument"),
        (
            "attention_mask token_type_ids position_ids",
            "prompts need no padding: give those of several lengths to decoding.generate_batch",
        ),
        ("pad_token_id", "rows that end early are filled up with the first of eos_token_id"),
        ("bos_token_id", "begin the prompt with it"),
        ("generator", "give seed"),
        (
            "streamer output_scores output_logits return_dict_in_generate",
            "iterate over minillm.generate(...): each token as it comes, with its log-probability",
        ),
        ("output_attentions output_hidden_states", "model.trace(ids) has every intermediate"),
        ("max_time stopping_criteria", "leave the loop over minillm.generate(...) at any token"),
        ("stop stop_strings tokenizer", "minillm.generate(model, tokenizer, prompt, stop=...)"),
        (
            "logits_processor prefix_allowed_tokens_fn bad_words_ids suppress_tokens sequence_bias"
            " begin_suppress_tokens forced_bos_token_id forced_eos_token_id min_length"
            " min_new_tokens",
            "minillm.generate(..., step=steps.Patch({'logits': function})) changes the logits",
        ),
        ("prompt_lookup_num_tokens", "minillm.generate(..., draft=decoding.NGramDraft(n))"),
        (
            "draft assistant_model assistant_confidence_threshold assistant_early_exit"
            " assistant_ensemble_weight assistant_lookbehind is_assistant max_matching_ngram_size"
            " num_assistant_tokens num_assistant_tokens_schedule speculation_type"
            " target_lookbehind use_mtp",
            "minillm.generate(..., draft=decoding.ModelDraft(model, n_tokens))",
        ),
        (
            "cache_implementation cache_config max_cache_len past_key_values",
            "cache_dtype and window shape the KV cache",
        ),
        ("prefill_chunk_size", "give chunk"),
        (
            "compile_config continuous_batching_config custom_generate decoder_start_token_id"
            " disable_compile low_memory negative_prompt_attention_mask negative_prompt_ids"
            " synced_gpus transformers_version _from_model_config",
            "leave it out",
        ),
    )
    for name in names.split()
}
# What changes the text in transformers and is not had here; the value at which it changes nothing.
MISSING = {
    name: neutral
    for names, neutral in (
        (
            "bad_words_ids begin_suppress_tokens constraints dola_layers"
            " exponential_decay_length_penalty force_words_ids forced_bos_token_id"
            " forced_eos_token_id max_time min_new_tokens sequence_bias stop_strings"
            " suppress_tokens top_h watermarking_config",
            None,
        ),
        ("remove_invalid_values renormalize_logits token_healing", False),
        (
            "diversity_penalty encoder_no_repeat_ngram_size epsilon_cutoff eta_cutoff min_length"
            " penalty_alpha",
            0,
        ),
        ("encoder_repetition_penalty guidance_scale num_beam_groups typical_p", 1),
    )
    for name in names.split()
}


def option(read: Callable, what: str, plain=None, **more):
    """A field that is None unless given: `read(name, value)` checks it, `what` is its --help, and
    `plain` holds where neither the caller nor the model decides.

    flag and how: its flag on the command line, where that does not follow from its name and type;
    how None: it has none.
    """
    return field(default=None, metadata={"read": read, "what": what, "plain": plain, **more})


def penalty(function: Callable, off, read: Callable, what: str):
    """The option of a function (logits, ids, value) -> logits, which depends on the text so far:
    greedy and beam search know it, too. At the value `off` it does nothing."""
    return option(read, what, off, penalty=function, off=off)


def sampler(function: Callable, off, read: Callable, what: str, plain=None):
    """The option of a filter (logits, value) -> logits. They are applied in the order of these rows
    after the penalties; naming one samples, and at the value `off` it does nothing."""
    return option(read, what, plain, filter=function, off=off)


def _whole(least: int = 1):
    return lambda name, value: whole_number(name, value, least)


def _number(allowed: str, test: Callable[[float], bool] = lambda number: True):
    def read(name: str, value) -> float | int:
        try:
            if not isinstance(value, (bool, np.bool_, str, bytes)):
                number = value if isinstance(value, int) else float(value)  # ints know no bounds
                if abs(number) < math.inf and test(number):
                    return number
        except (TypeError, ValueError):
            pass
        raise InputError(f"{name} is {short(value)}; it must be {allowed}")

    return read


def _one_of(*values):
    def read(name: str, value):
        try:
            return values[values.index(value)]
        except (TypeError, ValueError):  # arrays, some of which can be compared with nothing
            allowed = " or ".join(map(repr, values))
            raise InputError(f"{name} is {short(value)}; it must be {allowed}") from None

    return read


def _ids(name: str, value) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)):
        raise InputError(
            f"{name} is {value!r:.60}; it must be ids, as tokenizer.eot_id (text that ends a text"
            " is for stop)"
        )
    several = isinstance(value, Iterable) and getattr(value, "ndim", True)
    return tuple(whole_number(name, i, least=0) for i in (value if several else (value,)))


@dataclass(frozen=True)
class Options:
    """How to decode, each option by transformers' name where it has it. InputError names an option
    that cannot be, its value and what is allowed.

    What is given wins; what is not (None) is as the model's generation_config.json says (see `on`),
    and without one decoding is greedy. Naming top_k, top_p, min_p or a temperature above 0 samples;
    together with do_sample=False, temperature 0 or beams they are an error. Once made, every field
    holds what applies, a filter that is off None, and temperature 0 where nothing is drawn.
    """

    max_new_tokens: int | None = option(_whole(), "tokens to add, or as many as fit")
    max_length: int | None = option(_whole(), "most tokens in all, the prompt counted")
    do_sample: bool = option(
        _one_of(True, False), "draw the next token, instead of taking the likeliest", False
    )
    temperature: float = sampler(
        filters.temperature,
        1,
        _number("0 (greedy) or more", lambda t: t >= 0),
        "0 is greedy; below 1 sharpens the distribution, above 1 flattens it",
        plain=1.0,
    )
    top_k: int | None = sampler(
        filters.top_k, 0, _whole(0), "choose among the K likeliest tokens (0: all)"
    )
    top_p: float | None = sampler(
        filters.top_p,
        1,
        _number("above 0 and at most 1", lambda p: 0 < p <= 1),
        "choose among the likeliest that together reach P (1: all)",
    )
    min_p: float | None = sampler(
        filters.min_p,
        0,
        _number("between 0 and 1", lambda p: 0 <= p <= 1),
        "choose among those at least P times as likely as the likeliest (0: all)",
    )
    repetition_penalty: float = penalty(
        filters.repetition_penalty,
        1.0,
        _number("above 0 (1 is none)", lambda r: r > 0),
        "above 1: repeat less",
    )
    no_repeat_ngram_size: int = penalty(
        filters.no_repeat_ngram,
        0,
        _whole(0),
        "never write the same N tokens in a row twice (0: any)",
    )
    num_beams: int = option(_whole(), "search with N beams", 1)
    length_penalty: float = option(
        _number("from -50 to 50", lambda p: abs(p) <= 50),
        "of beams: scores are divided by (new tokens)**X, so that above 0 longer texts win",
        1.0,
    )
    early_stopping: bool | str = option(
        _one_of(True, False, "never"),
        "stop at N finished beams; never: only when no better text is possible (default: when none"
        " is likely)",
        False,
        how={"nargs": "?", "const": True, "choices": ("never",)},
    )
    num_return_sequences: int = option(
        _whole(), "of model.generate: how many texts for each prompt", 1, how=None
    )
    eos_token_id: int | Sequence[int] | None = option(
        _ids,
        "id that ends the text (default: the model's); may be given often",
        how={"type": int, "metavar": "ID", "action": "append"},
    )
    stop_tokens: Sequence[int] | None = option(_ids, "the same as eos_token_id", how=None)
    seed: int | None = option(_whole(0), "the same seed gives the same text")
    cache_dtype: str | None = option(
        _one_of("float64", "float32", "float16"),
        "of the KV cache (default: the model's): float16 halves its memory, and rounds",
        how={"choices": ("float64", "float32", "float16")},
    )
    on_full: str = option(
        _one_of("error", "slide"),
        "when the positions run out; slide: start anew from the last half window",
        "error",
        how={"choices": ("error", "slide")},
    )
    chunk: int | None = option(_whole(), "read the prompt N positions at a time (the same tokens)")
    use_cache: bool = option(
        _one_of(True, False),
        "compute everything anew for each token (the same tokens)",
        True,
        flag="--no-cache",
        how={"action": "store_false", "default": None},
    )
    window: int | None = option(
        _whole(),
        "attend to the newest N positions only (another model, not exact; with --no-cache they are"
        " read anew, as a text that begins there)",
    )
    given: dict = field(init=False, repr=False, compare=False)
    defaults: InitVar[Mapping | None] = None  # what generation_config.json holds

    def __new__(cls, *_, **names):
        for name in names.keys() - READ.keys() - {"defaults"}:
            if name in MISSING or name in INSTEAD:
                raise InputError(f"{name} is not had here: {INSTEAD.get(name, 'leave it out')}")
            near = get_close_matches(name, READ, 2)
            known = f"{' or '.join(near)} is" if near else f"known: {', '.join(READ)}"
            raise InputError(f"{name} is no option of generation; {known}")
        return super().__new__(cls)

    def __post_init__(self, defaults: Mapping | None):
        given = {n: READ[n](n, v) for n in READ if (v := getattr(self, n)) is not None}
        if {"eos_token_id", "stop_tokens"} <= given.keys():
            raise InputError("eos_token_id and stop_tokens are two names for one thing: give one")
        given = _one_name(given)
        for name, value in (_decided(given, _usable(defaults)) | {"given": given}).items():
            object.__setattr__(self, name, value)
        self._check_together()

    def on(self, model: Model) -> Options:
        """Return the options for `model`: what is not given, its generation_config.json says."""
        defaults = getattr(model.config, "generation", None)
        options = Options(**self.given, defaults=defaults) if defaults else self
        beams = options.num_beams
        for name in ("length_penalty", "early_stopping"):
            if beams == 1 and self.given.get(name, PLAIN[name]) != PLAIN[name]:
                raise InputError(f"{name} {self.given[name]} is for beams: set num_beams, too")
        if options.num_return_sequences > (math.inf if options.temperature > 0 else beams):
            raise InputError(
                f"num_return_sequences is {options.num_return_sequences}; it must be at most"
                f" num_beams, {beams}, or do_sample=True"
            )
        return options

    def _check_together(self) -> None:
        beams = f"num_beams {self.num_beams}"
        if self.num_beams > 1 and self.on_full == "slide":
            raise InputError(f"{beams} needs on_full='error': scores across a slide do not compare")
        if self.num_beams > 1 and self.chunk is not None:
            raise InputError(f"{beams} reads the prompt at once: leave out chunk {self.chunk}")
        if not self.use_cache:
            for name in ("num_beams", "chunk", "cache_dtype"):
                if getattr(self, name) not in (None, 1):
                    raise InputError(
                        f"{name} {getattr(self, name)} needs the KV cache: leave out"
                        " use_cache=False (--no-cache)"
                    )
        if (
            self.window is not None
            and self.use_cache
            and (self.num_beams > 1 or self.chunk not in (None, 1))
        ):
            raise InputError(
                f"window {self.window} reads one position at a time: leave out num_beams and chunk"
            )

    def require_plain(self, lever: str, **more) -> None:
        """Raise InputError for options that `lever` cannot be had with: beams, several texts,
        sliding, no cache, `more` {name: plain}."""
        plain = {"num_beams": 1, "on_full": "error", "use_cache": True, "window": None}
        for name, value in {**plain, "num_return_sequences": 1, **more}.items():
            if getattr(self, name) != value:
                raise InputError(
                    f"{lever} cannot be had with {name}={getattr(self, name)!r}: leave one out"
                )

    def new_tokens(self, n_prompt: int, n_positions: int) -> int:
        """Return how many tokens may follow a prompt of n_prompt; InputError where those that were
        asked for do not fit."""
        if self.max_length is not None and self.max_length <= n_prompt:
            raise InputError(
                f"max_length {self.max_length} counts the prompt, which has {n_prompt} tokens"
                " already"
            )
        limits = [] if self.max_new_tokens is None else [self.max_new_tokens]
        limits += [] if self.max_length is None else [self.max_length - n_prompt]
        wanted = min(limits, default=DEFAULT_NEW_TOKENS)
        if self.on_full == "slide":
            return wanted
        fit = n_positions - n_prompt + 1  # the last token is never fed back, and needs no position
        if fit < 1:
            raise InputError(
                f"the prompt has {n_prompt:,} tokens and the model {n_positions} positions: "
                "shorten it, or slide, which keeps its end (--on-full slide; in Python"
                " on_full='slide')"
            )
        if LIMITS & self.given.keys() and wanted > fit:
            raise InputError(
                f"{count(n_prompt, 'token')} and {wanted} new ones do not fit the model's"
                f" {n_positions} positions: ask for at most {fit}, or slide on (--on-full slide;"
                " in Python on_full='slide')"
            )
        return min(wanted, fit)

    def penalised(self, logits, ids):
        """Return the logits after what depends on the text so far, which greedy and beam search
        know, too."""
        for function, value in self._penalties:
            logits = function(logits, ids, value)
        return logits

    def distribution(self, logits, ids, ops=numpy_ops):
        """Return the probabilities [V] from which the next token is drawn; ids are the tokens so
        far, ops the twin."""
        with np.errstate(invalid="ignore"):  # nothing but -inf gives NaN, which `choose` refuses
            logits = self.penalised(logits, ids)
            for function, value in self._filters:
                logits = function(logits, value)
            return ops.softmax(logits)

    @cached_property
    def _penalties(self) -> list[tuple[Callable, float]]:
        return self._that_are_on(PENALTIES)

    @cached_property
    def _filters(self) -> list[tuple[Callable, float]]:
        return self._that_are_on(FILTERS) if self.temperature > 0 else []

    def _that_are_on(self, table: Mapping[str, tuple]) -> list[tuple[Callable, float]]:
        """The functions of a table that do something, each with its value."""
        values = ((function, getattr(self, name), off) for name, (function, off) in table.items())
        return [(function, v) for function, v, off in values if v not in (None, off)]

    def choose(self, probs, rng: np.random.Generator) -> int:
        """Return the next token: the likeliest if greedy, else one drawn from `probs`."""
        u = None if self.temperature == 0 else rng.random()
        return filters.choose(probs, u)


ROWS = {
    f.name: {"kind": f.type.removesuffix(" | None"), **f.metadata}
    for f in fields(Options)
    if f.metadata
}
READ = {name: row["read"] for name, row in ROWS.items()}
PLAIN = {name: row["plain"] for name, row in ROWS.items()}
PENALTIES = {n: (row["penalty"], row["off"]) for n, row in ROWS.items() if "penalty" in row}
FILTERS = {n: (row["filter"], row["off"]) for n, row in ROWS.items() if "filter" in row}
LIMITS = {"max_new_tokens", "max_length"}


def _one_name(values: dict) -> dict:
    """The values with stop_tokens for eos_token_id."""
    return {"stop_tokens" if n == "eos_token_id" else n: value for n, value in values.items()}


def _usable(defaults: Mapping | None) -> dict:
    """The options that a generation_config.json sets; InputError for what would change the text and
    is not had here."""
    defaults = require_kind("defaults", {} if defaults is None else defaults, Mapping, "a table")
    defaults = {n: v for n, v in defaults.items() if v is not None and v != []}
    try:
        for name in MISSING.keys() & defaults.keys() - READ.keys():
            if defaults[name] != MISSING[name]:
                raise InputError(f"{name} is {defaults[name]!r:.60}, which is not had here")
        own = READ.keys() - {
            "use_cache"
        }  # a cache changes no token; files say what training needed
        return _one_name({n: READ[n](n, v) for n, v in defaults.items() if n in own})
    except InputError as error:
        raise InputError(f"the model's generation_config.json: {error}") from None


def _decided(given: dict, defaults: dict) -> dict:
    """Every option's value: what is given, else the model's default, else the plain one; and one
    way to choose tokens."""
    draws = [n for n in ("do_sample", "temperature") if given.get(n)]
    draws += [n for n in FILTERS if n in given and n != "temperature"]
    fixed = [n for n in ("do_sample", "temperature") if n in given and not given[n]]
    fixed += ["num_beams"] if given.get("num_beams", 1) > 1 else []
    if draws and fixed:
        raise InputError(
            f"{draws[0]} {given[draws[0]]} samples and {fixed[0]} {given[fixed[0]]} does not: set"
            " one only"
        )
    if LIMITS & given.keys():
        defaults = {n: v for n, v in defaults.items() if n not in LIMITS}
    values = PLAIN | defaults | given
    values["do_sample"] = bool(draws or (not fixed and values["do_sample"]))
    if not values["do_sample"]:
        return values | dict.fromkeys(FILTERS) | {"temperature": 0.0}
    if values["num_beams"] > 1 and not draws:
        raise InputError(
            f"the model's generation_config.json samples with num_beams {values['num_beams']},"
            " which"
            " is not had here: give do_sample=True or num_beams"
        )
    return values | {"num_beams": 1}
