"""What a check says, in which order, and what it leaves alone."""

import re
import textwrap

import numpy as np
import pytest

from minillm.exercises import check, exercise
from minillm.exercises.checking.verdict import WIDENED
from tests.exercises.answers import answers, namespace, with_body_of


def says(name, function, **more):
    result = check(name, {name: function, **more})
    return result.status, result.message


def test_feedback_names_the_first_thing_that_is_wrong():
    softmax = answers(exercise("softmax"))["softmax"]
    assert check("softmax", {}).status == "missing"
    assert says("softmax", lambda scores: scores) == (
        "signature",
        "softmax(scores); needed: softmax(x)",
    )
    assert says("softmax", lambda x: 1 / 0) == ("raised", "ZeroDivisionError: division by zero")
    assert says("softmax", lambda x: softmax(x)[..., :1]) == (
        "shape",
        "returned float64 [1]; needed: float64 [2]",
    )
    assert says("softmax", lambda x: softmax(x).tolist())[0] == "shape"
    assert says("softmax", lambda x: softmax(x.astype(np.float64))) == ("right", WIDENED)
    matmul = answers(exercise("matmul"))["matmul"]
    status, message = says("matmul", lambda x, w: matmul(x.astype(np.float64), w))
    assert status == "dtype" and message == "dtype float64; needed: float32 (the values are right)"
    status, message = says("softmax", lambda x: x.astype(np.float32))
    assert status == "dtype" and message.endswith("(the values are wrong too)")
    assert says("softmax", lambda x: softmax(x) * np.where(x == x.max(), np.nan, 1)) == (
        "not finite",
        "nan at [1]; needed: 0.75",
    )

    def changes_x(x):
        y = softmax(x)
        x *= 2
        return y

    assert says("softmax", changes_x) == (
        "mutated",
        "your function changed its input x: compute into a new array",
    )
    result = check("softmax", {"softmax": lambda x: softmax(x) + (x.ndim == 3) * np.float32(0.5)})
    assert result.status == "wrong" and result.where.startswith("[B,H,T] (x: float32 [2, 3, 5])")
    assert re.match(
        r"first wrong number at \[0, 0, 0\]: yours 0\.\d+, right 0\.\d+; 30 of 30 differ",
        result.message,
    )


def test_optional_arguments_of_ones_own_are_welcome():
    softmax = answers(exercise("softmax"))["softmax"]
    assert check("softmax", {"softmax": lambda x, axis=-1: softmax(x)}).right
    assert says("layer_norm", lambda x, weight, bias, eps: x)[1].endswith(
        "needed: layer_norm(x, weight, bias, eps=1e-05)"
    )


def test_a_loop_may_call_functions_of_its_own():
    """Numba compiles them too; and of what it cannot compile, the line that says so is shown."""
    pytest.importorskip("numba")
    helped = """
    import math
    def half(v):
        return 0.5 * v
    def one(v):
        return half(v) * (1.0 + math.erf(v / math.sqrt(2.0)))
    def gelu_loop(x, y):
        for i in range(len(x)):
            y[i] = one(x[i])
    """
    assert check("gelu_loop", namespace(textwrap.dedent(helped))).right
    other = textwrap.dedent(helped).replace("y[i] = one(x[i])", "y[i] = [one, {}.get][0](x[i])")
    result = check("gelu_loop", namespace(other))
    assert result.status == "raised" and "Numba cannot compile it: " in result.message, result
    assert "Failed in nopython" not in result.message and "\n" not in result.message, result


def test_what_differs_anywhere_only_resembles():
    """A mistake of the gallery, and another one in one more case: no name for it."""
    right, wrong = answers(exercise("softmax")), namespace(with_body_of(exercise("softmax"), "log"))

    def mostly(x):
        return (wrong if x.shape != (13,) else right)["softmax"](x)

    result = check("softmax", {"softmax": mostly})
    assert (result.status, result.mistake) == ("wrong", "")
    assert "\n  resembles: This is the logarithm of softmax" in str(result)
    few = check("softmax", {"softmax": lambda x: (right if x.ndim < 4 else wrong)["softmax"](x)})
    assert not few.right and few.diagnosis == "", few


def test_a_check_in_a_notebook_changes_nothing_of_the_package():
    """Neither while it runs, in another thread, nor afterwards."""
    from minillm import kernels, ops

    seen = []

    def softmax(x):
        seen.append(ops.softmax(np.zeros(2))[0])
        return x

    before = {**vars(kernels)}, ops.softmax.__code__
    assert check("softmax", {"softmax": softmax}).status == "wrong" and {*seen} == {0.5}
    assert before == (vars(kernels), ops.softmax.__code__)
