"""Charts stay inside their view box whatever they are given."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.report.svg import MOST_POINTS, WIDTH, bars, line_chart

DAY = 86_400_000


def chart(values: list[float], **changed) -> str:
    times = [1_700_000_000_000 + DAY * i for i in range(len(values))]
    arguments = {"height": 200, "label": "equity"} | changed
    return line_chart(times, [("one", "--accent", values)], **arguments)


def svg_of(figure: str) -> ET.Element:
    (svg,) = ET.fromstring(figure).iter("svg")
    return svg


def points_of(svg: ET.Element) -> list[tuple[float, float]]:
    return [
        tuple(float(part) for part in pair.split(","))
        for line in svg.iter("polyline")
        for pair in line.attrib["points"].split()
    ]


def assert_inside(svg: ET.Element) -> None:
    left, top, width, height = map(float, svg.attrib["viewBox"].split())
    assert (left, top, width) == (0, 0, WIDTH)
    for x, y in points_of(svg):
        assert 0 <= x <= width
        assert 0 <= y <= height
    for box in svg.iter("rect"):
        x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width + 0.51
        assert 0 <= y <= y + h <= height
    for text in svg.iter("text"):
        assert 0 <= float(text.attrib["x"]) <= width
        assert 0 <= float(text.attrib["y"]) <= height + 4


FINITE = st.floats(-1e12, 1e12, allow_nan=False)


@given(st.lists(FINITE, min_size=2, max_size=40))
def test_every_point_lies_inside_the_view_box(values: list[float]) -> None:
    svg = svg_of(chart(values))
    assert len(points_of(svg)) == len(values)
    assert_inside(svg)


@given(st.lists(FINITE, min_size=2, max_size=10))
def test_higher_values_are_drawn_higher(values: list[float]) -> None:
    points = points_of(svg_of(chart(values)))
    for (_, first), (_, second), one, two in zip(
        points, points[1:], values, values[1:], strict=False
    ):
        assert first >= second if two >= one else first <= second


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-12, 1e15])
def test_a_constant_is_a_level_line(value: float) -> None:
    svg = svg_of(chart([value] * 5))
    assert_inside(svg)
    assert len({y for _, y in points_of(svg)}) == 1


@pytest.mark.parametrize(
    "values", [[0.0, 5e-324], [1e-310, 2e-310], [1.0, 1.0 + 2**-52], [1e12, 1e12 + 1e-4]]
)
def test_values_too_close_to_tell_apart_are_drawn_as_one(values: list[float]) -> None:
    svg = svg_of(chart(values))
    assert_inside(svg)
    first, second = points_of(svg)
    assert first[1] == second[1]


def test_what_is_not_finite_is_left_out() -> None:
    svg = svg_of(chart([1.0, math.nan, 2.0, math.inf, 3.0]))
    assert_inside(svg)
    assert len(points_of(svg)) == 3


@pytest.mark.parametrize("values", [[], [1.0], [math.nan, math.nan]])
def test_too_little_is_said_in_words(values: list[float]) -> None:
    assert chart(values) == "<p>Too little happened to draw.</p>"


@given(st.integers(2, 5 * MOST_POINTS))
def test_long_lines_are_thinned_and_keep_their_ends(count: int) -> None:
    values = [float(i) for i in range(count)]
    points = points_of(svg_of(chart(values)))
    assert len(points) == min(count, MOST_POINTS)
    assert points[0] == min(points)
    assert points[-1] == max(points)


def test_ticks_are_round_numbers_at_their_own_heights() -> None:
    svg = svg_of(chart([0.0, 1000.0]))
    ticks = [t for t in svg.iter("text") if t.attrib["text-anchor"] == "end" and "," not in t.text]
    heights = {
        float(t.text): float(t.attrib["y"]) for t in ticks if t.text.replace(".", "").isdigit()
    }
    assert set(heights) == {0.0, 500.0}
    assert heights[0.0] - heights[500.0] == pytest.approx((200 - 12 - 26) / 2, abs=0.1)
    percent = chart([0.0, 0.5], percent=True)
    assert "40.0%" in percent


def test_bands_are_cut_to_the_times_shown() -> None:
    start = 1_700_000_000_000
    figure = chart(
        [1.0, 2.0, 3.0],
        bands=[(start - DAY, start + DAY, "--bull"), (start + DAY, start + 9 * DAY, "--bear")],
    )
    svg = svg_of(figure)
    assert_inside(svg)
    first, second = svg.iter("rect")
    assert first.attrib["fill"] == "var(--bull)"
    assert float(second.attrib["x"]) == pytest.approx(
        float(first.attrib["x"]) + float(first.attrib["width"]), abs=0.2
    )


def test_names_and_labels_are_escaped() -> None:
    hostile = '"><script>alert(1)</script>'
    figure = line_chart([1, 2], [(hostile, "--fg", [1.0, 2.0])], height=100, label=hostile)
    assert "<script" not in figure
    assert svg_of(figure).attrib["aria-label"] == hostile
    assert "<script" not in bars([(hostile, 1.0, "--fg")], label=hostile)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=12))
def test_bars_are_as_long_as_their_values(values: list[float]) -> None:
    figure = bars([(f"n{i}", value, "--fg") for i, value in enumerate(values)], label="bars")
    if max(values) == 0:
        assert figure == "<p>None.</p>"
        return
    svg = svg_of(figure)
    assert_inside(svg)
    widths = [float(box.attrib["width"]) for box in svg.iter("rect")]
    assert len(widths) == len(values)
    for width, value in zip(widths, values, strict=True):
        assert width == pytest.approx(max(widths) * value / max(values), abs=0.11)


def test_no_bars_are_said_in_words() -> None:
    assert bars([], label="x") == "<p>None.</p>"


def test_texts_hold_numbers_not_names_of_floats() -> None:
    assert not re.search(r"\bnan\b|\binf\b", chart([1.0, math.nan, 2.0]))


def test_dots_are_drawn_where_they_lie_inside_the_plot_and_say_what_they_mark():
    chart = line_chart(
        [0, 1000],
        [("price", "--fg", [1.0, 3.0])],
        height=100,
        dots=[(500, 2.0, "--accent", "reduce & hold"), (500, 9.0, "--accent", "outside")],
        label="x",
    )
    assert chart.count("<circle") == 1
    assert "<title>reduce &amp; hold</title>" in chart
    assert 'fill="var(--accent)"' in chart
