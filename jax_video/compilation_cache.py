"""JAX's persistent compilation cache: compiled programs are kept for the next start. On by default in the commands."""

import contextlib
import hashlib
import importlib
import os
import pathlib
import platform
import re
import shutil
import sys
import zlib
from typing import Any

import jax

from jax_video.data import remote

_NEEDED = 2**30  # bytes free, or nothing is kept
_WHOLE = 0o400  # file mode of an entry that was checked and found whole


def enable_compilation_cache(*, limit: int = 4 * 2**30) -> None:
    """Make this process look for compiled programs in the cache folder first, and keep its own there.

    JAX's own settings come first: with a folder of yours (JAX_COMPILATION_CACHE_DIR), or without a cache
    (JAX_ENABLE_COMPILATION_CACHE=false), nothing changes. Nothing is kept where the folder cannot be written, belongs
    to somebody else or can be written by others, or less than 1 GiB is free.

    A run of several processes should share one folder, or have none: a program that one process finds may differ from
    what another compiles. So the commands leave it to you there.

    Args:
      limit: bytes of programs to keep; beyond them the least recently used ones are deleted.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    try:
        above = remote.cache_folder() / "compilation"
        folder = above / _machine()
        for each in (above, folder):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
            about = each.stat()
            # Whoever can write there can make this process run code.
            owner = os.getuid() if hasattr(os, "getuid") else about.st_uid
            if about.st_uid != owner or about.st_mode & 0o022:
                return
        if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < _NEEDED:
            return
        _tidy(folder, limit)
    except (OSError, RuntimeError):  # no folder and no room for one, or no home folder
        return
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,  # small ones too: hundreds of them take seconds
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        config.update(name, value)


def _machine() -> str:
    """A name for this kind of processor: JAX's keys do not tell kinds apart, and several may share one home folder."""
    try:
        about = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        about = platform.processor()
    flags = re.search("^(?:flags|Features)\t*: .*", about, re.MULTILINE)
    kind = flags[0] if flags else about
    return f"{platform.machine()}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"


def _tidy(folder: pathlib.Path, limit: int) -> None:
    """Delete broken entries, and the least recently used ones beyond `limit` bytes.

    JAX writes an entry in place. If a process is killed meanwhile, the broken entry stays: JAX then warns and compiles
    again at every start.
    """
    entries = {}
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process tidies too
            about = path.stat()
            if about.st_mode & 0o777 != _WHOLE:
                if not _is_whole(path.read_bytes()):
                    path.unlink()
                    continue
                path.chmod(_WHOLE)
            entries[path] = about
    total = sum(about.st_size for about in entries.values())
    for path, about in sorted(entries.items(), key=lambda entry: max(entry[1].st_atime, entry[1].st_mtime)):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= about.st_size


def _is_whole(data: bytes) -> bool:
    """Whether an entry can be unpacked, by the library that JAX packs with."""
    try:
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            zstandard = "compression.zstd" if sys.version_info >= (3, 14) else "zstandard"
            importlib.import_module(zstandard).decompress(data)
        else:
            zlib.decompress(data)
    except Exception:  # each library has its own errors; if it is missing, JAX cannot read it either
        return False
    return True
