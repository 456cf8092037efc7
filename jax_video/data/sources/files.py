"""Single videos: files, folders of pictures, folders and globs, as they are named on a command line."""

import glob
import os
import pathlib
from collections.abc import Iterator, Sequence

from jax_video.data.sources import finding
from jax_video.errors import UserError


def named(arguments: Sequence[str]) -> list[str]:
    """The paths of the videos that files, folders and globs name, each once; a folder of numbered pictures is one.

    Raises:
      UserError: nothing is named, or one of the names means no video.
    """
    paths: list[str] = []
    for argument in arguments:
        found: list[str] = []
        for path in [argument] if os.path.exists(argument) else sorted(_matches(argument)):
            if os.path.isdir(path) and not finding.is_video(path):
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
    if below in ("", "**"):  # folders that are named are searched anyway
        return _matches(os.path.join(above, "*" if below == "" else below))
    bases = glob.glob(f"{above}/") if place else [""]
    folders = (folder for base in bases for folder in _folders(base))
    return {path for folder in folders for path in _matches(os.path.join(glob.escape(folder), below))}


def _folders(base: str) -> Iterator[str]:
    """A folder and all below it, except for hidden ones."""
    visited = set()
    for folder, names, _ in os.walk(base or os.curdir, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            names.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield folder if base else os.path.relpath(folder) if folder != os.curdir else ""
