"""The 3D convolution and the 3D pools of every network.

How they are computed depends on the device, which is known when a program is lowered. On TPU they are XLA's own, on CPU
matrix products (`convolution_cpu`). On GPU a convolution has the formulation that a table gives for its kernel's shape
(`convolution_gpu`). All give the same result, and so do their gradients.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jax_video.errors import UserError
from jax_video.models.convolution_cpu import (
    AXES,
    conv_cpu,
    conv_gradients_cpu,
    max_pool_cpu,
    max_pool_gradient_cpu,
    shifts,
    wide,
)
from jax_video.models.convolution_gpu import conv_gpu, conv_gradients_gpu
from jax_video.models.convolution_xla import conv_gradients_xla, conv_xla, max_pool_gradient_xla, max_pool_xla
from jax_video.models.platforms import alone, by_platform, instead, traced


def conv(x, kernel, *, strides=(1, 1, 1), padding=((0, 0), (0, 0), (0, 0)), groups=1):
    """Convolve video with a 3D kernel (cross-correlation, without bias).

    Args:
      x: `[B, T, H, W, C_in]`, any float type.
      kernel: `[t, h, w, C_in / groups, C_out]`, cast to `x.dtype`.
      strides: in time, height and width.
      padding: zeros (before, after), for time, height and width; or "SAME" as in TensorFlow: as many as make the
        output ceil(size / stride) long, the odd one after.
      groups: output channels see only the input channels of their own group.

    Returns:
      `[B, T', H', W', C_out]` in `x.dtype`.

    Raises:
      UserError: `x` and `kernel` do not fit together, or the kernel is larger than the padded video.
    """
    if x.ndim != 5 or kernel.ndim != 5:
        raise UserError(
            f"conv got a video of shape {x.shape} and a kernel of shape {kernel.shape}; expected [B, T, H, W, C] and "
            "[t, h, w, C / groups, C_out]. Add the axes that are missing."
        )
    if kernel.shape[3] * groups != x.shape[4] or kernel.shape[4] % groups:
        raise UserError(
            f"conv got {x.shape[4]} channels in {groups} groups and a kernel of shape {kernel.shape}; expected "
            "[t, h, w, C / groups, C_out] with C_out divisible by groups. Change the kernel or the groups."
        )
    strides, padding = _checked(x, kernel.shape[:3], strides, padding)
    return _conv(x, kernel.astype(x.dtype), strides, padding, groups)


def max_pool(x, window, *, strides, padding):
    """Take the maximum over windows of video.

    Where maxima in a window are equal, the first in the order of (t, h, w) gets the gradient, as in PyTorch.

    Args:
      x: `[B, T, H, W, C]`.
      window: in time, height and width, as are strides and padding.
      strides: steps between windows.
      padding: places of minus infinity (before, after); or "SAME", as in `conv`.

    Returns:
      `[B, T', H', W', C]`.

    Raises:
      UserError: `x` is not video, or the window is larger than the padded video.
    """
    if x.ndim != 5:
        raise UserError(f"max_pool got shape {x.shape}; expected [B, T, H, W, C]. Add the axes that are missing.")
    return _max_pool(x, tuple(window), *_checked(x, window, strides, padding))


def avg_pool(x, window, *, strides):
    """Take the mean over windows of video, without padding: places that no whole window covers are dropped.

    Args:
      x: `[B, T, H, W, C]`.
      window: in time, height and width, as are the strides.

    Returns:
      `[B, T', H', W', C]`.

    Raises:
      UserError: `x` is not video, or the window is larger than it.
    """
    if x.ndim != 5:
        raise UserError(f"avg_pool got shape {x.shape}; expected [B, T, H, W, C]. Add the axes that are missing.")
    _checked(x, window, strides, ((0, 0),) * 3)
    total = wide(x)
    for axis, taps, stride in zip(AXES, window, strides, strict=True):
        total = functools.reduce(jnp.add, shifts(total, axis, taps, stride))
    return (total / math.prod(window)).astype(x.dtype)


@jax.custom_vjp
def whole_gradient(x, witness):
    """`x`, whose gradient on CPU is computed as a whole before anything reads it.

    Where a value has many readers, its gradient is a sum of many terms. XLA fuses such a sum into whatever reads the
    gradient, once for each reader: the program of a dense block, where every layer reads all earlier ones, would grow
    with the square of its layers (T3D-121 on CPU: half the instructions, 3/4 of the time to compile, 9/10 of a step).

    Args:
      x: any array.
      witness: any scalar whose value XLA cannot know while it compiles; the same on every device.
    """
    del witness
    return x


def _whole_gradient_forward(x, witness):
    return x, witness


def _whole_gradient_backward(witness, dx):
    return lax.platform_dependent(dx, witness, cpu=_whole, default=lambda dx, witness: dx), jnp.zeros_like(witness)


whole_gradient.defvjp(_whole_gradient_forward, _whole_gradient_backward)


def _whole(x, witness):
    """`x` behind a `cond`, which XLA's CPU backend does not fuse through; it drops optimization barriers first."""
    always = (witness <= 0) | ~(witness <= 0)
    return lax.cond(always, lambda x: x, jnp.zeros_like, x)


def _checked(x, window, strides, padding):
    if padding == "SAME":
        padding = lax.padtype_to_pads(x.shape[1:4], window, strides, padding)
    strides, padding = tuple(strides), tuple((before, after) for before, after in padding)
    padded = tuple(size + sum(pair) for size, pair in zip(x.shape[1:4], padding, strict=True))
    if any(size < taps for size, taps in zip(padded, window, strict=True)):
        raise UserError(
            f"a window of {tuple(window)} does not fit into a video of {x.shape[1:4]} padded to {padded} (frames, "
            "height, width). Use longer or larger clips, or a network with fewer strides."
        )
    return strides, padding


def plain():
    """A context in which convolutions and max pools are traced as XLA's own on every platform. These need not know the
    height and width of videos, and are slow on CPU."""
    return instead({"conv": alone(conv_xla), "max_pool": alone(max_pool_xla)})


# The form of each platform --------------------------------------------------------------------------------------------

_conv_form = by_platform(
    "conv",
    forms={"cpu": alone(conv_cpu), "gpu": alone(conv_gpu)},
    default=alone(conv_xla),
    outputs=traced(alone(conv_xla)),
)
_conv_gradients_form = by_platform(
    "conv_gradients",
    forms={"cpu": conv_gradients_cpu, "gpu": conv_gradients_gpu},
    default=conv_gradients_xla,
    outputs=lambda x, kernel, dy, **_: (x, kernel),
)
_max_pool_form = by_platform(
    "max_pool",
    forms={"cpu": alone(max_pool_cpu)},
    default=alone(max_pool_xla),
    outputs=traced(alone(max_pool_xla)),
)
_max_pool_gradient_form = by_platform(
    "max_pool_gradient",
    forms={"cpu": alone(max_pool_gradient_cpu)},
    default=alone(max_pool_gradient_xla),
    outputs=lambda x, dy, **_: (x,),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, kernel, strides, padding, groups):
    return _conv_form(x, kernel, strides=strides, padding=padding, groups=groups)[0]


def _conv_forward(x, kernel, strides, padding, groups):
    return _conv(x, kernel, strides, padding, groups), (x, kernel)


def _conv_backward(strides, padding, groups, residuals, dy):
    return _conv_gradients_form(*residuals, dy, strides=strides, padding=padding, groups=groups)


_conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, strides, padding):
    return _max_pool_form(x, window=window, strides=strides, padding=padding)[0]


def _max_pool_forward(x, window, strides, padding):
    return _max_pool(x, window, strides, padding), x


def _max_pool_backward(window, strides, padding, x, dy):
    return _max_pool_gradient_form(x, dy, window=window, strides=strides, padding=padding)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
