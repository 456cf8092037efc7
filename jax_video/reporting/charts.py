"""Charts as SVG, drawn in the page's own colours: curves, intervals, and bars of shares."""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jax_video.reporting.page import percent, plain, text

WIDTH, HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 42  # margins
_POINTS = 300  # of a curve, at most
_LOG = 30  # an axis is logarithmic where the largest value is so many times the smallest

Point = tuple[float, float]


class Curve(NamedTuple):
    """A line of a chart."""

    label: str
    points: Sequence[Point]  # (x, y), x ascending
    kind: str  # classes of the style sheet: "a" or "b" is its colour, "thin" how it is drawn


def thinned(points: Sequence[Point]) -> tuple[list[Point], int]:
    """(at most 300 points, how many neighbours each is the mean of)."""
    size = math.ceil(len(points) / _POINTS) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in groups], size


def lines(title: str, x_label: str, y_label: str, curves: Sequence[Curve], *, share: bool = False) -> str:
    """A figure, as HTML, with a legend: curves over steps, or over what `x_label` says.

    Args:
      share: values are fractions, shown in per cent, on an axis from 0 to 100 %.
    """
    drawn = [(curve, *thinned(curve.points)) for curve in curves if curve.points]
    values = [y for _, points, _ in drawn for _, y in points]
    right = max(1, *(x for _, points, _ in drawn for x, _ in points))
    positive = [value for value in values if value > 0]
    log = not share and len(positive) == len(values) and max(values) > _LOG * min(values)
    low, high, ticks = (0.0, 1.0, [0, 0.25, 0.5, 0.75, 1]) if share else _axis(values, log)
    place: Callable[[float], float] = math.log10 if log else float

    def across(x: float) -> float:
        return round(_LEFT + x / right * (WIDTH - _LEFT - _RIGHT), 1)

    def down(y: float) -> float:
        part = (place(min(max(y, low), high)) - place(low)) / (place(high) - place(low))
        return round(HEIGHT - _BOTTOM - part * (HEIGHT - _TOP - _BOTTOM), 1)

    shown = (lambda value: f"{100 * value:g}") if share else _short
    parts = [
        f'<path class="grid" d="M{_LEFT} {down(y)}H{WIDTH - _RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{down(y) + 4}" text-anchor="end">{shown(y)}</text>'
        for y in ticks
    ]
    steps = [x for x in _ticks(0, right, 5) if x <= right]
    for x in steps:
        parts.append(
            f'<text class="tick" x="{across(x)}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_short(x)}</text>'
        )
    unit = " (%)" if share else " (log scale)" if log else ""
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    parts += [
        f'<path class="axis" d="M{_LEFT} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>',
        f'<text class="label" x="{(WIDTH + _LEFT - _RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{text(x_label)}</text>",
        f'<text class="label" transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
        f"{text(y_label + unit)}</text>",
    ]
    for curve, points, _ in drawn:
        path = "L".join(f"{across(x)} {down(y)}" for x, y in points)
        readings = ",".join(f"{round(x, 4):.12g} {shown(float(f'{y:.4g}'))}" for x, y in points)
        parts.append(
            f'<path class="curve {curve.kind}" d="M{path}" data-label="{text(curve.label)}" data-values="{readings}"/>'
        )
        if len(points) <= 40:
            dots = (
                f'<circle cx="{across(x)}" cy="{down(y)}" r="3">'
                f"<title>{text(x_label)} {round(x, 3):,}: {shown(round(y, 4))}</title></circle>"
                for x, y in points
            )
            parts.append(f'<g class="dots {curve.kind}">{"".join(dots)}</g>')
    keys = "".join(
        f'<span class="key {curve.kind}">{text(curve.label)}'
        f"{f' <small>(each point: mean of {size} rows)</small>' if size > 1 else ''}</span>"
        for curve, _, size in drawn
    )
    said = "; ".join(
        f"{curve.label} from {points[0][1]:.3g} to {points[-1][1]:.3g} at {x_label} {points[-1][0]:g}"
        for curve, points, _ in drawn
    )
    return (
        f'<figure class="chart"><figcaption>{text(title)} {keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" data-x="{text(x_label)}" role="img" '
        f'aria-label="{text(f"{title}: {said}", 600)}">'
        + "".join(parts)
        + '<path class="at"/></svg><output class="read"></output></figure>'
    )


def _axis(values: Sequence[float], log: bool) -> tuple[float, float, list[float]]:
    """(lowest, highest, ticks) of an axis that holds the values; a linear one begins at 0, or below it."""
    if log:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        every = math.ceil((high - low) / 5)
        return 10.0**low, 10.0**high, [10.0**power for power in range(low, high + 1, every)]
    ticks = _ticks(min(0.0, *values), max(*values, 1e-9), 4)
    return ticks[0], ticks[-1], ticks


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` or below to `high` or above, 1, 2 or 5 times a power of ten apart."""
    apart = (high - low) / most
    power = 10.0 ** math.floor(math.log10(apart))
    steps = [1, 2, 5, 10]
    step = power * steps[min(bisect.bisect_left(steps, apart / power - 1e-9), 3)]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _short(value: float) -> str:
    """A number on an axis: "0.001", "5", "20k"."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:.4g}"


def interval(value: float, low: float, high: float, kind: str = "a", size: int = 96) -> str:
    """A fraction with its interval, on a line from 0 to 100 %, as SVG."""
    return (
        f'<svg class="interval {kind}" viewBox="0 0 {size} 14" width="{size}" height="14" role="img" '
        f'aria-label="{percent(low, 0)} to {percent(high, 0)}"><path class="grid" d="M0 7H{size}"/>'
        f'<path class="range" d="M{low * size:.1f} 7H{max(high * size, low * size + 1):.1f}"/>'
        f'<circle cx="{min(max(value * size, 3), size - 3):.1f}" cy="7" r="3"/></svg>'
    )


def shares(title: str, rows: Mapping[str, Sequence[float]], kinds: Sequence[tuple[str, str]]) -> str:
    """A figure, as HTML: bars, one below the other, each of shares that sum to one.

    Args:
      rows: {name: the share of each kind}.
      kinds: (name, class of the style sheet) of each kind.
    """
    high, left, width = 22, 150, WIDTH - 150
    parts = []
    for place, (name, row) in enumerate(rows.items()):
        y, x = place * high, float(left)
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 15}" text-anchor="end">{text(name, 22)}</text>')
        for (label, kind), value in zip(kinds, row, strict=True):
            share = min(max(value, 0.0), 1.0)
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y + 2}" width="{share * width:.1f}" height="{high - 4}">'
                f"<title>{text(name)}, {text(label)}: {share:.3f}</title></rect>"
            )
            if share > 0.1:
                parts.append(f'<text class="on" x="{x + share * width / 2:.1f}" y="{y + 15}">{share:.2f}</text>')
            x += share * width
    keys = "".join(f'<span class="key {kind}">{text(label)}</span>' for label, kind in kinds)
    said = "; ".join(f"{plain(name)}: {', '.join(f'{share:.2f}' for share in row)}" for name, row in rows.items())
    return (
        f'<figure class="chart"><figcaption>{text(title)} {keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {high * len(rows)}" role="img" aria-label="{text(f"{title}. {said}", 900)}">'
        + "".join(parts)
        + "</svg></figure>"
    )
