"""Late fusion: adds up the scores that several networks, or other methods, give to the same videos (ST-ResNet §4)."""

import csv
import dataclasses
import json
import os
import pathlib
import zipfile
import zlib

import numpy as np

from jax_video import metrics
from jax_video.data import archives
from jax_video.errors import UserError
from jax_video.run import Run


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What one source says of the videos of a test."""

    name: str
    classes: tuple[str, ...] | None  # None: not told
    scores: dict[str, np.ndarray]  # by video: [K]
    labels: dict[str, str]  # by video: the name of its class; empty where the source does not tell

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes. Raises UserError where the source does not tell them."""
        if self.classes is None:
            raise UserError(f"{self.name} does not name its classes; the first source must be a run that was tested")
        return self.classes


def read(source: Run | str | os.PathLike) -> Predictions:
    """The scores of a tested run, of its folder, or in a predictions.jsonl, a CSV or an .npz.

    Raises:
      UserError: there is no such file, or it is none of these.
    """
    path = pathlib.Path(source.folder if isinstance(source, Run) else source)
    file = path / "predictions.jsonl" if path.is_dir() else path
    if not file.is_file():
        what = "has no predictions.jsonl: was the run tested?" if path.is_dir() else "there is no such file"
        raise UserError(f"{path}: {what}")
    try:
        found = {".jsonl": _read_run, ".csv": _read_csv, ".npz": _read_npz}[file.suffix](file)
    except KeyError as error:
        raise UserError(f"{path}: expected a run's folder, a .jsonl of a test, a .csv or an .npz; {error}") from error
    except UserError:
        raise
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as scores ({error})") from error
    for video, row in found.scores.items():
        if row.ndim != 1 or not np.isfinite(row).all():
            raise UserError(f"{path}: the scores of {video} are not a row of finite numbers")
        if found.classes is not None and len(row) != len(found.classes):
            raise UserError(f"{path}: {video} has {len(row)} scores for {len(found.classes)} classes")
    return dataclasses.replace(found, name=str(path))


def fuse(sources: list[Predictions], weights: list[float], *, l2: bool = False) -> Predictions:
    """The weighted sum of all sources' scores, for the videos and in the classes of the first.

    Raises:
      UserError: weights that are not one for each, a first source without labels, or another that has not the same
        classes or lacks videos.
    """
    first = sources[0]
    if len(weights) != len(sources):
        raise UserError(f"{len(weights)} weights for {len(sources)} sources; expected one for each")
    if not first.labels:
        raise UserError(f"{first.name} has no labels; the first source must be a run that was tested")
    total = {video: np.zeros(len(first.class_names)) for video in first.scores}
    for source, weight in zip(sources, weights, strict=True):
        order = _order(source, first)
        for video, row in _matched(source, first).items():
            row = row[order]
            norm = np.linalg.norm(row) if l2 else 1.0
            total[video] += weight * row / (norm or 1.0)
    return Predictions("fused", first.classes, total, first.labels)


def measure(predictions: Predictions) -> dict:
    """Video-level metrics (`metrics.video_metrics`)."""
    scores = np.stack(list(predictions.scores.values()))
    labels = np.array([predictions.class_names.index(predictions.labels[video]) for video in predictions.scores])
    return metrics.video_metrics(scores, labels, len(predictions.class_names))


def write(
    out: pathlib.Path, predictions: Predictions, sources: list[str], weights: list[float], *, l2: bool = False
) -> None:
    """Writes predictions.jsonl, confusion.json and test.json, as a run's test does."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "predictions.jsonl").open("w", encoding="utf-8", errors="surrogateescape") as file:
        for video, row in predictions.scores.items():
            line = {"video": video, "label": predictions.labels[video], "scores": row.tolist()}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    values = measure(predictions)
    table = {"classes": list(predictions.class_names), "rows": "true class", "columns": "predicted"}
    table |= {"videos": values.pop("confusion")}
    (out / "confusion.json").write_text(json.dumps(table, ensure_ascii=False, indent=1), encoding="utf-8")
    result = {"fused": sources, "weights": weights, "l2": l2, "videos": len(predictions.scores)} | values
    result["class_accuracy"] = dict(zip(predictions.class_names, values["class_accuracy"], strict=True))
    (out / "test.json").write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")


def _read_run(file: pathlib.Path) -> Predictions:
    confusion = file.parent / "confusion.json"
    if not confusion.is_file():
        raise UserError(f"{file}: confusion.json, which names the classes in order, is not beside it")
    classes = tuple(json.loads(confusion.read_text(encoding="utf-8"))["classes"])
    with file.open(encoding="utf-8", errors="surrogateescape") as lines:
        rows = [json.loads(line) for line in lines]
    scores = {row["video"]: np.array(row["scores"], float) for row in rows}
    return Predictions("", classes, scores, {row["video"]: row["label"] for row in rows})


def _read_csv(file: pathlib.Path) -> Predictions:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        header, *rows = [row for row in csv.reader(lines) if row]
    if header[0].strip() != "video":
        raise UserError(f"{file}: its header begins with {header[0]!r}; expected video and the names of the classes")
    scores = {row[0].strip(): np.array([float(value) for value in row[1:]]) for row in rows}
    return Predictions("", tuple(name.strip() for name in header[1:]), scores, {})


def _read_npz(file: pathlib.Path) -> Predictions:
    try:
        arrays = archives.read_npz(file)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from error
    return Predictions("", None, {video: np.asarray(row, float) for video, row in arrays.items()}, {})


def _order(source: Predictions, first: Predictions) -> list[int]:
    """Where the first source's classes are among a source's."""
    wanted = first.class_names
    if source.classes is None or source.classes == wanted:
        wrong = [video for video, row in source.scores.items() if len(row) != len(wanted)]
        if wrong:
            raise UserError(
                f"{source.name}: {wrong[0]} has {len(source.scores[wrong[0]])} scores; {first.name} has "
                f"{len(wanted)} classes"
            )
        return list(range(len(wanted)))
    if missing := [name for name in wanted if name not in source.classes]:
        raise UserError(f"{source.name} has no scores for {len(missing)} classes of {first.name}, {missing[0]!r} first")
    return [source.classes.index(name) for name in wanted]


def _matched(source: Predictions, first: Predictions) -> dict[str, np.ndarray]:
    """A source's scores by the names that the first one gives to its videos."""
    by_stem: dict[str, np.ndarray | None] = {}
    for video, row in source.scores.items():
        stem = pathlib.PurePosixPath(video).stem
        by_stem[stem] = None if stem in by_stem else row  # None: two videos have this name
    found = {video: source.scores.get(video, by_stem.get(pathlib.PurePosixPath(video).stem)) for video in first.scores}
    if missing := [video for video, row in found.items() if row is None]:
        raise UserError(
            f"{source.name} has no scores, or those of two videos of one name, for {len(missing)} of the "
            f"{len(first.scores)} videos of {first.name}: {', '.join(missing[:3])}, …"
        )
    return {video: row for video, row in found.items() if row is not None}
