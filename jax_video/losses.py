"""Losses, in float32 or wider whatever the network computes in."""

import jax
import jax.numpy as jnp
import optax

from jax_video.errors import UserError


def softmax_cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """logits [B, K], label [B] int -> loss of each example [B]."""
    wide = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(wide), label)


def per_frame_cross_entropy(outputs, label: jax.Array, *, reduction: str = "sum") -> jax.Array:
    """ST-ResNet's loss of each video, [B]: a softmax loss for every stream, frame and place.

    Args:
      outputs: logits [B, T, h, w, K] of one stream, or a tuple of them.
      label: [B] int.
      reduction: over frames, "sum" (the paper's learning rates fit it) or "mean". Streams are summed, places averaged.

    Raises:
      UserError: an unknown reduction.
    """
    if reduction not in ("sum", "mean"):
        raise UserError(f"unknown loss reduction {reduction!r}: choose sum or mean.")
    total = 0.0
    for logits in outputs if isinstance(outputs, tuple) else (outputs,):
        loss = softmax_cross_entropy(logits, jnp.broadcast_to(label[:, None, None, None], logits.shape[:-1]))
        frames = jnp.mean(loss, axis=(2, 3))  # [B, T]
        total += jnp.sum(frames, axis=1) if reduction == "sum" else jnp.mean(frames, axis=1)
    return total
