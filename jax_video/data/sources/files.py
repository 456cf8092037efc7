"""Single videos: files, folders of pictures, folders and globs, as they are named on a command line."""

import contextlib
import glob
import multiprocessing
import os
import pathlib
import sys
import threading
from collections.abc import Iterator, Sequence

from jax_video.data.decoding import pictures, probing, workers
from jax_video.data.manifest import MISSING, Manifest, Video
from jax_video.data.sources import finding
from jax_video.errors import UserError, VideoError


def named(arguments: Sequence[str]) -> list[str]:
    """The paths of the videos that files, folders and globs name, each once; a folder of numbered pictures is one.

    Raises:
      UserError: nothing is named, or one of the names means no video.
    """
    paths: list[str] = []
    for argument in arguments:
        found: list[str] = []
        for path in [argument] if os.path.exists(argument) else sorted(_matches(argument)):
            if os.path.isdir(path) and not pictures.is_video(os.listdir(path)):
                found += [os.path.join(path, name) for name in finding.find_videos(pathlib.Path(path)).videos]
            else:
                found.append(path)
        if not found:
            raise UserError(f"{argument}: no such file, or no video in that folder or glob.")
        paths.extend(found)
    if not paths:
        raise UserError("no video given: name files, folders or globs; see --help.")
    return list(dict.fromkeys(paths))


def _matches(pattern: str) -> set[str]:
    """What a glob names. `**` stands for a folder and all below it, each once: links can lead in a circle."""
    parts = pattern.replace(os.sep, "/").split("/")
    if "**" not in parts:
        return set(glob.glob(pattern))
    place = parts.index("**")
    above, below = "/".join(parts[:place]), "/".join(parts[place + 1 :])
    if below in ("", "**"):  # what is in a folder that is named is looked for anyway
        return _matches(os.path.join(above, "*" if below == "" else below))
    bases = glob.glob(f"{above}/") if place else [""]
    folders = (folder for base in bases for folder in _folders(base))
    return {path for folder in folders for path in _matches(os.path.join(glob.escape(folder), below))}


def _folders(base: str) -> Iterator[str]:
    """A folder and all below it, but for hidden ones."""
    visited = set()
    for folder, names, _ in os.walk(base or os.curdir, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            names.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield folder if base else os.path.relpath(folder) if folder != os.curdir else ""


TIMEOUT = 300.0  # seconds that one file may take


def find(
    paths: Sequence[str], classes: Sequence[str] = (), *, timeout: float | None = TIMEOUT
) -> tuple[Manifest, dict[str, str]]:
    """Decodes video files, to the end, and makes a set of those that can be read.

    They are read in processes that a decoder may crash or fill (`workers.run`); one of these stays for the next call.

    Args:
      paths: of files and of folders of pictures.
      classes: the names that a network knows.
      timeout: seconds in which a file must go on; None: they are read in this process, without any limit.

    Returns:
      a manifest of the readable ones, in their order, all for test and without labels; {path: why it is not readable}.

    Raises:
      UserError: no such `timeout`, or a process may not start others.
    """
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout <= threading.TIMEOUT_MAX):
        raise UserError(f"timeout is {timeout!r}: expected seconds that one file may take, or None")
    if timeout is not None and paths and multiprocessing.current_process().daemon:
        raise UserError("a daemonic process may not start the processes in which files are read: give timeout=None")
    places = [os.path.abspath(path) for path in paths]
    results = dict(_look_here(places) if timeout is None else _look_in_processes(places, timeout))
    videos, broken = [], {}
    for index, (path, place) in enumerate(zip(paths, places, strict=True)):
        result = results[index]
        if isinstance(result, str):
            broken[path] = result
        else:
            videos.append(Video(place, None, "test", error=None, source=place, **vars(result)))
    return Manifest("files", tuple(classes), "", tuple(videos)), broken  # absolute paths under no root


class _Progress(pictures.Watcher):
    """A file that goes on is not late, however long it is."""

    def go_on(self) -> None:
        workers.go_on()


def _look(path: str) -> probing.VideoInfo:
    """What decoding a file finds; raises VideoError where it cannot be read."""
    if (reason := finding.fault(path)) is not None and reason != MISSING:
        raise VideoError(path, reason)
    return probing.probe(path, watcher=_Progress())


_READERS = workers.Pool(_look)


def start_reader() -> None:
    """Starts the process in which `find` will read a file, so that other work need not wait for it."""
    _READERS.start()


def _look_in_processes(paths: Sequence[str], timeout: float) -> dict[int, probing.VideoInfo | str]:
    processes = min(len(paths), os.cpu_count() or 1)
    try:
        with contextlib.closing(_READERS.run(paths, workers=processes, timeout=timeout)) as results:
            found = dict(results)
    finally:
        _READERS.close(keep=1)
    for trace in {getattr(result, "traceback", ""): None for result in found.values()}:  # of what no one has foreseen
        print(trace, end="", file=sys.stderr)
    return found


def _look_here(paths: Sequence[str]) -> dict[int, probing.VideoInfo | str]:
    found: dict[int, probing.VideoInfo | str] = {}
    for index, path in enumerate(paths):
        try:
            found[index] = _look(path)
        except VideoError as error:
            found[index] = error.reason
    return found
