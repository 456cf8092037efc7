"""Convolution, linear layer, batch normalisation and dropout, and the checks of input: what every network is made of.

Activations have the compute type `dtype`; parameters and statistics are float32, or float64 where `dtype` is.
Every layer but Dropout takes `dtype` and `rngs`, the source of initial values; modules made of layers pass both on as
`**layer`.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from jax_video.errors import UserError
from jax_video.models import convolution

# He et al. 2015; fan-out keeps the gradients' variance and is what Hara et al.'s networks start from.
he_normal_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
normal_001 = nnx.initializers.normal(0.01)


def param_dtype(dtype):
    """The type of parameters, statistics and logits under the compute type `dtype`: at least float32."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


class Conv(nnx.Module):
    """A 3D convolution over video, `[B, T, H, W, C_in]` to `[B, T', H', W', C_out]`.

    Args:
      in_features, out_features: channels.
      kernel_size, strides: in time, height and width.
      padding: zeros before and after, for time, height and width; or "SAME", which depends on the video's size.
      groups: channel groups that do not see each other ("cardinality" in ResNeXt).
    """

    def __init__(
        self,
        in_features,
        out_features,
        kernel_size,
        *,
        strides=(1, 1, 1),
        padding=((0, 0), (0, 0), (0, 0)),
        groups=1,
        use_bias=False,
        dtype=jnp.float32,
        kernel_init=he_normal_fan_out,
        rngs,
    ):
        shape = (*kernel_size, in_features // groups, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, param_dtype(dtype)))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros(out_features, param_dtype(dtype)))
        self.strides, self.groups = tuple(strides), groups
        self.padding = padding if padding == "SAME" else tuple(padding)
        self.use_bias, self.dtype = use_bias, dtype

    def __call__(self, x):
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        y = convolution.conv(x, kernel, strides=self.strides, padding=self.padding, groups=self.groups)
        return y + self.bias[...].astype(self.dtype) if self.use_bias else y


def padded_conv(in_features, out_features, kernel_size, *, strides=(1, 1, 1), **kwargs):
    """A `Conv` padded so that stride 1 keeps the size; an even kernel has one more zero after than before."""
    padding = tuple(((taps - 1) // 2, taps // 2) for taps in kernel_size)
    return Conv(in_features, out_features, kernel_size, strides=strides, padding=padding, **kwargs)


class Linear(nnx.Module):
    """A fully connected layer, `[..., in_features]` to `[..., out_features]`."""

    def __init__(
        self,
        in_features,
        out_features,
        *,
        use_bias=True,
        dtype=jnp.float32,
        kernel_init=normal_001,
        rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, out_features), param_dtype(dtype)))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros(out_features, param_dtype(dtype)))
        self.use_bias, self.dtype = use_bias, dtype

    def __call__(self, x):
        y = x.astype(self.dtype) @ self.kernel[...].astype(self.dtype)
        return y + self.bias[...].astype(self.dtype) if self.use_bias else y


class BatchNorm(nnx.Module):
    """Batch normalisation over video (Ioffe and Szegedy 2015): cross-replica, in groups of videos, or frozen.

    Mean and variance are taken over time, height, width and
      - the whole global batch (`group_size=None`): under `jax.jit` over a batch that is sharded over a mesh, this is
        cross-replica normalisation;
      - or each group of `group_size` consecutive videos.
    In training the running statistics move by `1 - momentum` towards the mean of the groups' statistics, where a
    group's variance is the unbiased one, as in PyTorch. The activations are normalised with the biased variance.

    Test mode, which uses the running statistics, is `nnx.view(model, use_running_average=True)`. A `frozen` layer is
    always in test mode, and its scale and offset get no gradient.

    Args:
      features: channels.
      group_size: videos per group; it must divide the batch.
      frozen: see above.
      epsilon: added to the variance.
      momentum: share of the running statistics that a step keeps.

    Raises:
      UserError: when called in training on a batch that does not divide into groups, or on groups of a single value,
        whose variance says nothing.
    """

    def __init__(
        self, features, *, group_size=None, frozen=False, epsilon=1e-5, momentum=0.9, dtype=jnp.float32, rngs=None
    ):
        del rngs  # nothing here is random; accepted so that all layers are built alike
        if group_size is not None and group_size < 1:
            raise UserError(
                f"BatchNorm got group_size={group_size}; expected None (the whole batch) or at least 1 video"
            )
        self.scale = nnx.Param(jnp.ones(features, param_dtype(dtype)))
        self.bias = nnx.Param(jnp.zeros(features, param_dtype(dtype)))
        self.mean = nnx.BatchStat(jnp.zeros(features, param_dtype(dtype)))
        self.var = nnx.BatchStat(jnp.ones(features, param_dtype(dtype)))
        self.group_size, self.frozen, self.epsilon, self.momentum = group_size, frozen, epsilon, momentum
        self.dtype, self.use_running_average = dtype, False

    def set_view(self, use_running_average: bool | None = None):
        """Set the mode, for `nnx.view`: True is test mode, False is training mode."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x):
        scale, bias = self.scale[...], self.bias[...]
        if self.frozen:
            scale, bias = jax.lax.stop_gradient((scale, bias))
        if self.frozen or self.use_running_average:
            return self._normalize(x, self.mean[...], self.var[...], scale, bias)

        batch = x.shape[0]
        size = batch if self.group_size is None else self.group_size
        if batch % size:
            raise UserError(
                f"BatchNorm with group_size={size} got a batch of {batch} videos, which leaves {batch % size} over. "
                f"Use a batch size that is a multiple of {size}, or another group_size."
            )
        groups = x.reshape(batch // size, size, *x.shape[1:])  # [G, g, T, H, W, C]
        if (count := groups[0, ..., 0].size) == 1:
            raise UserError(
                f"BatchNorm got features of shape {x.shape}, one value in each channel of a group of {size}; "
                "normalised by itself it is always 0. Train with more videos, longer clips or larger frames, or with "
                "frozen statistics."
            )
        mean, var = statistics(groups)  # [G, 1, 1, 1, 1, C]
        self._update(mean, var, count)
        return self._normalize(groups, mean, var, scale, bias).reshape(x.shape)

    def _normalize(self, x, mean, var, scale, bias):
        factor = jax.lax.rsqrt(var + self.epsilon) * scale
        offset = bias - mean * factor  # so that a single multiplication and addition pass over x
        return (x.astype(factor.dtype) * factor + offset).astype(self.dtype)

    def _update(self, mean, var, count):
        axes = tuple(range(mean.ndim - 1))
        mean, var = jax.lax.stop_gradient((mean.mean(axes), var.mean(axes)))
        unbiased = var * (count / (count - 1))
        # Not `self.mean[...] = …`, for which flax walks all that was traced before: minutes for a deep network.
        self.mean.set_value(self.momentum * self.mean[...] + (1 - self.momentum) * mean)
        self.var.set_value(self.momentum * self.var[...] + (1 - self.momentum) * unbiased)


class Dropout(nnx.Module):
    """Dropout of features `[B, ..., D]`: with probability `rate` zero in training, else scaled by 1 / (1 - rate).

    The mask of a video depends on its own key alone, so it is the same on any number of devices.

    Raises:
      UserError: a rate outside [0, 1), or called in training without keys.
    """

    def __init__(self, rate):
        if not 0 <= rate < 1:
            raise UserError(f"dropout={rate}; expected a probability of at least 0 and less than 1")
        self.rate, self.use_running_average = rate, False

    def set_view(self, use_running_average: bool | None = None):
        """Set the mode, for `nnx.view`: True is test mode, as in BatchNorm."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x, keys):
        """`x` after dropout. `keys` are `[B]` random keys, one for each video; None where nothing is dropped."""
        if self.use_running_average or not self.rate:
            return x
        if keys is None:
            raise UserError(
                f"this network drops {self.rate:.0%} of its features in training: call model(video, keys=keys) with "
                "one random key per video, jax.random.split(key, batch), or build it with dropout=0.0"
            )
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


class Frozen(nnx.BatchStat):
    """A constant of a network: no gradient, no weight decay. It is kept and saved with the running statistics."""


def freeze(network):
    """Make a network's parameters `Frozen`, in place. Its running statistics are constant in test mode only."""
    for _, module in nnx.iter_modules(network):
        for name, variable in list(vars(module).items()):
            if isinstance(variable, nnx.Param):
                setattr(module, name, Frozen(variable[...]))


_LOOK: contextvars.ContextVar[Callable | None] = contextvars.ContextVar("look", default=None)


def in_test_mode(network):
    """The network in test mode; one without BatchNorm and dropout is always the same."""
    return nnx.view(network, use_running_average=True, raise_if_not_found=False)


def output(name, x):
    """The output of a stage, `[B, T, H, W, C]` or a pair for two streams: `x`, or what `looking_inside` makes of it."""
    look = _LOOK.get()
    return x if look is None else look(name, x)


@contextlib.contextmanager
def looking_inside(look: Callable) -> Iterator[None]:
    """A context in which `look(name, x)` gets the output of every stage of a network, in order; what it returns takes
    the place of that output."""
    token = _LOOK.set(look)
    try:
        yield
    finally:
        _LOOK.reset(token)


def sequence(units, x):
    """The output of units applied one after the other: of a stage or a dense block."""
    for unit in units:
        x = unit(x)
    return x


def run(units, x, *, remat):
    """`sequence`; with `remat` the backward pass computes its activations again instead of keeping them."""
    return rematerialised(sequence, units, x) if remat else sequence(units, x)


def rematerialised(call, modules, *inputs):
    """`call(modules, *inputs)`, whose activations the backward pass computes again.

    Only the statistics that the call has set are written back to the modules. `nnx.remat` writes all variables, which
    fails where a network in test mode is called from within `jax.jit`.
    """
    graph, state = nnx.split(modules)

    def pure(state, *inputs):
        inside = nnx.merge(graph, state)
        before = jax.tree.leaves(nnx.state(inside, nnx.BatchStat))
        result = call(inside, *inputs)
        after = jax.tree.leaves(nnx.state(inside, nnx.BatchStat))
        changed = zip(before, after, strict=True)
        return result, {place: new for place, (old, new) in enumerate(changed) if new is not old}

    result, changed = jax.checkpoint(pure)(state, *inputs)
    if changed:
        leaves, structure = jax.tree.flatten(nnx.state(modules, nnx.BatchStat))
        leaves = [changed.get(place, leaf) for place, leaf in enumerate(leaves)]
        nnx.update(modules, jax.tree.unflatten(structure, leaves))
    return result


def statistics(groups):
    """Mean and biased variance of each group and channel: `[G, ..., C]` to a pair of `[G, 1 ..., C]`.

    In two passes, and for bfloat16 in float32: where the mean is large, the mean of squares minus the square of the
    mean would lose all digits.
    """
    groups = groups.astype(param_dtype(groups.dtype))
    axes = tuple(range(1, groups.ndim - 1))
    mean = groups.mean(axes, keepdims=True)
    return mean, jnp.square(groups - mean).mean(axes, keepdims=True)


def check_choice(name, value, choices):
    """Raise UserError, with the choices, unless `value` is one of them."""
    if value not in choices:
        raise UserError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}")


def check_positive(**values):
    """Raise UserError unless every value is above zero."""
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name}={value!r}; expected a number above zero")


def check_layers(layers, stages):
    """`layers` as a tuple; raises UserError unless it has a number of units for each stage."""
    layers = tuple(layers)
    if len(layers) != stages or min(layers) < 1:
        raise UserError(f"layers={layers}; expected {stages} numbers of at least 1, as in {(1,) * stages}")
    return layers


def check_video(video, *, smallest, channels=3):
    """Raise UserError unless this is `[B, T, H, W, channels]` of floats, large enough for a network's strides.

    Args:
      smallest: the smallest frames, height and width.
    """
    if video.ndim != 5 or video.shape[-1] != channels:
        raise UserError(
            f"got a video of shape {video.shape}; expected [batch, frames, height, width, {channels}], channels last. "
            "A single clip needs a leading axis of one; PyTorch's [B, C, T, H, W] needs a transposition."
        )
    if not jnp.issubdtype(video.dtype, jnp.floating):
        raise UserError(f"got a video of type {video.dtype}; expected floats, normalised by the data set's statistics")
    if any(size < least for size, least in zip(video.shape[1:4], smallest, strict=True)):
        frames, height, width = video.shape[1:4]
        raise UserError(
            f"got clips of {frames} frames of {height}×{width} pixels, of which the strides leave too little; expected "
            f"at least {smallest[0]} frames of {smallest[1]}×{smallest[2]}. Sample longer clips or resize to larger "
            "frames."
        )
