"""What the runs of evidence.py have found: a file with a line of JSON for each."""

import os
import pathlib
from typing import Any, NamedTuple

from jax_video.data import documents


class Place(NamedTuple):
    """Where a run stands in the comparison that it is of."""

    claim: str
    row: str
    fold: int
    seed: int


class Record:
    """The file; a run that is found again replaces what was found first."""

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self._found: dict[Place, dict[str, Any]] = {}
        for _, line in documents.read_lines(self.path) if self.path.exists() else ():
            if not isinstance(line, documents.Damaged):  # torn by a kill: that run is to be looked at again
                self._found[Place(*(line.pop(field) for field in Place._fields))] = line

    def __contains__(self, place: Place) -> bool:
        return place in self._found

    def get(self, place: Place) -> dict[str, Any] | None:
        return self._found.get(place)

    def of(self, claim: str, row: str) -> list[dict[str, Any]]:
        """What has been found of a row, in all folds and with all seeds."""
        return [found for place, found in sorted(self._found.items()) if place[:2] == (claim, row)]

    def add(self, place: Place, found: dict[str, Any]) -> None:
        line = documents.line(place._asdict() | found)
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n")
        with open(self.path, "ab") as file:
            file.write(b"\n" * torn + line)
        self._found[place] = documents.parse(line)
        for field in Place._fields:
            del self._found[place][field]
