"""A run as a folder to share: its weights in model.safetensors, all else in config.json.

It holds all that is needed to use the run: config, classes, normalisation, clips and test, and a checksum. `load` and
--checkpoint= take it like a run's folder; both kinds of folder may also be in a store or behind a URL: `opened`.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jax.sharding import Mesh

from jax_video import checkpoint, sharding
from jax_video import state as state_lib
from jax_video.checkpoint import Checkpoints
from jax_video.data import copies, documents, remote
from jax_video.errors import CheckpointError, UserError
from jax_video.meta import Meta

CONFIG, WEIGHTS = "config.json", checkpoint.SHARED
LIBRARY = "jax_video"
_SHAPE = {"run": dict, "step": int, "weights": {"bytes": int, "sha256": str}, "result?": dict | None}
_ARRAYS = ("network", "ema", "training", "checksums")  # items of a checkpoint; all else in it is small


def write(
    folder: pathlib.Path,
    meta: Meta,
    step: int,
    weights: Mapping[str, Any],
    result: Mapping[str, Any] | None = None,
) -> None:
    """Write a run's weights and all that it takes to use them.

    Args:
      meta, step: the record of its checkpoint, and after how many steps that was saved.
      weights: its {"params", "batch_stats"}.
      result: of the weights' test, as in test.json; None if none is known.
    """
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in state_lib.named_leaves(weights).items()}
    data = safetensors.numpy.save(arrays, metadata={"format": "flax", "library": LIBRARY})
    remote.write_whole(folder / WEIGHTS, [data])
    record = {
        "library_name": LIBRARY,
        "model_type": meta.config["model"]["name"],
        "run": copies.without_passwords(meta.to_json()),
        "step": step,
        "weights": {"bytes": len(data), "sha256": checksum(data)},
        "result": result,
    }
    documents.write(folder / CONFIG, record, indent=1)


def checksum(data: bytes) -> str:
    """The SHA-256 of a file's bytes, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


class Published:
    """A folder that `write` has written, with the methods by which `Checkpoints` are read.

    Raises:
      CheckpointError: a part of it is missing, damaged, or of another library.
    """

    def __init__(self, folder: remote.Path, mesh: Mesh, step: int | None = None):
        self.folder, self._sharding = folder, sharding.replicated(mesh)
        try:
            record = documents.read(folder / CONFIG)
            if not isinstance(record, dict) or record.get("library_name") != LIBRARY:
                kind = record.get("model_type") if isinstance(record, dict) else None
                raise CheckpointError(
                    f"{folder / CONFIG} is not of jax_video{f': it is of a model of type {kind!r}' if kind else ''}. "
                    "Expected a folder that python -m jax_video.export has written, or a run's."
                )
            if wrong := documents.defect(record, _SHAPE):
                raise documents.Damaged(wrong)
            self._record, self._meta = record, Meta.from_json(record["run"], folder)
            if step not in (None, record["step"]):
                raise CheckpointError(f"{folder} holds the weights of step {record['step']} alone, and not of {step}.")
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder} has {WEIGHTS}, but no {CONFIG}: fetch that, too.") from error
        except documents.Damaged as error:
            changed = documents.CHECKSUM in str(error)
            own = f"; if you have changed it yourself, remove {documents.CHECKSUM!r} from it" * changed
            raise CheckpointError(f"{folder / CONFIG} is damaged ({error}): fetch it again{own}.") from error

    def best_meta(self) -> Meta:
        """The record of the run's checkpoint."""
        return self._meta

    def best_step(self) -> int:
        """The number of steps after which its weights were saved."""
        return self._record["step"]

    def result(self) -> dict[str, Any] | None:
        """The result of the weights' test, as in the run's test.json; None if unknown, as in earlier exports."""
        return self._record.get("result")

    def read_best(self, target: dict) -> tuple[dict, Meta, int]:
        """(weights, meta, step), as from `Checkpoints.read_best`.

        Raises:
          CheckpointError: the weights are missing, damaged, or of another network.
        """
        path, told = self.folder / WEIGHTS, self._record["weights"]
        try:
            data = documents.content(path)
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.folder} has {CONFIG}, but no {WEIGHTS}: fetch that, too.") from error
        except documents.Damaged as error:
            raise CheckpointError(f"{path}: {error}") from error
        if len(data) != told["bytes"] or checksum(data) != told["sha256"]:
            cut = f"{len(data):,} of {told['bytes']:,} bytes" if len(data) != told["bytes"] else "its checksum is wrong"
            raise CheckpointError(f"{path} is not the file that {CONFIG} tells of ({cut}): fetch both again.")
        try:
            arrays = safetensors.numpy.load(data)
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path} is not a file of safetensors ({error})") from error
        checkpoint.check_shapes(str(path), arrays, target)
        names = state_lib.named_leaves(target)
        if other := [name for name, leaf in names.items() if arrays[name].dtype != leaf.dtype]:
            types = arrays[other[0]].dtype, names[other[0]].dtype
            raise CheckpointError(f"{path}: {other[0]} is of type {types[0]}, expected {types[1]}.")
        leaves = [jax.device_put(arrays[name], self._sharding) for name in names]
        return jax.tree.unflatten(jax.tree.structure(target), leaves), self._meta, self._record["step"]

    def close(self) -> None:
        """Do nothing: no file is open."""


def source(folder: remote.Path, mesh: Mesh, step: int | None = None) -> Checkpoints | Published:
    """The reader of the run in a folder, be it the one that it was trained in or an export. With `step`, of just that
    checkpoint."""
    if is_exported(folder):
        return Published(folder, mesh, step)
    return Checkpoints(folder, mesh, read_only=True, step=step)


def is_exported(folder: remote.Path) -> bool:
    """Whether a folder is an export, and not the one that the run was trained in."""
    return not (folder / "checkpoints").exists() and is_published(folder)


def is_published(folder: remote.Path) -> bool:
    """Whether a folder has exported weights, or the config.json of an export."""
    if (folder / WEIGHTS).exists():
        return True
    with contextlib.suppress(FileNotFoundError, documents.Damaged):
        record = documents.read(folder / CONFIG)
        return isinstance(record, dict) and record.get("library_name") == LIBRARY
    return False


def is_copied(name: str | os.PathLike) -> bool:
    """Whether `opened` gives a local copy of the folder of this name, as it is remote and not in gs://."""
    return remote.is_remote(name) and not os.fspath(name).startswith(("gs://", "file://"))


def opened(name: str | os.PathLike, beside: Sequence[str] = ("test.json",), *, step: int | None = None) -> remote.Path:
    """The folder to read a run from: the one of this name, or its copy where it is in a store or behind a URL.

    Only what it takes to use the run is copied: of a run's folder, one checkpoint without the optimizer's state. A
    folder in Google Cloud Storage (gs://) is read there.

    Args:
      beside: other files of a run's folder to copy if they exist; by default the result of its test.
      step: of the checkpoint; None: the best one.

    Raises:
      CheckpointError: there is no run, or it has changed while it was copied.
      UserError: as from `copies.Copy`.
    """
    name = os.fspath(name)
    if name.startswith("file://"):
        name = urllib.request.url2pathname(name.removeprefix("file://"))
    if not is_copied(name):
        return checkpoint.run_folder(name)
    with copies.held(name) as copy:
        checkpoints = copy.folder / "checkpoints"
        if copy.fetch([CONFIG, WEIGHTS]):
            shutil.rmtree(checkpoints, ignore_errors=True)  # of a run that was in its place before
            return copy.folder
        names = [each for each in copy.names("checkpoints") if re.match(r"checkpoints/\d+/", each)]
        steps = {each.split("/")[1] for each in names}
        for path in checkpoints.glob("*"):
            if path.name not in steps:  # gone from the store, as where the run was trained anew
                shutil.rmtree(path)
        if not names:
            raise CheckpointError(
                f"{copy.shown}: there is no run here: expected {CONFIG} and {WEIGHTS}, as python -m jax_video.export "
                "writes them, or a run's checkpoints/. (A model of the Hugging Face Hub is hf://USER/NAME.)"
            )
        _fetch(copy, [each for each in names if each.split("/")[2] not in _ARRAYS])
        with contextlib.closing(Checkpoints(copy.folder, sharding.make_mesh(), read_only=True, step=step)) as found:
            step = found.best_step()
    own = f"checkpoints/{step}/"
    unused = (f"{own}training/", f"{own}network/" if any(each.startswith(f"{own}ema/") for each in names) else "-")
    with copies.held(name, own) as copy:
        _fetch(copy, [each for each in names if each.startswith(own) and not each.startswith(unused)])
        for each in beside:
            with contextlib.suppress(UserError):  # out of reach, and not in an earlier copy
                if not copy.fetch([each]):
                    (copy.folder / each).unlink(missing_ok=True)
        return copy.folder


def _fetch(copy: copies.Copy, names: Sequence[str]) -> None:
    """Copy files of a run that the store has listed. Raises CheckpointError if it does not have them any more."""
    if not copy.fetch(names):
        raise CheckpointError(f"{copy.shown} has changed while it was copied: give the same command again.")


def check_folder(folder: remote.Path) -> None:
    """Raise CheckpointError, which says what to give instead, for a file, or for a part of a run's folder."""
    if (folder / "checkpoints").exists() or is_published(folder):
        return
    within = next((path for path in (folder, *folder.parents) if path.name == "checkpoints" and path.is_dir()), None)
    if within and folder.exists() and any(path.name.isdigit() for path in within.iterdir()):
        raise CheckpointError(f"{folder} is a part of a run; give the run's folder, {within.parent}.")
    if folder.is_file():
        if (folder.parent / "checkpoints").exists() or is_published(folder.parent):
            raise CheckpointError(f"{folder} is a file of a run; give the run's folder, {folder.parent}.")
        raise CheckpointError(
            f"{folder} is a file; expected the folder of a run. Of PyTorch's weights this makes one: python -m "
            f"jax_video.convert {folder} --layout=NAME --config=RECIPE --out=DIR (see its --help)."
        )
