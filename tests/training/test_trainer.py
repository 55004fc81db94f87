"""The loop, on an objective so small that every step can be done by hand."""

import errno
import json
import shutil
import threading

import numpy as np
import pytest

from minillm import InputError
from minillm.checkpoints import safetensors
from minillm.machine.distributed import ALONE, World
from minillm.training import checkpoint
from minillm.training import trainer as room
from minillm.training.language import IGNORED, LanguageModel
from minillm.training.lora import with_adapters
from minillm.training.settings import Settings
from minillm.training.trainer import (
    CHECKPOINT,
    METRICS,
    Trainer,
    check_folder,
    read_metrics,
    run_to_resume,
    write_settings,
)
from tests.central import batch_of, small_model


class Parabola:
    """Loss: the mean of (w - x)^2 over a batch of x."""

    ops = None

    def __init__(self):
        self.parameters = {"w": np.zeros((1, 2))}

    def n_targets(self, batch):
        return len(batch[0])

    def loss_and_gradients(self, batch, n):
        away = self.parameters["w"] - batch[0]
        return float((away**2).sum() / n), {"w": 2 * away.sum(0, keepdims=True) / n}


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
    learners = [LanguageModel(small_model()), LanguageModel(small_model())]
    batch = batch_of(learners[0].model.config, rows=4)
    for n, learner in zip((1, 4), learners):
        t = trainer(
            tmp_path,
            learner,
            lambda *where: batch,
            batch_size=4,
            accumulate=n,
            optimizer="sgd",
        )
        t.train_step()
    for name, p in learners[0].parameters.items():
        np.testing.assert_allclose(learners[1].parameters[name], p, atol=1e-12)


def ragged(model):
    """A batch whose rows have 12, 9, 1 and 0 targets that count: no part is like another."""
    return batch_of(model.config, rows=4, T=6, padding=(0, 2, 5, 6))


@pytest.mark.parametrize("adapters", [False, True], ids=["all", "LoRA"])
@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_with_unequal_numbers_of_targets(tmp_path, accumulate, adapters):
    """float64, sums in another order: worst seen 3e-16 of the largest gradient."""
    model = small_model()
    if adapters:
        model = with_adapters(model, 2, matrices="c_attn,c_fc")
    objective, batch = LanguageModel(model), ragged(model)
    loss, expected = objective.loss_and_gradients(batch)
    t = trainer(tmp_path, objective, batch_size=4, accumulate=accumulate)
    parts, found = t._accumulated(batch)
    assert parts == pytest.approx(loss, rel=1e-14) and set(found) == set(expected)
    for name, gradient in expected.items():
        assert np.abs(found[name] - gradient).max() <= 1e-13 * np.abs(gradient).max(), name


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

    def barrier(self):
        self.meet.wait(20)

    def all_reduce_sum(self, arrays):
        arrays = list(arrays)
        both = self.all_gather([a.copy() for a in arrays])
        for array, total in zip(arrays, [a + b for a, b in zip(*both)]):
            array[:] = total


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


def test_ranks_with_unequal_numbers_of_targets(tmp_path):
    """Each with two parts, one of which has no target at all."""
    batch, meet, table = ragged(small_model()), threading.Barrier(2), {}
    models, plan = [small_model() for _ in range(3)], {"batch_size": 4, "optimizer": "sgd"}

    def rows(step, rank, size):
        return tuple(array[rank::size] for array in batch)

    worlds = [ALONE, *(Pair(rank, meet, table) for rank in (0, 1))]
    trainers = [
        trainer(tmp_path, LanguageModel(model), rows, world=world, accumulate=world.size, **plan)
        for model, world in zip(models, worlds)
    ]
    threads = [threading.Thread(target=t.train_step) for t in trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    alone, *others = (t.objective.parameters for t in trainers)
    for name, p in alone.items():
        assert np.abs(p - models[0].parameters[name]).max() > 0
        for other in others:
            np.testing.assert_allclose(other[name], p, rtol=0, atol=1e-13)


def test_a_batch_without_any_target_changes_nothing(tmp_path):
    model = small_model()
    ids, targets = batch_of(model.config)
    loss, gradients = LanguageModel(model).loss_and_gradients((ids, np.full_like(targets, IGNORED)))
    assert loss == 0 and not any(g.any() for g in gradients.values())


def test_a_batch_that_cannot_be_shared(tmp_path):
    with pytest.raises(
        InputError, match="batch_size 6 cannot be shared by 2 processes in 2 equal parts each"
    ):
        trainer(tmp_path, world=Pair(0, None, None), accumulate=2)


def test_what_is_not_finite_ends_with_one_line_and_keeps_the_checkpoint(tmp_path, recwarn):
    t = trainer(tmp_path, Cliff(), lr=1000, clip=1e30, optimizer="sgd", checkpoint_every=1)
    said = (
        r"step \d: the loss is (inf|nan), the gradient .*; the last checkpoint is kept in"
        r" .*lower lr"
    )
    with pytest.raises(InputError, match=said):
        t.run()
    kept = trainer(tmp_path, optimizer="sgd")
    kept.load_checkpoint()
    assert kept.step >= 1 and np.isfinite(kept.objective.parameters["w"]).all()
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]
    with pytest.raises(InputError, match="step 1: the loss is nan"):
        trainer(tmp_path / "none", Broken()).run()
    assert trainer(tmp_path / "none").load_checkpoint()  # of step 0


class Cliff(Parabola):
    """The parabola near 0, and infinity."""

    def loss_and_gradients(self, batch, n):
        loss, gradients = super().loss_and_gradients(batch, n)
        return loss if np.abs(self.parameters["w"]).max() < 1e6 else np.inf, gradients


class Broken(Parabola):
    def loss_and_gradients(self, batch, n):
        return float("nan"), {"w": np.ones((1, 2))}


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    t, real, written = trainer(tmp_path), room.checkpoint.write, []

    def full(*args):
        real(*args)
        written.append(t.step)
        if len(written) == 2:
            monkeypatch.setattr("os.fsync", no_space)

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room.checkpoint, "write", full)
    said = (
        r"step 8: .*checkpoint.safetensors: No space left on device; the last checkpoint is"
        r" kept in .*checkpoint.1.safetensors"
    )
    with pytest.raises(InputError, match=said):
        t.run()
    monkeypatch.undo()
    assert written == [0, 4] and not list(tmp_path.glob(".*"))
    again, whole = trainer(tmp_path), trainer(tmp_path / "whole")
    again.run(resume=True)
    whole.run()
    assert again.objective.parameters["w"].tobytes() == whole.objective.parameters["w"].tobytes()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_finishes_the_step_and_saves(tmp_path, number, caplog):
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
    says = "stopping after this step, from which a resumed run goes on; once more to stop at once"
    assert [record.getMessage().strip() for record in caplog.records] == [says]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    trainer(tmp_path).run()
    other = Parabola()
    other.parameters = {"w": np.zeros((1, 3))}
    with pytest.raises(InputError, match=r"checkpoint.safetensors: not a checkpoint of this run"):
        trainer(tmp_path, other).run(resume=True)


def test_two_runs_are_not_mixed(tmp_path):
    plan, curve = {"steps": 3, "log_every": 1}, {"steps": 1000}
    check_folder(tmp_path, plan, curve, resume=False)
    write_settings(tmp_path, plan)
    with pytest.raises(
        InputError,
        match="there is a run already; --resume goes on with it, or choose another folder",
    ):
        check_folder(tmp_path, plan, curve, resume=False)
    with pytest.raises(InputError, match=r"--resume: the run in .* has steps 3, not 4"):
        check_folder(tmp_path, {"steps": 4, "log_every": 1}, curve, resume=True)
    check_folder(tmp_path, {"steps": 3, "log_every": 2}, curve, resume=True)


def test_only_what_a_killed_run_left_is_removed(tmp_path):
    """In the run's own two folders; other people's files stay, whatever they are called."""
    mine, theirs = [], []
    for place in ("", "tokens", "tokens/deeper", "other"):
        (tmp_path / place).mkdir(exist_ok=True)
        left = tmp_path / place / ".minillm-0123456789abcdef.tmp"
        (mine if place in ("", "tokens") else theirs).append(left)
        names = (".tmp", "a.tmp", ".a.tmp", ".model.safetensors.123.tmp", ".minillm-0.tmp")
        theirs += [tmp_path / place / name for name in names]
    for path in mine + theirs:
        path.write_bytes(b"half")
    linked = tmp_path / ".minillm-00000000000000ff.tmp"
    linked.symlink_to(theirs[0])
    check_folder(tmp_path, {}, {}, resume=False)
    assert not any(path.exists() for path in mine) and all(path.exists() for path in theirs)
    assert linked.is_symlink()


def test_the_format_of_a_run_is_known(tmp_path):
    """1 where none is said, as in version 0.1.0."""
    for settings, known in (({"steps": 3}, 1), ({"format": 2}, 2)):
        write_settings(tmp_path, settings)
        assert run_to_resume(tmp_path, Settings) == {"format": known} | settings
    for unknown in (0, 3, "2", None):
        write_settings(tmp_path, {"format": unknown})
        with pytest.raises(InputError, match=r"settings.json: format is "):
            run_to_resume(tmp_path, Settings)


def test_a_model_is_not_overwritten(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"years of work")
    with pytest.raises(InputError, match="there is a model already; choose another folder"):
        check_folder(tmp_path, {}, {}, resume=False)


def test_metrics_cut_short_are_read_up_to_there(tmp_path):
    (tmp_path / METRICS).write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_metrics(tmp_path / METRICS) == [{"step": 1}]
    with pytest.raises(InputError, match="is this the folder of a training run"):
        read_metrics(tmp_path / "none")


# ---- checkpoints


@pytest.mark.parametrize(("keep", "steps"), [(1, [10]), (2, [10, 8]), (3, [10, 8, 4])])
def test_checkpoints_hold_everything(tmp_path, keep, steps):
    """The last ones, each a whole state; the first of all is of step 0."""
    trainer(tmp_path, keep_checkpoints=keep).run()
    found = [safetensors.read(path) for path in checkpoint.kept(tmp_path)]
    assert [metadata["step"] for _, metadata in found] == [str(step) for step in steps]
    assert len(list(tmp_path.iterdir())) == keep + 1  # and metrics.jsonl
    for tensors, _ in found:
        assert set(tensors) == {"model.w", "optimizer.mean.w", "optimizer.square.w"}


def test_all_checkpoints_can_be_kept(tmp_path):
    """A number without end is no loop without end."""
    trainer(tmp_path, keep_checkpoints=2**62, checkpoint_every=1, steps=3).run()
    assert len(checkpoint.kept(tmp_path)) == 4


def test_fewer_checkpoints_than_before_leave_no_rest(tmp_path):
    trainer(tmp_path, keep_checkpoints=4).run()
    trainer(tmp_path, keep_checkpoints=2).save_checkpoint()
    assert [path.name for path in checkpoint.kept(tmp_path)] == [
        "checkpoint.safetensors",
        "checkpoint.1.safetensors",
    ]


def rewritten(folder, change):
    """Change what the last checkpoint holds, with the checksum that belongs to it."""
    tensors, metadata = safetensors.read(folder / CHECKPOINT)
    tensors = {name: np.array(t) for name, t in tensors.items()}
    change(tensors, metadata)
    metadata["sha256"] = checkpoint.checksum(tensors, metadata)
    safetensors.write(folder / CHECKPOINT, tensors, metadata)


def is_of_shape_1(tensors, metadata):
    tensors["optimizer.mean.w"] = np.zeros(1)


def is_turned(tensors, metadata):
    tensors["optimizer.square.w"] = np.zeros((2, 1))


def is_float32(tensors, metadata):
    tensors["model.w"] = tensors["model.w"].astype(np.float32)


def lacks_a_state(tensors, metadata):
    del tensors["optimizer.square.w"]


def has_one_too_many(tensors, metadata):
    tensors["optimizer.momentum.w"] = tensors["optimizer.mean.w"]


def has_another_name(tensors, metadata):
    tensors["w"] = tensors.pop("model.w")


def is_said_to_be_of_step_0(tensors, metadata):
    metadata["step"] = "0"


@pytest.mark.parametrize(
    "change",
    [
        is_of_shape_1,
        is_turned,
        is_float32,
        lacks_a_state,
        has_one_too_many,
        has_another_name,
        is_said_to_be_of_step_0,
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change):
    """It is whole, so the one before is no remedy: whoever put it there must know."""
    trainer(tmp_path).run()
    rewritten(tmp_path, change)
    before = (tmp_path / METRICS).read_bytes()
    with pytest.raises(InputError, match=r"/checkpoint.safetensors: not a checkpoint of this run$"):
        trainer(tmp_path).run(resume=True)
    assert (tmp_path / METRICS).read_bytes() == before


@pytest.mark.parametrize("step", ["11", "-1", "", "1e1", "１", "1_0", "9" * 5000])
def test_a_step_that_the_run_does_not_have_is_refused(tmp_path, step):
    trainer(tmp_path).run()
    rewritten(tmp_path, lambda tensors, metadata: metadata.update(step=step))
    with pytest.raises(InputError, match=r"step '.* is none of this run's, 0 to 10") as error:
        trainer(tmp_path).run(resume=True)
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path, caplog):
    """Wherever a bit has changed. The damaged one is not kept: else it would take the place of the
    good one when the next is written."""
    whole = trainer(tmp_path / "whole")
    whole.run()
    good = (tmp_path / "whole" / CHECKPOINT).read_bytes()
    for at in np.linspace(0, len(good) - 1, 25).astype(int):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "whole", folder)
        (folder / CHECKPOINT).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        again = trainer(folder)
        again.run(resume=True)
        (said,) = (record.getMessage() for record in caplog.records)
        assert said.endswith("; going on from checkpoint.1.safetensors, step 8")
        caplog.clear()
        assert (
            again.objective.parameters["w"].tobytes() == whole.objective.parameters["w"].tobytes()
        )
        assert losses(folder) == losses(tmp_path / "whole")
        assert (folder / CHECKPOINT).read_bytes() == good


def test_a_lost_checkpoint_is_no_new_beginning(tmp_path, caplog):
    trainer(tmp_path).run()
    (tmp_path / CHECKPOINT).unlink()
    again = trainer(tmp_path)
    assert again.load_checkpoint() and again.step == 8
    assert "checkpoint.safetensors: there is no such file; going on" in caplog.text
    (tmp_path / CHECKPOINT).unlink()
    before = (tmp_path / METRICS).read_bytes()
    with pytest.raises(InputError, match=r"there is no such file; there is no other: begin again"):
        trainer(tmp_path).run(resume=True)
    assert (tmp_path / METRICS).read_bytes() == before
    trainer(tmp_path / "new").run(resume=True)  # killed before it wrote anything
    assert len(losses(tmp_path / "new")) == 10
