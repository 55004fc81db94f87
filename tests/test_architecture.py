"""Who may import whom (docs/architecture.md): imports go down the floors, and in no circle.

Imports are read from the source. There are three kinds: "top" runs with the module, "lazy" when a
function is called, "type" is for whoever checks types. Floors hold for all of them, circles for
those that run. What is imported from minillm/__init__.py counts as the module in which it lives.
"""

from __future__ import annotations

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

KINDS = ("top", "lazy", "type")
TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "minillm"

# Top floor first; "" is minillm/__init__.py. A module stands where the longest name that it begins
# with stands: `checkpoints` knows tokenizers, which what finds and reads files does not.
FLOORS = (
    ("", "__main__", "cli"),
    ("page.notebook",),
    ("plots",),
    ("page",),
    ("exercises",),
    ("bench", "published"),
    ("engines",),
    ("warm_up",),
    ("tasks",),
    ("training",),
    ("record",),
    ("clock.growth", "loading"),
    ("model",),
    ("clock",),
    ("recording",),
    ("decoding",),
    ("decoding.plain", "decoding.beam", "decoding.speculative", "decoding.batch"),
    ("decoding.cycle",),
    ("decoding.options", "decoding.filters", "decoding.finite", "decoding.text"),
    ("compression",),
    ("reference",),
    ("checkpoints",),
    ("protocol",),
    ("families",),
    ("layers",),
    ("samples", "tokenizer"),
    ("checkpoints.gguf", "checkpoints.safetensors"),
    ("checkpoints.find", "checkpoints.stored"),
    ("twins",),
    ("costs",),
    ("weights",),
    ("machine",),
    (
        "differences",
        "ids",
        "moved",
        "names",
        "parameters",
        "sizes",
        "steps",
        "twins.twin",
        "version",
    ),
    ("ops_backward", "ops", "errors"),
    ("kernels",),
)

# Why an arrow runs up or closes a circle today, and which do. The list may only get shorter.
EXCEPTIONS = {
    "what needs no kernel is the textbook's own": ("kernels -> ops",),
}

# Why a module takes a name with an underscore from another, and which.
PRIVATE = {
    "the exercise is about this very function": (
        "exercises.catalogue.chapter_01: tokenizer.bpe._replace_pair"
    ),
    "the ladder's last rung is the kernel itself": "kernels.ladders.softmax: kernels.rows._softmax",
}


# Where the proofs stand of modules without a test file of their own name (tests/ROOM/test_NAME.py
# is that of minillm/ROOM/NAME.py), and why. The list may only get shorter.
PROVEN_ELSEWHERE = {
    "tests/bench/test_datasheet.py: a datasheet in all its forms": ("bench.datasheet_report",),
    "tests/cli/test_datasheet.py: figures, as the command draws them": ("plots.datasheet",),
    "tests/bench/test_run.py: peers made there are chosen, started, asked and told of": (
        "bench.against",
        "bench.stored",
        "bench.worker",
    ),
    "tests/bench/test_diverge.py: what is beyond rounding is found": ("bench.rounding",),
    "tests/checkpoints/test_folder.py: a folder is opened, read and written as a whole": (
        "checkpoints.checkpoint",
        "checkpoints.huggingface",
        "checkpoints.opening",
        "checkpoints.stored",
        "loading",
    ),
    "tests/checkpoints/test_llama_cpp.py: a GGUF file is read and written as a whole": (
        "cli.convert",
        "families.gguf",
        "families.gpt2.gguf",
        "families.llama.gguf",
    ),
    "tests/cli/test_classify.py: several seeds, as the command runs and draws them": (
        "plots.tasks",
        "tasks.trials",
    ),
    "tests/cli/test_exercises.py: a folder, as the command fills it": ("exercises.student.folder",),
    "tests/clock/test_clock.py: a clock's steps are of a phase each": ("clock.phases",),
    "tests/clock/test_prediction.py: what is predicted from limits is checked": (
        "clock.check",
        "clock.limits",
    ),
    "tests/clock/test_costs.py: what operations cost adds up to a step": ("costs",),
    "tests/compression/test_prune.py: one gallery of mistakes for all that makes models smaller": (
        "compression.low_rank",
        "compression.parts",
    ),
    "tests/decoding/test_levers.py: proofs that a way of decoding is exact, and their gallery": (
        "decoding.batch",
        "decoding.speculative",
    ),
    "tests/engines/test_engine.py: looking has its price": ("engines.price",),
    "tests/engines/test_llama_cpp.py: stamps that llama.cpp gives": ("engines.stamps",),
    "tests/exercises/catalogue/test_chapters.py: one gallery proves every exercise": (
        "exercises.catalogue.answers",
        *(f"exercises.catalogue.chapter_{n:02}" for n in range(16)),
    ),
    "tests/exercises/checking/test_process.py: what is said and done on both ends of a process": (
        "exercises.checking.call",
        "exercises.checking.inputs",
        "exercises.checking.inside",
        "exercises.checking.run",
        "exercises.checking.source",
        "exercises.checking.wire",
    ),
    "tests/exercises/teacher/test_report.py: the picture of a class, as its report saves it": (
        "plots.classroom",
    ),
    "tests/families/between/test_between.py: its ends are GPT-2 and Llama": (
        "families.between.backward",
        "families.between.config",
        "families.between.forward",
        "families.between.layout",
        "families.between.program",
    ),
    "tests/families/llama/test_llama.py: what works on GPT-2 works, as in transformers": (
        "families.llama.backward",
        "families.llama.forward",
        "families.llama.layout",
        "families.llama.program",
        "families.llama.qwen",
    ),
    "tests/families/test_family.py: what is declared is what parameters and steps are": (
        "families.gpt2.layout",
        "sizes",
    ),
    "tests/exercises/student/test_own.py: a student's functions laid over ops": ("twins.folder",),
    "tests/kernels/test_checks.py: no kernel is given what it cannot take": (
        "kernels.limits",
        "kernels.listeners",
        "kernels.memory",
        "kernels.sparse",
    ),
    "tests/kernels/test_decode.py: the fused step equals the readable forward": (
        "kernels.attending",
        "kernels.forms",
        "kernels.instructions",
        "kernels.perform",
        "kernels.table",
    ),
    "tests/kernels/test_ladders.py: every rung gives the same": (
        "kernels.ladders.matmul",
        "kernels.ladders.softmax",
    ),
    "tests/kernels/test_twins.py: one validator runs all kernels beside the textbook": (
        "kernels.blocked",
        "kernels.distributions",
        "kernels.elementwise",
        "kernels.gradients",
        "kernels.mathematics",
        "kernels.matrices",
        "kernels.processor",
        "kernels.recurrent",
        "kernels.rows",
        "kernels.streaming",
        "kernels.vectors",
    ),
    "tests/kernels/test_threads.py: threads that share work out, and meet": ("kernels.meetings",),
    "tests/machine/test_quota.py: threads are as many as a quota is worth": ("twins.threads",),
    "tests/tasks/test_classify.py: the settings of a classifier": ("tasks.settings",),
    "tests/tasks/test_prompts.py: what code it tries": ("tasks.trial",),
    "tests/test_cli.py: commands as they are typed": (
        "__main__",
        "cli.bench",
        "cli.course",
        "cli.generate",
        "cli.info",
        "cli.plot",
        "cli.probs",
        "cli.score",
        "cli.teaching",
        "cli.tokenize",
        "cli.train",
        "cli.verify",
        "cli.warmup",
        "version",
    ),
    "tests/test_model.py: parts of a forward pass, and what guards a model": (
        "errors",
        "families.gpt2.forward",
        "parameters",
    ),
    "tests/record/test_recorder.py: what is made of two runs": ("record.timed", "record.traced"),
    "tests/test_steps.py: steps are compared": ("differences",),
    "tests/training/test_trainer.py: a checkpoint is what a run resumes from": (
        "training.checkpoint",
    ),
    "tests/twins/test_twins.py: twins are chosen and compared": (
        "twins.backward",
        "twins.choose",
    ),
    "tests/weights/test_weights.py: one gallery for every kind of weight": (
        "weights.blocks",
        "weights.floats",
        "weights.implicit",
        "weights.lora",
        "weights.weight",
    ),
    "tests/page/test_notebook.py: what a notebook shows is answered, and drawn": (
        "page.answering",
        "plots.scope",
    ),
    "tests/page/test_own.py: a student's functions are recorded there, and shown here": (
        "exercises.student.recorded",
    ),
}


class Import(NamedTuple):
    """`name` of `target` is imported in `module` (name "": the module itself). Modules of the
    package are named without it; `target` is None, and `name` a full one, outside of it."""

    module: str
    target: str | None
    name: str
    kind: str


def sources(package: Path) -> dict[str, Path]:
    """Module -> its file; a folder is called as its __init__.py is imported."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def rooms(tree: ast.Module) -> dict[str, str]:
    """The table ROOMS of a lazy __init__.py: name -> the module that it is taken from."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS":
            return ast.literal_eval(node.value)
    return {}


def read_imports(package: Path) -> set[Import]:
    """Return all imports in all modules of a package, those of its tables ROOMS as well."""
    files = sources(package)
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    face, found = rooms(trees[""]), set()

    def add(module: str, full: str, name: str, kind: str) -> None:
        inside, _, target = full.partition(".")
        if inside != package.name:
            found.add(Import(module, None, full, kind))
        elif (submodule := f"{target}.{name}".strip(".")) in files:
            found.add(Import(module, submodule, "", kind))
        else:
            found.add(Import(module, target or face.get(name, ""), name, kind))

    def visit(node: ast.AST, module: str, folder: list[str], kind: str) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(module, alias.name, "", kind)
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) - node.level + 1] if node.level else []
            full = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                add(module, full, alias.name, kind)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for part, its_kind in ((node.body, "type"), (node.orelse, kind)):
                for child in part:
                    visit(child, module, folder, its_kind)
        else:
            lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and kind == "top"
            for child in ast.iter_child_nodes(node):
                visit(child, module, folder, "lazy" if lazy else kind)

    for module, tree in trees.items():
        folder = [package.name, *files[module].relative_to(package).parts[:-1]]
        visit(tree, module, folder, "top")
        for name, room in rooms(tree).items():
            inside = room.lstrip(".")
            start = folder[: len(folder) + len(inside) - len(room)]
            add(module, ".".join([*start, inside]), name, "lazy")
    return found


IMPORTS = read_imports(PACKAGE)
EXCEPTED = {arrow for reason in EXCEPTIONS.values() for arrow in reason}


def arrows(*kinds: str) -> set[str]:
    """The imports of some kinds inside the package, as "from -> to"."""
    return {
        f"{i.module} -> {i.target}"
        for i in IMPORTS
        if i.kind in kinds and i.target is not None and i.target != i.module
    }


def circle(some: set[str]) -> list[str]:
    """A circle of modules that the arrows draw, or []. Whoever imports a module of a folder from
    outside runs the folder's __init__.py as well."""
    graph: dict[str, set[str]] = {}
    for start, end in (arrow.split(" -> ") for arrow in some):
        folders = {end[:n] for n, letter in enumerate(end) if letter == "."}
        folders = {f for f in folders if not f"{start}.".startswith(f"{f}.")}
        graph.setdefault(start, set()).update({end} | folders)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


def floor(module: str) -> int:
    """On which floor a module stands; 0 is the top one."""
    names = {name: number for number, row in enumerate(FLOORS) for name in row}
    candidates = [name for name in names if f"{module}.".startswith(f"{name}.")]
    assert candidates, f"{module} has no floor: give it one in FLOORS"
    return names[max(candidates, key=len)]


def runs_up(arrow: str) -> bool:
    start, end = map(floor, arrow.split(" -> "))
    return end < start


def test_imports_at_the_top_form_no_circle():
    assert not circle(arrows("top"))


def test_no_lazy_import_closes_a_circle():
    assert not circle(arrows("top", "lazy") - EXCEPTED)


def test_no_arrow_runs_up():
    assert not sorted(filter(runs_up, arrows(*KINDS) - EXCEPTED))


def test_every_floor_is_inhabited():
    modules = [f"{module}." for module in sources(PACKAGE)]
    for name in (name for row in FLOORS for name in row):
        assert any(module.startswith(f"{name}.") for module in modules), name


def test_the_page_shows_these_floors():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = page.partition("## The floors")[2].partition("Three more rules")[0].splitlines()
    shown = [line.strip().split("  ")[0] for line in lines if line.startswith("    ")]
    assert shown == [", ".join(name or "__init__" for name in row) for row in FLOORS]


def test_every_exception_is_needed():
    rest = arrows("top", "lazy") - EXCEPTED
    idle = {
        arrow
        for arrow in EXCEPTED
        if arrow not in arrows(*KINDS) or not (runs_up(arrow) or circle(rest | {arrow}))
    }
    assert not idle, "strike them"


def outside(module: str) -> set[str]:
    """The libraries that a module, or a folder's modules, import: without Python's own."""
    names = {
        i.name.split(".")[0]
        for i in IMPORTS
        if i.target is None and f"{i.module}.".startswith(f"{module}.")
    }
    return names - sys.stdlib_module_names


def test_the_textbook_is_numpy_alone_and_kernels_add_numba():
    for module in ("ops", "ops_backward"):
        assert outside(module) == {"numpy"}
        assert not [a for a in arrows(*KINDS) if a.startswith(f"{module} ->")]
    assert outside("kernels") == {"numpy", "numba", "llvmlite"}
    leaving = {a for a in arrows(*KINDS) if a.startswith("kernels") and " -> kernels" not in a}
    assert leaving <= EXCEPTED


def test_private_names_stay_at_home():
    taken = {f"{i.module}: {i.target}.{i.name}" for i in IMPORTS if i.target and private(i.name)}
    for module, path in sources(PACKAGE).items():
        whole = {i.target for i in IMPORTS if i.module == module and i.target and not i.name}
        known = {target.rpartition(".")[2]: target for target in whole}
        text = path.read_text(encoding="utf-8")
        taken |= {
            f"{module}: {known[owner]}.{name}"
            for owner, name in re.findall(r"\b(\w+)\.(_\w+)", text)
            if owner in known and private(name)
        }
    assert taken == {*PRIVATE.values()}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_other_module_is_imported_by_a_name_made_at_run_time():
    """Those that are cannot be read here; the faces have tables (ROOMS), which are."""
    calls = ("import_module(", "__import__(")
    found = {
        m for m, p in sources(PACKAGE).items() if any(c in p.read_text("utf-8") for c in calls)
    }
    assert found == {
        "",
        "cli",
        "exercises",
        "kernels",
        "kernels.blocked",
        "moved",
        "twins.portable",
    }


def test_proofs_are_found_by_name():
    """Each module's in the test file of its name, or where PROVEN_ELSEWHERE says."""
    modules = {m: p for m, p in sources(PACKAGE).items() if p.name != "__init__.py"}
    tests = {m: p.relative_to(PACKAGE).with_name(f"test_{p.name}") for m, p in modules.items()}
    nameless = {m for m, test in tests.items() if not (TESTS / test).exists()}
    listed = {m for several in PROVEN_ELSEWHERE.values() for m in several}
    assert not sorted(nameless - listed), "give it a test file of its name"
    assert not sorted(listed - nameless), "strike it"
    for place in PROVEN_ELSEWHERE:
        assert (TESTS.parent / place.partition(": ")[0]).exists(), place


# ---- what is read, and that it can fail


def test_imports_of_all_kinds_are_read(tmp_path):
    files = {
        "__init__.py": 'ROOMS = {"Model": "model"}\n',
        "model.py": (
            "import numpy as np\n"
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from .low.ground import stone\n"
            "else:\n    from . import low\n"
            "class Model:\n    def save(self):\n        from house.low import ground\n"
        ),
        "low/__init__.py": "from .ground import stone\n",
        "low/ground.py": "from ..model import _walls\nfrom .. import Model\nimport house.low\n",
    }
    for name, text in files.items():
        (tmp_path / "house" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "house" / name).write_text(text)
    read = read_imports(tmp_path / "house")
    assert {i for i in read if i.target is not None} == {
        Import("", "model", "Model", "lazy"),
        Import("model", "low.ground", "stone", "type"),
        Import("model", "low", "", "top"),
        Import("model", "low.ground", "", "lazy"),
        Import("low", "low.ground", "stone", "top"),
        Import("low.ground", "model", "_walls", "top"),
        Import("low.ground", "model", "Model", "top"),
        Import("low.ground", "low", "", "top"),
    }
    assert {i.name for i in read if i.target is None} == {"numpy", "typing"}


@pytest.mark.parametrize(
    ("some", "closed"),
    [
        ({"a -> b", "b -> c", "a -> c"}, []),
        ({"a -> b", "b -> c", "c -> a"}, ["a", "b", "c"]),
        ({"a -> folder.part", "folder -> a"}, ["a", "folder"]),  # the folder's face runs, too
        ({"folder.part -> folder.other", "folder -> folder.part"}, []),
    ],
)
def test_circles_are_found(some, closed):
    assert sorted({*circle(some)}) == closed


def test_floors_are_told_by_the_longest_name():
    assert floor("model") < floor("checkpoints") < floor("checkpoints.find") < floor("kernels.rows")
    assert runs_up("kernels.rows -> steps") and not runs_up("steps -> kernels.rows")
    with pytest.raises(AssertionError, match="cellar has no floor"):
        floor("cellar")
