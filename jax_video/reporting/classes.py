"""What a test says about the classes: intervals, recall and precision, and which class is taken for which."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jax_video.reporting import charts, page
from jax_video.reporting.page import Cell, Column, percent

ABOUT_RECALL = "Of the videos of this class, how many are answered with it"
ABOUT_INTERVAL = "95 % Wilson interval of the recall"
ABOUT_PRECISION = "Of the videos that are answered with this class, how many are of it"
_PAIRS = 15  # of confused classes in a table, at most


def wilson(right: float, of: int) -> tuple[float, float]:
    """The 95 % interval (low, high) of the share `right` / `of` (Wilson, 1927): never empty, within 0 and 1."""
    if not of:
        return 0.0, 1.0
    z, share = 1.959964, right / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


class Pair(NamedTuple):
    """A class that is taken for another one."""

    true: int
    answered: int
    videos: int


def pairs(confusion: np.ndarray) -> list[Pair]:
    """All classes that are taken for another one, most videos first; of equally many, the larger share first."""
    wrong = confusion - np.diag(np.diag(confusion))
    found = [Pair(int(row), int(column), int(wrong[row, column])) for row, column in np.argwhere(wrong)]
    videos = confusion.sum(axis=1)
    return sorted(found, key=lambda pair: (-pair.videos, videos[pair.true], pair.true, pair.answered))


def table(classes: Sequence[str], confusion: np.ndarray) -> str:
    """A table of every class: videos, recall with its interval, precision, and what it is most often taken for."""
    columns = [
        Column("Class"),
        Column("Videos", True),
        Column("Recall", True, ABOUT_RECALL),
        Column("95 % interval", False, ABOUT_INTERVAL),
        Column("Precision", True, ABOUT_PRECISION),
        Column("Most often taken for"),
    ]
    answered = confusion.sum(axis=0)
    rows = []
    for number, name in enumerate(classes):
        of, right = int(confusion[number].sum()), int(confusion[number, number])
        others = confusion[number].copy()
        others[number] = 0
        other = int(others.argmax())
        taken = Cell(page.DASH, "")
        if others[other]:
            taken = Cell(f"{page.name(classes[other])} <small>{others[other]}×</small>", page.plain(classes[other]))
        rows.append(
            [
                Cell(page.name(name), page.plain(name)),
                Cell(f"{of:,}", of),
                *_recall(right, of),
                page.share(right, int(answered[number])),
                taken,
            ]
        )
    return page.table("Every class of the test", columns, rows, find="class")


def _recall(right: int, of: int) -> tuple[Cell, Cell]:
    if not of:
        return page.share(0, 0), Cell('<span class="dim">no video</span>', -1)
    low, high = wilson(right, of)
    bounds = f'<small class="range">{100 * low:.0f}–{100 * high:.0f}</small>'
    return page.share(right, of), Cell(f"{charts.interval(right / of, low, high)} {bounds}", low)


def pairs_table(classes: Sequence[str], confusion: np.ndarray) -> str:
    """A table of the classes that are most often taken for another one; empty where none is."""
    if not (found := pairs(confusion)):
        return ""
    columns = [
        Column("True class"),
        Column("Answered"),
        Column("Videos", True),
        Column("Share", True, "Of the true class's videos"),
        Column("Reverse", True, "Videos of the second class that are answered with the first"),
    ]
    rows = [
        [
            Cell(page.name(classes[pair.true])),
            Cell(page.name(classes[pair.answered])),
            Cell(f"{pair.videos:,}"),
            Cell(percent(pair.videos / confusion[pair.true].sum(), 0)),
            Cell(f"{confusion[pair.answered, pair.true]:,}"),
        ]
        for pair in found[:_PAIRS]
    ]
    title = f"The {_PAIRS} most confused pairs of {len(found):,}" if len(found) > _PAIRS else "Confused pairs"
    return f"<h3>{title}</h3>{page.table(title, columns, rows)}"
