"""What two results are said to differ in, and how values are written."""

import numpy as np

from minillm.exercises import EXERCISES, Code, check
from minillm.exercises.checking.exercise import _arguments
from minillm.exercises.checking.verdict import Problem, problem, written

CODE = [e for e in EXERCISES.values() if isinstance(e, Code)]


def test_a_number_too_many_of_them_wrong_is_counted():
    right = np.arange(6, dtype=np.float32).reshape(2, 3)
    wrong = right + np.where(right >= 4, np.float32(1), np.float32(0))
    assert (
        problem(wrong, right).says
        == "first wrong number at [1, 1]: yours 5, right 4; 2 of 6 differ, by at most 1"
    )
    assert problem({"": (right, 1)}, {"": (right, 2)}).says == "result[1]: yours 1, right 2"
    assert problem(3.0, 3).kind == "dtype" and problem(np.int64(3), 3) is None
    assert problem(~np.eye(2, dtype=bool), np.eye(2, dtype=bool)).says.endswith(
        "yours False, right True; 4 of 4 differ"
    )
    assert problem(-1.38629436, -1.38629437).says == "yours -1.38629436, right -1.38629437"
    assert problem(np.float32([6e-8]), np.float32([0])) is None
    kept, dropped = np.array([1.0, -np.inf]), np.full(2, -np.inf)
    assert problem(dropped, kept) == Problem(
        "wrong", "first wrong number at [0]: yours -inf, right 1; 1 of 2 differ"
    )
    assert problem(dropped, np.array([1.0, 2.0])).kind == "not finite"
    assert problem({"a": 1}, {"b": 1}).kind == "shape" and problem(None, right).kind == "shape"


def test_short_inputs_are_written_out():
    assert (
        written((5, 5)) == "(5, 5)"
        and written(b"low") == "b'low'"
        and written({"n": [1]}) == "{'n': [1]}"
    )
    assert written(np.float32([[0.5], [1 / 3]])) == "array([[0.5], [0.3333]], dtype=float32)"
    assert (
        written(np.array([1, 10])) == "array([1, 10])"
        and written(np.array([True, False])) == "array([True, False])"
    )
    assert written(np.zeros((3, 3))) == "float64 [3, 3]" and written([abs]) == "a list of 1"
    assert (
        check("replace_pair", {"replace_pair": lambda ids, pair, new_id: (1,)}).where
        == "the example in the docstring (ids: (1, 2, 3, 1, 2), pair: (1, 2), new_id: 9)"
    )
    for e in CODE:
        for where, args, _ in e.cases():
            text = _arguments(args)
            assert " at 0x" not in text and len(text) < 200, (e.name, where, text)
