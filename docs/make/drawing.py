"""Figures in SVG, of a few shapes. Colours are such that they can be seen on white and on black."""

import html
import math
from collections.abc import Iterable, Sequence

INK = "#7a828e"
FILLS = ("#4c8dd6", "#d98b3a", "#4aa877", "#b06fc4", "#c9595f")
_FONT = "font-family='system-ui, sans-serif'"


def svg(width: float, height: float, title: str, shapes: Iterable[str]) -> str:
    """A figure of these shapes."""
    marker = (
        f"<marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        f"<path d='M0 0 8 4 0 8z' fill='{INK}'/></marker>"
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' width='{width:g}' "
        f"height='{height:g}' role='img'><title>{html.escape(title)}</title><defs>{marker}</defs>\n"
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, *, size: float = 13, anchor: str = "middle", bold: bool = False) -> str:
    """Words, of one line or several, the first one's base at y."""
    lines = words.split("\n")
    spans = "".join(
        f"<tspan x='{x:g}' dy='{0 if place == 0 else size * 1.3:g}'>{html.escape(line)}</tspan>"
        for place, line in enumerate(lines)
    )
    weight = " font-weight='600'" if bold else ""
    place = f"x='{x:g}' y='{y:g}' font-size='{size:g}' text-anchor='{anchor}'"
    return f"<text {place} fill='{INK}' {_FONT}{weight}>{spans}</text>"


def box(x: float, y: float, width: float, height: float, words: str, *, fill: str = FILLS[0], size: float = 13) -> str:
    """A box with words in its middle."""
    lines = words.count("\n")
    middle = y + height / 2 + size * 0.35 - lines * size * 0.65
    shape = (
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='5' fill='{fill}' fill-opacity='.16' "
        f"stroke='{fill}' stroke-width='1.5'/>"
    )
    return shape + text(x + width / 2, middle, words, size=size)


def circle(x: float, y: float, words: str, *, fill: str) -> str:
    """A circle with a sign in it: what is added or multiplied."""
    return (
        f"<circle cx='{x:g}' cy='{y:g}' r='12' fill='{fill}' fill-opacity='.16' stroke='{fill}' "
        "stroke-width='1.5'/>" + text(x, y + 5, words, size=15)
    )


def arrow(*points: tuple[float, float], dashed: bool = False) -> str:
    """A line through these points, with a tip."""
    path = " ".join(f"{x:g} {y:g}" for x, y in points)
    dash = " stroke-dasharray='5 4'" if dashed else ""
    return f"<path d='M{path}' fill='none' stroke='{INK}' stroke-width='1.5'{dash} marker-end='url(#tip)'/>"


def cuboid(x: float, y: float, width: float, height: float, depth: float, *, fill: str) -> str:
    """A cuboid whose front's lower left corner is at (x, y)."""
    d = depth * 0.5
    faces = (
        ((x, y), (x + width, y), (x + width, y - height), (x, y - height)),
        ((x, y - height), (x + width, y - height), (x + width + d, y - height - d), (x + d, y - height - d)),
        ((x + width, y), (x + width + d, y - d), (x + width + d, y - height - d), (x + width, y - height)),
    )
    return "".join(
        f"<polygon points='{' '.join(f'{a:g},{b:g}' for a, b in face)}' fill='{fill}' fill-opacity='0.2' "
        f"stroke='{fill}' stroke-width='1.2' stroke-linejoin='round'/>"
        for face in faces
    )


def parts(rows: Sequence[tuple[str, Sequence[tuple[str, tuple[int, ...], int | None]]]], title: str) -> str:
    """Outputs of the parts of a network, [(stream, [(part, shape [T, H, W, C] or [K], parameters)])]."""
    pitch, tall = 118.0, 205.0
    shapes, most = [], max(len(outputs) for _, outputs in rows)
    left = 90.0 if any(stream for stream, _ in rows) else 10.0
    for number, (stream, outputs) in enumerate(rows):
        base = (number + 1) * tall - 62
        if stream:
            shapes.append(text(8, base - 30, stream, anchor="start", bold=True))
        for place, (part, shape, parameters) in enumerate(outputs):
            x = left + place * pitch
            three = len(shape) == 4 and math.prod(shape[:3]) > 1
            frames, height, wide = shape[:3] if three else (1, 0, 0)
            width = 9 + 6.5 * math.log2(1 + frames)
            high = 7 + 6.3 * math.sqrt(height) if three else 46
            fill = FILLS[1] if part == "clip" else FILLS[4] if not three or part == "classifier" else FILLS[0]
            shapes.append(cuboid(x + 20, base, width, high, 5 + 2.6 * math.sqrt(wide) if three else 0, fill=fill))
            label = "×".join(map(str, shape))
            below = f"{part}\n{label}" + (f"\n{_short(parameters)}" if parameters else "")
            shapes.append(text(x + 46, base + 19, below, size=11.5))
            if place + 1 < len(outputs):
                shapes.append(arrow((x + 98, base - 22), (x + 132, base - 22)))
    return svg(left + most * pitch + 6, len(rows) * tall + 6, title, shapes)


def _short(number: int) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
