"""Paths that may lie in an object store: gs://, s3://, az:// or hf://.

Small files are read and written in place. What can only be read as a local file, a shard of a packed set, is copied
into the cache folder when it is first needed.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import stat
import sys
import uuid
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import fsspec
from etils import epath

from jax_video.errors import UserError

Path: TypeAlias = pathlib.Path | epath.Path  # of epath only what a store can do: no open("a"), no atomic rename
PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}


def is_remote(name: str | os.PathLike) -> bool:
    """Whether it names something in a store."""
    return "://" in os.fspath(name)


def path(name: str | os.PathLike) -> Path:
    """The path of this name, on a disk or in a store.

    Raises:
      UserError: there is no such kind of store, or the package that reaches it is not installed.
    """
    name = os.fspath(name)
    if not is_remote(name):
        return pathlib.Path(name)
    scheme = name.partition("://")[0]
    if scheme not in PACKAGES:
        raise UserError(f"{name}: expected a local path or one of {', '.join(f'{known}://' for known in PACKAGES)}")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise UserError(f"{name}: what reaches {scheme}:// is not installed: pip install {PACKAGES[scheme]}") from error
    return epath.Path(name)


def check_local(name: str | os.PathLike) -> None:
    """Raise UserError if it names something in a store: for what is written to local disks only.

    It has to be called before the name becomes a `pathlib.Path`, which would be a local one of folders like `gs:`.
    """
    if is_remote(name):
        raise UserError(
            f"{os.fspath(name)}: expected a local path, as this is written to local disks only. Copy it then."
        )


def absolute(name: str | os.PathLike) -> Path:
    """The absolute path of this name, on a disk or in a store; on a disk without any `..`.

    Links on the way stay as they are named, unless a `..` behind one leads elsewhere than the name without both.
    """
    if is_remote(name):
        return path(name)
    absolute = pathlib.Path(name).absolute()
    if os.pardir not in absolute.parts:
        return absolute
    plain, real = os.path.normpath(absolute), os.path.realpath(absolute)
    return pathlib.Path(plain if os.path.realpath(plain) == real else real)


def real(name: str | os.PathLike) -> str:
    """The absolute name, on a disk without links: two names of one place have the same."""
    return os.fspath(name).rstrip("/") if is_remote(name) else os.path.realpath(name)


@contextlib.contextmanager
def reaching(name: str | os.PathLike) -> Iterator[None]:
    """Turn the errors of a store's package (no network, no rights) into UserError; a missing file stays an OSError."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(name)) from error
    except (OSError, UserError):
        raise
    except Exception as error:
        if not is_remote(name):
            raise
        raise UserError(f"cannot reach {name}: {type(error).__name__}: {error}") from error


def write_whole(name: str | os.PathLike, parts: Iterable[bytes]) -> None:
    """Write a file whole or not at all: it replaces an earlier one only when all of it is on the disk, or in the store.

    Devices and pipes are written into.

    Raises:
      OSError: it cannot be written, or is a folder; nothing is left of it.
      UserError: the store cannot be reached.
    """
    target = path(name)
    if is_remote(target):  # in a store a file appears when it is closed
        with reaching(target):
            target.write_bytes(b"".join(parts))
        return
    if target.exists() and (not target.is_file() or str(target).startswith(_STREAMS)):
        _write_into(target, parts)
        return
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(temporary, "xb") as file:
            file.writelines(parts)
        put_in_place(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


_STREAMS = ("/dev/std", "/dev/fd/", "/proc/")  # how names of open files begin, which may be those of regular ones


def _write_into(target: pathlib.Path, parts: Iterable[bytes]) -> None:
    """Write to a device, a pipe or an open file, in whose place there must be no new file."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream may be closed, or no file
            if os.path.samestat(os.stat(target), os.fstat(stream.fileno())):  # which goes on where it is
                stream.flush()
                stream.buffer.writelines(parts)
                stream.flush()
                return
    with open(target, "wb") as file:
        file.writelines(parts)


def put_in_place(temporary: str | os.PathLike, target: str | os.PathLike) -> None:
    """Rename a written local file once all of it is on the disk; afterwards the name is on the disk, too.

    Raises:
      OSError: it cannot be written.
    """
    with open(temporary, "r+b") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
    with contextlib.suppress(OSError):  # not every system can sync folders
        folder = os.open(os.path.dirname(os.path.abspath(target)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def cache_folder() -> pathlib.Path:
    """The folder for what can be made again: $JAX_VIDEO_CACHE or ~/.cache/jax_video."""
    return pathlib.Path(os.environ.get("JAX_VIDEO_CACHE") or pathlib.Path.home() / ".cache" / "jax_video")


def local_folder() -> pathlib.Path:
    """The folder of copies from stores and URLs, in the cache folder."""
    return cache_folder() / "remote"


def size(folder: str) -> int:
    """Bytes of all that is in a folder of a store, and below it."""
    with reaching(folder):
        store, name = fsspec.core.url_to_fs(folder)
        return store.du(name)


def local(name: str) -> str:
    """The path of a local file with the same content: the file itself, or a copy if it is in a store.

    The copy is made when it is first asked for, whole or not at all; of several processes that ask at once, one copies
    and the others wait. A file that has changed in its store is copied again.

    Raises:
      OSError: the file does not exist, or the disk is full.
      UserError: the store cannot be reached.
    """
    if not is_remote(name):
        return name
    import fcntl  # does not exist on Windows, where all else works

    with reaching(name):
        store, inside = fsspec.core.url_to_fs(name)
        version = hashlib.sha256(f"{name} {store.ukey(inside)}".encode()).hexdigest()[:16]
        target = local_folder() / f"{version}-{os.path.basename(inside)}"
        if target.exists():
            return os.fspath(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{target}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the system releases it, however this process ends
            if not target.exists():
                store.get_file(inside, f"{target}.part")
                put_in_place(f"{target}.part", target)
        return os.fspath(target)


def stamp(path: str) -> tuple[int, int]:
    """(bytes, last modification time in ns) of a local file, or of a folder and all in it: its own time does not tell
    that a picture in it was written over.

    Raises:
      OSError: it cannot be looked at.
    """
    own = os.stat(path)
    if not stat.S_ISDIR(own.st_mode):
        return own.st_size, own.st_mtime_ns
    found = []
    with os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # such as a link to nothing
                found.append(entry.stat())
    return sum(each.st_size for each in found), max(each.st_mtime_ns for each in (own, *found))
