"""Plots as SVG, as plain as the report needs them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH = 720
LABEL = 110
BAR = 22
OURS = "#0b6e99"
OTHERS = "#9aa5ab"
COLOURS = (OTHERS, OURS, "#c2571a", "#5b8c2a")

Point = tuple[float, float]


def bars(title: str, values: Mapping[str, float], ours: str) -> str:
    """Draw a bar for each name; the scale is logarithmic where the values are far apart."""
    top, room = 34, WIDTH - LABEL - 80
    largest = max(values.values(), default=1) or 1
    smallest = min((value for value in values.values() if value > 0), default=1)
    spread = largest / smallest > 30 and min(values.values()) > 0
    base = 10 ** math.floor(math.log10(smallest)) if spread else 0

    def length(value: float) -> float:
        if not spread:
            return room * value / largest
        return room * math.log10(value / base) / math.log10(largest / base)

    parts: list[str] = []
    for row, (name, value) in enumerate(values.items()):
        y = top + row * BAR
        colour = OURS if name == ours else OTHERS
        parts.append(_text(LABEL - 8, y + 14, name, anchor="end"))
        parts.append(
            f'<rect x="{LABEL}" y="{y + 2}" width="{max(1, length(value)):.1f}" height="{BAR - 6}"'
            f' fill="{colour}"/>'
        )
        parts.append(_text(LABEL + max(1, length(value)) + 6, y + 14, figure(value)))
    full = f"{title} (logarithmic)" if spread else title
    return _page(full, top + BAR * len(values) + 8, parts)


def lines(title: str, series: Mapping[str, Sequence[Point]]) -> str:
    """Draw lines over two logarithmic axes; points of no height are left out."""
    height, left, top, right = 300, 70, 40, WIDTH - 130
    known = {
        name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in series.items()
    }
    points = [point for each in known.values() for point in each]
    if not points:
        return _page(title, top, [])
    low_x, high_x = _decades(x for x, _ in points)
    low_y, high_y = _decades(y for _, y in points)

    def place(x: float, y: float) -> Point:
        across = (math.log10(x) - low_x) / (high_x - low_x)
        up = (math.log10(y) - low_y) / (high_y - low_y)
        return left + across * (right - left), top + (1 - up) * (height - top)

    parts: list[str] = []
    for power in range(low_x, high_x + 1):
        x, _ = place(10**power, 10**low_y)
        parts.append(_line((x, top), (x, height)))
        parts.append(_text(x, height + 18, figure(10**power), anchor="middle"))
    for power in range(low_y, high_y + 1):
        _, y = place(10**low_x, 10**power)
        parts.append(_line((left, y), (right, y)))
        parts.append(_text(left - 8, y + 4, figure(10**power), anchor="end"))
    for colour, (name, known_points) in zip(COLOURS, known.items(), strict=False):
        placed = [place(x, y) for x, y in known_points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        if placed:
            parts.append(_text(placed[-1][0] + 8, placed[-1][1] + 4, name, colour=colour))
    return _page(title, height + 30, parts)


def figure(value: float) -> str:
    """Return a number with as many digits as mean something."""
    if value == 0:
        return "0"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _decades(values: Iterable[float]) -> tuple[int, int]:
    """Return the powers of ten around values."""
    all_values = list(values)
    low, high = math.floor(math.log10(min(all_values))), math.ceil(math.log10(max(all_values)))
    return low, max(high, low + 1)


def _line(start: Point, end: Point) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e3e6e8"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#22282b") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(words)}</text>"
    )


def _page(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
        f' width="{WIDTH}" height="{height:.0f}" font-family="sans-serif" font-size="12">'
    )
    body = [
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="20" font-size="14" fill="#22282b">{escape(title)}</text>',
        *parts,
    ]
    return "\n".join([head, *body, "</svg>", ""])
