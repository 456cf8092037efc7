"""C3D with batch normalisation.

Tran et al. 2015, "Learning spatiotemporal features with 3D convolutional networks", with BN after every convolution and
fully connected layer, as the T3D paper cites it (§4.6). Layers have the paper's names.
"""

import math

import jax.numpy as jnp
from flax import nnx

from jax_video.errors import UserError
from jax_video.models.convolution import max_pool
from jax_video.models.layers import (
    BatchNorm,
    Conv,
    Linear,
    check_positive,
    check_video,
    he_normal_fan_out,
    output,
    param_dtype,
    run,
)

WIDTHS = {
    "conv1a": 64,
    "conv2a": 128,
    "conv3a": 256,
    "conv3b": 256,
    "conv4a": 512,
    "conv4b": 512,
    "conv5a": 512,
    "conv5b": 512,
}
POOLS = {  # after the convolutions of a stage; window and stride in time, height and width
    "pool1": (1, 2, 2),  # keeps all frames, so as not to merge them too early
    "pool2": (2, 2, 2),
    "pool3": (2, 2, 2),
    "pool4": (2, 2, 2),
    "pool5": (2, 2, 2),
}
HIDDEN = 4096


class Convolution(nnx.Module):
    """3×3×3 convolution, BN and ReLU, `[B, T, H, W, C_in]` to `[B, T, H, W, C_out]`."""

    def __init__(self, in_features, features, *, norm, **layer):
        self.conv = Conv(in_features, features, (3, 3, 3), padding=((1, 1),) * 3, **layer)
        self.bn = norm(features, **layer)

    def __call__(self, x):
        return nnx.relu(self.bn(self.conv(x)))


class FullyConnected(nnx.Module):
    """Fully connected layer, BN and ReLU, `[B, D_in]` to `[B, D_out]`."""

    def __init__(self, in_features, features, *, norm, **layer):
        self.linear = Linear(in_features, features, use_bias=False, kernel_init=he_normal_fan_out, **layer)
        self.bn = norm(features, **layer)

    def __call__(self, x):
        return nnx.relu(self.bn(self.linear(x)))


class C3D(nnx.Module):
    """Eight convolutions, five max pools and three fully connected layers.

    Args:
      num_classes: K.
      frames, size: of the clips: number of frames, and height and width in pixels. They fix the size of `fc6`.
      width: multiplies all widths, for small runs.
      remat: computes a stage's activations again in the backward pass: less memory, a third more work.
      norm: makes the normalisation layers; `functools.partial(BatchNorm, group_size=8)`, for example.
      dtype: of activations. Parameters, statistics, the head and the logits are float32 at least.
      rngs: key of the initial parameters.

    Raises:
      UserError: an argument is not above zero, or, when called, the video's shape does not fit.
    """

    def __init__(
        self, *, num_classes, frames=16, size=112, width=1.0, remat=False, norm=BatchNorm, dtype=jnp.float32, rngs
    ):
        check_positive(frames=frames, size=size, width=width)
        self.clip, self.remat = (frames, size, size), remat
        common = {"norm": norm, "dtype": dtype, "rngs": rngs}
        features = 3
        for name, channels in WIDTHS.items():
            channels = max(1, round(width * channels))
            setattr(self, name, Convolution(features, channels, **common))
            features = channels
        places = math.prod(math.ceil(length / stride) for length, stride in zip(self.clip, (16, 32, 32), strict=True))
        hidden = max(1, round(width * HIDDEN))
        self.fc6 = FullyConnected(places * features, hidden, **common)
        self.fc7 = FullyConnected(hidden, hidden, **common)
        self.fc8 = Linear(hidden, num_classes, dtype=param_dtype(dtype), rngs=rngs)

    def stages(self, video):
        """The outputs of each stage's convolutions and pool: `conv1`, `pool1`, … `pool5`, each `[B, T', H', W', C]`."""
        check_video(video, smallest=(1, 1, 1))
        outputs, x = {}, video
        for number, (pool, window) in enumerate(POOLS.items(), start=1):
            name = f"conv{number}"
            convolutions = [getattr(self, key) for key in WIDTHS if key.startswith(name)]
            x = outputs[name] = output(name, run(convolutions, x, remat=self.remat))
            # Caffe rounds sizes up: the last pool makes 4×4 of 7×7 places, where the last row and column see only one.
            padding = [(0, length - 1) for length in window]
            x = outputs[pool] = output(pool, max_pool(x, window, strides=window, padding=padding))
        return outputs

    def features(self, video):
        """The last pool's output: normalised video `[B, T, H, W, 3]` of any size to `[B, T', H', W', D]`."""
        return self.stages(video)["pool5"]

    def __call__(self, video, *, keys=None):
        """Class scores before the softmax: normalised video `[B, T, H, W, 3]` to `[B, K]`.

        `keys` are for dropout, which this network does not have.
        """
        del keys
        if video.ndim == 5 and video.shape[1:4] != self.clip:
            (frames, height, width), (built_frames, size, _) = video.shape[1:4], self.clip
            raise UserError(
                f"got clips of {frames} frames of {height}×{width}, but C3D's fully connected layers were built for "
                f"{built_frames} frames of {size}×{size}. Sample and crop such clips, or build it with other frames "
                "and size."
            )
        x = self.features(video)
        x = self.fc7(self.fc6(x.reshape(x.shape[0], -1)))
        return self.fc8(x)
