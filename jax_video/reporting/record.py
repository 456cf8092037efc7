"""What a run's folder tells without its network: the parts that are there, and why others are not."""

import contextlib
import dataclasses
import json
import os
import shlex
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from jax_video import published, runlog, saved, sharding
from jax_video.data import copies, documents, remote
from jax_video.data.manifest import Manifest
from jax_video.data.sources import prepared
from jax_video.errors import UserError
from jax_video.meta import Meta
from jax_video.reporting import page
from jax_video.run import Run
from jax_video.testing import averages, fusion

_FILES = ("config.json", "test.json", "metrics.jsonl", "confusion.json", "predictions.jsonl", "views.json")
_TOLD = {"videos?": int, "of?": int, "step?": int, "manifest?": str | None, "protocol?": dict, "clip?": dict}
_CLASSES = {"clip_top1?": float, "note?": str} | _TOLD
_FUSED = {"fused?": [str], "weights?": [float], "l2?": bool}
_PAIRS = {"pair_accuracy": float, "positive_accuracy?": float, "negative_accuracy?": float} | _TOLD
_VIEWS = {"H-W": float, "T-W": float, "T-H": float}
_ALPHA = {
    **{"step": int, "split": str, "videos": int, "of": int, "overall": _VIEWS},
    **{"manifest?": str, "protocol?": dict, "clip?": dict, "dtype?": str},
    **{"layers": {"*": _VIEWS}, "classes": {"*": _VIEWS}},
}


@dataclasses.dataclass
class Record:
    """What the folder of a run, or of fused scores, tells.

    Attributes:
      folder: where it is, or where its copy is if it lies in a store.
      address: where it is, as readers of the page know it.
      config: all sections; empty for fused scores.
      meta: what its best checkpoint says; None where there is none.
      step: of that checkpoint.
      rows: of metrics.jsonl.
      result: of its test.
      classes: names, in the order of `confusion`.
      confusion: videos by true and by predicted class, int64 [K, K]; None where videos may have several labels.
      predictions: the scores of every video of the test.
      views: what views.json holds, for CoST.
      manifest: the set that it was tested on; by default the one that its config names.
      exported: whether it is a folder to share, which holds no more than it takes to use the run.
      missing: {part: why it is not there}.
    """

    folder: remote.Path
    address: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    meta: Meta | None = None
    step: int | None = None
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    result: dict[str, Any] | None = None
    classes: tuple[str, ...] = ()
    confusion: np.ndarray | None = None
    predictions: fusion.Predictions | None = None
    views: dict[str, Any] | None = None
    manifest: Manifest | None = None
    exported: bool = False
    missing: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def network(self) -> str:
        """The name of the network; empty for fused scores and for a damaged config."""
        section = self.config.get("model")
        return str(section.get("name", "")) if isinstance(section, dict) else ""

    @property
    def name(self) -> str:
        """What it is, in short: "stc_resnet18 on motions"."""
        if self.fused:
            return "Fused scores"
        if self.trained_on is not None:
            data = self.trained_on.name
        else:
            data = os.path.basename(str(self.setting("data", "manifest") or "").rstrip("/"))
        return " on ".join(filter(None, [self.network or "A run", data]))

    @property
    def trained_on(self) -> Manifest | None:
        """`manifest`, unless it is known to be of another set than the run was trained on."""
        other = self.manifest is not None and self.meta is not None and self.meta.is_of_another_set(self.manifest.hash)
        return None if other else self.manifest

    @property
    def of_another_set(self) -> bool:
        """Whether its result is known to be of another set than it was trained on."""
        return self.meta is not None and self.meta.is_of_another_set((self.result or {}).get("manifest"))

    def setting(self, section: str, key: str) -> Any:
        """A value of the config; None where there is none."""
        values = self.config.get(section)
        return values.get(key) if isinstance(values, dict) else None

    def shown(self, section: str, key: str, form: str = "{}") -> str:
        """A value of the config as HTML; empty where it is None, False, 0 or empty."""
        found = self.setting(section, key)
        return page.text(form.format(found)) if found not in (None, False, 0, [], ()) else ""

    @property
    def multilabel(self) -> bool:
        """Whether it was tested on videos that may have several labels."""
        return "map" in (self.result or {})

    @property
    def fused(self) -> bool:
        """Whether it is not a run, but the sum of the scores of several."""
        return "fused" in (self.result or {})

    def why(self, part: str) -> str:
        """Why a part is missing, as HTML without a full stop."""
        return page.text(self.missing.get(part, f"there is no {part}"), 500).rstrip(".")

    def how(self, mode: str) -> str:
        """The command that runs a mode of jax_video.main on this run, as HTML."""
        place = "DIR" if copies.is_copy(self.folder) else shlex.quote(self.address)
        return page.code(f"python -m jax_video.main --config=RECIPE --workdir={place} --mode={mode}")

    @contextlib.contextmanager
    def reading(self, part: str, file: str = "") -> Iterator[None]:
        """Note in `missing` why a part cannot be read (UserError, OSError, Damaged); the report goes on without it."""
        try:
            yield
        except FileNotFoundError:
            self.missing[part] = f"there is no {file or part}"
        except documents.Damaged as error:
            self.missing[part] = f"{file}: {error}"
        except (UserError, OSError) as error:
            self.missing[part] = str(error)


def read(
    folder: str | os.PathLike, *, data: str | os.PathLike | Manifest | None = None, opened: Run | None = None
) -> Record:
    """The record of a folder: local, in a store or behind a URL, and also while the run is trained.

    Args:
      data: the set that it was tested on, if not the one that its config names.
      opened: the run, if it is open.

    Raises:
      UserError: nothing of a run is there, or an exported one is damaged.
    """
    path = published.opened(folder, _FILES)
    _check(path)
    address = copies.without_password(os.fspath(folder)) if published.is_copied(folder) else str(path)
    record = Record(path, address, exported=published.is_exported(path))
    with record.reading("result", "test.json"):
        record.result = _result(path)
    if record.exported:
        with copies.judged(path, folder):
            _read_checkpoint(record, opened)
    else:
        with record.reading("config", "config.json"):
            record.config = _config(path)
        with record.reading("checkpoint"):
            _read_checkpoint(record, opened)
    with record.reading("metrics", "metrics.jsonl"):
        record.rows = runlog.read(path / "metrics.jsonl")
        if not record.rows:
            there = (path / "metrics.jsonl").exists()
            record.missing["metrics"] = f"there is no {'row in ' if there else ''}metrics.jsonl"
    with record.reading("confusion", "confusion.json"):
        found = documents.read(path / "confusion.json", {"classes": [str], "videos?": [[int]]})
        record.confusion = None if record.multilabel else _matrix(found)
        record.classes = tuple(found["classes"])
    if record.classes:
        with record.reading("predictions", "predictions.jsonl"):
            record.predictions = fusion.read(path)
    with record.reading("views", "views.json"):
        record.views = documents.read(path / "views.json", _ALPHA)
    name, fraction = data or record.setting("data", "manifest"), record.setting("data", "fraction")
    if isinstance(name, Manifest):
        record.manifest = name if record.meta is None else record.meta.kept(name)
    elif isinstance(name, str | os.PathLike):
        with record.reading("manifest", str(name)):
            record.manifest = prepared.read(name).keep(fraction if isinstance(fraction, float) else 1.0)
    if record.meta is not None and not record.classes:
        record.classes = record.meta.classes
    record.config = copies.without_passwords(record.config)  # the page can be sent to anybody
    return record


def _check(path: remote.Path) -> None:
    """Raise UserError where there is nothing to report on."""
    parts = ("test.json", "metrics.jsonl", "checkpoints")
    with remote.reaching(path):
        if any((path / part).exists() for part in parts) or published.is_published(path):
            return
        with contextlib.suppress(FileNotFoundError, documents.Damaged):
            documents.read(path / "config.json", {"model": {"name": str}})
            return
        if path.is_file():
            raise UserError(f"{path} is a file; expected the folder of a run")
        said = (
            f"none of {', '.join(parts)}, and no config.json of a run, is in it"
            if path.is_dir()
            else "there is no such folder"
        )
    raise UserError(f"{path} is no run: {said}. Give the --workdir of jax_video.main, or the --out of jax_video.fuse.")


def _result(path: remote.Path) -> dict[str, Any]:
    """What a test.json holds: the result of a test of pairs or of classes, or of fused scores."""
    found = documents.read(path / "test.json", {"*": object})
    shape = _PAIRS if "pair_accuracy" in found else averages.shape(found) | _CLASSES | _FUSED
    if wrong := documents.defect(found, shape):
        raise documents.Damaged(wrong)
    averages.check_result(path, found)
    return found


def _config(path: remote.Path) -> dict[str, Any]:
    found = documents.read(path / "config.json", {"*": object})
    try:
        return saved.complete(found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise documents.Damaged(f"it is no config ({error})") from error


def _read_checkpoint(record: Record, opened: Run | None) -> None:
    """Add what the best checkpoint says; its config is complete. Raises CheckpointError where it cannot be read.

    One of several processes takes it from the open run: Orbax would wait for the others, which write no report.
    """
    if opened is not None and jax.process_count() > 1:
        record.meta, record.step, record.config = opened.meta, opened.step, opened.meta.config
        return
    if not record.exported and not (record.folder / "checkpoints").exists():
        raise FileNotFoundError
    with contextlib.closing(published.source(record.folder, sharding.make_mesh())) as source:
        record.meta, record.step = source.best_meta(), source.best_step()
        if isinstance(source, published.Published) and "result" in record.missing:
            found = source.result()
            if not documents.defect(found, averages.shape(found) | _CLASSES):
                record.result = found
    record.config = record.meta.config


def _matrix(found: dict[str, Any]) -> np.ndarray:
    """The confusion matrix, int64 [K, K]. Raises documents.Damaged where it is none."""
    size = len(found["classes"])
    if not size:
        raise documents.Damaged("'classes' is empty")
    if "videos" not in found:
        raise documents.Damaged("'videos' is missing")
    if len(found["videos"]) != size or any(len(row) != size for row in found["videos"]):
        raise documents.Damaged(f"'videos' is no table of {size} classes")
    matrix = np.array(found["videos"], np.int64).reshape(size, size)
    if matrix.min() < 0:
        raise documents.Damaged("'videos' has numbers below 0")
    return matrix


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """A config as {"train.batch": 16, …}; tuples become lists, as in JSON."""
    values = traverse_util.flatten_dict(config, sep=".")
    return {key: json.loads(json.dumps(value)) for key, value in values.items()}
