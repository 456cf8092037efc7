"""The tables and the picture of evidence.py: what its record says of each claim."""

import collections
import itertools
import statistics
from collections.abc import Iterable

import matplotlib.figure
import numpy as np
from evidence_claims import EVIDENCE
from evidence_differences import Difference, Outcomes, balanced, difference
from evidence_record import Place, Record
from evidence_sets import Sets, group_of

from jax_video.errors import UserError


def outcomes(name: str, row: str, sets: Sets, record: Record) -> Outcomes | None:
    """What a row's networks got right; None: not all is done."""
    claim, right, videos, folds = EVIDENCE[name], collections.defaultdict(list), {}, {}
    for fold, part in enumerate(sets.parts(claim)):
        videos |= {video.name: video for video in part.videos if video.split == "test"}
        tested = [video.name for video in part.videos if video.split == "test"]
        folds |= dict.fromkeys(tested, fold)
        for seed in range(claim.seeds):
            found = record.get(Place(name, row, fold, seed))
            if found is None:
                return None
            if other := set(found["wrong"]) - set(tested):
                raise UserError(f"the record has test videos of another set: {', '.join(sorted(other)[:3])} …")
            for video in tested:
                right[video].append(video not in found["wrong"])
    classes = sets.manifest(claim.data).classes
    labels = [classes[videos[name].label] for name in right]
    groups = [group_of(videos[name]) for name in right]
    return Outcomes(np.array(list(right.values())).T, groups, labels, [folds[name] for name in right])


def results(name: str, sets: Sets, record: Record) -> str:
    """What is known of a claim, in markdown."""
    claim = EVIDENCE[name]
    found = {row: outcomes(name, row, sets, record) for row in claim.rows if not claim.rows[row].once}
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
    known = differences(name, sets, record)
    lines += ["", "| difference | points | 95 %, other videos | 95 %, other networks | verdict |"] if known else []
    lines += ["|---|---|---|---|---|"] if known else []
    for pair, found in known.items():
        intervals = " | ".join(f"[{100 * low:+.1f}, {100 * high:+.1f}]" for low, high in (found.videos, found.networks))
        lines.append(f"| {pair} | {100 * found.gain:+.1f} | {intervals} | {found.verdict} |")
    return "\n".join(lines)


def differences(name: str, sets: Sets, record: Record) -> dict[str, Difference]:
    """By how much the first of each pair of a claim is better; only pairs whose runs are all done."""
    claim = EVIDENCE[name]
    found = {row: outcomes(name, row, sets, record) for row in dict.fromkeys(itertools.chain(*claim.pairs))}
    return {
        f"{one} − {other}": difference(found[one], found[other])
        for one, other in claim.pairs
        if found[one] is not None and found[other] is not None
    }


def draw(path: str, names: Iterable[str], sets: Sets, record: Record) -> None:
    """Draw all differences with their intervals, claim by claim: other videos wide, other networks thin."""
    rows: list[tuple[str, Difference | None]] = []
    for name in names:
        if found := differences(name, sets, record):
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
