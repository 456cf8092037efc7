"""The page: text made safe for HTML, its tables, notes and pictures, and the whole document in one file.

Names of classes, videos and folders come from strangers. `text` is the only way into the page: control characters, and
those that turn the direction of writing, are made visible, and what is too long is cut. Should something slip through
all the same, the page's content security policy runs no script but its own, and loads nothing.
"""

import base64
import hashlib
import html
import importlib.resources
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from jax_video.errors import shown

SIGN = b'<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'  # near the beginning of each page
_LONGEST = 90  # letters of a name


def plain(value: object, most: int = _LONGEST) -> str:
    """A name as people can read it: control characters are written out, and a very long name is cut in its middle."""
    name = shown(value).encode(errors="backslashreplace").decode()
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 3 :]}"


def text(value: object, most: int = _LONGEST) -> str:
    """A value as HTML, also within an attribute's quotes."""
    return html.escape(plain(value, most))


def name(value: object) -> str:
    """The name of a class or a video as HTML, with its own direction of writing."""
    return f"<bdi>{text(value)}</bdi>"


def code(value: object) -> str:
    """A command, or the name of a file, as HTML."""
    return f"<code>{text(value, 400)}</code>"


def percent(value: float, digits: int = 1) -> str:
    """A fraction as "98.2 %"."""
    return f"{100 * value:.{digits}f}\u202f%"


def count(number: int, noun: str) -> str:
    """A number and its noun: "1 video", "2 videos"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def paragraph(content: str, kind: str = "") -> str:
    """A paragraph of HTML; `kind` is a class of the style sheet."""
    return f'<p class="{kind}">{content}</p>' if kind else f"<p>{content}</p>"


def note(content: str) -> str:
    """A paragraph of HTML that says what is missing, and how to make it."""
    return f'<p class="note">{content}</p>'


class Column(NamedTuple):
    """A column of a table: its heading, whether it holds numbers, and what the heading means."""

    title: str
    number: bool = False
    about: str = ""


class Cell(NamedTuple):
    """A cell: HTML, and the value by which its column is sorted."""

    content: str
    key: float | str | None = None


DASH = '<span class="dim">–</span>'  # in a cell that has no value


def share(part: int, of: int) -> Cell:
    """A cell with a fraction; of nothing, a dash."""
    return Cell(percent(part / of), part / of) if of else Cell(DASH, -1)


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, find: str = "") -> str:
    """A table; the first cell of each row is its heading.

    Args:
      find: the word for what a row is ("class"): readers can sort the table and look for a row. Empty: they cannot.
    """
    heads, lines = [], []
    for column in columns:
        about = f' title="{text(column.about, 300)}"' if column.about else ""
        title = f'<button type="button">{text(column.title)}</button>' if find else text(column.title)
        heads.append(f'<th scope="col"{" class=n" if column.number else ""}{about}>{title}</th>')
    for row in rows:
        cells = []
        for place, (column, cell) in enumerate(zip(columns, row, strict=True)):
            tag = 'th scope="row"' if place == 0 else "td"
            key = "" if cell.key is None or not find else f' data-key="{text(cell.key)}"'
            cells.append(f"<{tag}{' class=n' if column.number else ''}{key}>{cell.content}</{tag[:2]}>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    box = ""
    if find:
        box = (
            f'<label class="find">Find a {text(find)} <input type="search" autocomplete="off"></label>'
            f'<output class="found">{len(lines):,} of {len(lines):,}</output>'
        )
    about, kinds = text(caption, 300), (" long", " class=sorts") if find else ("", "")
    return (
        f'<div class="table{kinds[0]}"><div class="tools">{box}</div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{about}"><table{kinds[1]}>'
        f"<caption>{about}</caption><thead><tr>{''.join(heads)}</tr></thead><tbody>\n"
        + "\n".join(lines)
        + "</tbody></table></div></div>"
    )


def facts(title: str, rows: dict[str, str]) -> str:
    """A short list of names and values; the values are HTML, and empty ones are left out."""
    items = "".join(f"<div><dt>{text(key)}</dt><dd>{value}</dd></div>" for key, value in rows.items() if value)
    return f'<div class="facts"><h3>{text(title)}</h3><dl>{items}</dl></div>'


def picture(image: np.ndarray, alt: str, *, kind: str = "") -> str:
    """An image within the page: uint8 [H, W, 3] as JPEG, or with transparency [H, W, 4] as PNG."""
    alpha = image.shape[2] == 4
    order = cv2.COLOR_RGBA2BGRA if alpha else cv2.COLOR_RGB2BGR
    done, data = cv2.imencode(
        ".png" if alpha else ".jpg", cv2.cvtColor(image, order), [] if alpha else [cv2.IMWRITE_JPEG_QUALITY, 82]
    )
    assert done
    height, width = image.shape[:2]
    return (
        f'<img{f" class={kind}" if kind else ""} width="{width}" height="{height}" alt="{text(alt, 300)}" '
        f'src="data:image/{"png" if alpha else "jpeg"};base64,{base64.b64encode(data.tobytes()).decode()}">'
    )


def data(anchor: str, value: Any) -> str:
    """A value for the page's script to read, as JSON; each string in it has been through `plain`."""
    content = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<script type="application/json" id="{anchor}">{content}</script>'


def document(title: str, lead: str, parts: dict[str, str], foot: str) -> bytes:
    """The whole page: HTML in UTF-8.

    Args:
      title: plain text.
      lead: HTML below the title.
      parts: the sections by their headings, HTML; empty ones are left out.
      foot: HTML below all.
    """
    style, script = (
        importlib.resources.files(__package__).joinpath(file).read_text(encoding="utf-8").strip()
        for file in ("page.css", "page.js")
    )
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{own}'"
    shown = {heading: content for heading, content in parts.items() if content}
    links = "".join(f'<a href="#{_anchor(heading)}">{text(heading)}</a>' for heading in shown)
    sections = "\n".join(
        f'<section aria-labelledby="{_anchor(heading)}"><h2 id="{_anchor(heading)}">{text(heading)}</h2>\n'
        f"{content}\n</section>"
        for heading, content in shown.items()
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(title, 200)}</title>\n<style>\n{style}\n</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{text(title, 200)}</h1>\n<p class="lead">{lead}</p>\n'
        f'<nav aria-label="Contents">{links}</nav>\n</header>\n<main>\n{sections}\n</main>\n'
        f"<footer>{foot}</footer>\n<script>{script}</script>\n</body>\n</html>\n"
    ).encode()


def _anchor(heading: str) -> str:
    return "-".join(heading.lower().split())
