"""The videos below a folder, and what else lies there: what sources share."""

import collections
import errno
import os
import pathlib
import posixpath
import re
import stat
from typing import NamedTuple

from jax_video.data.decoding import pictures
from jax_video.data.manifest import MISSING
from jax_video.data.sources import text
from jax_video.errors import UserError

EXTENSIONS = frozenset(
    (
        ".264 .265 .3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2t .m2ts .m2v .m4v "
        ".mjpeg .mjpg .mkv .mov .mp4 .mpe .mpeg .mpg .mpv .mts .mxf .nut .obu .ogm .ogv .qt .rm .rmvb .ts .vob .webm "
        ".wmv .y4m"
    ).split()
)
_PREVIEWS = frozenset((".gif",))  # of a folder of pictures, beside them
_ARCHIVES = frozenset(".7z .bz2 .gz .rar .tar .tbz2 .tgz .txz .xz .zip .zst".split())
LOOKED_FOR = f"{' '.join(sorted(EXTENSIONS))} and folders of numbered pictures"
_SYSTEM = frozenset(("lost+found", "System Volume Information", "$RECYCLE.BIN"))  # of a disk, which one may not read


class Found(NamedTuple):
    """What is below a folder."""

    videos: list[str]  # relative to it, in natural order
    ignored: collections.Counter  # how many other files there are, by extension; of what is no file, by path\0reason
    faults: dict[str, str]  # of the videos that are no file: why not


def find_videos(root: pathlib.Path) -> Found:
    """All videos below root.

    A video is a file with a video's extension, or a folder of numbered pictures without such files or other folders.
    Symbolic links are followed, each folder once. Hidden files and folders are not looked at.

    Raises:
      UserError: a folder cannot be listed, so that its videos would be missed.
    """
    check_folder(root)
    found = Found([], collections.Counter(), {})
    _walk(os.fspath(root), "", found, set())
    return found


def fault(path: str | os.PathLike) -> str | None:
    """Why what a path names is neither a file nor a folder, such as MISSING; None where it is one."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return MISSING if isinstance(error, FileNotFoundError) else _reason(error)
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else _NO_FILE


_FILE, _FOLDER = "file", "folder"
_NO_FILE = "not a file: a pipe, a socket or a device"


def _reason(error: OSError) -> str:
    """Why an entry of a folder cannot be used."""
    if error.errno == errno.ELOOP:
        return "not a file: a symbolic link that leads in a circle"
    return f"cannot be read ({error.strerror or error})"


def _walk(folder: str, inside: str, found: Found, visited: set[tuple]) -> None:
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        entries = sorted(_entries(folder), key=lambda entry: natural(entry[0]))
    except FileNotFoundError as error:
        if not inside:
            raise _cannot_list(folder, error) from error
        found.ignored["removed meanwhile"] += 1
        return
    except OSError as error:
        raise _cannot_list(folder, error) from error

    extensions = [None if kind == _FOLDER else os.path.splitext(name)[1].lower() for name, kind in entries]
    if inside and None not in extensions and (EXTENSIONS - _PREVIEWS).isdisjoint(extensions):
        if pictures.is_video(name for name, _ in entries):
            found.videos.append(inside)
            return
    for (name, kind), extension in zip(entries, extensions, strict=True):
        path = f"{inside}/{name}" if inside else name
        if kind == _FOLDER:
            _walk(f"{folder}/{name}", path, found, visited)
        elif extension in EXTENSIONS:
            found.videos.append(path)
            if kind != _FILE:
                found.faults[path] = kind
        else:
            found.ignored[(extension or "no extension") if kind == _FILE else f"{path}\0{kind}"] += 1


def _entries(folder: str) -> list[tuple[str, str]]:
    """(name, _FILE, _FOLDER or why it is neither) of what is in a folder, without what is hidden or the system's."""
    with os.scandir(folder) as entries:
        return [
            (entry.name, _kind(folder, entry))
            for entry in entries
            if not entry.name.startswith(".") and entry.name not in _SYSTEM
        ]


def _kind(folder: str, entry: os.DirEntry) -> str:
    """_FILE, _FOLDER or why an entry is neither, so that one bad entry does not cost the others in its folder."""
    try:
        if entry.is_dir():
            return _FOLDER
        if entry.is_file():
            return _FILE
        return "not a file: a symbolic link to nothing" if entry.is_symlink() else _NO_FILE
    except OSError as error:
        if error.errno != errno.ELOOP and not os.path.splitext(entry.name)[1]:  # a folder, as far as can be told
            raise _cannot_list(f"{folder}/{entry.name}", error) from error
        return _reason(error)


def _cannot_list(folder: str, error: OSError) -> UserError:
    return UserError(
        f"cannot list the folder {folder} ({error.strerror or error}), so that its videos would be missed: make it "
        "readable, mount it again or move it elsewhere, and run the same command again"
    )


def folders_in(path: pathlib.Path) -> list[str]:
    """The sorted names of the folders in one."""
    try:
        return sorted(name for name, kind in _entries(os.fspath(path)) if kind == _FOLDER)
    except OSError as error:
        raise _cannot_list(os.fspath(path), error) from error


def check_folder(path: pathlib.Path) -> None:
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; --videos names the folder with the videos")


def ignored_note(ignored: collections.Counter) -> list[str]:
    """Notes on what is no video: how many files there are of each extension, and which entries are no files."""
    if not ignored:
        return []
    counts: collections.Counter[str] = collections.Counter()
    strange = []
    for key, count in ignored.items():
        path, _, kind = key.rpartition("\0")
        counts[kind.split(":")[0]] += count
        strange += [f"{path} ({kind})"] if path else []
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts.most_common(5))
    notes = [f"ignored, as no videos: {ignored.total()} files ({kinds})", *_no_videos(ignored)]
    if strange:
        notes.append(f"warning: were these folders, their videos are missed: {text.some(strange)}")
    return notes


def instead(ignored: collections.Counter) -> str:
    """What to add where no video was found: what is there that may hold some."""
    return "".join(f"; {note.removeprefix('warning: ')}" for note in _no_videos(ignored))


def _no_videos(ignored: collections.Counter) -> list[str]:
    """Notes on archives and on single pictures."""
    notes = []
    for extensions, what in (
        (_ARCHIVES, "archives are not looked into; unpack them"),
        (pictures.EXTENSIONS, "a picture is no video; a folder of numbered ones is, as image_00001.jpg and so on"),
    ):
        counts = [f"{kind} {count}" for kind, count in ignored.most_common() if kind in extensions]
        notes += [f"warning: {what} (found: {', '.join(counts)})"] if counts else []
    return notes


def without_extension(path: str) -> str:
    """A path without a video's extension; the name of a folder of pictures may have dots and is whole."""
    base, extension = posixpath.splitext(path)
    return base if extension.lower() in EXTENSIONS else path


def stem(path: str) -> str:
    """The last part of a path, without a video's extension."""
    return posixpath.basename(without_extension(path))


def natural(name: str) -> tuple:
    """A sort key that puts clip 2 before clip 10."""
    return [int(part) if part.isdecimal() else part.casefold() for part in re.split(r"(\d+)", name)], name
