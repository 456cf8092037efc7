"""Compares a command's output with what README shows of it: `python .ci/quoted.py README.md OUTPUT`.

Every "NAME  VALUE %" line of the output has to stand in README with a value no further than a video of the quickstart's
160 away, as another processor rounds otherwise.
"""

import pathlib
import re
import sys

readme, output = (pathlib.Path(name).read_text() for name in sys.argv[1:])
FIGURE = re.compile(r"^ +(\S.*?) +(\d+\.\d\d) %$", re.MULTILINE)
shown, found = dict(FIGURE.findall(readme)), dict(FIGURE.findall(output))
wrong = [
    f"{name}: README {shown.get(name)}, found {value}"
    for name, value in found.items()
    if name not in shown or abs(float(shown[name]) - float(value)) > 100 / 160 + 0.01
]
sys.exit("\n".join(wrong) if wrong else None if found else "there is no figure in the output")
