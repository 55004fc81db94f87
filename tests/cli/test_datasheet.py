"""minillm datasheet, as it is typed."""

import json

import pytest

from minillm.cli import main
from minillm.clock import machines
from minillm.clock.limits import Limits

pytest.importorskip("matplotlib").use("Agg")
RATES = {"float32": 9e10, "int8": 1e11}
LIMITS = Limits({"cores": 2}, 1, {2**16: 1e11, 2**28: 2e10}, RATES, RATES, 5e9, 1e-6, 1e-5, 1e-7)
MACHINE = machines.Machine("Made\x0bup", "measured here", True, 10**10, (LIMITS,))


@pytest.fixture
def cli(capsys):
    def call(*args):
        try:
            code = main(["datasheet", *args])
        except SystemExit as exit:
            code = exit.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def machine(tmp_path):
    path = tmp_path / "machine.json"
    machines.replace(MACHINE, name="Made up").save(path)
    return str(path)


def test_a_sheet_of_a_published_machine(cli):
    code, out, _ = cli("tales-draft", "--machine", "a100")
    assert code == 0 and out.startswith("Datasheet: tales-draft on NVIDIA A100 80GB SXM\n")
    assert "Predicted only" in out and out.endswith(
        "\n\nminillm datasheet tales-draft --machine a100\n"
    )
    heading = next(line for line in out.splitlines() if line.startswith("context"))
    assert heading.split()[1:] == ["float16", "float32", "int8", "int4"]  # first as the file has it
    assert "One change each to float16" in out and "float16 instead" not in out
    listed = cli("--machine", "?")[1]
    assert "\na100: NVIDIA A100" in listed and max(map(len, listed.splitlines())) <= 100
    assert json.loads(cli("--machine", "?", "--json")[1])["a100"]["measured"] is False


def test_all_forms_of_a_sheet(cli, machine, tmp_path):
    what = ("tales-draft", "--machine", machine)
    code, out, _ = cli(*what, "--json")
    values = json.loads(out)
    assert code == 0 and values["token"][0]["kind"] == "float32" and str(tmp_path) not in out
    html = cli(*what, "--html")[1]
    assert html.startswith("<!doctype html>") and "<svg" in html and "<!DOCTYPE svg" not in html
    stem, drawn = str(tmp_path / "it"), str(tmp_path / "drawn.pdf")
    code, out, err = cli(*what, "--kinds", "int8", "int8", "--save", stem, "--plot", drawn)
    made = [drawn, *(f"{stem}.{ending}" for ending in ("md", "json", "png"))]
    assert err.splitlines() == [f"{path}: written" for path in made]
    assert code == 0 and "|" not in out and "\ncontext  " in out
    page = (tmp_path / "it.md").read_text()
    assert "](it.png)" in page and "| context | int8 |" in page
    assert (tmp_path / "it.png").stat().st_size > 10_000
    assert [*json.loads((tmp_path / "it.json").read_text())["bytes"]["weights"]] == ["int8"]


def test_a_config_alone(cli, machine, tmp_path, monkeypatch):
    """What it is called, and how it is made again: as it was typed, if nothing else lies open."""
    config = {"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 99}
    (tmp_path / "some" / "w").mkdir(parents=True)
    path = tmp_path / "some" / "w" / "config.json"
    path.write_text(json.dumps(config))
    (beside := tmp_path / "beside").mkdir()
    for here, typed, again, title in (
        (tmp_path, "some/w/config.json", "some/w/config.json", "w/config.json"),
        (path.parent, "config.json", "config.json", "w/config.json"),
        (tmp_path / "some", str(path), "w/config.json", "w/config.json"),
        (tmp_path / "some", "../some/./w", "w", "w"),
        (path.parent, ".", ".", "w"),
        (beside, str(path), "w/config.json", "w/config.json"),
    ):
        monkeypatch.chdir(here)
        code, out, _ = cli(typed, "--machine", machine)
        command = out.splitlines()[-1].strip()
        assert (code, command) == (0, f"minillm datasheet {again} --machine machine.json")
        assert out.startswith(f"Datasheet: {title} on Made up\n")
        if here != beside:  # where it lies is nobody's business
            assert cli(again, "--machine", machine)[1] == out  # as it is shown, it works


def test_a_name_of_the_hub_is_shown_whole():
    from minillm.cli.datasheet import again, name_of

    assert again("owner/model") == "owner/model" and name_of("owner/model") == "model"


def test_a_kind_of_the_file_that_the_machine_knows_nothing_of_is_said(cli, machine, tmp_path):
    from minillm import GPT2Config
    from minillm.checkpoints.opening import save_checkpoint
    from minillm.model import Model

    path = tmp_path / "a.gguf"
    save_checkpoint(Model.random(GPT2Config(99, 64, 32, 1, 2)), path, "int4_min")
    code, out, err = cli(str(path), "--machine", machine)
    assert code == 0 and "int4" not in out
    assert err == "int4_min, in which its file has matrices, is left out: " + (
        "the machine has no rate of it\n"
    )


def test_weights_that_are_not_there_are_missed_before_anything_is_measured(
    cli, tmp_path, monkeypatch
):
    from minillm import GPT2Config

    monkeypatch.setattr(machines, "measure_machine", None)
    (tmp_path / "config.json").write_text(json.dumps(GPT2Config().to_dict()))
    code, out, err = cli(str(tmp_path), "--measure")
    assert (code, out) == (2, "") and "has no model.safetensors" in err


def test_markdown_is_for_the_page_alone(cli, tmp_path):
    what = ("tales-draft", "--machine", "a100", "--kinds", "float32", "int4_min")
    code, out, _ = cli(*what, "--save", str(tmp_path / "it"))
    assert code == 0 and "int4_min instead of float32" in out and not set("\\|#") & set(out)
    assert r"int4\_min instead of float32" in (tmp_path / "it.md").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--machine", "b300"], "machine 'b300' is no file, and none of a100"),
        (["no-such-model", "--machine", "a100"], "no-such-model"),
        (["pyproject.toml"], "is a file; a datasheet is of a config.json, a .gguf"),
        (["tales", "--machine", "a100", "--threads", "2"], "has no limits for 2 threads"),
        (["tales", "--machine", "a100", "--measure"], "--measure is of this machine"),
        (["tales", "--kinds", "int3"], "--kinds is 'int3'; it must be one of float32"),
        (["tales", "--engine", "x"], "--engine is 'x'; it must be one of minillm"),
        (["tales", "--engine", "minillm", "llama.cpp"], "several engines and --models go with"),
        (["tales", "--errors"], "--errors takes --models, and none of MODEL"),
        (["--errors", "--models", "tales", "tales-draft"], "--errors needs three models"),
        (["--errors", "--models", "tales", "tales-draft", "tales"], "three models, each once"),
        (["--errors", "--models", "tales", "tales-draft", "./no"], "./no"),
        (["tales", "--rounds", "0"], "--rounds is 0; it must be at least 1"),
        (["weights/tales/config.json", "--measure"], "config.json: a config has no weights to"),
        (["tales", "--contexts", "3", "-1"], "--contexts is [3, -1]"),
        (["tales", "--save", "tests/"], "--save tests/: it is a folder; name what the files in it"),
        (["tales", "--save", "/"], "--save /: it is a folder"),
        (["tales", "--html", "--json"], "--html and --json are two forms of one page"),
        (["tales", "--plot", "a.xyz"], "--plot a.xyz: the name must end in"),
        (["tales", "--save-machine", "no/such/a.json"], "there is no such folder"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else "",
)
def test_bad_input_is_one_line(cli, args, message):
    code, out, err = cli(*args)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_this_machine_is_saved_and_errors_are_printed(cli, tmp_path, monkeypatch):
    from minillm.bench import predictions
    from minillm.bench.datasheet import FIRST, TOKEN, by_limits, nodes
    from minillm.loading import config_of

    made = machines.replace(MACHINE, name="Made up")
    monkeypatch.setattr(machines, "measure_machine", lambda *_, **__: made)
    code, out, _ = cli("--save-machine", str(tmp_path / "this.json"))
    assert (code, out) == (0, f"{tmp_path / 'this.json'}: Made up, measured here\n")

    def measured(name, folder, limits, engines, kinds, contexts, n_new, rounds):
        config, points = config_of(folder), []
        for engine in engines:
            for what in (TOKEN, FIRST):
                point = predictions.Point(name, engine, "int8", 32, what, nodes(config))
                point.predicted = [by_limits(config, limits, "int8", what, 32)]
                point.seconds = [2 * point.predicted[0].known]
                points.append(point)
        return points

    monkeypatch.setattr(predictions, "limits_now", lambda *_: LIMITS)
    monkeypatch.setattr(predictions, "measured", measured)
    what = ("--errors", "--models", "tales", "tales-llama", "tales-draft", "--save-machine")
    code, out, _ = cli(*what, str(tmp_path / "b.json"), "--save", str(tmp_path / "e"))
    assert code == 0 and "all" in out and "0.0%" in out and "fitted" in out
    assert "Errors of models on which nothing was fitted" in (tmp_path / "e.md").read_text()
    constants = machines.Machine.load(tmp_path / "b.json").fitted["minillm", "int8", "token"]
    assert constants.models == ("tales", "tales-llama")
