"""Pieces of Markdown."""

import re
from collections.abc import Iterable, Sequence

HEAD = "<!-- Made by `python docs/make` from the code: change that. -->\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; `|` in cells is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def code(text: str) -> str:
    """Inline code; nothing of nothing."""
    return f"`{text}`" if text else ""


def plain(text: str) -> str:
    """Words as they are, whatever Markdown would make of them."""
    return re.sub(r"([\\*_\[\]`])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


def block(text: str, language: str = "text") -> str:
    """A block of code."""
    lines = text.strip("\n")
    return f"```{language}\n{lines}\n```\n"


def page(title: str, *parts: str) -> str:
    """A page of these paragraphs."""
    return "\n".join([f"# {title}\n", HEAD, *parts])
