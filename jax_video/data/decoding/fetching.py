"""Video files in a store (gs://, s3://, …): copied to this disk one at a time, and then read as any other file.

A copy lies in the cache folder for as long as it is read. On Linux it has no name there, so that the system frees its
space however the process ends.
"""

import collections
import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

import fsspec

from jax_video.data import remote
from jax_video.errors import UnavailableError, UserError, VideoError, unreadable

_KEPT = 2  # copies that a thread keeps: a check compares two files, and several parts of one file may follow each other
_PIECE = 2**23  # bytes that are asked for at once
_HANDLE = "/proc/self/fd/{}"  # opens a file of this process again, even one without a name
# The names that stores give to the version of a file; the first one that a store has counts.
_VERSIONED = (
    "etag",
    "blob_id",
    "generation",
    "mtime",
    "last-modified",
    "last_modified",
    "lastmodified",
    "updated",
    "created",
)


class _Copies(threading.local):
    """The copies of a thread: path in the store -> (path here, the open file)."""

    def __init__(self):
        self.files: collections.OrderedDict[str, tuple[str, IO[bytes]]] = collections.OrderedDict()


_COPIES = _Copies()


def local(path: str | os.PathLike, go_on: Callable[[], None] = lambda: None) -> str:
    """The path of a local file with the same content: the file itself, or a copy if it is in a store.

    A copy stays until its thread has asked for two others. Its modification time is the file's version (`stamp`).

    Args:
      path: of the file.
      go_on: called as the copy grows.

    Raises:
      VideoError: the file does not exist, or may not be read.
      UnavailableError: the store cannot be reached, or the disk is full.
    """
    path = os.fspath(path)
    if not remote.is_remote(path):
        return path
    files = _COPIES.files
    if path not in files:
        while len(files) >= _KEPT:
            files.popitem(last=False)[1][1].close()
        files[path] = _fetch(path, go_on)
    files.move_to_end(path)
    return files[path][0]


def forget() -> None:
    """Remove the copies of this thread."""
    while _COPIES.files:
        _COPIES.files.popitem()[1][1].close()


def stamp(path: str | os.PathLike) -> tuple[int, int]:
    """(size in bytes, version as a number) by which a file in a store is recognised; raises as `local`."""
    with _reading(os.fspath(path)):
        store, inside = fsspec.core.url_to_fs(os.fspath(path))
        about = {key.lower(): value for key, value in store.info(inside).items()}
    version = next((str(about[key]) for key in _VERSIONED if about.get(key)), "")
    return about.get("size") or 0, int(hashlib.sha256(version.encode()).hexdigest()[:15], 16)  # as ns, up to 36 years


def _fetch(path: str, go_on: Callable[[], None]) -> tuple[str, IO[bytes]]:
    size, version = stamp(path)
    folder = remote.cache_folder() / "fetched"
    with _reading(path), contextlib.ExitStack() as failed:
        folder.mkdir(parents=True, exist_ok=True)
        nameless = os.path.exists(_HANDLE.format(0))
        copy: Any = tempfile.TemporaryFile(dir=folder) if nameless else tempfile.NamedTemporaryFile(dir=folder)
        failed.callback(copy.close)
        here = _HANDLE.format(copy.fileno()) if nameless else copy.name
        store, inside = fsspec.core.url_to_fs(path)
        # Piece by piece: to fetch a whole file, some packages hold ten large parts of it in memory.
        with store.open(inside, "rb", block_size=_PIECE, cache_type="none") as file:
            while piece := file.read(_PIECE):
                copy.write(piece)
                go_on()
        copy.flush()
        found = os.path.getsize(here)
        if found != size:
            raise UnavailableError(path, f"cannot be fetched (got {found:,} of {size:,} bytes)")
        os.utime(here, ns=(version, version))
        failed.pop_all()
    return here, copy


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn the errors of a store's package into those for a local file that cannot be read."""
    try:
        with remote.reaching(path):
            yield
    except VideoError:
        raise
    except FileNotFoundError as error:
        raise VideoError(path, "no such file") from error
    except OSError as error:
        if error.strerror is None:  # from a package that gives only a message
            raise UnavailableError(path, f"cannot be fetched ({error})") from error
        raise unreadable(path, error, "cannot be fetched") from error
    except UserError as error:
        raise UnavailableError(path, str(error)) from error
