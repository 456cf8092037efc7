"""R3D, MC3 and R(2+1)D of 18 layers: the 3D ResNets that torchvision has weights of.

Tran et al. 2018, "A closer look at spatiotemporal convolutions for action recognition". Layers have the names of their
published weights where those have names and not only numbers.
"""

import jax.numpy as jnp
from flax import nnx

from jax_video.models import resnet2d, resnet3d
from jax_video.models.layers import (
    BatchNorm,
    Linear,
    check_choice,
    check_layers,
    check_positive,
    check_video,
    output,
    padded_conv,
    param_dtype,
    run,
)
from jax_video.networks import STAGES

LAYERS = (2, 2, 2, 2)  # units per stage, of 18 layers
STAGE_WIDTHS = (64, 128, 256, 512)
STAGE_STRIDES = (1, 2, 2, 2)
STEM_MIDDLE = 45  # channels between the two convolutions of R(2+1)D's stem
SMALLEST = (2, 3, 3)  # smallest clip whose first stage sees several places: the stem divides space by 2


def conv3d(in_features, out_features, *, middle, stride, norm, **layer):
    """A 3×3×3 convolution, strided in time and space."""
    del middle, norm
    return padded_conv(in_features, out_features, (3, 3, 3), strides=(stride,) * 3, **layer)


def conv2d(in_features, out_features, *, middle, stride, norm, **layer):
    """A 1×3×3 convolution, strided in space only: every frame by itself."""
    del middle, norm
    return padded_conv(in_features, out_features, (1, 3, 3), strides=(1, stride, stride), **layer)


class Conv2Plus1D(nnx.Module):
    """1×3×3 over space to `middle` channels, BN, ReLU, and 3×1×1 over time (Tran et al. §3.5)."""

    def __init__(self, in_features, out_features, *, middle, stride, norm, **layer):
        self.spatial = padded_conv(in_features, middle, (1, 3, 3), strides=(1, stride, stride), **layer)
        self.bn = norm(middle, **layer)
        self.temporal = padded_conv(middle, out_features, (3, 1, 1), strides=(stride, 1, 1), **layer)

    def __call__(self, x):
        return self.temporal(nnx.relu(self.bn(self.spatial(x))))


KINDS = {  # the convolutions of the four stages
    "r3d": (conv3d,) * 4,
    "mc3": (conv3d, conv2d, conv2d, conv2d),
    "r2plus1d": (Conv2Plus1D,) * 4,
}


PROJECTIONS = {  # shortcuts that are strided like the convolutions beside them
    conv3d: resnet3d.Projection,
    conv2d: resnet2d.Projection,
    Conv2Plus1D: resnet3d.Projection,
}


class Unit(nnx.Module):
    """A basic residual unit of two convolutions of one kind: `[B, T, H, W, C_in]` to `[B, T', H', W', width]`."""

    def __init__(self, conv, in_features, width, *, stride, norm, **layer):
        # Gives a pair as many parameters as a 3×3×3 convolution; torchvision takes the first pair's value for both.
        middle = 27 * in_features * width // (9 * in_features + 3 * width)
        options = {"middle": middle, "norm": norm, **layer}
        self.conv1 = conv(in_features, width, stride=stride, **options)
        self.bn1 = norm(width, **layer)
        self.conv2 = conv(width, width, stride=1, **options)
        self.bn2 = norm(width, **layer)
        changes, projection = stride != 1 or in_features != width, PROJECTIONS[conv]
        self.downsample = projection(in_features, width, stride=stride, norm=norm, **layer) if changes else None

    def __call__(self, x):
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nnx.relu(y + (x if self.downsample is None else self.downsample(x)))


class Stem(nnx.Module):
    """A 3×7×7 convolution, strided in space; in R(2+1)D 1×7×7 and 3×1×1. No pool follows."""

    def __init__(self, width, *, factored, norm, **layer):
        first = max(1, round(STEM_MIDDLE * width / STAGE_WIDTHS[0])) if factored else width
        self.conv1 = padded_conv(3, first, (1 if factored else 3, 7, 7), strides=(1, 2, 2), **layer)
        self.bn1 = norm(first, **layer)
        self.factored = factored
        if factored:
            self.conv2 = padded_conv(first, width, (3, 1, 1), **layer)
            self.bn2 = norm(width, **layer)

    def __call__(self, video):
        x = nnx.relu(self.bn1(self.conv1(video)))
        return nnx.relu(self.bn2(self.conv2(x))) if self.factored else x


class VideoResNet(nnx.Module):
    """R3D-18, MC3-18 and R(2+1)D-18 as torchvision has them.

    Args:
      kind: "r3d" has 3×3×3 convolutions, "mc3" has them in the first stage and 1×3×3 ones after it, "r2plus1d" has
        each as 1×3×3 and 3×1×1.
      num_classes: K.
      layers: units in each of the four stages.
      width: multiplies all widths, for small runs.
      remat: computes a stage's activations again in the backward pass: less memory, a third more work.
      norm: makes the normalisation layers; `functools.partial(BatchNorm, group_size=8)`, for example.
      dtype: of activations. Parameters, statistics, the head and the logits are float32 at least.
      rngs: key of the initial parameters.

    Raises:
      UserError: an argument is not valid, or, when called, the video's shape does not fit.
    """

    def __init__(
        self,
        kind,
        *,
        num_classes,
        layers=None,
        width=1.0,
        remat=False,
        norm=BatchNorm,
        dtype=jnp.float32,
        rngs,
    ):
        check_choice("kind", kind, KINDS)
        check_positive(width=width)
        layers = check_layers(LAYERS if layers is None else layers, 4)
        widths = [max(1, round(width * stage_width)) for stage_width in STAGE_WIDTHS]
        self.remat = remat
        layer = {"dtype": dtype, "rngs": rngs}
        self.stem = Stem(widths[0], factored=kind == "r2plus1d", norm=norm, **layer)
        features = widths[0]
        stages = zip(KINDS[kind], layers, widths, STAGE_STRIDES, strict=True)
        for stage, (conv, count, stage_width, stride) in enumerate(stages, 1):
            units: nnx.List[Unit] = nnx.List()
            for index in range(count):
                units.append(Unit(conv, features, stage_width, stride=stride if index == 0 else 1, norm=norm, **layer))
                features = stage_width
            setattr(self, f"layer{stage}", units)
        self.fc = Linear(features, num_classes, dtype=param_dtype(dtype), rngs=rngs)

    def stages(self, video):
        """The output of every stage: `stem` and `layer1` to `layer4`, each `[B, T', H', W', C]`."""
        check_video(video, smallest=SMALLEST)
        x = self.stem(video)
        outputs = {"stem": output("stem", x)}
        for name in STAGES:
            x = outputs[name] = output(name, run(getattr(self, name), x, remat=self.remat))
        return outputs

    def features(self, video):
        """The last stage's output: normalised video `[B, T, H, W, 3]` to `[B, T', H', W', D]`."""
        return self.stages(video)["layer4"]

    def __call__(self, video, *, keys=None):
        """Class scores before the softmax: normalised video `[B, T, H, W, 3]` to `[B, K]`.

        `keys` are for dropout, which this network does not have.
        """
        del keys
        pooled = self.features(video).mean(axis=(1, 2, 3), dtype=self.fc.dtype)  # [B, D]
        return self.fc(pooled)
