"""What a multi-label test says about the classes: precision and recall, and the surest mistakes."""

from typing import NamedTuple

import numpy as np

from jax_video import metrics
from jax_video.reporting import charts, mistakes, page
from jax_video.reporting.page import Cell, Column, percent
from jax_video.reporting.record import Record


def about(record: Record) -> str:
    """What the metrics mean."""
    f1 = ""
    if found := thresholds(record):
        chosen = any(threshold != 0.5 for threshold in found.values()) or (record.meta and record.meta.thresholds)
        how = "which validation has chosen" if chosen else "all .5, as no validation has chosen any"
        f1 = (
            f"F1 is of the decisions at the classes’ thresholds, {how}; macro is its mean over the classes, micro of "
            "all decisions together. "
        )
    return (
        "A video may have several labels, or none. mAP is the mean over the classes of the average precision: of what "
        f"is reached at each of the class’s videos, the surest first. {f1}hit@1 is the share of the videos with a "
        "label whose best class is one of theirs."
    )


class Mistake(NamedTuple):
    """A wrong decision: a class that was wrongly taken to hold of a video, or that was missed."""

    video: str
    label: str  # all classes of the video, in words
    answer: str  # the class that the decision is about
    missed: bool
    probability: float  # of that class
    threshold: float

    @property
    def sure(self) -> float:
        """How far the probability is on the wrong side of the threshold, as a share of the largest distance there."""
        room = self.threshold if self.missed else 1 - self.threshold
        return abs(self.probability - self.threshold) / max(room, 1e-9)

    def caption(self, word: str) -> str:
        """What is wrong, as HTML; `word` says what a probability is."""
        what = "missed" if self.missed else "taken to hold"
        of = f"; its labels: {page.name(self.label)}" if self.label else "; it has no label"
        return (
            f"<b>{page.name(self.answer)}</b> {what}: {percent(self.probability)} {word}, threshold "
            f"{percent(self.threshold)}{of}"
        )


def thresholds(record: Record) -> dict[str, float]:
    """{class: its threshold}; empty for fused scores."""
    found = (record.result or {}).get("thresholds", {})
    return found if set(record.classes) <= set(found) else {}


def precisions(record: Record) -> dict[str, tuple[float | None, int]]:
    """{class: (average precision, videos)}."""
    found, targets = (record.result or {}).get("class_ap", {}), _targets(record)
    return {name: (found.get(name), int(targets[:, place].sum())) for place, name in enumerate(record.classes)}


def table(record: Record) -> str:
    """A table of every class: videos, average precision, and at its threshold precision, recall and F1."""
    columns = [
        Column("Class"),
        Column("Videos", True),
        Column("AP", True, "Average precision: the higher, the more its videos are surer than all others"),
        Column("Threshold", True, "The probability from which on the class is taken to hold"),
        Column("Precision", True, "Of the videos of which it is taken to hold, of how many it does"),
        Column("Recall", True, "Of the videos of which it holds, how many are found"),
        Column("F1", True, "The harmonic mean of precision and recall"),
    ]
    rows = []
    least, aps = thresholds(record), precisions(record)
    found = metrics.tables(
        mistakes.probabilities(record), _targets(record), np.array([least.get(name, 2.0) for name in record.classes])
    )
    for name, counts in zip(record.classes, found.tolist(), strict=True):
        (_, taken_wrong), (missed, right) = counts
        ap, videos = aps[name]
        shares = [(right, right + taken_wrong), (right, right + missed), (2 * right, 2 * right + taken_wrong + missed)]
        at = [Cell(percent(least[name]), least[name]), *(page.share(*share) for share in shares)] if least else []
        rows.append(
            [
                Cell(page.name(name), page.plain(name)),
                Cell(f"{videos:,}", videos),
                Cell(page.DASH if ap is None else percent(ap), -1 if ap is None else ap),
                *(at or [Cell(page.DASH, -1)] * 4),
            ]
        )
    return page.table("Every class of the test", columns, rows, find="class")


def curve(record: Record) -> str:
    """The precision-recall curve of all decisions together, as HTML; empty where no video has a label."""
    found = metrics.curve(mistakes.probabilities(record).ravel(), _targets(record).ravel())
    if found is None:
        return ""
    points = list(zip(found.recall.tolist(), found.precision.tolist(), strict=True))
    drawn = charts.lines(
        "Precision and recall", "recall", "precision", [charts.Curve("all classes", points, "a")], share=True
    )
    return f'<div class="charts">{drawn}</div>'


def surest(record: Record) -> list[Mistake]:
    """All wrong decisions, the furthest on the wrong side first; none where there are no thresholds."""
    least = thresholds(record)
    if not least or record.predictions is None:
        return []
    limits = np.array([least[name] for name in record.classes])
    probabilities, targets = mistakes.probabilities(record), _targets(record) > 0
    wrong = (probabilities >= limits) != targets
    videos, found = list(record.predictions.scores), []
    for row, place in np.argwhere(wrong):
        label = ", ".join(record.predictions.labels[videos[row]])
        chances = float(probabilities[row, place]), float(limits[place])
        found.append(Mistake(videos[row], label, record.classes[place], bool(targets[row, place]), *chances))
    return sorted(found, key=lambda mistake: (-mistake.sure, mistake.video, mistake.answer))


def _targets(record: Record) -> np.ndarray:
    """Which classes hold of which video: [N, K], 0 or 1."""
    assert record.predictions is not None
    return record.predictions.targets
