"""Pictures of results: the confusion matrix, and what CoST's views count, by layer and by class."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from jax_video.data import remote
from jax_video.errors import shown
from jax_video.models.cost import VIEWS

COLORS = ("tab:gray", "tab:orange", "tab:blue")  # of the views
EXTREMES = 20  # classes with the most motion, and with the least, where a figure cannot show all


def plot_confusion(path: remote.Path, classes: tuple[str, ...], confusion: np.ndarray) -> None:
    """Draws a confusion matrix [K, K]: rows (true classes) sum to one; numbers of videos stand in the cells while they
    can be read."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.3 * len(classes) + 2, 4, 30))
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= 100:
        ticks, names = range(len(classes)), _labels(classes)
        axes.set_xticks(ticks, names, rotation=90, parse_math=False)
        axes.set_yticks(ticks, names, parse_math=False)
    if len(classes) <= 30:
        for (row, column), videos in np.ndenumerate(confusion):
            if videos:
                shade = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, videos, ha="center", va="center", color=shade, fontsize=8)
    with remote.path(path).open("wb") as file:
        figure.savefig(file, dpi=120)


def plot_layers(path: remote.Path, layers: dict[str, dict[str, float]]) -> None:
    """Draws every layer's three views, from the bottom of the network to its top (CoST Fig. 8)."""
    figure = _figure(max(5, 0.5 * len(layers) + 2), 4)
    axes = figure.subplots()
    bottom = np.zeros(len(layers))
    for view, color in zip(VIEWS, COLORS, strict=True):
        share = np.array([row[view] for row in layers.values()])
        bars = axes.bar(list(layers), share, bottom=bottom, color=color, label=view)
        axes.bar_label(bars, fmt="%.2f", label_type="center", fontsize=8)
        bottom += share
    axes.set(xlabel="CoST layer", ylabel="mean coefficient", ylim=(0, 1))
    axes.tick_params(axis="x", rotation=45)
    figure.legend(loc="outside upper center", ncols=3)
    with remote.path(path).open("wb") as file:
        figure.savefig(file, dpi=120)


def plot_classes(path: remote.Path, classes: dict[str, dict[str, float]]) -> None:
    """Draws classes by what motion counts for them (CoST Fig. 7); of many only those with the most and the least."""
    ordered = list(classes)
    parts = {"": ordered}
    if len(ordered) > 2 * EXTREMES:
        parts = {"motion counts most": ordered[:EXTREMES], "motion counts least": ordered[-EXTREMES:]}
    height = 1.5 + 0.25 * max(map(len, parts.values()))
    figure = _figure(6 * len(parts), height)
    panels = figure.subplots(1, len(parts), sharex=True, squeeze=False)[0]
    for axes, (title, names) in zip(panels, parts.items(), strict=True):
        left = np.zeros(len(names))
        for view, color in zip(VIEWS[1:], COLORS[1:], strict=True):
            share = np.array([classes[name][view] for name in names])
            axes.barh(range(len(names)), share, left=left, color=color, label=view)
            left += share
        axes.set(xlabel="mean coefficient", title=title)
        axes.set_yticks(range(len(names)), _labels(names), parse_math=False)
        axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    with remote.path(path).open("wb") as file:
        figure.savefig(file, dpi=120)


def text(line: str, height: int) -> np.ndarray:
    """A line of text, white on black: uint8 [height, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    dots, margin = 100.0, round(0.4 * height)
    figure = _figure((len(line) + 2) * height / dots, height / dots, layout=None)  # no letter is wider than high
    figure.set(dpi=dots, facecolor="black")
    size = 0.6 * height * 72 / dots  # of letters, in points
    place = margin / dots / figure.get_figwidth()
    label = figure.text(place, 0.5, *_labels([line]), color="white", size=size, va="center_baseline", parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    end = round(label.get_window_extent().x1) + margin
    return np.asarray(canvas.buffer_rgba())[:, :end, :3].copy()


def color(number: int) -> tuple[int, ...]:
    """The colour of a class, red, green and blue from 0 to 255; from the 21st on they come again."""
    import matplotlib

    return tuple(round(255 * part) for part in matplotlib.colormaps["tab20"](number % 20)[:3])


def _labels(names: Iterable[str]) -> list[str]:
    """Names without what no font has: control characters, and bytes that are no UTF-8."""
    return [shown(name).encode(errors="backslashreplace").decode() for name in names]


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """An empty figure, in inches."""
    import matplotlib.figure  # takes most of a second, for which no command waits that draws nothing

    return matplotlib.figure.Figure((width, height), layout=layout)
