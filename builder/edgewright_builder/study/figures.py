"""The pictures of a study's report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgewright_builder.report.formats import show_tick
from edgewright_builder.report.svg import Scale, canvas, label, line, shorten, tag, text_pixels, x_axis
from edgewright_builder.study.contrasts import Contrast
from edgewright_builder.study.statistics import Estimate

ROW_PIXELS, WIDTH, NAME_CHARACTERS = 28.0, 760.0, 48


@dataclass(frozen=True)
class ForestRow:
    """One difference with its interval."""

    name: str
    estimate: Estimate
    whole: bool = False  # over all groups: drawn as the answer


def forest_rows(contrast: Contrast) -> list[ForestRow]:
    """Returns the groups, then the whole, then the whole at equal 16-bit divergence."""
    rows = [ForestRow(name, value) for name, value in contrast.groups.items() if len(contrast.groups) > 1]
    rows.append(ForestRow("all", contrast.estimate, whole=True))
    if contrast.matched is not None:
        rows.append(ForestRow("all, at equal 16-bit divergence", contrast.matched, whole=True))
    return rows


def forest_chart(
    rows: Sequence[ForestRow], title: str, *, description: str, margin: float | None = None
) -> Markup:
    """Returns a dot and an interval for each row, about zero; the margin of equivalence is dashed."""
    texts = [show_interval(row.estimate) for row in rows]
    left = max(text_pixels(shorten(row.name, NAME_CHARACTERS)) for row in rows) + 10
    right = max(map(text_pixels, texts)) + 12
    ends = [abs(end) for row in rows for end in (row.estimate.low, row.estimate.high)]
    reach = max([*ends, margin or 0.0]) * 1.08 or 1.0
    scale = Scale(-reach, reach, left, WIDTH - right)
    bottom = 6.0 + ROW_PIXELS * len(rows)
    parts = [x_axis(scale, 6.0, bottom, title, show_tick), line(scale(0), 6.0, scale(0), bottom, "zero")]
    if margin is not None:
        parts += [line(scale(end), 6.0, scale(end), bottom, "reference limit") for end in (-margin, margin)]
    for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
        parts.append(_row(row, text, scale, left, 20.0 + ROW_PIXELS * index))
    return canvas(WIDTH, bottom + 42, description, *parts)


def show_interval(value: Estimate) -> str:
    """Returns a difference as it stands beside its interval."""
    return f"{value.mean:+.3g} ({value.low:+.3g} to {value.high:+.3g})"


def _row(row: ForestRow, text: str, scale: Scale, left: float, y: float) -> Markup:
    value, class_ = row.estimate, "s2" if row.whole else "s1"
    dot = tag(
        "circle",
        tag("title", text),
        cx=scale(value.mean),
        cy=y,
        r=6 if row.whole else 5,
        class_=f"dot {class_}",
    )
    return Markup().join([
        label(left - 10, y + 4, shorten(row.name, NAME_CHARACTERS), "label", "end"),
        line(scale(value.low), y, scale(value.high), y, f"thick {class_}"),
        dot,
        label(scale.end + 10, y + 4, text, "value"),
    ])  # fmt: skip
