"""What a network is trained for: the loss and the sums of a training step, the scores of a test, and their metrics."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jax_video import losses, metrics
from jax_video import state as state_lib
from jax_video.errors import UserError
from jax_video.mixing import Mixing, partners
from jax_video.models.correspondence import HALF
from jax_video.state import IMAGENET, Normalization

Parts = tuple[nnx.GraphDef, dict, dict]  # of a network: definition, params, batch_stats (`state.split`)
_AT_ONCE = 4096  # videos whose pairs are classified at once


def check_finite(scores: np.ndarray, videos: Sequence[str] = ()) -> None:
    """Raise UserError if scores of videos [N, K] are NaN or infinite, so that no class is the best.

    Args:
      videos: their names [N], for the message.
    """
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if broken.size:
        first = f" ({videos[broken[0]]} first)" if len(videos) else ""
        raise UserError(
            f"the scores of {broken.size} of {len(scores)} videos{first} are NaN or infinite, although the weights are "
            "finite: what the network computes grows too large. Is normalize that of these weights?"
        )


@dataclasses.dataclass(frozen=True)
class Classification:
    """The objective of single labels: every video is of one class.

    Args:
      average: what a test averages over the clips of a video: "probability" (softmax) or "logit".
      reduction: of the loss over frames, where a network scores each (`losses.video_cross_entropy`).
      normalization: of RGB.
      smoothing: share of a label that is spread over all classes, in training.
      mixing: of the videos of a batch, in training.
      class_weights: [K], factors of the loss in training, by a video's class; the part that smoothing spreads has the
        same factor, and in mixed videos each part has that of its class. The mean over a batch is not divided by them,
        so that it is the same for any micro-batches. (): all 1.
    """

    average: str = "probability"
    reduction: str = "sum"
    normalization: Normalization = IMAGENET
    smoothing: float = 0.0
    mixing: Mixing = Mixing()  # noqa: RUF009, frozen
    class_weights: tuple[float, ...] = ()

    def __post_init__(self):
        if not 0 <= self.smoothing < 1:
            raise UserError(f"train.label_smoothing is {self.smoothing!r}: expected a share, from 0 to below 1.")
        if self.average not in ("probability", "logit"):
            raise UserError(f"unknown test average {self.average!r}: choose probability or logit.")

    def train(self, definition: nnx.GraphDef, params: dict, batch_stats: dict, batch: dict):
        """(mean loss, (new batch_stats, sums over the batch)) of a step."""
        keys, share = batch["keys"], None

        def mixed(streams):
            nonlocal share
            streams, share = self.mixing(streams, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys))
            return streams

        outputs, batch_stats = state_lib.apply(
            definition,
            params,
            batch_stats,
            batch,
            self.normalization,
            train=True,
            change=mixed if self.mixing else None,
            keys=keys,
        )

        def loss_of(label):  # [B]
            loss = self.video_loss(outputs, label)
            return loss * jnp.array(self.class_weights, loss.dtype)[label] if self.class_weights else loss

        loss = loss_of(batch["label"])
        if share is not None:
            loss = share * loss + (1 - share) * loss_of(partners(batch["label"]))
        sums = self.train_sums(loss, losses.video_logits(outputs), batch)
        return jnp.mean(loss), (batch_stats, sums)

    def test(self, definition: nnx.GraphDef, params: dict, batch_stats: dict, batch: dict) -> jax.Array:
        """Scores of the classes, [B, K] float32: probabilities or logits, as `average` says."""
        outputs, _ = state_lib.apply(definition, params, batch_stats, batch, self.normalization, train=False)
        logits = losses.video_logits(outputs).astype(jnp.float32)
        return self.probabilities(logits) if self.average == "probability" else logits

    def video_loss(self, outputs: Any, label: jax.Array) -> jax.Array:
        """The loss of each video [B], from the network's outputs and the label [B]."""
        return losses.video_cross_entropy(outputs, label, reduction=self.reduction, smoothing=self.smoothing)

    def train_sums(self, loss: jax.Array, logits: jax.Array, batch: dict) -> dict[str, jax.Array]:
        """Sums over a training batch, from the loss [B] and the logits [B, K]."""
        return metrics.train_sums(loss, logits, batch)

    def probabilities(self, logits: jax.Array | np.ndarray) -> jax.Array:
        """Probabilities of the classes, from their logits [..., K]."""
        return jax.nn.softmax(logits)

    def video_probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of the classes from a test's scores, [..., K] each."""
        return scores if self.average == "probability" else np.asarray(self.probabilities(scores))

    def clip_metrics(self, scores: jax.Array, batch: dict) -> dict[str, jax.Array]:
        """Metrics of single clips, [B] each, from their scores [B, K]: top-1."""
        return {"top1": (jnp.argmax(scores, axis=1) == batch["label"]).astype(jnp.float32)}

    def of_videos(self, network: Parts, means: np.ndarray) -> np.ndarray:
        """Scores of videos from `means`, the means of `test` over their clips: the same."""
        del network
        return means

    def metrics(self, scores: np.ndarray, label: np.ndarray) -> dict[str, float]:
        """Metrics of videos, from their scores [N, K]: loss (of the mean scores), top1, top5, mean class accuracy.

        Raises:
          UserError: scores that are not finite.
        """
        check_finite(scores)
        # A probability that float32 has rounded to 0 counts as its smallest normal number: a loss of 87.
        tiny = np.finfo(np.float32).tiny
        logits = np.log(np.maximum(scores, tiny)) if self.average == "probability" else scores
        loss = losses.softmax_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(label))
        values = metrics.video_metrics(scores, label, scores.shape[1])
        return {"loss": float(jnp.mean(loss))} | {
            name: values[name] for name in ("top1", "top5", "mean_class_accuracy")
        }


@dataclasses.dataclass(frozen=True)
class Correspondence:
    """The objective of knowledge transfer: are clip and frames of the same video (STC §3.2, T3D §3.2)? Needs no labels.

    Batches have one clip of every video, or several, [B, N, T, H, W, 3].
    """

    normalization: Normalization = IMAGENET

    def train(self, definition: nnx.GraphDef, params: dict, batch_stats: dict, batch: dict):
        """(mean loss of the pairs, (new batch_stats, sums over the batch)) of a step."""
        pairs, batch_stats = self._pairs(definition, params, batch_stats, batch, batch["keys"][0])
        loss, right, weight = pairs  # [2, clips]
        count = jnp.float32(len(batch["label"]))
        positive, negative = jnp.sum(right * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1)
        mean = jnp.sum(loss * weight) / jnp.sum(weight)
        values = {
            "loss": mean,
            "pair_accuracy": (positive + negative) / 2,
            "positive_accuracy": positive,
            "negative_accuracy": negative,
        }
        return mean, (batch_stats, {name: value * count for name, value in values.items()} | {"count": count})

    def test(self, definition: nnx.GraphDef, params: dict, batch_stats: dict, batch: dict) -> jax.Array:
        """The halves of pairs, one of the clip and one of its frames, for `of_videos`: [B, clips · 2 · 512] float32.

        The pairs are made when all videos are known, so that neither the batch size nor the devices decide on them.
        """
        model: Any = state_lib.join(definition, params, batch_stats, train=False)
        (video,) = state_lib.inputs(batch, self.normalization)
        halves = model.halves(video.reshape(-1, *video.shape[-4:]))
        return jnp.concatenate(halves, axis=1).reshape(len(video), -1).astype(jnp.float32)

    def of_videos(self, network: Parts, means: np.ndarray) -> np.ndarray:
        """Classify a positive pair of each video and a negative one, made with another video that is always the same.

        Args:
          network: the network with its weights; only the layers that follow the halves are used.
          means: the means of `test` over a video's clips, [N, clips · 2 · 512].

        Returns:
          [N, 4]: loss of the positive and of the negative pair, and whether each was classified right; means over a
          video's clips. NaN for the negative one where there is no other video.
        """
        definition, params, batch_stats = network

        @jax.jit
        def tell(params, batch_stats, hidden, label):
            model: Any = state_lib.join(definition, params, batch_stats, train=False)
            logits = model.tell(hidden)
            return losses.softmax_cross_entropy(logits, label), jnp.argmax(logits, axis=1) == label

        # Each video is paired with the next one in a random cycle through all of them.
        order = np.random.default_rng(0).permutation(len(means))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        rows = np.full((len(means), 4), np.nan)
        for start in range(0, len(means), _AT_ONCE):
            which = np.arange(start, min(start + _AT_ONCE, len(means)))
            clips = _halves(means[which])[:, :, 0]
            for label, partner in ((1, which), (0, other[which])):
                hidden = (clips + _halves(means[partner])[:, :, 1]).reshape(-1, HALF)  # [videos · clips, 512]
                found = tell(params, batch_stats, hidden, np.full(len(hidden), label, np.int32))
                loss, right = (np.asarray(values, np.float64).reshape(len(which), -1).mean(axis=1) for values in found)
                if label or len(means) > 1:
                    rows[which, 1 - label], rows[which, 3 - label] = loss, right
        return rows

    def clip_metrics(self, scores: jax.Array, batch: dict) -> dict[str, jax.Array]:
        """Metrics of single clips: none, as a pair takes two."""
        del scores, batch
        return {}

    def metrics(self, scores: np.ndarray, label: np.ndarray) -> dict[str, float]:
        """Metrics of videos, from the result of `of_videos`, [N, 4]: loss, and accuracy of all pairs and of both kinds.

        Raises:
          UserError: there are too few videos for a negative pair, or the losses are not finite.
        """
        del label
        if len(scores) < 2:
            raise UserError(
                f"no negative pair can be made of {len(scores)} held-out videos: knowledge transfer needs at least two."
            )
        check_finite(scores)
        loss_positive, loss_negative, positive, negative = (float(value) for value in np.mean(scores, axis=0))
        return {
            "loss": (loss_positive + loss_negative) / 2,
            "pair_accuracy": (positive + negative) / 2,
            "positive_accuracy": positive,
            "negative_accuracy": negative,
        }

    def _pairs(self, definition, params, batch_stats, batch, key):
        """(loss, right, weight), each [2, clips] of positive and negative pairs; and batch_stats."""
        video = batch["rgb"]
        clips = video.shape[1] if video.ndim == 6 else 1
        batch = batch | {"rgb": video.reshape(len(video) * clips, *video.shape[-4:])}
        (logits, label, weight), batch_stats = state_lib.apply(
            definition,
            params,
            batch_stats,
            batch,
            self.normalization,
            train=True,
            ids=jnp.repeat(batch["video"], clips),
            present=jnp.repeat(batch["mask"] > 0, clips),
            key=key,
        )
        loss = losses.softmax_cross_entropy(logits, label)
        right = (jnp.argmax(logits, axis=1) == label).astype(weight.dtype)
        return tuple(values.reshape(2, -1) for values in (loss, right, weight)), batch_stats


def _halves(means: np.ndarray) -> np.ndarray:
    """The result of `Correspondence.test`, split into clips and frames: [N, clips · 2 · 512] -> [N, clips, 2, 512]."""
    return means.astype(np.float32).reshape(len(means), -1, 2, HALF)


Objective = Classification | Correspondence


def of(config: ConfigDict, class_weights: tuple[float, ...] = ()) -> Objective:
    """The objective of a config: correspondence if it has a `teacher`. UserError for settings that do not fit."""
    normalization = Normalization.of(config.normalize)
    train = config.train
    smoothing, mixing = train.get("label_smoothing", 0.0), Mixing(train.get("mixup", 0.0), train.get("cutmix", 0.0))
    balance = train.get("class_balance")
    if balance not in (None, "loss", "sampling"):
        raise UserError(f"train.class_balance is {balance!r}: choose loss or sampling, or None for neither.")
    if config.get("teacher"):
        if smoothing or mixing or balance:
            raise UserError(
                "train.label_smoothing, mixup, cutmix and class_balance are of labels, and knowledge transfer has none."
            )
        return Correspondence(normalization)
    reduction = train.get("loss_reduction", "sum")
    return Classification(config.test.average_clips, reduction, normalization, smoothing, mixing, class_weights)
