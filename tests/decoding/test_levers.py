"""Chunked prefill, no cache, speculation, batches, sliding window: each proven exact in float64,
and a gallery of classic mistakes, each of which makes its proof fail."""

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError, Tokenizer, ops
from minillm.decoding import Options, batch, speculative
from minillm.decoding.batch import Request, generate_batch
from minillm.decoding.filters import choose
from minillm.decoding.generate import moments
from minillm.decoding.speculative import Guess, ModelDraft, NGramDraft, acceptance
from minillm.kernels import decode, threads
from minillm.layers.cache import KVCache, SlidingCache, SlidingLayer
from minillm.steps import Patch
from minillm.twins import n_threads, set_threads
from minillm.twins.choose import twin
from minillm.weights import store_parameters


def lively(config, seed):
    """A float64 model far from uniform, so that greedy has something to prefer, and position
    matters."""
    model = GPT2.random(config, seed, np.float64)
    scaled = {
        n: p * 12 if n.endswith("weight") and "ln" not in n else p
        for n, p in model.parameters.items()
    }
    return GPT2(config, scaled)


MODEL = lively(GPT2Config(vocab_size=61, n_positions=48, n_embd=20, n_layer=2, n_head=4), seed=5)
OTHER = lively(GPT2Config(vocab_size=61, n_positions=48, n_embd=8, n_layer=1, n_head=2), seed=6)
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
REPEATING = [7, 8, 9, 10] * 4


def continued(prompt=PROMPT, n=20, draft=None, model=MODEL, **options):
    return list(moments(model, prompt, Options(max_new_tokens=n, **options), draft=draft))


def assert_same(moments, expected):
    """The same tokens, each with the same log-probability: float64, worst measured 5e-14."""
    assert [m.id for m in moments] == [m.id for m in expected]
    np.testing.assert_allclose(
        [m.logprob for m in moments], [m.logprob for m in expected], atol=1e-10
    )
    assert [m.finish for m in moments] == [m.finish for m in expected]
    assert [m.index for m in moments] == [m.index for m in expected]


# ---- the proofs, as functions, so that the gallery below can run them on mistakes


def prove_chunked():
    expected = continued()
    for chunk in (1, 2, 3, 10, 11, 99):
        assert_same(continued(chunk=chunk), expected)


def prove_no_cache():
    assert_same(continued(use_cache=False), continued())
    sampled = {"temperature": 1.3, "seed": 4, "n": 30, "on_full": "slide"}
    assert_same(continued(**sampled, use_cache=False), continued(**sampled))


class Oracle:
    """A draft that knows the text to come and gets every third token wrong: all ways in which a
    round can end occur."""

    n_tokens = 4

    def __init__(self, text):
        self.text = text

    def check(self, model):
        pass

    def start(self, text, clock=None):
        def guess_of(n):
            ids = [(t + (i % 3 == 2)) % 61 for i, t in enumerate(self.text)][len(text.ids) :][:n]
            return Guess(ids, [None] * len(ids))

        return guess_of


def prove_speculation_greedy():
    for prompt in (PROMPT, REPEATING):
        expected = continued(prompt)
        text = [*prompt, *(m.id for m in expected)]
        for draft in (
            ModelDraft(OTHER),
            ModelDraft(MODEL, 3),
            NGramDraft(),
            NGramDraft(1),
            Oracle(text),
        ):
            found = continued(prompt, draft=draft)
            assert_same(found, expected)
    kept, checked = acceptance(continued(draft=Oracle([*PROMPT, *(m.id for m in continued())])))
    assert 0 < kept < checked


def prove_speculation_sampled():
    """Three sampled tokens after a prompt, 800 times: chi-squared over triples against p(a) p(b
    | a) p(c | a, b).

    Triples expected fewer than 5 times count together. The limit is the mean of chi-squared plus 5
    standard deviations: a right rule goes beyond it once in some 10^5 seeds (and these are fixed),
    the wrong ones of the gallery by a factor of 1.7 and more.
    """
    tiny = lively(GPT2Config(vocab_size=5, n_positions=8, n_embd=8, n_layer=1, n_head=2), seed=1)
    guesser = lively(GPT2Config(vocab_size=5, n_positions=8, n_embd=8, n_layer=1, n_head=2), seed=2)
    n, prompt, how = 800, [1, 2, 1, 2], {"temperature": 3.0, "top_k": 4}
    options = Options(**how)
    first = options.distribution(tiny(prompt)[-1], prompt)
    second = [options.distribution(tiny([*prompt, a])[-1], [*prompt, a]) for a in range(5)]
    third = [
        [options.distribution(tiny([*prompt, a, b])[-1], [*prompt, a, b]) for b in range(5)]
        for a in range(5)
    ]
    expected = n * np.array(
        [[[first[a] * second[a][b] * p for p in third[a][b]] for b in range(5)] for a in range(5)]
    )
    for draft in (ModelDraft(guesser, 2), NGramDraft(2, lengths=(2, 1))):
        counts = np.zeros((5, 5, 5))
        for seed in range(n):
            counts[tuple(m.id for m in continued(prompt, 3, draft, tiny, seed=seed, **how))] += 1
        assert not counts[expected == 0].any()
        rare = expected < 5
        observed = np.append(counts[~rare], counts[rare].sum())
        wanted = np.append(expected[~rare], expected[rare].sum())
        chi_squared = ((observed - wanted) ** 2 / np.maximum(wanted, 1)).sum()
        freedom = len(wanted) - 1
        assert chi_squared < freedom + 5 * np.sqrt(2 * freedom), (
            type(draft).__name__,
            chi_squared,
            freedom,
        )


REQUESTS = [
    Request(PROMPT, Options(max_new_tokens=9)),
    Request([7], Options(max_new_tokens=20)),
    Request([50, 51], Options(max_new_tokens=1)),
    Request(PROMPT[::-1] * 2, Options(max_new_tokens=14)),
    Request([8, 8, 8], Options(max_new_tokens=12, temperature=1.5, top_k=9, seed=3)),
    Request(REPEATING, Options(max_new_tokens=30, repetition_penalty=1.3)),
    Request([1, 2, 3, 4], Options(max_new_tokens=16, temperature=0.8, seed=8)),
]


def prove_batch():
    alone = [list(moments(MODEL, r.ids, r.options)) for r in REQUESTS]
    for rows in (1, 2, 3, 7, 50):
        found = [[] for _ in REQUESTS]
        for number, moment in generate_batch(MODEL, REQUESTS, rows):
            found[number].append(moment)
        for mine, expected in zip(found, alone):
            assert_same(mine, expected)


def prove_sliding(window=5):
    """Against one pass over the whole text with the band as its mask, through the step seam: scores
    are not yet masked."""
    ids = [m.id for m in continued(REPEATING, 20)]
    outside = np.tri(20, k=-window, dtype=bool)
    band = {
        f"h.{i}.attn.scores": lambda scores: np.where(outside, -np.inf, scores) for i in range(2)
    }
    expected = MODEL(ids, step=Patch(band))
    cache = SlidingCache(MODEL.config, 1, window, np.float64)
    logits = np.stack([MODEL([i], cache)[0] for i in ids])
    np.testing.assert_allclose(logits, expected, atol=1e-10)


def test_a_window_without_a_cache_is_a_text_that_begins_there():
    text = list(PROMPT)
    for moment in continued(window=6, use_cache=False):
        assert moment.id == MODEL(text[-6:])[-1].argmax() and moment.cycle.positions == 6
        text.append(moment.id)
    assert [m.id for m in continued(window=48, use_cache=False)] == [m.id for m in continued()]


def prove_threads():
    """One thread, and more than there may be cores: each number is computed by one thread, so the
    bits are the same."""
    config = GPT2Config(vocab_size=640, n_positions=160, n_embd=128, n_layer=2, n_head=4)
    model = GPT2(
        config,
        store_parameters(lively(config, 7).astype(np.float32).parameters, "float32", config.layout),
        twin("auto"),
    )
    prompts = (
        np.random.default_rng(0).integers(0, 640, (2, 120)).tolist()
    )  # two: memory used again holds another's numbers
    before, stories = n_threads(model.ops), []
    try:
        for n in (1, 2, 3, 1):
            set_threads(n)
            stories.append(
                [
                    (m.id, m.logprob)
                    for prompt in prompts
                    for m in continued(prompt, 20, model=model)
                ]
            )
    finally:
        set_threads(before)
    assert stories == [stories[0]] * 4


PROOFS = [
    prove_threads,
    prove_chunked,
    prove_no_cache,
    prove_speculation_greedy,
    prove_speculation_sampled,
    prove_batch,
    prove_sliding,
]


@pytest.mark.parametrize("proof", PROOFS)
def test_exact(proof):
    proof()


# ---- the gallery: (the mistake, the proof that it breaks, how to make it)


def positions_off_by_one(patch):
    right = GPT2.forward

    def wrong(self, ids, positions, cache=None, *rest):
        later = cache is not None and cache.lengths.any() and ids.shape[1] > 1
        return right(self, ids, positions + 1 if later else positions, cache, *rest)

    patch.setattr(GPT2, "forward", wrong)


def positions_restart(patch):
    right = GPT2.forward
    patch.setattr(
        GPT2,
        "forward",
        lambda self, ids, positions, *rest: right(self, ids, positions - positions[:, :1], *rest),
    )


def chunk_mask_counts_from_zero(patch):
    patch.setattr(ops, "causal_mask", lambda p, n: np.arange(n) <= (p - p[:, :1])[..., None])


def chunk_sees_its_own_future(patch):
    patch.setattr(ops, "causal_mask", lambda p, n: np.arange(n) <= p[:, -1:, None])


def cache_keeps_wrong_guesses(patch):
    patch.setattr(KVCache, "truncate", lambda self, length, row=None: None)


def accepts_every_guess(patch):
    patch.setattr(speculative, "accept", lambda p, drafted, q, text: drafted)


def accepts_by_p_alone(patch):
    def wrong(p, drafted, q, text):
        if text.rng.random() < p[drafted]:
            return drafted
        lacking = p.copy() if q is None else np.maximum(p - q, 0)
        lacking[drafted] = 0
        return choose(lacking if lacking.any() else p, text.rng.random())

    patch.setattr(speculative, "accept", wrong)


def draws_again_from_p(patch):
    def wrong(p, drafted, q, text):
        if text.rng.random() * (1.0 if q is None else q[drafted]) < p[drafted]:
            return drafted
        return choose(p, text.rng.random())

    patch.setattr(speculative, "accept", wrong)


def believes_the_guesser_draws_evenly(patch):
    right = speculative.accept
    patch.setattr(
        speculative,
        "accept",
        lambda p, x, q, text: right(p, x, None if q is None else q * 0 + 0.2, text),
    )


def batch_without_mask(patch):
    patch.setattr(ops, "causal_mask", lambda p, n: np.ones((*p.shape, n), bool))


def batch_masked_by_the_longest_row(patch):
    patch.setattr(
        ops,
        "causal_mask",
        lambda p, n: np.arange(n) <= np.broadcast_to(p.max(axis=0), p.shape)[..., None],
    )


def batch_counts_padding(patch):
    right = KVCache.advance
    patch.setattr(KVCache, "advance", lambda self, counts: right(self, np.max(counts)))


def rows_move_without_their_keys(patch):
    def wrong(self, source, target):
        self.lengths[target] = self.lengths[source]

    patch.setattr(KVCache, "move", wrong)


def texts_share_their_draws(patch):
    right, shared = batch.Continuation, np.random.default_rng(0)

    def wrong(*args, **more):
        text = right(*args, **more)
        text.rng = shared
        return text

    patch.setattr(batch, "Continuation", wrong)


def window_too_wide(patch):
    right = SlidingCache.__init__
    patch.setattr(
        SlidingCache,
        "__init__",
        lambda self, config, rows, w, dtype: right(self, config, rows, w + 1, dtype),
    )


def window_overwrites_the_newest(patch):
    right = SlidingLayer.append

    def wrong(self, k, v):
        return right(
            SlidingLayer(
                self.keys, self.values, self.lengths - (self.lengths >= self.keys.shape[2])
            ),
            k,
            v,
        )

    patch.setattr(SlidingLayer, "append", wrong)


def cache_read_before_it_is_written(patch):
    right = GPT2.__call__

    def wrong(self, ids, cache=None, **kwargs):
        return (
            right(self, ids, None, **kwargs)
            if np.shape(ids)[-1] == 1
            else right(self, ids, cache, **kwargs)
        )

    patch.setattr(GPT2, "__call__", wrong)


def threads_work_on_the_same_share(patch):
    right = decode.Team.run
    patch.setattr(
        decode.Team,
        "run",
        lambda team, work, again: right(team, lambda i: work(min(i, max(0, team.n - 2)))),
    )


GALLERY = [
    (threads_work_on_the_same_share, prove_threads),
    (positions_off_by_one, prove_chunked),
    (positions_restart, prove_chunked),
    (chunk_mask_counts_from_zero, prove_chunked),
    (chunk_sees_its_own_future, prove_chunked),
    (cache_read_before_it_is_written, prove_no_cache),
    (positions_restart, prove_no_cache),
    (cache_keeps_wrong_guesses, prove_speculation_greedy),
    (chunk_sees_its_own_future, prove_speculation_greedy),
    (accepts_every_guess, prove_speculation_greedy),
    (accepts_every_guess, prove_speculation_sampled),
    (accepts_by_p_alone, prove_speculation_sampled),
    (draws_again_from_p, prove_speculation_sampled),
    (believes_the_guesser_draws_evenly, prove_speculation_sampled),
    (batch_without_mask, prove_batch),
    (batch_masked_by_the_longest_row, prove_batch),
    (batch_counts_padding, prove_batch),
    (rows_move_without_their_keys, prove_batch),
    (texts_share_their_draws, prove_batch),
    (window_too_wide, prove_sliding),
    (window_overwrites_the_newest, prove_sliding),
]


@pytest.fixture(autouse=True)
def teams_never_rest(monkeypatch):
    """Beside busy neighbours one thread alone would work, and no mistake of threads would show."""
    monkeypatch.setattr(threads, "judge", lambda *times: None)
    monkeypatch.setattr(threads, "_until", 0)


@pytest.mark.parametrize(("mistake", "proof"), GALLERY)
def test_mistakes_are_caught(mistake, proof, monkeypatch):
    mistake(monkeypatch)
    with pytest.raises((AssertionError, InputError, ValueError, IndexError)):
        proof()


# ---- what they tell, and what they refuse


def test_moments_name_their_cycles():
    chunked = continued(n=3, chunk=4)
    assert [(c.kind, c.positions) for c in (*chunked[0].before, chunked[0].cycle)] == [
        ("prefill", 4),
        ("prefill", 4),
        ("prefill", 3),
    ]
    assert [(m.cycle.kind, m.before) for m in chunked[1:]] == [("decode", ())] * 2
    assert [m.cycle.positions for m in continued(n=3, use_cache=False)] == [11, 12, 13]
    story = continued(
        draft=ModelDraft(MODEL, 3), n=9
    )  # a draft that is always right: 1, then 4 a round
    assert [m.cycle.kind for m in story] == ["prefill"] + ["verify"] * 8
    assert len({m.cycle for m in story}) == 3 and acceptance(story) == (6, 6)
    assert [len(m.before) for m in story] == [0, 3, 0, 0, 0, 3, 0, 0, 0]
    assert {c.kind for m in story for c in m.before} == {"draft"}
    times = [t for m in story for c in (*m.before, m.cycle) for t in (c.start, c.end)]
    assert all(c.end <= m.time for m in story for c in (*m.before, m.cycle)) and times[
        :2
    ] == sorted(times[:2])


def test_a_long_prompt_is_read_in_pieces(monkeypatch):
    """Without being asked for, where there is a cache that keeps what was read."""
    expected = continued(n=3)
    monkeypatch.setattr("minillm.decoding.cycle.AT_ONCE", 4)
    found = continued(n=3)
    assert [c.positions for c in (*found[0].before, found[0].cycle)] == [4, 4, 3]
    assert_same(found, expected)
    (first, *_) = continued(n=3, use_cache=False)
    assert (first.before, first.cycle.positions) == ((), 11)


def test_a_text_ends_where_it_would_without_a_draft():
    expected = continued(n=30)
    stop = expected[17].id
    for draft in (ModelDraft(MODEL, 5), NGramDraft()):
        assert_same(
            continued(n=30, stop_tokens=[stop], draft=draft), continued(n=30, stop_tokens=[stop])
        )
    longest = continued(n=None)  # as many as fit
    assert len(longest) == 38
    assert_same(continued(n=None, draft=ModelDraft(OTHER)), longest)


def test_a_draft_of_fewer_positions_falls_silent():
    short = lively(GPT2Config(vocab_size=61, n_positions=16, n_embd=8, n_layer=1, n_head=2), seed=6)
    story = continued(draft=ModelDraft(short))
    assert_same(story, continued())
    assert {m.cycle.kind for m in story} == {"prefill", "verify", "decode"}


def test_ngrams_continue_repetitions_for_ever():
    text = batch.Continuation(MODEL, [1, 2, 3, 1, 2, 3, 1], Options())
    guess_of = NGramDraft(lengths=(4, 3, 2)).start(text)
    assert guess_of(7).ids == [2, 3, 1, 2, 3, 1, 2]
    text.ids += [9, 9]
    assert guess_of(7).ids == []
    text.ids += [9, 5, 3, 1]
    assert guess_of(2).ids == [
        9
    ]  # what followed 3, 1 the last time; none of the last guess was right, so only one


def test_guesses_grow_with_success():
    text = batch.Continuation(MODEL, [1, 2] * 5, Options())
    guess_of = NGramDraft(20).start(text)
    for expected in (8, 16, 20, 20):
        guess = guess_of(99)
        assert len(guess.ids) == expected
        text.ids += [*guess.ids, guess.ids[-2]]
    text.ids += [*guess_of(99).ids[:3], 7]
    text.ids += [1, 2] * 3
    assert len(guess_of(99).ids) == 3


def test_stop_strings_end_a_row_and_free_it():
    tokenizer = Tokenizer.train([], 257)  # every byte its own token
    model = lively(
        GPT2Config(vocab_size=257, n_positions=32, n_embd=12, n_layer=1, n_head=2), seed=3
    )
    stories = {
        n: [m for k, m in generate_batch(model, [[65], [66]], tokenizer=tokenizer) if k == n]
        for n in (0, 1)
    }
    text = "".join(m.text for m in stories[0])
    requests = [Request([65], stop=text[5]), Request([66]), Request([65])]
    found = [[], [], []]
    for number, moment in generate_batch(model, requests, 2, tokenizer=tokenizer):
        found[number].append(moment)
    assert (
        "".join(m.text for m in found[0]) == text[: text.index(text[5])]
        and found[0][-1].finish == "stop"
    )
    assert_same(found[1], stories[1])
    assert "".join(m.text for m in found[2]) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: continued(chunk=0), "chunk is 0; it must be a whole number"),
        (lambda: continued(window=0), "window is 0"),
        (lambda: continued(use_cache="no"), "use_cache is 'no'"),
        (lambda: continued(use_cache=False, chunk=3), "chunk 3 needs the KV cache"),
        (lambda: continued(use_cache=False, cache_dtype="float16"), "cache_dtype float16 needs"),
        (lambda: continued(use_cache=False, num_beams=2), "num_beams 2 needs the KV cache"),
        (lambda: continued(window=4, chunk=3), "window 4 reads one position at a time"),
        (lambda: continued(num_beams=2, chunk=3), "leave out chunk 3"),
        (
            lambda: continued(
                draft=ModelDraft(GPT2.random(GPT2Config(vocab_size=60, n_embd=8, n_head=2)))
            ),
            "vocabulary of 60",
        ),
        (
            lambda: continued(draft=NGramDraft(), num_beams=2),
            "speculative decoding cannot be had with num_beams=2",
        ),
        (
            lambda: continued(draft=NGramDraft(), on_full="slide"),
            "cannot be had with on_full='slide'",
        ),
        (
            lambda: continued(draft=NGramDraft(), use_cache=False),
            "cannot be had with use_cache=False",
        ),
        (lambda: NGramDraft(0), "n_tokens of a draft is 0"),
        (lambda: generate_batch(MODEL, [PROMPT], 0), "rows of a batch is 0"),
        (lambda: generate_batch(MODEL, [PROMPT, []]), "the prompt is empty"),
        (lambda: generate_batch(MODEL, [PROMPT, [61]]), "id 61 is outside the vocabulary"),
        (
            lambda: generate_batch(MODEL, [Request(PROMPT, Options(num_beams=2))]),
            "a batch cannot be had with num_beams=2",
        ),
        (
            lambda: generate_batch(MODEL, [Request(PROMPT, Options(chunk=2))]),
            "a batch cannot be had with chunk=2",
        ),
        (
            lambda: generate_batch(MODEL, [Request(PROMPT, Options(max_new_tokens=99))]),
            "ask for at most 38",
        ),
        (lambda: generate_batch(MODEL, [Request(PROMPT, stop="x")]), "stop strings need tokenizer"),
        (
            lambda: generate_batch(
                MODEL, [PROMPT, Request(PROMPT, Options(cache_dtype="float16"))]
            ),
            "must be the same for all",
        ),
        (
            lambda: MODEL([1, 2], SlidingCache(MODEL.config, 1, 4, np.float64)),
            "one position at a time, not 2",
        ),
        (
            lambda: SlidingCache(MODEL.config, 1, 49),
            "cache capacity 49: the model has 48 positions",
        ),
    ],
)
def test_levers_that_cannot_apply_say_so(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_nothing_to_serve():
    assert list(generate_batch(MODEL, [])) == []
