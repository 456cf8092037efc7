"""The 3D convolution and the 3D max pool as XLA has them, each one operation; and gradients of any form of `conv`."""

import jax
import jax.numpy as jnp
from jax import lax

_DIMENSIONS = ("NTHWC", "THWIO", "NTHWC")


def conv_xla(x, kernel, *, strides, padding, groups):
    """`[B, T, H, W, C]` and `[t, h, w, C / groups, N]` to `[B, T', H', W', N]`."""
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=_DIMENSIONS, feature_group_count=groups
    )


def conv_gradients_xla(x, kernel, dy, **options):
    """The gradients of `conv` with respect to `x` and `kernel`, as XLA has them."""
    return input_gradient(conv_xla, x, kernel, dy, **options), kernel_gradient(conv_xla, x, kernel, dy, **options)


def input_gradient(form, x, kernel, dy, **options):
    """The gradient with respect to `x` of a `form` of `conv`: `[B, T, H, W, C]`. Only the shape of `x` is read."""
    return jax.linear_transpose(lambda x: form(x, kernel, **options), x)(dy)[0]


def kernel_gradient(form, x, kernel, dy, **options):
    """The gradient with respect to `kernel` of a `form` of `conv`: `[t, h, w, C / groups, N]`."""
    return jax.linear_transpose(lambda kernel: form(x, kernel, **options), kernel)(dy)[0]


def max_pool_xla(x, *, window, strides, padding):
    """`[B, T, H, W, C]` to `[B, T', H', W', C]`."""
    padding = ((0, 0), *padding, (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), padding)


def max_pool_gradient_xla(x, dy, **options):
    """The gradient of `max_pool` with respect to `x`."""
    return jax.vjp(lambda x: max_pool_xla(x, **options), x)[1](dy)[0]
