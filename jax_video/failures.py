"""Videos that fail while a network trains, although they could be read when the set was prepared."""

import sys

import numpy as np
from tqdm import tqdm

from jax_video.data import pipeline, reader, remote
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError


def diverged(what: str, step: int, folder: remote.Path, saved: list[int]) -> UserError:
    """The error of a training whose numbers are no longer finite; `saved`: the steps that have checkpoints."""
    where = f", in another --workdir: {folder} goes on only as it was begun" if saved else ""
    aside = f" Remove {folder / 'checkpoints' / str(step)}, which has diverged, too." if step in saved else ""
    return UserError(
        f"{what} of step {step} is not finite. Nothing was saved after the last good checkpoint.{aside} Lower "
        f"--config.schedule.learning_rate or raise --config.schedule.warmup_epochs{where}."
    )


class Failures:
    """The videos that fail although `prepare` found them readable: it names them, and stops a run at more than 1 %.

    Another video stands in for each in training, so a few do no harm; many mean that the data set has changed.
    """

    def __init__(self, manifest: Manifest, streams: tuple[str, ...] = ("rgb",)):
        self._manifest, self._streams = manifest, streams
        self._known = pipeline.given_up(manifest, streams)
        self._limit = 0.01 * len(manifest.select("train") + manifest.select("val"))
        self._failed: set[int] = set()

    def note(self, failed: np.ndarray) -> None:
        """Take a batch's `failed`, [B]: 1 + the index of an unreadable video, or 0. Raises UserError for too many."""
        for index in {int(number) - 1 for number in failed if number} - self._failed:
            entry = self._manifest.videos[index]
            if entry.name in self._known:
                continue
            self._failed.add(index)
            reason = reader.fault(self._manifest, entry, self._streams) or (
                "its end can be read; other frames cannot, or a disk or network has failed for a moment"
            )
            tqdm.write(f"cannot read {entry.name} any more: {reason}", file=sys.stderr)
        if len(self._failed) > self._limit:
            paths = "\n  ".join(self._manifest.videos[index].name for index in sorted(self._failed))
            raise UserError(
                f"{len(self._failed)} videos, more than 1 %, could be read by prepare but not now:\n"
                f"  {paths}\nLook at these files under {self._manifest.root}, or run prepare again."
            )
