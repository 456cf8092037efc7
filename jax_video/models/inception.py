"""Inception3D: Inception-V1 inflated to video, the RGB stream of I3D.

Carreira and Zisserman 2017, "Quo vadis, action recognition? A new model and the Kinetics dataset". Layers have the
names of the published PyTorch weights (pytorch-i3d), so that a checkpoint can be recognised.
"""

import operator
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jax_video.errors import UserError
from jax_video.models.convolution import avg_pool, max_pool
from jax_video.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    check_layers,
    check_positive,
    check_video,
    output,
    param_dtype,
    run,
)

EPSILON = 1e-3  # of batch normalisation
NETWORK: dict[
    str, dict[str, Any]
] = {  # Figure 3 of the paper; a mixed block has the channels of its convolutions b0, b1a, b1b, b2a, b2b and b3b
    "Conv3d_1a_7x7": {"features": 64, "kernel_size": (7, 7, 7), "strides": (2, 2, 2)},
    "MaxPool3d_2a_3x3": {"window": (1, 3, 3), "strides": (1, 2, 2)},
    "Conv3d_2b_1x1": {"features": 64, "kernel_size": (1, 1, 1)},
    "Conv3d_2c_3x3": {"features": 192, "kernel_size": (3, 3, 3)},
    "MaxPool3d_3a_3x3": {"window": (1, 3, 3), "strides": (1, 2, 2)},
    "Mixed_3b": {"features": (64, 96, 128, 16, 32, 32)},
    "Mixed_3c": {"features": (128, 128, 192, 32, 96, 64)},
    "MaxPool3d_4a_3x3": {"window": (3, 3, 3), "strides": (2, 2, 2)},
    "Mixed_4b": {"features": (192, 96, 208, 16, 48, 64)},
    "Mixed_4c": {"features": (160, 112, 224, 24, 64, 64)},
    "Mixed_4d": {"features": (128, 128, 256, 24, 64, 64)},
    "Mixed_4e": {"features": (112, 144, 288, 32, 64, 64)},
    "Mixed_4f": {"features": (256, 160, 320, 32, 128, 128)},
    "MaxPool3d_5a_2x2": {"window": (2, 2, 2), "strides": (2, 2, 2)},
    "Mixed_5b": {"features": (256, 160, 320, 32, 128, 128)},
    "Mixed_5c": {"features": (384, 192, 384, 48, 128, 128)},
}
LAYERS = (2, 5, 2)  # mixed blocks 3b and 3c, 4b to 4f, 5b and 5c
AVERAGED = (2, 7, 7)  # window of the average pool: the last map of frames of 224×224 has 7×7 places


class Unit(nnx.Module):
    """Convolution, BN and ReLU, `[B, T, H, W, C_in]` to `[B, T', H', W', C_out]`."""

    def __init__(self, in_features, features, kernel_size, *, strides=(1, 1, 1), norm, **layer):
        self.conv3d = Conv(in_features, features, kernel_size, strides=strides, padding="SAME", **layer)
        self.bn = norm(features, epsilon=EPSILON, **layer)
        self.out_features = features

    def __call__(self, x):
        return nnx.relu(self.bn(self.conv3d(x)))


class Mixed(nnx.Module):
    """Four branches, whose channels are concatenated: 1×1×1; 1×1×1 and 3×3×3, twice; max pool and 1×1×1."""

    def __init__(self, in_features, features, **kwargs):
        b0, b1a, b1b, b2a, b2b, b3b = features
        self.b0 = Unit(in_features, b0, (1, 1, 1), **kwargs)
        self.b1a = Unit(in_features, b1a, (1, 1, 1), **kwargs)
        self.b1b = Unit(b1a, b1b, (3, 3, 3), **kwargs)
        self.b2a = Unit(in_features, b2a, (1, 1, 1), **kwargs)
        self.b2b = Unit(b2a, b2b, (3, 3, 3), **kwargs)
        self.b3b = Unit(in_features, b3b, (1, 1, 1), **kwargs)
        self.out_features = b0 + b1b + b2b + b3b

    def __call__(self, x):
        pooled = max_pool(x, (3, 3, 3), strides=(1, 1, 1), padding="SAME")
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)]
        return jnp.concatenate(branches, axis=-1)


class Inception3D(nnx.Module):
    """Inflated Inception-V1.

    All convolutions and max pools have TensorFlow's "SAME" padding, which depends on the size of their input.

    Args:
      num_classes: K.
      layers: mixed blocks in stages 3, 4 and 5: the first ones of I3D's (2, 5, 2).
      dropout: probability with which the features before the classifier are dropped in training; I3D has 0.5.
      width: multiplies all widths, for small runs.
      remat: computes each layer's activations again in the backward pass: less memory, a third more work.
      norm: makes the normalisation layers; `functools.partial(BatchNorm, group_size=8)`, for example.
      dtype: of activations. Parameters, statistics, the head and the logits are float32 at least.
      rngs: key of the initial parameters.

    Raises:
      UserError: an argument is not valid, or, when called, the video's shape does not fit.
    """

    def __init__(
        self,
        *,
        num_classes,
        layers=None,
        dropout=0.0,
        width=1.0,
        remat=False,
        norm=BatchNorm,
        dtype=jnp.float32,
        rngs,
    ):
        check_positive(width=width)

        def scaled(features):
            return max(1, round(width * features))

        layers = check_layers(LAYERS if layers is None else layers, 3)
        if any(map(operator.gt, layers, LAYERS)):
            raise UserError(f"layers={layers}; expected at most the {LAYERS} mixed blocks of I3D")
        blocks = {
            f"Mixed_{stage}{block}" for stage, count in zip("345", layers, strict=True) for block in "bcdef"[:count]
        }
        self.names = tuple(name for name in NETWORK if not name.startswith("Mixed") or name in blocks)

        self.remat, common = remat, {"norm": norm, "dtype": dtype, "rngs": rngs}
        features = 3
        layer: Unit | Mixed
        for name in self.names:
            options = NETWORK[name]
            if name.startswith("Conv3d"):
                layer = Unit(features, **options | {"features": scaled(options["features"])}, **common)
            elif name.startswith("Mixed"):
                layer = Mixed(features, [scaled(branch) for branch in options["features"]], **common)
            else:
                continue
            setattr(self, name, layer)
            features = layer.out_features
        self.dropout = Dropout(dropout)
        self.logits = Linear(features, num_classes, dtype=param_dtype(dtype), rngs=rngs)

    def stages(self, video):
        """The output of every convolution, pool and mixed block, by name, each `[B, T', H', W', C]`."""
        check_video(video, smallest=(1, 1, 1))  # with this padding even the smallest clip keeps one place
        outputs, x = {}, video
        for name in self.names:
            if name.startswith("MaxPool3d"):
                x = max_pool(x, **NETWORK[name], padding="SAME")
            else:
                x = run([getattr(self, name)], x, remat=self.remat)
            x = outputs[name] = output(name, x)
        return outputs

    def features(self, video):
        """The last mixed block's output: normalised video `[B, T, H, W, 3]` to `[B, T', H', W', D]`."""
        return self.stages(video)[self.names[-1]]

    def __call__(self, video, *, keys=None):
        """Class scores before the softmax: normalised video `[B, T, H, W, 3]` to `[B, K]`.

        I3D classifies every window of the average pool and takes the mean of their scores; the classifier is linear,
        so the mean of the windows has the same scores.

        Args:
          keys: `[B]` random keys for dropout.
        """
        x = self.features(video).astype(self.logits.dtype)
        window = tuple(map(min, AVERAGED, x.shape[1:4]))
        pooled = avg_pool(x, window, strides=(1, 1, 1))  # [B, T'', H'', W'', D]
        return self.logits(self.dropout(pooled, keys).mean(axis=(1, 2, 3)))
