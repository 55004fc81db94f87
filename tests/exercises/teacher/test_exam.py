"""Exam questions by seed: the same for everybody, different from seed to seed, and right."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from minillm.cli import main
from minillm.exercises import EXERCISES
from minillm.exercises.course import chapters
from minillm.exercises.teacher import exam


def made(name, seed):
    maker = next(m for m in exam.MAKERS if m.make.__name__ == name)
    return maker.make(np.random.default_rng(seed))


def test_a_seed_gives_the_same_questions_and_another_gives_others():
    assert exam.exam(7) == exam.exam(7)
    assert not set(exam.exam(7)) & set(exam.exam(8, 6)) - {
        q for q in exam.exam(7) if q.text.startswith("In print")
    }
    questions = exam.exam(7)
    assert len(questions) == 12 and sum(q.text.startswith("In print") for q in questions) == 4
    assert [q.chapter for q in questions] == sorted(q.chapter for q in questions)


def test_no_two_questions_of_a_paper_are_about_the_same_fact():
    """Seed 7 had two on max_length, the one with the other's answer."""
    two = re.compile("max_length.* counts the prompt: up to|since max_length counts")
    for seed in range(40):
        paper = [q.answer for q in exam.exam(seed)]
        assert len(paper) == 12 and sum(bool(two.search(answer)) for answer in paper) <= 1, seed
    everything = exam.exam(3, 99)
    about = [kind.about.split() for kind in (*exam.MAKERS, *exam.CLAIMS)]
    facts = {fact for facts in about for fact in facts}
    assert len(facts) == 7 and all(sum(fact in facts for facts in about) > 1 for fact in facts)
    alone = sum(not facts for facts in about)
    assert alone < len(everything) == len({q.text for q in everything}) <= alone + len(facts)


def test_every_question_can_be_made_from_any_seed():
    for _, minutes, maker, _ in exam.MAKERS:
        pairs = {maker(np.random.default_rng(seed)) for seed in range(60)}
        assert len(pairs) > 5 or maker.__name__ in ("_scale", "_predictions"), maker.__name__
        for text, answer in pairs:
            assert text.endswith("?") or text.count("?") or "Count" in text, text
            assert not re.search(r"\b(nan|inf)\b", answer) and 1 <= minutes <= 10, (text, answer)


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text.replace(",", ""))]


@pytest.mark.parametrize("seed", range(20))
def test_answers_are_right_when_worked_out_from_the_questions_words(seed):
    """A student's way, with nothing but the text of the question."""
    text, answer = made("_positions", seed)
    new, prompt = (int(n) for n in numbers(text))
    assert (
        numbers(answer)[0] == prompt + new - 1
        and numbers(answer)[-1] == new * prompt + new * (new - 1) // 2
    )
    text, answer = made("_perplexity", seed)
    probs = [1 / int(n) for n in re.findall(r"1/(\d+)", text)]
    assert numbers(answer)[-1] == pytest.approx(np.prod(probs) ** -0.25, abs=1e-3)
    text, answer = made("_attention", seed)
    q, k, v = (eval(row) for row in re.findall(r"\[.*?\]", text))
    e = np.exp(q[1] * np.array(k[:2]))
    assert float(re.search(r"output (\S+)\.", answer)[1]) == pytest.approx(
        (e / e.sum()) @ v[:2], abs=1e-4
    )
    text, answer = made("_parameters", seed)
    v, n, c, n_layer = (int(x) for x in numbers(text.partition("GPT-2")[2]))
    assert numbers(answer)[0] == v * c + n * c + n_layer * (12 * c * c + 13 * c) + 2 * c
    text, answer = made("_cache", seed)
    n, n_layer, c = (int(x) for x in numbers(text)[:3])
    assert numbers(answer)[0] == 2 * n_layer * n * c * 4
    text, answer = made("_filters", seed)
    probs = np.array(eval(re.search(r"\[.*?\]", text)[0]))
    k, p = int(re.search(r"k = (\d)", text)[1]), float(re.search(r"p = (\d\.\d+)", text)[1])
    order = np.argsort(-probs)
    kept = order[: 1 + int(np.searchsorted(np.cumsum(probs[order]), p))]
    assert answer.startswith(
        f"top-k: {sorted(order[:k].tolist())}; top-p: {sorted(kept.tolist())}; "
    )
    text, answer = made("_accepted", seed)
    p, q = (np.array(eval(row)) for row in re.findall(r"\[.*?\]", text))
    assert numbers(answer)[0] == pytest.approx(sum(map(min, p, q)))
    text, answer = made("_adamw", seed)
    weight, gradient, lr, decay = numbers(text)[:4]
    assert numbers(answer)[0] == pytest.approx(
        weight - lr * decay * weight - lr * np.sign(gradient), rel=1e-4
    )
    text, answer = made("_paths", seed)
    a, x, y = numbers(text)[:3]
    assert (
        f"beam: {'a' if a * x > (1 - a) * y else 'b'} " in answer
        and f"{max(a * x, (1 - a) * y):.4f}." in answer
    )
    text, answer = made("_quantised", seed)
    row = np.array(eval(re.search(r"\[.*?\]", text)[0]))
    assert str(np.rint(row / row.max() * 127).astype(int).tolist()) in answer


def test_paper_answers_chapters_json(capsys):
    assert main(["exercises", "exam", "--seed", "7", "--no-answers"]) == 0
    paper = capsys.readouterr().out
    assert main(["exercises", "exam", "--seed", "7"]) == 0
    full = capsys.readouterr().out
    assert full.startswith(paper.rstrip()) and "Answers" in full and "Answers" not in paper
    assert max(map(len, full.splitlines())) <= 110
    assert (
        main(["exercises", "exam", "--chapter", "3", "--chapter", "6", "--count", "5", "--json"])
        == 0
    )
    assert {q["chapter"] for q in json.loads(capsys.readouterr().out)} <= {3, 6}


@pytest.mark.parametrize(
    "args, says",
    [
        (["--count", "0"], "count is 0; it must be a whole number of at least 1"),
        (["--chapter", "16"], "no questions of chapter 16"),
        (["--seed", "-1"], "seed is -1; it must be a whole number of at least 0"),
    ],
)
def test_bad_input_is_one_line(capsys, args, says):
    assert main(["exercises", "exam", *args]) == 2
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1


def test_teaching_md_lists_the_exercises_and_their_minutes():
    text = (Path(__file__).parents[3] / "TEACHING.md").read_text(encoding="utf-8")
    for path in chapters():
        own = [e for e in EXERCISES.values() if e.chapter == int(path.name[:2])]
        row = next(line for line in text.splitlines() if line.startswith(f"| {path.name[:2]} "))
        assert row.endswith(f"| {', '.join(e.name for e in own)} | {sum(e.minutes for e in own)} |")
    assert f"{len(EXERCISES)} files" in text


def test_teaching_md_lists_every_misconception_as_the_exam_has_it():
    text = (Path(__file__).parents[3] / "TEACHING.md").read_text(encoding="utf-8")
    assert len(exam.CLAIMS) == 16
    for n, claim in enumerate(exam.CLAIMS, 1):
        assert (
            f"| {n} | {claim.chapter:02} | {claim.says} | {claim.true} |".replace(
                "<|endoftext|>", r"<\|endoftext\|>"
            )
            in text
        ), n
