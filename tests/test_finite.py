"""Weights and scores that are NaN or infinite are refused, by name, wherever a run is used; JSON stays JSON."""

import contextlib
import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from commands import check_user_error, run
from conftest import ROOT

from jax_video import checkpoint, objectives, optimizer, sharding
from jax_video import state as state_lib
from jax_video.data.sources import motions, prepared
from jax_video.errors import UserError
from jax_video.meta import Meta
from jax_video.run import load
from jax_video.testing import results
from jax_video.weights import conversion

pytestmark = pytest.mark.usefixtures("one_device")

CONFIG = f"--config={ROOT}/tests/tiny.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("data")
    return motions.make(folder, train=8, val=8, test=8, frames=8, width=40, height=32).parent


@pytest.fixture(scope="module")
def random_state() -> state_lib.TrainState:
    config = tiny.get_config()
    return jax.jit(lambda: state_lib.create(state_lib.network(config, 8), optimizer.make(0.1)))()


def make_run(folder: pathlib.Path, state: state_lib.TrainState, **changed) -> pathlib.Path:
    """A run's folder with one value of some arrays changed, by their names."""

    def change(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/").replace("/", "_")
        return leaf.at[(0,) * leaf.ndim].set(changed[name]) if name in changed else leaf

    mesh, meta = sharding.make_mesh(), Meta(tiny.get_config().to_dict(), motions.CLASSES)
    network = jax.tree_util.tree_map_with_path(change, {"params": state.params, "batch_stats": state.batch_stats})
    state = dataclasses.replace(state, **network)
    with contextlib.closing(checkpoint.Checkpoints(folder, mesh)) as checkpoints:
        checkpoints.save(sharding.place_state(state, mesh), meta)
    return folder


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("params_fc_bias", np.nan, "params/fc/bias: 1 of 8 values are NaN or infinite (float32)"),
        pytest.param(
            *("batch_stats_bn1_mean", np.inf, "batch_stats/bn1/mean: 1 of 4 values are NaN or infinite (float32)"),
            marks=pytest.mark.slow,
        ),
        pytest.param(*("batch_stats_bn1_var", -1.0, "batch_stats/bn1/var: a variance of -1"), marks=pytest.mark.slow),
    ],
)
def test_weights_of_a_run(tmp_path, data, random_state, name, value, line):
    folder = make_run(tmp_path / "run", random_state, **{name: value})
    config, manifest, mesh = tiny.get_config(), prepared.read(data), sharding.make_mesh()
    video = str(next((data / "test").rglob("*.mp4")))
    for use in (
        lambda: load(folder).classify(video),
        lambda: results.test(load(folder, config=config, mesh=mesh), manifest),
        lambda: conversion.export(load(folder), "jax_video", tmp_path / "out.npz"),
    ):
        with pytest.raises(UserError, match="run is not what a network computes with, in 1 of 62 arrays") as error:
            use()
        assert str(error.value).splitlines()[1] == f"  {line}"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.suffix in (".npz", ".json", ".jsonl")) == []


def test_a_run_that_starts_from_such_a_run(tmp_path, data, random_state):
    folder = make_run(tmp_path / "run", random_state, params_fc_bias=np.nan)
    arguments = (CONFIG, f"--config.data.manifest={data}", f"--workdir={tmp_path / 'new'}")
    finished = run("jax_video.main", *arguments, f"--config.init_from.path={folder}")
    check_user_error(finished, "params/fc/bias: 1 of 8 values are NaN or infinite")


def test_scores_that_grow_too_large(tmp_path, data, random_state):
    """Of finite weights: no prediction, no test.json, and the video is named."""
    folder = make_run(tmp_path / "run", random_state, params_fc_kernel=3e38, params_bn1_scale=3e38)
    config, manifest, mesh = tiny.get_config(), prepared.read(data), sharding.make_mesh()
    videos = sorted(map(str, (data / "test").rglob("*.mp4")))
    with pytest.raises(UserError, match=r"the scores of 1 of 1 videos \(.*mp4 first\) are NaN or infinite, although"):
        load(folder).classify(videos)
    with pytest.raises(UserError, match=r"the scores of 8 of 8 videos \(test/.*mp4 first\) are NaN or infinite"):
        results.test(load(folder, config=config, mesh=mesh), manifest)
    assert not [path for path in folder.iterdir() if path.name != "checkpoints"]
    finished = run("jax_video.predict", *videos, f"--checkpoint={folder}", "--json")
    check_user_error(finished, "the scores of 1 of 1 videos")
    assert finished.stdout == ""


def test_what_sound_weights_give_is_json(tmp_path, data, random_state):
    """Strictly: Python would also read NaN."""
    folder = make_run(tmp_path / "run", random_state)
    results.test(load(folder), prepared.read(data))
    for path in (folder / "test.json", folder / "confusion.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
    for line in (folder / "predictions.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_metrics_of_scores_that_are_not_finite(value):
    """A validation ends the run with them."""
    scores = np.full((3, 8), 0.125)
    scores[1, 2] = value
    with pytest.raises(UserError, match="the scores of 1 of 3 videos are NaN or infinite"):
        objectives.Classification().metrics(scores, np.zeros(3, int))
    pairs = np.array([[0.5, 0.7, 1.0, 0.0], [0.5, 0.7, 1.0, 0.0]])
    assert objectives.Correspondence().metrics(pairs, np.zeros(2))["pair_accuracy"] == 0.5
    pairs[0, 0] = value
    with pytest.raises(UserError, match="the scores of 1 of 2 videos are NaN or infinite"):
        objectives.Correspondence().metrics(pairs, np.zeros(2))


def test_defects_of_arrays_on_devices():
    assert state_lib.defect("params/fc/bias", jnp.ones(3)) == ""
    assert state_lib.defect("params/fc/bias", -jnp.ones(3)) == "", "which is no variance"
    assert state_lib.defect("batch_stats/bn/var", jnp.zeros(0)) == ""
    assert state_lib.defect("batch_stats/x/bn/var", -jnp.ones(3)).startswith("batch_stats/x/bn/var: a variance of -1")
    assert "2 of 3 values" in state_lib.defect("params/fc/bias", jnp.array([1, jnp.nan, -jnp.inf]))
