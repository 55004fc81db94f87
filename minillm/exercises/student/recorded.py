"""A recording computed with a student's functions, made in a process of its own.

Run as `python -m minillm.exercises.student.recorded FOLDER MODEL PROMPT OPTIONS` (the last two as
JSON) it answers in lines of JSON, like checking/inside.py. Every step is compared with the
textbook's, of the same text.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ... import load
from ...errors import InputError
from ...machine.child import Ended, answering
from ...record import record
from ...recording import Recording, read, to_bytes
from ...reference import Reference
from ..checking.call import one_line, raised
from ..checking.inside import Printed, limit_resources
from ..checking.process import StudentProcess, copied
from . import own

SECONDS = 120  # for a recording


def recorded(
    folder: Path, name: str, prompt: str | Sequence[int], options: Mapping[str, Any]
) -> Recording:
    """Return the recording of model `name` computed with a folder's functions, whose code runs
    elsewhere; options: as record takes them. InputError for whatever goes wrong there."""
    folder = folder.resolve()
    own.require(folder)
    arguments = folder, name, json.dumps(prompt), json.dumps(options)
    try:
        with (
            copied(folder) as copy,
            StudentProcess("student.recorded", *arguments, cwd=copy) as child,
        ):
            answer = child.answer(SECONDS)
    except Ended as ended:
        raise InputError(f"your code did not come to its end: {ended}") from None
    if "recording" not in answer:
        raise InputError(one_line(answer.get("unusable")))
    try:
        data = base64.b64decode(answer["recording"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InputError("what came from your code is no recording") from None
    with TemporaryDirectory(prefix="minillm-") as place:  # read as a file of a stranger's
        (file := Path(place, "yours")).write_bytes(data)
        made = read(file)
        return Recording(made.header, {n: np.array(a) for n, a in made.arrays.items()})


def textbook(model: Any, ids: Sequence[int]) -> Reference:
    """Return every step of a text as the textbook twin computes it."""
    return Reference(np.array([ids]), model.trace(ids), np.empty(0, np.int64))


def main() -> None:
    folder, name, prompt, options = sys.argv[1:]
    answer = answering()
    limit_resources()
    answer({"ready": True})
    with redirect_stdout(Printed()):
        try:
            twin: Any = own.of_folder(Path(folder))
            twin.name = f"{Path(folder).name}: {', '.join(twin.own) or 'none yet'}"
            plain, tokenizer = load(name, kernels="numpy")
            model, _ = load(name, kernels=twin)
            text = json.loads(prompt)
            ids = tokenizer.encode_prompt(text) if isinstance(text, str) else text
            made = record(
                model,
                tokenizer,
                text,
                name=name,
                every_step=True,
                reference=textbook(plain, ids),
                against="textbook",
                **json.loads(options),
            )
        except InputError as error:
            return answer({"unusable": str(error)})
        except Exception as error:
            return answer({"unusable": raised(error).says})
    answer({"recording": base64.b64encode(to_bytes(made)).decode()})


if __name__ == "__main__":
    main()
