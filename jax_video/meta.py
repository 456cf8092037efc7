"""The record of a run in its checkpoint, beside the arrays: typed, with a version; and the checks of what fits it.

A record of an earlier version is read as this version would have written it: `Meta.from_json`.
"""

import dataclasses
import functools
import itertools
import json
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jax_video import __version__, models, networks, saved
from jax_video import state as state_lib
from jax_video.data import documents, remote
from jax_video.data.manifest import Manifest
from jax_video.errors import CheckpointError

EXTENDING = ("train/epochs", "train/steps", "train/patience", "schedule/", "plateau/")  # what a longer run may change
VERSION = 3  # of the record: raise it with every change that an older version of this library would misread
_SINGLE = 2  # the version written for single labels: such records have not changed since
_SHAPE = {  # of the record in a checkpoint; the first versions had fewer keys, and None where nothing was known
    "config": {"*": object},
    "classes": [str],
    "manifest?": str | None,
    "progress?": dict | None,
    "stored_flow?": bool | None,
    "packed?": (types.NoneType, [int]),
    "origin?": dict | None,
    "ema?": bool | None,
    "machines?": (types.NoneType, {"*": int}),
    "validation?": dict | None,
    "thresholds?": (types.NoneType, [float]),
    "version?": int,
}
_SECTIONS = {
    **{f"{name}?": dict | None for name in saved.KEYS},
    **{f"{name}?": (types.NoneType, {"name": str}) for name in saved.NETWORKS},
    "normalize?": {"*": [float]},
}


@dataclasses.dataclass(frozen=True)
class Meta:
    """All that a checkpoint says of its run, except the arrays.

    Attributes:
      config: all sections, as `ConfigDict.to_dict` gives them.
      classes: names of the classes, in the order of the scores.
      manifest: hash of the set that it was trained on; empty if unknown, as for converted weights.
      progress: of the training, as `progress.Progress` keeps it; None where it has not begun.
      stored_flow: whether `prepare` had stored the optical flow; None where the network sees none.
      origin: where converted weights came from, with what it takes to convert them back (`names.Translation`).
      ema: whether there are moving averages of the weights.
      machines: how many "processes" and "devices" have trained it; None if unknown.
      validation: metrics of the validation at this step, by which the best checkpoint is found; None if there was none.
      thresholds: for videos with several labels: the probability from which on each class holds, chosen by that
        validation; None if there was none.
      packed: short side and JPEG quality of the packed frames that it was trained on; [] for files, None if unknown.
      version: of this record.
    """

    config: dict[str, Any]
    classes: tuple[str, ...]
    manifest: str = ""
    progress: dict[str, Any] | None = None
    stored_flow: bool | None = None
    origin: dict[str, Any] | None = None
    ema: bool = False
    machines: dict[str, int] | None = None
    validation: dict[str, float] | None = None
    thresholds: tuple[float, ...] | None = None
    packed: list[int] | None = None
    version: int = VERSION

    def is_of_another_set(self, manifest: str | None) -> bool:
        """Whether a set, by its hash, is another than it was trained on; False where one of the two is not known."""
        return bool(manifest and self.manifest) and manifest != self.manifest

    def kept(self, manifest: Manifest) -> Manifest:
        """A set as it was trained on: without what `data.fraction` leaves out, where the whole of that set is given."""
        fraction = self.config.get("data", {}).get("fraction")
        if self.is_of_another_set(manifest.hash) and isinstance(fraction, float) and 0 < fraction < 1:
            part = manifest.keep(fraction)
            return manifest if self.is_of_another_set(part.hash) else part
        return manifest

    def to_json(self) -> dict[str, Any]:
        """The record as a dictionary that JSON can hold."""
        record = vars(self) | {"classes": list(self.classes)}
        if self.config.get("train", {}).get("loss") != "sigmoid":
            return {key: value for key, value in record.items() if key != "thresholds"} | {"version": _SINGLE}
        return record | {"thresholds": self.thresholds and list(self.thresholds)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], folder: remote.Path) -> "Meta":
        """The record that this or an earlier version wrote into a checkpoint of a run's folder.

        Raises:
          CheckpointError: a later version has written it, or its config has unknown keys in a section whose keys all
            change what is computed.
          documents.Damaged: no version can have written it.
        """
        if wrong := documents.defect(found, _SHAPE, "its record"):
            raise documents.Damaged(wrong)
        version = found.get("version", 1)
        if version > VERSION:
            raise CheckpointError(
                f"the run in {folder} was saved by a later version of jax_video, as record {version}; version "
                f"{__version__} reads records up to {VERSION}. Install the newer one."
            )
        for earlier in range(max(1, version), VERSION):
            found = MIGRATIONS[earlier](found)
        if wrong := documents.defect(found["config"], _SECTIONS):
            raise documents.Damaged(f"{wrong}, in its config")
        known = _known(found["config"], folder)
        names = {field.name for field in dataclasses.fields(cls)}
        kept = {name: value for name, value in found.items() if name in names}
        try:
            config = saved.complete(known)
        except (KeyError, TypeError) as error:
            raise documents.Damaged(f"its config is none ({error})") from error
        several = {"classes": tuple(found["classes"]), "thresholds": _thresholds(found)}
        return cls(**kept | {"config": config, "version": VERSION} | several)


def _thresholds(found: Mapping[str, Any]) -> tuple[float, ...] | None:
    """The thresholds of a record. Raises documents.Damaged if there is not one for each class."""
    thresholds = found.get("thresholds")
    if thresholds is not None and len(thresholds) != len(found["classes"]):
        raise documents.Damaged(f"{len(thresholds)} thresholds for {len(found['classes'])} classes")
    return None if thresholds is None else tuple(thresholds)


def _first(found: Mapping[str, Any]) -> dict[str, Any]:
    """A record of version 1 as one of version 2. It had no version; what it leaves out are the defaults of `Meta`."""
    return {name: value for name, value in found.items() if value is not None} | {"version": 2}


def _second(found: Mapping[str, Any]) -> dict[str, Any]:
    """A record of version 2 as one of version 3. Version 2 knew single labels only."""
    return dict(found) | {"version": 3}


# From a version to the next.
MIGRATIONS: dict[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: _first, 2: _second}


def check_network(meta: Meta, config: Mapping[str, Any], folder: remote.Path) -> None:
    """Raise CheckpointError unless a run is of the network that a config describes.

    Keywords of the network that the config leaves out count as the run's.
    """
    found, given = meta.config["model"], json.loads(json.dumps(config["model"]))
    full = network_of(found)
    changed = [
        f"model.{key}: {found.get(key)} -> {value}"
        for key, value in given.items()
        if full.get(key) != value and key != "remat"  # remat does not change the function
    ]
    if changed:
        raise CheckpointError(
            f"the run in {folder} is of another network than this config:\n  "
            + "\n  ".join(changed)
            + "\nGive the old values, or another --workdir."
        )


def check_classes(meta: Meta, manifest: Manifest, folder: remote.Path) -> None:
    """Raise CheckpointError unless a run has a manifest's classes, in the same order."""
    if meta.classes != tuple(manifest.classes):
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(meta.classes, manifest.classes, strict=False))
        start = max(0, sum(1 for _ in same) - 1)
        ours, theirs = (
            f"{'… ' * (start > 0)}{', '.join(classes[start : start + 4])} …"
            for classes in (meta.classes, manifest.classes)
        )
        raise CheckpointError(
            f"the run in {folder} was trained on {len(meta.classes)} classes ({ours}), {manifest.name!r} has "
            f"{len(manifest.classes)} ({theirs}): use another --workdir."
        )


def check_same_run(
    meta: Meta,
    config: Mapping[str, Any],
    manifest: Manifest,
    folder: remote.Path,
    devices: int,
    *,
    extends: bool = False,
) -> None:
    """Raise CheckpointError if a run would not go on with this config or data as it would with its own.

    The numbers of processes and devices may change; if they do, it says on stderr what that means.

    Args:
      extends: whether the run is trained for longer, so that the keys in `EXTENDING` may differ.
    """
    check_classes(meta, manifest, folder)
    if meta.manifest != manifest.hash:
        raise CheckpointError(
            f"the run in {folder} was trained on another manifest than {manifest.name!r} is now: use another --workdir."
        )
    stored = manifest.flow is not None
    if meta.stored_flow not in (None, stored):
        kinds = {True: "stored by prepare", False: "computed on the way"}
        raise CheckpointError(
            f"the run in {folder} was begun with flow {kinds[not stored]}; now it is {kinds[stored]}, which is not "
            "quite the same: use another --workdir."
        )
    if meta.packed not in (None, manifest.packed_as):
        then, now = (f"packed as {each}" if each else "files" for each in (meta.packed, manifest.packed_as))
        raise CheckpointError(
            f"the run in {folder} was begun on videos that were {then} (short side and quality); now they are {now}, "
            "which have other pixels: use another --workdir."
        )
    changed = _changed(meta, config, *(EXTENDING if extends else ()))
    if changed:
        longer = all(line.replace(".", "/").startswith(EXTENDING) for line in changed)
        raise CheckpointError(
            f"the run in {folder} was made with another config; it cannot go on with this one:\n  "
            + "\n  ".join(changed)
            + "\nGive the old values, or another --workdir."
            + (" A run that is finished is trained for longer with --extend." if longer else "")
        )
    machines = {"processes": jax.process_count(), "devices": devices}
    before = machines | (meta.machines or {})
    if before != machines and jax.process_index() == 0:
        micro_batch, results = config["train"]["micro_batch"], "results equal to rounding"
        if micro_batch is not None and before["devices"] != devices:
            results = f"with train.micro_batch={micro_batch} in other micro-batches, so that results differ"
        changes = [f"{kind}: {before[kind]} before, {count} now" for kind, count in machines.items()]
        print(f"{'; '.join(changes)}. The same clips in the same batches; {results}.", file=sys.stderr)


def is_extended(meta: Meta, config: Mapping[str, Any]) -> bool:
    """Whether a config differs from its run's: it trains for longer, or by another schedule."""
    return bool(_changed(meta, config))


def _changed(meta: Meta, config: Mapping[str, Any], *free: str) -> list[str]:
    """Differences from the run's config, "train.epochs: 2 -> 5". Left out are keys that begin with one of `free`, and
    keys that do not change the weights (`model.remat`: except by rounding)."""
    found, expected = _flat(config), _flat(meta.config)
    in_full = [_flat(saved.complete(_with_defaults(each))) for each in (config, meta.config)]
    same = {key for key in found | expected if in_full[0].get(key) == in_full[1].get(key)}
    free += ("data/", "test/", "train/log_steps", "train/checkpoint_steps", "train/keep", "model/remat")
    return [
        f"{key.replace('/', '.')}: {expected.get(key)} -> {found.get(key)}"
        for key in sorted(found | expected)
        if key not in same and not key.startswith(free)
    ]


_TAKEN_WHOLE = ("clip", "norm", "normalize", "optimizer", "schedule", "plateau")  # given whole to a function


def _known(config: Mapping[str, Any], folder: remote.Path) -> dict[str, Any]:
    """A saved config without the keys that no version has had, after saying which; CheckpointError if they would change
    what is computed."""
    strange = saved.unknown(config)
    if not strange:
        return dict(config)
    said = f"the run in {folder} was saved with {', '.join(strange)} in its config, not known to version {__version__}"
    if any(key.startswith(f"{section}.") for key in strange for section in _TAKEN_WHOLE):
        raise CheckpointError(f"{said}: it would compute something else. Use the version that it was trained with.")
    _say_once(f"{said}: left out of account.")
    return {
        name: {key: each for key, each in value.items() if f"{name}.{key}" not in strange}
        if isinstance(value, Mapping)
        else value
        for name, value in config.items()
        if name not in strange
    }


@functools.cache
def _say_once(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr)


def network_of(section: Mapping[str, Any]) -> dict[str, Any]:
    """All keywords of a network. Those that came later have defaults under which it computes as it did before."""
    known = section["name"] in networks.NETWORKS
    return json.loads(json.dumps(models.defaults(section["name"]) | dict(section) if known else dict(section)))


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config) | {name: network_of(config[name]) for name in saved.NETWORKS if config.get(name)}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return state_lib.named_leaves(json.loads(json.dumps(config)))
