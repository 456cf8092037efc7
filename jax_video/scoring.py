"""Clips in, means over a video's clips out: what tests, features and the analysis of clips have in common.

A test is a stream of (video, clip) pairs in batches of one size; the network's outputs are summed per video on the
host, in the order of the pairs. So any number of clips per video, any batch size and any number of devices give the
same result.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from jax_video import networks, objectives, sharding
from jax_video.data import pipeline
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError

# (params, batch_stats, batch) -> {"values" [B, D], "failed" [B], …} of a batch of clips, on every process. Further
# entries, [B], are metrics of single clips, such as whether the best class is the right one.
ClipStep = Callable[[dict, dict, dict], dict[str, jax.Array]]


class Interrupted(Exception):
    """`mean_over_clips` was asked to stop."""


def make_eval_step(
    definition: nnx.GraphDef,
    mesh: Mesh,
    objective: objectives.Objective = objectives.Classification(),  # noqa: B008, frozen
) -> ClipStep:
    """The jitted test: its values are the objective's scores, [B, K] float32."""

    def eval_step(params, batch_stats, batch):
        scores = objective.test(definition, params, batch_stats, batch)
        return {"values": scores, "failed": batch["failed"], **objective.clip_metrics(scores, batch)}

    return jax.jit(eval_step, out_shardings=sharding.replicated(mesh))


def check_clips(
    step: ClipStep,
    weights: tuple[dict, dict],
    manifest: Manifest,
    split: str,
    sampling: pipeline.Sampling,
    protocol: pipeline.Protocol,
) -> None:
    """Raise UserError if the network refuses the shapes of a test's clips, the smallest or the largest, before days of
    training; nothing is computed. Clips as in training need no look."""
    trained = (*([sampling.segments] if sampling.segments else []), sampling.frames), (sampling.size, sampling.size)
    shapes = {(clip.frames.shape, clip.size) for clip in pipeline.cropped_clips(manifest, split, sampling, protocol)}
    by_area = sorted(shapes - {trained}, key=lambda shape: math.prod(shape[0] + shape[1]))
    label = manifest.target(manifest.videos[0])
    for frames, size in dict.fromkeys([*by_area[:1], *by_area[-1:]]):
        rows: dict[str, tuple] = {
            name: ((*frames, *size, networks.CHANNELS[name]), np.uint8) for name in sampling.streams
        }
        numbers = dict.fromkeys(("video", "failed"), np.int32) | {"mask": np.float32}
        rows |= {name: ((), dtype) for name, dtype in numbers.items()} | {"label": (label.shape, label.dtype)}
        batch = {name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, (shape, dtype) in rows.items()}
        try:
            jax.eval_shape(step, *weights, batch)
        except UserError as error:
            clip = " × ".join(map(str, (*frames, *size)))
            raise UserError(f"the test's clips are {clip}, and the network refuses them: {error}") from error


@dataclasses.dataclass
class VideoMeans:
    """The network's outputs for every video that could be read: means over its clips."""

    video: np.ndarray  # [N] index in the manifest, ascending
    label: np.ndarray  # [N], -1 where there is none; with several labels [N, K], as in batches
    values: np.ndarray  # [N, D] float64: scores of the classes, for example
    clips: dict[str, float]  # means over single clips of the step's further entries
    failed: tuple[int, ...]  # manifest indices of videos that could not be read

    def check_finite(self, manifest: Manifest) -> None:
        """Raise UserError, with the videos' names, where values are NaN or infinite."""
        objectives.check_finite(self.values, [manifest.videos[index].name for index in self.video])


def mean_over_clips(
    step: ClipStep,
    weights: tuple[dict, dict],
    manifest: Manifest,
    split: str,
    sampling: pipeline.Sampling,
    mesh: Mesh,
    *,
    protocol: pipeline.Protocol,
    batch: int,
    whole_batches: bool = False,
    workers: int = 0,
    interrupted: Callable[[], bool] = sharding.stop_requested,
) -> VideoMeans:
    """Run a step on every cropped clip of every readable video of a split.

    Args:
      weights: (params, batch_stats).
      batch: clips at once, at most; rounded up to what the devices share evenly.
      whole_batches: keep that size for fewer clips too, so that nothing has to be compiled again.

    Raises:
      Interrupted: `interrupted` says so on the way.
      UserError: no video can be read, or the devices have too little memory.
    """
    clips = pipeline.cropped_clips(manifest, split, sampling, protocol)
    if not clips:
        raise UserError(f"manifest {manifest.name!r} has no readable video in its split {split!r}.")
    batch = sharding.multiple_of_devices(batch if whole_batches else min(batch, len(clips)), mesh)
    hosts = pipeline.Hosts(jax.process_index(), jax.process_count())
    batches = pipeline.test_batches(manifest, sampling, clips, batch=batch, workers=workers, hosts=hosts)
    sums = _Sums(manifest, clips, batch)
    progress = tqdm(total=len(clips), desc=split, unit="clip", leave=False, disable=None)
    pending: dict[str, jax.Array] | None = None  # what a step gives is read while the next one runs
    with contextlib.closing(batches), contextlib.closing(progress), sharding.enough_memory():
        for rows in _until(interrupted, batches):
            running = step(*weights, sharding.place_batch(rows, mesh))
            if pending is not None:
                progress.update(sums.add(pending))
            pending = running
        if pending is not None:
            progress.update(sums.add(pending))
    return sums.means()


def _until(interrupted: Callable[[], bool], batches: Iterator[pipeline.Batch]) -> Iterator[pipeline.Batch]:
    """Yield the batches; raise Interrupted once that is asked for, also if the signal has ended a worker."""
    while not interrupted():
        try:
            rows = next(batches, None)
        except RuntimeError:
            if jax.process_count() > 1 or not interrupted():  # several ask equally often
                raise
            break
        if rows is None:
            return
        yield rows
    raise Interrupted


class _Sums:
    """Values added up video by video, as the batches come; nothing is kept of single clips.

    Clips are added in the order of `pipeline.test_rows`, which is the same for every batch size; so are the sums.
    """

    def __init__(self, manifest: Manifest, clips: list[pipeline.CroppedClip], batch: int):
        self._rows = [clips[place].video if wanted else None for place, wanted in pipeline.test_rows(clips, batch)]
        self._video = np.unique([clip.video for clip in clips])
        self._label = np.stack([manifest.target(manifest.videos[index]) for index in self._video])
        self._place = {int(index): place for place, index in enumerate(self._video)}
        self._clips = np.zeros(len(self._video), int)
        self._sums: dict[str, np.ndarray] = {}  # [videos, D] of "values", [videos] of all else
        self._failed: set[int] = set()
        self._next = 0  # row

    def add(self, result: dict[str, jax.Array]) -> int:
        """Add the step's result for the next batch; return how many clips are in it."""
        found = {name: np.asarray(values) for name, values in result.items()}
        self._failed.update(int(index) - 1 for index in found.pop("failed") if index)
        for name, values in found.items():
            self._sums.setdefault(name, np.zeros((len(self._video), *values.shape[1:])))
        videos = self._rows[self._next : self._next + len(found["values"])]
        self._next += len(videos)
        for row, video in enumerate(videos):
            if video is not None:
                place = self._place[video]
                self._clips[place] += 1
                for name, values in found.items():
                    self._sums[name][place] += values[row]
        return sum(video is not None for video in videos)

    def means(self) -> VideoMeans:
        """The means of all videos but those that failed."""
        kept = ~np.isin(self._video, list(self._failed))
        if not kept.any():
            raise UserError("none of the videos of this test can be read: has their folder moved since prepare?")
        sums, clips = {name: values[kept] for name, values in self._sums.items()}, self._clips[kept]
        return VideoMeans(
            video=self._video[kept],
            label=self._label[kept],
            values=sums.pop("values") / clips[:, None],
            clips={name: float(values.sum() / clips.sum()) for name, values in sums.items()},
            failed=tuple(sorted(self._failed)),
        )
