"""Losses, in float32 or wider whatever the network computes in."""

import jax
import jax.numpy as jnp
import optax


def softmax_cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """logits [B, K], label [B] int -> loss of each example [B]."""
    wide = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(wide), label)
