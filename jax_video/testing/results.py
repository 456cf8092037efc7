"""The test of a run: scores of videos, metrics, and what is written of them into its folder."""

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jax_video import checkpoint, lock, metrics, networks, objectives, pictures, recipe, saved
from jax_video.data import documents, remote
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError
from jax_video.multilabel import MultiLabel
from jax_video.run import Run
from jax_video.scoring import VideoMeans
from jax_video.testing import averages, fusion

NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_top1_top5": "mean of top-1 and top-5",
    "mean_class_accuracy": "mean class accuracy",
    "clip_top1": "single clips, top-1",
    "map": "mAP",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "hit1": "hit@1",
    "pair_accuracy": "pairs told right",
    "positive_accuracy": "  of the same video",
    "negative_accuracy": "  of different videos",
}
# What test.json holds: what it is a result of, and the result: of classes, of several labels, or of pairs.
_SUBJECT = {
    **{"step": int, "fingerprint?": int, "manifest": str, "protocol?": dict, "clip?": dict, "dtype?": str},
    **{"videos": int, "of": int},
}
_CLASSES = {"top1": float, "top5": float, "mean_top1_top5": float, "mean_class_accuracy": float, "clip_top1?": float}
_LABELS = {"map": float, "macro_f1": float, "micro_f1": float, "hit1": float}
_PAIRS = {"pair_accuracy": float, "student": {"name": str, "frames": int}}


@checkpoint.writes_run
def test(run: Run, manifest: Manifest) -> dict[str, Any]:
    """Test a run by its protocol, on the split that its config names (`test.split`).

    Writes test.json, predictions.jsonl, confusion.json and, if a picture has room for the names of the classes,
    confusion.png into `folder_of(run)`.

    Returns:
      What test.json holds.

    Raises:
      UserError: the run has other classes, or videos cannot be read.
    """
    split, folder = run.config.test.split, folder_of(run)
    run.check_classes(manifest)
    print_other_clips(run)
    if isinstance(run.objective, objectives.Classification):
        manifest.check_labels(split)
        if manifest.multilabel != (run.thresholds is not None):
            kinds = ("one label for each video", "several labels, or none")
            raise UserError(
                f"the run in {run.folder} was trained for {kinds[run.thresholds is not None]}, and the videos of "
                f"{manifest.name!r} have {kinds[manifest.multilabel]}: test it on a set of the same kind."
            )
    means = run.mean_over_clips(run.score_clips, manifest, split)
    lock.check(run.folder)
    if jax.process_index() == 0:
        folder.mkdir(exist_ok=True)
    listed = sum(video.split == split for video in manifest.videos)
    _print_replaced(folder, subject(run, manifest))
    result = subject(run, manifest) | {"videos": len(means.video), "of": listed}
    if isinstance(run.objective, objectives.Correspondence):
        student = {"name": run.config.model.name, "frames": run.config.clip.frames}
        network = run.definition, run.weights["params"], run.weights["batch_stats"]
        pairs = run.objective.of_videos(network, means.values)
        result |= run.objective.metrics(pairs, means.label) | {"student": student}
    elif isinstance(run.objective, MultiLabel):
        means.check_finite(manifest)
        result |= _labels(run, run.objective, manifest, means)
    else:
        means.check_finite(manifest)
        values = metrics.video_metrics(means.values, means.label, len(manifest.classes))
        result |= {key: values[key] for key in averages.METRICS} | {
            "clip_top1": means.clips["top1"],
            "class_accuracy": dict(zip(manifest.classes, values["class_accuracy"], strict=True)),
        }
        if note := metrics.note(len(manifest.classes)):
            result["note"] = note
        if jax.process_index() == 0:
            _write_classes(folder, manifest, means, values["confusion"], result)
    if jax.process_index() == 0:
        # Last, as it says that the test is complete.
        documents.write(folder / "test.json", result, indent=1, seal=False)
    if means.failed and not run.config.test.allow_partial:
        names = ", ".join(manifest.videos[index].name for index in means.failed[:5])
        raise UserError(
            f"{len(means.failed)} videos could not be read in the test ({names} …): its result in "
            f"{folder / 'test.json'} covers {result['videos']} of {listed}. Run prepare again, or accept it: "
            "--config.test.allow_partial=True."
        )
    return result


def folder_of(run: Run, split: str | None = None) -> remote.Path:
    """The folder of the result of a run's test, or of one on another split than its config's; see `place`."""
    return place(run.folder, split or run.config.test.split, run.step if run.chosen else None)


def place(folder: remote.Path, split: str, step: int | None = None) -> remote.Path:
    """The folder of a test's result: the run's own. For another split than "test", or a checkpoint that was chosen by
    its step, a folder inside it: "val", "step200", "val-step200"."""
    parts = [*([split] if split != "test" else []), *([f"step{step}"] if step is not None else [])]
    return folder / "-".join(parts) if parts else folder


def _labels(run: Run, objective: MultiLabel, manifest: Manifest, means: VideoMeans) -> dict[str, Any]:
    """The result of a multi-label test, at the run's thresholds; also writes the scores."""
    assert run.thresholds is not None
    tables = metrics.tables(objective.video_probabilities(means.values), means.label, run.thresholds)
    values = metrics.label_metrics(means.values, means.label)
    named = {"class_ap": values.pop("class_ap"), "thresholds": run.thresholds.tolist()}
    result = values | metrics.f1_scores(tables)
    result |= {key: dict(zip(manifest.classes, each, strict=True)) for key, each in named.items()}
    if jax.process_index() == 0:
        several = [tuple(manifest.classes[k] for k in np.flatnonzero(row > 0)) for row in means.label]
        rows = zip((manifest.videos[index].name for index in means.video), several, means.values, strict=True)
        folder = folder_of(run)
        fusion.write_scores(folder, manifest.classes, None, result, rows, tables=tables.tolist())
        (folder / "confusion.png").unlink(missing_ok=True)  # of an earlier test
    return result


def print_other_clips(run: Run) -> None:
    """Print a note where a run is given other clips, or another type of activations, than it was trained with."""
    theirs, ours = run.meta.config, run.config
    changed = other_clips(theirs["clip"], ours.clip.to_dict())
    if theirs.get("dtype", ours.dtype) != ours.dtype:
        changed.append(f"dtype {theirs['dtype']}")
    if changed and jax.process_index() == 0:
        print(f"Other clips than those of the run in {run.folder}, which has {', '.join(changed)}.", file=sys.stderr)


def _print_replaced(folder: remote.Path, subject: dict[str, Any]) -> None:
    """Print a note where the result of another test gives way."""
    with contextlib.suppress(OSError, documents.Damaged):
        earlier = documents.read(folder / "test.json", {"*": object})
        other = averages.differences(earlier, subject)
        if earlier.get("manifest", subject["manifest"]) != subject["manifest"]:
            other.insert(0, "the set, or its state")
        if other and jax.process_index() == 0:
            said = f"{folder / 'test.json'}, an earlier result, is replaced. It differs in {'; '.join(other)}."
            print(said, file=sys.stderr)


def other_clips(trained: Mapping[str, Any], tested: Mapping[str, Any]) -> list[str]:
    """What is other in the clips of a test than in those that the run was trained with: keys, with the run's values."""
    keys = ("frames", "stride", "short_side", "size", "fps")
    return [f"{key} {trained.get(key)}" for key in keys if trained.get(key) != tested.get(key)]


def is_own(result: Mapping[str, Any], run: Run) -> bool:
    """Whether a result is of a run's weights, on the set and clips of its training, as far as the result tells."""
    config = run.meta.config
    return (
        result["step"] == run.step
        and result.get("fingerprint", run.fingerprint) == run.fingerprint
        and not run.meta.is_of_another_set(result.get("manifest"))
        and run.meta.packed in (None, result.get("packed", run.meta.packed))
        and not other_clips(config["clip"], result.get("clip", config["clip"]))
        and result.get("dtype", config.get("dtype")) == config.get("dtype")
    )


def read_result(run: Run, manifest: Manifest) -> dict[str, Any] | None:
    """The result of an earlier test of the same weights by the same protocol on all videos of the same set; None where
    there is none."""
    path = folder_of(run) / "test.json"
    shape = _PAIRS if isinstance(run.objective, objectives.Correspondence) else _CLASSES
    shape = _LABELS if isinstance(run.objective, MultiLabel) else shape
    try:
        result = documents.read(path, _SUBJECT | shape)
        averages.check_result(path.parent, result)
    except FileNotFoundError:
        return None
    except documents.Damaged as error:
        if jax.process_index() == 0:
            print(f"{path}: {error}. The test is made again.", file=sys.stderr)
        return None
    expected = subject(run, manifest)
    earlier = {key: expected[key] for key in ("dtype", "fingerprint", "packed")}  # which earlier versions did not tell
    found = {key: (earlier | result).get(key) for key in expected}
    whole = result["videos"] == result["of"] or run.config.test.allow_partial
    return result if whole and _in_full(found) == _in_full(expected) else None


def subject(run: Run, manifest: Manifest) -> dict[str, Any]:
    """What a result is of, and how it was got; tuples become lists, as in JSON."""
    config = recipe.resolve(run.config, flip=manifest.flip, multilabel=manifest.multilabel)
    subject = {
        "step": run.step,
        "fingerprint": run.fingerprint,  # other weights may be of the same step
        "manifest": manifest.hash,
        "packed": manifest.packed_as,
        "protocol": config.test.to_dict(),
        "clip": config.clip.to_dict(),
        "dtype": config.dtype,
    }
    return json.loads(json.dumps(subject))


def _in_full(subject: dict[str, Any]) -> dict[str, Any]:
    """The same with the keys that earlier versions, and recipes, leave out."""
    sections = {"protocol": "test", "clip": "clip"}
    subject |= {key: saved.complete_section(section, subject[key] or {}) for key, section in sections.items()}
    return json.loads(json.dumps(subject))


def report(
    result: dict[str, Any],
    manifest: Manifest,
    folder: remote.Path,
    written: remote.Path | None = None,
    network: str | None = None,
) -> str:
    """A result for people to read, and how to use the network.

    Args:
      folder: of the run.
      written: the folder of the result, `folder_of(run)`; by default `folder`.
      network: its name; by default one that comes with jax_video.
    """
    split, videos = result.get("protocol", {}).get("split", "test"), f"{averages.video(result)}s"
    lines = [
        f"{manifest.name}: {result['videos']} of {result['of']} {videos}, checkpoint of step {result['step']}",
        *(f"  {name:<24}{100 * result[key]:6.2f} %" for key, name in NAMES.items() if key in result),
    ]
    if "pair_accuracy" in result:
        name, frames = result["student"]["name"], result["student"]["frames"]
        recipes = "stc" if networks.find(name).recipe == "stc" else "t3d"  # whose start=RUN takes any other network
        start = shlex.quote(f"--config=configs/{recipes}.py:model={name},frames={frames},data=DIR,start={folder}")
        return "\n".join([*lines, "Train its 3D network on labels:", f"  python -m jax_video.main {start}"])
    if written not in (None, folder):
        return "\n".join([*lines, f"Of every video: {written}/predictions.jsonl."])
    first = manifest.videos[manifest.select(split)[0][0]].path
    example = "VIDEO" if manifest.packed else f"{manifest.root}/{first}"  # packed ones are no files
    if network is None or network in networks.BUILT_IN:
        use = f"  python -m jax_video.predict {shlex.quote(example)} --checkpoint={shlex.quote(str(folder))}"
    else:  # of one's own, which commands do not know
        use = f"  once {network!r} is in jax_video.NETWORKS: jax_video.load({str(folder)!r}).classify({example!r})"
    return "\n".join(
        [
            *lines,
            *filter(None, ["" if manifest.multilabel else metrics.note(len(manifest.classes))]),
            f"Per class: {folder}/report.html, to be looked at, and test.json. Classify a video:",
            use,
        ]
    )


def _write_classes(folder: remote.Path, manifest: Manifest, means: VideoMeans, confusion: list, result: dict) -> None:
    """Write predictions.jsonl, and the confusion matrix as JSON and as a picture."""
    fusion.write_scores(
        folder,
        manifest.classes,
        confusion,
        result,
        (
            (manifest.videos[index].name, manifest.classes[label], row)
            for index, label, row in zip(means.video, means.label, means.values, strict=True)
        ),
    )
    picture = folder / "confusion.png"
    if len(manifest.classes) <= pictures.NAMED:
        pictures.plot_confusion(picture, manifest.classes, np.array(confusion))
    else:
        picture.unlink(missing_ok=True)  # of an earlier test; report.html shows so many with their names
