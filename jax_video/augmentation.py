"""Augmentation of training videos, on the device: colour jitter, RandAugment and random erasing.

Each is drawn once per video and is the same in all its frames, so that what stands still goes on standing still. For
the same reason, statistics of the colours (mean, extremes, histogram) are taken over all frames together. Pixels are 8
bits before and after every operation, as in torchvision. The results equal those of torchvision's functions on one tall
picture of all frames, one below the other.

Zhong et al. 2020, "Random Erasing Data Augmentation"; Cubuk et al. 2020, "RandAugment: Practical automated data
augmentation with a reduced search space", with the operations and magnitudes of torchvision.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jax_video.errors import UserError

Streams = dict[str, jax.Array]  # "rgb", uint8 [T, H, W, 3], "flow", uint8 [T, H, W, 20], or both
BINS = 31  # magnitudes of RandAugment, 0 to 30
_AREA, _ASPECT, _TRIES = (0.02, 0.33), (0.3, 3.3), 10  # erased box: share of the frame, height / width, most tries
_STILL = 128  # in flow: no motion
_FLOAT = jnp.float32  # whatever dtype the network computes in


def _gray(rgb: jax.Array) -> jax.Array:
    """Grey from RGB, as in torchvision: uint8 [T, H, W, 3] -> uint8 [T, H, W, 1]."""
    red, green, blue = jnp.split(rgb.astype(_FLOAT), 3, axis=-1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).astype(jnp.uint8)


def _blend(rgb: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
    """factor · rgb + (1 - factor) · other, in 8 bits: 0 gives `other`, 1 gives RGB, above 1 lies beyond RGB."""
    return jnp.clip(factor * rgb.astype(_FLOAT) + (1 - factor) * other, 0, 255).astype(jnp.uint8)


def brightness(rgb: jax.Array, factor: jax.Array) -> jax.Array:
    """Change the brightness of RGB, uint8 [T, H, W, 3]: factor 0 gives black, 1 changes nothing."""
    return _blend(rgb, jnp.zeros((), _FLOAT), factor)


def contrast(rgb: jax.Array, factor: jax.Array) -> jax.Array:
    """Change the contrast of RGB, uint8 [T, H, W, 3]: factor 0 gives the mean grey of all frames, 1 changes nothing."""
    sums = jnp.sum(_gray(rgb), axis=(1, 2, 3), dtype=jnp.int32)  # integers: the order of adding does not matter
    return _blend(rgb, jnp.mean(sums.astype(_FLOAT)) / (rgb.shape[1] * rgb.shape[2]), factor)


def saturation(rgb: jax.Array, factor: jax.Array) -> jax.Array:
    """Change the saturation of RGB, uint8 [T, H, W, 3]: factor 0 gives grey, 1 changes nothing."""
    return _blend(rgb, _gray(rgb).astype(_FLOAT), factor)


def hue(rgb: jax.Array, shift: jax.Array) -> jax.Array:
    """Rotate the hue (of HSV) of RGB, uint8 [T, H, W, 3], by `shift` of a full circle, -0.5 to 0.5."""
    pixels = rgb.astype(_FLOAT) / 255
    most, least = pixels.max(axis=-1, keepdims=True), pixels.min(axis=-1, keepdims=True)
    red, green, blue = jnp.split(pixels, 3, axis=-1)
    spread = jnp.where(most == least, 1, most - least)
    sixths = jnp.where(
        most == red,
        (green - blue) / spread,
        jnp.where(most == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    place = (jnp.array([5, 3, 1], _FLOAT) + 6 * ((sixths / 6 + shift) % 1)) % 6
    turned = most - (most - least) * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)
    return jnp.floor(turned * 255.999).astype(jnp.uint8)


def sharpness(rgb: jax.Array, factor: jax.Array) -> jax.Array:
    """Change the sharpness of RGB, uint8 [T, H, W, 3]: factor 0 smooths by 3×3, 1 changes nothing; borders stay."""
    whole = jnp.asarray(rgb, jnp.int32)
    height, width = rgb.shape[1:3]
    if min(height, width) < 3:
        return rgb
    around = sum(whole[:, y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3))
    smooth = (2 * (around + 4 * whole[:, 1:-1, 1:-1]) + 13) // 26  # weights 5/13 in the middle, 1/13 around; rounded
    return _blend(rgb, whole.at[:, 1:-1, 1:-1].set(smooth).astype(_FLOAT), factor)


def autocontrast(rgb: jax.Array) -> jax.Array:
    """Stretch each channel of RGB, uint8 [T, H, W, 3], to the range 0 to 255 over all frames."""
    pixels = rgb.astype(_FLOAT)
    least, most = pixels.min(axis=(0, 1, 2)), pixels.max(axis=(0, 1, 2))
    scale = 255 / jnp.where(most == least, 1, most - least)
    return jnp.where(most == least, rgb, jnp.clip((pixels - least) * scale, 0, 255).astype(jnp.uint8))


def equalize(rgb: jax.Array) -> jax.Array:
    """Equalize the histogram of each channel of RGB, uint8 [T, H, W, 3], over all frames."""

    def table(channel):  # [T, H, W] -> the new value of each old one, [256]
        counts = jnp.bincount(channel.ravel(), length=256).astype(jnp.int32)
        last = 255 - jnp.argmax(counts[::-1] > 0)
        step = (counts.sum(dtype=jnp.int32) - counts[last]) // 255
        below = jnp.cumsum(counts, dtype=jnp.int32) - counts
        spread = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step == 0, jnp.arange(256), spread).astype(jnp.uint8)

    return jax.vmap(lambda channel: table(channel)[channel], in_axes=-1, out_axes=-1)(rgb)


def moved(clip: Streams, linear: jax.Array, shift: jax.Array, pivot: tuple[float, float]) -> Streams:
    """Transform a clip: pixel p takes the one nearest to pivot + linear · (p - pivot) + shift; black outside the frame.

    Args:
      linear: [2, 2] of determinant 1, acts on (x, y).
      shift: [2], (x, y) in pixels.
      pivot: (x, y) in pixels.

    Vectors of flow are transformed with their pixels: linear⁻¹ · vector. Outside the frame there is no motion.
    """
    height, width = next(iter(clip.values())).shape[1:3]
    x = jnp.arange(width, dtype=_FLOAT) - pivot[0]
    y = jnp.arange(height, dtype=_FLOAT)[:, None] - pivot[1]
    half = 0.5 - 2**-13  # of two equally near pixels the first, however a device rounds
    columns = jnp.floor(linear[0, 0] * x + linear[0, 1] * y + shift[0] + pivot[0] + half).astype(jnp.int32)  # [H, W]
    rows = jnp.floor(linear[1, 0] * x + linear[1, 1] * y + shift[1] + pivot[1] + half).astype(jnp.int32)
    there = ((columns >= 0) & (columns < width) & (rows >= 0) & (rows < height))[..., None]
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    found = {name: frames[:, rows, columns] for name, frames in clip.items()}
    if "rgb" in found:
        found["rgb"] = jnp.where(there, found["rgb"], jnp.uint8(0))
    if "flow" in found:
        vectors = found["flow"].reshape(*found["flow"].shape[:-1], -1, 2).astype(_FLOAT) - _STILL
        right, below = vectors[..., 0], vectors[..., 1]
        ahead = (linear[1, 1] * right - linear[0, 1] * below, linear[0, 0] * below - linear[1, 0] * right)
        turned = jnp.round(_STILL + jnp.stack(ahead, axis=-1))
        turned = jnp.clip(turned, 0, 255).astype(jnp.uint8).reshape(found["flow"].shape)
        found["flow"] = jnp.where(there, turned, jnp.uint8(_STILL))
    return found


def operations(magnitude: int, height: int, width: int) -> dict[str, Callable[[Streams, jax.Array], Streams]]:
    """RandAugment's operations by torchvision's names; each maps a clip and a sign, 1 or -1, to the changed clip.

    Args:
      magnitude: 0 to 30.
      height, width: of the frames.
    """
    part = magnitude / (BINS - 1)

    def of_colors(change: Callable[[jax.Array, jax.Array], jax.Array]):
        return lambda clip, sign: clip | {"rgb": change(clip["rgb"], sign)} if "rgb" in clip else clip

    def of_places(source: Callable[[jax.Array], tuple]):
        def move(clip, sign):
            linear, shift, pivot = source(sign)
            return moved(clip, jnp.array(linear, _FLOAT), jnp.array(shift, _FLOAT), pivot)

        return move

    corner, center = (-0.5, -0.5), ((width - 1) / 2, (height - 1) / 2)
    across, down = int(150 / 331 * width * part), int(150 / 331 * height * part)
    cos, sin = math.cos(math.radians(30 * part)), math.sin(math.radians(30 * part))
    same = ((1, 0), (0, 1))
    return {
        "Identity": lambda clip, sign: clip,
        "ShearX": of_places(lambda sign: (((1, sign * 0.3 * part), (0, 1)), (0, 0), corner)),
        "ShearY": of_places(lambda sign: (((1, 0), (sign * 0.3 * part, 1)), (0, 0), corner)),
        "TranslateX": of_places(lambda sign: (same, (-sign * across, 0), corner)),
        "TranslateY": of_places(lambda sign: (same, (0, -sign * down), corner)),
        "Rotate": of_places(lambda sign: (((cos, -sign * sin), (sign * sin, cos)), (0, 0), center)),
        "Brightness": of_colors(lambda rgb, sign: brightness(rgb, 1 + sign * 0.9 * part)),
        "Color": of_colors(lambda rgb, sign: saturation(rgb, 1 + sign * 0.9 * part)),
        "Contrast": of_colors(lambda rgb, sign: contrast(rgb, 1 + sign * 0.9 * part)),
        "Sharpness": of_colors(lambda rgb, sign: sharpness(rgb, 1 + sign * 0.9 * part)),
        "Posterize": of_colors(lambda rgb, sign: rgb & jnp.uint8(256 - 2 ** round(part * 4))),
        "Solarize": of_colors(lambda rgb, sign: jnp.where(rgb.astype(_FLOAT) >= 255 * (1 - part), 255 - rgb, rgb)),
        "AutoContrast": of_colors(lambda rgb, sign: autocontrast(rgb)),
        "Equalize": of_colors(lambda rgb, sign: equalize(rgb)),
    }


_JITTERED = (brightness, contrast, saturation, hue)  # in the order of `color_jitter`


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The augmentation of a training batch: colour jitter, RandAugment and erasing, in this order.

    Draws depend on each row's key alone, so neither the number of devices nor of micro-batches changes them.

    Args:
      color_jitter: brightness, contrast, saturation and hue, as torchvision's ColorJitter takes them: a factor is drawn
        from 1 - value to 1 + value, the shift of hue from -hue to hue, and the order of the four is drawn too. Optical
        flow stays as it is. (): none.
      rand_augment: number of operations and their magnitude, 0 to 30, of torchvision's RandAugment. Geometric ones take
        the nearest pixel, or black outside the frame, and transform the vectors of flow too. (): none.
      erasing: probability of erasing a box of 0.02 to 0.33 of the frame, the same one in all frames and streams.
      fill: colour of the box in RGB; in flow the box has no motion.

    Raises:
      UserError: a value out of range.
    """

    color_jitter: tuple[float, ...] = ()
    rand_augment: tuple[int, ...] = ()
    erasing: float = 0.0
    fill: tuple[int, int, int] = (124, 116, 104)

    def __post_init__(self):
        jitter, drawn = self.color_jitter, self.rand_augment
        numbers = all(isinstance(value, int | float) and 0 <= value < float("inf") for value in jitter)
        if jitter and not (numbers and len(jitter) == 4 and jitter[3] <= 0.5):
            raise UserError(
                f"train.color_jitter is {jitter!r}: expected how much to change brightness, contrast, saturation and "
                "hue (0.5 at most), such as 0.4,0.4,0.4,0.1, or () for none."
            )
        whole = all(type(value) is int for value in drawn)
        if drawn and not (whole and len(drawn) == 2 and drawn[0] >= 1 and 0 <= drawn[1] < BINS):
            raise UserError(
                f"train.rand_augment is {drawn!r}: expected how many operations and their magnitude, 0 to {BINS - 1}, "
                "such as 2,9, or () for none."
            )
        if not 0 <= self.erasing <= 1:
            raise UserError(f"train.erasing is {self.erasing!r}: expected a probability, 0 to 1.")

    def __bool__(self) -> bool:
        return bool(any(self.color_jitter) or self.rand_augment or self.erasing)

    def __call__(self, streams: Mapping[str, jax.Array], keys: jax.Array) -> Streams:
        """The augmented streams, in the shapes of `streams`.

        Args:
          streams: "rgb", "flow" or both, uint8 [B, T, H, W, C], or [B, N, T, H, W, C] with N clips of each video, which
            are changed alike.
          keys: [B], random keys.
        """

        numbers = 2 * len(_JITTERED), 3 + 2 * _TRIES, 2 * (self.rand_augment or (0,))[0]
        jitter, box, drawn = (slice(sum(numbers[:place]), sum(numbers[: place + 1])) for place in range(3))

        def uniform(key):  # all numbers at once, which compiles far faster; `fold_in` of 1 is for mixing
            return jax.random.uniform(jax.random.fold_in(key, 2), (sum(numbers),), _FLOAT)

        def change(row):  # one row after another (lax.map), so that only the operation that is drawn is computed
            clip, draws = row
            found = {name: frames.reshape(-1, *frames.shape[-3:]) for name, frames in clip.items()}
            if any(self.color_jitter) and "rgb" in clip:
                found |= {"rgb": self._jittered(found["rgb"], *jnp.split(draws[jitter], 2))}
            if self.rand_augment:
                found = self._rand_augmented(found, draws[drawn].reshape(-1, 2))
            if self.erasing:
                found = self._erased(found, draws[box])
            return {name: found[name].reshape(frames.shape) for name, frames in clip.items()}

        return jax.lax.map(change, (dict(streams), jax.vmap(uniform)(keys)))

    def _jittered(self, rgb: jax.Array, amounts: jax.Array, order: jax.Array) -> jax.Array:
        def branch(change, most: float, amount: jax.Array) -> Callable[[jax.Array], jax.Array]:
            if change is hue:
                return lambda rgb: hue(rgb, most * (2 * amount - 1))
            least = max(0.0, 1 - most)
            return lambda rgb: change(rgb, least + (1 + most - least) * amount)

        used = [place for place, most in enumerate(self.color_jitter) if most]
        branches = [branch(_JITTERED[place], self.color_jitter[place], amounts[place]) for place in used]
        order = jnp.argsort(order[: len(used)])
        return jax.lax.scan(lambda rgb, which: (jax.lax.switch(which, branches, rgb), None), rgb, order)[0]

    def _rand_augmented(self, clip: Streams, draws: jax.Array) -> Streams:
        branches = [*operations(self.rand_augment[1], *next(iter(clip.values())).shape[1:3]).values()]

        def operate(clip, draw):
            which = jnp.floor(draw[0] * len(branches)).astype(jnp.int32)
            return jax.lax.switch(which, branches, clip, jnp.where(draw[1] < 0.5, _FLOAT(1), _FLOAT(-1))), None

        return jax.lax.scan(operate, clip, draws)[0]

    def _erased(self, clip: Streams, draws: jax.Array) -> Streams:
        height, width = next(iter(clip.values())).shape[1:3]
        whether, place, sizes = draws[0], draws[1:3], draws[3:].reshape(2, _TRIES)
        areas = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * sizes[0])
        aspects = _ASPECT[0] * (_ASPECT[1] / _ASPECT[0]) ** sizes[1]  # uniform in the logarithm
        sides = jnp.round(jnp.sqrt(jnp.stack([areas * aspects, areas / aspects])))  # [2, tries], height and width
        frame = jnp.array([height, width], _FLOAT)
        fits = jnp.all(sides < frame[:, None], axis=0)
        side = sides[:, jnp.argmax(fits)]
        first = jnp.floor(place * (frame - side + 1))
        rows, columns = (jnp.arange(size, dtype=_FLOAT) for size in (height, width))
        rows, columns = (
            (first[axis] <= places) & (places < first[axis] + side[axis]) for axis, places in enumerate((rows, columns))
        )
        box = rows[:, None, None] & columns[:, None] & fits.any() & (whether < self.erasing)  # [H, W, 1]
        fills = {"rgb": jnp.array(self.fill, jnp.uint8), "flow": jnp.uint8(_STILL)}
        return {name: jnp.where(box, fills[name], frames) for name, frames in clip.items()}


def streams(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a batch that can be augmented: "rgb", "flow" or both."""
    return {name: batch[name] for name in ("rgb", "flow") if name in batch}


def of(config: ConfigDict) -> Augmentation:
    """The augmentation that a config asks for; erased boxes get the colour that is zero once normalised. Raises
    UserError for values out of range, and for colour jitter where the network takes optical flow alone."""
    train = config.train
    fill = tuple(min(255, max(0, round(value))) for value in config.normalize.mean)
    found = Augmentation(
        tuple(train.get("color_jitter", ())), tuple(train.get("rand_augment", ())), train.get("erasing", 0.0), fill
    )
    if any(found.color_jitter) and "rgb" not in config.clip.get("streams", ("rgb",)):
        raise UserError("train.color_jitter is of RGB, and clip.streams has optical flow alone: leave it out.")
    return found
