"""A stranger's template: rendered, or refused in one line, in bounded time and memory."""

import time

import pytest

from minillm import InputError
from minillm.machine import jinja

pytest.importorskip("jinja2")
HOSTILE = {
    "an error of its own": ("{{ raise_exception('roles\nmust alternate') }}", "says: roles must"),
    "no Jinja": ("{% for %}", "says: "),
    "an unknown tag": ("{% teapot %}", "unknown tag 'teapot'"),
    "out of the sandbox": ("{{ ''.__class__.__mro__ }}", "unsafe|undefined"),
    "changing what it was given": ("{{ messages.append(1) }}", "unsafe"),
    "much memory": ("{{ 'a' * 10**10 }}", "MemoryError"),
    "more memory": ("{{ '%9999999999d' % 1 }}", "MemoryError"),
    "much text": (
        "{% for i in range(99999) %}{{ 'abcdefgh' * 9 }}{% endfor %}",
        "more than 524,288",
    ),
    "itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    "a long number": ("{{ 10**5000 }}", "4300"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_one_line(name):
    template, says = HOSTILE[name]
    with pytest.raises(InputError, match=f"the chat template .*({says})"):
        jinja.render(template, {"messages": []})


def test_time_is_bounded(monkeypatch):
    monkeypatch.setattr(jinja, "SECONDS", 1)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    start = time.monotonic()
    with pytest.raises(InputError, match="cannot be rendered: still running after 1 s"):
        jinja.render(endless, {})
    assert time.monotonic() - start < 10  # a second, and the end of a process on a busy machine


def test_a_template_s_size_is_bounded_and_jinja_may_be_missing(monkeypatch):
    with pytest.raises(InputError, match="has 300,000 characters; at most 262,144"):
        jinja.render("a" * 300_000, {})
    monkeypatch.setattr(jinja, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs jinja2: python -m pip .*--template chatml"):
        jinja.render("a", {})


def test_it_sees_its_values_alone():
    template = "{{ messages[0].content }}\n{%- if x is defined %}x{% endif %}{{ '\ud800' }}\n"
    assert jinja.render(template, {"messages": [{"content": "é"}]}) == "é\ud800"
    assert len(jinja.render("{{ strftime_now('%Y') }}", {})) == 4
