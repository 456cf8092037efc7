"""C2D, C3D and CoST: collaborative spatio-temporal convolutions (Li et al. 2019), on the 2D ResNet.

C3D and CoST convert every second unit of the network: in C3D one of its kernels gets a temporal extent, in CoST one 2D
kernel sees the clip in three views. C2D converts none.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx

from jax_video.errors import UserError
from jax_video.models import convolution
from jax_video.models.convolution import max_pool
from jax_video.models.layers import (
    Linear,
    check_choice,
    he_normal_fan_out,
    in_test_mode,
    normal_001,
    param_dtype,
)
from jax_video.models.resnet2d import BOTTLENECK_LAYERS, Bottleneck, ResNet2D
from jax_video.networks import STAGES

TAPS = {"c2d": (1, 1, 1), "c3d_3x1x1": (3, 1, 1), "c3d_3x3x3": (1, 3, 1)}  # in time, of a converted unit
KINDS = (*TAPS, "cost_a", "cost_b")
VIEWS = ("H-W", "T-W", "T-H")
INITIAL_ALPHA = (0.7, -0.7, -0.7)  # logits of the views


def by_view(alpha):
    """{"H-W": α, "T-W": α, "T-H": α} of an array [3] of the views' shares."""
    return dict(zip(VIEWS, alpha.tolist(), strict=True))


def views(kernel):
    """A 2D kernel `[k, k, C_in, C_out]` as the 3D kernels of H-W, T-W and T-H (CoST §3.2).

    Its rows are H, T and T; its columns W, W and H.
    """
    return kernel[None], kernel[:, None], kernel[:, :, None]


def fuse_views(kernels, alpha):
    """The three views in a single 3D kernel, with zeros at its corners: 3k² - 3k + 1 of k³ taps are in use.

    Args:
      kernels: of each view, `[3, k, k, C_in, C_out]`.
      alpha: weight of each view in each output channel, `[3, C_out]`.

    Returns:
      `[k, k, k, C_in, C_out]`.
    """
    margin = (kernels.shape[1] // 2,) * 2
    flat = [(margin, (0, 0), (0, 0)), ((0, 0), margin, (0, 0)), ((0, 0), (0, 0), margin)]
    return sum(
        jnp.pad(weight * views(kernel)[view], (*flat[view], (0, 0), (0, 0)))
        for view, (kernel, weight) in enumerate(zip(kernels, alpha, strict=True))
    )


class CoST(nnx.Module):
    """The CoST operation (CoST §3.2), `[B, T, H, W, C_in]` to `[B, T, H', W', C_out]`.

    y = Σ α_v x_v over the views H-W, T-W and T-H, where every x_v is x convolved with the same k×k kernel.

    Args:
      stride: in height and width, of every view.
      kernel_size: k, odd.
      adaptive: False is CoST(a), where α, a softmax over the views, is learnt for each channel; True is CoST(b), where
        a small network predicts it for each clip.
      share_weights: one kernel for all views, or one for each (CoST Table 3).
      fuse_views: computes CoST(a) as one k×k×k convolution instead of three in 2D; the same function. None fuses
        where that is no more work: for k = 3.
    """

    def __init__(
        self,
        in_features,
        out_features,
        *,
        stride=1,
        kernel_size=3,
        adaptive=False,
        share_weights=True,
        fuse_views=None,
        dtype=jnp.float32,
        rngs,
    ):
        if kernel_size % 2 == 0:
            raise UserError(f"kernel_size={kernel_size}; expected an odd number: views meet in a kernel's centre")
        shape, wide = (kernel_size, kernel_size, in_features, out_features), param_dtype(dtype)
        kernels = [he_normal_fan_out(rngs.params(), shape, wide) for _ in range(1 if share_weights else 3)]
        self.kernel = nnx.Param(jnp.stack(kernels))  # [1 or 3, k, k, C_in, C_out]; [1, …] is C2D's
        if adaptive:
            layer = {"use_bias": False, "kernel_init": normal_001, "dtype": dtype, "rngs": rngs}
            self.fc1 = Linear(out_features, out_features, **layer)
            self.fc2 = Linear(3, 3, **layer)
        else:
            self.alpha = nnx.Param(jnp.tile(jnp.array(INITIAL_ALPHA, wide)[:, None], (1, out_features)))
        self.stride, self.reach, self.adaptive = stride, kernel_size // 2, adaptive
        self.fuse_views = kernel_size == 3 if fuse_views is None else fuse_views
        self.dtype = dtype

    def kernels(self):
        """The kernel of each view, `[3, k, k, C_in, C_out]`."""
        return jnp.broadcast_to(self.kernel[...], (3, *self.kernel.shape[1:]))

    def convolve(self, x, kernel):
        padding = tuple((self.reach, self.reach) if taps > 1 else (0, 0) for taps in kernel.shape[:3])
        strides = (1, self.stride, self.stride)
        return convolution.conv(x.astype(self.dtype), kernel.astype(self.dtype), strides=strides, padding=padding)

    def convolved_views(self, x):
        """The list of x_v, each `[B, T, H', W', C_out]`, for H-W, T-W and T-H."""
        return [self.convolve(x, views(kernel)[view]) for view, kernel in enumerate(self.kernels())]

    def coefficients(self, convolved):
        """α, `[B, 3, C_out]` (CoST(b)) or `[1, 3, C_out]` (CoST(a)): how much each view counts; they sum to 1."""
        if not self.adaptive:
            return nnx.softmax(self.alpha[...], axis=0)[None]
        pooled = jnp.stack([x.max(axis=(1, 2, 3)) for x in convolved], axis=1)  # [B, 3, C]
        logits = self.fc2(self.fc1(pooled).swapaxes(1, 2)).swapaxes(1, 2)  # C to C in each view, 3 to 3 across them
        return nnx.softmax(logits.astype(param_dtype(self.dtype)), axis=1)

    def __call__(self, x):
        if self.fuse_views and not self.adaptive:
            return self.convolve(x, fuse_views(self.kernels(), self.coefficients(None)[0]))
        convolved = self.convolved_views(x)
        alpha = self.coefficients(convolved).astype(self.dtype)[:, :, None, None, None]  # [B, 3, 1, 1, 1, C]
        return sum(alpha[:, view] * y for view, y in enumerate(convolved))


class CoSTBottleneck(Bottleneck):
    """Bottleneck whose 3×3 convolution is the CoST operation; `cost` has the keywords of that."""

    def __init__(self, in_features, width, *, cost, **kwargs):
        def middle_conv(in_features, out_features, kernel_size, *, strides, groups, **layer):
            del kernel_size, groups  # CoST has a size of its own, and a single group
            return CoST(in_features, out_features, stride=strides[1], **cost, **layer)

        super().__init__(in_features, width, middle_conv=middle_conv, **kwargs)

    def coefficients(self, x):
        """α of this unit for its input `[B, T, H, W, C_in]`; see `CoST.coefficients`."""
        x = nnx.relu(self.bn1(self.conv1(x)))
        return self.conv2.coefficients(self.conv2.convolved_views(x) if self.conv2.adaptive else None)


class C2D(ResNet2D):
    """C2D, C3D and CoST (CoST Table 1) on ResNet-50 or 101.

    Args (and those of `ResNet2D`):
      kind: "c2d"; "c3d_3x1x1", the paper's C3D; "c3d_3x3x3"; "cost_a"; "cost_b".
      frames: 8, or 32, where the stem halves time twice so that the first stage still sees 8 frames.
      stem: for 32 frames: "5x7x7" (the authors' code) or "1x7x7" (the paper's text).
      pool: "paper" pools over 3 frames, padded; "code" over 1 and then 2, where C2D cannot see the order of 8 frames.
      kernel_size: k of the CoST operation.
      share_weights: one kernel for the three views, or three.
      fuse_views: see `CoST`.
    """

    depths = BOTTLENECK_LAYERS  # every unit is a bottleneck

    def __init__(
        self,
        depth,
        kind,
        *,
        frames=8,
        stem="5x7x7",
        pool="paper",
        kernel_size=3,
        share_weights=True,
        fuse_views=None,
        dropout=0.5,
        **resnet,
    ):
        check_choice("kind", kind, KINDS)
        check_choice("frames", frames, (8, 32))
        check_choice("stem", stem, ("5x7x7", "1x7x7"))
        check_choice("pool", pool, ("paper", "code"))
        if kind in TAPS and (kernel_size, share_weights, fuse_views) != (3, True, None):
            raise UserError(f"kernel_size, share_weights and fuse_views are of CoST's operation, which {kind} has not")
        self.kind, self.pool = kind, pool
        stem_taps = 5 if frames == 32 and stem == "5x7x7" else 1
        self.stem_stride = 2 if frames == 32 else 1  # in time, of the convolution and of the pool
        # The code's pools are not padded in time: each needs as many frames as it looks at.
        self.smallest = (1 if pool == "paper" else 2 if frames == 8 else 7, 5, 5)
        converted: Callable[..., Bottleneck]
        if kind in TAPS:
            converted = functools.partial(Bottleneck, taps=TAPS[kind])
        else:
            cost = {"kernel_size": kernel_size, "share_weights": share_weights, "fuse_views": fuse_views}
            converted = functools.partial(CoSTBottleneck, cost={**cost, "adaptive": kind == "cost_b"})

        def unit(number, index):
            del index
            return converted if number % 2 else Bottleneck  # every second unit of the network

        super().__init__(depth, dropout=dropout, unit=unit, stem_in_time=(stem_taps, self.stem_stride), **resnet)

    def stem_pool(self, x):
        if self.pool == "paper":
            return max_pool(x, (3, 3, 3), strides=(self.stem_stride, 2, 2), padding=((1, 1),) * 3)
        window = (self.stem_stride, 3, 3)
        return max_pool(x, window, strides=(self.stem_stride, 2, 2), padding=((0, 0), (1, 1), (1, 1)))

    def after(self, name, x):
        """The max pool over time that follows the first stage."""
        if name != "layer1":
            return x
        if self.pool == "paper":
            return max_pool(x, (3, 1, 1), strides=(2, 1, 1), padding=((1, 1), (0, 0), (0, 0)))
        return max_pool(x, (2, 1, 1), strides=(2, 1, 1), padding=((0, 0),) * 3)

    def coefficients(self, video):
        """α of every CoST unit in a forward pass in test mode (CoST §4.5).

        Returns:
          `{"layer1/1": [B, 3, C], …}`, of the views H-W, T-W and T-H.

        Raises:
          UserError: this is not a CoST network.
        """
        if self.kind in TAPS:
            raise UserError(f"{self.kind} has no views to weigh; cost_a and cost_b have")
        network = in_test_mode(self)
        x, alphas = network.stem(video)["pool"], {}
        for name in STAGES:
            for index, unit in enumerate(getattr(network, name)):
                if isinstance(unit, CoSTBottleneck):
                    alpha = unit.coefficients(x)
                    alphas[f"{name}/{index}"] = jnp.broadcast_to(alpha, (len(video), *alpha.shape[1:]))
                x = unit(x)
            x = self.after(name, x)
        return alphas
