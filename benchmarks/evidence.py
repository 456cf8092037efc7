"""Which of the papers' relations hold on real videos, at a size that two cores can run, as a careful paper would show.

    python benchmarks/evidence.py --data=data --weights=thin_resnet50.npz --out=runs/evidence     # goes on where it was
    python benchmarks/evidence.py --data=data --out=runs/evidence --table                    # of the runs that are done
    python benchmarks/evidence.py --data=data --record=benchmarks/evidence.jsonl --table  # of those of RESULTS.md
    python benchmarks/evidence.py --data=data --out=runs/evidence --list             # the command of every run; no more
    python benchmarks/evidence.py --best --data=data/mine --weights=thin_resnet50.npz --out=runs/best --claims=stc,cost

--weights is a thin ResNet-50 for pictures in torchvision's names: half the width but for the stem, trained on ImageNet
and then on another task.

--data has the prepared sets `fights` and `ut_interaction`, split by groups (`prepare --group`). They are not packed, as
a packed set cannot be split anew. Optical flow is stored there before a claim that needs it. A claim
(evidence_claims.py) compares rows, networks that are trained alike, on folds: each group of videos is tested once, by
networks that have seen none of it. Several processes may work on the same --out: each takes runs that no other is at.

For two rows it prints the difference of their accuracies on the same videos, and of their balanced accuracies, each
with two 95 % intervals (evidence_differences.py): how far it may be off with other test videos, and with newly trained
networks. A claim *holds* if all four lie above zero; it *does not* if all lie below; otherwise these runs cannot tell.
If two networks differ in 30 % of 175 independent videos, half of the first interval is 8 points, and a true difference
has to be 12 to be found four times in five; clips of one source are alike, and networks vary, so it takes more: of what
was run, up to 32.

Of some 30 comparisons one or two leave zero by chance. No checkpoint is chosen on tested videos: the last one counts,
or the best on validation videos, if the set has any; but the rate of configs/finetune.py was chosen on some of the
sequences of UT-Interaction. The teacher of `transfer` is trained once, on the fights and the training videos of
UT-Interaction's own split, without labels: most of what is tested later it has seen.

What a run has found stands in the record, a line for each: which test videos it took for another class, what it made of
validation videos on the way, and α. A run in the record is not trained again. The tables need only the record and the
sets. A line is of its rows' config strings, videos, splits and weights; what configs/ makes of the strings it does not
know: after a change there, remove the lines that it concerns.

`--best` trains one row of each claim (`best` in evidence_claims.py) on the training videos of another prepared set, or
of any manifest, and tests it on its test videos. A claim whose networks cannot be trained on it does not stop others.
Optical flow that the set lacks is computed by dense inverse search, as TV-L1 takes 15 to 50 times as long.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

import evidence_tables as tables  # noqa: E402
from evidence_claims import EVIDENCE, Claim, Row  # noqa: E402
from evidence_claims import WEIGHTS as EXPECTED_WEIGHTS  # noqa: E402
from evidence_record import Place, Record  # noqa: E402
from evidence_sets import OneSet, Sets, forget  # noqa: E402

from jax_video import command, config_flag, lock, published, runlog  # noqa: E402
from jax_video import run as run_lib  # noqa: E402
from jax_video.data import documents  # noqa: E402
from jax_video.data.sources import prepared  # noqa: E402
from jax_video.errors import Stopped, UserError  # noqa: E402
from jax_video.reporting.classes import wilson  # noqa: E402
from jax_video.testing import coefficients, fusion, results  # noqa: E402
from jax_video.train import train  # noqa: E402

DATA = flags.DEFINE_string(
    "data", None, "Folder of the prepared sets; with --best, one prepared set or its manifest.", required=True
)
WEIGHTS = flags.DEFINE_string("weights", "thin_resnet50.npz", "A thin ResNet-50 for pictures, in torchvision's layout.")
OUT = flags.DEFINE_string("out", None, "Folder of the runs; --table can do without.")
RECORD = flags.DEFINE_string("record", None, "What the runs have found, JSON lines; default: outcomes.jsonl in --out.")
TABLE = flags.DEFINE_bool("table", False, "Train nothing; print the tables of the runs that are done.")
LIST = flags.DEFINE_bool("list", False, "Train nothing; write the manifests, and print the command of every run.")
BEST = flags.DEFINE_bool("best", False, "Only the best row of each claim, on the splits of the set in --data.")
FIGURE = flags.DEFINE_string("figure", None, "File for a picture of all differences that are known; more beside it.")
CLAIMS = flags.DEFINE_list("claims", None, "Only these.")


def sets() -> Sets:
    """Those of --data."""
    kind = OneSet if BEST.value else Sets
    return kind(pathlib.Path(DATA.value).absolute(), None if OUT.value is None else pathlib.Path(OUT.value).absolute())


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a row, in its place."""

    place: Place

    @property
    def claim(self) -> Claim:
        return EVIDENCE[self.place.claim]

    @property
    def row(self) -> Row:
        """That of its claim, but for flow that is stored otherwise."""
        row = self.claim.rows[self.place.row]
        flow = {"clip.flow_method": sets().flow_method()} if "clip.flow_method" in row.changes else {}
        return dataclasses.replace(row, changes={**row.changes, **flow})

    @property
    def folder(self) -> pathlib.Path:
        name = self.place.row.replace(" %", "").replace(", ", "-").replace(" ", "-")
        seed = "" if self.row.once else f"-seed{self.place.seed}"
        return pathlib.Path(OUT.value, self.place.claim, f"{name}-fold{self.place.fold}{seed}").absolute()

    def beside(self, row: str) -> "Run":
        """The one of another row, in the same fold and with the same seed."""
        fold, seed = (0, 0) if self.claim.rows[row].once else self.place[2:]
        return Run(self.place._replace(row=row, fold=fold, seed=seed))

    @property
    def parts(self) -> list["Run"]:
        """Those that it begins with, or whose scores it adds up."""
        return [self.beside(row) for row in self.claim.parts(self.place.row)]

    @property
    def text(self) -> str:
        """The config string."""
        others = {part.place.row: part.folder for part in self.parts}
        folders = {"set": sets().folder(self.claim, self.place.fold), "unlabelled": sets().unlabelled}
        weights = pathlib.Path(WEIGHTS.value)
        return self.row.config.format(**others, **folders, weights=weights.absolute() if weights.exists() else weights)

    @property
    def changes(self) -> dict[str, Any]:
        partial = {"test.allow_partial": True} if BEST.value else {}
        return {**self.row.changes, **partial, "seed": self.place.seed}

    @functools.cached_property
    def what(self) -> int:
        """A checksum of what is trained, or begun with, from which weights, on which videos."""
        of = sets().trained_on(self.claim, self.row, self.place.fold)
        videos = sorted(
            (video.name, "" if video.label is None else of.classes[video.label], video.split) for video in of.videos
        )
        weights = (_digest(WEIGHTS.value) if BEST.value else EXPECTED_WEIGHTS) if "{weights}" in self.row.config else ""
        return documents.checksum(
            [self.row.config, self.row.changes, weights, videos, [part.what for part in self.parts]]
        )

    @property
    def commands(self) -> list[str]:
        """What trains and tests it, or adds scores up."""
        if self.row.fused:
            parts = [str(part.folder) for part in self.parts]
            return [shlex.join(["python", "-m", "jax_video.fuse", *parts, f"--out={self.folder}"])]
        flags = [f"--config.{key}={_shown(value)}" for key, value in self.changes.items()]
        words = ["python", "-m", "jax_video.main", f"--config={self.text}", *flags, f"--workdir={self.folder}"]
        return [shlex.join([*words, *mode]) for mode in ([], ["--mode=views"])[: 1 + self.row.views]]

    def config(self) -> ConfigDict:
        config = config_flag.load(self.text)
        config_flag.add_keywords(config)
        with config.ignore_type():
            config.update_from_flattened_dict(self.changes)
        return config

    @property
    def ready(self) -> bool:
        """Whether it is done here, so that other runs can begin with it."""
        if self.row.fused:
            return all(part.ready for part in self.parts)
        mark = self._read_mark()
        return mark is not None and mark["done"] and mark["what"] == self.what

    @property
    def tested(self) -> bool:
        """Whether it is of interest by itself; of --best, what another run begins with is not."""
        best = self.claim.best
        return not BEST.value or self.place.row in (best, *self.claim.rows[best].fused)

    def find(self) -> dict[str, Any]:
        """What it finds, for the record; it is trained and tested if that is not done.

        Raises:
          InUse: another process is at it.
          UserError: it cannot be trained or tested, or its folder holds a run of something else.
        """
        found = self._find()
        if not self.row.fused:  # so that other runs can begin with it
            self._mark(self._seconds(), done=True)
        return found

    def _find(self) -> dict[str, Any]:
        if self.row.fused:
            scores = self.scores()
            values = fusion.measure(scores)
            return {key: round(float(values[key]), 4) for key in TOLD if key in values} | {"wrong": wrong(scores)}
        before, started, config = self._begin(), time.monotonic(), self.config()
        manifest = prepared.read(config.data.manifest).keep(config.data.fraction)
        new = False
        try:
            new = train(config, manifest, self.folder)
        except Stopped:
            new = True
            raise
        finally:
            if new:  # of a run that is gone on with, the sum of its parts
                self._mark(before + round(time.monotonic() - started))
        if not self.tested:
            return {"seconds": self._seconds()}
        run = run_lib.load(self.folder, config=config)
        result = results.read_result(run, manifest) or results.test(run, manifest)
        log = runlog.read(self.folder / "metrics.jsonl")
        found = {"seconds": self._seconds(), **{key: round(result[key], 4) for key in TOLD if key in result}}
        if "top1" in result:
            found["validation"] = {line["step"]: round(line["top1"], 4) for line in log if line["split"] == "val"}
            found["wrong"] = wrong(self.scores())
        if result["videos"] < result["of"]:
            found["tested"] = [result["videos"], result["of"]]
        if self.row.views:
            if not (self.folder / "views.json").exists():
                coefficients.analyse(run, manifest)
            views = documents.read(self.folder / "views.json", {"overall": dict})["overall"]
            found["views"] = {view: round(value, 4) for view, value in views.items()}
        return found

    def _begin(self) -> int:
        """Mark its folder with what it is of, which the run there does not know: it takes weights by their path.

        Returns:
          For how many seconds it has been trained.

        Raises:
          UserError: a run of something else is there.
        """
        mark = self._read_mark()
        if mark is None:  # no run, or one that another command has trained
            self._mark(None)
            return 0
        if mark["what"] != self.what:
            raise UserError(
                f"the run there has other weights or videos than {WEIGHTS.value} and {DATA.value} give now, or began "
                "with another run: choose another --out, or remove that folder"
            )
        return mark["seconds"] or 0

    def _mark(self, seconds: int | None, done: bool = False) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        documents.write(self.folder / MARK, {"what": self.what, "seconds": seconds, "done": done})

    def _read_mark(self) -> dict[str, Any] | None:
        """None if there is none."""
        try:
            return documents.read(self.folder / MARK, {"what": int, "seconds": (int, type(None)), "done": bool})
        except FileNotFoundError:
            return None
        except documents.Damaged as error:
            raise UserError(f"{self.folder / MARK}: {error}: remove that folder") from error

    def _seconds(self) -> int | None:
        """What its training took; None if another command trained it."""
        mark = self._read_mark()
        return None if mark is None else mark["seconds"]

    def scores(self) -> fusion.Predictions:
        if not self.row.fused:
            return fusion.read(self.folder)
        return fusion.fuse([part.scores() for part in self.parts], [1.0] * len(self.parts))


def wrong(found: fusion.Predictions) -> dict[str, str]:
    """The test videos that are taken for another class, and for which."""
    told = {video: found.class_names[int(np.argmax(row))] for video, row in found.scores.items()}
    return {video: name for video, name in sorted(told.items()) if name != found.labels[video]}


TOLD = ("top1", "mean_class_accuracy", "pair_accuracy")
MARK = "evidence.json"  # in a run's folder: what it is of, how long it was trained, and whether it is done


@functools.cache
def _digest(path: str) -> str:
    """SHA-256 of a file."""
    return published.checksum(pathlib.Path(path).read_bytes())


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
        if not (claim.rows[row].once and (fold or seed))
    ]


def needed(claim: Claim, row: str) -> list[str]:
    """A row and those that it begins with, which come first."""
    before = itertools.chain(*(needed(claim, part) for part in claim.parts(row)))
    return list(dict.fromkeys([*before, row]))


def to_do(all_runs: list[Run], record: Record) -> list[Run]:
    """Those that are not in the record, and those that these begin with, which come first."""
    awaited = {run for run in all_runs if record.get(run.place, run.what) is None}
    for run in reversed(all_runs):
        awaited |= set(run.parts) if run in awaited else set()
    return [run for run in all_runs if run in awaited]


def work(all_runs: list[Run], record: Record) -> list[str]:
    """Do all runs that are not in the record, except those that another process is at. A run that fails stops only the
    runs that begin with it.

    Returns:
      What failed, and why.
    """
    failed: dict[Run, str] = {}

    def done(run: Run) -> bool:
        return run.ready and record.get(run.place, run.what) is not None

    while left := [run for run in to_do(all_runs, record) if not done(run) and run not in failed]:
        waits = True
        for run in left:
            record.read()
            if lost := [part for part in run.parts if part in failed]:
                failed[run] = f"{run.folder}: it begins with {lost[0].folder}, which failed"
                waits = False
                continue
            if done(run) or not all(part.ready for part in run.parts):
                continue
            print(*run.commands, sep="\n", flush=True)
            try:
                found = run.find()
            except lock.InUse:
                continue
            except UserError as error:
                failed[run] = f"{run.folder}: {error}"
                print(failed[run], file=sys.stderr, flush=True)
            else:
                record.add(run.place, run.what, found)
                show(run, found)
            waits = False
        if waits:
            print("Other processes are at all runs that can be begun now: waiting for them.", flush=True)
            time.sleep(20)
    return list(failed.values())


def show(run: Run, found: dict[str, Any]) -> None:
    """Print what a run has found, and how sure that is."""
    told = [f"{key} {100 * found[key]:.1f} %" for key in TOLD if key in found]
    lost = found["tested"][1] - found["tested"][0] if "tested" in found else 0
    if "top1" in found:
        labels = [video.label for _, video in sets().trained_on(run.claim, run.row, run.place.fold).select("test")]
        number = found["tested"][0] if "tested" in found else len(labels)
        low, high = (100 * end for end in wilson(found["top1"] * number, number))
        largest = 100 * max(collections.Counter(labels).values()) / len(labels)
        told[0] += f" [{low:.0f}, {high:.0f}] of {number} test videos, of which {largest:.1f} % are of one class"
    part = f"; {lost} more could not be read" if lost else ""
    minutes = f"; {found['seconds'] / 60:.1f} minutes of training" if found.get("seconds") else ""
    print(f"{run.folder}: {', '.join(told)}{part}{minutes}", flush=True)


def check(names: list[str], arguments: list[str]) -> None:
    """Raise UserError for what would fail, or mislead, hours later."""
    if arguments:
        raise UserError(f"expected only flags, got {' '.join(arguments)}; see --help")
    if unknown := set(names) - set(EVIDENCE):
        raise UserError(f"unknown claims {', '.join(sorted(unknown))}: choose from {', '.join(EVIDENCE)}")
    if TABLE.value and (LIST.value or BEST.value):
        raise UserError("--table excludes --list and --best: it trains nothing, and is of all rows")
    if BEST.value and (without := [name for name in names if EVIDENCE[name].best is None]):
        raise UserError(f"--best: {', '.join(without)} are of sets of their own: leave them out of --claims")
    if OUT.value is None and not (TABLE.value and RECORD.value):
        raise UserError("--out is missing: the folder of the runs")
    if RECORD.value and pathlib.Path(RECORD.value).is_dir():
        raise UserError(f"--record={RECORD.value} is a folder: expected a file of JSON lines")
    if TABLE.value and RECORD.value and not pathlib.Path(RECORD.value).is_file():
        raise UserError(f"--record={RECORD.value}: there is no such file")
    for path in filter(None, (OUT.value, WEIGHTS.value)):
        if "," in str(pathlib.Path(path).absolute()):
            raise UserError(f"{path}: a config string cannot name a path with a comma: choose another one")
    rows = [row for name in names for row in EVIDENCE[name].rows.values()]
    if not TABLE.value and any("{weights}" in row.config for row in rows):
        if not pathlib.Path(WEIGHTS.value).exists():
            raise UserError(
                f"--weights={WEIGHTS.value}: there is no such file, from which networks of these claims start"
            )
        if not (LIST.value or BEST.value) and _digest(WEIGHTS.value) != EXPECTED_WEIGHTS:
            raise UserError(
                f"--weights={WEIGHTS.value} is not the file that the record's networks start from (its SHA-256 begins "
                f"with {_digest(WEIGHTS.value)[:8]}, theirs with {EXPECTED_WEIGHTS[:8]}); --best takes any"
            )
    if FIGURE.value is not None:
        if BEST.value or LIST.value:
            raise UserError("--figure draws differences, of which --best and --list know none: leave it out")
        figure = pathlib.Path(FIGURE.value)
        if figure.suffix not in (".png", ".pdf", ".svg") or not figure.absolute().parent.is_dir():
            raise UserError(f"--figure={FIGURE.value}: expected a .png, .pdf or .svg in a folder that is there")
    for name in names:
        split, *others = sets().parts(EVIDENCE[name])
        split.check_labels("train", "test")
        if split.multilabel:
            raise UserError(f"the videos of {split.name!r} have several labels; what is compared has one for each")
        for each in (split, *others):
            if not each.select("train") or not each.select("test"):
                raise UserError(f"{each.describe()} in {DATA.value}: there are none to train on, or to test")
        all_tested = EVIDENCE[name].folds > 1 and not BEST.value
        tested = [video for video in split.videos if all_tested or video.split == "test"]
        if lacking := [video.name for video in tested if video.error is not None]:
            said = f"{len(lacking)} test videos of {split.name!r} cannot be read, {lacking[0]} first"
            if not BEST.value:
                raise UserError(f"{said}: mend them, or prepare the set without them")
            print(f"{said}: it is tested on the others.", file=sys.stderr)
        if BEST.value:
            trained = {video.source for _, video in split.select("train")}
            if seen := {video.source for _, video in split.select("test")} & trained:
                print(
                    f"{len(seen)} groups of {split.name!r} have videos to train on and to test, {min(seen)} first: the "
                    "accuracy on new ones will be lower.",
                    file=sys.stderr,
                )


def main(arguments: list[str]) -> None:
    names = CLAIMS.value or [name for name, claim in EVIDENCE.items() if claim.best or not BEST.value]
    check(names, arguments)
    record = Record(RECORD.value or pathlib.Path(OUT.value, "outcomes.jsonl"))
    if TABLE.value:
        print_tables(names, record)
        return
    sets().begin()
    lost: list[str] = []
    for flow in (False, True):  # what needs none comes first
        lost += perform([name for name in names if EVIDENCE[name].sees_flow == flow], record)
    if not (BEST.value or LIST.value):
        print_tables(names, record)
    for run in [run for name in names for run in runs(name)] if BEST.value and not LIST.value else ():
        if (found := record.get(run.place, run.what)) is not None:
            show(run, found)
    if lost:
        raise UserError("not all could be done:\n" + "\n".join(lost))


def perform(names: list[str], record: Record) -> list[str]:
    """Do all runs of some claims that are not in the record, or print their commands.

    Returns:
      What failed, and why.
    """
    failed = {name: lacks for name in names if (lacks := prepare(name, record))}
    forget()  # flow stands in the manifests
    names = [name for name in names if name not in failed]
    for name in names:
        sets().write(EVIDENCE[name])
    all_runs = [run for name in names for run in runs(name)]
    if LIST.value:
        for command in (command for run in all_runs for command in run.commands):
            print(command)
        return [*failed.values()]
    pathlib.Path(OUT.value).mkdir(parents=True, exist_ok=True)
    return [*failed.values(), *work(all_runs, record)]


def prepare(name: str, record: Record) -> str | None:
    """Store the optical flow that a claim's runs need, if there are any to do.

    Returns:
      Why that cannot be done; None: it is.
    """
    try:
        flow = sets().flow_command(EVIDENCE[name])
    except UserError as error:
        return f"{name}: {error}"
    if LIST.value and flow:
        print(shlex.join(flow))
    elif flow and to_do(runs(name), record):
        with alone(pathlib.Path(OUT.value, "flow")):
            if subprocess.run([sys.executable, *flow[1:]], cwd=ROOT).returncode:
                return f"{name}: its optical flow is not stored; said above is why"
    return None


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Hold a folder, as soon as no other process does."""
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(lock.hold(folder))
                break
            except lock.InUse:
                print("Another process stores the optical flow: waiting for it.", flush=True)
                time.sleep(20)
        yield


def print_tables(names: list[str], record: Record) -> None:
    found = tables.Found({name: runs(name) for name in names}, sets(), record)
    for name in names:
        print(found.claim(name), flush=True)
    print(found.views(), flush=True)
    if FIGURE.value:
        found.draw(FIGURE.value)
        found.draw_more(pathlib.Path(FIGURE.value))


if __name__ == "__main__":
    command.run(main)
