"""Which of the papers' relations hold on real videos, at a size that two cores can run, as a careful paper would show.

    python benchmarks/evidence.py --data=data --weights=thin_resnet50.npz --out=runs/evidence     # goes on where it was
    python benchmarks/evidence.py --data=data --out=runs/evidence --table                    # of the runs that are done
    python benchmarks/evidence.py --data=data --record=benchmarks/evidence.jsonl --table  # of those of RESULTS.md
    python benchmarks/evidence.py --data=data --out=runs/evidence --list             # the command of every run; no more
    python benchmarks/evidence.py --best --data=data/mine --weights=thin_resnet50.npz --out=runs/best --claims=stc,cost

--data has the prepared sets `fights` (with `--flow=tvl1 --flow_side=128`) and `ut_interaction`, split by groups
(`prepare --group`) and not packed, as the records of a packed set are of its own splits. A claim (claims.py) compares
rows, networks that are trained alike, on folds: each group of videos is tested once, by networks that have seen none of
it.
For two rows it prints the difference of their accuracies on the same videos, with two 95 % intervals (paired.py): where
it could be had other videos been tested, and had other networks been trained. A claim *holds* if both lie above zero;
it *does not* if both lie below; otherwise these runs cannot tell. If two networks differ in 30 % of 175 independent
videos, half an interval is 8 points, and a true difference has to be 12 to be found four times in five; clips of one
source are alike, so it takes more.

Of some 30 comparisons one or two leave zero by chance. No checkpoint is chosen on tested videos: the last one counts,
or on `motions` the best on its validation videos; but the rate of configs/finetune.py was chosen on some of the
sequences of UT-Interaction.

What a run has found stands in the record, a line for each: which test videos it told wrong, what it made of validation
videos on the way, and α. Runs of a record are done, wherever they were trained; it is all that the tables need.

`--best` trains one row of each claim (`best` in claims.py) on the training videos of another prepared set, and tests it
on that set's test videos.
"""

import collections
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import matplotlib.figure
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from claims import EVIDENCE, FOLDS, Claim, Row  # noqa: E402
from paired import Difference, Outcomes, balanced, difference  # noqa: E402
from record import Place, Record  # noqa: E402

from jax_video import compilation_cache, config_flag, runlog  # noqa: E402
from jax_video import run as run_lib  # noqa: E402
from jax_video.data import documents  # noqa: E402
from jax_video.data.manifest import Manifest  # noqa: E402
from jax_video.data.sources import motions, prepared  # noqa: E402
from jax_video.testing import coefficients, fusion, results  # noqa: E402
from jax_video.train import train  # noqa: E402

DATA = flags.DEFINE_string("data", None, "Folder of the prepared sets; with --best, one prepared set.", required=True)
WEIGHTS = flags.DEFINE_string("weights", "thin_resnet50.npz", "A thin ResNet-50 for pictures, in torchvision's layout.")
OUT = flags.DEFINE_string("out", None, "Folder of the runs; --table can do without.")
RECORD = flags.DEFINE_string("record", None, "What the runs have found, JSON lines; default: outcomes.jsonl in --out.")
TABLE = flags.DEFINE_bool("table", False, "Train nothing; print the tables of the runs that are done.")
LIST = flags.DEFINE_bool("list", False, "Train nothing; write the sets, and print the command of every run.")
BEST = flags.DEFINE_bool("best", False, "Only the best row of each claim, on the splits of the set in --data.")

FIGURE = flags.DEFINE_string("figure", None, "File for a picture of all differences that are known.")
CLAIMS = flags.DEFINE_list("claims", list(EVIDENCE), "Only these.")


# The sets


@functools.cache
def the_set(name: str) -> Manifest:
    """One of the sets; with --best the one that is given in its place."""
    if BEST.value:
        return prepared.read(DATA.value)
    if name == "motions":
        return motions.read(val=1024, test=1024)
    return prepared.read(pathlib.Path(DATA.value, name))


def group_of(video) -> str:
    return video.source or video.path


def folds(manifest: Manifest) -> Iterator[Manifest]:
    """The set in `FOLDS` parts of about as many videos; each part is the test of one, and no group is in two."""
    sizes = collections.Counter(map(group_of, manifest.videos))
    parts: list[list[str]] = [[] for _ in range(FOLDS)]
    for group, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        min(parts, key=lambda part: sum(sizes[each] for each in part)).append(group)
    for part in parts:
        videos = (
            dataclasses.replace(video, split="test" if group_of(video) in part else "train")
            for video in manifest.videos
        )
        yield dataclasses.replace(manifest, videos=tuple(videos))


def parts(claim: Claim) -> list[Manifest]:
    """The set as each fold splits it."""
    return list(folds(the_set(claim.data))) if claim.folds > 1 else [the_set(claim.data)]


def without_labels(of: Manifest) -> Manifest:
    """All that a network may see before it is given labels: the training videos of this set, and all of the fights."""
    files = [of, the_set("fights")]
    root = pathlib.Path(os.path.commonpath([each.root for each in files]))
    videos = [
        dataclasses.replace(
            video,
            path=str(pathlib.Path(each.root, video.path).relative_to(root)),
            label=None,
            split="train" if each.name == "fights" else video.split,
        )
        for each in files
        for video in each.videos
    ]
    return Manifest("without labels", (), str(root), tuple(videos))


def folder_of_set(claim: Claim, fold: int) -> str:
    """A prepared set for `--config=…,data=`."""
    name = f"{claim.data}-{fold}" if claim.folds > 1 else claim.data
    return DATA.value if BEST.value else str(pathlib.Path(OUT.value, "sets", name))


def write_sets(claim: Claim) -> None:
    if BEST.value:
        return
    for fold, part in enumerate(parts(claim)):
        part.write(pathlib.Path(folder_of_set(claim, fold), "manifest.jsonl"))
    if any("{unlabelled}" in row.config for row in claim.rows.values()):
        without_labels(the_set(claim.data)).write(pathlib.Path(OUT.value, "sets", "unlabelled", "manifest.jsonl"))


# The runs


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a row, in its place."""

    place: Place

    @property
    def claim(self) -> Claim:
        return EVIDENCE[self.place.claim]

    @property
    def row(self) -> Row:
        return self.claim.rows[self.place.row]

    @property
    def folder(self) -> pathlib.Path:
        name = self.place.row.replace(" %", "").replace(", ", "-").replace(" ", "-")
        seed = "" if self.row.once else f"-seed{self.place.seed}"
        return pathlib.Path(OUT.value, self.place.claim, f"{name}-fold{self.place.fold}{seed}")

    def beside(self, row: str) -> "Run":
        """The one of another row, in the same fold and with the same seed."""
        once = self.claim.rows[row].once
        return Run(self.place._replace(row=row, seed=0 if once else self.place.seed))

    @property
    def parts(self) -> list["Run"]:
        """Those that it begins with, or whose scores it adds up."""
        rows = self.claim.rows
        return [self.beside(row) for row in rows if f"{{{row}}}" in self.row.config or row in self.row.fused]

    @property
    def text(self) -> str:
        """The config string."""
        others = {part.place.row: part.folder for part in self.parts}
        unlabelled = DATA.value if BEST.value else pathlib.Path(OUT.value, "sets", "unlabelled")
        sets = {"set": folder_of_set(self.claim, self.place.fold), "unlabelled": unlabelled, "weights": WEIGHTS.value}
        return self.row.config.format(**others, **sets)

    @property
    def changes(self) -> dict[str, Any]:
        return {**self.row.changes, "seed": self.place.seed}

    @property
    def command(self) -> str:
        """What trains and tests it, or adds scores up."""
        if self.row.fused:
            return shlex.join(["python", "-m", "jax_video.fuse", *(str(part.folder) for part in self.parts)])
        flags = [f"--config.{key}={_shown(value)}" for key, value in self.changes.items()]
        return shlex.join(
            ["python", "-m", "jax_video.main", f"--config={self.text}", *flags, f"--workdir={self.folder}"]
        )

    def config(self) -> ConfigDict:
        config = config_flag.load(self.text)
        config_flag.add_keywords(config)
        with config.ignore_type():
            config.update_from_flattened_dict(self.changes)
        return config

    def find(self) -> dict[str, Any]:
        """What it finds, for the record; it is trained and tested where that is not done."""
        if self.row.fused:
            return {"wrong": self.wrong()}
        took, started = self.folder / "seconds.json", time.monotonic()
        config = self.config()
        manifest = prepared.read(config.data.manifest).keep(config.data.fraction)
        new = True
        try:
            new = train(config, manifest, self.folder)
        finally:
            if new and self.folder.is_dir():  # of a run that is gone on with, the sum of its parts
                took.write_text(json.dumps(self.seconds() + time.monotonic() - started))
        run = run_lib.load(self.folder, config=config)
        result = results.read_result(run, manifest) or results.test(run, manifest)
        log = runlog.read(self.folder / "metrics.jsonl")
        found = {"seconds": round(self.seconds()), **{key: round(result[key], 4) for key in TOLD if key in result}}
        if "top1" in result:
            found["validation"] = {line["step"]: round(line["top1"], 4) for line in log if line["split"] == "val"}
            found["wrong"] = self.wrong()
        if self.row.views:
            if not (self.folder / "views.json").exists():
                coefficients.analyse(run, manifest)
            views = documents.read(self.folder / "views.json", {"overall": dict})["overall"]
            found["views"] = {view: round(value, 4) for view, value in views.items()}
        return found

    def seconds(self) -> float:
        """What its training took."""
        file = self.folder / "seconds.json"
        return json.loads(file.read_text()) if file.exists() else 0.0

    def scores(self) -> fusion.Predictions:
        if not self.row.fused:
            return fusion.read(self.folder)
        return fusion.fuse([part.scores() for part in self.parts], [1.0] * len(self.parts))

    def wrong(self) -> dict[str, str]:
        """The test videos that it takes for another class, and for which."""
        found = self.scores()
        told = {video: found.class_names[int(np.argmax(row))] for video, row in found.scores.items()}
        return {video: name for video, name in sorted(told.items()) if name != found.labels[video]}


TOLD = ("top1", "mean_class_accuracy", "pair_accuracy")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def runs(name: str) -> list[Run]:
    """All runs of a claim: a seed after the other, so that all rows are compared early."""
    claim = EVIDENCE[name]
    rows = needed(claim, claim.best) if BEST.value else list(claim.rows)
    counts = (1, 1) if BEST.value else (claim.seeds, claim.folds)
    return [
        Run(Place(name, row, fold, seed))
        for seed, fold, row in itertools.product(*map(range, counts), rows)
        if not (claim.rows[row].once and seed)
    ]


def needed(claim: Claim, row: str) -> list[str]:
    """A row and those that it begins with, which come first."""
    found = claim.rows[row]
    before = [other for other in claim.rows if f"{{{other}}}" in found.config or other in found.fused]
    return list(dict.fromkeys([*itertools.chain(*(needed(claim, other) for other in before)), row]))


def to_do(all_runs: list[Run], record: Record) -> list[Run]:
    """Those that are not in the record, and those that these begin with, which come first."""
    awaited = {run for run in all_runs if run.place not in record}
    for run in reversed(all_runs):
        awaited |= set(run.parts) if run in awaited else set()
    return [run for run in all_runs if run in awaited]


# The tables


def outcomes(name: str, row: str, record: Record) -> Outcomes | None:
    """What a row's networks got right; None: not all is done."""
    claim, right, videos, folds = EVIDENCE[name], collections.defaultdict(list), {}, {}
    for fold, part in enumerate(parts(claim)):
        videos |= {video.name: video for video in part.videos if video.split == "test"}
        tested = [video.name for video in part.videos if video.split == "test"]
        folds |= dict.fromkeys(tested, fold)
        for seed in range(claim.seeds):
            found = record.get(Place(name, row, fold, seed))
            if found is None:
                return None
            if other := set(found["wrong"]) - set(tested):
                raise app.UsageError(f"the record has test videos of another set: {', '.join(sorted(other)[:3])} …")
            for video in tested:
                right[video].append(video not in found["wrong"])
    classes = the_set(claim.data).classes
    labels = [classes[videos[name].label] for name in right]
    groups = [group_of(videos[name]) for name in right]
    return Outcomes(np.array(list(right.values())).T, groups, labels, [folds[name] for name in right])


def tables(name: str, record: Record) -> str:
    """What is known of a claim, in markdown."""
    claim = EVIDENCE[name]
    found = {row: outcomes(name, row, record) for row in claim.rows if not claim.rows[row].once}
    lines = [f"\n**{name}**: {claim.says}; {claim.data}\n"]
    lines += ["| row | top-1, % | balanced, % | minutes of training |", "|---|---|---|---|"]
    for row, got in found.items():
        if got is None:
            lines.append(f"| {row} | not yet run | | |")
            continue
        each = [100 * float(of.mean()) for of in got.right]
        seconds = [line["seconds"] for line in record.of(name, row) if "seconds" in line]
        minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else "–"
        lines.append(f"| {row} | {spread(each)} | {100 * balanced(got):.1f} | {minutes} |")
    known = differences(name, record)
    lines += ["", "| difference | points | 95 %, other videos | 95 %, other networks | verdict |"] if known else []
    lines += ["|---|---|---|---|---|"] if known else []
    for pair, found in known.items():
        intervals = " | ".join(f"[{100 * low:+.1f}, {100 * high:+.1f}]" for low, high in (found.videos, found.networks))
        lines.append(f"| {pair} | {100 * found.gain:+.1f} | {intervals} | {found.verdict} |")
    return "\n".join(lines)


def differences(name: str, record: Record) -> dict[str, Difference]:
    """By how much the first of each pair of a claim is better; only pairs whose runs are all done."""
    claim = EVIDENCE[name]
    found = {row: outcomes(name, row, record) for row in dict.fromkeys(itertools.chain(*claim.pairs))}
    return {
        f"{one} − {other}": difference(found[one], found[other])
        for one, other in claim.pairs
        if found[one] is not None and found[other] is not None
    }


def draw(path: str, record: Record) -> None:
    """Draw all differences with their intervals, claim by claim: other videos wide, other networks thin."""
    rows: list[tuple[str, Difference | None]] = []
    for name in CLAIMS.value:
        if found := differences(name, record):
            rows += [(f"{name} ({EVIDENCE[name].data})", None), *found.items()]
    figure = matplotlib.figure.Figure((7, 0.6 + 0.24 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color="0.6", linewidth=1)
    for place, (_, found) in enumerate(rows):
        if found is not None:
            colour = {"holds": "tab:blue", "does not": "tab:red"}.get(found.verdict, "0.35")
            for interval, width in ((found.videos, 3), (found.networks, 1)):
                axes.plot([100 * end for end in interval], [place, place], color=colour, linewidth=width)
            axes.plot([100 * found.gain], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    for label, (_, found) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if found is None else "normal")
    axes.set(
        ylim=(len(rows) - 0.5, -0.5),
        xlabel="difference of top-1 in points, with 95 % intervals: other videos (wide), other networks (thin)",
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=150)


def spread(values: list[float]) -> str:
    """Their mean and, of several, standard deviation."""
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def curves(name: str, record: Record) -> str:
    """Where a set has validation videos: what the networks told apart of them on the way, mean and standard deviation
    over the runs."""
    lines: list[str] = []
    for row in EVIDENCE[name].rows:
        each = [line["validation"] for line in record.of(name, row) if line.get("validation")]
        steps = sorted(set.intersection(*map(set, each)), key=int) if each else []
        shown = [spread([100 * validation[step] for validation in each]) for step in steps]
        if steps and not lines:
            lines = [
                f"\n\n| validation, single clips, % at step | runs | {' | '.join(steps)} |",
                f"|---|---|{'---|' * len(steps)}",
            ]
        if steps:
            lines.append(f"| {row} | {len(each)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def views(record: Record) -> str:
    """α of H-W, T-W and T-H in the networks of CoST, by the set they were trained on; mean and range over the runs."""
    lines = ["\n| CoST, trained on | runs | H-W | T-W | T-H | T-W + T-H, least and most |", "|---|---|---|---|---|---|"]
    for name, row in ((name, row) for name, claim in EVIDENCE.items() for row in claim.rows if claim.rows[row].views):
        found = [list(line["views"].values()) for line in record.of(name, row)]
        if found:
            mean = " | ".join(f"{value:.3f}" for value in np.mean(found, axis=0))
            motion = [sum(each[1:]) for each in found]
            shown = f"{EVIDENCE[name].data}, {row} | {len(found)} | {mean} | {min(motion):.3f} to {max(motion):.3f}"
            lines.append(f"| {shown} |")
    return "\n".join(lines)


def main(_) -> None:
    if unknown := set(CLAIMS.value) - set(EVIDENCE):
        raise app.UsageError(f"unknown claims {', '.join(sorted(unknown))}: choose from {', '.join(EVIDENCE)}")
    if OUT.value is None and not (TABLE.value and RECORD.value):
        raise app.UsageError("--out is missing: the folder of the runs")
    compilation_cache.enable_compilation_cache()
    record = Record(RECORD.value or pathlib.Path(OUT.value, "outcomes.jsonl"))
    for name in CLAIMS.value:
        if not TABLE.value:
            write_sets(EVIDENCE[name])
        for run in runs(name) if LIST.value else () if TABLE.value else to_do(runs(name), record):
            print(run.command, flush=True)
            if not LIST.value:
                found = run.find()
                record.add(run.place, found)
                told = ", ".join(f"{key} {100 * found[key]:.1f} %" for key in TOLD if key in found)
                print(f"{run.folder}: {told}; {found.get('seconds', 0) / 60:.1f} minutes", flush=True)
        if not LIST.value and not BEST.value:
            print(tables(name, record) + curves(name, record), flush=True)
    if not LIST.value and not BEST.value and {"cost", "views"} & set(CLAIMS.value):
        print(views(record), flush=True)
    if FIGURE.value:
        draw(FIGURE.value, record)


if __name__ == "__main__":
    app.run(main)
