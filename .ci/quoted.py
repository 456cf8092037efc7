"""Compares a command's output with what pages show of it: `python .ci/quoted.py OUTPUT README.md PAGE...`.

Every "NAME  VALUE %" line of a page has to stand in the output, with a value no further away than a video of the
quickstart's 160, as another processor rounds otherwise.
"""

import pathlib
import re
import sys

FIGURE = re.compile(r"^ +(\S.*?) +(\d+\.\d\d) %$", re.MULTILINE)
found, *shown = (dict(FIGURE.findall(pathlib.Path(name).read_text())) for name in sys.argv[1:])
wrong = [
    f"{page}: {name} {value}, found {found.get(name)}"
    for page, figures in zip(sys.argv[2:], shown, strict=True)
    for name, value in figures.items()
    if name not in found or abs(float(found[name]) - float(value)) > 100 / 160 + 0.01
]
wrong += [f"{page} shows no figure" for page, figures in zip(sys.argv[2:], shown, strict=True) if not figures]
sys.exit("\n".join(wrong) or None)
