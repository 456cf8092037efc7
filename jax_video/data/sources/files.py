"""Single videos: files, folders of pictures, folders and globs, as they are named on a command line."""

import glob
import os
import pathlib
from collections.abc import Sequence

from jax_video.data.decoding import pictures, probing
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
        for path in [argument] if os.path.exists(argument) else sorted(glob.glob(argument, recursive=True)):
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


def find(paths: Sequence[str], classes: Sequence[str] = ()) -> tuple[Manifest, dict[str, str]]:
    """Decodes video files, to the end, and makes a set of those that can be read.

    Args:
      paths: of files and of folders of pictures.
      classes: the names that a network knows.

    Returns:
      a manifest of the readable ones, in their order, all for test and without labels; {path: why it is not readable}.
    """
    videos, broken = [], {}
    for path in paths:
        try:
            if (reason := finding.fault(path)) is not None and reason != MISSING:
                raise VideoError(path, reason)
            info = probing.probe(path)
        except VideoError as error:
            broken[path] = error.reason
            continue
        absolute = os.path.abspath(path)
        videos.append(Video(absolute, None, "test", error=None, source=absolute, **vars(info)))
    return Manifest("files", tuple(classes), "", tuple(videos)), broken  # absolute paths under no root
