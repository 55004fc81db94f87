"""The page in a notebook: a widget with the model behind it, or a page in a frame where widgets do
not run, or a picture and words where neither does.
"""

from __future__ import annotations

import base64
import html
import io
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..checkpoints.find import bundled_names, find_folder
from ..clock import Limits
from ..clock.phases import PHASES
from ..errors import InputError
from ..loading import load
from ..machine.files import as_path, write_atomically
from ..machine.forms import check as check_form
from ..model import Model
from ..recording import Recording, to_bytes
from ..reference import beside
from ..steps import phase_of
from ..tokenizer import Tokenizer
from .answering import answerer
from .levers import offered
from .server import Asked
from .static import configured
from .static import html as page_of

TEXT = "Once upon a time, there was a little girl"
WORDS = 40  # how many are written unless told otherwise
HEIGHT = 900  # pixels of the frame

WIDGET = """
function render({model, el}) {
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts allow-forms";  // its policy lets it send none
  frame.title = model.get("title");
  frame.style.cssText = `width:100%;height:${model.get("height")}px;border:0`;
  frame.srcdoc = model.get("page");
  const asks = ({source, data}) => {
    if (source === frame.contentWindow && data?.minillm) model.send(data.minillm);
  };
  const told = (said) => frame.contentWindow?.postMessage({minillm: said}, "*");
  addEventListener("message", asks);
  model.on("msg:custom", told);
  el.append(frame);
  return () => {
    removeEventListener("message", asks);
    model.off("msg:custom", told);
  };
}
export default {render};
"""


def explore(
    prompt: str | Sequence[int] | Recording = TEXT,
    model: str | Path | Model = "tales",
    tokenizer: Tokenizer | None = None,
    *,
    limits: Limits | None = None,
    height: int = HEIGHT,
    **options: Any,
) -> Explored:
    """Generate after `prompt` and return what shows that as a page in a notebook.

    prompt: a text, ids, or a recording that there is already. model: a name, or a model, which
    needs its tokenizer. limits: the machine's, see clock.measure; without, nothing is predicted.
    height: of the page, in pixels. options: see decoding.Options. InputError for what record and
    load refuse.
    """
    if isinstance(prompt, Recording):
        return Explored(prompt, height=height)
    name, reference = "", None
    if isinstance(model, str | Path):
        name = str(model)
        if name in bundled_names() or as_path(name).is_dir():
            reference = beside(find_folder(name))
        model, tokenizer = load(model)
    elif tokenizer is None:
        raise InputError("a model needs its tokenizer: explore(prompt, model, tokenizer)")
    if not {"max_new_tokens", "max_length"} & options.keys():
        options["max_new_tokens"] = WORDS
    measure = None if limits is None else lambda model, kinds: limits
    options = {"seed": 1} | options  # so that levers draw the same text
    answer = answerer(model, tokenizer, name, options, measure, reference)
    [recording] = answer(prompt, {}, lambda said: None)
    return Explored(recording, answer, offered(model, ()), height)


class Explored:
    """A recording that shows as a page. answer: what continues other texts, see
    answering.answerer; levers: that it knows."""

    def __init__(
        self,
        recording: Recording,
        answer: Any = None,
        levers: Sequence[str] = (),
        height: int = HEIGHT,
    ):
        self.recording, self.height = recording, height
        self._answer, self._levers = answer, [*levers]

    def __repr__(self) -> str:
        return words(self.recording)

    @cached_property
    def page(self) -> str:
        """The page as one file that needs nothing."""
        return page_of(configured(self.recording), [self.recording])

    def save(self, path: str | Path) -> None:
        """Write the page into a file, all or nothing."""
        write_atomically(as_path(path), self.page.encode())

    @cached_property
    def picture(self) -> bytes:
        """The scope as a PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        from ..plots.scope import scope

        figure, png = Figure((11, 3.6), layout="constrained"), io.BytesIO()
        FigureCanvasAgg(figure)
        scope(self.recording, figure.subplots())
        figure.savefig(png, format="png", dpi=110)
        return png.getvalue()

    @cached_property
    def widget(self) -> Any:
        """The page as a widget, which asks this process for other texts; needs anywidget, of the
        extra `notebooks`."""
        import anywidget
        import traitlets

        class Page(anywidget.AnyWidget):
            _esm = WIDGET
            page = traitlets.Unicode().tag(sync=True)
            title = traitlets.Unicode("minillm").tag(sync=True)
            height = traitlets.Int().tag(sync=True)

        ask = None
        if self._answer:
            text = self.recording.header["text"]["prompt"]
            ask = {"text": text, "levers": self._levers, "patches": True, "framed": True}
        page = page_of(configured(self.recording), [self.recording], ask)
        made = Page(page=page, height=self.height)
        made.on_msg(lambda widget, asked, buffers: self._heard(made.send, asked))
        return made

    def _heard(self, send: Any, asked: Any) -> None:
        """Answer what the page in the widget asks, as a server would."""
        turn = asked.get("turn") if isinstance(asked, dict) else None

        def tell(said: dict) -> None:
            send({"turn": turn, "said": said})

        try:
            asked = check_form(asked, Asked, "the request")
            prompt = asked["ids"] if "ids" in asked else asked.get("text", "")
            for recording in self._answer(prompt, asked, tell):
                tell({"recording": base64.b64encode(to_bytes(recording)).decode()})
        except InputError as error:
            tell({"error": str(error)})
        except MemoryError:
            tell({"error": "not enough memory"})
        tell({"over": True})

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        """Words, a picture, a page in a frame, and in a kernel with anywidget a widget: a notebook
        shows the richest that it can."""
        alt = words(self.recording)
        frame = (
            '<iframe title="minillm" sandbox="allow-scripts allow-forms" width="100%"'
            f' height="{self.height}" style="border:0" srcdoc="{html.escape(self.page)}"></iframe>'
        )
        bundle = {
            "text/plain": alt,
            "image/png": base64.b64encode(self.picture).decode(),
            "text/html": frame,
        }
        if "ipykernel" in sys.modules and find_spec("anywidget"):
            shown = self.widget._repr_mimebundle_()
            shown = shown[0] if isinstance(shown, tuple) else shown
            bundle = {**(shown or {}), **bundle}
        return bundle, {"image/png": {"alt": alt}}


def words(recording: Recording) -> str:
    """What a recording shows, in sentences; of the cycles after the first, the median one."""
    header, times = recording.header, recording.arrays["times.net"]
    cycles = header["cycles"]
    lasted = [(cycle["end"] - cycle["start"]) / 1e6 for cycle in cycles]
    later = [n for n in range(1, len(cycles)) if cycles[n]["kind"] == "decode"]
    typical = sorted(later, key=lasted.__getitem__)[len(later) // 2] if later else 0
    sums = dict.fromkeys(PHASES, 0.0)
    names = header["names"][cycles[typical]["names"]]
    for name, ns in zip(names, times[recording.intervals(typical)]):
        sums[phase_of(name)] += float(ns) / 1e6
    whole = sum(sums.values()) or 1.0
    shares = sorted(sums.items(), key=lambda item: -item[1])
    return (
        f"{header['model']['name'] or header['model']['title']} wrote: {recording.text!r}."
        f" {len(header['moments'])} tokens took {1e3 * recording.seconds:.3g} ms: the first cycle,"
        f" which reads the {len(header['text']['ids'])} tokens of the prompt, {lasted[0]:.3g} ms"
        + (f", a later one {lasted[typical]:.3g} ms" if later else "")
        + f". Of that {', '.join(f'{p} takes {t / whole:.0%}' for p, t in shares)}."
    )
