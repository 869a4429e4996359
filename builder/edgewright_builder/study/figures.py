"""The pictures of a study's report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgewright_builder.report.formats import show_tick
from edgewright_builder.report.svg import (
    Scale,
    canvas,
    label,
    legend,
    line,
    shorten,
    tag,
    text_pixels,
    x_axis,
)
from edgewright_builder.study.level_means import LevelTable, Mean
from edgewright_builder.study.paired_contrasts import Contrast
from edgewright_builder.study.statistics import Estimate

ROW_PIXELS, WIDTH, NAME_CHARACTERS = 28.0, 760.0, 48
DOT_PIXELS, GAP_PIXELS = 18.0, 10.0  # a level's row, and the room between groups
COLOURS = ("s1", "s2", "s3", "s4", "s5")


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


def level_chart(table: LevelTable) -> Markup:
    """Returns a dot with its standard error for each level, group by group; a single cell has no error bar."""
    texts = {place: mean.text(table.digits) for place, mean in table.means.items()}
    left = max(text_pixels(shorten(group, NAME_CHARACTERS)) for group in table.groups) + 10
    scale = Scale(
        *_reach(list(table.means.values())), left, WIDTH - max(map(text_pixels, texts.values())) - 12
    )
    colours = {level: COLOURS[index % len(COLOURS)] for index, level in enumerate(table.levels)}
    height = DOT_PIXELS * len(table.levels) + GAP_PIXELS
    bottom = 26.0 + height * len(table.groups)
    title = f"{table.title}, {table.unit}"
    parts = [x_axis(scale, 26.0, bottom, title, show_tick), legend(0, 14, list(colours.items()))]
    if scale.low < 0 < scale.high:
        parts.append(line(scale(0), 26.0, scale(0), bottom, "zero"))
    for row, group in enumerate(table.groups):
        top = 26.0 + row * height + GAP_PIXELS / 2
        parts.append(label(left - 10, top + height / 2, shorten(group, NAME_CHARACTERS), "label", "end"))
        parts += [
            _level(
                table.means[group, level],
                texts[group, level],
                scale,
                top + DOT_PIXELS * (index + 0.5),
                colours[level],
            )
            for index, level in enumerate(table.levels)
            if (group, level) in table.means
        ]
    return canvas(WIDTH, bottom + 42, title, *parts)


def _reach(means: Sequence[Mean]) -> tuple[float, float]:
    """Returns the ends of an axis that every error bar lies on."""
    low = min(mean.value - (mean.standard_error or 0.0) for mean in means)
    high = max(mean.value + (mean.standard_error or 0.0) for mean in means)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _level(mean: Mean, text: str, scale: Scale, y: float, class_: str) -> Markup:
    error = mean.standard_error or 0.0
    dot = tag("circle", tag("title", text), cx=scale(mean.value), cy=y, r=5, class_=f"dot {class_}")
    bar = line(scale(mean.value - error), y, scale(mean.value + error), y, f"thick {class_}")
    return Markup().join([bar, dot, label(scale.end + 10, y + 4, text, "value")])
