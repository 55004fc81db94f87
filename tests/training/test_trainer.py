"""The loop, on an objective so small that every step can be done by hand."""

import errno
import json
import threading

import numpy as np
import pytest

from minillm import InputError
from minillm.distributed import World
from minillm.training import trainer as room
from minillm.training.language import LanguageModel
from minillm.training.settings import Settings
from minillm.training.trainer import (
    CHECKPOINT,
    METRICS,
    Trainer,
    check_folder,
    read_metrics,
    write_settings,
)

from .central import batch_of, small_model


class Parabola:
    """Loss: the mean of (w - x)^2 over a batch of x."""

    ops = None

    def __init__(self):
        self.parameters = {"w": np.zeros((1, 2))}

    def loss_and_gradients(self, batch):
        (x,) = batch
        return float(((self.parameters["w"] - x) ** 2).mean(0).sum()), {
            "w": (2 * (self.parameters["w"] - x)).mean(0)[None]
        }


def points(step, rank=0, size=1):
    return (np.random.default_rng(step).standard_normal((6, 2))[rank::size],)


def trainer(folder, objective=None, batch_of=points, **changes):
    plan = {
        "steps": 10,
        "batch_size": 6,
        "checkpoint_every": 4,
        "eval_every": 5,
        "log_every": 1,
        "lr": 0.1,
        "warmup": 2,
    }
    extra = {
        name: changes.pop(name) for name in ("world", "save", "sample", "echo") if name in changes
    }
    return Trainer(
        objective or Parabola(),
        batch_of,
        Settings(**plan | changes),
        folder,
        evaluate=lambda last: {"last": last},
        **extra,
    )


def losses(folder):
    return {r["step"]: r["loss"] for r in read_metrics(folder / METRICS) if "lr" in r}


def test_a_run_reports_evaluates_samples_and_saves(tmp_path):
    saved, heard = [], []
    t = trainer(
        tmp_path,
        save=lambda: saved.append(t.step),
        sample=lambda: "text",
        echo=heard.append,
        sample_every=7,
    )
    t.run()
    records = read_metrics(tmp_path / METRICS)
    assert list(losses(tmp_path)) == list(range(1, 11)) and saved == [4, 8, 10]
    assert [(r["step"], r["last"]) for r in records if "last" in r] == [(5, False), (10, True)]
    assert [r["step"] for r in records if "sample" in r] == [7, 10]
    assert heard == [r for r in records if "sample" in r or "last" in r] or len(heard) == 4
    assert {"lr", "gradient_norm", "tokens_per_s"} < set(records[0])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("killed_at", [1, 4, 6, 9, 10])
def test_resumed_equals_uninterrupted_to_the_last_bit(tmp_path, optimizer, killed_at):
    whole = trainer(tmp_path / "whole", optimizer=optimizer)
    whole.run()
    first = trainer(tmp_path / "cut", optimizer=optimizer)
    step = first.train_step

    def until():
        if first.step == killed_at:
            raise SystemExit
        return step()

    first.train_step = until
    try:
        first.run()
    except SystemExit:
        with open(tmp_path / "cut" / METRICS, "a") as file:
            file.write('{"step": 99, "lo')  # the line that it was writing
    again = trainer(tmp_path / "cut", optimizer=optimizer)
    again.run(resume=True)
    assert again.objective.parameters["w"].tobytes() == whole.objective.parameters["w"].tobytes()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert again.optimizer.steps == whole.optimizer.steps == 10


def test_parts_one_after_another_give_the_step_of_the_whole_batch(tmp_path):
    """Worst seen 2e-16 here; float64 of the whole model below 1e-14."""
    results = []
    for n in (1, 2, 3):
        t = trainer(tmp_path / str(n), accumulate=n)
        t.run()
        results.append(t.objective.parameters["w"])
    np.testing.assert_allclose(results[1:], [results[0]] * 2, rtol=1e-12)


def test_parts_of_a_models_batch(tmp_path):
    models = [small_model(), small_model()]
    batch = batch_of(models[0].config, rows=4)
    for n, model in zip((1, 4), models):
        t = trainer(
            tmp_path,
            LanguageModel(model),
            lambda *where: batch,
            batch_size=4,
            accumulate=n,
            optimizer="sgd",
        )
        t.train_step()
    for name, p in models[0].parameters.items():
        np.testing.assert_allclose(models[1].parameters[name], p, atol=1e-12)


class Pair(World):
    """Two ranks in two threads."""

    def __init__(self, rank, meet, table):
        self.rank, self.size, self.meet, self.table = rank, 2, meet, table

    def all_gather(self, value):
        self.table[self.rank] = value
        self.meet.wait(20)
        values = list(self.table.values())
        self.meet.wait(20)
        return values

    def all_reduce_mean(self, arrays):
        arrays = list(arrays)
        both = self.all_gather([a.copy() for a in arrays])
        for array, mean in zip(arrays, [(a + b) / 2 for a, b in zip(*both)]):
            array[:] = mean


def test_two_ranks_with_half_the_batch_follow_one(tmp_path):
    alone = trainer(tmp_path / "one")
    alone.run()
    meet, table = threading.Barrier(2), {}
    ranks = [trainer(tmp_path / "two", world=Pair(rank, meet, table)) for rank in (0, 1)]
    threads = [threading.Thread(target=t.run) for t in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    np.testing.assert_allclose(
        ranks[0].objective.parameters["w"], alone.objective.parameters["w"], rtol=1e-12
    )
    assert (ranks[0].objective.parameters["w"] == ranks[1].objective.parameters["w"]).all()
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-6)


def test_a_batch_that_cannot_be_shared(tmp_path):
    with pytest.raises(
        InputError, match="batch_size 6 cannot be shared by 2 processes in 2 equal parts each"
    ):
        trainer(tmp_path, world=Pair(0, None, None), accumulate=2)


def test_what_is_not_finite_ends_with_one_line_and_keeps_the_checkpoint(tmp_path, recwarn):
    t = trainer(tmp_path, lr=1e300, clip=1e300, optimizer="sgd", checkpoint_every=1)
    said = (
        r"step \d: the loss is (inf|nan), the gradient .*; the last checkpoint is kept in"
        r" .*lower lr"
    )
    with pytest.raises(InputError, match=said):
        t.run()
    kept = trainer(tmp_path)
    kept.load_checkpoint()
    assert kept.step >= 1 and np.isfinite(kept.objective.parameters["w"]).all()
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]
    with pytest.raises(InputError, match="no checkpoint was due yet"):
        trainer(tmp_path / "none", Broken()).run()


class Broken(Parabola):
    def loss_and_gradients(self, batch):
        return float("nan"), {"w": np.ones((1, 2))}


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    t, real, written = trainer(tmp_path), room.safetensors.write, []

    def full(path, *rest):
        real(path, *rest)
        written.append(t.step)
        if len(written) == 1:
            monkeypatch.setattr("os.fsync", no_space)

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room.safetensors, "write", full)
    said = (
        r"step 8: .*checkpoint.safetensors: No space left on device; the last checkpoint is"
        r" kept in "
    )
    with pytest.raises(InputError, match=said):
        t.run()
    monkeypatch.undo()
    assert written == [4] and not list(tmp_path.glob(".*"))
    again, whole = trainer(tmp_path), trainer(tmp_path / "whole")
    again.run(resume=True)
    whole.run()
    assert again.objective.parameters["w"].tobytes() == whole.objective.parameters["w"].tobytes()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_finishes_the_step_and_saves(tmp_path, number, capsys):
    import signal

    t = trainer(tmp_path, checkpoint_every=100)
    step = t.train_step

    def interrupted():
        if t.step == 6:
            signal.raise_signal(getattr(signal, number))
        return step()

    t.train_step, before = interrupted, signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        t.run()
    again = trainer(tmp_path)
    again.load_checkpoint()
    assert again.step == 7 and signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err.strip() == "stopping after this step; once more to stop at once"


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    trainer(tmp_path).run()
    other = Parabola()
    other.parameters = {"w": np.zeros((1, 3))}
    with pytest.raises(InputError, match=r"checkpoint.safetensors: not a checkpoint of this model"):
        trainer(tmp_path, other).run(resume=True)


def test_two_runs_are_not_mixed(tmp_path):
    plan, curve = {"steps": 3, "log_every": 1}, {"steps"}
    check_folder(tmp_path, plan, curve, resume=False)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / ".train.npy.123.tmp").write_bytes(b"half")  # of a killed process
    write_settings(tmp_path, plan)
    with pytest.raises(
        InputError,
        match="there is a run already; --resume goes on with it, or choose another folder",
    ):
        check_folder(tmp_path, plan, curve, resume=False)
    with pytest.raises(InputError, match=r"--resume: the run in .* has steps 3, not 4"):
        check_folder(tmp_path, {"steps": 4, "log_every": 1}, curve, resume=True)
    check_folder(tmp_path, {"steps": 3, "log_every": 2}, curve, resume=True)
    assert not list((tmp_path / "tokens").iterdir())


def test_a_model_is_not_overwritten(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"years of work")
    with pytest.raises(InputError, match="there is a model already; choose another folder"):
        check_folder(tmp_path, {}, set(), resume=False)


def test_metrics_cut_short_are_read_up_to_there(tmp_path):
    (tmp_path / METRICS).write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_metrics(tmp_path / METRICS) == [{"step": 1}]
    with pytest.raises(InputError, match="is this the folder of a training run"):
        read_metrics(tmp_path / "none")


def test_checkpoints_hold_everything(tmp_path):
    t = trainer(tmp_path)
    t.run()
    from minillm.checkpoints import safetensors

    tensors, metadata = safetensors.read(tmp_path / CHECKPOINT)
    assert (
        set(tensors) == {"model.w", "optimizer.mean.w", "optimizer.square.w"}
        and metadata["step"] == "10"
    )
