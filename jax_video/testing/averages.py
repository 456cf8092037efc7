"""The mean of several tests: of a data set's official splits, or of one split with several seeds."""

import collections
import contextlib
import json
import pathlib
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from jax_video import saved
from jax_video.data import documents, remote
from jax_video.errors import UserError

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_top1_top5": "mean of both",
    "mean_class_accuracy": "mean class",
}
LABELS = {"map": "mAP", "hit1": "hit@1", "macro_f1": "macro F1", "micro_f1": "micro F1"}  # in multi-label tests
# Results that are averaged must agree in these, except in `FREE`, on which scores do not depend.
COMPARED = {"protocol": "test", "clip": "clip", "dtype": "dtype"}  # key of a result: section, or key, of a config
_FUSED = ("weights", "l2", "average_clips")  # keys of fused scores, which have none of those
FREE = ("batch", "allow_partial")
_BESIDE = {
    "protocol?": dict,
    "clip?": dict,
    "dtype?": str,
    "manifest?": str | None,
    "videos?": int,
    "of?": int,
    "note?": str,
}
SHAPE = dict.fromkeys(METRICS, float) | _BESIDE  # of the result of a test of classes, one label for each video
_LABELS_SHAPE = {  # of a multi-label test; fused scores have no thresholds, and so no F1
    **{"map": float, "hit1": float, "macro_f1?": float, "micro_f1?": float},
    **{"class_ap?": {"*": float | None}, "thresholds?": {"*": float}},
}


def shape(result: object) -> dict:
    """The keys and types of the result of a test of classes, be it of one label for each video or of several."""
    several = isinstance(result, dict) and "map" in result
    return _LABELS_SHAPE | _BESIDE if several else SHAPE


def names(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The metrics that all these results have: {key: its name for people}."""
    known = METRICS | LABELS
    return {key: name for key, name in known.items() if all(key in result for result in results)}


def video(result: Mapping[str, Any]) -> str:
    """What a video of a result is called: "test video", "val video"; of fused scores, which do not tell, "video"."""
    return "video" if "fused" in result else f"{result.get('protocol', {}).get('split', 'test')} video"


def read(run: remote.Path) -> dict:
    """The result of a run's test of classes, from its test.json.

    Raises:
      UserError: the run was not tested, or its test.json holds something else.
    """
    path = run / "test.json"
    try:
        result = documents.read(path, {"*": object})
        if wrong := documents.defect(result, shape(result)):
            raise documents.Damaged(wrong)
        check_result(run, result)
        return result
    except FileNotFoundError as error:
        raise UserError(
            f"{run} has no test.json: test it first, "
            f"python -m jax_video.main --config=RECIPE --workdir={run} --mode=test"
        ) from error
    except documents.Damaged as error:
        raise UserError(
            f"{path} is not the result of a test of classes ({error}); test the run again, with its --config and "
            "--mode=test"
        ) from error


def check_result(folder: remote.Path, result: dict) -> None:
    """Raise documents.Damaged where a test's result is not the one that the confusion.json beside it records."""
    try:
        told = documents.read(folder / "confusion.json", {"result?": dict}).get("result", {})
    except (FileNotFoundError, documents.Damaged):  # it says nothing about the result
        return
    if changed := [key for key, value in told.items() if result.get(key, value) != value]:
        raise documents.Damaged(f"{changed[0]!r} is not what confusion.json says it was")


def summarise(results: dict[str, dict]) -> dict:
    """Mean and standard deviation of every metric over the runs.

    Returns:
      {"runs": names, "same_manifest": whether all were tested on the same set (None where one does not tell), "top1":
      {"mean", "deviation"}, …}, fractions; the deviation is the standard deviation.

    Raises:
      UserError: two runs were tested by different protocols, with different clips or with activations of different
        types, or have no metric in common.
    """
    if not (known := names(results.values())):
        raise UserError(
            "some were tested on videos with one label each, others with several: they have no metric alike"
        )
    changed: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for key, section in (COMPARED | {key: key for key in _FUSED}).items():
        told = {run: _complete(section, result[key]) for run, result in results.items() if key in result}
        for run in told:  # earlier versions tell no dtype
            first = next(iter(told))
            changed[first, run] += _differences(key, told[first], told[run])
    for (first, run), lines in changed.items():
        if lines:
            raise UserError(
                f"{first} and {run} were not tested alike:\n  "
                + "\n  ".join(lines)
                + "\nTest one of them again as the other."
            )
    manifests = {result.get("manifest") for result in results.values()}
    values = {key: [result[key] for result in results.values()] for key in known}
    return {
        "runs": list(results),
        "same_manifest": None if None in manifests else len(manifests) == 1,
        **{key: {"mean": statistics.mean(row), "deviation": statistics.stdev(row)} for key, row in values.items()},
    }


def check_out(path: pathlib.Path) -> None:
    """Raise UserError for a file that holds something else than an average."""
    if not path.is_file():  # or a pipe
        return
    with contextlib.suppress(OSError, documents.Damaged):
        if "same_manifest" in documents.read(path, {"*": object}):
            return
    raise UserError(f"{path} is there already, and holds no averages: choose another --out")


def write(path: pathlib.Path, average: dict) -> None:
    """Write what `summarise` returns into a JSON file."""
    if path.exists() and not path.is_file():
        path.write_text(json.dumps(average, ensure_ascii=False, indent=1), encoding="utf-8")
    else:
        documents.write(path, average, indent=1, seal=False)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what two results were tested otherwise, as far as both tell: "protocol.crop: center and three", …"""
    return [
        line
        for key, section in COMPARED.items()
        if key in one and key in other
        for line in _differences(key, _complete(section, one[key]), _complete(section, other[key]))
    ]


def _complete(section: str, values: Any) -> Any:
    """A section with the keys that earlier versions lack, or a value that is no section; tuples become lists, as in
    JSON."""
    return json.loads(json.dumps(saved.complete_section(section, values)))


def _differences(section: str, one: Any, other: Any) -> list[str]:
    if not isinstance(one, dict):
        return [f"{section}: {one} and {other}"] if one != other else []
    return [
        f"{section}.{key}: {one.get(key)} and {other.get(key)}"
        for key in sorted(one.keys() | other.keys())
        if key not in FREE and one.get(key) != other.get(key)
    ]
