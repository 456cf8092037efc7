"""Adds up the scores that several networks, or other methods, give to the same videos (late fusion).

  # two streams with equal weight, and with another method's scores, each brought to length 1 (ST-ResNet §4, + IDT)
  python -m jax_video.fuse runs/appearance runs/motion
  python -m jax_video.fuse runs/st_resnet idt.csv --l2 --out=runs/st_resnet_idt
  # one weight for each
  python -m jax_video.fuse runs/a runs/b/predictions.jsonl scores.npz --weights=1,1,0.5

A source is the folder of a tested run, or its predictions.jsonl, or scores from elsewhere: a CSV whose header is
`video` and the names of the classes; an .npz with an array [K] under the name of each video, classes in the order of
the first source, which has to be a run. Videos are named by their path in the data set, or by its last part without
suffix.
Networks whose own test averages logits are fused by logits (--config.test.average_clips=logit).
"""

import csv
import dataclasses
import json
import pathlib
import sys

import numpy as np
from absl import flags

from jax_video import command, metrics
from jax_video.errors import UserError


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What one source says of the videos of a test."""

    name: str
    classes: tuple[str, ...] | None  # None: not told
    scores: dict[str, np.ndarray]  # by video: [K]
    labels: dict[str, str]  # by video: the name of its class; empty where the source does not tell


def define_flags() -> None:
    """Only where this is the command that runs: its functions can be imported beside other commands'."""
    flags.DEFINE_list("weights", None, "One for each source; by default all count alike.")
    flags.DEFINE_boolean("l2", False, "Divide every source's scores of a video by their Euclidean norm first.")
    flags.DEFINE_string("out", None, "A folder for predictions.jsonl and test.json of the fused scores.")


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if len(arguments) < 2:
        raise UserError(f"expected at least two sources, got {' '.join(arguments) or 'none'}; see --help")
    sources = [read(pathlib.Path(argument)) for argument in arguments]
    weights = [1.0] * len(sources)
    if given.weights is not None:
        try:
            weights = [float(weight) for weight in given.weights]
        except ValueError:
            raise UserError(f"--weights={','.join(given.weights)}: expected numbers, as in 1,0.5") from None
    first = sources[0]
    fused = fuse(sources, weights, l2=given.l2)
    command.announce("CPU", f"scores of {len(sources)} sources", f"{len(first.scores):,} videos")
    rows = {source.name: source for source in sources} | {"fused": fused}
    print(f"{len(first.scores)} videos, {len(first.classes)} classes\n{'':30} top-1   top-5   mean class")
    for name, source in rows.items():
        values = measure(fuse([first, source], [0.0, 1.0]))
        shown = (values["top1"], values["top5"], values["mean_class_accuracy"])
        print(f"{name[-29:]:30}" + "".join(f"{100 * value:6.2f} %" for value in shown))
    if note := metrics.note(len(first.classes)):
        print(note, file=sys.stderr)
    if given.out is not None:
        write(pathlib.Path(given.out), fused, arguments, weights, l2=given.l2)


def read(path: pathlib.Path) -> Predictions:
    """The scores in a tested run's folder, a predictions.jsonl, a CSV or an .npz.

    Raises:
      UserError: there is no such file, or it is none of these.
    """
    file = path / "predictions.jsonl" if path.is_dir() else path
    if not file.is_file():
        what = "has no predictions.jsonl: was the run tested?" if path.is_dir() else "there is no such file"
        raise UserError(f"{path}: {what}")
    try:
        found = {".jsonl": _read_run, ".csv": _read_csv, ".npz": _read_npz}[file.suffix](file)
    except KeyError as error:
        raise UserError(f"{path}: expected a run's folder, a .jsonl of a test, a .csv or an .npz; {error}") from error
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
    total = {video: np.zeros(len(first.classes)) for video in first.scores}
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
    labels = np.array([predictions.classes.index(predictions.labels[video]) for video in predictions.scores])
    return metrics.video_metrics(scores, labels, len(predictions.classes))


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
    table = {"classes": list(predictions.classes), "rows": "true class", "columns": "predicted"}
    table["videos"] = values.pop("confusion")
    (out / "confusion.json").write_text(json.dumps(table, ensure_ascii=False, indent=1), encoding="utf-8")
    result = {"fused": sources, "weights": weights, "l2": l2, "videos": len(predictions.scores)} | values
    result["class_accuracy"] = dict(zip(predictions.classes, values["class_accuracy"], strict=True))
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
    with np.load(file, allow_pickle=False) as arrays:
        return Predictions("", None, {video: np.asarray(arrays[video], float) for video in arrays}, {})


def _order(source: Predictions, first: Predictions) -> list[int]:
    """Where the first source's classes are among a source's."""
    if source.classes is None or source.classes == first.classes:
        wrong = [video for video, row in source.scores.items() if len(row) != len(first.classes)]
        if wrong:
            raise UserError(
                f"{source.name}: {wrong[0]} has {len(source.scores[wrong[0]])} scores; {first.name} has "
                f"{len(first.classes)} classes"
            )
        return list(range(len(first.classes)))
    if missing := [name for name in first.classes if name not in source.classes]:
        raise UserError(f"{source.name} has no scores for {len(missing)} classes of {first.name}, {missing[0]!r} first")
    return [source.classes.index(name) for name in first.classes]


def _matched(source: Predictions, first: Predictions) -> dict[str, np.ndarray]:
    """A source's scores by the names that the first one gives to its videos."""
    by_stem = {}
    for video, row in source.scores.items():
        stem = pathlib.PurePosixPath(video).stem
        by_stem[stem] = None if stem in by_stem else row  # None: two videos have this name
    found, missing = {}, []
    for video in first.scores:
        row = source.scores.get(video)
        row = by_stem.get(pathlib.PurePosixPath(video).stem) if row is None else row
        if row is None:
            missing.append(video)
        found[video] = row
    if missing:
        raise UserError(
            f"{source.name} has no scores, or those of two videos of one name, for {len(missing)} of the "
            f"{len(first.scores)} videos of {first.name}: {', '.join(missing[:3])}, …"
        )
    return found


if __name__ == "__main__":
    define_flags()
    command.run(main)
