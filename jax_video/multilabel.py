"""The objective where a video may have several classes, or none: a yes-or-no decision for each class."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_video import losses, metrics, objectives

THRESHOLD = 0.5  # of each class, if no validation has chosen another


@dataclasses.dataclass(frozen=True)
class MultiLabel(objectives.Classification):
    """Every video has any number of the classes, each with a probability of its own (sigmoid).

    Labels are [B, K], 1 for the classes that hold. The loss is the mean over the classes
    (`losses.sigmoid_cross_entropy`); the targets of mixed videos are mixed.
    """

    @classmethod
    def of(cls, objective: objectives.Classification) -> "MultiLabel":
        """The objective for several labels with the settings of one for single labels."""
        return cls(**vars(objective))

    def video_loss(self, outputs: Any, label: jax.Array) -> jax.Array:
        """The loss of each video [B], from the network's outputs and the labels [B, K]."""
        return losses.video_sigmoid_cross_entropy(outputs, label, reduction=self.reduction, smoothing=self.smoothing)

    def train_sums(self, loss: jax.Array, logits: jax.Array, batch: dict) -> dict[str, jax.Array]:
        """Sums over a training batch: the loss, the hits of the best-scored class, and the videos with a label, by
        which these are divided at the end (`metrics.Meter`)."""
        label = batch["label"]
        best = jnp.take_along_axis(label, jnp.argmax(logits, axis=1)[:, None], axis=1)
        return {
            "loss": jnp.sum(loss),
            "hit1": jnp.sum(best > 0).astype(jnp.float32),
            "labelled": jnp.sum(jnp.any(label > 0, axis=1)).astype(jnp.float32),
            "count": jnp.float32(loss.shape[0]),
        }

    def probabilities(self, logits: jax.Array | np.ndarray) -> jax.Array:
        """Probabilities of the classes, each independent of the others, from their logits [..., K]."""
        return jax.nn.sigmoid(logits)

    def clip_metrics(self, scores: jax.Array, batch: dict) -> dict[str, jax.Array]:
        """Metrics of single clips: none, as mAP needs all videos together."""
        del scores, batch
        return {}

    def thresholds(self, scores: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The threshold of each class [K] with the best F1 on videos, from their scores and labels [N, K]."""
        return metrics.best_thresholds(self.video_probabilities(scores), label)

    def metrics(self, scores: np.ndarray, label: np.ndarray, thresholds: np.ndarray | None = None) -> dict[str, float]:
        """Metrics of videos, from scores and labels [N, K]: loss (of the mean scores), map, hit1, micro_f1, macro_f1.

        Args:
          thresholds: of the classes [K]; None: those with the best F1 on these very videos, which flatters F1.

        Raises:
          UserError: scores that are not finite.
        """
        objectives.check_finite(scores)
        found = self.video_probabilities(scores)
        # float32 may round a probability to 0 or 1: the loss is limited to what float32 can tell from these.
        yes, no = np.maximum(found, np.finfo(np.float32).tiny), np.maximum(1 - found, 2.0**-25)
        loss = -np.mean(np.where(label > 0, np.log(yes), np.log(no)))
        thresholds = self.thresholds(scores, label) if thresholds is None else thresholds
        values = metrics.label_metrics(scores, label)
        f1 = metrics.f1_scores(metrics.tables(found, label, thresholds))
        return {"loss": float(loss), "map": values["map"], "hit1": values["hit1"]} | f1
