"""Build the course: notebooks/source/NN_slug.py -> notebooks/NN_slug.ipynb, with outputs and pictures.

python notebooks/build.py [NN ...]            executes these chapters (or all) afresh and writes them
python notebooks/build.py --check             finds what is stale, undescribed or used before it is defined; executes nothing
python notebooks/build.py --execute [NN ...]  executes afresh and writes nothing: the time of each, fails on any error

A source is jupytext's py:percent text, every cell with a stable id: `# %% id="03-scale"` (see README.md beside this file).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = Path(__file__).resolve().parent
SOURCES = NOTEBOOKS / "source"
CHECKOUT = NOTEBOOKS.parent
CELL_TIMEOUT = 300  # seconds: a chapter takes under 60, so this only ends what hangs

sys.path.insert(0, str(CHECKOUT))  # the course is built with the package that it lies beside

from minillm.machine.files import write_atomically  # noqa: E402


class Fault(Exception):
    """Something in the course that must be mended: one line that names the chapter or cell."""


@dataclass(frozen=True)
class Term:
    """A word of the glossary: the cell that defines it, what it means in one sentence, and its irregular forms."""

    word: str
    cell: str
    meaning: str
    forms: tuple[str, ...] = ()

    def found_in(self, text: str) -> bool:
        """Whether the word, in any of its forms, stands in `text`."""
        words = "|".join(map(re.escape, (self.word, *self.forms)))
        return re.search(rf"(?<!\w)(?:{words})(?:s|es)?(?!\w)", text, re.IGNORECASE) is not None


def glossary(folder: Path = SOURCES) -> list[Term]:
    """Read glossary.toml: a section [NN] a chapter, "word" = {cell, meaning, forms}."""
    chapters = tomllib.loads((folder / "glossary.toml").read_text(encoding="utf-8"))
    return [
        Term(word, entry["cell"], entry["meaning"], tuple(entry.get("forms", ())))
        for terms in chapters.values()
        for word, entry in terms.items()
    ]


def sources(chapters: list[str], folder: Path = SOURCES) -> list[Path]:
    """The sources in course order: all, or those whose NN is among `chapters`."""
    found = sorted(folder.glob("[0-9][0-9]_*.py"))
    if unknown := set(chapters) - {path.name[:2] for path in found}:
        raise Fault(f"there is no chapter {min(unknown)}; there are {', '.join(path.name[:2] for path in found)}")
    return [path for path in found if not chapters or path.name[:2] in chapters]


def read_source(path: Path, terms: list[Term]) -> nbformat.NotebookNode:
    """Return the notebook of a source, not executed: its cells by their own ids, and the chapter's words at the end."""
    chapter, text = path.name[:2], path.read_text(encoding="utf-8")
    notebook = jupytext.reads(text, fmt="py:percent")
    ids = set()
    for cell in notebook.cells:
        cell.id = cell.metadata.pop("id", "")
        cell.metadata.pop("cell_marker", None)
        if not re.fullmatch(rf"{chapter}-[a-z0-9-]{{1,60}}", cell.id):
            raise Fault(f"{path.name}: a cell has id {cell.id!r}, needed {chapter}-topic: {cell.source.strip()[:60]!r}")
        if cell.id in ids:
            raise Fault(f"{path.name}: two cells have the id {cell.id!r}")
        ids.add(cell.id)
    if words := [f"- **{term.word}**: {term.meaning}" for term in terms if term.cell in ids]:
        source = "\n".join(["## Words of this chapter", "", *words])
        notebook.cells.append(nbformat.v4.new_markdown_cell(source, id=f"{chapter}-words"))
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "source": {"file": f"source/{path.name}", "sha256": hashlib.sha256(text.encode()).hexdigest()},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.from_dict(notebook)


def execute(notebook: nbformat.NotebookNode) -> float:
    """Run all cells in a fresh kernel, in an empty folder, and return the seconds; Fault names the cell that fails."""
    metadata, start = notebook.metadata.copy(), time.perf_counter()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        options = {"coalesce_streams": True, "record_timing": False, "extra_arguments": ["--log-level=ERROR"]}
        client = NotebookClient(notebook, timeout=CELL_TIMEOUT, resources=where, **options)
        try:
            client.execute()
        except CellExecutionError as error:
            cell = begun_last(notebook)
            traceback = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.outputs[-1].traceback))  # without its colours
            raise Fault(f"{cell.id}: {error.ename}: {error.evalue}\n{traceback}") from None
        except (TimeoutError, RuntimeError) as error:  # a cell without end, a kernel that died or did not start
            raise Fault(f"{begun_last(notebook).id}: {error}") from None
    notebook.metadata = metadata  # the kernel's says which Python: not part of the chapter
    seconds = time.perf_counter() - start
    if faults := output_faults(notebook):
        raise Fault("\n".join(faults))
    return seconds


def begun_last(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The last code cell that was begun, or the first."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [code[0], *(cell for cell in code if cell.execution_count or cell.outputs)][-1]


def output_faults(notebook: nbformat.NotebookNode) -> list[str]:
    """What no reader should meet in the outputs: an error that was not meant, a picture that nobody described."""
    faults = []
    for cell in notebook.cells:
        meant = "raises-exception" in cell.metadata.get("tags", ())
        for output in cell.get("outputs", ()):
            if output.output_type == "error" and not meant:
                faults.append(f"{cell.id}: ends in {output.ename}: {output.evalue}")
            for kind in output.get("data", {}):
                if kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt", "").strip():
                    faults.append(f'{cell.id}: a picture without alternative text; show it with plots.show(ax, "what it shows")')
    return faults


def stale(path: Path, terms: list[Term], folder: Path = NOTEBOOKS) -> list[str]:
    """What keeps the committed notebook from being its source's: missing, another hash, other cells, not executed."""
    built, again = folder / f"{path.stem}.ipynb", f"build it: python notebooks/build.py {path.name[:2]}"
    if not built.exists():
        return [f"{built.name} is missing; {again}"]
    notebook, fresh = nbformat.read(built, as_version=4), read_source(path, terms)
    faults = output_faults(notebook)
    if notebook.metadata.get("source") != fresh.metadata.source:
        faults.append(f"{built.name} does not carry the hash of {path.name}; {again}")
    elif [(cell.id, cell.source) for cell in notebook.cells] != [(cell.id, cell.source) for cell in fresh.cells]:
        faults.append(f"{built.name} has other cells than {path.name} and glossary.toml; {again}")
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.execution_count is None:
            faults.append(f"{cell.id}: was not executed; {again}")
        if any(output.get("name") == "stderr" for output in cell.get("outputs", ())):
            faults.append(f"{cell.id}: prints to stderr (a warning?); mend it and {again}")
    return faults


def prose(cell: nbformat.NotebookNode) -> str:
    """The words of a cell that a reader must understand: no code or formulas, no title or links, which point ahead."""
    if cell.cell_type == "code":
        return "\n".join(re.findall(r"(?:^|\s)# (.*)$", cell.source, re.MULTILINE))
    text = re.sub(r"\A# [^\n]*|```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", " ", cell.source, flags=re.DOTALL)
    return re.sub(r"!?\[[^\]]*\]\([^)]*\)|<?https?://\S+", " ", text)


def glossary_faults(notebooks: list[nbformat.NotebookNode], terms: list[Term]) -> list[str]:
    """Words used before the cell that defines them, in course order, and words that their cell does not define in bold."""
    cells = [cell for notebook in notebooks for cell in notebook.cells]
    order = {cell.id: number for number, cell in enumerate(cells)}
    chapters = {cell.id[:2] for cell in cells}
    faults = []
    for term in (term for term in terms if term.cell[:2] in chapters):
        if term.cell not in order:
            faults.append(f"glossary: {term.word!r} is defined in {term.cell!r}, which is no cell")
            continue
        defining = order[term.cell]
        if not any(map(term.found_in, re.findall(r"\*\*(.+?)\*\*", cells[defining].source, re.DOTALL))):
            faults.append(f"{term.cell}: should define **{term.word}**, in bold")
        early = [cell.id for cell in cells[:defining] if not cell.id.endswith("-words") and term.found_in(prose(cell))]
        faults += [f"{cell}: uses {term.word!r}, which only {term.cell} defines" for cell in early]
    return faults


def main(argv: list[str] | None = None) -> int:
    """Build, check or execute; 0 if all is well, 1 with a line for each fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", metavar="NN", help="chapters by number (default: all)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="find faults without executing")
    what.add_argument("--execute", action="store_true", help="execute afresh, write nothing")
    args = parser.parse_args(argv)
    faults: list[str] = []
    try:
        terms, paths = glossary(), sources(args.chapters)
        if args.check:
            faults = glossary_faults([read_source(path, terms) for path in sources([])], terms)
            faults += [fault for path in paths for fault in stale(path, terms)]
        else:
            faults = run(paths, terms, write=not args.execute)
    except Fault as fault:
        faults = [str(fault)]
    print("\n".join(faults) if faults else f"{len(paths)} chapters: all is well")
    return 1 if faults else 0


def run(paths: list[Path], terms: list[Term], write: bool) -> list[str]:
    """Execute chapters one after another, print the time of each, and write those without faults if asked to."""
    faults, total = [], 0.0
    for path in paths:
        try:
            notebook = read_source(path, terms)
            seconds = execute(notebook)
        except Fault as fault:
            faults.append(str(fault))
            print(f"{path.stem:<40} FAILED", flush=True)
            continue
        total += seconds
        print(f"{path.stem:<40} {seconds:6.1f} s", flush=True)
        if write:
            write_atomically(NOTEBOOKS / f"{path.stem}.ipynb", (nbformat.writes(notebook) + "\n").encode())
    print(f"{'together':<40} {total:6.1f} s")
    return faults


if __name__ == "__main__":
    sys.exit(main())
