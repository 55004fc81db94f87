"""What had another place in 0.1 is found there, and a warning names the new one."""

import sys
from importlib import import_module

import pytest

from minillm import moved, ops_backward


@pytest.mark.parametrize(("old", "new"), moved.MODULES.items())
def test_an_old_module_is_the_new_one(monkeypatch, old, new):
    monkeypatch.delitem(sys.modules, f"minillm.{old}", raising=False)
    with pytest.warns(FutureWarning, match=rf"^minillm\.{old} is now called minillm\.{new}; "):
        found = import_module(f"minillm.{old}")
    assert found is import_module(f"minillm.{new}")


@pytest.mark.parametrize(
    ("old", "name", "new"), [(m, n, new) for m in moved.NAMES for n, new in moved.NAMES[m].items()]
)
def test_an_old_name_is_the_new_modules(old, name, new):
    where, _, its_name = new.partition(":")
    its_name = its_name or name
    said = rf"^minillm\.{old}\.{name} .*minillm\.{where}\.{its_name}; "
    with pytest.warns(FutureWarning, match=said):
        found = getattr(import_module(f"minillm.{old}"), name)
    assert found is getattr(import_module(f"minillm.{where}"), its_name)


def test_the_warning_is_for_the_line_that_imports():
    with pytest.warns(FutureWarning) as seen:
        from minillm.training.backward import linear_backward
    assert linear_backward is ops_backward.linear_backward
    assert {w.filename for w in seen} == {__file__}


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"minillm\.nothing"):
        import_module("minillm.nothing")
    with pytest.raises(ImportError, match="no_such_backward"):
        from minillm.training.backward import no_such_backward  # noqa: F401
