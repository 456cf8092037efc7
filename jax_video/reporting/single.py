"""The report of one run."""

import json
from collections.abc import Sequence
from typing import Any

import jax

from jax_video import __version__, metrics, networks
from jax_video.models.cost import VIEWS
from jax_video.reporting import charts, classes, confusion, labels, mistakes, page, training
from jax_video.reporting.page import code, percent, text
from jax_video.reporting.record import Record, flat
from jax_video.run import Run
from jax_video.testing import averages, fusion, results
from jax_video.testing.results import NAMES

_VIEW_KINDS = (("H-W", "grey"), ("T-W", "b"), ("T-H", "a"))  # appearance, and the two of motion
_CLASSES = 10  # with the most motion, and with the least


def document(record: Record, run: Run | None = None, *, most: int = 8, explain: bool = True) -> bytes:
    """The page.

    Args:
      run: the run, where it is open already.
      most: mistakes to show.
      explain: whether to show what the network looked at.
    """
    parts = {
        "Result": result(record),
        "Training": training.facts(record),
        "Learning curves": training.curves(record),
        "Classes": _classes(record),
        "Confusion": _confusion(record),
        "Surest mistakes": _mistakes(record, run, most, explain),
        "Appearance and motion": _views(record),
        "Config": _config(record),
    }
    about = "Fused scores" if record.fused else "An exported run" if record.exported else "A run"
    return page.document(record.name, f"{about} in {code(record.address)}", parts, foot())


def foot() -> str:
    """The versions that have made the page."""
    return f"Made by jax_video {text(__version__)} with JAX {text(jax.__version__)}. This page loads nothing."


def result(record: Record) -> str:
    """The metrics with their intervals, and the videos they were measured on, as HTML."""
    if record.result is None:
        how = "" if record.fused else f" With the config that it was trained with, {record.how('test')} makes one."
        return page.note(f"No result: {record.why('result')}.{how}")
    wanted = [key for key in NAMES if key in record.result and key != "mean_top1_top5"]
    tiles = "".join(_tile(NAMES[key].strip(), record.result[key], *bounds(record.result, key)) for key in wanted)
    said = [f'<div class="tiles">{tiles}</div>', page.paragraph(subject(record))]
    if record.classes and not record.multilabel and (remark := metrics.note(len(record.classes))):
        said.append(page.note(text(remark, 200)))
    if bounds(record.result, "top1"):
        said.append(page.paragraph(INTERVALS, "small"))
    if record.multilabel:
        said.append(page.paragraph(labels.about(record), "small"))
    return "".join(said)


INTERVALS = (
    "Intervals are Wilson’s, 95 %: where the share may lie, as only so many videos were drawn. What another seed "
    f"of the training would change is not in them: of several runs {code('python -m jax_video.average')} tells it."
)


def bounds(result: dict, key: str) -> tuple[float, ...]:
    """The interval of a metric that counts videos; empty for others, whose parts are not independent videos."""
    videos, value = result.get("videos") or 0, result.get(key, -1)
    counted = key in ("top1", "top5") and videos > 0 and 0 <= value <= 1
    return classes.wilson(value * videos, videos) if counted else ()


def _tile(name: str, value: float, low: float | None = None, high: float | None = None) -> str:
    shown = ""
    if low is not None and high is not None:
        shown = f"{charts.interval(value, low, high, size=150)}<small>{100 * low:.1f} to {percent(high)}</small>"
    return f'<div class="tile"><span>{text(name)}</span><b>{percent(value)}</b>{shown}</div>'


def subject(record: Record) -> str:
    """What a result was measured on, in words, as HTML."""
    found = record.result or {}
    videos, of, protocol = found.get("videos"), found.get("of"), found.get("protocol")
    parts = []
    if videos is not None:
        noun = text(averages.video(found))
        parts.append(page.count(videos, noun) if of is None else f"{videos:,} of {of:,} {noun}s")
        if of is not None and videos < of:
            parts[0] = f"<strong>{parts[0]}</strong>: the others could not be read"
    if record.of_another_set:
        parts.append("<strong>of another set than it was trained on</strong>")
    if found.get("step") is not None:
        parts.append(f"checkpoint of step {found['step']:,}")
    if protocol:
        parts.append(_protocol(protocol))
    trained = record.config.get("clip")
    if isinstance(trained, dict) and (other := results.other_clips(trained, found.get("clip", trained))):
        parts.append(f"<strong>other clips than it was trained with</strong>, which had {text(', '.join(other), 300)}")
    if found.get("dtype", record.config.get("dtype")) != record.config.get("dtype"):
        parts.append(f"activations in {text(found['dtype'])}")
    if record.fused:
        weights = found.get("weights") or [1.0] * len(found["fused"])
        summands = zip(found["fused"], weights, strict=False)
        parts.append("the sum of " + ", ".join(f"{weight:g} × {code(name)}" for name, weight in summands))
    return "; ".join(parts) + "." if parts else ""


def _protocol(protocol: dict[str, Any]) -> str:
    """The clips of a test, and how their scores are averaged, as HTML."""
    kind, number, flip = protocol.get("clips"), protocol.get("number"), protocol.get("flip")
    parts = [f"clips: {text(kind)}{f' ({number})' if kind in ('uniform', 'spread') and number else ''}"]
    parts.append(f"crop: {text(protocol.get('crop', 'center'))}")
    parts += ["each also mirrored"] if flip else []
    parts += ["logits averaged"] if protocol.get("average_clips") == "logit" else []
    return ", ".join(parts)


def _classes(record: Record) -> str:
    if record.multilabel and record.predictions is not None:
        return labels.table(record) + labels.curve(record)
    if record.confusion is not None:
        return classes.table(record.classes, record.confusion)
    if record.result is None:
        return ""
    if "pair_accuracy" in record.result:
        return page.note("Knowledge transfer tells whether pairs are of one video, and knows no classes.")
    return page.note(f"No table: {record.why('confusion')}. {record.how('test')} makes it.")


def _confusion(record: Record) -> str:
    if record.confusion is None or not record.confusion.sum():
        return ""
    pairs = classes.pairs_table(record.classes, record.confusion)
    return confusion.section(record.classes, record.confusion) + (pairs or page.paragraph("No class is confused."))


def _mistakes(record: Record, run: Run | None, most: int, explain: bool) -> str:
    if record.predictions is None:
        tested = record.multilabel or record.confusion is not None
        return page.note(f"Not known: {record.why('predictions')}.") if tested else ""
    if record.multilabel:
        return _wrong_decisions(record, record.predictions, run, most, explain)
    wrong, all_ = mistakes.surest(record), page.count(len(record.predictions.scores), "video")
    if not wrong:
        return page.paragraph(f"None: all of {all_} got the right answer.")
    return _surest(record, wrong, f"of {all_} got a wrong answer", run, most, explain)


def _wrong_decisions(record: Record, predictions: fusion.Predictions, run: Run | None, most: int, explain: bool) -> str:
    """The mistakes of a multi-label test: classes that were wrongly taken to hold, or missed."""
    if not labels.thresholds(record):
        return page.note("Fused scores have no thresholds, by which a class would be taken to hold.")
    wrong, all_ = labels.surest(record), page.count(len(predictions.scores) * len(record.classes), "decision")
    if not wrong:
        return page.paragraph(f"None: all of {all_}, one for each class of each video, are right.")
    return _surest(record, wrong, f"of {all_}, one for each class of each video, are wrong", run, most, explain)


def _surest(
    record: Record, wrong: Sequence[mistakes.Shown], what: str, run: Run | None, most: int, explain: bool
) -> str:
    """The number of mistakes, described by `what`, and the first of them as pictures."""
    shown, notes = mistakes.figures(record, wrong[:most], run, explain=explain)
    first = f"; here are the {most} surest of these" if len(wrong) > most else ", the surest first"
    return page.paragraph(f"{len(wrong):,} {what}{first}.") + "".join(map(page.note, notes)) + shown


def _views(record: Record) -> str:
    """The shares of CoST's views: by layer, and for the classes where motion counts most and least."""
    found, known = record.views, networks.NETWORKS.get(record.network)
    if found is None:
        if known is None or not known.weighs_views:
            return ""
        return page.note(f"Not measured: {record.why('views')}. {record.how('views')} measures it.")
    layers = {name: [row[view] for view in VIEWS] for name, row in found["layers"].items()}
    by_class = [(name, [row[view] for view in VIEWS]) for name, row in found["classes"].items()]
    groups = {"Classes, most motion first": by_class}
    if len(by_class) > 2 * _CLASSES:
        groups = {"Most motion": by_class[:_CLASSES], "Least motion": by_class[-_CLASSES:]}
    named: dict[str, dict[str, list[float]]]
    named = {"Layers, from the bottom to the top": layers} | {title: dict(rows) for title, rows in groups.items()}
    charts_ = [charts.shares(title, rows, _VIEW_KINDS) for title, rows in named.items() if rows]
    said = (
        "The mean share of each view. H-W is appearance, T-W and T-H are motion. From "
        f"{found['videos']:,} of {found['of']:,} videos of the split {text(found['split'])}, checkpoint of step "
        f"{found['step']:,}."
    )
    if record.meta is not None and record.meta.is_of_another_set(found.get("manifest")):
        said += " <strong>They are of another set than it was trained on.</strong>"
    return page.paragraph(said) + f'<div class="charts">{"".join(charts_)}</div>'


def _config(record: Record) -> str:
    if not record.config:
        return ""
    lines = "\n".join(
        f"{text(key, 200)} = {text(json.dumps(value, ensure_ascii=False), 400)}"
        for key, value in flat(record.config).items()
    )
    return f"<details><summary>Every value of the config</summary><pre>{lines}</pre></details>"
