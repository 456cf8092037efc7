"""Mixing of two training videos, on the device: mixup and CutMix.

Zhang et al. 2018, "mixup: beyond empirical risk minimization"; Yun et al. 2019, "CutMix: regularization strategy to
train strong classifiers with localizable features".
"""

import dataclasses

import jax
import jax.numpy as jnp

from jax_video.errors import UserError


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How two neighbours in a batch are mixed, each with the other; drawn anew for each pair.

    Neighbours are on one device and in one micro-batch, whatever the number of either, and the draws depend on the
    rows' keys alone. Each video of a pair keeps at least half of itself, so that its own label is the larger part of
    its target.

    Args:
      mixup: α of Beta(α, α), from which the share of mixup is drawn; 0: no mixup.
      cutmix: the same for CutMix, where a box, the same in all frames, comes from the other video. With both, each
        pair gets one of the two, equally often.

    Raises:
      UserError: a negative α.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value < float("inf"):
                raise UserError(f"train.{name} is {value!r}: expected α of its Beta distribution, or 0 for none.")

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(self, streams: tuple[jax.Array, ...], keys: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """(mixed streams, share [B] that each video keeps of itself).

        Args:
          streams: [B, …, H, W, C] each; B is even.
          keys: [B], random keys.
        """
        height, width = streams[0].shape[-3:-1]
        pairs = jax.vmap(lambda key: self._kept(key, height, width))(keys[::2])  # [B / 2, H, W] of 0 to 1
        kept = jnp.repeat(pairs, 2, axis=0)
        share = kept.mean(axis=(1, 2))
        mixed = []
        for stream in streams:
            own = kept.reshape(len(kept), *(1,) * (stream.ndim - 4), height, width, 1).astype(stream.dtype)
            mixed.append(own * stream + (1 - own) * partners(stream))
        return tuple(mixed), share

    def _kept(self, key: jax.Array, height: int, width: int) -> jax.Array:
        """The share of itself that a video keeps at every place, [H, W]."""
        which, share, size, place = jax.random.split(key, 4)
        even = self._even(share) * jnp.ones((height, width))
        if not self.cutmix:
            return even
        box = self._box(size, place, height, width)
        return jnp.where(jax.random.bernoulli(which), even, box) if self.mixup else box

    def _even(self, key: jax.Array) -> jax.Array:
        share = jax.random.beta(key, self.mixup, self.mixup) if self.mixup else jnp.ones(())
        return jnp.maximum(share, 1 - share)

    def _box(self, size: jax.Array, place: jax.Array, height: int, width: int) -> jax.Array:
        share = jax.random.beta(size, self.cutmix, self.cutmix)
        side = jnp.sqrt(jnp.minimum(share, 1 - share))  # of the box, as a share of the frame's
        row, column = jax.random.uniform(place, (2,)) * jnp.array([height, width])
        rows = jnp.abs(jnp.arange(height) + 0.5 - row) < side * height / 2
        columns = jnp.abs(jnp.arange(width) + 0.5 - column) < side * width / 2
        return 1.0 - (rows[:, None] & columns[None])


def partners(rows: jax.Array) -> jax.Array:
    """Rows [B, …] with the two neighbours of each pair swapped."""
    return jnp.flip(rows.reshape(-1, 2, *rows.shape[1:]), axis=1).reshape(rows.shape)
