"""How a run was trained: network, data, schedule and clips, and its learning curves."""

import statistics
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jax_video import metrics, state
from jax_video.data.manifest import SPLITS
from jax_video.reporting import charts, page
from jax_video.reporting.page import code, text
from jax_video.reporting.record import Record
from jax_video.testing.results import NAMES


def facts(record: Record) -> str:
    """What was trained on what, and how, as HTML."""
    if not record.config:
        return "" if record.fused else page.note(f"How it was trained is not known: {record.why('config')}.")
    lists = {"Network": _network, "Data": _data, "Schedule": _schedule, "Clips": _clips}
    shown = "".join(page.facts(title, values(record)) for title, values in lists.items())
    gone = page.note(f"The set cannot be read: {record.why('manifest')}.") if "manifest" in record.missing else ""
    return f'<div class="grid">{shown}</div>{gone}'


def _network(record: Record) -> dict[str, str]:
    section = record.config.get("model")
    keywords = section if isinstance(section, dict) else {}
    built = (
        f"{key}={value}" for key, value in keywords.items() if key not in ("name", "frames") and value not in (None, "")
    )
    teacher = record.setting("teacher", "name")
    machines = (record.meta.machines if record.meta else None) or {}
    several = f" of {machines['processes']} processes" if machines.get("processes", 1) > 1 else ""
    ema = record.setting("train", "ema")
    return {
        "network": code(record.network) if record.network else "",
        "taught by": code(teacher) if teacher else "",
        "parameters": _parameters(record),
        "built with": text(", ".join(built), 300),
        "weights from": _start(record),
        "computes in": text(record.config.get("dtype", "")),
        "trained on": page.count(machines["devices"], "device") + several if "devices" in machines else "",
        "mean of weights": text(f"moving, decay {ema}") if ema else "",
    }


def _parameters(record: Record) -> str:
    """The number of parameters, from the config alone."""
    try:
        classes = record.classes or (record.manifest.classes if record.manifest is not None else ())
        if not classes and not record.setting("teacher", "name"):
            return ""  # its classifier is not known yet
        _, params, _ = state.abstract(ConfigDict(record.config), len(classes))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):  # a config that nobody trained with
        return ""
    return f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}"


def _start(record: Record) -> str:
    """Where the weights that training began with came from."""
    if record.meta is not None and record.meta.origin:
        return f"a file of layout {code(record.meta.origin.get('layout', '?'))}, converted"
    path, into = record.setting("init_from", "path"), record.setting("init_from", "into")
    if not path:
        return "random"
    paths = path if isinstance(path, list | tuple) else [path]
    parts = into if isinstance(into, list | tuple) else [into]
    target = f", for its {' and '.join(map(code, parts))}" if into else ""
    fresh = ", with a new classifier" if record.setting("init_from", "new_head") and not into else ""
    frozen = record.setting("train", "freeze")
    kept = f"; frozen: {', '.join(map(code, frozen))}" if isinstance(frozen, list | tuple) and frozen else ""
    return ", ".join(map(code, paths)) + target + fresh + kept


def _data(record: Record) -> dict[str, str]:
    manifest, fraction = record.trained_on, record.setting("data", "fraction")
    name = record.setting("data", "manifest")
    splits = {split: len(manifest.select(split)) for split in SPLITS} if manifest else {}
    return {
        "set": text(manifest.name) if manifest else code(name) if name else "",
        "classes": f"{len(record.classes):,}" if record.classes else "",
        **{f"{split} videos": f"{number:,}" for split, number in splits.items() if number},
        "share of the set’s training videos": f"{100 * fraction:.3g} %"
        if isinstance(fraction, float) and 0 < fraction < 1
        else "",
        "normalised by": text(
            f"mean {_row(record.setting('normalize', 'mean'))}, std {_row(record.setting('normalize', 'std'))}"
        )
        if record.config.get("normalize")
        else "",
    }


def _row(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values) if _is_row(values) else "?"


def _is_row(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, int | float) for value in values)


def _schedule(record: Record) -> dict[str, str]:
    value, get = record.shown, record.setting
    epochs, steps = get("train", "epochs"), get("train", "steps")
    done = record.rows[-1]["step"] if record.rows else record.step
    speeds = [row["examples_per_second"] for row in record.rows if row.get("examples_per_second")]
    rate, kind = get("schedule", "learning_rate"), get("schedule", "kind")
    optimizer = "SGD, momentum {}" + ", Nesterov" * bool(get("optimizer", "nesterov"))
    if get("optimizer", "kind") == "adamw":
        optimizer = "AdamW, β₁ {}"
    return {
        "steps": f"{done:,}" if done is not None else "",
        "planned": text(f"{epochs} epochs" if epochs else f"{steps} steps" if steps else ""),
        "batch": value("train", "batch"),
        "micro-batch": value("train", "micro_batch"),
        "optimizer": text(optimizer.format(get("optimizer", "momentum"))) if record.config.get("optimizer") else "",
        "weight decay": value("optimizer", "weight_decay"),
        "learning rate": text(f"{rate}, {kind}") if rate else "",
        "warm-up, epochs": value("schedule", "warmup_epochs"),
        "seed": text(record.config.get("seed", "")),
        "speed": f"{statistics.median(speeds):,.1f} examples per second" if speeds else "",
    }


def _clips(record: Record) -> dict[str, str]:
    value, flip = record.shown, record.setting("clip", "flip")
    streams, strides = record.setting("clip", "streams"), record.setting("clip", "strides")
    drawn = isinstance(strides, list | tuple) and len(strides) == 2
    stride = f"{strides[0]} to {strides[1]} in training, {{}} in tests" if drawn else "{}"
    return {
        "frames": value("clip", "frames"),
        "frames per second": value("clip", "fps"),
        "stride": value("clip", "stride", stride),
        "clips of a video": value("clip", "segments"),
        "size": value("clip", "size", "{0} × {0} pixels"),
        "short side": value("clip", "short_side", "{} pixels"),
        "jitter": value("clip", "jitter"),
        "crop in training": value("clip", "crop"),
        "mirrored in training": "half of the clips" if flip else "where the set allows it" if flip is None else "no",
        "streams": text(" and ".join(map(str, streams))) if isinstance(streams, list | tuple) else "",
    }


def curves(record: Record) -> str:
    """The curves of loss and headline metric, for training and validation."""
    if not record.rows:
        return "" if record.fused else page.note(f"No curves: {record.why('metrics')}.")
    seen = any(row["split"] == "val" for row in record.rows)
    return curve_charts({"": record}) + ("" if seen else page.note("It was not validated so far."))


def curve_charts(records: dict[str, Record]) -> str:
    """The curves of one run, or of two by their names: one chart of the loss and one of each headline metric."""
    found = []
    rows = [row for record in records.values() for row in record.rows]
    headlines = [key for key in metrics.HEADLINES if any(key in row for row in rows)]
    for key in ("loss", *headlines):
        name = NAMES.get(key, key)
        title = name.capitalize() if name.islower() else name
        lines = []
        for color, (run, record) in zip("ab", records.items(), strict=False):
            for split, word, look in (("train", "training", " thin"), ("val", "validation", "")):
                kind = "b" if split == "val" and len(records) == 1 else color
                wanted = (row for row in record.rows if row["split"] == split and _finite(row.get(key)))
                points = [(row["step"], row[key]) for row in wanted]
                lines.append(charts.Curve(" ".join(filter(None, [run, word])), points, kind + look))
        if any(line.points for line in lines):
            found.append(charts.lines(title, "step", name, lines, share=key != "loss"))
    return f'<div class="charts">{"".join(found)}</div>'


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e30  # NaN neither: no comparison with it holds
