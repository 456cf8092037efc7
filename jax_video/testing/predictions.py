"""A file of predictions: a JSON line for each video, added as it comes; a stopped file is continued.

  {"video": "a.mp4", "classes": [{"name": "up", "score": 0.98}, …], "size": 7012, "modified": 1764061329519381203, …}
  {"video": "b.mp4", "error": "empty file", "size": 0, "modified": 1764061329519381203, "key": "5e1c07aa-91d2b0c4-5"}

In multi-label runs each class also has "holds", true or false.

The size in bytes and the time of the last change, in ns, tell whether a path still means the same file: one that has
changed since, or is another of its name, is classified again, and has a further line. Earlier versions wrote neither;
their lines are of whatever file has the name.

The key says what made it: a checksum of the run's weights, one of the test's clips and crops, with the frame rate that
was given if clips need one, and how many classes are listed.
Lines are UTF-8 without line separators, whatever bytes a name has.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from jax_video.data import documents, remote
from jax_video.errors import UserError, writing
from jax_video.run import Run

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LINE = {
    "video": str,
    "classes?": [{"name": str, "score": float, "holds?": bool}],
    "error?": str,
    "size?": int,
    "modified?": int,
    "key": str,
}
_BEGINNING = b'{"video": "'
Stamp: TypeAlias = tuple[int | None, int | None]  # size and time of the last change of a file; None: not known
_OTHERWISE = "Give another file, or move this one away"


def of(
    path: str,
    scores: np.ndarray | str,
    classes: Sequence[str],
    top: int | None,
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:
    """The entry of a video: its `top` best classes, or all (None), by `scores` [K]; or why it cannot be read.

    In multi-label runs, with `thresholds` [K], each class says whether it holds (its score is no less), and all that
    hold are listed.
    """
    if isinstance(scores, str):
        return {"video": path, "error": str(scores)}
    best = np.argsort(-scores, kind="stable")
    found = [{"name": classes[k], "score": float(scores[k])} for k in best[:top]]
    if thresholds is None:
        return {"video": path, "classes": found}
    holds = scores >= thresholds
    chosen = [k for place, k in enumerate(best) if top is None or place < top or holds[k]]
    found = [{"name": classes[k], "score": float(scores[k]), "holds": bool(holds[k])} for k in chosen]
    return {"video": path, "classes": found}


def stamp(path: str) -> Stamp:
    """The stamp of a file, or of a folder of pictures, as it is now; zeros where it cannot be looked at."""
    try:
        return remote.stamp(path)
    except OSError:
        return 0, 0


def line(said: Mapping[str, Any]) -> str:
    """An entry as JSON that is one line for every reader."""
    return documents.line(said).decode().rstrip()


def nearly_in_order(found: Iterable[tuple[int, Any]], most: int = 32) -> Iterator[tuple[int, Any]]:
    """Yield (place, result) in the order of the places, except that no video holds up more than `most` others.

    At Ctrl-C those that were held up still come before it is raised.
    """
    held: dict[int, Any] = {}
    following = 0
    try:
        for place, what in found:
            held[place] = what
            while held and (min(held) <= following or len(held) > most):
                first = min(held)
                following = max(following, first + 1)
                yield first, held.pop(first)
    except KeyboardInterrupt:
        yield from sorted(held.items())
        raise
    yield from sorted(held.items())


class File:
    """The file, to be closed by `with`.

    Args:
      path: of the file; may be there already.
      run, clips, fps: what classifies the videos (`Run.iter_scores`).
      top: how many classes are listed; None: all.

    Attributes:
      path: of the file.
      done: {(video in the file, its stamp): why it cannot be read, or ""}.

    Raises:
      UserError: it holds something else, is of another run, test or `top`, or another process writes it.
      OSError: it cannot be read or written.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        run: Run,
        *,
        clips: int | None = None,
        top: int | None = None,
        fps: float = 0.0,
    ):
        self.path = os.fspath(path)
        self.done: dict[tuple[str, Stamp], str] = {}
        self._key = f"{run.fingerprint:08x}-{_of_test(run, clips, fps):08x}-{top or 'all'}"
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        self._file = open(path, "ab", buffering=0)
        try:
            _lock(self.path, self._file)
            if os.path.isfile(path):  # and not a pipe
                whole, has_end = self._read(run)
                self._file.truncate(whole)
                self._file.write(b"" if has_end else b"\n")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def found(self, video: str, stamp: Stamp) -> str | None:
        """Why a video cannot be read, or "", by the entry of its file as it is now; None: there is no such entry."""
        return self.done.get((video, stamp), self.done.get((video, (None, None))))

    def write(self, said: Mapping[str, Any], stamp: Stamp = (None, None)) -> None:
        """Add the entry of a video, from `of`; it is in the file when this returns.

        Args:
          stamp: of its file, from before it was read.
        """
        known = {} if None in stamp else dict(zip(("size", "modified"), stamp, strict=True))
        with writing(self.path):
            data = memoryview(documents.line({**said, **known, "key": self._key}))
            while data:
                data = data[self._file.write(data) :]
        self.done[said["video"], stamp] = said.get("error", "")

    def look_again(self, run: Run) -> None:
        """Take over what is in the file: Ctrl-C may have come between the writing of a line and its entry in `done`."""
        self._read(run)

    def _read(self, run: Run) -> tuple[int, bool]:
        """Read what is there; return up to which byte it is whole, and whether that is the end of a line."""
        whole = 0
        with open(self.path, "rb") as file:
            for number, value in documents.lines(file, _LINE):
                if isinstance(value, documents.Damaged):
                    if not file.read(1) and _is_torn(self.path, whole):
                        return whole, True
                    raise UserError(f"{self.path}: line {number} is no prediction ({value}). {_OTHERWISE}")
                if value["key"] != self._key:
                    raise UserError(f"{self.path} has predictions {_other(value['key'], self._key, run)}. {_OTHERWISE}")
                self.done[value["video"], (value.get("size"), value.get("modified"))] = value.get("error", "")
                whole = file.tell()
            file.seek(max(0, whole - 1))
            return whole, file.read(1) in (b"\n", b"")


def _lock(path: str, file: BinaryIO) -> None:
    """Lock a file. Raises UserError where another process has locked it; its lock ends with that process."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{path} is written by another process: wait for its end, or give another file") from error
    except OSError:
        pass  # a file system that has no locks


def _is_torn(path: str, place: int) -> bool:
    """Whether the last line of a file is the beginning of one of ours, or what a power loss leaves of it."""
    with open(path, "rb") as file:
        file.seek(place)
        start = file.read(len(_BEGINNING))
        if start.strip(b"\0"):
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n" and _BEGINNING.startswith(start)
        return not any(chunk.strip(b"\0") for chunk in iter(lambda: file.read(2**20), b""))


def _other(theirs: str, ours: str, run: Run) -> str:
    """How predictions differ from ours, in words, by the keys of both."""
    names = (
        f"of other weights than those in {run.folder}",
        "of another test: other clips or crops, or another --fps",
        "with another --top",
    )
    parts = zip(theirs.split("-"), ours.split("-"), names, strict=False)
    return next((name for their, our, name in parts if their != our), names[0])


def _of_test(run: Run, clips: int | None, fps: float) -> int:
    """A checksum of how a test looks at a video. What earlier versions left out is in it only where it counts, so that
    their files can be continued."""
    sampling = dataclasses.asdict(run.sampling)
    if run.sampling.fps is None:
        del sampling["fps"]
    parts = {
        "sampling": sampling,
        "protocol": dataclasses.asdict(run.protocol_with(clips)),
        "objective": repr(run.objective),
        "dtype": run.config.dtype,
        **({} if run.thresholds is None else {"thresholds": run.thresholds.tolist()}),
        **({"fps": fps} if run.sampling.fps is not None and fps else {}),
    }
    return documents.checksum(parts)
