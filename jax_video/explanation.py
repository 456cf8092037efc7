"""What a network looks at when it names a class: Grad-CAM over time, on what one of its stages puts out.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization".
"""

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from jax_video import losses, networks, objectives, sharding
from jax_video import state as state_lib
from jax_video.data import pipeline
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError, VideoError
from jax_video.models.cost import VIEWS
from jax_video.models.layers import looking_inside
from jax_video.state import Normalization
from jax_video.task import Task

LEAST = (4, 7, 7)  # places in time, height and width: fewer of them show too little
Places = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Where in a clip, and when, a network finds what speaks for a class.

    Attributes:
      frames: uint8 [T, H, W, 3], the clip as the network saw it; of segment consensus its clips, one after the other.
        Of a network that sees flow alone, the frames that the flow is of.
      maps: float32 [T, H, W], 0 to 1, the largest of the clip: what counts for `label`. Of two streams, of appearance.
      label: the class.
      probability: that the network gives it, from this clip.
      layer: the stage whose output the maps are of.
      places: of that output, in time, height and width.
      indices: int64 [T], of the frames in the video.
      fps: frames per second of the video; 0 where that is not known.
      flow_maps: of two streams, the same of motion; else None.
      views: of CoST, the share α of the views "H-W", "T-W" and "T-H" in this clip, means over `views_by_layer`; else
        None.
      views_by_layer: the same by the names of the CoST layers, means over their channels.
      note: what a user should know of it.
    """

    frames: np.ndarray
    maps: np.ndarray
    label: str
    probability: float
    layer: str
    places: Places
    indices: np.ndarray
    fps: float = 0.0
    flow_maps: np.ndarray | None = None
    views: Mapping[str, float] | None = None
    views_by_layer: Mapping[str, Mapping[str, float]] | None = None
    note: str = ""

    @property
    def seconds(self) -> np.ndarray | None:
        """When each frame is shown, [T], by the video's mean frame rate; None where that is not known."""
        return self.indices / self.fps if self.fps else None


class Explainer:
    """Grad-CAM of a trained network: what `Run.explain` asks. What it compiles is kept.

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
        self._weights, self._classes, self._mesh, self._batch = weights, tuple(classes), mesh, config.test.batch
        self._task, self._network = Task.of(config), networks.find(config.model.name)
        self._places: dict[tuple, dict[str, Places]] = {}
        views = self._network.weighs_views
        step = functools.partial(_maps, definition, normalization, views)
        self._step = jax.jit(step, static_argnames="layer", out_shardings=sharding.replicated(mesh))
        self._stages = functools.partial(_stages, definition, normalization)

    def clips(self, manifest: Manifest, *, whole: bool) -> list[pipeline.CroppedClip]:
        """Clips of a set of one video: the one in its middle or, of the `whole` video, one after the other; a last one
        ends with the video. Several that a network takes together are one."""
        sampling = self._task.sampling
        if sampling.segments or not whole:
            return pipeline.cropped_clips(manifest, "test", sampling, self._task.validation)
        found = pipeline.cropped_clips(manifest, "test", sampling, pipeline.Protocol("nonoverlap"))
        [(_, middle)] = manifest.select("test")
        last, rest = found[-1], middle.frames - 1 - int(found[-1].frames.max())
        return [*found, last._replace(frames=last.frames + rest)] if rest > 0 and len(found) else found

    def explain(
        self, manifest: Manifest, clips: Sequence[pipeline.CroppedClip], *, label: str | None, layer: str | None
    ) -> Iterator[Explanation]:
        """Yields the explanation of one clip after the other.

        Args:
          manifest: a set of one video.
          clips: of it.
          label: the class to explain; None: the best of each clip.
          layer: a stage of the network; None: the last with at least 4×7×7 places, or with as many as any has.

        Raises:
          UserError: no such class, or no such stage, or the network's scores are no numbers.
          VideoError: the video cannot be read.
        """
        sampling = self._task.sampling
        if "rgb" not in sampling.streams:  # the frames are seen by the user alone
            sampling = dataclasses.replace(sampling, streams=("rgb", "flow"))
        batch = sharding.multiple_of_devices(min(self._batch, len(clips)), self._mesh)
        batches = pipeline.test_batches(manifest, sampling, clips, batch=batch)
        wanted = np.full(batch, -1 if label is None else self._class(label), np.int32)
        progress = tqdm(total=len(clips), desc="explain", unit="clip", leave=False, disable=None if clips[1:] else True)
        rest = list(clips)
        with contextlib.closing(batches), contextlib.closing(progress), sharding.enough_memory():
            for rows in batches:
                if any(rows["failed"]):
                    raise VideoError(manifest.videos[clips[0].video].name, "unreadable when its clips were decoded")
                seen: Any = {name: rows[name] for name in self._network.streams}
                chosen = self._choose(seen, layer)
                found = self._step(*self._weights, sharding.place_batch(seen, self._mesh), wanted, layer=chosen[0])
                found = jax.tree.map(np.asarray, found)
                objectives.check_finite(found["logits"][: len(rest)])
                here, rest = rest[:batch], rest[batch:]
                for row, clip in enumerate(here):
                    result = jax.tree.map(lambda values, row=row: values[row], found)
                    yield self._explanation(rows["rgb"][row], clip, manifest, result, *chosen)
                progress.update(len(here))

    def _class(self, label: str) -> int:
        if label in self._classes:
            return self._classes.index(label)
        alike = difflib.get_close_matches(str(label), self._classes) or self._classes[:10]
        raise UserError(
            f"there is no class {label!r} among the {len(self._classes)} of this run: choose one of them, such as "
            + ", ".join(alike)
        )

    def _choose(self, seen: Mapping[str, np.ndarray], layer: str | None) -> tuple[str, Places]:
        """The stage to look at, and its places."""
        key = tuple((name, values.shape) for name, values in seen.items())
        if key not in self._places:
            self._places[key] = self._stages(*self._weights, seen)
        places = self._places[key]
        if layer is None:
            least = np.minimum(LEAST, np.max([*places.values()], axis=0))
            layer = [name for name, found in places.items() if np.all(found >= least)][-1]
        if layer not in places:
            known = ", ".join(f"{name} ({shape(found)})" for name, found in places.items())
            raise UserError(f"the network has no layer {layer!r} to explain; choose one of {known}")
        return layer, places[layer]

    def _explanation(
        self,
        frames: np.ndarray,
        clip: pipeline.CroppedClip,
        manifest: Manifest,
        result: dict[str, Any],
        layer: str,
        places: Places,
    ) -> Explanation:
        label = self._classes[result["label"]]
        empty = [name for name, values in zip(self._network.streams, result["maps"], strict=True) if not values.any()]
        of = f" of {' and '.join(empty)}" if len(result["maps"]) > 1 else ""
        by_layer = {
            name: dict(zip(VIEWS, alpha.tolist(), strict=True)) for name, alpha in result.get("views", {}).items()
        }
        views = {view: float(np.mean([row[view] for row in by_layer.values()])) for view in VIEWS} if by_layer else None
        return Explanation(
            frames=frames.reshape(-1, *frames.shape[-3:]),
            maps=result["maps"][0],
            label=label,
            probability=float(result["probability"]),
            layer=layer,
            places=places,
            indices=clip.frames.ravel(),
            fps=manifest.videos[clip.video].fps,
            flow_maps=result["maps"][1] if len(result["maps"]) > 1 else None,
            views=views,
            views_by_layer=by_layer or None,
            note=f"the map{of} is zero: nothing in {layer} speaks for {label!r}" if empty else "",
        )


def shape(places: Places) -> str:
    """Places in time, height and width, in words: "4×7×7"."""
    return "×".join(map(str, places))


def _stages(
    definition: nnx.GraphDef, normalization: Normalization, params: dict, batch_stats: dict, batch: Any
) -> dict[str, Places]:
    """The stages of a network, in their order, and how many places each puts out, in time, height and width."""
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
    params: dict,
    batch_stats: dict,
    batch: dict[str, jax.Array],
    label: jax.Array,
    *,
    layer: str,
) -> dict[str, Any]:
    """Grad-CAM of clips: relu(Σ_c w_c A_c), where w_c is the mean gradient of a class's logit with respect to A_c.

    A is what the stage `layer` puts out. As many frames, rows and columns as the clip has are interpolated, linearly.

    Args:
      label: [B] of the classes; -1: the best of each clip.

    Returns:
      "maps": for each stream [B, T, H, W], the clip's largest value is 1; "label" and "probability" [B]; "logits" [B,
      K]; "views", of CoST's layers, α [B, 3].
    """

    def seen_with(change):
        """What the stage puts out, and the logits when `change` is added to it; without `change` these are None."""
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
        "probability": jnp.take_along_axis(jax.nn.softmax(logits), which[:, None], axis=1)[:, 0],
    }
    if views:
        model: Any = state_lib.join(definition, params, batch_stats, train=False)
        (video,) = state_lib.inputs(batch, normalization)
        alpha = getattr(model, "network", model).coefficients(video.reshape(-1, *size[-4:]))  # [B or B N, 3, C] of each
        result["views"] = {
            name: values.mean(axis=2, dtype=jnp.float32).reshape(size[0], -1, 3).mean(axis=1)
            for name, values in alpha.items()
        }
    return result
