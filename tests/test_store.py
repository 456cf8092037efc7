"""A run whose folder is in an object store: all that a run on disk has is there, and a kill at any moment is mended."""

import contextlib
import json

import jax
import numpy as np
import pytest
import tiny
from orbax.checkpoint._src.path import gcs_utils

from jax_video import beginning, lock, optimizer, runlog
from jax_video import train as train_lib
from jax_video.checkpoint import Checkpoints, run_folder
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions
from jax_video.run import load
from jax_video.testing import results


@pytest.fixture
def orbax_too(store, monkeypatch):
    """Orbax writes arrays by a library of its own, which would want a network."""

    def in_folder(path):
        return {"driver": "file", "path": f"{store}/{str(path).removeprefix('gs://')}"}

    monkeypatch.setattr(gcs_utils, "get_kvstore_for_gcs", in_folder)
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)


def test_a_run_in_a_store(tmp_path_factory, store, orbax_too, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.05)
    folder = tmp_path_factory.getbasetemp()
    manifest = Manifest.read(motions.make(folder, train=16, val=8, test=8, frames=8, width=40, height=32))
    config = tiny.get_config()
    config.train.update(epochs=2)
    config.data.manifest = "motions"
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("batch",))
    workdir, there = run_folder("gs://bucket/runs/first"), store / "bucket" / "runs" / "first"

    assert train_lib.train(config, manifest, workdir, mesh)
    result = results.test(load(workdir, config=config, mesh=mesh), manifest)
    assert not train_lib.train(config, manifest, workdir, mesh)
    assert results.read_result(load(workdir, config=config, mesh=mesh), manifest) == result
    assert json.loads((there / "test.json").read_text()) == result
    files = {"config.json", "metrics.jsonl", "tensorboard", "predictions.jsonl", "confusion.json", "confusion.png"}
    assert {path.name for path in there.iterdir()} == files | {"checkpoints", "test.json"}
    assert [(row["step"], row["split"]) for row in runlog.read(workdir / "metrics.jsonl")] == [
        *((step, "train") for step in range(1, 5)),
        (4, "val"),
    ]
    run = load(workdir, mesh=mesh)
    assert run.step == 4 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.weights))

    (there / "checkpoints" / "4" / "meta" / "metadata").write_text("{}")
    tx = optimizer.make(lambda step: 0.0, **config.optimizer)
    with contextlib.closing(Checkpoints(workdir, mesh)) as checkpoints:
        state, _ = beginning.restore_or_create(config, manifest, checkpoints, tx, mesh)
    assert int(state.step) == 3
    assert [path.name[0] for path in (there / "corrupted").iterdir() if path.is_dir()] == ["4"]
