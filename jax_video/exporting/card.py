"""The model card of a run: what it was trained on and how, its result, and how to use it, in the README.md that the
Hugging Face Hub shows."""

import contextlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax

from jax_video import objectives, published
from jax_video.data import copies, documents
from jax_video.errors import UserError, shown
from jax_video.exporting import program
from jax_video.run import Run
from jax_video.testing import averages, results

NAME = "README.md"
_PROJECT = "https://github.com/jax-video/jax_video"
_RESULT = {"step": int, "videos": int, "of": int}
_METRICS = {  # name, and type as the Hub calls it
    "top1": ("top-1 accuracy", "accuracy"),
    "top5": ("top-5 accuracy", "accuracy"),
    "mean_class_accuracy": ("mean class accuracy", "accuracy"),
    "map": ("mean average precision (mAP)", "mean_average_precision"),
    "macro_f1": ("macro F1", "f1"),
    "micro_f1": ("micro F1", "f1"),
}


def text(run: Run, files: list[str], *, license: str | None = None) -> str:
    """The text of the card.

    Args:
      files: the names of the other files in its folder.
      license: an identifier of the Hub, such as apache-2.0; None: nobody has said.

    Raises:
      UserError: `license` does not look like an identifier.
    """
    tested = result(run)
    return f"---\n{_front(run, tested, license)}---\n\n{_body(run, tested, files, license)}"


def _front(run: Run, result: Mapping[str, Any] | None, license: str | None) -> str:
    """The front matter that the Hub reads: YAML whose values are written as JSON, which is valid YAML."""
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise UserError(
            f"--license={license}: expected an identifier of the Hugging Face Hub, such as apache-2.0 or mit"
        )
    name, task = _data(run), {"type": "video-classification", "name": "Video Classification"}
    slug = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "unknown" * bool(name)
    front: dict[str, Any] = {
        "license": license or "unknown",
        "library_name": published.LIBRARY,
        "pipeline_tag": task["type"] if isinstance(run.objective, objectives.Classification) else "feature-extraction",
        "tags": ["action-recognition", "jax", run.config.model.name],
    }
    if slug:
        front["datasets"] = [slug]
    if result:
        metrics = [
            {"type": kind, "name": label, "value": round(result[key], 6)}
            for key, (label, kind) in _METRICS.items()
            if key in result
        ]
        front["metrics"] = list(dict.fromkeys(metric["type"] for metric in metrics))
        if slug:
            entry = {"task": task, "dataset": {"name": name, "type": slug, "split": "test"}, "metrics": metrics}
            front["model-index"] = [{"name": f"{run.config.model.name}-{slug}", "results": [entry]}]
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in front.items())


def _body(run: Run, result: Mapping[str, Any] | None, files: list[str], license: str | None) -> str:
    config, sampling, name = run.config, run.sampling, run.config.model.name
    number = sum(leaf.size for leaf in jax.tree.leaves(run.weights["params"]))
    classifies = isinstance(run.objective, objectives.Classification)
    what = f" that tells {len(run.classes)} classes of video apart" if classifies else ", taught by a 2D one"
    if run.thresholds is not None:
        what = f" that says which of {len(run.classes)} classes hold of a video, none or several"
    made = "converted for" if run.meta.progress is None else "trained with"
    data = _data(run)
    lines = [
        f"# {name}{f' on {_plain(data)}' if data else ''}",
        "",
        f"A network of {number:,} parameters{what}, {made} [jax_video]({_PROJECT}).",
        "",
        "## How to use it",
        "",
        "```python",
        "import jax_video",
        "",
        'run = jax_video.load("hf://USER/NAME")  # this folder: on the Hub, or where you have copied it',
        'run.classify("video.mp4")' if classifies else 'run.features("video.mp4")',
        "```",
    ]
    if classifies:
        lines += ["", "```bash", "python -m jax_video.predict video.mp4 --checkpoint=hf://USER/NAME", "```"]
    if program.READER in files:
        lines += [
            "",
            f"Without jax_video (`pip install jax flatbuffers 'av>=17'`): `{program.PROGRAM}` is the same network as a "
            f"program for CPUs, NVIDIA's GPUs and TPUs, and `{program.CARD}` says what it takes:",
            "",
            "```bash",
            f"python {program.READER} video.mp4",
            "```",
        ]
    rate = f" at {sampling.fps:g} to a second" if sampling.fps else ""
    frames = f"{sampling.frames} frames, {sampling.stride} apart{rate}, {sampling.size}×{sampling.size} pixels"
    parts = f", {sampling.segments} clips of a video at once" if sampling.segments else ""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in run.normalization)
    rows = {
        "Network": f"{name} ({', '.join(f'{key}={value}' for key, value in config.model.items() if key != 'name')})",
        "Data": f"{data or 'unknown'}" + (f", manifest {run.meta.manifest[:16]}…" if run.meta.manifest else ""),
        "Training": _training(run),
        "Clips": f"{frames}{parts}; {' and '.join(sampling.streams)}",
        "RGB is normalised by": f"mean {mean}, standard deviation {std}",
    }
    lines += ["", "## What it was trained on, and how", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_plain(value)} |" for key, value in rows.items()]
    lines += ["", "## Result", "", *_told(result)]
    if classifies:
        lines += ["", "## Classes", "", *_classes(run)]
    lines += ["", "## Licence", "", license or "Nobody has said which licence these weights have: ask who made them."]
    return "\n".join(lines) + "\n"


def result(run: Run) -> Mapping[str, Any] | None:
    """The result of these weights in a test of classes on the set and clips of their training: the run's own, or an
    export's; None: not known."""
    found = None
    with contextlib.suppress(UserError):
        found = averages.read(run.folder)
    if found is None and published.is_exported(run.folder):
        with contextlib.suppress(UserError):
            found = published.Published(run.folder, run.mesh).result()
    if found is None or documents.defect(found, averages.shape(found) | _RESULT):
        return None
    return found if results.is_own(found, run) else None


def _classes(run: Run) -> list[str]:
    """Lines with the names of the classes; in a multi-label run a table with their thresholds."""
    if run.thresholds is None:
        return [", ".join(map(_plain, run.classes))]
    how = "chosen on the validation videos, for the best F1" if run.meta.thresholds else "not chosen: nothing validated"
    rows = zip(run.classes, run.thresholds, strict=True)
    lines = ["| class | holds from |", "|---|---|", *(f"| {_plain(name)} | {least:.4f} |" for name, least in rows)]
    return [f"A class holds of a video from a probability on ({how}):", "", *lines]


def _told(result: Mapping[str, Any] | None) -> list[str]:
    if result is None:
        return ["No result of a test is known."]
    how = ", ".join(f"{key}={value}" for key, value in result.get("protocol", {}).items() if key not in averages.FREE)
    return [
        f"Of {result['videos']} of {result['of']} {averages.video(result)}s, by the protocol {how}:",
        "",
        "| metric | |",
        "|---|---|",
        *(f"| {label} | {100 * result[key]:.2f} % |" for key, (label, _) in _METRICS.items() if key in result),
        *(["", _plain(result["note"])] if result.get("note") else []),
    ]


def _training(run: Run) -> str:
    if run.meta.progress is None:
        return "none here: the weights were converted"
    config = run.meta.config
    rate = f"learning rate {config['schedule']['learning_rate']:g} ({config['schedule']['kind']})"
    start = config["init_from"]["path"]
    starts = [start] if isinstance(start, str) else list(start or ())
    found = [pathlib.PurePath(copies.without_password(each).removesuffix("?…")).name for each in starts]
    began = f", started from {' and '.join(found)}" if found else ""
    optimizer = "AdamW" if config["optimizer"]["kind"] == "adamw" else "SGD"
    return f"{run.step:,} steps of {config['train']['batch']} videos by {optimizer}, {rate}{began}"


def _data(run: Run) -> str:
    """The name of the data set: the folder of its manifest, or, where it is packed, the one around that; "": not known,
    as of weights that were converted, whose config has a recipe's set."""
    if not run.meta.manifest:
        return ""
    path = pathlib.PurePath(str(run.meta.config["data"]["manifest"]))
    folder = path.parent if path.suffix == ".jsonl" else path
    return folder.parent.name if folder.name == "packed" and folder.parent.name else folder.name


def _plain(text: str) -> str:
    """Text escaped so that Markdown shows it as it is, in one cell of a table."""
    return re.sub(r"[\\`*_\[\]<>|#]", lambda match: f"\\{match[0]}", shown(text))
