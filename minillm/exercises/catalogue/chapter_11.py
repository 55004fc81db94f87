"""Exercises of chapter 11: wider."""

from __future__ import annotations

import numpy as np

from ..checking.exercise import Code, Mistake
from ..checking.inputs import Given, V
from . import answers


def verified_inputs(given: Given):
    yield "the second is wrong", ([4, 7, 2], [4, 1, 2, 9])
    yield "all are right", ([4, 7, 2], [4, 7, 2, 9])
    yield "none is right", ([4, 7, 2], [5, 7, 2, 9])
    yield "nothing was guessed", ([], [6])
    yield "wrong, then right again", ([1, 2, 3, 4], [1, 9, 3, 4, 5])


VERIFIED = Code(
    name="verified",
    chapter=11,
    minutes=10,
    difficulty=1,
    cell="11-speculation",
    mend="loses_the_free_one",
    unlocks="greedy speculation",
    answer=answers.verified,
    inputs=verified_inputs,
    example="verified([5, 6, 7], [5, 6, 8, 1])",
    hints=(
        "With no guess right, how many tokens should the cycle yield?",
        "The model's own choice after the last right guess comes for nothing: it was computed in "
        "the same pass.",
    ),
    mistakes=(
        Mistake(
            "loses_the_free_one",
            {" + chosen[kept : kept + 1]": ""},
            "The model's own token is missing: return one more, its choice after the last right "
            "guess. It was computed in the same pass.",
        ),
        Mistake(
            "counts_all",
            {
                "while kept < len(drafted) and drafted[kept] == chosen[kept]:\n    ": (
                    "for mine, theirs in zip(drafted, chosen):\n    "
                ),
                "    kept += 1": "    kept += mine == theirs",
            },
            "A guess after a wrong one is counted too. It was made for another text: stop at the "
            "first wrong one.",
        ),
        Mistake(
            "all_chosen",
            "return list(chosen)",
            "All of the model's choices are returned: those after a wrong guess answer a text that "
            "is not there.",
        ),
        Mistake(
            "drafted", "return list(drafted) + chosen[-1:]", "All guesses are kept, unchecked."
        ),
        Mistake(
            "shifted",
            {"drafted[kept] == chosen[kept]": "drafted[kept] == chosen[kept + 1]"},
            "You compare a guess with the choice after it. chosen[0] stands where the first guess "
            "stands.",
        ),
        Mistake(
            "last_choice",
            {"chosen[kept : kept + 1]": "chosen[-1:]"},
            "The token added is the model's last choice: it must be the one at the first wrong "
            "guess.",
        ),
    ),
)


def accept_inputs(given: Given):
    for i in range(64):  # with 24, one answer in 3,000 that draws for itself was right by chance
        p, q = given.probs(V), given.probs(V)
        drafted, (u, v) = (
            int(given.rng.choice(V, p=q.astype(np.float64) / q.sum(dtype=np.float64))),
            given.rng.random(2),
        )
        yield f"draw {i}", (p, q, drafted, float(u), float(v))
    yield "q is p: always kept", (p, p, 3, 0.999, 0.5)
    impossible = (
        np.array([0.0, 0.0, 0.75, 0.25], np.float32),
        np.array([0.25, 0.25, 0.25, 0.25], np.float32),
    )
    yield "u is 0 and p(x) too: what is impossible is not kept", (*impossible, 1, 0.0, 0.5)
    yield "v is 0: nor is it drawn", (*impossible, 1, 0.5, 0.0)


ACCEPT = Code(
    name="accept",
    chapter=11,
    minutes=20,
    difficulty=3,
    cell="11-speculation",
    unlocks="speculation that changes no probability",
    answer=answers.accept,
    inputs=accept_inputs,
    example="accept(np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.0, 0.8]), 2, 0.1, 0.7)",
    hints=(
        "Keeping with probability p/q is u * q < p for a uniform u: no division, so q = 0 is "
        "harmless.",
        "What p lacks is np.maximum(p - q, 0). It does not sum to 1: scale v by its sum instead of "
        "dividing.",
        "np.searchsorted(running, v * running[-1], side='right') is the first place at which the "
        "running sum passes.",
    ),
    mistakes=(
        Mistake(
            "draws_from_p",
            {"np.maximum(p - q, 0)": "p"},
            "After a refusal you draw from p: tokens that q favours then come up too often. Draw "
            "from max(p - q, 0).",
        ),
        Mistake(
            "ratio_inverted",
            {"u * q[drafted] < p[drafted]": "u * p[drafted] < q[drafted]"},
            "The ratio is upside down: keep with probability p/q.",
        ),
        Mistake(
            "ignores_q",
            {"u * q[drafted] <": "u <"},
            "You keep with probability p: it is min(1, p/q), for q has already had its say.",
        ),
        Mistake(
            "draws_from_q",
            {"np.maximum(p - q, 0)": "q"},
            "After a refusal you draw from q: draw from what p still lacks, max(p - q, 0).",
        ),
        Mistake(
            "other_sign",
            {"p - q": "q - p"},
            "You draw from max(q - p, 0), where the guesser has too much: p - q is what is "
            "lacking.",
        ),
        Mistake(
            "not_normalised",
            {"v * running[-1]": "v"},
            "max(p - q, 0) does not sum to 1: scale v by its sum.",
        ),
        Mistake(
            "argmax",
            {
                'int(np.searchsorted(running, v * running[-1], side="right"))': (
                    "int(np.argmax(p - q))"
                )
            },
            "After a refusal you take the likeliest of what is lacking: it must be drawn.",
        ),
        Mistake(
            "at_equality",
            {"u * q[drafted] < p": "u * q[drafted] <= p"},
            "You keep at equality too: with u = 0 and p(x) = 0 that keeps what is impossible. u "
            "q(x) < p(x).",
        ),
        Mistake(
            "argmax_of_p",
            {'int(np.searchsorted(running, v * running[-1], side="right"))': "int(np.argmax(p))"},
            "After a refusal you take the model's likeliest: it must be drawn, from max(p - q, 0).",
        ),
        Mistake(
            "one_before",
            {'side="right"))': 'side="right")) - 1'},
            "You return the token before the one at which the running sum passes v.",
        ),
        Mistake(
            "always_keeps",
            "return drafted",
            "Every guess is kept: then the text is the guesser's, not the model's.",
        ),
        Mistake(
            "reuses_u",
            {"v * running": "u * running"},
            "u decides twice: the second draw must be independent of the first, v.",
        ),
    ),
)


EXERCISES = (VERIFIED, ACCEPT)
