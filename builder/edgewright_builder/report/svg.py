"""The few pieces of SVG our charts need: escaped tags, linear scales, round ticks, an estimate of text width.

Colours and fonts are CSS classes (`templates/style.css`), so that a chart follows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

from markupsafe import Markup, escape

PICTURE_RULES = ("svg ", ".s1 ", ".s4 ", ".ink ")  # lines of style.css that a picture needs
Y_TICKS = 6  # at most
CHARACTER_PIXELS = 7.4  # mean advance at 12 px of DejaVu Sans, the widest of the fonts a reader may have


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """`<name …>children</name>`, everything escaped that is not Markup already.

    `stroke_width` becomes `stroke-width` and `class_` becomes `class`; floats are cut to 2 decimals.
    """
    pairs = (f'{key.strip("_").replace("_", "-")}="{_text(value)}"' for key, value in attributes.items())
    inner = Markup().join(children)
    return Markup(f"<{name} {' '.join(pairs)}>{inner}</{name}>")  # noqa: S704 - each part is escaped above


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(escape(value))


@dataclass(frozen=True)
class Scale:
    """Maps `low..high` linearly to pixels `start..end`; what lies outside is drawn at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Returns the pixel of `value`."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 × 10ⁿ within `low..high`: about `count`, and never more than twice that."""
    rough = (high - low) / count
    if not rough > 0:  # also where the range is so small that a part of it is 0
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= rough * 0.999), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def text_pixels(text: str) -> float:
    """Pixels that `text` takes at most, near enough for margins."""
    return len(text) * CHARACTER_PIXELS + 4


def shorten(text: str, characters: int) -> str:
    """`text`, or its beginning and an ellipsis."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def label(x: float, y: float, text: str, class_: str = "label", anchor: str = "start") -> Markup:
    """Text whose baseline is at (x, y)."""
    return tag("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Returns a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def canvas(width: float, height: float, description: str, *parts: str) -> Markup:
    """Returns the whole picture; `description` is read out by screen readers.

    It scales with its container, a wide one only so far that its text stays readable; then it scrolls.
    """
    box = f"0 0 {width:.0f} {height:.0f}"
    style = (
        f"max-width:{width:.0f}px;min-width:{min(width, 600):.0f}px"
        if width > 500
        else f"max-width:{width:.0f}px"
    )
    return tag("svg", *parts, viewBox=box, role="img", aria_label=description, style=style)


def standalone(picture: Markup) -> str:
    """Returns a canvas as a file of its own, with the namespace and the colours that a page would give it."""
    css = (resources.files("edgewright_builder.report") / "templates" / "style.css").read_text(
        encoding="utf-8"
    )
    root, _, rest = css.partition("}")
    rules = [line for line in rest.split("\n") if line.startswith(PICTURE_RULES)]
    style = tag("style", Markup("\n".join([f"{root}}}", *rules])))  # noqa: S704 - our own file
    return (
        str(picture)
        .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        .replace(">", f">{style}", 1)
    )


def x_axis(
    scale: Scale, top: float, bottom: float, title: str, show: Callable[[float], str], count: int = 5
) -> Markup:
    """Vertical grid lines with their values below, and the axis's title below those."""
    parts: list[str] = []
    for value in round_ticks(scale.low, scale.high, count):
        parts += [line(scale(value), top, scale(value), bottom, "grid")]
        parts += [label(scale(value), bottom + 16, show(value), "tick", "middle")]
    middle = (scale.start + scale.end) / 2
    return Markup().join([*parts, label(middle, bottom + 34, title, "axis-title", "middle")])


def y_axis(scale: Scale, left: float, right: float, title: str, show: Callable[[float], str]) -> Markup:
    """Horizontal grid lines with their values at the left, and the axis's title above them."""
    parts: list[str] = []
    for value in round_ticks(scale.low, scale.high, Y_TICKS):
        parts += [line(left, scale(value), right, scale(value), "grid")]
        parts += [label(left - 8, scale(value) + 4, show(value), "tick", "end")]
    return Markup().join([*parts, label(0, scale.end - 12, title, "axis-title")])


def legend(left: float, y: float, entries: Sequence[tuple[str, str]]) -> Markup:
    """Names, each after a swatch of its CSS class, in one row."""
    parts: list[str] = []
    for name, class_ in entries:
        parts += [tag("rect", x=left, y=y - 9, width=10, height=10, rx=2, class_=f"mark {class_}")]
        parts += [label(left + 16, y, name, "tick")]
        left += 16 + text_pixels(name) + 14
    return Markup().join(parts)
