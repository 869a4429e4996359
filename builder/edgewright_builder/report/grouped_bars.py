"""Bars in groups: one group per statistic, one bar per view, the views named by colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgewright_builder.report.charts import Show
from edgewright_builder.report.svg import Scale, canvas, label, legend, tag, text_pixels, x_axis

BAR_PIXELS = 14.0
GAP_PIXELS = 10.0  # between groups
WIDTH_PIXELS = 470.0


@dataclass(frozen=True)
class View:
    """Who measured: a name, a colour, and a value with its text per group; None where it has none."""

    name: str
    class_: str
    values: Sequence[tuple[float, str] | None]


def grouped_bar_chart(
    groups: Sequence[str],
    views: Sequence[View],
    title: str,
    show: Show,
    *,
    description: str,
) -> Markup:
    """Horizontal bars from zero; `title` names the axis with its unit."""
    known = [value for view in views for value in view.values if value is not None]
    left = max(text_pixels(group) for group in groups) + 8
    right = max(text_pixels(text) for _, text in known) + 10
    high = max(value for value, _ in known) or 1.0
    scale = Scale(0.0, high, left, WIDTH_PIXELS - right)
    shown = [(view.name, view.class_) for view in views] if len(views) > 1 else []
    top = 26.0 if shown else 6.0
    height = len(views) * BAR_PIXELS + GAP_PIXELS
    bottom = top + height * len(groups)
    parts = [x_axis(scale, top, bottom, title, show, 4), legend(0, 14, shown)]
    for row, group in enumerate(groups):
        y = top + row * height + GAP_PIXELS / 2
        middle = y + len(views) * BAR_PIXELS / 2
        parts.append(label(left - 8, middle + 4, group, "label", "end"))
        parts += [_bar(view, scale, row, group, y + index * BAR_PIXELS) for index, view in enumerate(views)]
    return canvas(WIDTH_PIXELS, bottom + 42, description, *parts)


def _bar(view: View, scale: Scale, row: int, group: str, y: float) -> Markup:
    value = view.values[row]
    if value is None:
        return label(scale.start + 4, y + 11, "not measured", "tick")
    end = scale(value[0])
    body = tag(
        "rect", tag("title", f"{view.name}, {group}: {value[1]}"),
        x=scale.start, y=y + 1, width=max(1.0, end - scale.start), height=BAR_PIXELS - 3, rx=2,
        class_=f"mark {view.class_}",
    )  # fmt: skip
    return body + label(end + 6, y + 11, value[1], "value")
