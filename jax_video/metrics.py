"""Metrics as sums and counts, which are added up, and divided once at the end."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def rank(scores, label):
    """How many classes have a better score than the label's: scores [B, K], label [B] int -> [B] int.

    Takes NumPy or jax arrays. Of equal scores the first is the better one, as in argmax; a NaN is better than the
    label's score, and any score better than a NaN of the label.
    """
    xp = jnp if isinstance(scores, jax.Array) else np
    own = xp.take_along_axis(scores, label[:, None], axis=1)  # [B, 1]
    before = (scores == own) & (xp.arange(scores.shape[1]) < label[:, None])
    return xp.sum(~(scores <= own) | before, axis=1)


def train_sums(loss: jax.Array, logits: jax.Array, batch: dict) -> dict[str, jax.Array]:
    """One (micro-)batch's sums: loss [B], logits [B, K] -> {"loss", "top1", "top5", "count"}."""
    before = rank(logits, batch["label"])
    return {
        "loss": jnp.sum(loss),
        "top1": jnp.sum(before < 1).astype(jnp.float32),
        "top5": jnp.sum(before < 5).astype(jnp.float32),
        "count": jnp.float32(loss.shape[0]),
    }


HEADLINES = {"top1": "top-1", "map": "mAP", "hit1": "hit@1", "pair_accuracy": "pair_accuracy"}


def headline(values: dict[str, float]) -> tuple[str, float]:
    """Name and value of the metric by which checkpoints are compared: top-1; for several labels mAP, or, in training,
    hit@1; in knowledge transfer the accuracy of pairs."""
    name = next(name for name in HEADLINES if name in values)
    return name, values[name]


def note(classes: int) -> str:
    """A warning about accuracies on so few classes, or an empty string."""
    if classes == 1:
        return "There is one class only: every answer is right, so 100 % says nothing of the network."
    return f"Top-5 of {classes} classes is always 100 %." if classes <= 5 else ""


class Meter:
    """The sums of the steps since the last row of metrics.jsonl. They are part of a checkpoint."""

    def __init__(self, totals: dict[str, float] | None = None):
        self.totals = dict(totals or {})

    def add(self, sums: dict[str, float]) -> None:
        for name, value in sums.items():
            self.totals[name] = self.totals.get(name, 0.0) + float(value)

    def means(self) -> dict[str, float]:
        """The means over the examples, of hit@1 over those with a label (`failed` stays a count). The sums start again
        from zero."""
        totals, self.totals = self.totals, {}
        count = totals.pop("count")
        others = {"failed": 1, "hit1": max(1, totals.pop("labelled", 0))}
        return {name: value / others.get(name, count) for name, value in totals.items()}


def confusion(scores: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix, rows true and columns predicted classes: scores [N, K], label [N] -> int [K, K]."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (label, scores.argmax(axis=1)), 1)
    return matrix


def video_metrics(scores: np.ndarray, label: np.ndarray, classes: int) -> dict:
    """Video-level metrics from scores [N, K] (probabilities or logits) and label [N].

    Returns fractions: top1, top5, mean_top1_top5, mean_class_accuracy (over the classes that occur), the accuracy of
    each class (None where no video has it) and the confusion matrix, rows true and columns predicted.
    """
    before = rank(scores, label)
    per_class = [float(np.mean(before[label == k] < 1)) if k in label else None for k in range(classes)]
    top1, top5 = float(np.mean(before < 1)), float(np.mean(before < 5))
    return {
        "top1": top1,
        "top5": top5,
        "mean_top1_top5": (top1 + top5) / 2,
        "mean_class_accuracy": float(np.mean([accuracy for accuracy in per_class if accuracy is not None])),
        "class_accuracy": per_class,
        "confusion": confusion(scores, label, classes).tolist(),
    }


class Curve(NamedTuple):
    """Precision and recall of a class, as more and more of the videos with the best scores are taken for it."""

    scores: np.ndarray  # [P], descending: the lowest score that is taken; videos of equal scores are taken together
    precision: np.ndarray  # [P]: of the videos that are taken, how many are of the class
    recall: np.ndarray  # [P]: of the class's videos, how many are taken

    @property
    def average_precision(self) -> float:
        """Σ (R_n - R_(n-1)) P_n: the precision at each rise of the recall, weighted by it; nothing is interpolated."""
        return float(np.sum(np.diff(self.recall, prepend=0) * self.precision))


def curve(scores: np.ndarray, label: np.ndarray) -> Curve | None:
    """The curve of one class from scores [N] and whether each video is of the class [N]; None if none is."""
    if not label.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order], np.cumsum(label[order] > 0)
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of runs of equal scores
    return Curve(ordered[ends], right[ends] / (ends + 1), right[ends] / right[-1])


def best_thresholds(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The threshold of each class [K] with the best F1, from probabilities [N, K] and labels [N, K].

    It lies half way between the lowest score that it takes and the next one below. Among equally good ones it is the
    highest; for a class without a video it is .5.
    """
    found = np.full(scores.shape[1], 0.5)
    for k, (column, of) in enumerate(zip(scores.T, label.T, strict=True)):
        if (drawn := curve(column, of)) is not None:
            f1 = 2 * drawn.precision * drawn.recall / np.maximum(drawn.precision + drawn.recall, 1e-12)
            best = int(np.argmax(f1))
            taken, following = np.append(drawn.scores, 0.0)[best : best + 2]
            middle = (taken + following) / 2
            found[k] = middle if middle > following else taken
    return found


def tables(scores: np.ndarray, label: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The 2×2 table of each class, int [K, 2, 2]: rows not of the class, of it; columns not taken, taken. From scores
    and labels [N, K] and thresholds [K]; scores at the threshold or above are taken."""
    taken, of = scores >= thresholds, label > 0
    found = [[np.sum((of == row) & (taken == column), axis=0) for column in (False, True)] for row in (False, True)]
    return np.moveaxis(np.array(found), 2, 0)


def f1_scores(found: np.ndarray) -> dict[str, float]:
    """F1 of all decisions together, and the mean over the classes that have a video, from `tables`."""
    taken_wrong, missed, right = found[:, 0, 1], found[:, 1, 0], found[:, 1, 1]
    total = 2 * right + taken_wrong + missed
    each = 2 * right / np.maximum(total, 1)
    there = right + missed > 0
    return {
        "micro_f1": float(2 * right.sum() / max(1, total.sum())),
        "macro_f1": float(each[there].mean()) if there.any() else 0.0,
    }


def label_metrics(scores: np.ndarray, label: np.ndarray) -> dict:
    """Metrics of videos that may have several labels, from scores [N, K] and labels [N, K], 1 for those that hold.

    Returns fractions: `map`, the mean of the average precision over the classes that have a video; `hit1`, the share of
    the videos with a label whose best-scored class is one of their labels; `class_ap`, the average precision of each
    class, None where no video has it.
    """
    drawn = [curve(column, of) for column, of in zip(scores.T, label.T, strict=True)]
    class_ap = [None if each is None else each.average_precision for each in drawn]
    known = [value for value in class_ap if value is not None]
    best = np.take_along_axis(label, scores.argmax(axis=1)[:, None], axis=1)
    labelled = int(np.sum(np.any(label > 0, axis=1)))
    return {
        "map": float(np.mean(known)) if known else 0.0,
        "hit1": float(np.sum(best > 0)) / max(1, labelled),
        "class_ap": class_ap,
    }
