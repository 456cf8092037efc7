"""The 3D convolution on GPU: as a matrix product, as 2D convolutions, or as XLA's own, by a table.

Matrix products and 2D convolutions in bfloat16 are fast on every GPU. 3D convolutions may not be: XLA gives them
channels-last layouts on Hopper and newer cards only, their gradients in bfloat16 have taken 30 times PyTorch's time
(openxla/xla #34273), and cuDNN has had no algorithm for some (jax #37922). So here are several formulations of the same
convolution. Each is exact: it computes the same sums, in another order. Each is linear in the video and in the kernel,
and its gradients are its transposes.

`CHOICES` says which formulation is used for which convolution; `bash benchmarks/gpu.sh c` measures them.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jax_video.models.convolution_cpu import wide
from jax_video.models.convolution_xla import conv_xla, input_gradient, kernel_gradient

_FEW_CHANNELS = 4  # RGB and flow's x and y: too few for tensor cores


def conv_gpu(x, kernel, *, groups, **options):
    """`conv` in the formulation that `CHOICES` has for it."""
    form = FORMULATIONS[choice(kernel.shape, x.dtype, groups).forward]
    return form(x, kernel, groups=groups, **options)


def conv_gradients_gpu(x, kernel, dy, *, groups, **options):
    """The gradients of `conv` with respect to `x` and `kernel`, each in a formulation of its own."""
    chosen = choice(kernel.shape, x.dtype, groups)
    return (
        input_gradient(FORMULATIONS[chosen.input_gradient], x, kernel, dy, groups=groups, **options),
        kernel_gradient(FORMULATIONS[chosen.kernel_gradient], x, kernel, dy, groups=groups, **options),
    )


# Formulations: functions from video [B, T, H, W, C] and kernel [t, h, w, C / groups, N] to [B, T', H', W', N] ---------


def matrix_product(x, kernel, *, strides, padding, groups):
    """1×1×1: the product of `[B T' H' W', C]` and `[C, N]`, or of each group's channels with its own matrix."""
    for axis in range(3):
        x = _seen(x, axis, 0, 1, strides, padding)
    if groups == 1:
        return jnp.einsum("bthwc,cn->bthwn", x, kernel[0, 0, 0])
    x = x.reshape(*x.shape[:-1], groups, -1)
    y = jnp.einsum("bthwgc,cgn->bthwgn", x, kernel.reshape(kernel.shape[3], groups, -1))
    return y.reshape(*y.shape[:-2], -1)


def one_axis_in_batch(x, kernel, *, strides, padding, groups):
    """1×k×k, k×1×k or k×k×1, CoST's views: one 2D convolution; the axis with a single tap joins the batch.

    1×k×k is a 2D convolution of `[B T, H, W, C]`, and no data moves. The other two transpose the video first.
    """
    axis = kernel.shape[:3].index(1)
    x = jnp.moveaxis(_seen(x, axis, 0, 1, strides, padding), 1 + axis, 1)  # [B, S, P, Q, C]
    strides, padding = (tuple(option[:axis]) + tuple(option[axis + 1 :]) for option in (strides, padding))
    y = _conv2d(x.reshape(-1, *x.shape[2:]), jnp.squeeze(kernel, axis), strides, padding, groups)
    return jnp.moveaxis(y.reshape(*x.shape[:2], *y.shape[1:]), 1, 1 + axis)


def places_in_a_row(x, kernel, *, strides, padding, groups):
    """k×1×1: one 2D convolution of `[B, T, H' W', C]`, with a kernel of k×1. No data moves."""
    for axis in (1, 2):
        x = _seen(x, axis, 0, 1, strides, padding)
    y = _conv2d(x.reshape(*x.shape[:2], -1, x.shape[-1]), kernel[:, 0], (strides[0], 1), (padding[0], (0, 0)), groups)
    return y.reshape(*y.shape[:2], *x.shape[2:4], -1)


def taps_as_inputs(x, kernel, *, strides, padding, groups):
    """k×k×k: one 2D convolution whose input channels are (time tap, channel): it copies the video t times."""
    t, h, w, channels, features = kernel.shape
    frames = [_seen(x, 0, tap, t, strides, padding) for tap in range(t)]
    x = jnp.concatenate(
        [part.reshape(*part.shape[:-1], groups, channels) for part in frames], axis=-1
    )  # [B, T', H, W, groups, t C / groups]: a group's channels stay together
    kernel = jnp.moveaxis(kernel, 0, 2).reshape(h, w, t * channels, features)
    return _over_frames(x.reshape(*x.shape[:4], -1), kernel, strides, padding, groups)


def taps_as_outputs(x, kernel, *, strides, padding, groups):
    """k×k×k: one 2D convolution whose output channels are (time tap, channel), then a sum of t shifted frames.

    With a stride in time it also computes frames that no tap reads.
    """
    t, h, w, channels, features = kernel.shape
    kernel = jnp.moveaxis(kernel.reshape(t, h, w, channels, groups, -1), 0, 4)  # [h, w, C / groups, groups, t, n]
    z = _over_frames(x, kernel.reshape(h, w, channels, t * features), strides, padding, groups)
    z = z.reshape(*z.shape[:4], groups, t, -1)
    parts = [z[:, :, :, :, :, tap].reshape(*z.shape[:4], features) for tap in range(t)]
    return _sum([_seen(part, 0, tap, t, strides, padding) for tap, part in enumerate(parts)])


def sum_over_taps(x, kernel, *, strides, padding, groups):
    """k×k×k: the sum of t 2D convolutions, one for each time tap."""
    frames = [_seen(x, 0, tap, len(kernel), strides, padding) for tap in range(len(kernel))]
    return _sum([_over_frames(part, kernel[tap], strides, padding, groups) for tap, part in enumerate(frames)])


FORMULATIONS: dict[str, Callable] = {
    "xla": conv_xla,
    "matrix product": matrix_product,
    "one axis in batch": one_axis_in_batch,
    "places in a row": places_in_a_row,
    "taps as inputs": taps_as_inputs,
    "taps as outputs": taps_as_outputs,
    "sum over taps": sum_over_taps,
}


def applies(name: str, kernel: tuple[int, ...]) -> bool:
    """Whether a formulation can compute convolutions with a kernel `[t, h, w, C / groups, N]` of this shape."""
    extent = kernel[:3]
    if name == "matrix product":
        return extent == (1, 1, 1)
    if name == "one axis in batch":
        return 1 in extent
    if name == "places in a row":
        return extent[1:] == (1, 1)
    return name == "xla" or extent[0] > 1  # formulations of taps: more than one in time


# The choice -----------------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """The formulations of a convolution's three passes."""

    forward: str
    input_gradient: str
    kernel_gradient: str


# Keys are a `shape_class` and the name of a type that needs its own choice, or None for all other types.
# Not yet measured on any GPU: what should be fast on any device, and XLA's own for the rest.
CHOICES: dict[tuple[str, str | None], Choice] = {
    ("1×1×1", None): Choice(*["matrix product"] * 3),
    ("1×k×k", None): Choice(*["one axis in batch"] * 3),
    ("k×1×k", None): Choice(*["one axis in batch"] * 3),
    ("k×k×1", None): Choice(*["one axis in batch"] * 3),
    ("k×1×1", None): Choice(*["places in a row"] * 3),
    ("k×k×k", None): Choice(*["xla"] * 3),
    ("k×k×k, few channels", None): Choice(*["xla"] * 3),
    ("k×k×k, groups", None): Choice(*["xla"] * 3),
}


def shape_class(kernel: tuple[int, ...], groups: int) -> str:
    """The first part of the keys of `CHOICES`, "1×1×1", "1×k×k", …, for a kernel `[t, h, w, C / groups, N]`."""
    t, h, w = ("1" if taps == 1 else "k" for taps in kernel[:3])
    if (t, h, w) in (("1", "1", "k"), ("1", "k", "1")):
        return "1×k×k"
    if (t, h, w) != ("k", "k", "k"):
        return f"{t}×{h}×{w}"
    return "k×k×k, groups" if groups > 1 else "k×k×k, few channels" if kernel[3] <= _FEW_CHANNELS else "k×k×k"


def choice(kernel: tuple[int, ...], dtype, groups: int) -> Choice:
    """The formulations for a kernel `[t, h, w, C / groups, N]` of this shape, in this type."""
    name = shape_class(kernel, groups)
    return CHOICES.get((name, jnp.dtype(dtype).name)) or CHOICES[name, None]


# Parts ----------------------------------------------------------------------------------------------------------------


def _conv2d(x, kernel, strides, padding, groups):  # [B, H, W, C], [h, w, C / groups, N]
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, feature_group_count=groups
    )


def _over_frames(x, kernel, strides, padding, groups):
    """A 2D convolution of every frame: `[B, T, H, W, C]` and `[h, w, C / groups, N]` to `[B, T, H', W', N]`."""
    y = _conv2d(x.reshape(-1, *x.shape[2:]), kernel, strides[1:], padding[1:], groups)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _seen(x, axis, tap, taps, strides, padding):
    """What one tap of a window sees of `[B, T, H, W, C]`, at all its places along time, height or width (0, 1 or 2)."""
    margin = [(0, 0, 0)] * x.ndim
    margin[1 + axis] = (*padding[axis], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), margin)
    reach = (x.shape[1 + axis] - taps) // strides[axis] * strides[axis] + 1
    return lax.slice_in_dim(x, tap, tap + reach, strides[axis], 1 + axis)


def _sum(terms):
    """The sum of terms, computed in float32 at least, in the type of the terms."""
    return functools.reduce(operator.add, map(wide, terms)).astype(terms[0].dtype)
