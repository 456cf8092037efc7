"""What the runs of evidence.py have found: a file with a line of JSON for each."""

import os
import pathlib
from typing import Any, NamedTuple

from jax_video.data import documents
from jax_video.errors import UserError


class Place(NamedTuple):
    """Where a run stands in the comparison that it is of."""

    claim: str
    row: str
    fold: int
    seed: int


_LINE = {"claim": str, "row": str, "fold": int, "seed": int, "what": int}


class Record:
    """The file. Each line has a checksum of `what` was trained, and on which videos, as a run of the same place may be
    of something else. A run that is found again replaces what was found first."""

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self._found: dict[tuple[Place, int], dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Read the file again, to which other processes may have added lines."""
        for _, line in documents.read_lines(self.path) if self.path.exists() else ():
            if isinstance(line, documents.Damaged):  # torn by a kill: that run is to be looked at again
                continue
            if wrong := documents.defect(line, _LINE):
                raise UserError(f"{self.path} is no record of these runs: {wrong} in a line")
            self._found[Place(*(line[field] for field in Place._fields)), line["what"]] = line

    def get(self, place: Place, what: int) -> dict[str, Any] | None:
        """What was found; None if nothing was, or of something else."""
        return self._found.get((place, what))

    def add(self, place: Place, what: int, found: dict[str, Any]) -> None:
        line = documents.line(place._asdict() | {"what": what} | found)
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n")
        with open(self.path, "ab") as file:
            file.write(b"\n" * torn + line)
        self._found[place, what] = documents.parse(line)
