"""T3D: DenseNet3D with temporal transition layers (Diba et al. 2017, "Temporal 3D ConvNets"), and segment consensus."""

import jax
import jax.numpy as jnp
from flax import nnx

from jax_video.errors import UserError
from jax_video.models.convolution import avg_pool
from jax_video.models.densenet import DenseNet
from jax_video.models.layers import BatchNorm, padded_conv

DEPTHS = {1: 6, 2: 4, 3: 4}  # Table 1's longest temporal kernel after each block


class Branch(nnx.Module):
    """BN-ReLU-convolution that keeps time and space: `[B, T, H, W, C_in]` to `[B, T, H, W, C_out]`."""

    def __init__(self, in_features, out_features, kernel_size, *, norm, **layer):
        self.norm = norm(in_features, **layer)
        self.conv = padded_conv(in_features, out_features, kernel_size, **layer)

    def __call__(self, x):
        return self.conv(nnx.relu(self.norm(x)))


class TTL(nnx.Module):
    """Temporal transition layer (T3D §3.1): `[B, T, H, W, C]` to `[B, T / 2, H / 2, W / 2, c₁ + c₂ + c₃]`.

    Three branches of different temporal depth see the same input; their maps are concatenated and average-pooled.

    Args:
      in_features: C.
      channels: c₁, c₂, c₃ of the branches with kernels 1×1×1, 3×3×3 and depth×3×3.
      depth: of the longest kernel. An even one is padded with (depth - 1) // 2 frames before and one more after.
    """

    def __init__(self, in_features, channels, *, depth, norm=BatchNorm, **layer):
        self.out_features = sum(channels)
        kernel_sizes = ((1, 1, 1), (3, 3, 3), (depth, 3, 3))
        self.branches = nnx.List(
            [
                Branch(in_features, out_features, kernel_size, norm=norm, **layer)
                for out_features, kernel_size in zip(channels, kernel_sizes, strict=True)
            ]
        )

    def maps(self, x):
        """The branches' maps side by side, before the pool: `[B, T, H, W, c₁ + c₂ + c₃]`."""
        return jnp.concatenate([branch(x) for branch in self.branches], axis=-1)

    def __call__(self, x):
        return avg_pool(self.maps(x), (2, 2, 2), strides=(2, 2, 2))


class T3D(DenseNet):
    """T3D: a DenseNet3D whose transitions are temporal transition layers.

    Args (and those of `DenseNet`, except `temporal`):
      ttl_channels: channels of a TTL's three branches: one number for all, or three. The paper does not tell them; 48
        gives the 1.3 times DenseNet3D's parameters that it reports. `width` multiplies them too.
    """

    def __init__(self, depth, *, ttl_channels=48, width=1.0, **densenet):
        channels = (ttl_channels,) * 3 if isinstance(ttl_channels, int) else tuple(ttl_channels)
        if len(channels) != 3 or min(channels) < 1:
            raise UserError(f"ttl_channels={ttl_channels}; expected one number or three, each at least 1, as in 48")
        channels = tuple(max(1, round(width * c)) for c in channels)

        def transition(block, in_features, **options):
            return TTL(in_features, channels, depth=DEPTHS[block], **options)

        super().__init__(depth, width=width, temporal=True, transition=transition, **densenet)


class SegmentConsensus(nnx.Module):
    """One network for several clips of a video; the loss is of the mean of their logits (TSN; T3D §4).

    Wang et al. 2016, "Temporal segment networks". In training BatchNorm takes its statistics over the clips of all
    videos; a `group_size` counts clips, and a video's N clips are consecutive.

    Args:
      network: any network that maps clips `[B, T, H, W, C]` to logits, or several such inputs to several outputs.
    """

    def __init__(self, network):
        self.network = network

    def features(self, *videos):
        """The network's features of every clip, one clip after the other in time.

        Videos `[B, N, T, H, W, C]` to `[B, N T', H', W', D]`, whose mean over time is the mean over the clips.
        """
        batch, clips = self._batch_and_clips(videos)
        outputs = self.network.features(*map(_fold, videos))
        return jax.tree.map(lambda x: x.reshape(batch, clips * x.shape[1], *x.shape[2:]), outputs)

    def __call__(self, *videos, keys=None):
        """The mean of the clips' logits: normalised videos `[B, N, T, H, W, C]` to `[B, K]`.

        `keys` are `[B]` random keys for dropout, from which every clip gets one of its own.

        Raises:
          UserError: an input without an axis of clips, inputs with different numbers of videos or clips, or what the
            network raises.
        """
        batch, clips = self._batch_and_clips(videos)
        if keys is not None:
            keys = _fold(jax.vmap(lambda key: jax.random.split(key, clips))(keys))
        outputs = self.network(*map(_fold, videos), keys=keys)
        return jax.tree.map(lambda x: x.reshape(batch, clips, *x.shape[1:]).mean(axis=1), outputs)

    def _batch_and_clips(self, videos):
        for video in videos:
            if video.ndim != 6:
                raise UserError(
                    f"got a video of shape {video.shape}; segment consensus expects [batch, clips, frames, height, "
                    "width, channels]. Sample several clips of each video, add an axis of one clip after the batch, "
                    "or build the network without consensus."
                )
        if len(shapes := {video.shape[:2] for video in videos}) > 1:
            raise UserError(f"got inputs of {sorted(shapes)} videos and clips; expected the same of every input")
        return videos[0].shape[:2]


def _fold(x):  # [B, N, ...] -> [B N, ...]
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
