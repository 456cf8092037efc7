"""Pooled features of a set's videos, to search, cluster or classify with: `--mode=features` of `jax_video.main`."""

import io
import json
from typing import Any

import jax
import numpy as np

from jax_video import checkpoint, lock
from jax_video.data import pipeline, remote
from jax_video.data.manifest import SPLITS, Manifest
from jax_video.errors import UserError
from jax_video.run import Run
from jax_video.testing import results


@checkpoint.writes_run
def extract(run: Run, manifest: Manifest) -> dict[str, np.ndarray]:
    """Features of every video that can be read: the mean of `Run.pool_clips` over clips and crops of the run's test.

    Videos need no labels, and classes may differ from the run's.

    Returns:
      What it writes into features.npz, of a checkpoint that was chosen by its step in a folder of its own
      (`results.place`): `video` [N] paths in the data set, `split` [N], `label` [N] int32 (-1 where there is none;
      multi-label [N, K], 1 for those that hold) and `features` [N, D] float32, split by split, in the order of the
      manifest; the `step` of the checkpoint; and as JSON the `subject`: set, clips, protocol and dtype.

    Raises:
      UserError: no video can be read.
    """
    pipeline.check_stored(manifest, run.sampling)
    results.print_other_clips(run)
    parts = []
    for split in filter(manifest.select, SPLITS):
        means = run.mean_over_clips(run.pool_clips, manifest, split)
        means.check_finite(manifest)
        parts.append(
            {
                "video": np.array([manifest.videos[index].name for index in means.video]),
                "split": np.array([split] * len(means.video)),
                "label": means.label.astype(np.int32),
                "features": means.values.astype(np.float32),
            }
        )
    if not parts:
        raise UserError(f"manifest {manifest.name!r} has no readable video: look at prepare's table.")
    result: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    result["step"] = np.array(run.step)
    about = results.subject(run, manifest)
    del about["protocol"]["split"]  # of all splits
    result["subject"] = np.array(json.dumps(about))
    lock.check(run.folder)
    if jax.process_index() == 0:
        folder = results.folder_of(run, "test")
        folder.mkdir(exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, **result)
        remote.write_whole(folder / "features.npz", [buffer.getvalue()])
    return result


def report(result: dict[str, np.ndarray], manifest: Manifest, folder: remote.Path) -> str:
    """How many features there are, of which checkpoint, and in which folder."""
    videos, width = result["features"].shape
    of = f"{videos} of the {len(manifest.videos)} videos of {manifest.name!r}"
    return f"{width} features of {of}, checkpoint of step {result['step']}: {folder}/features.npz"
