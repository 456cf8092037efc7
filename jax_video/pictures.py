"""Pictures of batches and of results: clips, the confusion matrix, and the coefficients of CoST's views."""

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jax_video import recipe
from jax_video.data import remote
from jax_video.errors import shown
from jax_video.models.cost import VIEWS

COLORS = ("tab:gray", "tab:orange", "tab:blue")  # of the views
NAMED = 100  # classes, at most, for whose names a picture of a confusion matrix has room
EXTREMES = 20  # classes with the most motion, and with the least, where a figure cannot show all
CLIPS, FRAMES = 4, 8  # that are shown of a batch, and of each clip
_GAP, _CAPTION = 2, 18  # pixels: between frames, and for the caption above a clip
_DOTS = 120  # per inch


def strip(batch: Mapping[str, Any], names: Sequence[str] = ()) -> np.ndarray:
    """The first clips of a batch as a network gets them: a row for each clip and stream, frames from left to right.

    Args:
      batch: with "rgb", "flow" or both: uint8 [B, T, H, W, C], or [B, N, T, H, W, C] with N clips of each video.
      names: captions of the clips, above them.

    Returns:
      uint8 [H, W, 3], one picture. For optical flow it shows each frame's first field, x as red and y as green.
    """
    streams = [batch[name][:CLIPS] for name in ("rgb", "flow") if name in batch]
    rows = []
    for place in range(len(streams[0])):
        for stream in streams:
            frames = stream[place].reshape(-1, *stream.shape[-3:])
            frames = frames[np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)]
            if frames.shape[-1] > 3:
                frames = np.concatenate([frames[..., :2], np.full_like(frames[..., :1], 128)], axis=-1)
            rows.append(np.concatenate(np.pad(frames, ((0, 0), (0, _GAP), (0, _GAP), (0, 0))), axis=1))
        if place < len(names):
            caption = text(names[place], _CAPTION)[:, : rows[-1].shape[1]]
            caption = np.pad(caption, ((0, 0), (0, rows[-1].shape[1] - caption.shape[1]), (0, 0)))
            rows.insert(-len(streams), caption)
    return np.concatenate(rows)


def confusion(classes: tuple[str, ...], matrix: np.ndarray) -> np.ndarray:
    """The picture of `plot_confusion`: uint8 [H, W, 3]."""
    return _pixels(_confusion(classes, matrix))


def plot_confusion(path: remote.Path, classes: tuple[str, ...], matrix: np.ndarray) -> None:
    """Draw a confusion matrix [K, K]: a cell's colour is its share of its row, the true class; with up to 30 classes,
    cells show numbers of videos."""
    with remote.path(path).open("wb") as file:
        _confusion(classes, matrix).savefig(file, dpi=_DOTS)


def _confusion(classes: tuple[str, ...], matrix: np.ndarray) -> Any:
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.3 * len(classes) + 2, 4, 30)) if len(classes) <= NAMED else 8.0
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= NAMED:
        ticks, (names, drawn) = range(len(classes)), _labels(classes)
        axes.set_xticks(ticks, names, rotation=90, **drawn)
        axes.set_yticks(ticks, names, **drawn)
    if len(classes) <= 30:
        for (row, column), videos in np.ndenumerate(matrix):
            if videos:
                shade = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, videos, ha="center", va="center", color=shade, fontsize=8)
    return figure


def plot_layers(path: remote.Path, layers: dict[str, dict[str, float]]) -> None:
    """Draw the coefficients of each layer's three views, from the first layer to the last (CoST Fig. 8)."""
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
        figure.savefig(file, dpi=_DOTS)


def plot_classes(path: remote.Path, classes: dict[str, dict[str, float]]) -> None:
    """Draw the coefficients of the motion views by class (CoST Fig. 7); of many, those with the most and the least."""
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
        labels, drawn = _labels(names)
        axes.set_yticks(range(len(names)), labels, **drawn)
        axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    with remote.path(path).open("wb") as file:
        figure.savefig(file, dpi=_DOTS)


def text(line: str, height: int) -> np.ndarray:
    """A line of text, white on black: uint8 [height, W, 3]."""
    dots, margin = 100.0, round(0.4 * height)
    [written], drawn = _labels([line])
    figure = _figure((len(written) + 2) * height / dots, height / dots, layout=None)  # no letter is wider than high
    figure.set(facecolor="black")
    size = 0.6 * height * 72 / dots  # of letters, in points
    place = margin / dots / figure.get_figwidth()
    label = figure.text(place, 0.5, written, color="white", size=size, va="center_baseline", **drawn)
    pixels = _pixels(figure, dots)
    end = round(label.get_window_extent().x1) + margin
    return pixels[:, :end].copy()


def write_on(image: np.ndarray, label: np.ndarray) -> None:
    """Write a label (`text`) into the upper left corner of an image, which is darkened there. Changes the image."""
    label = label[: len(image), : image.shape[1]]
    corner = image[: len(label), : label.shape[1]]
    corner[:] = corner // 3 + label // 3 * 2


def heat(values: np.ndarray) -> np.ndarray:
    """The colours of values from 0 to 1, blue over green to red: uint8 [..., 3]."""
    import matplotlib

    return matplotlib.colormaps["turbo"](values, bytes=True)[..., :3]


def color(number: int) -> tuple[int, ...]:
    """The colour of a class, (red, green, blue) from 0 to 255; the colours repeat after 20 classes."""
    import matplotlib

    return tuple(round(255 * part) for part in matplotlib.colormaps["tab20"](number % 20)[:3])


def _pixels(figure: Any, dots: float = _DOTS) -> np.ndarray:
    """A figure, drawn: uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set(dpi=dots)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _labels(names: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """Names, and how Matplotlib is to draw them: by fonts that have their letters, and without mathematics.

    What no font has is escaped: control characters, bytes that are no UTF-8, and scripts for which none is installed.
    """
    labels = [shown(name).encode(errors="backslashreplace").decode() for name in names]
    families, missing = _fonts(frozenset("".join(labels)))
    if missing:
        recipe.note(
            "Pictures show letters of names by number, as in \\u4e2d, where no installed font has them: install one "
            "that does, such as Noto Sans CJK for Chinese, Japanese and Korean."
        )
    escapes = {ord(letter): letter.encode("ascii", "backslashreplace").decode() for letter in missing}
    return [label.translate(escapes) for label in labels], {"family": families, "parse_math": False}


@functools.lru_cache(32)  # a video's label is drawn again and again
def _fonts(letters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """(families of fonts that have these letters, the usual ones first; letters that no installed font has)."""
    from matplotlib import font_manager, rcParams

    families, missing = list(rcParams["font.family"]), letters
    for family in families:
        missing -= _letters(font_manager.findfont(font_manager.FontProperties(family=[family])))
    if not missing:
        return families, missing
    manager = font_manager.fontManager
    for path in set(font_manager.findSystemFonts()) - {font.fname for font in manager.ttflist}:
        with contextlib.suppress(Exception):  # installed since Matplotlib has made its list; or no font for it
            manager.addfont(path)
    fonts = [font for font in manager.ttflist if "Last Resort" not in font.name]  # it has a box for every letter
    for font in sorted(fonts, key=lambda font: ("CJK" not in font.name, font.style != "normal", font.weight != 400)):
        if has := missing & _letters(font.fname):
            families.append(font.name)
            missing -= has
    return families, missing


@functools.cache
def _letters(path: str) -> frozenset[str]:
    """The letters that a font has: none where its file is gone."""
    from matplotlib import font_manager

    with contextlib.suppress(OSError, RuntimeError):
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    return frozenset()


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """An empty figure of this size in inches."""
    import matplotlib.figure  # takes most of a second, so it is imported only to draw

    return matplotlib.figure.Figure((width, height), layout=layout)
