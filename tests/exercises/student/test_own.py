"""The student's folder as a twin of ops: the model computes with their functions, and says which
are wrong."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import minillm
from minillm import exercises
from minillm.cli import main
from minillm.exercises import exercise
from minillm.exercises.student.folder import file_of, start
from minillm.exercises.student.own import of_folder
from minillm.families.gpt2 import step_names
from minillm.loading import load_model
from tests.exercises.answers import solve, with_body_of


@pytest.fixture
def folder(tmp_path):
    start(tmp_path)
    return tmp_path


def write(folder, name, text):
    file_of(folder, exercise(name)).write_text(text, encoding="utf-8")


def test_a_solved_folder_is_the_model(tmp_path):
    from minillm.exercises.student.own import OF_THE_MODEL, own_functions, story, verify_own

    solve(tmp_path)
    own = own_functions(tmp_path)
    assert [*own] == [*OF_THE_MODEL]
    report = verify_own(own)
    assert report.ok, report
    assert "".join(story(own, "Once upon a time", n_tokens=8)) == "".join(
        story({}, "Once upon a time", n_tokens=8)
    )


def live(*values):
    return pytest.param(*values, marks=pytest.mark.live)


@pytest.mark.parametrize(
    "name, mistake, reds",
    [
        ("layer_norm", "rms", ["ln_1", "ln_2", "ln_f"]),
        ("attention", "no_mask", ["attn.context"]),
        ("softmax", "over_queries", ["attn.weights"]),
        live("split_heads", "heads_mixed", ["attn.q", "attn.k", "attn.v"]),
        live("block", "parallel", ["mlp.residual"]),
        ("forward", "no_ln_f", ["logits"]),
        live("embed", "from_one", ["embed"]),
    ],
)
def test_a_wrong_function_reddens_its_own_steps_only(tmp_path, name, mistake, reds):
    from minillm.exercises.student.own import own_functions, verify_own

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
        "import minillm; m, t = minillm.load()\n"
        "print(m.ops.softmax.__wrapped__.__code__.co_filename, m([5, 6, 7])[-1].argmax())"
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


LATE = (
    "    if x.shape[-1] > 100:\n        {}\n    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)"
)
NO_MODEL = {
    "a syntax error": ("softmax", "def softmax(:", r"SyntaxError.* \(line 1\)"),
    "no module": ("softmax", "import nosuch", r"No module named 'nosuch' \(line 1\)"),
    "another name": ("softmax", "def sotfmax(x):\n    return x", "softmax"),
    "other arguments": ("softmax", "def softmax(x, y, z):\n    return x", "softmax"),
    "raises": ("softmax", "def softmax(x):\n    return 1 / 0", r"ZeroDivisionError.* \(line 2\)"),
    "exits": ("softmax", "import os\ndef softmax(x):\n    os._exit(0)", "ended the interpreter"),
    "one number": ("split_heads", "def split_heads(x, n_head):\n    return x", "needed: int64"),
    "raises late": (
        "softmax",
        f"import numpy as np\ndef softmax(x):\n{LATE.format('raise ValueError(9)')}",
        r"ValueError: 9 \(line 4\)",
    ),
    "exits late": (
        "softmax",
        f"import numpy as np, sys\ndef softmax(x):\n{LATE.format('sys.exit(0)')}",
        r"sys.exit\(0\)",
    ),
    "another shape late": (
        "softmax",
        f"import numpy as np\ndef softmax(x):\n{LATE.format('return x[..., :3]')}",
        r"needed: \[4096\]",
    ),
}


@pytest.mark.parametrize("name, text, message", NO_MODEL.values(), ids=NO_MODEL)
def test_a_function_that_no_model_computes_with_is_one_line(tmp_path, capsys, name, text, message):
    from minillm.exercises.student.own import of_folder

    write(tmp_path, name, text + "\n")
    of_folder.cache_clear()
    run = ["generate", "A fox", "--model=tales-draft", "--max-new-tokens=2", "--kernels"]
    assert main([*run, str(tmp_path)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"minillm: {file_of(tmp_path.resolve(), exercise(name))}: ")
    assert re.search(message, error)


def test_a_draft_computes_with_the_models_own_functions(tmp_path):
    from minillm.decoding.drafts import named_draft

    start(tmp_path)
    model, tokenizer = minillm.load("tales-draft", kernels=str(tmp_path))
    assert named_draft("tales-draft", model, tokenizer, minillm.load).model.ops is model.ops


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
    """A mistake in it changes what is said, also where the student's attention calls it."""

    def likeliest(kernels):
        main(["probs", "A fox ran", "--json", "--model=tales-draft", f"--kernels={kernels}"])
        return [token["p"] for token in json.loads(capsys.readouterr().out)["next"]]

    others(tmp_path)
    write(tmp_path, name, with_body_of(exercise(name), MISTAKES[name]))
    assert likeliest(tmp_path) != pytest.approx(likeliest("numpy"), rel=1e-3)


def test_a_llama_computes_with_a_folder_too(tmp_path):
    """Where two heads share keys and values, own attention gets each as often as it is used. Sums
    may be in another order: of logits up to 17 in float32."""
    start(tmp_path)
    write(tmp_path, "attention", with_body_of(exercise("attention")))
    write(tmp_path, "softmax", with_body_of(exercise("softmax")))
    plain, own = (load_model("tales-llama", kernels=k)(range(9)) for k in ("numpy", str(tmp_path)))
    assert np.abs(own - plain).max() < 2e-5
    write(tmp_path, "attention", with_body_of(exercise("attention"), "no_mask"))
    of_folder.cache_clear()
    assert np.abs(load_model("tales-llama", kernels=str(tmp_path))(range(9)) - plain).max() > 1


def test_missing_names_fall_back(folder):
    from minillm import ops
    from minillm.exercises.student.own import own_functions, twin

    write(folder, "softmax", with_body_of(exercise("softmax")))
    own = own_functions(folder)
    assert (
        [*own] == ["softmax"]
        and twin(own).softmax is own["softmax"]
        and twin(own).layer_norm is ops.layer_norm
    )


def test_for_the_story_own_functions_call_one_another(tmp_path):
    from minillm.exercises.student.own import own_functions, story

    solve(tmp_path)
    own = own_functions(tmp_path)
    [*story(own, "Once", n_tokens=1)]
    assert own["attention"].__globals__["softmax"] is own["softmax"]
    assert own["forward"].__globals__["layer_norm"] is own["layer_norm"]
    assert exercises.exercise("attention").answer.__globals__["softmax"] is not own["softmax"]
