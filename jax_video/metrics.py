"""Metrics are sums and counts, added up, and divided once at the end."""

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


def headline(values: dict[str, float]) -> tuple[str, float]:
    """Name and value of the metric by which checkpoints are compared: top-1, or in knowledge transfer that of pairs."""
    name = "top1" if "top1" in values else "pair_accuracy"
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
        """The means over the examples (`failed` stays a count). The sums start again from zero."""
        totals, self.totals = self.totals, {}
        count = totals.pop("count")
        return {name: value if name == "failed" else value / count for name, value in totals.items()}


def confusion(scores: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """How many videos of each class (rows) are taken for which (columns): scores [N, K], label [N] -> int [K, K]."""
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
