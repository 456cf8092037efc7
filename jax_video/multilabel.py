"""What a network is trained for where several classes may hold of a video, or none: a decision for each class."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_video import losses, metrics, objectives

THRESHOLD = 0.5  # of a class of which no validation has said more


@dataclasses.dataclass(frozen=True)
class MultiLabel(objectives.Classification):
    """Every video has any number of the classes, each with a probability of its own (sigmoid).

    Labels are [B, K], 1 for the classes that hold. The loss is the mean over the classes (`losses.
    sigmoid_cross_entropy`); of mixed videos the target is mixed.
    """

    @classmethod
    def of(cls, objective: objectives.Classification) -> "MultiLabel":
        """The same as another one, but for several labels."""
        return cls(**{field.name: getattr(objective, field.name) for field in dataclasses.fields(objective)})

    def video_loss(self, outputs: Any, label: jax.Array) -> jax.Array:
        """The loss of each video [B], from what the network says and from its labels [B, K]."""
        return losses.video_sigmoid_cross_entropy(outputs, label, reduction=self.reduction, smoothing=self.smoothing)

    def train_sums(self, loss: jax.Array, logits: jax.Array, batch: dict) -> dict[str, jax.Array]:
        """What training counts of a batch: the loss; and of its videos with a label, the share that have their
        best class among them, times the batch, as means over it are shown."""
        label, count = batch["label"], jnp.float32(loss.shape[0])
        best = jnp.take_along_axis(label, jnp.argmax(logits, axis=1)[:, None], axis=1)
        labelled = jnp.maximum(jnp.sum(jnp.any(label > 0, axis=1)), 1)
        return {
            "loss": jnp.sum(loss),
            "hit1": count * (jnp.sum(best > 0) / labelled).astype(jnp.float32),
            "count": count,
        }

    def probabilities(self, logits: jax.Array | np.ndarray) -> jax.Array:
        """Of the classes, each for itself, from their logits [..., K]."""
        return jax.nn.sigmoid(logits)

    def clip_metrics(self, scores: jax.Array, batch: dict) -> dict[str, jax.Array]:
        """What a test counts of single clips: nothing, as mAP is of all videos together."""
        del scores, batch
        return {}

    def video_probabilities(self, scores: np.ndarray) -> np.ndarray:
        """What a test gives of videos, [N, K], as probabilities."""
        return scores if self.average == "probability" else np.asarray(self.probabilities(scores))

    def thresholds(self, scores: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The threshold of each class [K] with the best F1 on videos, from their scores and labels [N, K]."""
        return metrics.best_thresholds(self.video_probabilities(scores), label)

    def metrics(self, scores: np.ndarray, label: np.ndarray, thresholds: np.ndarray | None = None) -> dict[str, float]:
        """Of videos, from scores and labels [N, K]: loss (of the mean scores), map, hit1, micro_f1, macro_f1.

        Args:
          thresholds: of the classes [K]; None: those with the best F1 on these very videos, so that F1 is flattered.

        Raises:
          UserError: scores that are not finite.
        """
        objectives.check_finite(scores)
        found = self.video_probabilities(scores)
        # float32 rounds a probability to 0 or 1 that is neither: no loss is larger than what it can tell apart.
        yes, no = np.maximum(found, np.finfo(np.float32).tiny), np.maximum(1 - found, 2.0**-25)
        loss = -np.mean(np.where(label > 0, np.log(yes), np.log(no)))
        thresholds = self.thresholds(scores, label) if thresholds is None else thresholds
        values = metrics.label_metrics(scores, label)
        f1 = metrics.f1_scores(metrics.tables(found, label, thresholds))
        return {"loss": float(loss), "map": values["map"], "hit1": values["hit1"]} | f1
