"""Parameters by dotted names, and the same as a tree."""

from __future__ import annotations

from collections.abc import Mapping


def tree(parameters: Mapping) -> dict:
    """{"h.0.ln_1.bias": b} -> {"h": [{"ln_1": {"bias": b}}]}: what is numbered becomes a list."""
    root: dict = {}
    for name, array in parameters.items():
        *path, leaf = name.split(".")
        node = root
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = array
    return _with_lists(root)


def _with_lists(node):
    if not isinstance(node, dict):
        return node
    if node and all(key.isdigit() for key in node):
        return [_with_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _with_lists(value) for key, value in node.items()}
