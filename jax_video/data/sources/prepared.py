"""A set that is prepared already: the embedded one by its name, any other by its manifest."""

import dataclasses
import os

from jax_video.data import remote
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions


def read(name: str | os.PathLike) -> Manifest:
    """The manifest that a config's `data.manifest` names.

    Args:
      name: "motions", the embedded set; or a manifest, or the folder that prepare wrote it into. Both may lie in a
        store (gs://…).

    Raises:
      UserError: there is none, or it cannot be read.
    """
    if name == motions.NAME:
        return motions.read()
    path = remote.path(name)
    with remote.reaching(path):
        folder = path.is_dir()
    found = Manifest.read(path / "manifest.jsonl" if folder else path)
    if (found.name, found.classes) == (motions.NAME, motions.CLASSES):  # an older version did not store it
        found = dataclasses.replace(found, flip=False)
    return found
