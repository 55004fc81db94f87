"""Parameters by dotted names, as a checkpoint has them, and the same as a tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tree(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """{"h.0.ln_1.bias": b} -> {"h": [{"ln_1": {"bias": b}}]}: what is numbered becomes a list."""
    root: dict[str, Any] = {}
    for name, array in parameters.items():
        *path, leaf = name.split(".")
        node = root
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = array
    return {key: _with_lists(value) for key, value in root.items()}


def _with_lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(key.isdigit() for key in node):
        return [_with_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _with_lists(value) for key, value in node.items()}


def flat(root: Mapping[str, Any] | list[Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of tree: {"h": [{"ln_1": {"bias": b}}]} -> {"h.0.ln_1.bias": b}."""
    names: dict[str, Any] = {}
    for key, value in enumerate(root) if isinstance(root, list) else root.items():
        name = f"{prefix}{key}"
        names |= flat(value, f"{name}.") if isinstance(value, Mapping | list) else {name: value}
    return names


class Part:
    """The part of a mapping whose names begin with `prefix`, without copying: the view from inside
    a layer, whose names `steps.under` puts the prefix before."""

    def __init__(self, mapping: Mapping[str, Any], prefix: str):
        self.mapping, self.prefix = mapping, prefix

    def __getitem__(self, name: str) -> Any:
        return self.mapping[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.mapping
