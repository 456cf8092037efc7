"""The confusion matrix: a table where it is small, and a map with a lens where no table could be read.

With many classes, those that are taken for each other are put side by side, by hierarchical clustering, so that
mistakes form blocks along the diagonal. The map shows the whole; the lens shows a part of it with names and numbers,
first the most confused block.
"""

import numpy as np

from jax_video.reporting import page

TABLE = 32  # classes, at most, of a matrix that is shown as a table
LENS = 16  # classes on a side of the lens
_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)  # the style sheet's colours; the colour-blind can tell them apart


def order(confusion: np.ndarray) -> list[int]:
    """The numbers of the classes in an order that puts those that are confused side by side."""
    from scipy.cluster import hierarchy  # takes half a second; with few classes no command waits for it
    from scipy.spatial import distance

    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    apart = 1 - (share + share.T) / 2
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(distance.squareform(apart, checks=False), "average")
    return hierarchy.leaves_list(tree).tolist()


def section(classes: tuple[str, ...], confusion: np.ndarray) -> str:
    """The matrix, as HTML."""
    if len(classes) <= TABLE:
        return _cells(classes, confusion, range(len(classes)), range(len(classes)))
    found = order(confusion)
    ordered = confusion[np.ix_(found, found)]
    first = _worst_block(ordered)
    names = [page.plain(classes[number], 60) for number in found]
    window = range(first, first + LENS)
    cells = [[int(row), int(column), int(ordered[row, column])] for row, column in np.argwhere(ordered)]
    title = f"All {len(classes)} classes: rows are true, columns answered; mistakes in orange"
    shown = page.picture(_map(ordered), f"Confusion matrix of {len(classes)} classes", kind="map")
    return (
        '<div class="lens-pair"><figure class="overview"><figcaption>' + page.text(title) + "</figcaption>"
        f'<div class="map-box" tabindex="0" role="application" aria-label="Map of the confusion matrix: arrow keys '
        f'move the lens">{shown}<span class="frame"></span></div>'
        '<output class="under">Click, or use the arrow keys, to look closer.</output>'
        '<label class="find">Go to class <input type="search" list="class-names" autocomplete="off"></label>'
        f'<datalist id="class-names">{"".join(f"<option>{page.text(name, 60)}</option>" for name in sorted(names))}'
        "</datalist></figure>"
        f'<div class="lens">{_cells(tuple(names), ordered, window, window)}</div></div>'
        + page.data("confusion-data", {"names": names, "cells": cells, "size": LENS, "first": first})
    )


def _worst_block(ordered: np.ndarray) -> int:
    """The place on the diagonal where the lens sees most mistakes."""
    wrong = ordered - np.diag(np.diag(ordered))
    starts = range(len(ordered) - LENS + 1)
    return max(starts, key=lambda start: wrong[start : start + LENS, start : start + LENS].sum())


def _map(ordered: np.ndarray) -> np.ndarray:
    """A picture with a pixel for each cell, uint8 [K, K, 4], more opaque the larger the cell's share."""
    share = ordered / np.maximum(ordered.sum(axis=1, keepdims=True), 1)
    image = np.zeros((*ordered.shape, 4), np.uint8)
    image[..., :3] = _WRONG
    image[..., 3] = np.where(ordered > 0, 255 * np.clip(0.45 + 2 * share, 0, 1), 0)
    diagonal = np.arange(len(ordered))
    image[diagonal, diagonal, :3] = _RIGHT
    image[diagonal, diagonal, 3] = 255 * np.clip(0.15 + 0.85 * np.diag(share), 0, 1)
    return image


def _cells(names: tuple[str, ...], confusion: np.ndarray, rows: range, columns: range) -> str:
    """A part of a matrix as a table; the page's script draws the same kind of table."""
    videos = np.maximum(confusion.sum(axis=1), 1)
    heads = "".join(f'<th scope="col"><span>{page.name(names[column])}</span></th>' for column in columns)
    lines = []
    for row in rows:
        line = [f'<tr><th scope="row">{page.name(names[row])}</th>']
        for column in columns:
            number = int(confusion[row, column])
            kind = "right" if row == column else "wrong"
            share = f' style="--s:{number / videos[row]:.2f}"' if number else ""
            line.append(f'<td class="{kind}"{share}>{number}</td>' if number else "<td></td>")
        lines.append("".join([*line, "</tr>"]))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="matrix">'
        "<caption>Videos; rows: true class, columns: answered</caption>"
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>\n{chr(10).join(lines)}</tbody></table></div>"
    )
