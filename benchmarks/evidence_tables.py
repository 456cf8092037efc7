"""The tables and the pictures of evidence.py: what its record says of each claim."""

import collections
import itertools
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
from evidence_claims import EVIDENCE, LOOKS_MORE, Claim
from evidence_differences import (
    Difference,
    Outcomes,
    above_chance,
    balanced_accuracy,
    difference,
    interval_between,
    mean_interval,
    said,
    verdict,
)
from evidence_record import Place, Record
from evidence_sets import Sets, group_of

from jax_video import pictures
from jax_video.errors import UserError


class Compared(NamedTuple):
    """What is known of a pair of rows, of which the first is said to be better."""

    pair: tuple[str, str]
    top1: Difference
    balanced: Difference
    said: str

    @classmethod
    def of(cls, pair: tuple[str, str], one: Outcomes, other: Outcomes) -> "Compared":
        """Of rows of which the better one may be no better than chance, a difference says nothing."""
        found = difference(one, other), difference(one, other, balanced=True)
        words = verdict(*found)
        better = max((one, pair[0]), (other, pair[1]), key=lambda row: balanced_accuracy(row[0]))
        if min(one.right.mean(), other.right.mean()) > 0.995:
            words = "both near 100 %"
        elif words in ("holds", "does not") and above_chance(better[0]).ends[0] <= 0:
            words = f"cannot tell: {better[1]} may be at chance"
        return cls(pair, *found, words)


class Found:
    """What is known of some claims.

    Args:
      runs: of each claim all its runs, which have a `place` and a checksum of `what` they are.
    """

    def __init__(self, runs: Mapping[str, list[Any]], sets: Sets, record: Record):
        self._runs, self._sets = runs, sets
        self._found = {
            run.place: found
            for run in itertools.chain(*runs.values())
            if (found := record.get(run.place, run.what)) is not None
        }
        self._right = {(name, row): self._outcomes(name, row) for name in runs for row in EVIDENCE[name].rows}
        self._compared = {name: self._compare(name) for name in runs}

    def claim(self, name: str) -> str:
        """What is known of a claim, in markdown."""
        claim = EVIDENCE[name]
        lines = [f"\n**{name}**: {claim.says}; {claim.data}\n"]
        lines += [
            "| row | runs | top-1, % | balanced, % | 95 %: other videos | other networks | minutes of training |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in claim.rows:
            each, planned = self._of(name, row), self._planned(name, row)
            number = str(planned) if len(each) == planned else f"{len(each)} of {planned}"
            if claim.rows[row].once and each:
                accuracy = f"{100 * each[0]['pair_accuracy']:.1f} of pairs | – | – | –"
            else:
                got = self._right[name, row]
                accuracy = (
                    f"{spread([100 * float(of.mean()) for of in got.right])} | {balanced(got)}"
                    if got
                    else "not yet run | | |"
                )
            seconds = [found["seconds"] for found in each if found.get("seconds")]
            minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else "–"
            lines.append(f"| {row} | {number} | {accuracy} | {minutes} |")
        return "\n".join(lines) + self._differences_in_words(name) + self._curves(name)

    def draw(self, path: str) -> None:
        """Draw all differences of top-1 with their intervals: other videos wide, other networks thin."""
        rows: list[str | Compared] = []  # names of claims, and what is drawn
        for name, found in self._compared.items():
            rows += [f"{name} ({EVIDENCE[name].data})", *found] if found else []
        if not rows:
            raise UserError(f"--figure={path}: no difference is known yet that could be drawn")
        figure = matplotlib.figure.Figure((7, 0.6 + 0.24 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color="0.6", linewidth=1)
        for place, of in enumerate(rows):
            if isinstance(of, Compared):
                colour = {"holds": "tab:blue", "does not": "tab:red"}.get(of.said, "0.35")
                for interval, width in ((of.top1.videos, 3), (of.top1.networks, 1)):
                    ends = [100 * end for end in interval]
                    axes.plot(ends, [place, place], color=colour, linewidth=width, solid_capstyle="butt")
                axes.plot([100 * of.top1.gain], [place], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(rows)), [of if isinstance(of, str) else " − ".join(of.pair) for of in rows])
        for label, of in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if isinstance(of, str) else "normal")
        axes.set(
            ylim=(len(rows) - 0.5, -0.5),
            xlabel="difference of top-1, points",
        )
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.savefig(path, dpi=150)

    def draw_more(self, path: pathlib.Path) -> None:
        """Draw, beside this file, what the best row of each claim confuses (PATH-CLAIM.png), as a test does of a run;
        and what was right of validation videos on the way (PATH-curves): means over the seeds, from least to most."""
        for name in self._runs:
            best = EVIDENCE[name].best
            if best is not None and self._right[name, best] is not None:
                pictures.plot_confusion(path.with_name(f"{path.stem}-{name}.png"), *self._confusion(name, best))
        curves = {name: found for name in self._runs if (found := self._validated(name))}
        if not curves:
            return
        figure = matplotlib.figure.Figure((3.5 * len(curves), 2.8), layout="constrained")
        for axes, (name, rows) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
            for row, each in rows.items():
                steps, values = zip(*each.items(), strict=True)
                axes.plot(steps, np.mean(values, axis=1), marker="o", markersize=3, label=row)
                axes.fill_between(steps, np.min(values, axis=1), np.max(values, axis=1), alpha=0.2)
            axes.set(title=name, xlabel="step", ylabel="validation, top-1, %", ylim=(0, 102))
            axes.legend()
        figure.savefig(path.with_name(f"{path.stem}-curves{path.suffix}"), dpi=150)

    def _confusion(self, name: str, row: str) -> tuple[tuple[str, ...], np.ndarray]:
        """(classes; how many of each were taken for each, int [K, K]), in all folds and with all seeds that count."""
        classes = self._sets.manifest(EVIDENCE[name].data).classes
        matrix = np.zeros((len(classes),) * 2, int)
        for fold, part in enumerate(self._sets.parts(EVIDENCE[name])):
            for seed in self._seeds(name):
                wrong = self._found[Place(name, row, fold, seed)]["wrong"]
                for _, video in part.select("test"):
                    told = classes.index(wrong[video.name]) if video.name in wrong else video.label
                    matrix[video.label, told] += 1
        return classes, matrix

    def _validated(self, name: str) -> dict[str, dict[int, list[float]]]:
        """{row: {step: what each run got right of the validation videos then, in %}}, of rows that have any."""
        found = {}
        for row in EVIDENCE[name].rows:
            each = [of["validation"] for of in self._of(name, row) if of.get("validation")]
            if each:
                steps = sorted(set.intersection(*map(set, each)), key=int)
                found[row] = {int(step): [100 * of[step] for of in each] for step in steps}
        return {row: of for row, of in found.items() if of}

    def views(self) -> str:
        """α of H-W, T-W and T-H in the networks of CoST, by the set they were trained on: mean and range over the runs;
        and which of two sets they look more at T-W and T-H for. In markdown; empty if none is known."""
        lines, looks = [], {}
        rows = [(name, row) for name in self._runs for row, of in EVIDENCE[name].rows.items() if of.views]
        for name, row in rows:
            claim, seeds = EVIDENCE[name], len(self._seeds(name))
            found = [list(of["views"].values()) for of in self._of(name, row)]
            if found:
                mean = " | ".join(f"{value:.3f}" for value in np.mean(found, axis=0))
                motion = [sum(each[1:]) for each in found]
                if len(found) == claim.folds * seeds:
                    looks[name, row] = by_networks(motion, claim, seeds)
                ends = f"{min(motion):.3f} to {max(motion):.3f}"
                lines.append(f"| {EVIDENCE[name].data}, {row} | {len(found)} | {mean} | {ends} |")
        if not lines:
            return ""
        head = [
            "\n| CoST, trained on | runs | H-W | T-W | T-H | T-W + T-H, least and most |",
            "|---|---|---|---|---|---|",
        ]
        if looks.keys() >= set(LOOKS_MORE):
            one, other = (looks[of] for of in LOOKS_MORE)
            names = " − ".join(f"{EVIDENCE[name].data}, {row}" for name, row in LOOKS_MORE)
            low, high = interval_between(one, other)
            gain = statistics.mean(one) - statistics.mean(other)
            lines.append(f"\nT-W + T-H, {names}: {gain:+.3f} [{low:+.3f}, {high:+.3f}]: {said(low, high)}")
        return "\n".join([*head, *lines])

    def _of(self, name: str, row: str) -> list[dict[str, Any]]:
        """What was found of a row, in all folds and with all seeds that count."""
        seeds = self._seeds(name)
        return [
            found for place, found in sorted(self._found.items()) if place[:2] == (name, row) and place.seed in seeds
        ]

    def _planned(self, name: str, row: str) -> int:
        """How many runs a row has when all is done."""
        return sum(run.place.row == row for run in self._runs.get(name, ()))

    def _seeds(self, name: str) -> list[int]:
        """The seeds that count: those with which all rows of a claim are done in all folds; all, if there are none, or
        a single fold, where they are what is measured."""
        claim = EVIDENCE[name]
        rows = [row for row, of in claim.rows.items() if not of.once]
        places = {
            seed: [Place(name, row, fold, seed) for row in rows for fold in range(claim.folds)]
            for seed in range(claim.seeds)
        }
        whole = [seed for seed, each in places.items() if self._found.keys() >= set(each)]
        return whole if whole and claim.folds > 1 else list(places)

    def _outcomes(self, name: str, row: str) -> Outcomes | None:
        """What a row's networks got right; None: not all is done."""
        claim, right, videos, folds = EVIDENCE[name], collections.defaultdict(list), {}, {}
        for fold, part in enumerate(self._sets.parts(claim)):
            tested = {video.name: video for _, video in part.select("test")}
            videos |= tested
            folds |= dict.fromkeys(tested, fold)
            for seed in self._seeds(name):
                found = self._found.get(Place(name, row, fold, seed))
                if found is None or "wrong" not in found:
                    return None
                if other := set(found["wrong"]) - set(tested):
                    raise UserError(f"the record has test videos of another set: {', '.join(sorted(other)[:3])} …")
                for video in tested:
                    right[video].append(video not in found["wrong"])
        classes = self._sets.manifest(claim.data).classes
        labels = [classes[videos[name].label] for name in right]
        groups = [group_of(videos[name]) for name in right]
        return Outcomes(np.array(list(right.values())).T, groups, labels, [folds[name] for name in right])

    def _compare(self, name: str) -> list[Compared]:
        """The pairs of a claim whose runs are all done."""
        known = ((pair, *(self._right[name, row] for row in pair)) for pair in EVIDENCE[name].pairs)
        return [Compared.of(*each) for each in known if None not in each]

    def _differences_in_words(self, name: str) -> str:
        if not self._compared[name]:
            return ""
        measures = [f"{measure} | 95 %: other videos | other networks" for measure in ("top-1", "balanced")]
        lines = [f"\n\n| difference, points | {' | '.join(measures)} | verdict |", f"|---|{'---|' * 7}"]
        for pair, *found, words in self._compared[name]:
            shown = [f"{100 * of.gain:+.1f} | {interval(of.videos)} | {interval(of.networks)}" for of in found]
            lines.append(f"| {' − '.join(pair)} | {' | '.join(shown)} | {words} |")
        return "\n".join(lines)

    def _curves(self, name: str) -> str:
        """Where a set has validation videos: what the networks told apart of them on the way, and who learnt sooner."""
        lines: list[str] = []
        means = {}
        for row, of in self._validated(name).items():
            if not lines:
                columns = [*(f"step {step}" for step in of), "mean over the steps"]
                lines = [f"\n\n| validation, % | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
            means[row] = [*map(statistics.mean, zip(*of.values(), strict=True))]
            lines.append(f"| {row} | {' | '.join([*map(spread, of.values()), spread(means[row])])} |")
        whole = {row for row in means if len(means[row]) == self._planned(name, row)}
        pairs = [pair for pair in EVIDENCE[name].pairs if whole.issuperset(pair)]
        for pair in pairs if lines else ():
            gains = [one - other for one, other in zip(*(means[row] for row in pair), strict=True)]
            start = "\n\nMean over the steps, " if pair == pairs[0] else "; "
            lines[-1] += f"{start}{' − '.join(pair)}: {statistics.mean(gains):+.1f} {interval(mean_interval(gains), 1)}"
        return "\n".join(lines)


def balanced(outcomes: Outcomes) -> str:
    """The balanced accuracy with its intervals, as cells in %."""
    accuracy, above = balanced_accuracy(outcomes), above_chance(outcomes)
    chance = accuracy - above.gain
    ends = (f"[{100 * (chance + low):.1f}, {100 * (chance + high):.1f}]" for low, high in above[1:])
    return " | ".join([f"{100 * accuracy:.1f}", *ends])


def by_networks(values: list[float], claim: Claim, seeds: int) -> list[float]:
    """What all runs of a row found, fold after fold, as measurements of their own: of each fold the mean over its
    seeds, as they share what they are trained on; of one fold each seed."""
    return list(np.reshape(values, (claim.folds, seeds)).mean(axis=1)) if claim.folds > 1 else values


def spread(values: list[float]) -> str:
    """Their mean and, of several, standard deviation."""
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def interval(ends: tuple[float, float], unit: int = 100) -> str:
    return f"[{unit * ends[0]:+.1f}, {unit * ends[1]:+.1f}]"
