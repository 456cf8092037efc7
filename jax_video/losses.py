"""Losses, in float32 or wider whatever the network computes in."""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jax_video.errors import UserError


def softmax_cross_entropy(logits: jax.Array, label: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """logits [..., K], label [...] int -> loss of each example [...]. The label is broadcast to the logits.

    With `smoothing` that share of the target is spread evenly over all classes (Szegedy et al. 2016, §7).
    """
    wide = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32
    label = jnp.broadcast_to(label, logits.shape[:-1])
    logits = logits.astype(wide)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    if not smoothing:
        return loss
    even = jax.nn.logsumexp(logits, axis=-1) - logits.mean(axis=-1)
    return (1 - smoothing) * loss + smoothing * even


def video_cross_entropy(outputs, label: jax.Array, *, reduction: str = "sum", smoothing: float = 0.0) -> jax.Array:
    """The loss of each video, [B]: a softmax loss, or ST-ResNet's, which has one for every stream, frame and position.

    Args:
      outputs: logits [B, K], or [B, T, h, w, K] of one stream, or a tuple of them.
      label: [B] int.
      reduction: over frames, "sum" (the paper's learning rates fit it) or "mean". Losses are always summed over
        streams and averaged over positions.
      smoothing: share of each label that is spread over all classes.

    Raises:
      UserError: an unknown reduction.
    """

    def loss_of(logits):
        return softmax_cross_entropy(logits, label.reshape(-1, *(1,) * (logits.ndim - 2)), smoothing)

    return _of_videos(outputs, loss_of, reduction)


def video_sigmoid_cross_entropy(
    outputs, label: jax.Array, *, reduction: str = "sum", smoothing: float = 0.0
) -> jax.Array:
    """The loss of each video, [B], which may have several classes: `video_cross_entropy` with a sigmoid loss.

    Args:
      label: [B, K] float, 1 for the classes of the video, 0 for the others; between them for mixed videos.
    """

    def loss_of(logits):
        target = label.reshape(len(label), *(1,) * (logits.ndim - 2), -1)
        return sigmoid_cross_entropy(logits, target, smoothing)

    return _of_videos(outputs, loss_of, reduction)


def sigmoid_cross_entropy(logits: jax.Array, target: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """logits [..., K], target [..., K] of 0 to 1 -> loss of each example [...]: the mean over the classes, as in
    PyTorch's BCEWithLogitsLoss and SlowFast's recipes for Charades.

    With `smoothing` s, targets are (1 - s) · target + s / 2 (Keras' label_smoothing).
    """
    wide = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32
    target = (1 - smoothing) * target.astype(wide) + smoothing / 2
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits.astype(wide), target), axis=-1)


def _of_videos(outputs, loss_of: Callable[[jax.Array], jax.Array], reduction: str) -> jax.Array:
    """The loss of each video [B]; `loss_of` maps logits [B, …, K] to losses [B, …]."""
    if reduction not in ("sum", "mean"):
        raise UserError(f"unknown loss reduction {reduction!r}: choose sum or mean.")
    losses = []
    for logits in jax.tree.leaves(outputs):
        loss = loss_of(logits)
        if loss.ndim > 1:
            frames = jnp.mean(loss, axis=(2, 3))  # [B, T]
            loss = jnp.sum(frames, axis=1) if reduction == "sum" else jnp.mean(frames, axis=1)
        losses.append(loss)
    return functools.reduce(operator.add, losses)


def video_logits(outputs) -> jax.Array:
    """Logits of each video, [B, K]: those of [B, T, h, w, K] are averaged over frames and positions, then over the
    streams (ST-ResNet §4)."""
    streams = [logits.mean(axis=(1, 2, 3)) if logits.ndim == 5 else logits for logits in jax.tree.leaves(outputs)]
    return sum(streams) / len(streams)
