"""Late fusion: adds up the scores that several networks, or other methods, give to the same videos (ST-ResNet §4)."""

import collections
import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from jax_video import metrics, published, recipe
from jax_video.data import archives, documents, remote
from jax_video.data.manifest import EXTENSIONS
from jax_video.errors import UserError, shown
from jax_video.run import Run
from jax_video.testing import averages, score_archive

_LINE = (  # of predictions.jsonl
    {"video": str, "labels": [str], "scores": [float]},
    {"video": str, "label": str, "scores": [float]},
)
# Of test.json: how many videos are listed, and what the means over clips are of (`average` in the first version). Fused
# scores, which have no protocol, tell it themselves.
_AVERAGE = {"average_clips?": str, "average?": str}
_TEST = {"of?": int, "protocol?": _AVERAGE, **_AVERAGE}
_FIRST = "the first source must be a run that was tested, or an .npz of scores, labels and names"
_AGAIN = "test the run again (--mode=test), or make the fused scores again"


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The scores that one source gives to the videos of a test, and their labels."""

    name: str
    classes: tuple[str, ...] | None  # None: not told
    scores: dict[str, np.ndarray]  # by video: [K]
    # By video: the name of its class, or the names of all that hold; empty where the source does not tell.
    labels: dict[str, str | tuple[str, ...]]
    numbered: bool = False  # whether its classes are mere numbers: others may number them otherwise, or name them
    average_clips: str | None = None  # what they are means of: "probability" or "logit"; None: not told
    of: int | None = None  # how many videos the test lists, read or not; None: not told

    @property
    def multilabel(self) -> bool:
        """Whether a video may have several labels."""
        return any(isinstance(label, tuple) for label in self.labels.values())

    @property
    def targets(self) -> np.ndarray:
        """The labels of all videos, in the order of `scores`: the numbers of their classes [N]; if multi-label [N, K],
        1 for the classes that hold."""
        place = {name: number for number, name in enumerate(self.class_names)}
        if not self.multilabel:
            return np.array([place[self.labels[video]] for video in self.scores])  # type: ignore[index]
        found = np.zeros((len(self.scores), len(place)))
        for row, video in enumerate(self.scores):
            found[row, [place[name] for name in self.labels[video]]] = 1
        return found

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes. Raises UserError where the source does not tell them."""
        if self.classes is None:
            raise UserError(f"{self.name} does not name its classes; {_FIRST}")
        return self.classes


def read(source: Run | str | os.PathLike) -> Predictions:
    """The scores of a tested run, which is open or a folder, or those in a predictions.jsonl, a CSV or an .npz.

    Raises:
      UserError: there is no such file, or it is none of these.
    """
    path = remote.path(source.folder if isinstance(source, Run) else source)
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
    except (ValueError, TypeError, OSError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as scores ({str(error) or type(error).__name__})") from error
    if not found.scores:
        raise UserError(f"{path}: there are no scores in it")
    for video, row in found.scores.items():
        if row.ndim != 1 or not np.isfinite(row).all():
            raise UserError(f"{path}: the scores of {video} are not a row of finite numbers")
        if found.classes is not None and len(row) != len(found.classes):
            raise UserError(f"{path}: {video} has {len(row)} scores for {len(found.classes)} classes")
    return dataclasses.replace(found, name=str(path))


def fuse(sources: list[Predictions], weights: list[float], *, l2: bool = False) -> Predictions:
    """The weighted sum of all sources' scores, for the videos and in the classes of the first.

    Raises:
      UserError: there is not one finite weight for each source; the first has no labels; another one has other classes,
        lacks videos, has other labels, or is multi-label where the first is not, or the other way round; some are
        probabilities and others logits; a sum is too large for a number.
    """
    first = sources[0]
    average_clips = _averaged(sources)
    for source in sources:
        if source.labels and source.multilabel != first.multilabel:
            kinds = ("one label for each video", "several labels")
            raise UserError(
                f"{first.name} is of {kinds[first.multilabel]}, {source.name} of {kinds[source.multilabel]}: their "
                "scores mean different things"
            )
    if len(weights) != len(sources):
        raise UserError(f"{len(weights)} weights for {len(sources)} sources; expected one for each")
    if not np.isfinite(weights).all():
        raise UserError(f"weights {', '.join(map(str, weights))}: expected finite numbers")
    if not any(weights):
        raise UserError("all weights are 0, so that no score counts: expected at least one other")
    if not first.labels:
        raise UserError(f"{first.name} has no labels; {_FIRST}")
    total = {video: np.zeros(len(first.class_names)) for video in first.scores}
    for source, weight in zip(sources, weights, strict=True):
        order = _order(source, first)
        names = _matched(source, first)
        if _numbered(source, first):
            order = _by_labels(source, first, names) or order
        if source.labels:
            _check_labels(source, first, names, order)
        if _numbered(source, first) and order != sorted(order):
            _check_numbers(source, first, names, order)
        for video, name in names.items():
            row = source.scores[name][order]
            if l2:
                row = row / (np.abs(row).max() or 1.0)  # so that squares of very large or small numbers are not lost
                row = row / (np.linalg.norm(row) or 1.0)
            with np.errstate(over="ignore", invalid="ignore"):
                total[video] += weight * row
    if wrong := [video for video, row in total.items() if not np.isfinite(row).all()]:
        raise UserError(f"the sum of the scores of {wrong[0]} is too large for a number; bring them down, as --l2 does")
    return Predictions("fused", first.classes, total, first.labels, average_clips=average_clips, of=first.of)


def measure(predictions: Predictions) -> dict:
    """Video-level metrics (`metrics.video_metrics`, or for multi-label tests `metrics.label_metrics`)."""
    scores = np.stack(list(predictions.scores.values()))
    if predictions.multilabel:
        return metrics.label_metrics(scores, predictions.targets)
    return metrics.video_metrics(scores, predictions.targets, len(predictions.class_names))


def write(
    out: pathlib.Path, predictions: Predictions, sources: list[str], weights: list[float], *, l2: bool = False
) -> None:
    """Write predictions.jsonl, confusion.json and test.json, as a run's test does.

    Raises:
      UserError: see `check_out`.
    """
    check_out(out, sources)
    out.mkdir(parents=True, exist_ok=True)
    values = measure(predictions)
    rows = ((video, predictions.labels[video], row) for video, row in predictions.scores.items())
    confusion = values.pop("confusion", None)
    result = {"fused": sources, "weights": weights, "l2": l2, "videos": len(predictions.scores)} | values
    told = {"of": predictions.of, "average_clips": predictions.average_clips}
    result |= {key: value for key, value in told.items() if value is not None}
    each = "class_ap" if predictions.multilabel else "class_accuracy"
    result[each] = dict(zip(predictions.class_names, values[each], strict=True))
    write_scores(out, predictions.class_names, confusion, result, rows)
    documents.write(out / "test.json", result, indent=1, seal=False)


def check_out(out: pathlib.Path, sources: Sequence[str]) -> None:
    """Raise UserError if fused scores in this folder would replace others: of a run, an export, a test or a source."""
    places = [pathlib.Path(source).resolve() for source in sources if not remote.is_remote(source)]
    what = ""
    if out.resolve() in {place.parent if place.name == "predictions.jsonl" else place for place in places}:
        what = "is one of the sources"
    elif (out / "checkpoints").exists() or (out / "config.json").exists() or published.is_published(out):
        what = "is the folder of a run, or an export"
    elif (out / "test.json").exists() or (out / "predictions.jsonl").exists():
        what = "holds the result of a test, or predictions"
        with contextlib.suppress(OSError, documents.Damaged):
            what = "" if "fused" in documents.read(out / "test.json", {"*": object}) else what
    if what:
        raise UserError(f"{out} {what}, and fused scores would take the place of its own: choose another --out")


def write_scores(
    folder: remote.Path,
    classes: Sequence[str],
    confusion: list | None,
    result: dict,
    rows: Iterable[tuple[str, str | tuple[str, ...], np.ndarray]],
    *,
    tables: list | None = None,
) -> None:
    """Write predictions.jsonl, a line for each row (video, its label or labels, scores [K]), and confusion.json: the
    confusion matrix [K, K], or in multi-label tests the tables of the classes [K, 2, 2] (`metrics.tables`), if any.

    confusion.json is sealed with a checksum. It has the number of videos and the CRC of predictions.jsonl, and the
    result that test.json will hold, without the config, so that readers notice a missing line or a changed number.
    """
    told = {"videos": 0, "crc32": 0}

    def lines() -> Iterator[bytes]:
        for video, label, scores in rows:
            of = {"label": label} if isinstance(label, str) else {"labels": list(label)}
            line = {"video": video, **of, "scores": scores.tolist()}
            data = f"{json.dumps(line, ensure_ascii=False, allow_nan=False)}\n".encode(errors="surrogateescape")
            told["videos"] += 1
            told["crc32"] = zlib.crc32(data, told["crc32"])
            yield data

    remote.write_whole(folder / "predictions.jsonl", lines())
    table: dict[str, Any] = {"classes": list(classes), "rows": "true class", "columns": "predicted"}
    if tables is not None:
        table |= {"rows": "the class does not hold, or does", "columns": "it is not taken to, or is"}
    found = {key: value for key, value in result.items() if key not in averages.COMPARED}
    counted = {"videos": confusion, "tables": tables}
    table |= {key: value for key, value in counted.items() if value is not None}
    table |= {"result": found, "predictions": told}
    documents.write(folder / "confusion.json", table, indent=1)


def _read_run(file: remote.Path) -> Predictions:
    try:
        about = documents.read(file.parent / "confusion.json", {"classes": [str], "predictions?": dict})
    except FileNotFoundError as error:
        raise UserError(f"{file}: confusion.json, which names the classes in order, is not beside it") from error
    except documents.Damaged as error:
        raise UserError(
            f"{file.parent / 'confusion.json'}, which names the classes in order: {error}; {_AGAIN}"
        ) from error
    classes, told = tuple(about["classes"]), about.get("predictions")
    try:
        data = documents.content(file)
    except documents.Damaged as error:
        raise UserError(f"{file}: {error}") from error
    scores: dict[str, np.ndarray] = {}
    labels: dict[str, str | tuple[str, ...]] = {}
    for number, row in documents.lines(data, _LINE):
        if isinstance(row, documents.Damaged):
            raise UserError(f"{file}:{number}: {row}; {_AGAIN}")
        label = row["label"] if "label" in row else tuple(row["labels"])
        if strange := [name for name in ([label] if isinstance(label, str) else label) if name not in classes]:
            raise UserError(f"{file}:{number}: {strange[0]!r} is none of the classes in confusion.json; {_AGAIN}")
        found = np.array(row["scores"], float)
        if not np.array_equal(scores.setdefault(row["video"], found), found):
            raise UserError(f"{file}:{number}: there are other scores of {row['video']} before; {_AGAIN}")
        labels[row["video"]] = label
    if told is not None and told != {"videos": len(scores), "crc32": zlib.crc32(data)}:
        raise UserError(
            f"{file}: not as it was written: {len(scores)} of {told.get('videos')} videos, or others; {_AGAIN}. "
            'To take it as you have changed it, remove "predictions" and "crc32" from the confusion.json beside it'
        )
    test: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, documents.Damaged):
        test = documents.read(file.parent / "test.json", _TEST)
    protocol = test.get("protocol", test)
    average_clips = protocol.get("average_clips", protocol.get("average"))
    return Predictions("", classes, scores, labels, average_clips=average_clips, of=test.get("of"))


def _read_csv(file: pathlib.Path) -> Predictions:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    first, *classes = header
    if first != "video":
        raise UserError(f"{file}: its header begins with {first!r}; expected video and the names of the classes")
    if twice := [name for name, columns in collections.Counter(classes).items() if columns > 1]:
        raise UserError(f"{file}: {twice[0]!r} is in its header twice; expected one column for each class")
    scores: dict[str, np.ndarray] = {}
    for video, *values in rows:
        found = np.array([float(value) for value in values])
        if not np.array_equal(scores.setdefault(video, found), found, equal_nan=True):
            raise UserError(f"{file}: {video} is in it twice, with other scores; leave one of them out")
    return Predictions("", tuple(classes), scores, {})


def _read_npz(file: pathlib.Path) -> Predictions:
    arrays = archives.read_npz(file)
    if score_archive.told(arrays):
        classes, scores, labels = score_archive.read(arrays)
        return Predictions("", classes, scores, dict(labels), numbered=True)
    return Predictions("", None, {video: score_archive.numbers(video, row) for video, row in arrays.items()}, {})


def _averaged(sources: list[Predictions]) -> str | None:
    """What the scores of all sources are means of; None where one does not tell. Raises UserError if they differ."""
    told = {source.average_clips: source.name for source in sources if source.average_clips is not None}
    if len(told) > 1:
        (kind, name), (other_kind, other_name), *_ = told.items()
        raise UserError(
            f"{name} was tested with test.average_clips={kind}, {other_name} with {other_kind}: probabilities and "
            "logits are not added up. Test one again as the other: python -m jax_video.main --config=RECIPE "
            f"--workdir=DIR --mode=test --config.test.average_clips={kind}"
        )
    return sources[0].average_clips if all(source.average_clips for source in sources) else None


def _order(source: Predictions, first: Predictions) -> list[int]:
    """The places of the first source's classes among a source's, by name; the places as they are where the source does
    not name its classes, or one of the two only numbers them."""
    wanted, known = first.class_names, source.classes or ()
    if not (missing := [name for name in wanted if name not in known]):
        return [known.index(name) for name in wanted]
    if source.classes is not None and not _numbered(source, first):
        raise UserError(f"{source.name} has no scores for {len(missing)} classes of {first.name}, {missing[0]!r} first")
    if wrong := [video for video, row in source.scores.items() if len(row) != len(wanted)]:
        count = len(source.scores[wrong[0]])
        raise UserError(f"{source.name}: {wrong[0]} has {count} scores; {first.name} has {len(wanted)} classes")
    return list(range(len(wanted)))


def _numbered(source: Predictions, first: Predictions) -> bool:
    """Whether the classes of both are to be matched by the labels of the videos, as one source only numbers them."""
    return bool(source.labels) and (source.numbered or first.numbered)


def _by_labels(source: Predictions, first: Predictions, names: dict[str, str]) -> list[int] | None:
    """The places of the first source's classes among a source's, by the labels that both give to the videos; None where
    these do not tell it for each class.

    Args:
      names: {name of a video in the first source: its name in the source}.
    """
    place = {name: k for k, name in enumerate(source.class_names)}
    found = {label: collections.Counter[int]() for label in first.class_names}
    for video, name in names.items():
        found[first.labels[video]][place[source.labels[name]]] += 1  # type: ignore[index]
    order = [columns.most_common(1)[0][0] for columns in found.values() if columns]
    return order if len(set(order)) == len(found) else None


def _check_labels(source: Predictions, first: Predictions, names: dict[str, str], order: list[int]) -> None:
    theirs = {source.class_names[column]: name for column, name in zip(order, first.class_names, strict=True)}

    def told(label: str | tuple[str, ...]) -> Any:
        return theirs.get(label) if isinstance(label, str) else {theirs[each] for each in label if each in theirs}

    ours = {video: label if isinstance(label, str) else set(label) for video, label in first.labels.items()}
    if wrong := [video for video, name in names.items() if told(source.labels[name]) != ours[video]]:
        video = wrong[0]
        raise UserError(
            f"{source.name} and {first.name} are no tests of one set: {len(wrong)} of {len(names)} labels differ; "
            f"{video} is {source.labels[names[video]]!r} in the one and {first.labels[video]!r} in the other"
        )


def _check_numbers(source: Predictions, first: Predictions, names: dict[str, str], order: list[int]) -> None:
    """Print that two sources number the classes differently. Raises UserError where the scores do not support that:
    then the labels do not belong to the scores."""
    place = next(place for place, column in enumerate(order) if place != column)
    what = f"{source.name}: its class {order[place]} is class {place} of {first.name}, {first.class_names[place]!r}"
    sides = [(source, list(names.values())), (first, list(names))]
    labels = [[one.class_names.index(one.labels[video]) for video in videos] for one, videos in sides]
    for (one, videos), own, other in zip(sides, labels, reversed(labels), strict=True):
        best = [int(one.scores[video].argmax()) for video in videos]
        right, alike = (float(np.mean(np.equal(best, each))) for each in (own, other))
        if one.numbered and right <= 2 * alike:
            raise UserError(
                f"{what}, by the labels of the videos; but {100 * right:.1f} % of the scores of {one.name} are right "
                f"so, and {100 * alike:.1f} % if both number the classes alike: its labels are not those of its scores"
            )
    recipe.note(shown(f"{what}; classes are matched by the labels of the videos."))


def _matched(source: Predictions, first: Predictions) -> dict[str, str]:
    """{name of a video in the first source: its name in the source}, by path, or by its end: where just one video of
    each source has that file name, without a video's suffix, and the folders that both tell are alike."""
    alone: dict[str, str] = {}
    numbered = _numbered(source, first)  # by others, in whose folders videos may lie otherwise
    for seconds in (False, True):  # those of a part of a file; scores of the file are the part's where it has just one
        ours, theirs = _by_stem(first, seconds), _by_stem(source, seconds)
        alone |= {
            videos[0]: theirs[stem][0]
            for stem, videos in ours.items()
            if len(videos) == len(theirs[stem]) == 1 and (seconds or "#t=" not in theirs[stem][0])
        }
    others = {} if numbered else {video: name for video, name in alone.items() if not _folders_alike(video, name)}
    alone = {video: name for video, name in alone.items() if video not in others}
    found = {video: video if video in source.scores else alone.get(video) for video in first.scores}
    if missing := [video for video, name in found.items() if name is None]:
        other = f"{others[missing[0]]} is in another folder than {missing[0]}; " if missing[0] in others else ""
        raise UserError(
            f"{source.name} has no scores, or those of two videos of one name, for {len(missing)} of the "
            f"{len(first.scores)} videos of {first.name}: {', '.join(missing[:3])}, …; {other}videos are told apart by "
            "their paths in the data set, or the ends of these"
        )
    return {video: name for video, name in found.items() if name is not None}


def _folders_alike(one: str, other: str) -> bool:
    """Whether the folders of one path are the last ones of the other's."""
    mine, theirs = (pathlib.PurePosixPath(name.partition("#t=")[0]).parent.parts[::-1] for name in (one, other))
    return all(a == b for a, b in zip(mine, theirs, strict=False))


def _by_stem(source: Predictions, seconds: bool) -> dict[str, list[str]]:
    """The videos of a source by file name without a video's suffix, with or without the seconds of a part of a file, as
    in "id#t=5,15"; a name that none has gives an empty list."""
    found = collections.defaultdict(list)
    for video in source.scores:
        name, *part = pathlib.PurePosixPath(video).name.partition("#t=")
        base, extension = os.path.splitext(name)  # any other dot is a part of the name
        stem = base if extension.lower() in EXTENSIONS else name
        found["".join([stem, *part]) if seconds else stem].append(video)
    return found
