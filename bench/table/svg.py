"""Two drawings as SVG, written by hand: lines over a rate, and bars by name. Both on a logarithmic scale of ms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 400, 70, 50, 40
COLOURS = ("#1f6feb", "#79b0ff", "#b35900", "#f0a050")
Points = Sequence[tuple[float, float]]


def _frame(title: str, body: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            'font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
            *body,
            "</svg>\n",
        ]
    )


def _scale(values: list[float]) -> tuple[float, float]:
    """Whole powers of ten around the values."""
    some = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(some))), math.ceil(math.log10(max(some)))
    return low, max(high, low + 1)


def _share(value: float, low: float, high: float) -> float:
    return (math.log10(max(value, 10**low)) - low) / (high - low)


def curves(title: str, across: str, lines: Mapping[str, Points]) -> str:
    """One line for each name; x is linear from zero."""
    low, high = _scale([y for points in lines.values() for _, y in points])
    most = max(x for points in lines.values() for x, _ in points)
    right, base = WIDTH - 140, HEIGHT - BOTTOM

    def place(x: float, y: float) -> str:
        return f"{LEFT + x / most * (right - LEFT):.1f},{base - _share(y, low, high) * (base - TOP):.1f}"

    body = []
    for power in range(int(low), int(high) + 1):
        y = place(0, 10.0**power).split(",")[1]
        body.append(f'<path d="M{LEFT},{y}H{right}" stroke="#dddddd"/>')
        body.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end" dy="4">{10.0**power:g} ms</text>')
    for step in range(5):
        x = place(most * step / 4, 1).split(",")[0]
        body.append(f'<text x="{x}" y="{base + 18}" text-anchor="middle">{most * step / 4:,.0f}</text>')
    body.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(across)}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(f'<text x="{right + 8}" y="{TOP + 18 * number + 4}" fill="{colour}">{escape(name)}</text>')
    return _frame(title, body)


def bars(title: str, values: Mapping[str, float]) -> str:
    """One bar for each name, with its number at the end."""
    low, high = _scale(list(values.values()))
    left, right = 170, WIDTH - 90
    row = (HEIGHT - TOP - 30) / max(1, len(values))
    body = []
    for number, (name, value) in enumerate(values.items()):
        y = TOP + 10 + number * row
        width = _share(value, low, high) * (right - left)
        body.append(f'<rect x="{left}" y="{y:.1f}" width="{width:.1f}" height="{row * 0.6:.1f}" fill="{COLOURS[0]}"/>')
        middle = y + row * 0.3 + 4
        body.append(f'<text x="{left - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')
        body.append(f'<text x="{left + width + 6:.1f}" y="{middle:.1f}">{value:.3g} ms</text>')
    return _frame(title, body)
