"""Which of the papers' relations hold on real videos, at a size that two cores can run, as a careful paper would show.

    python benchmarks/evidence.py --data=data --weights=thin_resnet50.npz --out=runs/evidence     # goes on where it was
    python benchmarks/evidence.py --data=data --out=runs/evidence --table                    # of the runs that are done
    python benchmarks/evidence.py --data=data --out=runs/evidence --list             # the command of every run; no more
    python benchmarks/evidence.py --best --data=data/mine --weights=thin_resnet50.npz --out=runs/best --claims=stc,cost

--data has the prepared sets `fights` (with `--flow=tvl1 --flow_side=128`) and `ut_interaction`, split by groups
(`prepare --group`) and not packed, as the records of a packed set are of its own splits. A claim (claims.py) compares
rows, networks that are trained alike, on folds: each group of videos is tested once, by networks that have seen none of
it.
Of two rows it tells the difference of their accuracies on the same videos, with a 95 % interval (paired.py). A claim
*holds* where that interval lies above zero, *does not* where it lies below; else these videos cannot tell. Of 175
independent videos that two networks judge differently in 30 %, half an interval is 8 points, and a true difference has
to be 12 to be found four times in five; clips of one source are alike, so it takes more.

The intervals are about other videos, not about another training: what a second seed changes is in none of one seed. Of
some 30 comparisons one or two leave zero by chance. No checkpoint is chosen on tested videos: the last one counts, or
on `motions` the best on its validation videos; but the rate of configs/finetune.py was chosen on some of the sequences
of UT-Interaction.

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

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from claims import EVIDENCE, FOLDS, Claim  # noqa: E402
from paired import Outcomes, balanced, difference, verdict  # noqa: E402

from jax_video import compilation_cache, config_flag, runlog  # noqa: E402
from jax_video import run as run_lib  # noqa: E402
from jax_video.data import documents  # noqa: E402
from jax_video.data.manifest import Manifest  # noqa: E402
from jax_video.data.sources import motions, prepared  # noqa: E402
from jax_video.testing import coefficients, fusion, results  # noqa: E402
from jax_video.train import train  # noqa: E402

DATA = flags.DEFINE_string("data", None, "Folder of the prepared sets; with --best, one prepared set.", required=True)
WEIGHTS = flags.DEFINE_string("weights", "thin_resnet50.npz", "A thin ResNet-50 for pictures, in torchvision's layout.")
OUT = flags.DEFINE_string("out", None, "Folder of the runs.", required=True)
TABLE = flags.DEFINE_bool("table", False, "Train nothing; print the tables of the runs that are done.")
LIST = flags.DEFINE_bool("list", False, "Train nothing; write the sets, and print the command of every run.")
BEST = flags.DEFINE_bool("best", False, "Only the best row of each claim, on the splits of the set in --data.")

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
    manifest = the_set(claim.data)
    for fold, part in enumerate(folds(manifest) if claim.folds > 1 else [manifest]):
        part.write(pathlib.Path(folder_of_set(claim, fold), "manifest.jsonl"))
    if any("{unlabelled}" in row.config for row in claim.rows.values()):
        without_labels(manifest).write(pathlib.Path(OUT.value, "sets", "unlabelled", "manifest.jsonl"))


# The runs


@dataclasses.dataclass(frozen=True)
class Place:
    """One run of a row."""

    claim: str
    row: str
    fold: int
    seed: int

    @property
    def folder(self) -> pathlib.Path:
        name = self.row.replace(" %", "").replace(", ", "-").replace(" ", "-")
        seed = "" if EVIDENCE[self.claim].rows[self.row].once else f"-seed{self.seed}"
        return pathlib.Path(OUT.value, self.claim, f"{name}-fold{self.fold}{seed}")

    def beside(self, row: str) -> "Place":
        return dataclasses.replace(self, row=row)

    @property
    def text(self) -> str:
        """The config string."""
        claim = EVIDENCE[self.claim]
        others = {row: self.beside(row).folder for row in claim.rows}
        unlabelled = DATA.value if BEST.value else pathlib.Path(OUT.value, "sets", "unlabelled")
        sets = {"set": folder_of_set(claim, self.fold), "unlabelled": unlabelled, "weights": WEIGHTS.value}
        return claim.rows[self.row].config.format(**others, **sets)

    @property
    def changes(self) -> dict[str, Any]:
        return {**EVIDENCE[self.claim].rows[self.row].changes, "seed": self.seed}

    @property
    def command(self) -> str:
        """What trains and tests it."""
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

    def train(self) -> dict[str, Any]:
        """Trains and tests it, where that is not done; returns its result."""
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
        return results.read_result(run, manifest) or results.test(run, manifest)

    def seconds(self) -> float:
        """What its training took."""
        file = self.folder / "seconds.json"
        return json.loads(file.read_text()) if file.exists() else 0.0

    def predictions(self) -> fusion.Predictions | None:
        """The scores of its test; None where it is not done."""
        fused = EVIDENCE[self.claim].rows[self.row].fused
        if fused:
            parts = [self.beside(row).predictions() for row in fused]
            return None if None in parts else fusion.fuse(parts, [1.0] * len(parts))
        return fusion.read(self.folder) if (self.folder / "test.json").exists() else None


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def places(name: str) -> Iterator[Place]:
    """All runs of a claim: a seed after the other, so that all rows are compared early."""
    claim = EVIDENCE[name]
    rows = needed(claim, claim.best) if BEST.value else list(claim.rows)
    counts = (1, 1) if BEST.value else (claim.seeds, claim.folds)
    for seed, fold, row in itertools.product(*map(range, counts), rows):
        if not claim.rows[row].fused and not (claim.rows[row].once and seed):
            yield Place(name, row, fold, seed)


def needed(claim: Claim, row: str) -> list[str]:
    """A row and those that it begins with, which come first."""
    found = claim.rows[row]
    before = [other for other in claim.rows if f"{{{other}}}" in found.config or other in found.fused]
    return list(dict.fromkeys([*itertools.chain(*(needed(claim, other) for other in before)), row]))


# The tables


def outcomes(name: str, row: str) -> Outcomes | None:
    """What a row's networks got right; None: not all is done."""
    claim, right = EVIDENCE[name], collections.defaultdict(list)
    labels: dict[str, str] = {}
    for seed, fold in itertools.product(range(claim.seeds), range(claim.folds)):
        found = Place(name, row, fold, seed).predictions()
        if found is None:
            return None
        for video, row_scores in found.scores.items():
            right[video].append(found.class_names[int(np.argmax(row_scores))] == found.labels[video])
            labels[video] = found.labels[video]
    groups = {video.name: group_of(video) for video in the_set(claim.data).videos}
    return Outcomes(np.array(list(right.values())).T, [groups[video] for video in right], list(labels.values()))


def tables(name: str) -> str:
    """What is known of a claim, in markdown."""
    claim = EVIDENCE[name]
    found = {row: outcomes(name, row) for row in claim.rows if not claim.rows[row].once}
    lines = [f"\n**{name}**: {claim.says}; {claim.data}\n"]
    lines += ["| row | top-1, % | balanced, % | minutes of training |", "|---|---|---|---|"]
    for row, got in found.items():
        if got is None:
            lines.append(f"| {row} | not yet run | | |")
            continue
        each = [100 * float(of.mean()) for of in got.right]
        spread = f" ± {statistics.stdev(each):.1f}" if len(each) > 1 else ""
        seconds = [place.seconds() for place in places(name) if place.row == row]
        minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else "–"
        lines.append(f"| {row} | {statistics.mean(each):.1f}{spread} | {100 * balanced(got):.1f} | {minutes} |")
    lines += ["", "| difference | points | 95 % | verdict |", "|---|---|---|---|"]
    for one, other in claim.pairs:
        if found[one] is None or found[other] is None:
            continue
        gain, low, high = difference(found[one], found[other])
        lines.append(
            f"| {one} − {other} | {100 * gain:+.1f} | [{100 * low:+.1f}, {100 * high:+.1f}] | {verdict(low, high)} |"
        )
    return "\n".join(lines)


def curves(name: str) -> str:
    """Where a set has validation videos: what the networks told apart of them on the way, mean over the seeds."""
    claim, lines = EVIDENCE[name], []
    for row in claim.rows:
        logs = [Place(name, row, 0, seed).folder / "metrics.jsonl" for seed in range(claim.seeds)]
        if all(log.exists() for log in logs):
            runs = [
                {line["step"]: 100 * line["top1"] for line in runlog.read(log) if line["split"] == "val"}
                for log in logs
            ]
            steps = sorted(set.intersection(*map(set, runs)))
            means = [f"{statistics.mean(run[step] for run in runs):.1f}" for step in steps]
            if steps and not lines:
                lines = [
                    f"\n| validation, single clips, % at step | {' | '.join(map(str, steps))} |",
                    f"|---|{'---|' * len(steps)}",
                ]
            if steps:
                lines.append(f"| {row} | {' | '.join(means)} |")
    return "\n".join(lines)


def views() -> str:
    """α of H-W, T-W and T-H in the networks of CoST, by the set they were trained on; mean and range over the runs."""
    lines = ["\n| CoST, trained on | runs | H-W | T-W | T-H | T-W + T-H, least and most |", "|---|---|---|---|---|---|"]
    for name, row in (("cost", "cost_a"), ("cost", "cost_b"), ("views", "cost_b")):
        claim, found = EVIDENCE[name], []
        for fold, seed in itertools.product(range(claim.folds), range(claim.seeds)):
            place = Place(name, row, fold, seed)
            if (place.folder / "test.json").exists():
                if not (place.folder / "views.json").exists():
                    coefficients.analyse(run_lib.load(place.folder), prepared.read(folder_of_set(claim, fold)))
                found.append(list(documents.read(place.folder / "views.json", {"overall": dict})["overall"].values()))
        if found:
            mean = " | ".join(f"{value:.3f}" for value in np.mean(found, axis=0))
            motion = [sum(each[1:]) for each in found]
            lines.append(f"| {claim.data}, {row} | {len(found)} | {mean} | {min(motion):.3f} to {max(motion):.3f} |")
    return "\n".join(lines)


def main(_) -> None:
    if unknown := set(CLAIMS.value) - set(EVIDENCE):
        raise app.UsageError(f"unknown claims {', '.join(sorted(unknown))}: choose from {', '.join(EVIDENCE)}")
    compilation_cache.enable_compilation_cache()
    for name in CLAIMS.value:
        if not TABLE.value:
            write_sets(EVIDENCE[name])
        for place in places(name) if not TABLE.value else ():
            print(place.command, flush=True)
            if not LIST.value:
                result = place.train()
                told = ", ".join(f"{key} {100 * result[key]:.1f} %" for key in TOLD if key in result)
                print(f"{place.folder}: {told}; {place.seconds() / 60:.1f} minutes", flush=True)
        if not LIST.value and not BEST.value:
            print(tables(name) + curves(name), flush=True)
    if not LIST.value and not BEST.value and {"cost", "views"} & set(CLAIMS.value):
        print(views(), flush=True)


TOLD = ("top1", "mean_class_accuracy", "pair_accuracy")


if __name__ == "__main__":
    app.run(main)
