"""Students' accidents, in the process of their own: one clear line each, and the next exercise goes
on."""

import json
import os
import subprocess
import sys

import pytest

import minillm
from minillm import exercises
from minillm.cli import main
from minillm.exercises import check, exercise
from minillm.exercises.folder import file_of, start
from minillm.exercises.process import check_folder
from minillm.steps import step_names
from tests.exercises.answers import solve, with_body_of


@pytest.fixture
def folder(tmp_path):
    start(tmp_path)
    return tmp_path


def write(folder, name, text):
    file_of(folder, exercise(name)).write_text(text, encoding="utf-8")


ACCIDENTS = {
    "argmax": (
        "import os\ndef argmax(scores):\n    os._exit(3)\n",
        "stopped",
        "it ended the interpreter (exit code 3)",
    ),
    "likeliest": (
        "import sys\ndef likeliest(probs, n):\n    sys.exit(1)\n",
        "stopped",
        "it called sys.exit(1)",
    ),
    "replace_pair": (
        "import ctypes\ndef replace_pair(ids, pair, new_id):\n    ctypes.string_at(0)\n",
        "stopped",
        "it crashed",
    ),
    "encode": (
        "def encode(data, ranks):\n    while True:\n        pass\n",
        "stopped",
        "still running after 1 s",
    ),
    "log_softmax": (
        "def log_softmax(x):\n    while True:\n        print('x')\n",
        "stopped",
        "it prints without end",
    ),
    "softmax": ("def softmax(x):\n    return softmax(x)\n", "raised", "RecursionError"),
    "cross_entropy": (
        "def cross_entropy(logits, targets)\n    pass\n",
        "raised",
        "SyntaxError: expected ':' (line 1)",
    ),
    "causal_mask": (
        "def causal_mask(positions, n_keys):\n    return input()\n",
        "raised",
        "EOFError",
    ),
    "split_heads": ("raise SystemExit\n", "stopped", "it called sys.exit(None)"),
    "merge_heads": (
        "import nosuchmodule\n",
        "raised",
        "ModuleNotFoundError: No module named 'nosuchmodule' (line 1)",
    ),
    "layer_norm": ("x = 1\n", "missing", "there is no function layer_norm"),
    "gelu_new": (
        "import os\ndef gelu_new(x):\n    os.write(1, b'{}')\n    return None\n",
        "shape",
        "returned None",
    ),
}


def test_every_accident_is_one_line_and_the_next_goes_on(folder, monkeypatch):
    monkeypatch.setattr(type(exercise("encode")), "seconds", 1, raising=False)
    object.__setattr__(exercise("encode"), "seconds", 1)
    try:
        for name, (text, _, _) in ACCIDENTS.items():
            write(folder, name, text)
        write(folder, "block", with_body_of(exercise("block")))
        results = {r.name: r for r in check_folder(folder, [*ACCIDENTS, "block"])}
    finally:
        object.__setattr__(exercise("encode"), "seconds", 10)
    for name, (_, status, message) in ACCIDENTS.items():
        if name == "replace_pair" and sys.platform == "win32":
            continue  # ctypes turns the crash into an exception there
        assert results[name].status == status and message in results[name].message, results[name]
        assert "\n" not in results[name].message
    assert results["block"].right


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the memory of a process is limited on Linux only"
)
@pytest.mark.parametrize(
    "body", ["np.zeros((10**6, 10**6))", "[bytes(10**8) for _ in range(10**4)]"]
)
def test_memory_is_limited(folder, body):
    write(folder, "softmax", f"import numpy as np\ndef softmax(x):\n    return {body}\n")
    result = check("softmax", folder)
    assert (result.status, result.message) == (
        "stopped",
        "it asked for more memory than an exercise may have",
    )


def test_what_is_printed_is_shown(folder):
    write(folder, "softmax", "def softmax(x):\n    print('shape', x.shape)\n    return x\n")
    result = check("softmax", folder)
    assert result.status == "wrong" and result.printed.startswith("shape (2,)\nshape (2, 3, 5)\n")


def test_errors_name_the_line_of_the_students_file(folder):
    write(
        folder,
        "softmax",
        "import numpy as np\n\ndef softmax(x):\n    y = x.nothing\n    return y\n",
    )
    assert check("softmax", folder).message.endswith("has no attribute 'nothing' (line 4)")


def test_modules_in_the_students_folder_shadow_nothing(folder, monkeypatch):
    (folder / "numpy.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(folder)
    assert check("softmax", folder).status == "todo"


def test_a_grader_that_stops_reading_leaves_no_process(folder):
    results = check_folder(folder, ["softmax", "argmax"])
    assert next(results).name == "softmax"
    results.close()


# ---- the student's folder as a twin


def test_a_solved_folder_is_the_model(tmp_path):
    from minillm.exercises.twin import OF_THE_MODEL, own_functions, story, verify_own

    solve(tmp_path)
    own = own_functions(tmp_path)
    assert [*own] == [*OF_THE_MODEL]
    report = verify_own(own)
    assert report.ok, report
    assert "".join(story(own, "Once upon a time", n_tokens=8)) == "".join(
        story({}, "Once upon a time", n_tokens=8)
    )


@pytest.mark.parametrize(
    "name, mistake, reds",
    [
        ("layer_norm", "rms", ["ln_1", "ln_2", "ln_f"]),
        ("attention", "no_mask", ["attn.context"]),
        ("softmax", "over_queries", ["attn.weights"]),
        ("split_heads", "heads_mixed", ["attn.q", "attn.k", "attn.v"]),
        ("block", "parallel", ["mlp.residual"]),
        ("forward", "no_ln_f", ["logits"]),
        ("embed", "from_one", ["embed"]),
    ],
)
def test_a_wrong_function_reddens_its_own_steps_only(tmp_path, name, mistake, reds):
    from minillm.exercises.twin import own_functions, verify_own

    solve(tmp_path)
    write(tmp_path, name, with_body_of(exercise(name), mistake))
    report = verify_own(own_functions(tmp_path))
    assert len(report) == len(step_names(6))
    kinds = {
        d.name.split(".", 2)[-1] if d.name.startswith("h.") else d.name
        for d in report
        if d.status != "OK"
    }
    assert kinds == {*reds}


def test_a_chapter_runs_on_a_students_functions(tmp_path):
    """By the name of the folder in MINILLM_KERNELS, in a process of its own."""
    solve(tmp_path)
    code = (
        "import minillm; m, t = minillm.load(); print(m.ops.softmax.__code__.co_filename, m([5, 6,"
        " 7])[-1].argmax())"
    )
    found = {}
    for name, mistake in (("right", ""), ("wrong", "no_mask")):
        write(tmp_path, "attention", with_body_of(exercise("attention"), mistake))
        env = os.environ | {"MINILLM_KERNELS": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert "computing with functions of" in done.stderr and "softmax" in done.stderr
        file, found[name] = done.stdout.split()
        assert file.endswith("softmax.py")
    model, _ = minillm.load(kernels="numpy")
    assert found["right"] == str(model([5, 6, 7])[-1].argmax()) != found["wrong"]


MISTAKES = {
    "softmax": "over_queries",
    "log_softmax": "base_two",
    "causal_mask": "no_mask",
    "split_heads": "heads_mixed",
    "merge_heads": "columns_dealt",
    "attention": "no_mask",
    "layer_norm": "rms",
    "gelu_new": "no_half",
}


@pytest.mark.parametrize(
    "others, name",
    [*((start, name) for name in MISTAKES), (solve, "causal_mask"), (solve, "softmax")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_command_computes_with_each_function_of_a_folder(tmp_path, capsys, others, name):
    """A mistake in it changes what is said, and so it does where the student's attention calls it."""

    def likeliest(kernels):
        main(["probs", "A fox ran", "--json", "--model=tales-draft", f"--kernels={kernels}"])
        return [token["p"] for token in json.loads(capsys.readouterr().out)["next"]]

    others(tmp_path)
    write(tmp_path, name, with_body_of(exercise(name), MISTAKES[name]))
    assert likeliest(tmp_path) != pytest.approx(likeliest("numpy"), rel=1e-3)


def test_missing_names_fall_back(folder):
    from minillm import ops
    from minillm.exercises.twin import own_functions, twin

    write(folder, "softmax", with_body_of(exercise("softmax")))
    own = own_functions(folder)
    assert (
        [*own] == ["softmax"]
        and twin(own).softmax is own["softmax"]
        and twin(own).layer_norm is ops.layer_norm
    )


def test_for_the_story_own_functions_call_one_another(tmp_path):
    from minillm.exercises.twin import own_functions, story

    solve(tmp_path)
    own = own_functions(tmp_path)
    [*story(own, "Once", n_tokens=1)]
    assert own["attention"].__globals__["softmax"] is own["softmax"]
    assert own["forward"].__globals__["layer_norm"] is own["layer_norm"]
    assert exercises.exercise("attention").answer.__globals__["softmax"] is not own["softmax"]
