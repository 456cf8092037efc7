"""Pooled features of videos, to search, cluster or classify with: what `--mode=features` of `jax_video.main` does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import checkpoint, evaluate, lock, objectives, recipe, sharding
from jax_video import state as state_lib
from jax_video.data import pipeline, remote
from jax_video.data.manifest import SPLITS, Manifest
from jax_video.errors import UserError
from jax_video.models.correspondence import Correspondence
from jax_video.models.t3d import SegmentConsensus


@checkpoint.writes_run
def extract(config: ConfigDict, manifest: Manifest, workdir: remote.Path, mesh: Mesh) -> dict[str, np.ndarray]:
    """Features of every video that can be read, by a run's best checkpoint.

    They are the mean of `model.features` over frames and places, and over the clips and crops of the config's test. Of
    two streams those of appearance come first; of a knowledge transfer they are the 3D network's. Videos need no
    labels, and classes may be other than the run's.

    Returns:
      What it writes into features.npz: `video` [N] paths in the data set, `split` [N], `label` [N] int32 (-1 where
      there is none) and `features` [N, D] float32; split by split, in the order of the manifest.

    Raises:
      UserError: no checkpoint, one of another network, or no video that can be read.
    """
    config = recipe.resolve(config)
    definition, network, meta = checkpoint.read_network(workdir, mesh, dtype=config.dtype)
    its_own_classes = dataclasses.replace(manifest, classes=tuple(meta["classes"]), videos=())
    checkpoint.check_network(meta, config.to_dict(), its_own_classes, workdir)
    sampling = pipeline.Sampling(**config.clip)
    pipeline.check_stored(manifest, sampling)
    normalization = state_lib.Normalization(**meta["config"]["normalize"])

    def step(params, batch_stats, batch):
        model = state_lib.join(definition, params, batch_stats, train=False)
        if isinstance(model, Correspondence):
            model = SegmentConsensus(model.student) if sampling.segments else model.student
        features = model.features(*state_lib.inputs(batch, normalization))
        streams = features if isinstance(features, tuple) else (features,)
        pooled = [stream.mean(axis=(1, 2, 3), dtype=jnp.float32) for stream in streams]
        return {"scores": jnp.concatenate(pooled, axis=-1), "failed": batch["failed"]}

    step = jax.jit(step, out_shardings=sharding.replicated(mesh))
    parts = []
    for split in filter(manifest.select, SPLITS):
        found = evaluate.score_videos(
            step,
            (network["params"], network["batch_stats"]),
            manifest,
            split,
            sampling,
            mesh,
            protocol=evaluate.protocol_of(config),
            batch=config.test.batch,
            workers=config.data.workers,
        )
        objectives.check_finite(found.scores, [manifest.videos[index].path for index in found.video])
        parts.append(
            {
                "video": np.array([manifest.videos[index].path for index in found.video]),
                "split": np.array([split] * len(found.video)),
                "label": found.label.astype(np.int32),
                "features": found.scores.astype(np.float32),
            }
        )
    if not parts:
        raise UserError(f"manifest {manifest.name!r} has no readable video: look at prepare's table.")
    result = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    lock.check(workdir)
    if jax.process_index() == 0:
        with (workdir / "features.npz").open("wb") as file:
            np.savez(file, **result)
    return result


def report(result: dict[str, np.ndarray], manifest: Manifest, workdir: remote.Path) -> str:
    """How many features there are, and where."""
    videos, width = result["features"].shape
    listed = len(manifest.videos)
    return f"{width} features of {videos} of the {listed} videos of {manifest.name!r}: {workdir}/features.npz"
