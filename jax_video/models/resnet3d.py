"""3D-ResNet and 3D-ResNeXt.

Hara et al. 2018, "Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet?" Layers have the names of
their published weights, so that a checkpoint can be recognised.
"""

import functools
import math

import jax.numpy as jnp
from flax import nnx

from jax_video.errors import UserError
from jax_video.models.convolution import max_pool
from jax_video.models.layers import (
    BatchNorm,
    Conv,
    Linear,
    check_choice,
    check_layers,
    check_positive,
    check_video,
    output,
    param_dtype,
    run,
)
from jax_video.networks import STAGES

LAYERS = {  # units per stage; basic units below depth 50, bottlenecks from there on
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
STAGE_WIDTHS = (64, 128, 256, 512)
STAGE_STRIDES = (1, 2, 2, 2)  # in time, height and width alike
SMALLEST = (3, 5, 5)  # smallest clip whose first stage sees several places: the stem divides time by 2, space by 4
STEMS = {  # strides of the first convolution and of the max pool, in time, height and width
    "hara": ((1, 2, 2), (2, 2, 2)),
    "table1": ((2, 2, 2), (1, 2, 2)),  # nearer to Table 1 of the STC paper; the same sizes from the pool on
}


def conv1x1x1(in_features, out_features, *, stride=1, **kwargs):
    return Conv(in_features, out_features, (1, 1, 1), strides=(stride,) * 3, **kwargs)


def conv3x3x3(in_features, out_features, *, stride=1, **kwargs):
    return Conv(in_features, out_features, (3, 3, 3), strides=(stride,) * 3, padding=((1, 1),) * 3, **kwargs)


class Projection(nnx.Module):
    """Shortcut B where a unit changes the shape: a strided 1×1×1 convolution and BN."""

    def __init__(self, in_features, out_features, *, stride, norm, **layer):
        self.conv = conv1x1x1(in_features, out_features, stride=stride, **layer)
        self.bn = norm(out_features, **layer)

    def __call__(self, x):
        return self.bn(self.conv(x))


class Unit(nnx.Module):
    """A residual unit, the sum of a branch and a shortcut: `[B, T, H, W, C_in]` to `[B, T', H', W', C_out]`.

    Post-activation (He et al. 2016, "Deep residual learning"): the branch is conv-BN-ReLU … conv-BN, and a ReLU follows
    the addition. Pre-activation (He et al. 2016, "Identity mappings"): the branch is BN-ReLU-conv … BN-ReLU-conv, and
    nothing follows the addition. The shortcut starts from the raw input in both, as in Hara et al.

    `norm` makes the normalisation layers; `layer` is what every layer takes, `dtype` and `rngs`.
    """

    def __init__(self, in_features, out_features, *, stride, shortcut, preactivation, **options):
        self.out_features, self.stride, self.preactivation = out_features, stride, preactivation
        projects = shortcut == "B" and (stride != 1 or in_features != out_features)
        self.downsample = Projection(in_features, out_features, stride=stride, **options) if projects else None

    def residual(self, x):
        """The output of the residual branch."""
        raise NotImplementedError

    def shortcut(self, x):
        """The output of the shortcut, which is added to that of the branch."""
        if self.downsample is not None:
            return self.downsample(x)
        # Shortcut A: strided, with zeros for the missing channels. Without stride or new channels, the identity.
        strided = x[:, :: self.stride, :: self.stride, :: self.stride]
        return jnp.pad(strided, ((0, 0),) * 4 + ((0, self.out_features - x.shape[-1]),))

    def __call__(self, x):
        y = self.residual(x) + self.shortcut(x)
        return y if self.preactivation else nnx.relu(y)


class Basic(Unit):
    """Two 3×3×3 convolutions, the first one strided."""

    def __init__(self, in_features, width, *, stride, shortcut, preactivation, norm, **layer):
        super().__init__(
            in_features, width, stride=stride, shortcut=shortcut, preactivation=preactivation, norm=norm, **layer
        )
        self.conv1 = conv3x3x3(in_features, width, stride=stride, **layer)
        self.bn1 = norm(in_features if preactivation else width, **layer)
        self.conv2 = conv3x3x3(width, width, **layer)
        self.bn2 = norm(width, **layer)

    def residual(self, x):
        if self.preactivation:
            x = self.conv1(nnx.relu(self.bn1(x)))
            return self.conv2(nnx.relu(self.bn2(x)))
        x = nnx.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(Unit):
    """1×1×1, strided 3×3×3 and 1×1×1 convolution; the last has 4 times the stage's width.

    With `cardinality` above 1 it is ResNeXt's: the 3×3×3 convolution has that many groups and twice the width.
    """

    def __init__(self, in_features, width, *, cardinality, stride, shortcut, preactivation, norm, **layer):
        middle, out = (width if cardinality == 1 else 2 * width), 4 * width
        super().__init__(
            in_features, out, stride=stride, shortcut=shortcut, preactivation=preactivation, norm=norm, **layer
        )
        self.conv1 = conv1x1x1(in_features, middle, **layer)
        self.bn1 = norm(in_features if preactivation else middle, **layer)
        self.conv2 = conv3x3x3(middle, middle, stride=stride, groups=cardinality, **layer)
        self.bn2 = norm(middle, **layer)
        self.conv3 = conv1x1x1(middle, out, **layer)
        self.bn3 = norm(middle if preactivation else out, **layer)

    def residual(self, x):
        if self.preactivation:
            x = self.conv1(nnx.relu(self.bn1(x)))
            x = self.conv2(nnx.relu(self.bn2(x)))
            return self.conv3(nnx.relu(self.bn3(x)))
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class ResNet3D(nnx.Module):
    """3D-ResNet, and 3D-ResNeXt with `cardinality=32`.

    Args:
      depth: 10, 18, 34, 50, 101, 152 or 200.
      num_classes: K.
      layers: units in each of the four stages, in place of the depth's.
      width: multiplies all widths, for small runs; they are rounded so that groups and reductions divide them.
      cardinality: groups of a bottleneck's 3×3×3 convolution.
      stem: "hara" strides the first convolution (1, 2, 2) and the pool (2, 2, 2); "table1" (2, 2, 2) and (1, 2, 2).
      shortcut: "B" projects where shapes change, "A" strides and pads channels with zeros.
      preactivation: BN-ReLU-conv units. The stem keeps its BN and ReLU, and none follow the last unit (Hara et al.).
      remat: computes a stage's activations again in the backward pass: less memory, a third more work.
      units: `units(stage)` is the pair of the classes of basic unit and bottleneck in stage 0, 1, 2 or 3; None: `Basic`
        and `Bottleneck` in all.
      norm: makes the normalisation layers; `functools.partial(BatchNorm, group_size=8)`, for example.
      dtype: of activations. Parameters, statistics, the head and the logits are float32 at least.
      rngs: key of the initial parameters.

    Raises:
      UserError: an argument is not valid, or, when called, the video's shape does not fit.
    """

    def __init__(
        self,
        depth,
        *,
        num_classes,
        layers=None,
        width=1.0,
        cardinality=1,
        stem="hara",
        shortcut="B",
        preactivation=False,
        remat=False,
        units=None,
        norm=BatchNorm,
        dtype=jnp.float32,
        rngs,
    ):
        check_choice("depth", depth, LAYERS)
        check_positive(width=width, cardinality=cardinality)
        check_choice("stem", stem, STEMS)
        check_choice("shortcut", shortcut, ("A", "B"))
        self.remat = remat
        layers = check_layers(LAYERS[depth] if layers is None else layers, 4)
        if cardinality > 1 and depth < 50:
            raise UserError(f"cardinality={cardinality} needs bottlenecks; depth {depth} has none, choose 50 or more")
        multiple = math.lcm(4, cardinality // math.gcd(2, cardinality))  # ResNeXt's groups divide twice the width
        widths = [max(multiple, round(width * w / multiple) * multiple) for w in STAGE_WIDTHS]

        conv_strides, self.pool_strides = STEMS[stem]
        layer = {"dtype": dtype, "rngs": rngs}
        self.conv1 = Conv(3, widths[0], (7, 7, 7), strides=conv_strides, padding=((3, 3),) * 3, **layer)
        self.bn1 = norm(widths[0], **layer)
        features = widths[0]
        options = {"shortcut": shortcut, "preactivation": preactivation, "norm": norm, **layer}
        for stage, (count, stage_width, stride) in enumerate(zip(layers, widths, STAGE_STRIDES, strict=True)):
            basic, bottleneck = units(stage) if units else (Basic, Bottleneck)
            unit = basic if depth < 50 else functools.partial(bottleneck, cardinality=cardinality)
            modules: nnx.List[Unit] = nnx.List()
            for index in range(count):
                modules.append(unit(features, stage_width, stride=stride if index == 0 else 1, **options))
                features = modules[-1].out_features
            setattr(self, f"layer{stage + 1}", modules)
        self.fc = Linear(features, num_classes, dtype=param_dtype(dtype), rngs=rngs)

    def stages(self, video):
        """The output of every stage: `conv1`, `pool` and `layer1` to `layer4`, each `[B, T', H', W', C]`."""
        check_video(video, smallest=SMALLEST)
        x = output("conv1", nnx.relu(self.bn1(self.conv1(video))))
        outputs = {"conv1": x}
        pooled = max_pool(x, (3, 3, 3), strides=self.pool_strides, padding=((1, 1),) * 3)
        x = outputs["pool"] = output("pool", pooled)
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
