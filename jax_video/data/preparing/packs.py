"""packed.json: of what, and how, the set that is packed in a folder was made. It can be read without TFDS."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jax_video.data import documents
from jax_video.data.manifest import Manifest, Packed
from jax_video.errors import UserError

_FILE = "packed.json"
_SHAPE = dict(Packed.__annotations__) | {"manifest": str, "contents?": str | None}


def checksum(prepared: Manifest, digests: Mapping[str, str]) -> str | None:
    """A checksum of the content of all readable videos; None if that of one is not known.

    Args:
      digests: of videos by their names (`checks.digests`).
    """
    names = [row.name for row in prepared.videos if row.error is None]
    if not digests.keys() >= set(names):
        return None
    found = hashlib.sha256()
    for name in names:
        found.update(f"{digests[name]} {name}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


def check(
    folder: str | os.PathLike, settings: Packed, manifest: str | None = None, contents: str | None = None
) -> dict[str, Any]:
    """What a folder's packed set was made of; {} if there is none.

    Args:
      manifest, contents: the hash of the set that is to be packed and the checksum of its videos; None: not known yet.

    Raises:
      UserError: it was packed with other settings, or before the set or its videos changed; or nothing says how.
    """
    try:
        found = documents.read(pathlib.Path(folder, _FILE), _SHAPE)
    except (FileNotFoundError, documents.Damaged) as error:
        packed = pathlib.Path(folder).rglob("*.array_record*")
        if isinstance(error, FileNotFoundError) and next(packed, None) is None:
            return {}
        raise UserError(
            f"{pathlib.Path(folder, _FILE)} does not say how the set in its folder was packed ({error}): remove "
            f"{folder} to pack anew"
        ) from error
    other = [
        f"{key} {found.get(key)} (asked for: {value})"
        for key, value in settings._asdict().items()
        if found.get(key) != value
    ]
    if other:
        raise UserError(f"{folder} holds a set packed with {', '.join(other)}: remove that folder to pack anew")
    if manifest is not None and (changed := _changed(found, manifest, contents)):
        raise UserError(f"{changed} since {folder} was packed from it: remove that folder to pack anew")
    return found


def warning(folder: str | os.PathLike, manifest: str, contents: str | None) -> list[str]:
    """A line that says that a folder's packed set is not of this set any more; [] if it is, or there is none."""
    try:
        changed = _changed(documents.read(pathlib.Path(folder, _FILE), _SHAPE), manifest, contents)
    except (FileNotFoundError, documents.Damaged):
        return []
    hint = "what trains on it sees what was there before; remove that folder and run prepare with --pack to pack anew"
    return [f"warning: {changed} since {folder} was packed from it: {hint}"] if changed else []


def write(folder: str | os.PathLike, settings: Packed, manifest: str, contents: str | None) -> None:
    """Note of what a packed set is made, and how. Raises OSError."""
    told = {} if contents is None else {"contents": contents}
    documents.write(pathlib.Path(folder, _FILE), settings._asdict() | {"manifest": manifest} | told)


def _changed(found: Mapping[str, Any], manifest: str, contents: str | None) -> str:
    """What has changed, in words; empty if nothing has, as far as it is known."""
    if found["manifest"] != manifest:
        return "the set has changed"
    if contents is not None and found.get("contents") not in (None, contents):
        return "videos of the set have been replaced"
    return ""
