"""The drawing of a model: from token ids down to the next token, as its family declares it.

What is drawn follows from `steps` and `layout`, so that another family needs nothing here. Steps
that need not wait for one another (q, k and v) stand side by side, all others in their order. Of
the blocks, which are alike, one is drawn.

A page finds each part by an attribute: `data-step` is the name of a step without its layer
(steps.local_name), `data-layer` the number of a block, `data-phase` a phase, `data-part` the ids,
the residual stream, the cache or the loop. A part that is to light up is given the class "here".
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape, unescape
from pathlib import Path
from typing import Any

from .. import families
from ..clock.phases import LOOKS
from ..families.family import CHOOSE, MATRIX, POSITIONS, TABLE, Parameter, StepInfo
from ..machine.files import read_json
from ..steps import local_name, phase_of, unknown_step

Forms = Mapping[str, Mapping[str, Parameter]]  # {step: {name of a parameter that forms it: it}}
Place = tuple[int, int]  # in a row of steps: which, of how many

# How wide the result of a step is at one position, where what forms it does not tell.
WIDTHS = {
    **dict.fromkeys(("attn.q", "attn.context"), "HD"),
    **dict.fromkeys(("attn.k", "attn.v"), "KD"),
    **dict.fromkeys(("attn.scores", "attn.weights"), "HS"),
    **dict.fromkeys(("logits", "probs"), "V"),
    "next": "",
}
ABOUT = {  # of each phase, for whoever sees it for the first time
    "embed": "what each token is, and where it stands",
    "attend": "each position gathers from earlier ones",
    "feed forward": "each position by itself",
    "unembed": "how well each token would come next",
    "choose": "one of them",
}

# Columns, and the heights of a row of one step, of several, between rows, of a phase's heading.
WIDTH, LOOP, FRAME, STREAM, ELBOW, LEFT, RIGHT, CACHE = 360, 5, 23, 38, 52, 64, 308, 322
ROW, CELLS, GAP, HEADING = 26, 40, 8, 22

CSS = """
.drawing{--own-ink:#1c1c1e;--own-paper:#fff;--own-here:#b3005e;color:var(--ink,var(--own-ink));
max-width:100%;height:auto;
font:12.5px system-ui,"Segoe UI",Roboto,"Noto Sans","PingFang SC","Noto Sans CJK SC",sans-serif}
.drawing text{fill:currentColor}.drawing .small{font-size:11px}.drawing .title{font-weight:700}
.drawing .end{text-anchor:end}.drawing .middle{text-anchor:middle}
.drawing .line,.drawing .frame,.drawing .area{fill:none;stroke:currentColor}
.drawing .line{stroke-width:1.3}.drawing .tip{fill:currentColor}.drawing .area{stroke:none}
.drawing .frame{stroke-opacity:.5;stroke-dasharray:4 3}
.drawing .stream{stroke:currentColor;stroke-width:7;opacity:.4}
.drawing .box,.drawing .node{stroke:currentColor;stroke-opacity:.45}
.drawing .box{fill:var(--look,transparent);fill-opacity:.2}
.drawing .node{fill:var(--paper,var(--own-paper))}
.drawing .mark{fill:var(--look);stroke:currentColor;stroke-opacity:.5;stroke-width:.7}
.drawing .breadth{fill:currentColor;fill-opacity:.65}
.drawing .here>.box,.drawing .here>.node,.drawing .here>.area{stroke:var(--here,var(--own-here));
stroke-opacity:1;stroke-width:3}.drawing .flag{fill:var(--here,var(--own-here))}
.drawing text.flagged{fill:var(--paper,#fff);font-weight:700}
@media(prefers-color-scheme:dark){.drawing{--own-ink:#ececf0;--own-paper:#1b1b1f;--own-here:#d6247f}
.drawing .box{fill-opacity:.3}}
""" + "".join(
    f'.drawing [data-phase="{phase}"]{{--look:var(--{phase.replace(" ", "-")},{look.color})}}\n'
    for phase, look in LOOKS.items()
)


class Svg(str):
    """The text of a picture, which a notebook shows, with its words for whoever cannot see it."""

    __slots__ = ()

    def _repr_svg_(self) -> tuple[str, dict[str, str]]:
        label = re.search('aria-label="([^"]*)"', self)
        return str(self), {"alt": unescape(label[1]) if label else ""}


def drawing(
    config: Any, here: str | None = None, words: Mapping[str, str] | None = None, css: bool = True
) -> Svg:
    """Return the drawing of a model with this config as SVG, 360 pixels wide at 100 %.

    here: what is marked "you are here": a step ("h.3.attn.scores", or "attn.scores" of any layer),
    a layer ("h.3") or a phase. words: English -> another language, of labels and sentences; what it
    lacks stays English. css: whether the picture brings its style; a page whose security policy
    allows none inside has CSS among its own. Raises UnknownStep for another `here`.
    """
    return Svg(_Drawing(config, here, words or {}).svg(css))


def words_of(language: str) -> dict[str, str]:
    """The words of `drawing` in another language than English: "zh"; {} for "en"."""
    if language == "en":
        return {}
    return read_json(Path(__file__).with_name(f"drawing.{language}.json"), dict[str, str])


def rows(steps: Mapping[str, StepInfo], forms: Forms) -> list[dict[str, Place]]:
    """The steps of a phase in rows, {name: place}.

    Neighbours of one kind (look-ups, products, views) stand side by side up to one after which
    threads meet: they read the same input. A step whose name continues another's (attn.q_rotated)
    stands under it.
    """
    found: list[dict[str, str]] = []  # rows of {name: the step that it stands under, or itself}
    before, met = "", True
    for name, step in steps.items():
        above = next((n for n in steps if name.startswith(f"{n}_")), name)
        kind = "under" if above != name else _kind(step, forms.get(name, {}))
        if not kind or kind != before or met or above in found[-1].values():
            found.append({})
        found[-1][name] = above
        before, met = kind, step.meets
    place = {name: (i, len(row)) for row in found for i, name in enumerate(row)}
    return [{name: place[above] for name, above in row.items()} for row in found]


def _kind(step: StepInfo, formed: Mapping[str, Parameter]) -> str:
    """What stands beside its like; "" for what stands alone."""
    roles = {p.role for p in formed.values()}
    if roles & {TABLE, POSITIONS}:
        return "look-up"
    return "product" if MATRIX in roles else "view" if step.cost is None else ""


def _text_width(text: str, size: float) -> float:
    """About how many pixels a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return size * (wide + 0.54 * (len(text) - wide))


class _Drawing:
    """A drawing while it is made: its parts so far, and how far down it has come."""

    def __init__(self, config: Any, here: str | None, words: Mapping[str, str]):
        self.family, self.config, self.sizes = families.of(config), config, config.sizes
        self.words = words
        steps = self.family.steps(config) | CHOOSE
        self.steps = {local_name(name): step for name, step in steps.items()}
        self.in_block = {local_name(name) for name in steps if name.startswith("h.0.")}
        self.here, self.layer = self._found(here, steps)
        self.forms: dict[str, dict[str, Parameter]] = {}
        for name, p in config.layout.items():
            if not self.family.local_name(name)[0]:  # of the first block, or of none
                self.forms.setdefault(p.forms, {})[name] = p
        self.width: dict[str, str] = {}
        for name, before in zip(self.steps, ["", *self.steps]):
            self.width[name] = self._width(name, self.width.get(before, "C"))
        self.phases: dict[str, dict[str, StepInfo]] = {}
        for name, step in self.steps.items():
            self.phases.setdefault(phase_of(name), {})[name] = step
        self.rows = {phase: rows(self._flow(s), self.forms) for phase, s in self.phases.items()}
        self.scale = self._scale()
        self.behind: list[str] = []  # drawn first, and `before` last
        self.parts: list[str] = []
        self.before: list[str] = []
        self.y = 6.0
        self.middle: dict[str, float] = {}  # how far down a step stands
        self.corner: dict[str, tuple[float, float]] = {}  # the lower right one of its box
        self.kept = [
            next(n for n in reversed(self.steps) if n.startswith(f"attn.{a}")) for a in "kv"
        ]

    def _found(self, here: str | None, steps: Mapping[str, StepInfo]) -> tuple[str, int | None]:
        """What is marked, without its layer, and the layer."""
        if here is None:
            return "", None
        layers = {f"h.{i}" for i in range(self.sizes.L)}
        if here not in {*steps, *self.steps, *layers, *LOOKS}:
            raise unknown_step(here, [*steps, *layers, *LOOKS])
        layer = int(here.split(".")[1]) if here.startswith("h.") else None
        return ("" if here in layers else local_name(here)), layer

    def _flow(self, steps: Mapping[str, StepInfo]) -> dict[str, StepInfo]:
        """The steps of a phase without the sums, which stand on the residual stream."""
        return {name: step for name, step in steps.items() if not self._is_sum(name)}

    def _is_sum(self, name: str) -> bool:
        return name == "embed" or name.endswith("residual")

    def _scale(self) -> float:
        """Pixels for one number of a position, so that the widest bar just fits its box."""
        return 0.96 * min(
            (RIGHT - LEFT) / of / self.per_position(name)
            for drawn in self.rows.values()
            for row in drawn
            for name, (_, of) in row.items()
            if self.bar(name)
        )

    # ---- what is said

    def say(self, text: str, **values: object) -> str:
        """A text in the language of `words`, with values for the names in braces."""
        return self.words.get(text, text).format(**values)

    def _width(self, name: str, before: str) -> str:
        """In letters: known by the step's name (attn.q_rotated is as wide as attn.q), by what forms
        it, else as of the step before."""
        known = WIDTHS.get(name, WIDTHS.get(name.split("_")[0]))
        formed = (p.axes[-1] for p in self.forms.get(name, {}).values())
        return next(formed, before) if known is None else known

    def bar(self, name: str) -> bool:
        """Whether a step has as many numbers at each position, and not one for each token."""
        return bool(self.width[name]) and not {*self.width[name]} & {"S", "V"}

    def per_position(self, name: str) -> int:
        return self.sizes.width(self.width[name])

    def number(self, axes: str) -> str:
        """How wide: "C" -> 256, "HD" -> 8 × 32, "HD KD KD" -> 3 × 256."""
        if axes in ("HD", "KD"):
            return f"{self.sizes.width(axes[0])} × {self.sizes.D}"
        widths = [self.sizes.width(part) for part in axes.split()]
        if len(widths) > 1 and len({*widths}) == 1:
            return f"{len(widths)} × {widths[0]:,}"
        return " + ".join(f"{n:,}" for n in widths)

    def product(self, name: str) -> str:
        """What a product makes of what, "256 → 3 × 256"; "" for what is none."""
        formed = self.forms.get(name, {}).values()
        width_in = (
            "C" if name == "logits" else next((p.axes[0] for p in formed if p.role == MATRIX), "")
        )
        return width_in and f"{self.sizes.width(width_in):,} → {self.number(self.width[name])}"

    def shape(self, name: str) -> str:
        """The shape of what a step gives, "8 × T × 32"."""
        width = self.width[name]
        if width in ("HD", "KD", "HS"):
            return f"{self.sizes.width(width[0])} × T × {self.sizes.D if width[1] == 'D' else 'S'}"
        return width and ("" if name == "probs" else "T × ") + self.number(width)

    def told(self, name: str) -> str:
        """The words on a step, under the pointer and for whoever cannot see it."""
        formed, shape = self.forms.get(name, {}), self.product(name) or self.shape(name)
        said = f"{'h.*.' if name in self.in_block else ''}{name}: {self.label(name)}"
        said += f", {shape}" if shape else ""
        if formed:
            n = sum(math.prod(p.shape(self.sizes)) for p in formed.values())
            names = ", ".join(formed).replace(self.family.layer_name(0, ""), "")
            said += f"; {names}: {self.say('{n} numbers', n=f'{n:,}')}"
        again = name == "logits" and self.config.tied
        return said + (f"; {self.say('times the table of tokens again')}" if again else "")

    def label(self, name: str) -> str:
        return self.say(self.steps[name].label)

    def about(self) -> str:
        """The whole in a sentence, for whoever cannot see it."""
        s = self.sizes
        return self.say(
            "{title}: each token id becomes {C} numbers; {L} blocks, each attention with {H} heads"
            " and a feed forward, add to them; they end as {V} logits, from which the next token is"
            " chosen, the next id to go in.",
            title=self.family.title, C=f"{s.C:,}", L=s.L, H=s.H, V=f"{s.V:,}",
        )  # fmt: skip

    # ---- drawing

    def svg(self, css: bool) -> str:
        """Everything, from top to bottom."""
        order = [*self.phases]
        block = [phase for phase in order if self.in_block & self.phases[phase].keys()]
        after = order[order.index(block[-1]) + 1]  # the last that reads the stream
        with self.part("part", "ids", self.say("the prompt first, then each new token")):
            self.box("box", LEFT, self.y, RIGHT - LEFT, ROW)
            self.text(LEFT + 9, self.y + 17, self.say("token ids"))
            self.text(RIGHT - 9, self.y + 17, "T", "small end")
        self.middle["ids"] = self.y + ROW / 2
        self.y += ROW + GAP
        above, top = "ids", 0.0
        for phase in order:
            if phase == block[0]:
                top = self.y
                self.blocks()
            self.phase(phase, "" if phase in (*block, after) else above)
            above = next(reversed(self.phases[phase]))
            if phase == block[-1]:
                self.cache()
                self.box("frame", FRAME, top, WIDTH - FRAME - 1, self.y - top)
                self.y += GAP
        self.loop(above)
        self.stream(next(iter(self.phases[after])))
        for line in ("T new positions, S all so far", "bar: how many numbers, at each position"):
            self.text(LEFT, self.y + 12, self.say(line), "small")
            self.y += 15
        height = math.ceil(self.y + 8)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" role="img"'
            f' viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            f' aria-label="{escape(self.about())}">\n'
            f"{f'<style>{CSS}</style>' if css else ''}\n"
            + "\n".join(self.behind + self.parts + self.before)
        ) + "\n</svg>\n"

    def phase(self, phase: str, above: str) -> None:
        """Its heading and rows; above: the step that it reads, "" for the residual stream. Sums
        write to the stream."""
        with self.part("phase", phase, self.say(phase), self.here == phase):
            top = self.y
            title, about = escape(self.say(phase)), escape(self.say(ABOUT[phase]))
            self.parts.append(
                f'<text x="{LEFT}" y="{top + 14:g}"><tspan class="title">{title}</tspan>'
                f'<tspan class="small" dx="7">{about}</tspan></text>'
            )
            self.y += HEADING
            drawn = self.rows[phase]
            for row, previous in zip(drawn, [{}, *drawn]):
                self.row(row, previous)
            first, last = (self.middle[next(iter(row))] for row in (drawn[0], drawn[-1]))
            if len(drawn) == 1:
                first, last = first - 7, last + 7
            start = (
                f"M{LEFT},{self.middle[above] + 4:g} H{ELBOW}" if above else f"M{STREAM},{first:g}"
            )
            self.line(f"{start} V{first:g} H{LEFT}", LEFT, first, "right")
            for name in filter(self._is_sum, self.phases[phase]):
                self.line(f"M{LEFT},{last:g} H{STREAM}", STREAM + 8, last, "left")
                self.sum(name, last)
            self.box("area", LEFT - 4, top + 18, RIGHT - LEFT + 8, self.y - top - 22)

    def row(self, row: Mapping[str, Place], previous: Mapping[str, Place]) -> None:
        """Steps side by side, and arrows from those above, but for what goes through the cache."""
        single = all(of == 1 for _, of in row.values())
        height = ROW if single else CELLS
        for name, (i, of) in row.items():
            width = (RIGHT - LEFT - (of - 1) * GAP) / of
            x = LEFT + i * (width + GAP)
            self.middle[name] = self.y + height / 2
            with self.part("step", name, self.told(name), self.here == name):
                self.box("box", x, self.y, width, height)
                self.text(x + 9, self.y + 16.5, self.label(name))
                beside = _text_width(self.label(name), 12.5) + 18
                if single:
                    shape = self.product(name) or self.shape(name)
                    self.text(RIGHT - 9, self.y + 17, shape, "small end")
                    self.heads(name, x + max(beside, 92), 66)
                else:
                    self.text(x + 9, self.y + 32, self.shape(name), "small")
                    self.heads(name, x + beside, width - beside - 6)
                if self.bar(name):
                    self.box(
                        "breadth",
                        x + 1,
                        self.y + height - 3.5,
                        self.scale * self.per_position(name),
                        2.5,
                    )
                self.corner[name] = x + width, self.y + height
                if self.here == name:
                    self.flag(x + width, self.y + height)
        below = row if len(row) > 1 else previous
        for name, (i, of) in below.items() if previous else ():
            if name in row or name not in self.kept:
                x = LEFT + (i + 0.5) * (RIGHT - LEFT) / of
                self.line(f"M{x:g},{self.y - GAP:g} V{self.y:g}", x, self.y, "down")
        self.y += height + GAP

    def heads(self, name: str, x: float, room: float) -> None:
        """A mark for each head: a square for numbers, a triangle for what looks back only."""
        width = self.width[name]
        if width not in ("HD", "KD", "HS"):
            return
        n = self.sizes.width(width[0])
        pitch = min(9.0, room / n)
        if pitch < 2.5:
            return
        size, y = pitch - 1.5, self.y + 17
        shape = f"l0,{-size:g} l{size:g},{size:g} z"
        if width[1] == "D":
            shape = f"v{-size:g} h{size:g} v{size:g} z"
        path = " ".join(f"M{x + i * pitch:g},{y:g} {shape}" for i in range(n))
        self.parts.append(f'<path class="mark" d="{path}"/>')

    def sum(self, name: str, y: float) -> None:
        """Where something is added to the residual stream."""
        self.middle[name] = y
        with self.part("step", name, self.told(name), self.here == name):
            self.parts.append(f'<circle class="node" cx="{STREAM}" cy="{y:g}" r="8"/>')
            self.line(f"M{STREAM - 4.5},{y:g} h9 M{STREAM},{y - 4.5:g} v9")
            if self.here == name:
                self.flag(STREAM + 60, y + 10)

    def blocks(self) -> None:
        """The heading of the frame: a cell for each block."""
        L = self.sizes.L
        pitch = min(20.0, (RIGHT - LEFT + 44) / L)
        self.text(
            LEFT, self.y + 18, self.say("{L} blocks, alike but for their weights", L=L), "title"
        )
        self.y += 26
        for i in range(L):
            with self.part("layer", i, f"h.{i}", i == self.layer):
                self.box("box", LEFT + i * pitch, self.y, pitch - 2, 16)
                if pitch >= 16:
                    self.text(LEFT + i * pitch + pitch / 2 - 1, self.y + 12, str(i), "small middle")
        if self.layer is not None and not self.here:
            right = LEFT + L * pitch + 118  # beside the cells, or where there is no room, below
            if right > WIDTH - 8:
                self.flag(LEFT + (self.layer + 1) * pitch + 60, self.y + 16)
            else:
                self.flag(right, self.y + 5)
        self.y += 16 + GAP

    def stream(self, end: str) -> None:
        """The residual stream, from the embedding to what reads it last."""
        top, bottom = self.middle["embed"], self.middle[end]
        told = self.say("residual stream, {C} wide", C=f"{self.sizes.C:,}")
        with self.part("part", "stream", told, behind=True):
            self.behind.append(
                f'<line class="stream" x1="{STREAM}" y1="{top:g}" x2="{STREAM}" y2="{bottom:g}"/>'
            )
        self.upright(STREAM + 18, (self.middle["ln_1"] + self.middle["attn.residual"]) / 2, told)

    def cache(self) -> None:
        """What is kept of each position for all cycles to come: the last form of k, and v."""
        used = ("attn.scores", "attn.context")
        top = min(self.middle[name] for name in self.kept) - 12
        middle, height = CACHE + (WIDTH - 5 - CACHE) / 2, self.middle[used[-1]] + 12 - top
        numbers = 2 * self.sizes.K * self.sizes.D
        told = self.say(
            "KV cache: keeps k and v, {n} numbers a position and block", n=f"{numbers:,}"
        )
        with self.part("part", "cache", told):
            self.box("box", CACHE, top, WIDTH - 5 - CACHE, height)
            self.upright(middle - 2, top + height / 2, self.say("KV cache"), "title")
            self.upright(middle + 11, top + height / 2, f"S × {numbers:,}")
            for name in self.kept:
                x, bottom = self.corner[name]
                beside = any(
                    self.corner[n] > (x, bottom) and self.corner[n][1] == bottom
                    for n in self.corner
                )
                y = bottom + GAP / 2 if beside else self.middle[name]
                start = f"M{x - 10:g},{bottom:g} V{y:g}" if beside else f"M{x:g},{y:g}"
                self.line(f"{start} H{CACHE}", CACHE, y, "right")
            for name in used:
                y = self.middle[name]
                self.line(f"M{CACHE},{y:g} H{RIGHT}", RIGHT, y, "left")

    def loop(self, last: str) -> None:
        """The next cycle: what was chosen goes in at the top."""
        told = self.say("the next cycle: the token that was chosen goes in")
        top, bottom = self.middle["ids"], self.middle[last]
        with self.part("part", "loop", told):
            self.line(f"M{LEFT},{bottom:g} H{LOOP} V{top:g} H{LEFT}", LEFT, top, "right")
        self.upright(LOOP + 13, (top + bottom) / 2, told)

    # ---- primitives

    @contextmanager
    def part(
        self, kind: str, name: object, told: str, here: bool = False, behind: bool = False
    ) -> Iterator[None]:
        """What can be pointed at, and light up."""
        parts = self.behind if behind else self.parts
        marked = ' class="here"' if here else ""
        parts.append(f'<g data-{kind}="{name}"{marked}><title>{escape(told)}</title>')
        yield
        parts.append("</g>")

    def box(self, kind: str, x: float, y: float, width: float, height: float) -> None:
        round_ = "" if kind == "breadth" else f' rx="{min(4, width / 4):g}"'
        self.parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:.4g}" height="{height:g}"'
            f"{round_}/>"
        )

    def text(self, x: float, y: float, said: str, kind: str = "") -> None:
        kind = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:.4g}" y="{y:g}"{kind}>{escape(said)}</text>')

    def upright(self, x: float, y: float, said: str, kind: str = "") -> None:
        """A text that reads upwards, with its middle at y."""
        self.parts.append(
            f'<text class="small middle {kind}" transform="translate({x:g} {y:g}) rotate(-90)">'
            f"{escape(said)}</text>"
        )

    def line(self, path: str, x: float = 0, y: float = 0, to: str = "") -> None:
        """A line, and the tip of an arrow at (x, y)."""
        self.parts.append(f'<path class="line" d="{path}"/>')
        if to:
            sides = {"right": "l-6,-3.5 v7", "left": "l6,-3.5 v7", "down": "l-3.5,-6 h7"}[to]
            self.parts.append(f'<path class="tip" d="M{x:g},{y:g} {sides} z"/>')

    def flag(self, right: float, y: float) -> None:
        """ "You are here", over the right end of what is marked."""
        layer = "" if self.layer is None else f": h.{self.layer}"
        said = self.say("you are here") + layer
        width = _text_width(said, 11.5) + 14
        x = max(right - width + 6, 2)
        self.before.append(
            f'<rect class="flag" x="{x:g}" y="{y - 5:g}" width="{width:g}" height="16" rx="8"/>'
            f'<text class="flagged small middle" x="{x + width / 2:g}" y="{y + 7:g}">'
            f"{escape(said)}</text>"
        )
