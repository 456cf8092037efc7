"""Which of the papers' relations hold on real videos, at a size that two cores can run, as a careful paper would show.

    python benchmarks/evidence.py --data=data --weights=thin_resnet50.npz --out=runs/evidence     # goes on where it was
    python benchmarks/evidence.py --data=data --out=runs/evidence --table                    # of the runs that are done
    python benchmarks/evidence.py --data=data --record=benchmarks/evidence.jsonl --table  # of those of RESULTS.md
    python benchmarks/evidence.py --data=data --out=runs/evidence --list             # the command of every run; no more
    python benchmarks/evidence.py --best --data=data/mine --weights=thin_resnet50.npz --out=runs/best --claims=stc,cost

--data has the prepared sets `fights` and `ut_interaction`, split by groups (`prepare --group`) and not packed, as the
records of a packed set are of its own splits. Optical flow is stored there before a claim that needs it. A claim
(evidence_claims.py) compares rows, networks that are trained alike, on folds: each group of videos is tested once, by
networks that have seen none of it.

For two rows it prints the difference of their accuracies on the same videos, with two 95 % intervals
(evidence_differences.py): where it could be had other videos been tested, and had other networks been trained. A claim
*holds* if both lie above zero; it *does not* if both lie below; otherwise these runs cannot tell. If two networks
differ in 30 % of 175 independent videos, half an interval is 8 points, and a true difference has to be 12 to be found
four times in five; clips of one source are alike, so it takes more.

Of some 30 comparisons one or two leave zero by chance. No checkpoint is chosen on tested videos: the last one counts,
or on `motions` the best on its validation videos; but the rate of configs/finetune.py was chosen on some of the
sequences of UT-Interaction.

What a run has found stands in the record, a line for each: which test videos it told wrong, what it made of validation
videos on the way, and α. Runs of a record are done, wherever they were trained; it is all that the tables need.

`--best` trains one row of each claim (`best` in evidence_claims.py) on the training videos of another prepared set, and
tests it on that set's test videos.
"""

import dataclasses
import itertools
import json
import pathlib
import shlex
import sys
import time
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

import evidence_tables as tables  # noqa: E402
from evidence_claims import EVIDENCE, Claim, Row  # noqa: E402
from evidence_record import Place, Record  # noqa: E402
from evidence_sets import OneSet, Sets  # noqa: E402

from jax_video import compilation_cache, config_flag, runlog  # noqa: E402
from jax_video import run as run_lib  # noqa: E402
from jax_video.data import documents  # noqa: E402
from jax_video.data.sources import prepared  # noqa: E402
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


def sets() -> Sets:
    """Those of --data."""
    kind = OneSet if BEST.value else Sets
    return kind(pathlib.Path(DATA.value), None if OUT.value is None else pathlib.Path(OUT.value))


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
        folders = {"set": sets().folder(self.claim, self.place.fold), "unlabelled": sets().unlabelled}
        return self.row.config.format(**others, **folders, weights=WEIGHTS.value)

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


def main(_) -> None:
    if unknown := set(CLAIMS.value) - set(EVIDENCE):
        raise app.UsageError(f"unknown claims {', '.join(sorted(unknown))}: choose from {', '.join(EVIDENCE)}")
    if OUT.value is None and not (TABLE.value and RECORD.value):
        raise app.UsageError("--out is missing: the folder of the runs")
    compilation_cache.enable_compilation_cache()
    record = Record(RECORD.value or pathlib.Path(OUT.value, "outcomes.jsonl"))
    if TABLE.value:
        print_tables(CLAIMS.value, record)
        return
    for name in CLAIMS.value if not LIST.value else ():
        if to_do(runs(name), record):
            sets().store_flow(EVIDENCE[name])
    for name in CLAIMS.value:
        sets().write(EVIDENCE[name])
        for run in runs(name) if LIST.value else to_do(runs(name), record):
            print(run.command, flush=True)
            if not LIST.value:
                found = run.find()
                record.add(run.place, found)
                told = ", ".join(f"{key} {100 * found[key]:.1f} %" for key in TOLD if key in found)
                print(f"{run.folder}: {told}; {found.get('seconds', 0) / 60:.1f} minutes", flush=True)
        if not LIST.value and not BEST.value:
            print_tables([name], record)


def print_tables(names: list[str], record: Record) -> None:
    for name in names:
        print(tables.results(name, sets(), record) + tables.curves(name, record), flush=True)
    if {"cost", "views"} & set(names):
        print(tables.views(record), flush=True)
    if FIGURE.value:
        tables.draw(FIGURE.value, names, sets(), record)


if __name__ == "__main__":
    app.run(main)
