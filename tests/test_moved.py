"""What had another name in 0.1 is found by it, and a warning names the new one."""

import sys
from importlib import import_module

import pytest

from minillm import moved


@pytest.mark.parametrize(("old", "new"), moved.MODULES.items())
def test_an_old_name_is_the_new_module_with_a_warning(monkeypatch, old, new):
    monkeypatch.delitem(sys.modules, f"minillm.{old}", raising=False)
    with pytest.warns(FutureWarning, match=rf"^minillm\.{old} is now called minillm\.{new}; "):
        found = import_module(f"minillm.{old}")
    assert found is import_module(f"minillm.{new}")


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"minillm\.nothing"):
        import_module("minillm.nothing")
