"""The 3D convolution and the 3D max pool on CPU, as matrix products and as maxima of slices.

On CPU XLA lowers 3D convolutions to loops that take 2 to 90 times PyTorch's time, while its matrix products run at full
speed. So here a convolution and its two gradients are one matrix product each, by two operations that are each other's
transpose:

  gather: along some axes, the taps of the kernel become input channels: `[..., T, H, W, C]` to
    `[..., T', H', W', t h w C]` (im2col);
  fold: along the other axes, the product has one output channel per tap, which is added to the place that the tap
    belongs to (col2im).

Which axis is gathered and which is folded decides how much memory moves and how much is computed in vain. The forward
pass gathers height and width and folds time: the patches are t times smaller than with all three axes gathered (3x3x3
at 64 channels: 3 times as fast). With a temporal stride, folding computes frames that are then dropped: short kernels
gather all three axes (3 taps at stride 2: twice as fast), long ones fold all the same (7 taps: 3 times as fast). The
input gradient folds the axes with a stride, so that no zero is multiplied (stride 2: 20 times as fast as XLA's), and
gathers the others.

Where the forward pass folds time and frames are not small, XLA's 2D convolution of a frame takes the place of patches
and product: the same sums, and a network's test takes up to a quarter less time. It gains nothing in the gradients, nor
with kernels that are flat along one axis of a frame.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_TIME, *_ = AXES = (-4, -3, -2)  # time, height and width
_GROUP_WIDTH = 16  # narrower channel groups are computed together: the matrix product of 4 channels is all overhead
_FEW_PLACES = 49  # places of a frame below which XLA's 2D convolution is slower than patches and a product
_PATCH_BYTES = 2**24  # of patches at a time: these stay in the cache; larger ones cost more to allocate than to use


def conv_cpu(x, kernel, *, strides, padding, groups):
    """`conv` as matrix products, or as 2D convolutions: see the top of this file."""
    if _computes_every_frame(kernel.shape[0], strides):
        every_frame = conv_cpu(x, kernel, strides=(1, *strides[1:]), padding=padding, groups=groups)
        return every_frame[:, :: strides[0]]
    dtype = x.dtype
    used, padding = _used_taps(x.shape, kernel.shape, strides, padding)
    if groups == 1 and _convolves_frames(x.shape, kernel[used].shape, strides, padding):
        return _conv_frames(wide(x), wide(kernel[used]), strides, padding).astype(dtype)
    kernel = _blocks(wide(kernel[used]), groups)
    x = _split(wide(x), len(kernel))  # [S, B, T, H, W, C / S]
    blocks, t, h, w, _, features = kernel.shape
    length = (x.shape[_TIME] + sum(padding[0]) - t) // strides[0] + 1
    if _folds_time(t, strides):
        # Tap k of frame i belongs to frame i + padding - k; the flipped kernel makes that i + k - before.
        matrix, folded, before = jnp.moveaxis(kernel[:, ::-1], 1, 4), t, t - 1 - padding[0][0]
        window, padding = (1, h, w), ((0, 0), *padding[1:])
    else:
        matrix, folded, before, window = kernel, 1, 0, (t, h, w)
    matrix = matrix.reshape(blocks, -1, folded * features)

    def add(frame, patches, y):
        z = _product(patches, matrix)
        z = _fold(z, _TIME, folded, 1, 0, z.shape[_TIME] + folded - 1)
        z += lax.dynamic_slice_in_dim(y, frame, z.shape[_TIME], y.ndim + _TIME)
        return lax.dynamic_update_slice_in_dim(y, z, frame, y.ndim + _TIME)

    frames, height, width = _places(x.shape[_TIME:-1], window, strides, padding)
    y = jnp.zeros((*x.shape[:2], frames + folded - 1, height, width, features), x.dtype)
    y = _over_patches(x, window, strides, padding, y, add)
    y = _pad(y, ((-before, length + before - y.shape[_TIME]), (0, 0), (0, 0)))
    return _join(y).astype(dtype)


def _convolves_frames(shape, kernel, strides, padding):
    _, height, width = _places(shape[1:4], kernel[:3], strides, padding)
    return _folds_time(kernel[0], strides) and min(kernel[1:3]) > 1 and height * width >= _FEW_PLACES


def _conv_frames(x, kernel, strides, padding):
    """The convolution of one frame after another with all temporal taps as output channels, each added to its frame."""
    t, h, w, channels, features = kernel.shape
    taps = jnp.moveaxis(kernel[::-1], 0, 3).reshape(h, w, channels, t * features)

    def add(frame, y):
        image = lax.dynamic_index_in_dim(x, frame, 1, keepdims=False)
        z = lax.conv_general_dilated(image, taps, strides[1:], padding[1:], dimension_numbers=("NHWC", "HWIO", "NHWC"))
        z = jnp.moveaxis(z.reshape(*z.shape[:-1], t, features), -2, 1)  # [B, t, H', W', C_out]
        z += lax.dynamic_slice_in_dim(y, frame, t, 1)
        return lax.dynamic_update_slice_in_dim(y, z, frame, 1)

    frames = x.shape[1]
    _, height, width = _places(x.shape[1:4], (1, h, w), strides, ((0, 0), *padding[1:]))
    y = jnp.zeros((x.shape[0], frames + t - 1, height, width, features), x.dtype)
    y = lax.fori_loop(0, frames, add, y)
    before, length = t - 1 - padding[0][0], frames + sum(padding[0]) - t + 1
    return _pad(y, ((-before, length + before - y.shape[1]), (0, 0), (0, 0)))


def conv_gradients_cpu(x, kernel, dy, *, strides, padding, groups):
    """The gradients of `conv` with respect to `x` and `kernel`, as matrix products; dy is `[B, T', H', W', C_out]`."""
    used, padding = _used_taps(x.shape, kernel.shape, strides, padding)
    blocks, from_blocks = jax.vjp(lambda kernel: _blocks(wide(kernel[used]), groups), kernel)
    wide_x, dy = _split(wide(x), len(blocks)), _split(wide(dy), len(blocks))
    dx = _input_gradient(wide_x.shape, blocks, dy, strides, padding)
    (dkernel,) = from_blocks(_kernel_gradient(wide_x, blocks.shape, dy, strides, padding))
    return _join(dx).astype(x.dtype), dkernel


def _input_gradient(shape, kernel, dy, strides, padding):
    folded = [axis for axis in range(3) if axis == 0 or strides[axis] > 1]
    gathered = [axis for axis in range(3) if axis not in folded]
    taps = kernel.shape[1:4]
    matrix = jnp.flip(kernel, [1 + axis for axis in gathered])
    matrix = matrix.transpose(0, *(1 + axis for axis in gathered), 5, *(1 + axis for axis in folded), 4)
    matrix = matrix.reshape(len(kernel), math.prod(taps[axis] for axis in gathered) * kernel.shape[5], -1)
    window, reach = [1, 1, 1], [(0, 0)] * 3
    for axis in gathered:
        before = taps[axis] - 1 - padding[axis][0]
        window[axis], reach[axis] = taps[axis], (before, shape[2 + axis] - dy.shape[2 + axis] + padding[axis][0])
    z = _product(_gather(dy, window, (1, 1, 1), reach), matrix)
    for axis in folded:
        z = _fold(z, AXES[axis], taps[axis], strides[axis], padding[axis][0], shape[2 + axis])
    return z


def _kernel_gradient(x, shape, dy, strides, padding):
    blocks, t, h, w, channels, features = shape
    if _computes_every_frame(t, strides):
        between = [(0, 0, 0)] * dy.ndim
        dropped = (x.shape[_TIME] + sum(padding[0]) - t) % strides[0]  # frames after the last one that is kept
        between[_TIME] = (0, dropped, strides[0] - 1)
        dy, strides = lax.pad(dy, jnp.zeros((), dy.dtype), between), (1, *strides[1:])
    folded, window = 1, (t, h, w)
    if _folds_time(t, strides):  # the fold's transpose: gather the frames of dy, rather than t times more of x
        before, after = t - 1 - padding[0][0], x.shape[_TIME] - dy.shape[_TIME] + padding[0][0]
        dy = _pad(dy, ((before, after), (0, 0), (0, 0)))
        folded, window, padding = t, (1, h, w), ((0, 0), *padding[1:])
    dy = lax.optimization_barrier(jnp.moveaxis(dy, -1, 1))  # [S, N, B, T, H, W]

    def add(frame, patches, gradient):
        count = patches.shape[_TIME]
        seen = [lax.dynamic_slice_in_dim(dy, frame + tap, count, 3) for tap in range(folded)]
        return gradient + _outer(patches, jnp.concatenate(seen, axis=1))

    gradient = jnp.zeros((blocks, math.prod(window) * channels, folded * features), x.dtype)
    gradient = _over_patches(x, window, strides, padding, gradient, add)
    if folded > 1:
        gradient = jnp.moveaxis(gradient.reshape(blocks, h, w, channels, t, features), 4, 1)[:, ::-1]
    return gradient.reshape(shape)


def _folds_time(taps, strides):
    return taps > 1 and strides[0] == 1


def _computes_every_frame(taps, strides):
    """Whether folding is worth it although only every `strides[0]`-th frame is kept."""
    return strides[0] > 1 and taps > 2 * strides[0]


def _product(patches, matrix):  # [S, B, T, H, W, K] x [S, K, N]
    return jnp.einsum("sbthwk,skn->sbthwn", patches, matrix)


def _outer(patches, dy):
    """The sum over places of `[S, B, T, H, W, K]` times `[S, N, B, T, H, W]`: `[S, K, N]`."""
    # XLA's product takes twice as long unless its left side's rows are contiguous: dy's are; few patches are made so.
    if math.prod(patches.shape[1:5]) < dy.shape[1]:
        patches = lax.optimization_barrier(jnp.moveaxis(patches, -1, 1))
        return jnp.einsum("skbthw,snbthw->skn", patches, dy)
    return jnp.einsum("snbthw,sbthwk->snk", dy, patches).swapaxes(1, 2)


def _over_patches(x, window, strides, padding, total, add):
    """Run `total = add(first frame, patches, total)` once for all frames or, if patches are large, frame by frame."""
    x = _pad(x, padding)
    frames, height, width = _places(x.shape[_TIME:-1], window, strides, ((0, 0),) * 3)
    size = frames * height * width * math.prod((*x.shape[:2], *window, x.shape[-1])) * x.dtype.itemsize

    def turn(frame, total, count=1):
        reach = (count - 1) * strides[0] + window[0]
        part = lax.dynamic_slice_in_dim(x, frame * strides[0], reach, x.ndim + _TIME)
        return add(frame, _gather(part, window, strides), total)

    few = isinstance(size, int) and size <= _PATCH_BYTES  # unknown where the batch may have any size, as in exports
    if few or math.prod(window) == 1:  # patches of one place are the video itself
        return turn(0, total, frames)
    return lax.fori_loop(0, frames, turn, total)


def _places(shape, window, strides, padding):
    sizes = zip(shape, window, strides, padding, strict=True)
    return tuple((size + sum(pair) - taps) // stride + 1 for size, taps, stride, pair in sizes)


def _gather(x, window, strides, padding=((0, 0),) * 3):
    """`[S, B, T, H, W, C]` to `[S, B, T', H', W', t h w C]`, one axis after another: fewer and longer copies."""
    x = lax.optimization_barrier(_pad(x, padding))
    for axis, taps, stride in reversed(list(zip(AXES, window, strides, strict=True))):
        x = jnp.concatenate(shifts(x, axis, taps, stride), axis=-1)
    return x


def shifts(x, axis, taps, stride):
    """What each tap of a window sees of `x` along `axis`, at all places of the window: one array for each tap."""
    axis %= x.ndim
    reach = (x.shape[axis] - taps) // stride * stride + 1
    return [lax.slice_in_dim(x, tap, tap + reach, stride, axis) for tap in range(taps)]


def _fold(z, axis, taps, stride, before, size):
    """`[..., n, ..., taps C]` to `[..., size, ..., C]`: adds tap k of place i to place i * stride + k - before."""
    axis %= z.ndim
    reach = -(-taps // stride) - 1  # how many places more than n are reached, in strides
    places = z.shape[axis] + reach
    if stride == z.shape[axis] == 1:  # nothing to add: each tap has a place of its own
        y = jnp.moveaxis(z.reshape(*z.shape[:-1], taps, -1), -2, axis)
    else:
        margin = [(0, 0)] * z.ndim
        margin[axis] = (reach, reach)
        z = jnp.split(lax.optimization_barrier(jnp.pad(z, margin)), taps, axis=-1)
        phases: list[Any] = []  # the places congruent modulo the stride
        for phase in range(stride):
            terms = [
                lax.slice_in_dim(z[tap], reach - shift, reach - shift + places, 1, axis)
                for shift, tap in enumerate(range(phase, taps, stride))
            ]
            phases.append(sum(terms) if terms else jnp.zeros_like(phases[0]))
        y = jnp.stack(phases, axis + 1)
    y = y.reshape(*y.shape[:axis], places * stride, *y.shape[axis + 2 :])
    edges = [(0, 0, 0)] * y.ndim
    edges[axis] = (-before, size + before - places * stride, 0)
    return lax.pad(y, jnp.zeros((), y.dtype), edges)


def _pad(x, padding, value=0.0):
    """Pad time, height and width; negative padding crops."""
    margin = ((0, 0, 0),) * (x.ndim - 4) + tuple((*pair, 0) for pair in padding) + ((0, 0, 0),)
    return lax.pad(x, jnp.array(value, x.dtype), margin)


def _used_taps(video, kernel, strides, padding):
    """The taps that meet more than padding (of a last stage of one frame, one of three), and the padding they need."""
    used, remaining = [], []
    for axis, (stride, (before, after)) in enumerate(zip(strides, padding, strict=True)):
        size, taps = video[1 + axis], kernel[axis]
        starts = range(-before, size + after - taps + 1, stride)
        meeting = [tap for tap in range(taps) if any(0 <= start + tap < size for start in starts)] or [0]
        used.append(slice(meeting[0], meeting[-1] + 1))
        remaining.append((before - meeting[0], starts[-1] + meeting[-1] + 1 - size))
    return tuple(used), tuple(remaining)


def _blocks(kernel, groups):
    """`[t, h, w, c, N]` to `[S, t, h, w, C / S, N / S]`: S dense kernels, block-diagonal where they merge groups."""
    merged = 1
    while groups % (2 * merged) == 0 and kernel.shape[3] * merged < _GROUP_WIDTH:
        merged *= 2
    t, h, w, channels, _ = kernel.shape
    blocks = groups // merged
    kernel = jnp.moveaxis(kernel.reshape(t * h * w, channels, blocks, merged, -1), 2, 0)[:, :, None]
    # [S, t h w, 1, c, m, n] times [m, 1, m, 1]. With t, h and w apart there are eight axes, and the code that
    # XLA's CPU compiler makes of the gradient's sum crashes.
    kernel = kernel * jnp.eye(merged, dtype=kernel.dtype)[:, None, :, None]
    return kernel.reshape(blocks, t, h, w, merged * channels, -1)


def _split(x, blocks):  # [B, T, H, W, C] -> [S, B, T, H, W, C / S]
    return jnp.moveaxis(x.reshape(*x.shape[:-1], blocks, -1), -2, 0)


def _join(x):  # [S, B, T, H, W, C / S] -> [B, T, H, W, C]
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)


def wide(x):
    """`x` in float32 at least, in which sums over taps are taken: half precision is also emulated, so slow, on CPU."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


# Max pool ----------------------------------------------------------------------------------------------------------


def max_pool_cpu(x, *, window, strides, padding):
    return _pool_stages(x, window, strides, padding)[-1]


def max_pool_gradient_cpu(x, dy, *, window, strides, padding):
    """The gradient of `max_pool` with respect to `x`, back through the three separable maxima one by one."""
    stages = _pool_stages(x, window, strides, padding)
    for axis in (0, 1, 2):
        before, after = stages[2 - axis], stages[3 - axis]
        taken, parts = jnp.zeros(after.shape, bool), []
        for value in shifts(before, AXES[axis], window[axis], strides[axis]):
            parts.append(jnp.where((value == after) & ~taken, dy, jnp.zeros_like(dy)))
            taken |= value == after
        dy = _fold(jnp.concatenate(parts, axis=-1), AXES[axis], window[axis], strides[axis], 0, before.shape[1 + axis])
    return _pad(dy, [(-before, -after) for before, after in padding])


def _pool_stages(x, window, strides, padding):
    """The padded video, and its maxima over width, then height, then time: 4 times as fast as over a window at once."""
    stages = [_pad(x, padding, -jnp.inf)]
    for axis in (2, 1, 0):
        stages.append(functools.reduce(jnp.maximum, shifts(stages[-1], AXES[axis], window[axis], strides[axis])))
    return stages
