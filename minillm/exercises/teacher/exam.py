"""Exam questions with answers, from a seed: the numbers are drawn, the answers computed by the
library itself.

A seed gives the same questions everywhere. A third of them are claims that are in print and wrong:
what is true instead?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, prod
from typing import NamedTuple

import numpy as np

from ... import ops
from ...decoding import filters
from ...errors import InputError, several, short, whole_number
from ...families.gpt2.config import GPT2Config
from ...layers.attention import causal_mask, split_heads
from ...training.optimizers import adamw_update
from ..catalogue import answers


@dataclass(frozen=True)
class Question:
    """One question of an exam: of which chapter, how many minutes it takes, what is asked and what
    is right."""

    chapter: int
    minutes: int
    text: str
    answer: str


@dataclass(frozen=True)
class Claim:
    """A misconception that is in print, the chapter that takes it apart, and what is true. about:
    the facts, a word each, that another question may be about, too."""

    chapter: int
    says: str
    true: str
    about: str = ""


CLAIMS = (
    Claim(
        3,
        "Attention is (1/sqrt(d_k)) softmax(Q K^T / d_k) V.",
        "softmax(Q K^T / sqrt(d_k) + mask) V. With the factor outside, the weights of a row sum to"
        " 1/sqrt(d_k); divided by d_k inside, the scores of unit-variance q and k deviate by"
        " 1/sqrt(d_k) only (0.125 at d_k = 64), so the weights are nearly uniform.",
        "scale",
    ),
    Claim(
        3,
        "Q K^T = softmax^-1(Q K^T / d_k), and softmax(S) = softmax(S / d_k) / sqrt(d_k).",
        "softmax has no inverse, since softmax(x + c) = softmax(x). The rows of the two sides sum"
        " to 1 and to 1/sqrt(d_k): they cannot be equal.",
        "scale shift",
    ),
    Claim(
        3,
        "Q = [1, 2, 3], K = [4, 5, 6], V = [7, 8, 9] give 24 / sqrt(32).",
        "32 is the score q k, not d_k, which is 3; and V was summed. One key alone has weight 1 and"
        " gives [7, 8, 9]; read as three tokens with d_k = 1, causal attention gives [7, 7.8808,"
        " 8.9480].",
        "attention",
    ),
    Claim(
        3,
        "Only W_Q and W_K project the input, and each token sees all others.",
        "W_V projects too (and W_O what comes out); GPT-2 masks: a token sees itself and earlier"
        " ones only.",
        "mask",
    ),
    Claim(
        6,
        "During inference the model back-propagates and updates its parameters for the next step.",
        "Nothing is learnt while text is generated: the parameters stay as they are, only the cache"
        " of keys and values grows.",
    ),
    Claim(
        6,
        "The model reads character by character, the prompt too.",
        "It reads tokens, often whole words. The prompt is one pass, all positions at once; only"
        " new tokens wait for each other.",
    ),
    Claim(
        6,
        "One step of the model is one clock cycle of the processor.",
        "A step takes millions of cycles, and more as the context grows: every weight is read and"
        " multiplied.",
    ),
    Claim(
        2,
        "The next word depends on the previous word only.",
        "It depends on all earlier tokens in the window; a bigram table is what depends on one.",
    ),
    Claim(
        3,
        "Attention saves computation, because the model attends only to what matters.",
        "The cost is the same whatever the weights are: every score must be computed before one"
        " knows that it is small.",
    ),
    Claim(
        11,
        "Cut the text in pieces, run each alone and join the outputs: the same result, cheaper.",
        "Each later piece has lost its context. It is exact only if the cache is carried from piece"
        " to piece.",
    ),
    Claim(
        5,
        "A language model is: text -> attention -> feed-forward -> text.",
        "Tokens, embedding plus positions, then L blocks (norm, attention, norm, feed-forward, each"
        " added to the stream), a final norm, unembedding to logits, a choice; and a loop over"
        " tokens around it.",
    ),
    Claim(
        7,
        "As a decision process, the state of text generation is the position, and the reward is"
        " accuracy.",
        "The state is the whole prefix, since the probabilities depend on all of it; an action is a"
        " token, and its reward its log-probability, so that rewards add up to that of the text.",
    ),
    Claim(
        2,
        "After 'The cat sat on the' the candidates are: mat, hat, mat.",
        "There are V candidates, the distinct tokens of the vocabulary, each once. A word of"
        " several tokens has the product of their conditional probabilities.",
    ),
    Claim(
        2,
        "The loss of a text of T tokens sums over t = 1 to T.",
        "T tokens give T - 1 predictions: nothing predicts the first, unless <|endoftext|> is put"
        " in front.",
        "predictions",
    ),
    Claim(
        6,
        "A program with max_length=50 and a prompt of 5 tokens writes 50 new ones (or prints one"
        " new word).",
        "max_length counts the prompt: up to 45 new tokens follow, fewer if the model ends the"
        " text.",
        "max_length",
    ),
    Claim(
        14,
        "An LSTM that takes out[-1] of batch-first data takes the last step; and it shows how an"
        " LLM infers.",
        "out[-1] is the last example of the batch: out[:, -1] is the last step (the last real one,"
        " if rows are padded). And a classifier gives one label a text; an LLM a distribution over"
        " the next token, again and again.",
        "last",
    ),
)


class Maker(NamedTuple):
    """What makes questions: rng -> (text, answer), with its chapter, its minutes, and the facts
    that it is about, as a Claim has them."""

    chapter: int
    minutes: int
    make: Callable[[np.random.Generator], tuple[str, str]]
    about: str = ""


MAKERS: list[Maker] = []


def exam(seed: int, count: int = 12, chapters: set[int] | None = None) -> list[Question]:
    """Return `count` questions in the order of the course, no two about the same fact, a third of
    them claims; fewer if there are no more."""
    count, seed = whole_number("count", count), whole_number("seed", seed, least=0)
    if chapters is not None:
        numbers = several("chapters", chapters, "the numbers of chapters")
        chapters = {whole_number("a chapter", chapter, least=0) for chapter in numbers}
    rng = np.random.default_rng(seed)
    makers = [maker for maker in MAKERS if chapters is None or maker.chapter in chapters]
    claims = [claim for claim in CLAIMS if chapters is None or claim.chapter in chapters]
    if not makers and not claims:
        raise InputError(
            f"there are no questions of chapter {short(min(chapters or (), default=None))}"
        )
    n_claims, known = min(len(claims), max(count // 3, count - len(makers))), set[str]()
    drawn = _drawn(rng, makers, count - n_claims, known)
    claims = _drawn(rng, claims, n_claims, known)
    others = [maker for maker in makers if maker not in drawn]
    drawn += _drawn(rng, others, count - len(drawn) - len(claims), known)
    questions = []
    for maker in drawn:
        own = np.random.default_rng([seed, MAKERS.index(maker)])
        questions.append(Question(maker.chapter, maker.minutes, *maker.make(own)))
    for claim in claims:
        text = (
            f'In print: "{claim.says}" What is wrong with it, how would one see it in numbers, and'
            " what is true?"
        )
        questions.append(Question(claim.chapter, 5, text, claim.true))
    return sorted(questions, key=lambda q: q.chapter)


def _drawn(rng, pool: list, count: int, known: set[str]) -> list:
    """At most `count` of a pool, about none of the `known` facts; theirs become known."""
    drawn: list = []
    for i in rng.permutation(len(pool)):
        about = {*pool[i].about.split()}
        if len(drawn) < count and not about & known:
            drawn.append(pool[i])
            known |= about
    return drawn


def _question(chapter: int, minutes: int, about: str = ""):
    """Add a Maker."""

    def add(make: Callable) -> Callable:
        MAKERS.append(Maker(chapter, minutes, make, about))
        return make

    return add


def _list(values, decimals: int = 4) -> str:
    return (
        "["
        + ", ".join(
            f"{v:.{decimals}f}".rstrip("0").rstrip(".") for v in np.asarray(values, float) + 0.0
        )
        + "]"
    )


# ---- core


@_question(1, 3)
def _bytes(rng):
    text = " ".join(
        rng.choice(["cat", "über", "año", "naïve", "日本", "Größe", "文", "🙂"], 3, replace=False)
    )
    n = len(text.encode())
    return (
        f"How many tokens is the text {text!r} for byte-level BPE that has learnt no merges yet?",
        f"{n}: as many as UTF-8 bytes, for {len(text)} characters.",
    )


@_question(1, 6)
def _merges(rng):
    word = str(rng.choice(["lower", "banana", "letter", "better", "hello", "little"]))
    tokens, ranks = [word[i : i + 1].encode() for i in range(len(word))], {}
    for _ in range(3):
        i = rng.integers(len(tokens) - 1)
        ranks[tokens[i], tokens[i + 1]] = None
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    ranks = {pair: rank for rank, pair in enumerate(ranks)}
    learnt = ", ".join(f"{a.decode()}+{b.decode()}" for a, b in ranks)
    return (
        (
            f"BPE has learnt these merges, in this order: {learnt}. Into which tokens does it cut"
            f" {word!r}?"
        ),
        " | ".join(t.decode() for t in answers.encode(word.encode(), ranks)),
    )


@_question(2, 3, "shift")
def _softmax(rng):
    weights = rng.permutation([1, 2, 3, 4, 5])[:3]
    shown = ", ".join("0" if w == 1 else f"ln {w}" for w in weights)
    probs = ops.softmax(np.log(weights.astype(float)))
    return (
        (
            f"Three tokens have the logits {shown}. What are their probabilities? And if 100 is"
            " added to every logit?"
        ),
        (
            f"{_list(probs)}, that is {', '.join(f'{w}/{weights.sum()}' for w in weights)}; the"
            " same with 100 added."
        ),
    )


@_question(2, 5)
def _perplexity(rng):
    halvings = rng.integers(1, 6, 4)
    logits = np.log(np.stack([0.5**halvings, 1 - 0.5**halvings], axis=-1))
    loss = ops.cross_entropy(logits, np.zeros(4, int)).mean()
    return (
        (
            "A model gave the four tokens that came the probabilities"
            f" {', '.join(f'1/{2**n}' for n in halvings)}. What are its cross-entropy in bits a"
            " token, and its perplexity?"
        ),
        f"{loss / log(2):g} bits ({loss:.4f} nats); perplexity {np.exp(loss):.4f}.",
    )


@_question(2, 2, "predictions")
def _predictions(rng):
    n, lead = int(rng.integers(20, 200)), bool(rng.integers(2))
    where = "with <|endoftext|> put in front" if lead else "with nothing in front"
    return (
        (
            f"A text of {n} tokens is scored, {where}. Over how many predictions does its loss"
            " average?"
        ),
        f"{n if lead else n - 1}: every token but the first of what the model reads is predicted.",
    )


@_question(3, 8, "attention")
def _attention(rng):
    q, k, v = (rng.integers(low, high, 3) for low, high in ((1, 3), (0, 3), (1, 9)))
    shaped = [x.astype(float).reshape(1, 1, 3, 1) for x in (q, k, v)]
    out = answers.attention(*shaped, np.arange(3)[None], 1.0)[0, 0, :, 0]
    weights = ops.softmax(q[1] * k[:2].astype(float))
    return (
        (
            f"One head, three tokens, d_k = 1: Q = {_list(q)}, K = {_list(k)}, V = {_list(v)}. What"
            " is the output of causal attention at the second token, and what are its weights?"
        ),
        (
            f"weights {_list(weights)} on the first two tokens, 0 on the third; output"
            f" {out[1]:.4f}. (All three: {_list(out)}.)"
        ),
    )


@_question(3, 4, "scale")
def _scale(rng):
    d = int(rng.choice([16, 64, 256]))
    return (
        (
            f"q and k have {d} independent components of mean 0 and variance 1. What is the"
            " standard deviation of q k; of q k / sqrt(d_k); of q k / d_k? Which one does"
            " attention use, and what would go wrong with the other two?"
        ),
        (
            f"{d**0.5:g}, 1 and {d**-0.5:g}. Divided by the root: undivided, softmax is nearly"
            " one-hot; divided by d_k, nearly uniform."
        ),
    )


@_question(3, 3, "mask")
def _visible(rng):
    n = int(rng.integers(8, 60))
    mask = causal_mask(np.arange(n)[None], n)
    return (
        (
            f"How many of the {n} x {n} scores of a head does the causal mask leave visible for {n}"
            " tokens?"
        ),
        f"{mask.sum():,} of {mask.size:,}: {n} * {n + 1} / 2.",
    )


@_question(3, 3)
def _head(rng):
    heads, d = int(rng.choice([4, 6, 8, 12])), int(rng.choice([16, 32, 64]))
    h = int(rng.integers(heads))
    owner = np.arange(heads * d)[None, None]
    columns = split_heads(owner, heads)[0, h, 0]
    return (
        (
            f"C = {heads * d}, H = {heads}. Which columns of q [T,C] belong to head {h} (counted"
            " from 0)?"
        ),
        f"{columns[0]} to {columns[-1]}: {d} neighbouring ones.",
    )


@_question(4, 5)
def _norm(rng):
    row = rng.permutation([1, 2, 4, 5, 8])[:4].astype(float)
    return (
        f"What does layer norm make of the row {_list(row)}, with weight 1, bias 0 and eps 0?",
        (
            f"{_list(ops.layer_norm(row, 1.0, 0.0, 0.0))}: mean {row.mean():g}, standard deviation"
            f" {row.std():.4f} (divided by 4, not 3)."
        ),
    )


@_question(5, 6)
def _parameters(rng):
    c = GPT2Config(
        vocab_size=int(rng.choice([1000, 4096, 8000])),
        n_positions=int(rng.choice([128, 256, 512])),
        n_embd=int(rng.choice([64, 128, 192])),
        n_layer=int(rng.integers(2, 7)),
        n_head=4,
    )
    sizes = {name: prod(shape) for name, shape in c.parameter_shapes().items()}
    total, block = (
        sum(sizes.values()),
        sum(size for name, size in sizes.items() if name.startswith("h.0.")),
    )
    return (
        (
            f"How many parameters has a GPT-2 with vocab_size {c.vocab_size}, n_positions"
            f" {c.n_positions}, n_embd {c.n_embd}, n_layer {c.n_layer}, biases included and the"
            " head tied?"
        ),
        (
            f"{total:,}: embeddings {c.vocab_size} * {c.n_embd} + {c.n_positions} * {c.n_embd},"
            f" {c.n_layer} blocks of {block:,} (12 C^2 + 13 C), and 2 C of ln_f."
        ),
    )


@_question(6, 3)
def _positions(rng):
    prompt, new = int(rng.integers(3, 12)), int(rng.integers(10, 60))
    without = sum(range(prompt, prompt + new))
    return (
        (
            f"{new} tokens are generated after a prompt of {prompt}. How many positions go through"
            " the model in all, with a KV cache and without?"
        ),
        (
            f"{prompt + new - 1} with: each once, and the last token is never fed in; {without:,}"
            " without."
        ),
    )


@_question(6, 4)
def _cache(rng):
    n_layer, c, n = (
        int(rng.choice([6, 12, 24])),
        int(rng.choice([256, 768, 1024])),
        int(rng.choice([256, 512, 1024])),
    )
    size = answers.decode_cost(c, n_layer, 1, n, 0)[1]
    return (
        (
            f"How many bytes does the KV cache hold for one text of {n} tokens: n_layer {n_layer},"
            f" n_embd {c}, float32? Does the number of heads matter?"
        ),
        f"{size:,} bytes: 2 * {n_layer} * {n} * {c} * 4; the number of heads does not.",
    )


@_question(6, 2, "max_length")
def _max_length(rng):
    prompt, most = int(rng.integers(3, 20)), int(rng.integers(30, 100))
    return (
        (
            f"A program is called with max_length={most} and a prompt of {prompt} tokens. How many"
            f" new tokens does it write at most? And with max_new_tokens={most}?"
        ),
        f"{most - prompt}, since max_length counts the prompt; {most}.",
    )


@_question(7, 5)
def _filters(rng):
    probs = rng.permutation(
        [[0.4, 0.25, 0.15, 0.12, 0.08], [0.5, 0.2, 0.12, 0.1, 0.08], [0.3, 0.28, 0.22, 0.15, 0.05]]
    )[0]
    probs, k, p = (
        rng.permutation(probs),
        int(rng.integers(2, 4)),
        float(rng.choice([0.6, 0.75, 0.9])),
    )
    kept_k, kept_p = (
        np.flatnonzero(np.isfinite(f(np.log(probs), x))).tolist()
        for f, x in ((filters.top_k, k), (filters.top_p, p))
    )
    return (
        (
            f"The tokens 0 to 4 have the probabilities {_list(probs)}. Which can top-k choose with"
            f" k = {k}, and which can top-p with p = {p:g}? What is the most probable one's"
            " probability after top-p?"
        ),
        f"top-k: {kept_k}; top-p: {kept_p}; {probs.max() / probs[kept_p].sum():.4f}.",
    )


@_question(7, 4)
def _paths(rng):
    first = float(rng.choice([0.55, 0.6, 0.65]))
    after_a, after_b = float(rng.choice([0.3, 0.4, 0.7])), float(rng.choice([0.6, 0.8, 0.9]))
    a, b = first * after_a, (1 - first) * after_b
    return (
        (
            f"First token: a with probability {first:g}, else b. The likeliest second token has"
            f" probability {after_a:g} after a, and {after_b:g} after b. Which text of two tokens"
            " does greedy decoding write, which one does a beam of 2, and how probable are they?"
        ),
        (
            f"greedy: a and its likeliest, {a:.4f}; beam: {'b' if b > a else 'a'} and its"
            f" likeliest, {max(a, b):.4f}."
        ),
    )


# ---- time


@_question(8, 4)
def _roofline(rng):
    n, width = int(rng.choice([124, 355, 774])) * 10**6, int(rng.choice([1, 2, 4]))
    bandwidth, peak = int(rng.choice([20, 40, 100])), int(rng.choice([200, 500, 1000]))
    seconds, binds = answers.roofline(2 * n, n * width, peak * 1e9, bandwidth * 1e9)
    return (
        (
            f"A model of {n // 10**6} million weights, {width} byte{'s' * (width > 1)} each,"
            f" decodes one token at a time on a machine that reads {bandwidth} GB/s and computes"
            f" {peak} GFLOP/s. How many tokens a second are possible at most, and what binds?"
        ),
        (
            f"{1 / seconds:.1f}: {n * width / 1e6:,.0f} MB a token, bound by {binds}; the"
            f" arithmetic alone would take {2 * n / peak / 1e6:.3g} ms."
        ),
    )


@_question(8, 4)
def _flops(rng):
    c, n_layer, v, s = (
        int(rng.choice([256, 512, 768])),
        int(rng.choice([4, 6, 12])),
        4096,
        int(rng.choice([100, 500, 1000])),
    )
    flops, _ = answers.decode_cost(c, n_layer, v, s, 4)
    return (
        (
            f"How many FLOPs does one decode step take: C = {c}, L = {n_layer}, V = {v}, {s}"
            " positions in the cache? Count the products with weights and attention's own, a"
            " multiply-add as 2."
        ),
        (
            f"{flops:,}: 2 (12 L C^2 + C V) = {flops - 4 * n_layer * s * c:,} for the weights, 4 L"
            f" S C = {4 * n_layer * s * c:,} for attention."
        ),
    )


@_question(9, 4)
def _intensity(rng):
    rows, n = int(rng.choice([1, 8, 64])), int(rng.choice([256, 512, 1024]))
    flops, moved = 2 * rows * n * n, 4 * (2 * rows * n + n * n)
    return (
        (
            f"x [{rows},{n}] times w [{n},{n}], float32. How many FLOPs is that, how many bytes"
            " have to be moved at least, and how many FLOPs is it a byte? What changes with the"
            " number of rows?"
        ),
        (
            f"{flops:,} FLOPs, {moved:,} bytes, {flops / moved:.3g} FLOPs a byte. With more rows, w"
            " is read once for all of them: prefill is bound by arithmetic, decode by memory."
        ),
    )


@_question(10, 5)
def _quantised(rng):
    steps = np.array([127, *rng.integers(-126, 127, 3)])
    weights = np.concatenate([(steps + [0, *rng.uniform(-0.4, 0.4, 3)]) / 100, np.zeros(28)]).round(
        4
    )
    q, scales = answers.quantize(weights[None].astype(np.float32))
    return (
        (
            f"A block of 32 weights begins {_list(weights[:4])}; the rest are 0. Store it in 8 bits"
            " by its largest size: which scale, which integers? By how much can a weight be off at"
            " most?"
        ),
        (
            f"scale {scales[0, 0]:.4g}, integers {q[0, 0, :4].tolist()} and 0; half a step,"
            f" {scales[0, 0] / 2:.4g}."
        ),
    )


@_question(10, 3)
def _bits(rng):
    bits, block, scale = (
        int(rng.choice([4, 8])),
        int(rng.choice([32, 64, 128])),
        int(rng.choice([16, 32])),
    )
    return (
        (
            f"Weights are stored in {bits} bits, with a scale of {scale} bits for every {block} of"
            " them. How many bits a weight, and how many times smaller than float32?"
        ),
        f"{bits + scale / block:g} bits; {32 / (bits + scale / block):.2f} times.",
    )


@_question(11, 6)
def _accepted(rng):
    p, q = (rng.permutation(x) for x in ([0.5, 0.3, 0.2], [0.6, 0.3, 0.1]))
    rest = np.maximum(p - q, 0)
    share = np.minimum(p, q).sum()
    rule = (
        f"after a rejection draw from {_list(rest / rest.sum())}"
        if share < 1 - 1e-9
        else "none is ever rejected"
    )
    return (
        (
            f"Speculative decoding: the model's probabilities are {_list(p)}, the draft's"
            f" {_list(q)}. How probable is it that a guess is accepted, and from which distribution"
            " does one draw after a rejection?"
        ),
        f"{share:.4f}, the sum of min(p, q); {rule}.",
    )


@_question(11, 3)
def _verified(rng):
    chosen = rng.integers(10, 99, 5).tolist()
    drafted, wrong = chosen[:4], int(rng.integers(0, 5))
    if wrong < 4:
        drafted[wrong] = int(rng.integers(100, 200))
    return (
        (
            f"Greedy decoding with a draft: the guesses are {drafted}; the model's own choices,"
            f" after the text and after each guess, are {chosen}. Which tokens does this cycle"
            " yield?"
        ),
        (
            f"{answers.verified(drafted, chosen)}: the guesses up to the first wrong one, and one"
            " of the model's own."
        ),
    )


# ---- learning


@_question(12, 4)
def _gradient(rng):
    weights, target = rng.permutation([1, 2, 3, 4]), int(rng.integers(4))
    probs = weights / weights.sum()
    gradient = probs - np.eye(4)[target]
    return (
        (
            f"softmax gave four tokens the probabilities {_list(probs)}; token {target} came. What"
            " is the gradient of the loss with respect to the logits, and what do its components"
            " sum to?"
        ),
        f"{_list(gradient)}: softmax - onehot; 0.",
    )


@_question(13, 5)
def _adamw(rng):
    lr, decay = float(rng.choice([0.1, 0.01])), float(rng.choice([0.0, 0.1]))
    weight, gradient = float(rng.integers(1, 5)), float(rng.choice([-3.0, 0.02, 40.0]))
    after = np.array([weight])
    adamw_update(
        after,
        np.array([gradient]),
        np.zeros(1),
        np.zeros(1),
        lr=lr,
        step=1,
        eps=0.0,
        weight_decay=decay,
    )
    return (
        (
            f"AdamW's first step: weight {weight:g}, gradient {gradient:g}, lr {lr:g}, weight decay"
            f" {decay:g}, eps 0. What is the weight afterwards, and what would it be with a"
            " gradient a thousand times as large?"
        ),
        (
            f"{after[0]:.5g}, in both cases: in the first step mean / root of the square is the"
            " gradient's sign."
        ),
    )


@_question(14, 3, "last")
def _last(rng):
    b, t, c = (int(n) for n in rng.choice([3, 5, 7, 8, 16, 32], 3, replace=False))
    return (
        (
            f"`out` holds an LSTM's states, batch first: [{b},{t},{c}]. What are the shapes of"
            " out[-1] and out[:, -1]? Which one does a classifier read, and when is that one wrong"
            " too?"
        ),
        (
            f"[{t},{c}], all steps of the last example, and [{b},{c}], the last step of each, which"
            " is right unless rows are padded: then each row's last real step."
        ),
    )
