"""The pages of the documentation as tests see them: their blocks of commands, of Python, and of output."""

import dataclasses
import pathlib
import re
import shlex

from conftest import ROOT

MARK = re.compile(r"<!-- not run: (.+?) -->")
ELSEWHERE = "<!-- of full size -->"  # an output that a small run cannot have
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of a page that a reader would run."""

    page: str  # its file, from the checkout
    line: int
    language: str  # bash or python
    text: str
    mark: str  # why it is not run here; "": it is
    output: str  # what the page shows of its output; "": nothing, or nothing to compare with

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands of this library in it: module and arguments."""
        found, text = [], self.text.replace("\\\n", " ")
        for name, first in re.findall(r"\bfor (\w+) in (\S+)", text):  # of a loop the first round
            text = text.replace(f"${name}", first)
        for line in text.splitlines() if self.language == "bash" else ():
            for words in _simple_commands(re.sub(r"\s#.*", "", line)):
                if words[:3] == ["python", "-m", "jax_video"]:
                    found.append((f"jax_video.{words[3]}" if words[3:] else "jax_video.__main__", words[4:]))
                elif words[:2] == ["python", "-m"] and words[2].startswith("jax_video."):
                    found.append((words[2], words[3:]))
                elif len(words) > 1 and words[0] == "jax-video":
                    found.append((f"jax_video.{words[1]}", words[2:]))
                elif words and words[0].startswith("launch/") or words[:1] == ["sbatch"]:
                    found.append(("jax_video.main", [word for word in words if word.startswith("--")]))
        return found


def _simple_commands(line: str) -> list[list[str]]:
    """The words of each command of a line; of a redirection only its file is left."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";|&"):
            found.append([])
        elif not set(word) <= set("<>"):
            found[-1].append(word)
    return found


def pages() -> list[str]:
    """Those that are written by hand, and README."""
    written = [path for path in (ROOT / "docs").rglob("*.md") if "generated" not in path.parts]
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in written)]


def blocks(page: str) -> list[Block]:
    """The blocks of a page that are to be run, or marked."""
    text = pathlib.Path(ROOT, page).read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    found = []
    for place, fence in enumerate(fences):
        if fence["language"] not in ("bash", "python"):
            continue
        mark = MARK.search(text[: fence.start()].rpartition("\n\n")[2])
        shown = ""
        if place + 1 < len(fences) and not fences[place + 1]["language"]:
            between = text[fence.end() : fences[place + 1].start()]
            if not between.strip():
                shown = fences[place + 1]["text"]
        line = text.count("\n", 0, fence.start()) + 1
        body = re.sub(f"^{fence['indent']}", "", fence["text"], flags=re.MULTILINE)
        found.append(Block(page, line, fence["language"], body, mark[1] if mark else "", shown))
    return found
