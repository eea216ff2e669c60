"""Plots as inline SVG: no scripts, no downloads, dark and light by CSS variables."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

WIDTH: Final = 960
LEFT: Final = 76
RIGHT: Final = 12
TOP: Final = 12
BOTTOM: Final = 26
MOST_POINTS: Final = 900

Line = tuple[str, str, Sequence[float]]
"""Name, CSS colour variable, values over the shared times."""

Dot = tuple[int, float, str, str]
"""Time (ms), value, CSS colour variable, what it marks."""


def line_chart(
    times_ms: Sequence[int],
    lines: Sequence[Line],
    *,
    height: int,
    percent: bool = False,
    bands: Sequence[tuple[int, int, str]] = (),
    dots: Sequence[Dot] = (),
    label: str,
) -> str:
    """Draw lines over time.

    Args:
        times_ms: ascending, one a value of every line.
        lines: what to draw.
        height: of the plot, in the units of its view box.
        percent: whether values are shares.
        bands: (from ms, to ms, CSS colour variable) behind the lines.
        dots: single moments, drawn over the lines where they lie inside the plot.
        label: read by screen readers.
    """
    keep = _thin(len(times_ms))
    times = [times_ms[i] for i in keep]
    picked = [(name, colour, [values[i] for i in keep]) for name, colour, values in lines]
    finite = [v for _, _, values in picked for v in values if math.isfinite(v)]
    if len(times) < 2 or not finite:
        return "<p>Too little happened to draw.</p>"
    low, high = min(finite), max(finite)
    if high - low <= 1e-12 * max(abs(low), abs(high)) + 1e-15:
        low, high = low - abs(low) * 0.001 - 1e-9, high + abs(high) * 0.001 + 1e-9
    span = times[-1] - times[0]
    inner_w, inner_h = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM

    def x(time_ms: float) -> float:
        return LEFT + (time_ms - times[0]) / span * inner_w

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * inner_h

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">',
        *(
            f'<rect x="{x(max(start, times[0])):.1f}" y="{TOP}" '
            f'width="{max(x(min(end, times[-1])) - x(max(start, times[0])), 0.5):.1f}" '
            f'height="{inner_h}" fill="var({colour})" opacity="0.22"/>'
            for start, end, colour in bands
        ),
    ]
    for tick in _ticks(low, high):
        text = f"{tick:.1%}" if percent else f"{tick:,.6g}"
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
            f'class="grid"/><text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{text}'
            "</text>"
        )
    for step in range(6):
        time_ms = times[0] + span * step / 5
        anchor = "start" if step == 0 else "end" if step == 5 else "middle"
        day = datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d")
        parts.append(
            f'<text x="{x(time_ms):.1f}" y="{height - 8}" text-anchor="{anchor}">{day}</text>'
        )
    for name, colour, values in picked:
        points = " ".join(
            f"{x(t):.1f},{y(v):.1f}"
            for t, v in zip(times, values, strict=True)
            if math.isfinite(v)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="var({colour})" stroke-width="1.6">'
            f"<title>{escape(name)}</title></polyline>"
        )
    parts += [
        f'<circle cx="{x(time_ms):.1f}" cy="{y(value):.1f}" r="4.5" fill="var({colour})" '
        f'stroke="var(--bg)"><title>{escape(what)}</title></circle>'
        for time_ms, value, colour, what in dots
        if low <= value <= high and times[0] <= time_ms <= times[-1]
    ]
    parts.append("</svg>")
    legend = "".join(
        f'<span><i style="background:var({colour})"></i>{escape(name)}</span>'
        for name, colour, _ in lines
    )
    return f'<figure>{"".join(parts)}<figcaption class="legend">{legend}</figcaption></figure>'


def bars(rows: Sequence[tuple[str, float, str]], *, label: str) -> str:
    """Draw horizontal bars: (name, value >= 0, CSS colour variable)."""
    most = max((value for _, value, _ in rows), default=0.0)
    if most <= 0:
        return "<p>None.</p>"
    height = 26 * len(rows) + 6
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for index, (name, value, colour) in enumerate(rows):
        y = 4 + 26 * index
        width = (WIDTH - 300) * value / most
        parts.append(
            f'<text x="180" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="190" y="{y}" width="{width:.1f}" height="20" rx="3" fill="var({colour})"/>'
            f'<text x="{196 + width:.1f}" y="{y + 15}">{value:,.6g}</text>'
        )
    parts.append("</svg>")
    return f"<figure>{''.join(parts)}</figure>"


def _thin(count: int) -> list[int]:
    """Return indices of at most `MOST_POINTS` points, the first and the last among them."""
    if count <= MOST_POINTS:
        return list(range(count))
    step = (count - 1) / (MOST_POINTS - 1)
    return [round(i * step) for i in range(MOST_POINTS)]


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]
