"""Local copies of files in a store or behind a URL: s3://, hf://, https:// and what else the package fsspec reaches.

Only those files of a folder that are asked for are copied, into the cache folder. A file that has changed in the store
is copied again; all files that have changed are replaced together, once all of them are here. An interrupted copy of a
file stays, and is continued. If a store cannot be reached, an earlier copy is used.
"""

import contextlib
import hashlib
import html.parser
import os
import pathlib
import re
import shutil
import sys
import types
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import fsspec
from tqdm import tqdm

from jax_video.data import documents, remote
from jax_video.errors import DISK_ERRORS, CheckpointError, UserError

_SHAPE = {
    "files": {"*": (types.NoneType, {"size": int | None, "version": str})},
    "names": {"*": [str]},
}
_VERSIONED = ("etag", "blob_id", "generation", "last-modified", "last_modified", "lastmodified", "mtime", "created")
_TIMEOUT = 60  # seconds without a byte
_CHUNK = 2**20
_DEEPEST = 8  # folders in one another that are searched, at most


class Version(NamedTuple):
    """Size and version of a file as the store reports them: if either differs, the file has changed."""

    size: int | None
    version: str


class Store(Protocol):
    """A folder of files that can be read."""

    def names(self, under: str) -> list[str]:
        """The names of all files in the folder `under` of this one, and below it."""

    def version(self, name: str) -> Version | None:
        """The version of a file; None if there is no such file."""

    def read(self, name: str, start: int, version: Version) -> tuple[int, Iterator[bytes]]:
        """(the position of the first byte, `start` or else 0; the bytes of a file from there on)."""


class Copy:
    """The local copy of a folder in a store, or one of several copies of it (`part`); made by `held`.

    Attributes:
      folder: where the copied files are, under their names in the store.
    """

    def __init__(self, url: str, part: str = ""):
        self.url = url.rstrip("/")
        self.shown = without_password(self.url)
        self.folder = _folder(self.url, part)
        self._record = self.folder.with_name(f"{self.folder.name}.json")
        self._files: dict[str, Version | None] = {}  # the version of each file here; None: the store does not have it
        self._names: dict[str, list[str]] = {}
        with contextlib.suppress(FileNotFoundError, documents.Damaged):
            record = documents.read(self._record, _SHAPE)
            self._names = record["names"]
            self._files = {name: found and Version(**found) for name, found in record["files"].items()}
        self._store: Store | None = None
        self._offline = ""  # why the store cannot be reached

    def names(self, under: str) -> list[str]:
        """The names of all files in the folder `under` of this one, and below it.

        Raises:
          UserError: as `fetch`.
        """
        found = self._asked(lambda store: store.names(under))
        if found is None:
            found = self._names.get(under)
            if found is None:
                raise self._unreachable()
        found = [name for name in found if ".." not in name.split("/")]  # this would lead elsewhere on this disk
        self._names[under] = found
        self._write()
        return found

    def fetch(self, names: Sequence[str]) -> bool:
        """Copy these files, unless the copies are up to date; return whether all of them exist.

        Raises:
          OSError: the disk is full.
          UserError: the store cannot be reached, and there is no whole copy from before.
        """
        there = self._asked(lambda store: {name: store.version(name) for name in names})
        if there is None:
            there = {name: self._files[name] for name in names if name in self._files}
        if None in there.values():
            self._files |= {name: None for name, version in there.items() if version is None}
            self._write()
            return False
        changed = {name: version for name, version in there.items() if not self._has(name, version)}
        if changed and self._asked(lambda store: self._copy(store, changed)):
            self._files |= changed
            self._write()
        if not all(self._has(name, self._files.get(name)) for name in names):
            raise self._unreachable()
        if self._offline:
            _say_offline(self.shown, self._offline)
        return True

    def _has(self, name: str, version: Version | None) -> bool:
        """Whether a file is here in this version."""
        if version is None or self._files.get(name) != version:
            return False
        with contextlib.suppress(OSError):
            return version.size in (None, (self.folder / name).stat().st_size)
        return False

    def _copy(self, store: Store, files: dict[str, Version]) -> bool:
        """Copy files; they replace earlier copies only when all of them are here."""
        parts = {name: self._part(name, version) for name, version in files.items()}
        size = sum(version.size or 0 for version in files.values())
        progress = tqdm(total=size, desc=f"copy of {self.shown}", unit="B", unit_scale=True, leave=False, disable=None)
        with progress:
            for name, version in files.items():
                _read_on(store, name, version, parts[name], progress)
        for name, part in parts.items():
            remote.put_in_place(part, self.folder / name)
        return True

    def _part(self, name: str, version: Version) -> pathlib.Path:
        """The path of a file's unfinished copy; unfinished copies of other versions are removed."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{hashlib.sha256(repr(version).encode()).hexdigest()[:12]}.part")
        for other in path.parent.iterdir():
            if other != part and other.name.startswith(f".{path.name}.") and other.suffix == ".part":
                other.unlink()
        return part

    def _asked(self, question: Callable[[Store], Any]) -> Any:
        """The store's answer to a question; None if it cannot be reached."""
        if self._offline:
            return None
        try:
            self._store = self._store or _opened(self.url)
            return question(self._store)
        except UserError:
            raise
        except Exception as error:  # each package has its own errors
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            kind = "" if type(error) is ConnectionError else f"{type(error).__name__}: "  # our own explain themselves
            self._offline = without_password(f"{kind}{error}".splitlines()[0])[:300]
            return None

    def _write(self) -> None:
        files = {name: version and version._asdict() for name, version in self._files.items()}
        documents.write(self._record, {"files": files, "names": self._names})

    def _unreachable(self) -> UserError:
        return UserError(
            f"cannot copy {self.shown} ({self._offline}), and there is no whole copy of it from before. Are the "
            "address, your rights and the network as they should be? The same command goes on with what is missing."
        )


@contextlib.contextmanager
def held(url: str, part: str = "") -> Iterator[Copy]:
    """The copy of a folder in a store, locked so that no other process changes it meanwhile.

    Args:
      part: names one of several copies of the same folder, which are independent of each other.
    """
    import fcntl  # does not exist on Windows, where all else works

    folder = _folder(url.rstrip("/"), part)
    folder.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system releases it, however this process ends
        yield Copy(url, part)


def _folder(url: str, part: str) -> pathlib.Path:
    key = hashlib.sha256(f"{url} {part}".encode()).hexdigest()[:16]
    return remote.local_folder() / (f"{key}-" + re.sub(r"[^\w.-]", "_", url.rpartition("/")[2]))


_told: set[str] = set()


def _say_offline(url: str, reason: str) -> None:
    """Warn on stderr, only once for a URL, even if several parts of it are copied."""
    if url not in _told:
        print(f"Cannot reach {url} ({reason}): taking the copy from before.", file=sys.stderr)
    _told.add(url)


def is_copy(path: str | os.PathLike) -> bool:
    """Whether a path lies in the cache folder, among the copies."""
    folder = os.path.abspath(remote.local_folder())
    return not remote.is_remote(path) and os.path.abspath(path).startswith(folder + os.sep)


@contextlib.contextmanager
def judged(folder: remote.Path, url: str | os.PathLike) -> Iterator[None]:
    """Remove a copy if reading it raises CheckpointError, so that the next command copies it again."""
    try:
        yield
    except CheckpointError as error:
        if not is_copy(folder):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        said = str(error).replace(os.fspath(folder), without_password(os.fspath(url).rstrip("/")))
        raise CheckpointError(f"{said} The copy of it is removed: the same command makes a new one.") from error


def without_password(url: str) -> str:
    """A URL, or a text with some, without user names and passwords, and without what signs an address."""
    bare = re.sub(r"(?<=\w://)[^\s,?/]*@", "", url)
    return re.sub(r"(?<=\S)\?[^\s,]+", "?…", bare) if "://" in bare else bare


def without_passwords(value: Any) -> Any:
    """A config without the passwords of its addresses, as it may be given to anybody."""
    if isinstance(value, dict):
        return {key: without_passwords(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(without_passwords, value))
    return without_password(value) if isinstance(value, str) and "://" in value else value


def _read_on(store: Store, name: str, version: Version, part: pathlib.Path, progress: tqdm) -> None:
    """Complete the unfinished copy of a file. Raises ConnectionError if the file ends too early."""
    with open(part, "ab") as file:
        here = file.tell()
        if here != version.size:
            start, chunks = store.read(name, here if here < (version.size or 0) else 0, version)
            file.truncate(start)
            progress.update(start)
            for chunk in chunks:
                file.write(chunk)
                progress.update(len(chunk))
        here = file.tell()
    if version.size not in (None, here):
        raise ConnectionError(f"{name} ends after {here:,} of {version.size:,} bytes")


def _opened(url: str) -> Store:
    """The store of a URL. Raises UserError if there is no such kind of store, or its package is not installed."""
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        return _Web(url)
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        how = f": pip install {remote.PACKAGES[scheme]}" if scheme in remote.PACKAGES else f" ({error})"
        raise UserError(f"{url}: what reaches {scheme}:// is not installed{how}") from error
    except ValueError as error:
        known = ", ".join(f"{name}://" for name in ("https", *remote.PACKAGES))
        raise UserError(
            f"{url}: there is no such kind of store. Expected a local path, {known}, or another that fsspec knows."
        ) from error
    return _Fsspec(url)


class _Fsspec:
    """A folder of any store that the package fsspec knows."""

    def __init__(self, url: str):
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._files.invalidate_cache()  # of earlier listings

    def names(self, under: str) -> list[str]:
        root = self._root.rstrip("/") + "/"
        found = self._files.find(root + under)
        return [name.removeprefix("/").removeprefix(root.removeprefix("/")) for name in found]

    def version(self, name: str) -> Version | None:
        try:
            found = self._files.info(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        told = {key.lower(): value for key, value in found.items()}
        versions = " ".join(str(told[key]) for key in _VERSIONED if told.get(key) is not None)
        return None if found["type"] == "directory" else Version(found.get("size"), versions)

    def read(self, name: str, start: int, version: Version) -> tuple[int, Iterator[bytes]]:
        del version

        def chunks() -> Iterator[bytes]:
            with self._files.open(f"{self._root}/{name}", "rb") as file:
                file.seek(start)
                while chunk := file.read(_CHUNK):
                    yield chunk

        return start, chunks()


class _Web:
    """A folder behind a URL; its files can be listed only if the server shows a page of links."""

    def __init__(self, url: str):
        import requests  # takes as long to import as fsspec

        self._root, self._session = url, requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"  # otherwise sizes would be those of compressed data

    def _get(self, name: str, method: str = "GET", **options: Any) -> Any:
        address = f"{self._root}/{urllib.parse.quote(name)}"
        try:
            return self._session.request(method, address, timeout=_TIMEOUT, allow_redirects=True, **options)
        except OSError as error:  # its text has many lines
            raise ConnectionError(f"{type(error).__name__} with {urllib.parse.urlsplit(address).hostname}") from error

    def names(self, under: str) -> list[str]:
        answer = self._get(f"{under}/")
        if answer.status_code in (404, 410) or under.count("/") > _DEEPEST:
            return []
        answer.raise_for_status()
        links = _Links()
        links.feed(answer.text)
        found = []
        for address in sorted({urllib.parse.urljoin(answer.url, link) for link in links.found}):
            name = urllib.parse.unquote(address.removeprefix(answer.url))
            if address.startswith(answer.url) and name and not re.search("[?#]|/.", name):
                found += self.names(f"{under}/{name[:-1]}") if name.endswith("/") else [f"{under}/{name}"]
        return found

    def version(self, name: str) -> Version | None:
        answer = self._get(name, "HEAD")
        if answer.status_code in (405, 501):
            answer = self._get(name, stream=True)
            answer.close()
        if answer.status_code in (404, 410):
            return None
        answer.raise_for_status()
        size, told = answer.headers.get("Content-Length"), (answer.headers.get(key) for key in _VERSIONED)
        return Version(None if size is None else int(size), " ".join(filter(None, told)))

    def read(self, name: str, start: int, version: Version) -> tuple[int, Iterator[bytes]]:
        del version  # a file that changes just now is noticed by its size, or by the checksum stored beside it
        answer = self._get(name, stream=True, headers={"Range": f"bytes={start}-"} if start else {})
        answer.raise_for_status()
        return start if answer.status_code == 206 else 0, answer.iter_content(_CHUNK)


class _Links(html.parser.HTMLParser):
    """The links of a page."""

    def __init__(self):
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attrs if (tag, name) == ("a", "href") and value}
