"""The videos below a folder, and what else lies there: what sources share."""

import collections
import contextlib
import errno
import os
import posixpath
import re
import stat
from typing import NamedTuple

import fsspec

from jax_video.data import remote
from jax_video.data.decoding import fetching, pictures
from jax_video.data.manifest import EXTENSIONS, MISSING
from jax_video.data.sources import text
from jax_video.errors import UserError, VideoError

_PREVIEWS = frozenset((".gif",))  # may lie beside the pictures of a folder
_ARCHIVES = frozenset(".7z .bz2 .gz .rar .tar .tbz2 .tgz .txz .xz .zip .zst".split())
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face's VideoFolder
LOOKED_FOR = f"{' '.join(sorted(EXTENSIONS))} and folders of numbered pictures"
# Folders that systems and tools put among others, besides hidden ones: those of disks, which may not be readable, of
# macOS and its archives, and of network drives, with previews and deleted files.
_JUNK = frozenset(
    name.casefold()
    for name in (
        "lost+found", "System Volume Information", "$RECYCLE.BIN", "RECYCLER", "Recycled", "found.000",
        "__MACOSX", "Network Trash Folder", "Temporary Items",
        "@eaDir", "@tmp", "@Recycle", "@Recently-Snapshot", "#recycle", "#snapshot", "~snapshot",
        "__pycache__",
    )
)  # fmt: skip

_DEEPEST = 400  # folders in one another, at most, since they are searched by recursion


class Found(NamedTuple):
    """What is below a folder."""

    videos: list[str]  # relative to it, in natural order
    ignored: collections.Counter  # how many other files there are, by extension; what is not a file, by path\0reason
    faults: dict[str, str]  # why a video is not a file, for those that are none
    passed: collections.Counter[str]  # how many folders of each name were skipped: hidden ones, and systems' own
    linked: list[str]  # folders that were met before by another path, whose videos count there


def find_videos(root: remote.Path) -> Found:
    """All videos below root, which may lie in a store.

    A video is a file with a video's extension, or a folder of numbered pictures without such files or other folders.
    Symbolic links are followed, each folder once. Hidden files and folders are not looked at, nor those that systems
    and tools put among others, such as __MACOSX and @eaDir.

    Raises:
      UserError: a folder cannot be listed, so that its videos would be missed.
    """
    check_folder(root)
    if remote.is_remote(root):
        fsspec.core.url_to_fs(os.fspath(root))[0].invalidate_cache()  # what is there now
    found = Found([], collections.Counter(), {}, collections.Counter(), [])
    _walk(os.fspath(root), "", found, set())
    return found


def fault(path: str | os.PathLike) -> str | None:
    """Why a path is neither that of a file nor of a folder, such as MISSING; None if it is."""
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
        if not remote.is_remote(folder):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                found.linked.append(inside)
                return
            visited.add((status.st_dev, status.st_ino))
        entries = sorted(_entries(folder, found.passed), key=lambda entry: natural(entry[0]))
    except FileNotFoundError as error:
        if not inside:
            raise _cannot_list(folder, error) from error
        found.ignored["removed meanwhile"] += 1
        return
    except OSError as error:
        raise _cannot_list(folder, error) from error

    if inside and _are_one_video(entries):
        found.videos.append(inside)
        if remote.is_remote(folder):
            found.faults[inside] = "a folder of pictures in a store: copy it to a disk"
        return
    for (name, kind), extension in zip(entries, map(_extension, entries), strict=True):
        path = f"{inside}/{name}" if inside else name
        if kind == _FOLDER:
            if path.count("/") == _DEEPEST:
                raise UserError(f"{folder} is in more than {_DEEPEST} folders below --videos: move it higher, or away")
            _walk(f"{folder}/{name}", path, found, visited)
        elif extension in EXTENSIONS:
            found.videos.append(path)
            if kind != _FILE:
                found.faults[path] = kind
        else:
            found.ignored[(extension or "no extension") if kind == _FILE else f"{path}\0{kind}"] += 1


def is_video(folder: str | os.PathLike) -> bool:
    """Whether a folder is one video: numbered pictures, without a video's file or another folder among them.

    Raises:
      UserError: it cannot be listed.
    """
    try:
        return _are_one_video(_entries(os.fspath(folder)))
    except OSError as error:
        raise _cannot_list(os.fspath(folder), error) from error


def _are_one_video(entries: list[tuple[str, str]]) -> bool:
    extensions = [*map(_extension, entries)]
    if None in extensions or not (EXTENSIONS - _PREVIEWS).isdisjoint(extensions):
        return False
    return pictures.is_video(name for name, _ in entries)


def _extension(entry: tuple[str, str]) -> str | None:
    """The extension of an entry's name, in small letters; None of a folder."""
    return None if entry[1] == _FOLDER else os.path.splitext(entry[0])[1].lower()


def _entries(folder: str, passed: collections.Counter[str] | None = None) -> list[tuple[str, str]]:
    """(name; _FILE, _FOLDER or why it is neither) of what is in a folder, except what is hidden or a system's own.

    Folders that are left out are counted in `passed`.
    """
    if remote.is_remote(folder):
        return _entries_of_store(folder)
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.casefold() not in _JUNK:
                found.append((entry.name, _kind(folder, entry)))
            elif passed is not None:
                with contextlib.suppress(OSError):
                    passed[entry.name] += entry.is_dir()
    return found


def _entries_of_store(folder: str) -> list[tuple[str, str]]:
    with remote.reaching(folder):
        store, inside = fsspec.core.url_to_fs(folder)
        found = {
            entry["name"].rstrip("/").removeprefix(f"{inside}/"): _FOLDER if entry["type"] == "directory" else _FILE
            for entry in store.ls(inside, detail=True)
        }
    # Some stores have an empty file of the folder's own name.
    return [item for item in found.items() if "/" not in item[0] and not item[0].startswith(".") and item[0]]


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


def size(path: remote.Path) -> int:
    """Bytes of a file; more than 0 for a folder on a disk; 0 if it cannot be looked at."""
    try:
        return fetching.stamp(path)[0] if remote.is_remote(path) else os.stat(path).st_size
    except (OSError, VideoError):
        return 0


def folders_in(path: remote.Path) -> list[str]:
    """The sorted names of the folders in a folder."""
    try:
        return sorted(name for name, kind in _entries(os.fspath(path)) if kind == _FOLDER)
    except OSError as error:
        raise _cannot_list(os.fspath(path), error) from error


def folders_below(root: remote.Path) -> list[str]:
    """A folder and all below it, as paths relative to it, except for those that `find_videos` skips."""
    found, waiting = [], [("", 0)]
    visited: set[tuple] = set()
    while waiting:
        inside, depth = waiting.pop()
        path = root / inside
        if not remote.is_remote(path):
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
        found.append(inside)
        if depth < _DEEPEST:
            waiting += [(f"{inside}/{name}" if inside else name, depth + 1) for name in reversed(folders_in(path))]
    return found


def check_folder(path: remote.Path) -> None:
    """Raise UserError if there is no such folder."""
    with remote.reaching(path):
        is_folder = path.is_dir()
    if not is_folder:
        raise UserError(f"{path} is not a folder; --videos names the folder with the videos")


def ignored_note(found: Found) -> list[str]:
    """Notes on what is not a video: how many files there are of each extension, which entries are not files, and the
    names of the folders that were skipped."""
    notes = []
    counts: collections.Counter[str] = collections.Counter()
    strange = []
    for key, count in found.ignored.items():
        path, _, kind = key.rpartition("\0")
        counts[kind.split(":")[0]] += count
        strange += [f"{path} ({kind})"] if path else []
    if counts:
        kinds = ", ".join(f"{kind} {count}" for kind, count in counts.most_common(5))
        notes.append(f"ignored, as no videos: {found.ignored.total()} files ({kinds})")
    notes += _no_videos(found.ignored)
    if strange:
        notes.append(f"warning: were these folders, their videos are missed: {text.some(strange)}")
    if found.linked:
        notes.append(f"warning: the same folders as others, by links, so taken once: {text.some(found.linked)}")
    passed = [f"{name} ({count})" if count > 1 else name for name, count in sorted(found.passed.items()) if count]
    if passed:
        notes.append(f"ignored, as hidden folders or a system's own: {text.some(passed)}")
    return notes


def instead(found: Found) -> str:
    """What to add to the message that no video was found: what is there that may hold some."""
    return "".join(f"; {note.removeprefix('warning: ')}" for note in _no_videos(found.ignored))


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


def once(root: remote.Path, found: Found) -> tuple[list[str], list[str]]:
    """(the videos, each once, a note on those that are there twice), so that none is for training and also for test.

    Files of one folder whose names differ only in the extension are one video, and so is a folder of its pictures
    beside them. A file counts rather than pictures, and what has content rather than what is empty or at fault.
    """
    same = collections.defaultdict(list)
    for path in found.videos:
        same[text.compose(without_extension(path))].append(path)

    def worth(path: str) -> tuple[bool, bool]:
        has_content = size(root / path) > 0
        return has_content and path not in found.faults, has_content and (root / path).is_file()

    twins = {max(paths, key=worth): paths for paths in same.values() if len(paths) > 1}  # the first of equals
    if not twins:
        return found.videos, []
    left_out = {path: kept for kept, paths in twins.items() for path in paths if path != kept}
    examples = [f"{path} beside {kept}" for path, kept in left_out.items()]
    note = (
        f"the same video in several forms, taken once: {len(twins)}; left out: {text.some(examples)}; where these are "
        "different videos, give them different names"
    )
    return [path for path in found.videos if path not in left_out], [note]


def without_extension(path: str) -> str:
    """A path without a video's extension; the name of a folder of pictures, which may have dots, stays whole."""
    base, extension = posixpath.splitext(path)
    return base if extension.lower() in EXTENSIONS else path


def stem(path: str) -> str:
    """The last part of a path, without a video's extension."""
    return posixpath.basename(without_extension(path))


def natural(name: str) -> tuple:
    """A sort key that puts clip 2 before clip 10."""
    return [int(part) if part.isdecimal() else part.casefold() for part in re.split(r"(\d+)", name)], name
