"""What a network says of windows: all of a video, batch by batch, or a single one of a stream."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from jax_video import objectives, sharding
from jax_video.data import isolated, pipeline
from jax_video.data.manifest import in_memory
from jax_video.scoring import ClipStep
from jax_video.timeline import Window

# (start in seconds, end in seconds, number of frames that clips are cut from, probabilities [K])
Looked = tuple[float, float, int, np.ndarray]


class Windows:
    """A classifier of windows, each by one clip in its middle.

    Args:
      step: gives the scores of clips.
      weights: (params, batch_stats).
      sampling, protocol: how a clip is cut out of a window; the protocol has one clip.
      mesh: the devices that it runs on.
      probabilities: turns scores [..., K] into probabilities [..., K].
    """

    def __init__(
        self,
        step: ClipStep,
        weights: tuple[dict, dict],
        sampling: pipeline.Sampling,
        protocol: pipeline.Protocol,
        mesh: Mesh,
        probabilities: Callable[[np.ndarray], np.ndarray],
    ):
        self._step, self._weights, self._mesh, self._probabilities = step, weights, mesh, probabilities
        self._sampling, self._protocol = sampling, protocol

    def one(self, window: Window) -> np.ndarray:
        """Probabilities [K] of a window."""
        with sharding.enough_memory():
            running = self._step(*self._weights, sharding.place_batch(self._batch([window], 1), self._mesh))
            return self._read(running, [window])[0]

    def each(self, groups: Iterator[list[Window]], seconds: float) -> Iterator[Looked]:
        """Yield `Looked` for each window of lists of windows; the next list is decoded meanwhile.

        Args:
          groups: lists as long as the first; the last may be shorter.
          seconds: of the whole video, as far as it is known.
        """
        progress = tqdm(total=round(seconds) or None, desc="timeline", unit=" s", leave=False, disable=None)
        ahead, size = concurrent.futures.ThreadPoolExecutor(1), 0

        def following() -> tuple[list[Window], pipeline.Batch] | None:
            windows = next(groups, None)
            return None if windows is None else (windows, self._batch(windows, size or len(windows)))

        with progress, ahead, isolated.ended_by_ctrl_c(), sharding.enough_memory():
            waiting = ahead.submit(following)
            while found := waiting.result():
                windows, rows = found
                size = len(rows["video"])
                running = self._step(*self._weights, sharding.place_batch(rows, self._mesh))
                waiting = ahead.submit(following)
                for window, row in zip(windows, self._read(running, windows), strict=True):
                    yield window.start, window.end, self._sampling.frames_of(len(window.images), window.rate).count, row
                progress.update(round(windows[-1].end) - progress.n)

    def _batch(self, windows: list[Window], size: int) -> pipeline.Batch:
        """A batch with one clip of each window, of `size` rows, rounded up to what the devices share evenly."""
        found = in_memory([np.stack(window.images) for window in windows])
        rated = zip(found.videos, windows, strict=True)
        videos = tuple(dataclasses.replace(video, fps=window.rate) for video, window in rated)
        found = dataclasses.replace(found, videos=videos)
        clips = pipeline.cropped_clips(found, "test", self._sampling, self._protocol)
        return pipeline.test_batch(found, self._sampling, clips, batch=sharding.multiple_of_devices(size, self._mesh))

    def _read(self, running: dict, windows: list[Window]) -> np.ndarray:
        scores = np.asarray(running["values"], np.float64)[: len(windows)]
        objectives.check_finite(scores, [f"window from {window.start:g} s" for window in windows])
        return self._probabilities(scores)
