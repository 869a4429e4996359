"""Four charts, data in and SVG out: horizontal bars, one stacked bar, intervals about zero, points in a plane."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from edgewright_builder.report.svg import (
    Y_TICKS,
    Scale,
    canvas,
    label,
    legend,
    line,
    round_ticks,
    shorten,
    tag,
    text_pixels,
    x_axis,
    y_axis,
)

Show = Callable[[float], str]
LABEL_CHARACTERS = 30
STACKED_PIXELS = 960.0


@dataclass(frozen=True)
class Bar:
    """One horizontal bar; `error` is the half-width of its error bar, in the same unit as `value`."""

    name: str
    value: float
    text: str  # written beside the bar
    error: float = 0.0
    class_: str = "s1"
    hover: str = ""


@dataclass(frozen=True)
class Reference:
    """A value that all others are compared with: a dashed line and its name."""

    value: float
    text: str
    class_: str = "limit"


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one name. `hover` has a text per point, or nothing."""

    name: str
    points: Sequence[tuple[float, float]]
    class_: str = "s1"
    shape: Literal["line", "dots", "crosses", "steps"] = "line"
    hover: Sequence[str] = ()


def bar_chart(
    bars: Sequence[Bar],
    title: str,
    show: Show,
    *,
    description: str,
    references: Sequence[Reference] = (),
    high: float | None = None,
    width: float = 640,
) -> Markup:
    """Bars from zero, top to bottom, with error bars, values, and an axis named `title` with its unit.

    The values stand behind the bars, or in a column of their own where reference lines would cross them.
    """
    left = max(text_pixels(shorten(bar.name, LABEL_CHARACTERS)) for bar in bars) + 10
    right = max(text_pixels(bar.text) for bar in bars) + 12
    ends = [bar.value + bar.error for bar in bars] + [reference.value for reference in references]
    scale = Scale(0.0, high or max(*ends, 0.0) or 1.0, left, width - right)
    top = 24.0 if references else 6.0
    bottom = top + 28.0 * len(bars)
    parts = [x_axis(scale, top, bottom, title, show)]
    for index, bar in enumerate(bars):
        y = top + 28.0 * index + 5
        text_x = scale.end if references else scale(bar.value + bar.error)
        parts += [_bar(bar, scale, y), label(text_x + 8, y + 13, bar.text, "value")]
    for reference in references:
        parts.append(_vertical(reference, scale, top, bottom))
    return canvas(width, bottom + 42, description, *parts)


def _bar(bar: Bar, scale: Scale, y: float) -> Markup:
    end, middle = scale(bar.value), y + 9
    name = label(scale.start - 10, middle + 4, shorten(bar.name, LABEL_CHARACTERS), "label", "end")
    hover = tag("title", bar.hover or f"{bar.name}: {bar.text}")
    body = tag(
        "rect",
        hover,
        x=scale.start,
        y=y,
        width=end - scale.start,
        height=18.0,
        rx=2,
        class_=f"mark {bar.class_}",
    )
    whiskers = _whiskers(scale, bar.value, bar.error, middle) if bar.error else Markup()
    return Markup().join([name, body, whiskers])


def _whiskers(scale: Scale, value: float, error: float, y: float) -> Markup:
    low, high = scale(value - error), scale(value + error)
    ends = [line(x, y - 5, x, y + 5, "whisker") for x in (low, high)]
    return Markup().join([line(low, y, high, y, "whisker"), *ends])


def _vertical(reference: Reference, scale: Scale, top: float, bottom: float) -> Markup:
    x = scale(reference.value)
    near_end = x + text_pixels(reference.text) / 2 > scale.end + 4
    text = label(
        x + 4 if near_end else x, top - 8, reference.text, "tick strong", "end" if near_end else "middle"
    )
    return line(x, top - 4, x, bottom, f"reference {reference.class_}") + text


@dataclass(frozen=True)
class Marker:
    """A measured or predicted total, drawn at the stacked bar with its error."""

    value: float
    text: str
    error: float = 0.0


def stacked_bar(
    segments: Sequence[Bar],
    title: str,
    show: Show,
    *,
    limit: Reference,
    markers: Sequence[Marker],
    description: str,
) -> Markup:
    """Returns one bar of several parts against a limit; the markers stand below it, one row each."""
    total = sum(segment.value for segment in segments)
    ends = [total, limit.value, *(marker.value + marker.error for marker in markers)]
    scale = Scale(0.0, max(ends) * 1.04 or 1.0, 8.0, STACKED_PIXELS - 8)
    top, height = 26.0, 44.0
    bottom = top + height + 12 + 22.0 * len(markers)
    track = scale(limit.value) - scale.start
    parts = [
        x_axis(scale, top, bottom, title, show, 8),
        tag("rect", x=scale.start, y=top, width=track, height=height, class_="track"),
    ]
    start = 0.0
    for segment in segments:
        parts.append(_segment(segment, scale(start), scale(start + segment.value), top, height))
        start += segment.value
    parts.append(_vertical(limit, scale, top, bottom))
    for index, marker in enumerate(markers):
        parts += [_marker(marker, scale, top + height + 20 + 22.0 * index)]
    return canvas(STACKED_PIXELS, bottom + 42, description, *parts)


def _segment(segment: Bar, left: float, right: float, top: float, height: float) -> Markup:
    """Returns one part of a stacked bar, with its name where that has room."""
    hover, class_ = (
        tag("title", segment.hover or f"{segment.name}: {segment.text}"),
        f"mark edge {segment.class_}",
    )
    part = tag("rect", hover, x=left, y=top, width=right - left, height=height, class_=class_)
    if right - left <= text_pixels(segment.name) + 10:
        return part
    return part + label((left + right) / 2, top + height / 2 + 4, segment.name, "on-mark", "middle")


def _marker(marker: Marker, scale: Scale, y: float) -> Markup:
    x = scale(marker.value)
    mark = tag("circle", tag("title", marker.text), cx=x, cy=y, r=4.5, class_="dot ink")
    whiskers = _whiskers(scale, marker.value, marker.error, y) if marker.error else Markup()
    low = scale(marker.value - marker.error) - 10
    at_left = low > text_pixels(marker.text)
    text = label(
        low if at_left else scale(marker.value + marker.error) + 10,
        y + 4,
        marker.text,
        "label",
        "end" if at_left else "start",
    )
    return Markup().join([whiskers, mark, text])


def interval_chart(
    rows: Sequence[Bar], title: str, show: Show, *, description: str, width: float = 640
) -> Markup:
    """Differences about zero: a dot each, a thick line of ± 1 and a thin one of ± 1.96 standard errors."""
    left = max(text_pixels(shorten(row.name, 2 * LABEL_CHARACTERS)) for row in rows) + 10
    right = max(text_pixels(row.text) for row in rows) + 12
    reach = max(abs(row.value) + 1.96 * row.error for row in rows) * 1.05 or 1.0
    scale = Scale(-reach, reach, left, width - right)
    bottom = 6.0 + 28.0 * len(rows)
    parts = [x_axis(scale, 6.0, bottom, title, show), line(scale(0), 6.0, scale(0), bottom, "zero")]
    for index, row in enumerate(rows):
        y = 20.0 + 28.0 * index
        parts += [label(left - 10, y + 4, shorten(row.name, 2 * LABEL_CHARACTERS), "label", "end")]
        parts += [
            line(scale(row.value - 1.96 * row.error), y, scale(row.value + 1.96 * row.error), y, "whisker")
        ]
        parts += [
            line(scale(row.value - row.error), y, scale(row.value + row.error), y, f"thick {row.class_}")
        ]
        parts += [
            tag(
                "circle",
                tag("title", row.hover or row.text),
                cx=scale(row.value),
                cy=y,
                r=5,
                class_=f"dot {row.class_}",
            )
        ]
        parts += [label(scale.end + 10, y + 4, row.text, "value")]
    return canvas(width, bottom + 42, description, *parts)


def plane_chart(
    series: Sequence[Series],
    x_title: str,
    y_title: str,
    show_x: Show,
    show_y: Show,
    *,
    description: str,
    width: float = 470,
    height: float = 290,
) -> Markup:
    """Lines, steps, dots and crosses over whole numbers x.

    Values that are not finite are left out.
    """
    finite = [_finite(one) for one in series]
    xs = [x for one in finite for x, _ in one.points]
    ys = [y for one in finite for _, y in one.points]
    low_x, high_x, (low_y, high_y) = min(xs), max(xs), _padded(min(ys), max(ys))
    left = max(text_pixels(show_y(tick)) for tick in round_ticks(low_y, high_y, Y_TICKS)) + 8
    named = [(one.name, one.class_) for one in finite if one.name]
    top = 58.0 if len(named) > 1 else 36.0
    x_scale = Scale(low_x, high_x if high_x > low_x else low_x + 1, left + 8, width - 16)
    y_scale = Scale(low_y, high_y, height - 42, top)
    whole = max(1, min(5, round(high_x - low_x)))  # no tick between two steps or trials
    parts = [
        x_axis(x_scale, top, height - 42, x_title, show_x, whole),
        y_axis(y_scale, left, width - 8, y_title, show_y),
        legend(0, 18, named if len(named) > 1 else []),
    ]
    parts += [_draw(one, x_scale, y_scale) for one in finite]
    return canvas(width, height, description, *parts)


def _finite(series: Series) -> Series:
    kept = [i for i, (x, y) in enumerate(series.points) if math.isfinite(x) and math.isfinite(y)]
    hover = [series.hover[i] for i in kept] if series.hover else ()
    return Series(series.name, [series.points[i] for i in kept], series.class_, series.shape, hover)


def _padded(low: float, high: float) -> tuple[float, float]:
    """Returns the range with room above and below; from zero where zero is near."""
    spread = max(high - low, 0.02 * max(abs(high), abs(low))) or 1.0
    return (0.0 if 0 <= low < spread else low - 0.08 * spread), high + 0.08 * spread


def _draw(series: Series, x_scale: Scale, y_scale: Scale) -> Markup:
    spots = [(x_scale(x), y_scale(y)) for x, y in series.points]
    if series.shape in ("line", "steps") and len(spots) > 1:
        return tag("path", d=_path(spots, series.shape == "steps"), class_=f"stroke {series.class_}")
    hover = series.hover or [""] * len(spots)
    if series.shape != "crosses":  # a line of one point is a dot
        return Markup().join(
            tag("circle", tag("title", text), cx=x, cy=y, r=4.5, class_=f"dot {series.class_}")
            for (x, y), text in zip(spots, hover, strict=True)
        )
    return Markup().join(
        tag(
            "path",
            tag("title", text),
            d=f"M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8",
            class_=f"stroke {series.class_}",
        )
        for (x, y), text in zip(spots, hover, strict=True)
    )


def _path(spots: Sequence[tuple[float, float]], steps: bool) -> str:
    pieces: list[str] = []
    for index, (x, y) in enumerate(spots):
        if index and steps:
            pieces.append(f"H{x:.1f}V{y:.1f}")
        else:
            pieces.append(f"{'L' if index else 'M'}{x:.1f} {y:.1f}")
    return "".join(pieces)
