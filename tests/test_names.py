"""Parameters by dotted names and as a tree: inverses of each other."""

from minillm.names import Part, flat, tree

NAMES = {
    "wte.weight": 0,
    "h.0.ln_1.weight": 1,
    "h.0.ln_1.bias": 2,
    "h.1.ln_1.weight": 3,
    "ln_f.weight": 4,
}
TREE = {
    "wte": {"weight": 0},
    "h": [{"ln_1": {"weight": 1, "bias": 2}}, {"ln_1": {"weight": 3}}],
    "ln_f": {"weight": 4},
}


def test_what_is_numbered_becomes_a_list_and_names_come_back():
    assert tree(NAMES) == TREE
    assert flat(TREE) == NAMES


def test_numbers_count_as_numbers_in_whatever_order_they_come():
    names = {f"model.layers.{i}.weight": i for i in reversed(range(11))}
    layers = tree(names)["model"]["layers"]
    assert [layer["weight"] for layer in layers] == [*range(11)]
    by_number = {i: layers[i] for i in (10, *range(10))}
    assert flat({"model": {"layers": by_number}}) == names


def test_a_part_is_seen_from_inside():
    part = Part(NAMES, "h.0.")
    assert part["ln_1.bias"] == 2
    assert "ln_1.weight" in part and "ln_f.weight" not in part
