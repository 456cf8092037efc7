"""2D ResNet and ResNeXt over the frames of a video: what C2D, CoST and ST-ResNet extend.

He et al. 2016, "Deep residual learning"; Xie et al. 2017, "Aggregated residual transformations". Every frame is
computed on its own, until the global average pool. Layers have the names of torchvision's weights.
"""

import jax.numpy as jnp
from flax import nnx

from jax_video.errors import UserError
from jax_video.models.convolution import max_pool
from jax_video.models.layers import (
    BatchNorm,
    Dropout,
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

BASIC_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # basic units per stage
BOTTLENECK_LAYERS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # bottlenecks per stage
STAGE_WIDTHS = (64, 128, 256, 512)
STAGE_STRIDES = (1, 2, 2, 2)  # in height and width


class Projection(nnx.Module):
    """Shortcut where a unit changes the shape: a strided 1×1×1 convolution and BN."""

    def __init__(self, in_features, out_features, *, stride, norm, **layer):
        self.conv = padded_conv(in_features, out_features, (1, 1, 1), strides=(1, stride, stride), **layer)
        self.bn = norm(out_features, **layer)

    def __call__(self, x):
        return self.bn(self.conv(x))


def shortcut(in_features, out_features, *, stride, **options):
    """A `Projection` where a unit changes the shape, and None, which is the identity, where it does not."""
    if stride == 1 and in_features == out_features:
        return None
    return Projection(in_features, out_features, stride=stride, **options)


class Unit(nnx.Module):
    """A residual unit: the sum of a branch and a shortcut, `downsample`, and a ReLU."""

    out_features: int
    downsample: Projection | None  # None is the identity

    def residual(self, x):
        """The output of the residual branch."""
        raise NotImplementedError

    def total(self, x):
        """The sum of residual branch and shortcut, before the ReLU."""
        return self.residual(x) + (x if self.downsample is None else self.downsample(x))

    def __call__(self, x):
        return nnx.relu(self.total(x))


class Basic(Unit):
    """Two 3×3 convolutions in space, the first one strided, `[B, T, H, W, C_in]` to `[B, T, H', W', width]`."""

    def __init__(self, in_features, width, *, stride=1, norm=BatchNorm, **layer):
        self.out_features = width
        self.conv1 = padded_conv(in_features, width, (1, 3, 3), strides=(1, stride, stride), **layer)
        self.bn1 = norm(width, **layer)
        self.conv2 = padded_conv(width, width, (1, 3, 3), **layer)
        self.bn2 = norm(width, **layer)
        self.downsample = shortcut(in_features, width, stride=stride, norm=norm, **layer)

    def residual(self, x):
        x = nnx.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(Unit):
    """1×1, 3×3 and 1×1 convolution in space, `[B, T, H, W, C_in]` to `[B, T, H', W', 4 width]`.

    Args:
      stride: in height and width, at the 3×3 convolution or, with `stride_on="1x1"` (Caffe's networks), at the first.
      taps: in time, of the three convolutions; time is never strided. (1, 1, 1) is the 2D unit.
      cardinality, group_width: groups of the 3×3 convolution and, at width 64, the channels of each; ResNet is (1, 64).
      middle_conv: makes the 3×3 convolution, with the arguments of `padded_conv`.
    """

    def __init__(
        self,
        in_features,
        width,
        *,
        stride=1,
        taps=(1, 1, 1),
        cardinality=1,
        group_width=64,
        stride_on="3x3",
        middle_conv=padded_conv,
        norm=BatchNorm,
        **layer,
    ):
        middle, self.out_features = cardinality * max(1, width * group_width // 64), 4 * width
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = padded_conv(in_features, middle, (taps[0], 1, 1), strides=(1, first, first), **layer)
        self.bn1 = norm(middle, **layer)
        self.conv2 = middle_conv(
            middle, middle, (taps[1], 3, 3), strides=(1, second, second), groups=cardinality, **layer
        )
        self.bn2 = norm(middle, **layer)
        self.conv3 = padded_conv(middle, self.out_features, (taps[2], 1, 1), **layer)
        self.bn3 = norm(self.out_features, **layer)
        self.downsample = shortcut(in_features, self.out_features, stride=stride, norm=norm, **layer)

    def residual(self, x):
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class ResNet2D(nnx.Module):
    """ResNet-18/34 of basic units, ResNet-50/101/152 of bottlenecks; with `cardinality=32` ResNeXt.

    Args:
      depth: 18, 34, 50, 101 or 152.
      num_classes: K.
      channels: of the video: 3 for RGB, 20 for ten fields of optical flow.
      layers: units in each of the four stages, in place of the depth's.
      width: multiplies all widths, for small runs.
      stem_width: channels of the first convolution; None: the first stage's, 64 times `width`.
      cardinality, group_width: of a `Bottleneck`; ResNeXt-50 32×4d is (32, 4), ResNeXt-101 32×8d is (32, 8).
      stride_on: of a `Bottleneck`: "3x3", or "1x1" as in Caffe's networks.
      dropout: probability that a pooled feature is dropped in training.
      remat: computes a stage's activations again in the backward pass: less memory, a third more work.
      unit: `unit(number, index)` is the class of a unit, by its numbers in the network and in its stage; None: `Basic`
        or `Bottleneck`, by the depth.
      stem_in_time: extent and stride in time of the first convolution.
      norm: makes the normalisation layers; `functools.partial(BatchNorm, group_size=8)`, for example.
      dtype: of activations. Parameters, statistics, the head and the logits are float32 at least.
      rngs: key of the initial parameters.

    Raises:
      UserError: an argument is not valid, or, when called, the video's shape does not fit.
    """

    depths = BASIC_LAYERS | BOTTLENECK_LAYERS
    smallest = (1, 5, 5)  # smallest clip whose first stage sees more than one place: the stem divides space by 4

    def __init__(
        self,
        depth,
        *,
        num_classes,
        channels=3,
        layers=None,
        width=1.0,
        stem_width=None,
        cardinality=1,
        group_width=64,
        stride_on="3x3",
        dropout=0.0,
        remat=False,
        unit=None,
        stem_in_time=(1, 1),
        norm=BatchNorm,
        dtype=jnp.float32,
        rngs,
    ):
        check_choice("depth", depth, self.depths)
        check_positive(width=width, stem_width=1 if stem_width is None else stem_width)
        check_positive(cardinality=cardinality, group_width=group_width, channels=channels)
        check_choice("stride_on", stride_on, ("3x3", "1x1"))
        layers = check_layers(self.depths[depth] if layers is None else layers, 4)
        bottleneck, self.channels, self.remat = depth in BOTTLENECK_LAYERS, channels, remat
        if not bottleneck and (cardinality, group_width, stride_on) != (1, 64, "3x3"):
            raise UserError(
                f"cardinality={cardinality}, group_width={group_width} and stride_on={stride_on!r} are of bottlenecks; "
                f"depth {depth} has none: leave them at 1, 64 and '3x3', or choose 50 or more"
            )
        widths = [max(1, round(width * w)) for w in STAGE_WIDTHS]
        layer = {"dtype": dtype, "rngs": rngs}
        options = {"norm": norm, **layer}
        if bottleneck:
            options |= {"cardinality": cardinality, "group_width": group_width, "stride_on": stride_on}

        taps, time_stride = stem_in_time
        features = widths[0] if stem_width is None else stem_width
        self.conv1 = padded_conv(channels, features, (taps, 7, 7), strides=(time_stride, 2, 2), **layer)
        self.bn1 = norm(features, **layer)
        plain = Bottleneck if bottleneck else Basic
        number = 0
        for name, count, stage_width, stage_stride in zip(STAGES, layers, widths, STAGE_STRIDES, strict=True):
            units: nnx.List[Unit] = nnx.List()
            for index in range(count):
                stride = stage_stride if index == 0 else 1
                make = unit(number, index) if unit else plain
                units.append(make(features, stage_width, stride=stride, **options))
                features, number = units[-1].out_features, number + 1
            setattr(self, name, units)
        self.dropout = Dropout(dropout)
        self.fc = Linear(features, num_classes, dtype=param_dtype(dtype), rngs=rngs)

    def stem_pool(self, x):
        """The max pool before the first stage."""
        return max_pool(x, (1, 3, 3), strides=(1, 2, 2), padding=((0, 0), (1, 1), (1, 1)))

    def after(self, name, x):
        """What the next stage sees of the output `x` of the stage `name`: here `x` itself."""
        del name
        return x

    def stem(self, video):
        """The outputs of the first convolution and of the pool: `conv1` and `pool`."""
        check_video(video, smallest=self.smallest, channels=self.channels)
        x = nnx.relu(self.bn1(self.conv1(video)))
        return {"conv1": x, "pool": self.stem_pool(x)}

    def stages(self, video):
        """The output of every stage: `conv1`, `pool` and `layer1` to `layer4`, each `[B, T', H', W', C]`."""
        outputs = self.stem(video)
        x = outputs["pool"] = output("pool", outputs["pool"])
        for name in STAGES:
            outputs[name] = output(name, run(getattr(self, name), x, remat=self.remat))
            x = self.after(name, outputs[name])
        return outputs

    def features(self, video):
        """The last stage's output: normalised video `[B, T, H, W, channels]` to `[B, T', H', W', D]`."""
        return self.stages(video)["layer4"]

    def __call__(self, video, *, keys=None):
        """Class scores before the softmax, `[B, K]`, from the features' mean over frames and places.

        `keys` are `[B]` random keys, which dropout needs in training.
        """
        pooled = self.features(video).mean(axis=(1, 2, 3), dtype=self.fc.dtype)  # [B, D]
        return self.fc(self.dropout(pooled, keys))
