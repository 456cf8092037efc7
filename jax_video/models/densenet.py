"""DenseNet over video, in 3D (DenseNet3D) and in 2D, frame by frame.

Huang et al. 2017, "Densely connected convolutional networks"; Diba et al. 2017, "Temporal 3D ConvNets", Table 1. Layers
have the names of torchvision's weights.
"""

import jax.numpy as jnp
from flax import nnx

from jax_video.models.convolution import avg_pool, max_pool, whole_gradient
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

LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32)}  # dense layers per block
GROWTH_RATE = 32  # channels that a dense layer adds
STEM_WIDTH = 64
BOTTLENECK = 4  # channels between a dense layer's two convolutions, in growth rates
STEMS = {  # in time, height and width: the first convolution's kernel and strides, and the max pool's strides
    "t3d": ((3, 7, 7), (2, 2, 2), (1, 2, 2)),
    "hara": ((7, 7, 7), (1, 2, 2), (2, 2, 2)),
}
SMALLEST = (15, 29, 29)  # frames, height and width: the stem makes them 8×8×8, the three transitions 1×1×1


class DenseLayer(nnx.Module):
    """BN-ReLU-1×1×1 convolution, BN-ReLU-3×3×3 convolution: `[B, T, H, W, C]` to `[B, T, H, W, C + growth_rate]`.

    The new channels are appended to the input, so that every later layer of the block sees them.
    """

    def __init__(self, in_features, growth_rate, kernel_size, *, norm, **layer):
        middle = BOTTLENECK * growth_rate
        self.norm1 = norm(in_features, **layer)
        self.conv1 = padded_conv(in_features, middle, (1, 1, 1), **layer)
        self.norm2 = norm(middle, **layer)
        self.conv2 = padded_conv(middle, growth_rate, kernel_size, **layer)

    def __call__(self, x):
        x = whole_gradient(x, self.norm1.scale[0])
        y = self.conv1(nnx.relu(self.norm1(x)))
        y = self.conv2(nnx.relu(self.norm2(y)))
        return jnp.concatenate([x, y], axis=-1)


class Transition(nnx.Module):
    """BN-ReLU-1×1×1 convolution to half the channels, average pool: `[B, T, H, W, C]` to `[B, T', H', W', C / 2]`."""

    def __init__(self, in_features, window, *, norm, **layer):
        self.out_features, self.window = in_features // 2, window
        self.norm = norm(in_features, **layer)
        self.conv = padded_conv(in_features, self.out_features, (1, 1, 1), **layer)

    def __call__(self, x):
        return avg_pool(self.conv(nnx.relu(self.norm(x))), self.window, strides=self.window)


class DenseNet(nnx.Module):
    """DenseNet3D, and with `temporal=False` the 2D DenseNet.

    Args:
      depth: 121 or 169.
      num_classes: K.
      layers: dense layers in each of the four blocks, in place of the depth's.
      width: multiplies the growth rate and the stem's channels, for small runs.
      temporal: False makes kernels, strides and pools one frame deep. Every frame is then computed on its own, until
        the global average pool.
      stem: first kernel, its strides and those of the pool: "t3d" 3×7×7, (2, 2, 2) and (1, 2, 2); "hara" 7×7×7,
        (1, 2, 2) and (2, 2, 2). In 2D both are the same.
      remat: computes a block's activations again in the backward pass: less memory, a third more work.
      transition: makes the module after block 1, 2 or 3, `transition(block, in_features, norm=…, dtype=…, rngs=…)`,
        which has `out_features`; None: a `Transition`.
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
        temporal=True,
        stem="t3d",
        remat=False,
        transition=None,
        norm=BatchNorm,
        dtype=jnp.float32,
        rngs,
    ):
        check_choice("depth", depth, LAYERS)
        check_positive(width=width)
        check_choice("stem", stem, STEMS)
        layers = check_layers(LAYERS[depth] if layers is None else layers, 4)
        self.temporal, self.remat = temporal, remat
        growth_rate, features = (max(1, round(width * channels)) for channels in (GROWTH_RATE, STEM_WIDTH))
        layer = {"dtype": dtype, "rngs": rngs}

        kernel_size, strides, self.pool_strides = map(self.extent, STEMS[stem])
        self.conv0 = padded_conv(3, features, kernel_size, strides=strides, **layer)
        self.norm0 = norm(features, **layer)
        for block, count in enumerate(layers, start=1):
            units: nnx.List[DenseLayer] = nnx.List()
            for _ in range(count):
                units.append(DenseLayer(features, growth_rate, self.extent((3, 3, 3)), norm=norm, **layer))
                features += growth_rate
            setattr(self, f"denseblock{block}", units)
            if block < 4:
                if transition is None:
                    module = Transition(features, self.extent((2, 2, 2)), norm=norm, **layer)
                else:
                    module = transition(block, features, norm=norm, **layer)
                setattr(self, f"transition{block}", module)
                features = module.out_features
        self.norm5 = norm(features, **layer)
        self.classifier = Linear(features, num_classes, dtype=param_dtype(dtype), rngs=rngs)

    def extent(self, sizes):
        """Sizes in time, height and width as this network has them: in 2D the one in time is 1."""
        return sizes if self.temporal else (1, *sizes[1:])

    def stages(self, video):
        """The output of every row of T3D's Table 1, each `[B, T', H', W', C]`.

        `conv0`, `pool0`, `denseblock1`, `transition1`, … `denseblock4`, and `norm5` after its ReLU.
        """
        check_video(video, smallest=self.extent(SMALLEST))
        x = output("conv0", nnx.relu(self.norm0(self.conv0(video))))
        outputs = {"conv0": x}
        window = self.extent((3, 3, 3))
        padding = tuple((taps // 2, taps // 2) for taps in window)
        x = outputs["pool0"] = output("pool0", max_pool(x, window, strides=self.pool_strides, padding=padding))
        for block in (1, 2, 3, 4):
            name = f"denseblock{block}"
            x = outputs[name] = output(name, run(getattr(self, name), x, remat=self.remat))
            if block < 4:
                name = f"transition{block}"
                x = outputs[name] = output(name, getattr(self, name)(x))
        outputs["norm5"] = output("norm5", nnx.relu(self.norm5(x)))
        return outputs

    def features(self, video):
        """The last block's output after BN and ReLU: normalised video `[B, T, H, W, 3]` to `[B, T', H', W', D]`."""
        return self.stages(video)["norm5"]

    def __call__(self, video, *, keys=None):
        """Class scores before the softmax: normalised video `[B, T, H, W, 3]` to `[B, K]`.

        `keys` are for dropout, which this network does not have.
        """
        del keys
        pooled = self.features(video).mean(axis=(1, 2, 3), dtype=self.classifier.dtype)  # [B, D]
        return self.classifier(pooled)
