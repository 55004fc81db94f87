"""What had another name in 0.1 is found by it, and a warning names the new one."""

import sys
from importlib import import_module

import pytest

from minillm import moved


@pytest.mark.parametrize(
    ("old", "new"), [(old, new) for old, new in moved.MODULES.items() if " " not in new]
)
def test_an_old_name_is_the_new_module_with_a_warning(monkeypatch, old, new):
    monkeypatch.delitem(sys.modules, f"minillm.{old}", raising=False)
    with pytest.warns(FutureWarning, match=rf"^minillm\.{old} is now called minillm\.{new}; "):
        found = import_module(f"minillm.{old}")
    assert found is import_module(f"minillm.{new}")


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in moved.NAMES.items() for name in names]
)
def test_an_old_place_of_a_name_has_it_with_a_warning(module, name):
    new = f"minillm.{moved.NAMES[module][name]}"
    with pytest.warns(FutureWarning, match=rf"^minillm\.{module}\.{name} is now called {new}\."):
        found = getattr(import_module(f"minillm.{module}"), name)
    assert found is getattr(import_module(new), name)


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"minillm\.nothing"):
        import_module("minillm.nothing")
