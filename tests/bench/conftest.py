"""What several of these tests need: fakes that are compared, in processes or in threads."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext

import pytest

from minillm.bench import run as run_function
from minillm.bench import worker
from minillm.bench.peers import PEERS
from tests.bench.workers import CONFIG, FAKES, Idle, Thread

run_module = sys.modules["minillm.bench.run"]  # `run` of its package is the function


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(run_module, "PAUSE", 0)


@pytest.fixture
def compare(monkeypatch, tmp_path):
    """Compare fakes on a folder that holds a config: compare(names, prompt, new, rounds)."""
    for name, kind in FAKES.items():
        monkeypatch.setitem(PEERS, name, kind)
    monkeypatch.setattr(run_module, "WORKER", ("-m", "tests.bench.workers"))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))

    def call(names, *args, **kwargs):
        return run_function(tmp_path, names, *args, **kwargs)

    call.folder = tmp_path
    return call


@pytest.fixture
def in_threads(monkeypatch):
    """Workers are threads of this process."""
    monkeypatch.setattr(run_module, "Child", Thread)
    monkeypatch.setattr(worker, "Machine", Idle)


@pytest.fixture
def bar_of(monkeypatch):
    """What a module shows in its progress bars, as it comes: bar_of("minillm.bench.diverge")."""

    def watched(module: str) -> list[tuple]:
        shown: list[tuple] = []
        bar = nullcontext(lambda *said: shown.append(said))
        monkeypatch.setattr(f"{module}.progress_bar", lambda unit: bar)
        return shown

    return watched
