"""STC-Net: 3D-ResNet and 3D-ResNeXt with spatio-temporal channel correlation (Diba et al. 2018)."""

import functools

from flax import nnx

from jax_video.errors import UserError
from jax_video.models.layers import Linear, check_choice, check_positive, param_dtype
from jax_video.models.resnet3d import Basic, Bottleneck, ResNet3D, Unit

he_uniform = nnx.initializers.he_uniform()


class Correlation(nnx.Module):
    """Two fully connected layers, `[B, C_in]` to one scale in (0, 1) per channel, `[B, C_out]`."""

    def __init__(self, in_features, hidden, out_features, **layer):
        self.fc1 = Linear(in_features, hidden, kernel_init=he_uniform, **layer)
        self.fc2 = Linear(hidden, out_features, kernel_init=he_uniform, **layer)

    def __call__(self, z):
        return nnx.sigmoid(self.fc2(nnx.relu(self.fc1(z))))


class STC(nnx.Module):
    """Spatio-temporal channel correlation block (STC §3.1): scales the channels of `[B, T, H, W, C]`.

    The temporal correlation branch (TCB) sees the channels' means over the clip, the spatial one (SCB) their means in
    every frame; the output is the mean of the two scaled inputs.

    Args:
      features: C.
      hidden: units of the TCB's hidden layer; the SCB has as many per frame.
      frames: T, to which the SCB's layers are bound.
      branches: "tcb", "scb" or "both". A single branch is not halved.
    """

    def __init__(self, features, hidden, *, frames, branches, **layer):
        self.branches = branches
        if branches != "scb":
            self.tcb = Correlation(features, hidden, features, **layer)
        if branches != "tcb":
            self.scb = Correlation(frames * features, frames * hidden, features, **layer)

    def __call__(self, x):
        per_frame = x.mean(axis=(2, 3), dtype=param_dtype(x.dtype))  # [B, T, C]
        scales = []  # each [B, C]
        if self.branches != "scb":
            scales.append(self.tcb(per_frame.mean(axis=1)))
        if self.branches != "tcb":
            scales.append(self.scb(per_frame.reshape(x.shape[0], -1)))
        scale = sum(scales) / len(scales)  # (s_tcb X + s_scb X) / 2 in one pass over X
        return x * scale[:, None, None, None]


class STCUnit(Unit):
    """A unit with an STC block at the end of its residual branch, before the addition.

    That is after the last BN or, with `preactivation`, after the last convolution.
    """

    def __init__(self, in_features, width, *, frames, branches, reduction, dtype, rngs, **unit):
        super().__init__(in_features, width, dtype=dtype, rngs=rngs, **unit)
        hidden = max(1, width // reduction)
        self.stc = STC(self.out_features, hidden, frames=frames, branches=branches, dtype=dtype, rngs=rngs)

    def residual(self, x):
        return self.stc(super().residual(x))


class STCBasic(STCUnit, Basic):
    """Basic unit with an STC block."""


class STCBottleneck(STCUnit, Bottleneck):
    """Bottleneck with an STC block."""


class STCResNet3D(ResNet3D):
    """STC-ResNet, and STC-ResNeXt with `cardinality=32`.

    Args (and those of `ResNet3D`):
      frames: length of the clips. The SCB's weights are bound to it; without an SCB any length works.
      branches: "both", "tcb" or "scb" (STC Table 5).
      reduction: r of STC §3.1. The hidden layers have a stage's width / r units (Table 1). For a bottleneck with C
        output channels, r = 1 gives C / 4.
    """

    def __init__(self, depth, *, frames=16, branches="both", reduction=4, **resnet):
        check_choice("branches", branches, ("both", "tcb", "scb"))
        check_positive(frames=frames, reduction=reduction)
        self.frames, self.branches = frames, branches

        def units(stage):
            left = -(-frames // 2 ** (stage + 1))  # the stem halves time, and so do stages 1 to 3
            block = {"frames": left, "branches": branches, "reduction": reduction}
            return functools.partial(STCBasic, **block), functools.partial(STCBottleneck, **block)

        super().__init__(depth, units=units, **resnet)

    def stages(self, video):
        if self.branches != "tcb" and video.ndim == 5 and video.shape[1] != self.frames:
            raise UserError(
                f"got clips of {video.shape[1]} frames, but the spatial correlation branch (SCB) was built for "
                f"{self.frames}. Sample clips of {self.frames} frames, build with frames={video.shape[1]}, or do "
                'without an SCB by branches="tcb".'
            )
        return super().stages(video)
