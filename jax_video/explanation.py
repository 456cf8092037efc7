"""What a network looks at when it names a class: Grad-CAM over time, on the output of one of its stages.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization".
Its weights are mean gradients over all places. A channel that speaks for a class at one place and against it at
another, as in the upper and the lower half of what rotates, cancels out; maps of early stages may then be misplaced.
"""

import contextlib
import dataclasses
import difflib
import functools
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from jax_video import losses, networks, objectives, sharding, videos
from jax_video import state as state_lib
from jax_video.data import isolated, pipeline, samples
from jax_video.data.manifest import Manifest, Video, in_memory
from jax_video.errors import UserError
from jax_video.models.cost import by_view
from jax_video.models.layers import looking_inside
from jax_video.state import Normalization
from jax_video.task import Task
from jax_video.timeline import Frame, rate_of

LEAST = (4, 7, 7)  # places in time, height and width: fewer of them show too little
_MOST = 2**27  # bytes of frames in memory at once, unless a single clip has more
_FIRST = 8  # frames after which the rate of a part of a video is looked at first
_IN_TURN = pipeline.Protocol("nonoverlap")
_BOTH_ENDS = pipeline.Protocol("uniform", 2)
Places = tuple[int, int, int]
Frames = Generator[Frame, None, None]


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Where in a clip, and when, a network finds what speaks for a class.

    Attributes:
      frames: uint8 [T, H, W, 3], the clip as the network saw it; with segment consensus its clips, one after another.
        For a network that sees flow alone, the frames that the flow was computed from.
      maps: float32 [T, H, W], from 0 to 1, the clip's largest value: what speaks for `label`. With two streams, the
        appearance stream's.
      label: the class.
      probability: of the class, as the network gives it from this clip.
      layer: the stage whose output the maps are computed from.
      places: shape of that output in time, height and width.
      indices: int64 [T], numbers of the frames in the video.
      seconds: float64 [T], when each is shown; None for pictures and arrays without a known frame rate.
      flow_maps: with two streams, the motion stream's maps; else None.
      views: for CoST, the share α of the views "H-W", "T-W" and "T-H" in this clip, mean of `views_by_layer`; or None.
      views_by_layer: the same by the names of the CoST layers, means over their channels.
      note: what a user should know about it.
    """

    frames: np.ndarray
    maps: np.ndarray
    label: str
    probability: float
    layer: str
    places: Places
    indices: np.ndarray
    seconds: np.ndarray | None
    flow_maps: np.ndarray | None = None
    views: Mapping[str, float] | None = None
    views_by_layer: Mapping[str, Mapping[str, float]] | None = None
    note: str = ""


class Explainer:
    """Grad-CAM of a trained network, for `Run.explain`. What it compiles is kept.

    Args:
      definition, weights: the network, and its (params, batch_stats).
      config, classes: of the run.
      normalization: of RGB.
      mesh: the devices that it runs on.
    """

    def __init__(
        self,
        definition: nnx.GraphDef,
        weights: tuple[dict, dict],
        config: ConfigDict,
        classes: Sequence[str],
        normalization: Normalization,
        mesh: Mesh,
    ):
        self._weights, self._classes, self._mesh, self._most = weights, tuple(classes), mesh, config.test.batch
        self._task, self._network = Task.of(config), networks.find(config.model.name)
        self._sampling = self._task.sampling
        if "rgb" not in self._sampling.streams:  # the network does not see RGB, but the user does
            self._sampling = dataclasses.replace(self._sampling, streams=("rgb", "flow"))
        self._places: dict[tuple, dict[str, Places]] = {}
        objective: Any = self._task.objective  # one that knows classes
        step = functools.partial(_maps, definition, normalization, self._network.weighs_views, objective.probabilities)
        self._step = jax.jit(step, static_argnames="layer", out_shardings=sharding.replicated(mesh))
        self._stages = functools.partial(_stages, definition, normalization)

    def explain(
        self,
        video: str | os.PathLike | np.ndarray,
        *,
        label: str | None = None,
        layer: str | None = None,
        fps: float = 0.0,
        timeout: float | None = isolated.TIMEOUT,
        whole: bool = True,
    ) -> Iterator[Explanation]:
        """Yield the explanation of each clip of the `whole` video, in order, or of the clip in its middle alone.

        A network that takes several clips together has one explanation, of the clips that a test sees.

        Args:
          video: a file, a folder of numbered pictures, or frames, uint8 [T, H, W, 3], RGB.
          label: the class to explain; None: the best of each clip.
          layer: a stage of the network; None: the last with at least 4×7×7 places, or with as many as any stage has.
          fps: frames per second, where the video has no times of its own.
          timeout: seconds within which a file, read in a process of its own, must make progress; None: read it here.

        Raises:
          UserError: no such class, no such stage, no such video, or scores that are NaN or infinite.
          VideoError: the video cannot be read.
        """
        fps = videos.checked_fps(fps)
        wanted, batch = -1 if label is None else self.class_of(label), 0
        if isinstance(video, np.ndarray):
            in_memory([video])  # raises if it is no video
        timeless = not fps and (isinstance(video, np.ndarray) or os.path.isdir(video))
        sampling = self._sampling
        if timeless:
            sampling.step(0.0)  # raises where clips need a rate

        def timed() -> tuple[Frames, float]:
            rate = 1.0 if timeless else fps
            return isolated.timed(video, short_side=sampling.short_side, fps=rate, own=True, timeout=timeout)

        if whole and not sampling.segments:
            frames, seconds = timed()
            parts = _in_turn(frames, sampling, self._most)
        else:
            parts, seconds = iter([_middle(lambda: timed()[0], sampling, self._task.validation)]), 0.0
        quiet = None if seconds else True
        progress = tqdm(total=round(seconds), desc="explain", unit=" s", leave=False, disable=quiet)
        with progress, isolated.ended_by_ctrl_c(), sharding.enough_memory():
            for part in parts:
                batch = batch or sharding.multiple_of_devices(min(len(part.clips), self._most), self._mesh)
                for start in range(0, len(part.clips), batch):
                    for found in self._look(part, part.clips[start : start + batch], batch, wanted, layer):
                        yield dataclasses.replace(found, seconds=None) if timeless else found
                progress.update(round(part.seconds[-1]) - progress.n)

    def explain_tested(self, manifest: Manifest, video: Video, *, label: str) -> Explanation:
        """The explanation of a class in a video of a set: of the middle one of the clips that a test sees of it.

        Raises:
          UserError: as from `explain`.
          VideoError: the video, or its flow, cannot be read.
        """
        wanted, manifest = self.class_of(label), dataclasses.replace(manifest, videos=(video,))
        clip = _middle_clip(manifest, self._sampling, self._task.protocol)
        part = Part(0, np.arange(video.frames) / (video.fps or 1.0), manifest, [clip])
        with sharding.enough_memory():
            [found] = self._look(part, part.clips, sharding.multiple_of_devices(1, self._mesh), wanted, None)
        return found if video.fps else dataclasses.replace(found, seconds=None)

    def _look(
        self, part: "Part", clips: list[pipeline.CroppedClip], batch: int, wanted: int, layer: str | None
    ) -> Iterator[Explanation]:
        """Explain some clips of a part, at most `batch`, which are one batch of so many rows."""
        rows: Any = pipeline.batch_of([samples.cut(part.manifest, clip, self._sampling) for clip in clips], batch)
        seen = {name: rows[name] for name in self._network.streams}
        layer, places = self._choose(seen, layer)
        placed = sharding.place_batch(seen | {"label": np.full_like(rows["label"], wanted)}, self._mesh)
        found = jax.tree.map(np.asarray, self._step(*self._weights, placed, layer=layer))
        objectives.check_finite(found["logits"][: len(clips)])
        for row, (clip, frames) in enumerate(zip(clips, rows["rgb"], strict=False)):
            result = jax.tree.map(lambda values, row=row: values[row], found)
            label, maps, indices = self._classes[result["label"]], result["maps"], clip.frames.ravel()
            empty = [name for name, values in zip(self._network.streams, maps, strict=True) if not values.any()]
            of = f" of {' and '.join(empty)}" if len(maps) > 1 else ""
            yield Explanation(
                frames=frames.reshape(-1, *frames.shape[-3:]),
                maps=maps[0],
                label=label,
                probability=float(result["probability"]),
                layer=layer,
                places=places,
                indices=part.first + indices,
                seconds=part.seconds[indices],
                flow_maps=maps[1] if len(maps) > 1 else None,
                views_by_layer={name: by_view(alpha) for name, alpha in result["views"].items()} or None,
                views=by_view(np.mean([*result["views"].values()], axis=0)) if result["views"] else None,
                note=f"the map{of} is zero: nothing in {layer} speaks for {label!r}" if empty else "",
            )

    def class_of(self, label: str) -> int:
        """The index of the class of this name. Raises UserError, which names similar ones, if there is none."""
        if label in self._classes:
            return self._classes.index(label)
        alike = difflib.get_close_matches(str(label), self._classes) or self._classes[:10]
        raise UserError(
            f"there is no class {label!r} among the {len(self._classes)} of this run: choose one of them, such as "
            + ", ".join(alike)
        )

    def _choose(self, seen: Mapping[str, np.ndarray], layer: str | None) -> tuple[str, Places]:
        """(stage to look at, shape of its output in time, height and width)."""
        key = tuple((name, values.shape) for name, values in seen.items())
        if key not in self._places:
            self._places[key] = self._stages(*self._weights, seen)
        places = self._places[key]
        if not places:
            raise UserError(
                "the network marks no stage to explain; in its code, jax_video.models.layers.output marks one"
            )
        if layer is None:
            least = np.minimum(LEAST, np.max([*places.values()], axis=0))
            layer = [name for name, found in places.items() if np.all(found >= least)][-1]
        if layer not in places:
            known = ", ".join(f"{name} ({shape(found)})" for name, found in places.items())
            raise UserError(f"the network has no layer {layer!r} to explain; choose one of {known}")
        return layer, places[layer]


class Part(NamedTuple):
    """Frames of a video that are in memory, and the clips cut from them to be explained."""

    first: int  # the number of its first frame in the video
    seconds: np.ndarray  # of its frames
    manifest: Manifest  # of the frames, as a video
    clips: list[pipeline.CroppedClip]


def _part(first: int, frames: Sequence[Frame], sampling: pipeline.Sampling, protocol: pipeline.Protocol) -> Part:
    """These frames as a video of their own, with all clips of a protocol."""
    seconds, images = zip(*frames, strict=True)
    manifest = in_memory([np.stack(images)], fps=rate_of(seconds))
    return Part(first, np.array(seconds), manifest, pipeline.cropped_clips(manifest, "test", sampling, protocol))


def _middle_clip(manifest: Manifest, sampling: pipeline.Sampling, protocol: pipeline.Protocol) -> pipeline.CroppedClip:
    """The middle one of the clips that a test sees of a set's only video, in the centre of its frames, not mirrored."""
    found = pipeline.cropped_clips(manifest, manifest.videos[0].split, sampling, protocol)
    found = [clip for clip in found if clip.crop in ("center", "full") and not clip.flip]
    return found[len(found) // 2]


def _middle(frames: Callable[[], Frames], sampling: pipeline.Sampling, protocol: pipeline.Protocol) -> Part:
    """A whole video with the middle clip of `protocol`; of one that does not fit into memory, what that clip needs."""
    seconds: list[float] = []
    images: dict[int, np.ndarray] = {}
    for place, (time, image) in enumerate(frames()):
        seconds.append(time)
        if (place + 1) * image.nbytes <= _MOST:
            images[place] = image
    count = len(seconds)
    _check_frames(count)
    whole = in_memory([np.broadcast_to(image, (count, *image.shape))], fps=rate_of(seconds))  # its size, for the plan
    clip = _middle_clip(whole, sampling, protocol)
    if len(images) < count:
        needed = set(samples.needed(clip, count, sampling.streams).tolist())
        with contextlib.closing(frames()) as again:
            images = {place: image for place, (_, image) in enumerate(again) if place in needed}
        if len(images) < len(needed):
            raise UserError("the video has changed while it was read: explain it when it is whole")
    kept = isolated.Kept(count)
    kept.update(images)
    manifest = dataclasses.replace(whole, memory={whole.videos[0].path: cast(Any, kept)})
    return Part(0, np.array(seconds), manifest, [clip])


def _in_turn(frames: Iterable[Frame], sampling: pipeline.Sampling, most: int) -> Iterator[Part]:
    """A video in parts, whose clips follow one another from its start on; the last clip ends with the video.

    A part has `most` clips, or as many as fit into memory, by the rate that its own frames have. Where the rate changes
    within it, it may have others.
    """
    hop, first, last, size = sampling.frames * sampling.stride, 0, -1, _FIRST
    before: list[Frame] = []  # the last ones of the parts that went
    waiting: list[Frame] = []
    for frame in frames:
        waiting.append(frame)
        if len(waiting) < size:
            continue
        step = _step(waiting, sampling)
        span, number = _span(sampling, step), max(1, min(most, math.floor(_MOST / (hop * step * frame[1].nbytes))))
        wanted = max(span + math.ceil((number - 1) * hop * step), math.ceil(number * hop * step))
        if len(waiting) < wanted:
            size = min(wanted, 2 * len(waiting))  # as what follows may have another rate
            continue
        part = _part(first, waiting, sampling, _IN_TURN)
        yield part
        last = first + int(part.clips[-1].frames[-1])
        used = min(len(waiting), max(1, round(hop * len(part.clips) * step)))
        gone = before + waiting[:used]
        before = gone[-2 * len(_last(gone, span, sampling)) :]
        first, waiting = first + used, waiting[used:]
    _check_frames(first + len(waiting))
    rest = _last(before + waiting, len(waiting), sampling)
    part = _part(first + len(waiting) - len(rest), rest, sampling, _IN_TURN)
    clips = []
    for clip in [*part.clips, *pipeline.cropped_clips(part.manifest, "test", sampling, _BOTH_ENDS)]:
        if part.first + clip.frames.max() > last:
            clips.append(clip)
            last = part.first + int(clip.frames.max())
    if clips:
        yield part._replace(clips=clips)


def _last(frames: Sequence[Frame], least: int, sampling: pipeline.Sampling) -> Sequence[Frame]:
    """The last ones of these frames: at least so many, and so many that a clip fits into them; or all."""
    seconds, count = [time for time, _ in frames], max(1, least)
    while count < len(frames):
        rate = rate_of(seconds[-count:])
        if (rate or sampling.fps is None) and count >= _span(sampling, sampling.step(rate)):
            break
        count += 1
    return frames[-count:]


def _check_frames(count: int) -> None:
    if count < 2:
        raise UserError(f"the video has {count} frame{'s' * (count != 1)}: expected at least 2, as of what moves")


def _step(frames: Sequence[Frame], sampling: pipeline.Sampling) -> Fraction:
    """The step from one frame at `clip.fps` to the next, in frames of a video that has these ones."""
    rate = rate_of([seconds for seconds, _ in frames]) or sampling.fps or 0.0  # for a single one any will do
    return sampling.step(rate)


def _span(sampling: pipeline.Sampling, step: Fraction) -> int:
    """Frames of the video that a clip spans, including those that its flow needs before and after it."""
    return math.ceil(sampling.span * step) + ("flow" in sampling.streams) * 10


def shape(places: Places) -> str:
    """Places in time, height and width as text: "4×7×7"."""
    return "×".join(map(str, places))


def _stages(
    definition: nnx.GraphDef, normalization: Normalization, params: dict, batch_stats: dict, batch: Any
) -> dict[str, Places]:
    """{stage: shape of its output in time, height and width}, in the order of the network."""
    found: dict[str, Any] = {}

    def look(name, x):
        found[name] = jax.tree.leaves(x)[0].shape[1:4]
        return x

    def outputs(params, batch_stats, batch):
        with looking_inside(look):
            return state_lib.apply(definition, params, batch_stats, batch, normalization, train=False)[0]

    jax.eval_shape(outputs, params, batch_stats, batch)
    return found


def _maps(
    definition: nnx.GraphDef,
    normalization: Normalization,
    views: bool,
    probabilities: Callable[[jax.Array], jax.Array],
    params: dict,
    batch_stats: dict,
    batch: dict[str, jax.Array],
    *,
    layer: str,
) -> dict[str, Any]:
    """Grad-CAM of clips: relu(Σ_c w_c A_c), where w_c is the mean gradient of a class's logit with respect to A_c.

    A is the output of the stage `layer`. Maps are interpolated linearly to the frames, rows and columns of the clip.

    Args:
      batch: the streams, and the "label" [B] to explain; -1: the best of each clip.

    Returns:
      "maps": for each stream [B, T, H, W], the clip's largest value is 1; "label" and "probability" [B]; "logits" [B,
      K]; "views": {CoST layer: α [B, 3]}, empty for other networks.
    """
    batch = dict(batch)
    label = batch.pop("label")

    def seen_with(change):
        """(output of the stage, logits with `change` added to that output); a `change` of None adds nothing."""
        seen: dict[str, Any] = {}

        def look(name, x):
            if name != layer:
                return x
            seen[name] = x
            return x if change is None else jax.tree.map(jnp.add, x, change)

        with looking_inside(look):
            outputs, _ = state_lib.apply(definition, params, batch_stats, batch, normalization, train=False)
        return seen[layer], losses.video_logits(outputs).astype(jnp.float32)

    def chosen(change):
        activations, logits = seen_with(change)
        which = jnp.where(label < 0, jnp.argmax(logits, axis=1), label)
        return jnp.take_along_axis(logits, which[:, None], axis=1).sum(), (activations, logits, which)

    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: seen_with(None)[0]))
    gradients, (activations, logits, which) = jax.grad(chosen, has_aux=True)(none)
    size = next(iter(batch.values())).shape  # [B, T, H, W, C], or of several clips [B, N, T, H, W, C]

    def mapped(gradient, activation):
        weights = gradient.astype(jnp.float32).mean(axis=(1, 2, 3))
        values = nnx.relu(jnp.einsum("bthwc,bc->bthw", activation.astype(jnp.float32), weights))
        values = jax.image.resize(values, (len(values), *size[-4:-1]), "linear")
        values = values.reshape(size[0], -1, *size[-3:-1])
        largest = values.max(axis=(1, 2, 3), keepdims=True)
        return values / jnp.where(largest > 0, largest, 1)

    result = {
        "maps": [mapped(*pair) for pair in zip(*map(jax.tree.leaves, (gradients, activations)), strict=True)],
        "label": which,
        "logits": logits,
        "views": {},
        "probability": jnp.take_along_axis(probabilities(logits), which[:, None], axis=1)[:, 0],
    }
    if views:
        model: Any = state_lib.join(definition, params, batch_stats, train=False)
        (video,) = state_lib.inputs(batch, normalization)
        alphas = getattr(model, "network", model).coefficients(video.reshape(-1, *size[-4:]))
        for name, alpha in alphas.items():  # [B, 3, C] or [B N, 3, C]
            result["views"][name] = alpha.mean(axis=2, dtype=jnp.float32).reshape(size[0], -1, 3).mean(axis=1)
    return result
