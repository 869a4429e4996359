"""The charts keep within their picture, whatever the numbers and names."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from edgewright_builder.report.charts import (
    Bar,
    Marker,
    Reference,
    Series,
    bar_chart,
    interval_chart,
    plane_chart,
    stacked_bar,
)
from edgewright_builder.report.formats import show_number, show_points, show_seconds, show_tick
from edgewright_builder.report.svg import Scale, round_ticks, tag

names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=90)
sizes = st.floats(0, 1e12, allow_subnormal=False)
bars = st.builds(Bar, name=names, value=sizes, text=st.just("12.3 MiB"), error=st.floats(0, 1e6))


def boxes(picture: Markup) -> tuple[float, float, list[tuple[float, float]]]:
    """Width, height, and the x span of every mark."""
    root = ElementTree.fromstring(picture)
    _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
    spans = []
    for node in root.iter():
        if node.tag == "rect":
            left, size = float(node.attrib["x"]), float(node.attrib["width"])
            assert size >= 0
            spans.append((left, left + size))
        if node.tag == "circle":
            spans.append((float(node.attrib["cx"]), float(node.attrib["cx"])))
            assert 0 <= float(node.attrib["cy"]) <= height
        if node.tag == "line":
            spans.append((float(node.attrib["x1"]), float(node.attrib["x2"])))
    return width, height, spans


def assert_within(picture: Markup) -> None:
    width, _, spans = boxes(picture)
    assert spans
    assert all(-0.01 <= low <= high + 0.02 <= width + 0.03 for low, high in spans)


@given(st.lists(bars, min_size=1, max_size=8), st.none() | sizes)
def test_bars_stay_within_their_picture(rows: list[Bar], limit: float | None) -> None:
    references = [Reference(limit, "budget")] if limit is not None else []
    assert_within(bar_chart(rows, "bytes", show_tick, description="test", references=references))


@given(st.lists(bars, min_size=1, max_size=6), sizes, sizes, st.floats(0, 1e9))
def test_a_stacked_bar_with_its_limit_and_markers_stays_within(
    rows: list[Bar], limit: float, peak: float, error: float
) -> None:
    markers = [Marker(peak, "predicted", error)]
    assert_within(
        stacked_bar(
            rows, "bytes", show_tick, limit=Reference(limit, "budget"), markers=markers, description="test"
        )
    )


@given(
    st.lists(
        st.builds(Bar, name=names, value=st.floats(-100, 100), text=st.just("+1"), error=st.floats(0, 50)),
        min_size=1,
    )
)
def test_intervals_stay_within_and_share_their_zero(rows: list[Bar]) -> None:
    assert_within(interval_chart(rows, "points", show_tick, description="test"))


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(allow_subnormal=False)), max_size=40))
def test_points_that_are_no_numbers_are_left_out_and_the_others_drawn(
    points: list[tuple[int, float]],
) -> None:
    points = [(x, y) for x, y in points if not math.isfinite(y) or abs(y) < 1e12]
    series = [
        Series("a", [(0, 1.0), *points], shape="dots"),
        Series("b", [(0, 2.0), (3, 1.0)], shape="steps"),
    ]
    picture = plane_chart(series, "step", "loss", show_tick, show_tick, description="test")
    finite = sum(math.isfinite(y) for _, y in points)
    assert picture.count("<circle") == finite + 1
    assert "nan" not in picture
    assert "inf" not in picture
    assert_within(picture)


def test_a_bar_is_as_long_as_its_value() -> None:
    rows = [Bar("a", 1.0, "1"), Bar("b", 4.0, "4")]
    lengths = [
        high - low for low, high in boxes(bar_chart(rows, "x", show_tick, description=""))[2] if high != low
    ]
    assert lengths[1] == pytest.approx(4 * lengths[0], rel=0.001)


@given(st.text(), st.text())
def test_a_tag_escapes_its_text_and_its_attributes(text: str, value: str) -> None:
    made = tag("text", text, class_=value)
    assert made.count("<") == 2
    assert made.count('"') == 2


@given(st.floats(-1e6, 1e6), st.floats(1e-2, 1e9))
def test_ticks_are_round_few_and_within_the_axis(low: float, spread: float) -> None:
    ticks = round_ticks(low, low + spread)
    assert len(ticks) <= 10
    assert all(low - 1e-3 * spread <= tick <= low + 1.001 * spread for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_ticks_of_a_plain_axis() -> None:
    assert round_ticks(0, 180) == [0, 50, 100, 150]
    assert round_ticks(0.33, 0.6, 6) == [0.35, 0.4, 0.45, 0.5, 0.55, 0.6]
    assert round_ticks(3, 3) == [3]


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-2e6, 2e6))
def test_a_scale_never_leaves_its_pixels(low: float, high: float, value: float) -> None:
    assert 10 <= Scale(low, high, 10, 90)(value) <= 90


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.00084, "840 µs"), (0.0123, "12.3 ms"), (41, "41.0 s"), (59.97, "1 min 0 s"), (185, "3 min 5 s"),
     (7440, "2 h 4 min"), (math.nan, "–")],
)  # fmt: skip
def test_seconds_are_written_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


def test_differences_carry_their_sign_and_parameters_four_digits() -> None:
    assert show_points(-0.0123, 0.011) == "−1.2 ± 1.1 points"
    assert show_points(0.06, 0.011) == "+6.0 ± 1.1 points"
    assert show_number(0.00212876) == "0.002129"
    assert show_number(True) == "True"
    assert show_number("muon") == "muon"
