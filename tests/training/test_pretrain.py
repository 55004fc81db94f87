"""`minillm train` as people meet it: a run from text to a model that generates, and one clear line
for bad input."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm.cli import main
from minillm.machine import quota
from minillm.training.lock import held
from minillm.training.trainer import CHECKPOINT, read_metrics

KNOBS = (
    "--kernels numpy --n-layer 1 --n-head 2 --n-embd 8 --n-positions 16 --vocab-size 270"
    " --batch-size 4 --steps 6 "
)
KNOBS += (
    "--warmup 2 --log-every 1 --eval-every 3 --checkpoint-every 2 --sample-every 6 --sample-prompt"
    " king"
)
SMALL = KNOBS.split()


@pytest.fixture
def cli(capsys):
    """minillm train with SMALL, in this process: (exit code, stdout, stderr)."""

    def call(*args):
        try:
            code = main(["train", *map(str, args), *SMALL])
        except SystemExit as exit:
            code = exit.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--data", str(data), "--out", str(out), *SMALL]) == 0
    return out


def test_a_run_becomes_a_model(finished):
    model, tokenizer = minillm.load(finished)
    assert model.config.n_embd == 8 and tokenizer.vocab_size == model.config.vocab_size == 270
    assert len(tokenizer.decode(model.generate(tokenizer.encode("the king"), 4))) > 8
    records = read_metrics(finished / "metrics.jsonl")
    assert [r["step"] for r in records if "lr" in r] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in records if "bits_per_byte" in r] == [3, 6] and "sample" in records[
        -1
    ]
    settings = json.loads((finished / "settings.json").read_text())
    assert settings["n_embd"] == 8 and settings["format"] == 2


def written(folder):
    """What is said at the end of a run."""
    return f'{folder}: written; next: minillm generate "Once upon a time" --model {folder}\n'


def test_what_it_prints(cli, data, tmp_path):
    code, out, err = cli("--data", data, "--out", tmp_path / "a")
    assert code == 0 and err == written(tmp_path / "a")
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("step")] == [
        ["step", "0"],
        ["step", "3"],
        ["step", "6"],
    ]
    assert "bits per byte" in out and "king" in out
    code, out, _ = cli("--data", data, "--out", tmp_path / "b", "--json")
    assert code == 0 and [json.loads(line)["step"] for line in out.splitlines()] == [0, 3, 6, 6]


def test_resuming_a_finished_run_says_so(cli, finished):
    before = (finished / CHECKPOINT).read_bytes()
    code, out, err = cli("--out", finished, "--resume")
    assert (code, err) == (0, written(finished)) and "step      6" in out and "finished" in out
    assert (finished / CHECKPOINT).read_bytes() == before


def test_fine_tuning_with_adapters(cli, finished, data, tmp_path):
    code, _, err = cli(
        "--data",
        data,
        "--out",
        tmp_path / "tuned",
        "--from",
        finished,
        "--lora-rank",
        "2",
        "--lr",
        "0.1",
    )
    assert (code, err) == (0, written(tmp_path / "tuned"))
    from minillm.training.lora import load_adapters, merged

    base, tuned = minillm.load(finished)[0], minillm.load(tmp_path / "tuned")[0]
    apart = merged(load_adapters(base, tmp_path / "tuned"))
    changed = [
        n
        for n, p in tuned.parameters.items()
        if not np.array_equal(np.asarray(p), np.asarray(base.parameters[n]))
    ]
    assert changed == ["h.0.attn.c_attn.weight"]
    np.testing.assert_array_equal(
        np.asarray(tuned.parameters[changed[0]]), np.asarray(apart.parameters[changed[0]])
    )


# ---- bad input: one line, exit code 2


def refused(result):
    code, out, err = result
    assert code == 2 and out == "" and err.startswith("minillm: ") and err.count("\n") == 1, result
    return err


def test_a_shape_that_cannot_be_leaves_no_run_behind(data, tmp_path, capsys):
    out = tmp_path / "out"
    code = main(["train", "--data", str(data), "--out", str(out), "--n-head=3"])
    assert "n_embd 128 cannot be split into n_head 3" in refused((code, *capsys.readouterr()))
    assert not out.exists()


def test_bad_data_leaves_no_run_behind(cli, data, tmp_path):
    """And the next try, with what was meant, is no second run."""
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    assert "no .txt file in this folder" in refused(cli("--data", empty, "--out", out))
    assert "there is no such folder or file" in refused(
        cli("--data", tmp_path / "none", "--out", out)
    )
    assert "--data is needed" in refused(cli("--out", out))
    (empty / "latin.txt").write_bytes(b"caf\xe9 " * 50)
    assert "latin.txt: not UTF-8 text" in refused(cli("--data", empty, "--out", out))
    (empty / "latin.txt").write_text("the king. ")
    assert "more text" in refused(cli("--data", empty, "--out", out))
    (empty / "latin.txt").write_text("the king. " * 60)
    assert "the validation text has" in refused(cli("--data", empty, "--out", out))
    assert cli("--data", data, "--out", out)[0] == 0


def test_bad_settings(cli, data, finished, tmp_path):
    where = ("--data", data, "--out", tmp_path / "out")
    assert "preset is 'huge'" in refused(cli(*where, "--preset", "huge"))
    (tmp_path / "s.toml").write_text("steps = ")
    assert "s.toml: not valid TOML" in refused(cli(*where, "--config", tmp_path / "s.toml"))
    (tmp_path / "s.toml").write_text("learning_rate = 1")
    assert "'learning_rate' is no setting; known: batch_size" in refused(
        cli(*where, "--config", tmp_path / "s.toml")
    )
    assert "adapters need a model to adapt" in refused(cli(*where, "--lora-rank", "2"))
    assert "precision is 'bfloat16'" in refused(cli(*where, "--precision", "bfloat16"))
    assert "training computes in float32" in refused(cli(*where, "--dtype", "int8"))
    assert "seed is -1; it must be at least 0" in refused(cli(*where, "--seed", "-1"))
    assert not (tmp_path / "out" / "settings.json").exists()


def test_bad_prompts_are_told_before_training(data, tmp_path, capsys):
    where = ["train", "--data", str(data), "--out", str(tmp_path / "o"), *SMALL]
    assert main([*where, "--sample-prompt", "the king " * 20]) == 2
    assert "sample_prompt has " in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*where, "--sample-prompt", ""])
    assert "--sample-prompt: it is empty" in capsys.readouterr().err
    assert not (tmp_path / "o" / "settings.json").exists()


def test_from_keeps_the_shape(finished, data, tmp_path, capsys):
    where = ["--data", str(data), "--out", str(tmp_path / "o"), "--from", str(finished)]
    code = main(["train", *where, "--n-embd", "16", "--kernels", "numpy"])
    assert code == 2 and "n_embd is 16; " in capsys.readouterr().err


def test_runs_are_not_mixed(cli, finished, data, tmp_path, capsys):
    assert "there is a run already; --resume goes on with it" in refused(
        cli("--data", data, "--out", finished)
    )
    assert "there is no run to go on with" in refused(cli("--out", tmp_path / "none", "--resume"))
    main(["train", "--out", str(finished), "--resume", "--lr", "0.5"])
    assert "has lr 0.001, not 0.5" in capsys.readouterr().err


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, of which anything may be broken."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def test_two_runs_at_once(cli, data, copied, tmp_path):
    for folder, how in ((copied, "--resume"), (tmp_path / "new", "--json")):
        with held(folder):
            assert "trains in it; wait for it, or" in refused(
                cli("--data", data, "--out", folder, how)
            )
    assert cli("--out", copied, "--resume")[0] == 0


def test_a_text_that_has_changed_is_told(cli, finished, data, tmp_path):
    """Even where it is as long and as old as it was."""
    texts, out = tmp_path / "texts", tmp_path / "out"
    shutil.copytree(data, texts)
    assert cli("--data", texts, "--out", out)[0] == 0
    (file,) = texts.glob("*.txt")
    before, stat = file.read_bytes(), file.stat()
    file.write_bytes(before.replace(b"king", b"ring"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "is not as it was when the run began" in refused(cli("--out", out, "--resume"))
    file.write_bytes(before)
    assert cli("--out", out, "--resume")[0] == 0


def test_checkpoints_that_are_damaged_or_lost(cli, copied):
    checkpoint, before = copied / CHECKPOINT, copied / "checkpoint.1.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    code, out, err = cli("--out", copied, "--resume")
    assert code == 0 and "step      6" in out and err.count("\n") == 2
    assert "truncated" in err and "; going on from checkpoint.1.safetensors, step 4" in err
    assert before.exists()
    checkpoint.unlink()
    before.unlink()
    said = refused(cli("--out", copied, "--resume"))
    assert "checkpoint.safetensors: there is no such file; there is no other: begin again" in said


def test_keeping_one_checkpoint(cli, data, tmp_path):
    assert cli("--data", data, "--out", tmp_path / "out", "--keep-checkpoints", "1")[0] == 0
    assert [path.name for path in (tmp_path / "out").glob("checkpoint*")] == [CHECKPOINT]
    assert "keep_checkpoints is 0; it must be at least 1" in refused(
        cli("--data", data, "--out", tmp_path / "other", "--keep-checkpoints", "0")
    )


def test_a_batch_that_does_not_fit(cli, data, tmp_path, monkeypatch):
    monkeypatch.setattr(quota, "free_bytes", lambda: 1000)
    monkeypatch.setattr(quota, "SMALL", 0)
    assert "4 windows of 16 would take about" in refused(
        cli("--data", data, "--out", tmp_path / "out")
    )


def test_a_learning_rate_too_high_keeps_the_last_checkpoint(data, tmp_path, capsys):
    args = [
        "train",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "o"),
        *SMALL,
        "--checkpoint-every",
        "1",
        "--lr",
        "1000",
        "--steps",
        "60",
    ]
    assert main([*args, "--optimizer", "sgd", "--clip", "1e30"]) == 2
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1 and "the last checkpoint is kept in" in err and "Try a lower lr" in err
    )
    assert np.isfinite(np.asarray(minillm.load(tmp_path / "o")[0].parameters["wte.weight"])).all()


# ---- families

FAMILIES = {
    "llama": "--family llama --n-kv-head 1 --n-inner 12",
    "between": "--family between --rms-norm --rope --n-kv-head 1",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_of_another_family(family, cli, data, tmp_path):
    """It becomes a model of its family, is resumed as one to the same bits, and fine-tuned."""
    out, copied = tmp_path / "run", tmp_path / "copied"
    where = ("--data", data, "--out", out, "--optimizer", "muon")
    assert cli(*where, *FAMILIES[family].split())[0] == 0
    model, tokenizer = minillm.load(out)
    assert (model.family.name, model.config.sizes.K, model.config.sizes.C) == (family, 1, 8)
    assert json.loads((out / "settings.json").read_text())["family"] == family
    assert len(tokenizer.decode(model.generate(tokenizer.encode("the king"), 4))) > 8
    shutil.copytree(out, copied)
    (copied / CHECKPOINT).unlink()
    code, _, err = cli("--out", copied, "--resume")
    assert code == 0 and "going on from checkpoint.1.safetensors, step 4" in err
    for name in ("model.safetensors", CHECKPOINT, "metrics.jsonl"):
        ours, theirs = ((folder / name).read_bytes() for folder in (out, copied))
        if name == "metrics.jsonl":  # but for the speed
            ours, theirs = (re.sub(rb'"tokens_per_s": \d+', b"", text) for text in (ours, theirs))
        assert ours == theirs, name
    tuned = tmp_path / "tuned"
    assert cli("--data", data, "--out", tuned, "--from", out, "--lora-rank", "2")[0] == 0
    assert minillm.load(tuned)[0].config == model.config


def test_a_run_that_says_no_family_is_a_gpt2(cli, copied):
    """As older ones do; what they say nothing of is as it was then."""
    settings = json.loads((copied / "settings.json").read_text())
    older = ("family", "n_kv_head", "n_inner", "rope_theta", "rms_norm", "rope", "swiglu")
    kept = {name: value for name, value in settings.items() if name not in older}
    (copied / "settings.json").write_text(json.dumps(kept))
    assert cli("--out", copied, "--resume")[0] == 0
    (copied / "settings.json").write_text(json.dumps(kept))
    said = refused(cli("--out", copied, "--resume", "--family", "llama"))
    assert "has family 'gpt2', not 'llama'" in said


def test_settings_of_other_families(cli, data, tmp_path):
    where = ("--data", data, "--out", tmp_path / "out")
    for flags, said in {
        "--n-kv-head 1": "n_kv_head is 1; GPT-2 has no such setting",
        "--rope": "rope is True; GPT-2 has no such setting",
        "--family llama --swiglu": "swiglu is True; Llama has no such setting",
        "--rope-theta 9": "rope_theta is 9.0; GPT-2 has no such setting",
        "--family llama --n-kv-head 3": "num_attention_heads 2 cannot share num_key_value_heads 3",
    }.items():
        assert said in refused(cli(*where, *flags.split()))
