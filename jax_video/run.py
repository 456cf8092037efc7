"""A run: what training leaves in a folder, opened once, to test, classify and extract features with.

run = load("runs/stc")
run.classify("video.mp4")
"""

import contextlib
import functools
import operator
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, overload

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import meta as meta_lib
from jax_video import multilabel, objectives, published, recipe, scoring, sharding, watching
from jax_video import state as state_lib
from jax_video import timeline as timeline_lib
from jax_video import videos as videos_lib
from jax_video.data import copies, isolated, remote
from jax_video.data import manifest as manifest_lib
from jax_video.errors import CheckpointError, UserError, VideoError, listed, shown
from jax_video.explanation import Explainer, Explanation
from jax_video.state import Normalization
from jax_video.task import Task
from jax_video.trained import Trained
from jax_video.videos import Video
from jax_video.windows import Windows


class Run(Trained):
    """A trained network with all that it takes to use it; what `load` returns. `Trained` describes its attributes.

    What it compiles is kept: the next video costs no compilation, unless it is many times as long.
    """

    @functools.cached_property
    def _batch_size(self) -> videos_lib.BatchSize:
        """The batch size of `classify` and `features`."""
        return videos_lib.BatchSize()

    @overload
    def classify(  # type: ignore[overload-overlap]  # a str is a sequence of str, but here one name
        self, videos: Video, *, fps: float = 0.0, timeout: float | None = isolated.TIMEOUT
    ) -> dict[str, float]: ...
    @overload
    def classify(
        self, videos: Iterable[Video], *, fps: float = 0.0, timeout: float | None = isolated.TIMEOUT
    ) -> list[dict[str, float]]: ...
    def classify(
        self, videos: Video | Iterable[Video], *, fps: float = 0.0, timeout: float | None = isolated.TIMEOUT
    ) -> dict[str, float] | list[dict[str, float]]:
        """Probabilities of the classes by name, best first: means over the clips and crops of the run's own test.

        They sum to 1. With several labels per video each is independent, and `thresholds` says which classes hold.

        Args:
          videos: one, or several: files, folders of numbered pictures, or frames, uint8 [T, H, W, 3], RGB.
          fps: frames per second of arrays, of pictures and of files that do not say it: needed if the run's clips have
            a rate of their own (`clip.fps`), and otherwise ignored.
          timeout: seconds within which each file must make progress; it is read in a process of its own, with at most
            1 GiB of memory. None: all are read in this process, without any limit.

        Returns:
          {class: probability} for one video, a list of these for several.

        Raises:
          UserError: the run knows no classes, or some videos cannot be read, each named with its reason.
        """
        several, single = videos_lib.several(videos)
        scores, faults = self.scores(several, fps=fps, timeout=timeout)
        videos_lib.refuse(faults, several)
        order = [np.argsort(-row, kind="stable") for row in scores.values()]
        found = [
            {self.classes[index]: float(row[index]) for index in best}
            for row, best in zip(scores.values(), order, strict=True)
        ]
        return found[0] if single else found

    def features(
        self, videos: Video | Iterable[Video], *, fps: float = 0.0, timeout: float | None = isolated.TIMEOUT
    ) -> np.ndarray:
        """Features of one video, float32 [D], or of several, [N, D]: means over frames and places, clips and crops.

        Arguments and errors are those of `classify`; a run of knowledge transfer has features, too.
        """
        several, single = videos_lib.several(videos)
        rows, faults = videos_lib.in_order(self._each(self.pool_clips, several, fps, timeout))
        videos_lib.refuse(faults, several)
        if not rows:
            raise UserError("no video given: expected a file, or frames as an array uint8 [T, H, W, 3], or several")
        found = np.stack(list(rows.values())).astype(np.float32)
        return found[0] if single else found

    def scores(
        self, videos: Sequence[Video], *, fps: float = 0.0, timeout: float | None = isolated.TIMEOUT
    ) -> tuple[dict[int, np.ndarray], dict[int, str]]:
        """Probabilities of the classes for each video that can be read, and why the others cannot.

        Arguments are those of `classify`.

        Returns:
          ({place in `videos`: probabilities [K]}, {place: reason}), both in the order of `videos`.

        Raises:
          UserError: the run knows no classes, or its network gives scores that are NaN or infinite.
        """
        return videos_lib.in_order(self.iter_scores(videos, fps=fps, timeout=timeout))

    def iter_scores(
        self,
        videos: Sequence[Video],
        *,
        fps: float = 0.0,
        timeout: float | None = isolated.TIMEOUT,
        batch: int | None = None,
        clips: int | None = None,
    ) -> Generator[tuple[int, np.ndarray | str], None, None]:
        """Yield `scores` video by video, each as soon as it is known: any number of videos in constant memory.

        Files are decoded in as many processes as there are cores, and clips of several videos fill a batch together.

        Args:
          videos, fps, timeout: as in `classify`.
          batch: clips at once; None: as many as in the run's test.
          clips: of a video, evenly spread over it; None: those of the run's test.

        Yields:
          (place in `videos`, probabilities of the classes [K], or why it cannot be read).

        Raises:
          UserError: as from `scores`, or an argument is out of range.
        """
        self._check_classification()
        for place, found in self._each(self.score_clips, videos, fps, timeout, batch, clips):
            yield place, found if isinstance(found, str) else self._probabilities(found)

    def _check_classification(self) -> None:
        if not isinstance(self.objective, objectives.Classification):
            raise UserError(
                f"{self.folder} is a run of knowledge transfer, which knows no classes: fine-tune it on labels first"
            )

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of the classes from a test's scores, [..., K] each."""
        assert isinstance(self.objective, objectives.Classification)
        return self.objective.video_probabilities(scores)

    def timeline(
        self,
        video: Video,
        *,
        window: float = 2.0,
        hop: float = 0.5,
        fps: float = 0.0,
        timeout: float | None = isolated.TIMEOUT,
        batch: int | None = None,
    ) -> timeline_lib.Timeline:
        """Labels with times: the probabilities of the classes in every window of a video.

        A window is classified as a video of its own, by one clip in its middle; where it has fewer frames than a clip,
        they are looped as in training. For clips with a rate (`clip.fps`), a window's rate is measured by its times.
        The video is decoded once, from its start to its end, in constant memory.

        Args:
          video: a file, a folder of numbered pictures, or frames, uint8 [T, H, W, 3], RGB.
          window: seconds of a window. The last one ends with the video; a shorter video is one window.
          hop: seconds from the start of a window to the start of the next.
          fps: frames per second, needed for pictures and arrays; for a file it replaces the file's own times.
          timeout: as in `classify`.
          batch: windows at once; None: as many as clips in the run's test.

        Raises:
          UserError: a window of fewer than two frames or of too many, an argument out of range, a run that knows no
            classes, or a video that cannot be read.
        """
        self._check_classification()
        fps = videos_lib.checked_fps(fps, "for the video's own times")
        most = self.config.test.batch if batch is None else videos_lib.at_least_one("batch", batch)
        video = videos_lib.one(video)
        if isinstance(video, np.ndarray):
            manifest_lib.in_memory([video])  # raises if it is no video
        try:
            images, seconds = isolated.timed(video, short_side=self.sampling.short_side, fps=fps, timeout=timeout)
            with contextlib.closing(images):
                groups = timeline_lib.groups(timeline_lib.windows(images, window, hop), most)
                found = [*self._windows.each(groups, seconds)]
        except VideoError as error:
            raise UserError(str(error)) from error
        starts, ends, frames, rows = map(np.array, zip(*found, strict=True))
        span = self.sampling.span
        note = ""
        if len(few := frames[frames < span]):
            rate = f" at {self.sampling.fps:g} to a second" if self.sampling.fps else ""
            count = f"{len(few)} of {len(frames)} windows have fewer, from {min(few)}"
            note = f"clips span {span} frames{rate}, and {count}: they are looped, as in training"
        return timeline_lib.Timeline(self.classes, starts, ends, rows, note, self.thresholds, hop)

    @functools.cached_property
    def _windows(self) -> Windows:
        protocol = self.task.validation
        return Windows(self.score_clips, self._arrays, self.sampling, protocol, self.mesh, self._probabilities)

    @functools.cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self.definition, self._arrays, self.config, self.classes, self.normalization, self.mesh)

    def explain(
        self,
        video: Video,
        *,
        label: str | None = None,
        layer: str | None = None,
        fps: float = 0.0,
        timeout: float | None = isolated.TIMEOUT,
    ) -> Explanation:
        """What the network looks at in the clip in the middle of a video: Grad-CAM over time.

        Args:
          video: a file, a folder of numbered pictures, or frames, uint8 [T, H, W, 3], RGB.
          label: the class to explain; None: the best one of the clip.
          layer: the stage of the network whose output is looked at, such as "layer3"; None: the last with at least 4
            places in time, 7 in height and 7 in width, or with as many as any stage has.
          fps: frames per second, where the video has no times of its own.
          timeout: as in `classify`.

        Raises:
          UserError: no such class or stage, a run that knows no classes, or a video that cannot be read.
        """
        return next(self.explain_clips(video, label=label, layer=layer, fps=fps, timeout=timeout, whole=False))

    def explain_clips(
        self,
        video: Video,
        *,
        label: str | None = None,
        layer: str | None = None,
        fps: float = 0.0,
        timeout: float | None = isolated.TIMEOUT,
        whole: bool = True,
    ) -> Iterator[Explanation]:
        """Yield what `explain` returns for one clip after the other, from start to end, in constant memory.

        A last clip ends with the video, so that all of it is seen. A network that takes several clips together has one
        explanation, as any has if `whole` is False.
        """
        self._check_classification()
        video = videos_lib.one(video)
        if label is not None:
            self._explainer.class_of(label)  # before anything is read
        options: dict[str, Any] = {"label": label, "layer": layer, "fps": fps, "timeout": timeout, "whole": whole}
        return self._explainer.explain(video, **options)

    def watch(
        self,
        source: str | os.PathLike | int,
        *,
        window: float | None = None,
        hop: float | None = None,
        fps: float = 0.0,
        interrupted: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _: None,
    ) -> watching.Watch:
        """Labels of a stream as they change: an iterator of what the network says of its newest window.

        A window is classified as by `timeline`. If the network falls behind, windows are skipped. A camera or an
        address is opened again when it breaks, ends or falls silent; the end of a pipe or file ends the iterator.

        Args:
          source: a camera (0, /dev/video0), a pipe (- for standard input, or its path), a file, which is played at its
            own speed, or an address (rtsp://, udp://, tcp://, http:// …). Only `watch` opens cameras and addresses.
          window: seconds of a window; None: as long as a clip, or 2 s if that is not known.
          hop: seconds from the start of a window to the start of the next; None: a quarter of a window.
          fps: frames per second, in place of the stream's own times.
          interrupted: is called often; the iterator ends when it returns True.
          say: is called with messages for the user about the stream.

        Returns:
          An iterator of `watching.Moment`, with a `summary`; close it when you leave it early (`with`).

        Raises:
          UserError: no such source, or it cannot be opened at first; a window of fewer than two frames or of too many,
            an argument out of range; a run that knows no classes, or whose network takes optical flow.
        """
        self._check_classification()
        chosen = watching.Windows(window, hop, self.sampling)
        options: dict[str, Any] = {"fps": fps, "interrupted": interrupted, "say": say, "thresholds": self.thresholds}
        return watching.Watch(source, self.classes, self._windows.one, chosen, **options)

    def _each(
        self,
        step: scoring.ClipStep,
        videos: Sequence[Video],
        fps: float,
        timeout: float | None,
        batch: int | None = None,
        clips: int | None = None,
    ) -> Generator[tuple[int, np.ndarray | str], None, None]:
        """Yield (place, mean over its clips [D] or why it cannot be read) of each video, as soon as it is known."""
        videos, _ = videos_lib.several(videos)
        seen = videos_lib.seen(videos, self.sampling, self.protocol_with(clips), fps=fps, timeout=timeout)
        most = self.config.test.batch if batch is None else videos_lib.at_least_one("batch", batch)
        with contextlib.closing(seen):
            for place, mean in videos_lib.means(step, self._arrays, seen, self.mesh, most=most, size=self._batch_size):
                if not isinstance(mean, str):
                    objectives.check_finite(mean[None], [videos_lib.name(videos[place], place)])
                yield place, mean


def load(
    folder: str | os.PathLike,
    *,
    config: ConfigDict | None = None,
    dtype: str | None = None,
    mesh: Mesh | None = None,
    step: int | None = None,
) -> Run:
    """The run in a folder, with the weights of its best sound checkpoint.

    Args:
      folder: a run's, or one that `python -m jax_video.export` has written; local, in a store (gs://, s3://, hf://, …)
        or behind a URL. What is not local, nor in gs://, is copied to the cache folder.
      config: replaces the run's own clips, test and type of activations. A `flip` of None mirrors where a set allows
        it, and never for a run whose training did not mirror.
      dtype: of the activations: "float32" or "bfloat16"; by default the config's.
      mesh: the devices to run on; by default all.
      step: takes the checkpoint of this step instead. A run keeps the last `train.keep` and the best one.

    For a run with several labels per video that was not validated, a note on stderr says that each class holds from a
    probability of .5 on.

    Raises:
      CheckpointError: there is no such checkpoint in this folder, its weights are not usable (NaN, for example), or
        `config` is of another network.
    """
    mesh, given, folder = sharding.mesh_of(mesh), folder, published.opened(folder, step=step)
    published.check_folder(folder)
    step = None if step is None else operator.index(step)
    config = None if config is None else recipe.resolve(config)
    dtype = config.dtype if dtype is None and config is not None else dtype
    with copies.judged(folder, given), contextlib.closing(published.source(folder, mesh, step)) as checkpoints:
        meta = checkpoints.best_meta()
        own = ConfigDict(meta.config | ({"dtype": dtype} if dtype else {}))
        with _saved_config(folder):
            state_lib.check_dtype(own.dtype)
            try:
                Normalization.of(own.normalize)
            except UserError as error:
                raise ValueError(str(error)) from error
            definition, params, batch_stats = state_lib.abstract(own, len(meta.classes))
            Task.of(own)
        weights, meta, found = checkpoints.read_best({"params": params, "batch_stats": batch_stats})
    leaves = state_lib.named_leaves(weights)
    if broken := [line for name, leaf in leaves.items() if (line := state_lib.defect(name, leaf))]:
        raise CheckpointError(
            f"checkpoint {found} of {folder} is not what a network computes with, in {len(broken)} of {len(leaves)} "
            "arrays; has its training diverged? Take an earlier run.\n" + listed(broken)
        )
    if config is not None:
        meta_lib.check_network(meta, config.to_dict(), folder)
        if meta.config.get("clip", {}).get("flip") is False:  # None would mirror whatever has no manifest to forbid it
            config = recipe.resolve(config, flip=False)
        # What the weights have seen, and what they were trained for, are the run's.
        own = ConfigDict(config.to_dict() | {"dtype": dtype, "normalize": meta.config["normalize"]})
        own.train.loss = meta.config.get("train", {}).get("loss")
    run = Run(folder, own, meta, found, definition, weights, mesh, chosen=step is not None)
    undecided = own.get("train", {}).get("loss") == "sigmoid" and meta.thresholds is None
    if undecided and run.thresholds is not None and jax.process_index() == 0:
        recipe.note(
            f"Checkpoint {found} of {shown(folder)} has no thresholds, as none were chosen by a validation: each class "
            f"holds from a probability of {multilabel.THRESHOLD:g} on."
        )
    return run


@contextlib.contextmanager
def _saved_config(folder: remote.Path) -> Iterator[None]:
    """Turn the errors of code that reads a saved config with impossible values into one CheckpointError."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the config that is saved in {folder} cannot be one that it was trained with "
            f"({type(error).__name__}: {error}). Take another run."
        ) from error
