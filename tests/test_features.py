"""Pooled features of every video against means taken by NumPy: of one stream, of two, and of several clips."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from commands import run
from conftest import ROOT
from flax import nnx
from ml_collections import ConfigDict

from jax_video import networks, optimizer, sharding, workflow
from jax_video import state as state_lib
from jax_video.checkpoint import Checkpoints
from jax_video.data import clips
from jax_video.data.decoding import video
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions
from jax_video.errors import CheckpointError, UserError
from jax_video.meta import Meta
from jax_video.models.layers import Linear
from jax_video.run import load
from jax_video.testing import features

SIDE = 32  # of the resized frames, which are 40 × 32
CLASSES = ["a", "b"]  # of the network: other than those of the videos


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Manifest:
    folder = tmp_path_factory.mktemp("motions")
    return Manifest.read(motions.make(folder, train=8, val=0, test=8, frames=12, width=40, height=32))


@pytest.fixture
def manifest(labelled) -> Manifest:
    """The same as a folder of videos is: without labels or classes."""
    videos = tuple(dataclasses.replace(entry, label=None) for entry in labelled.videos)
    return dataclasses.replace(labelled, classes=(), videos=videos)


class Squares(nnx.Module):
    """Features that are the squares of the pixels, each frame's weighted by its place, so that every frame counts.

    With `streams=2` a second stream has their cubes.
    """

    def __init__(self, *, num_classes, streams=1, rngs, dtype, norm):
        self.bn, self.streams = norm(3, dtype=dtype), streams  # which leaves values as they are, in test mode
        self.fc = Linear(3, num_classes, dtype=dtype, rngs=rngs)

    def features(self, x):
        weight = jnp.arange(1.0, 1 + x.shape[1])[:, None, None, None]
        powers = tuple(weight * self.bn(x) ** power for power in range(2, 2 + self.streams))  # each [B, T, H, W, 3]
        return powers if self.streams > 1 else powers[0]


@pytest.fixture(scope="module", autouse=True)
def squares_is_a_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "squares", networks.Network(f"{__name__}:Squares", {"streams": 1}))
        yield


def config_of(**model) -> ConfigDict:
    config = tiny.get_config()
    config.model = {"name": "squares", **model}
    config.clip.update(frames=4, stride=1, short_side=SIDE, size=SIDE)
    config.test.update(clips="uniform", number=3, crop="three", flip=True, batch=8)
    config.data.workers = 0
    return config


def make_run(workdir: pathlib.Path, config: ConfigDict) -> pathlib.Path:
    state = jax.jit(lambda: state_lib.create(state_lib.network(config, len(CLASSES)), optimizer.make(0.1)))()
    checkpoints = Checkpoints(workdir, sharding.make_mesh())
    checkpoints.save(state, Meta(config.to_dict(), tuple(CLASSES)), {"top1": 0.5})
    checkpoints.close()
    return workdir


def expected(manifest: Manifest, starts: list[int], powers=(2,)) -> np.ndarray:
    """Mean over clips, three squares and their mirror images (which have the same mean), float64."""
    rows = []
    mean, deviation = (np.array(values) for values in state_lib.IMAGENET)
    weight = np.arange(1, 5)[:, None, None, None]
    for entry in manifest.videos:
        frames = video.decode(pathlib.Path(manifest.root, entry.path), range(entry.frames), short_side=SIDE)
        x = (frames - mean) / deviation
        squares = [
            np.concatenate(
                [(weight * x[start : start + 4, :, left : left + SIDE] ** p).mean((0, 1, 2)) for p in powers]
            )
            for start in starts
            for left in (0, 4, 8)
        ]
        rows.append(np.mean(squares, axis=0))
    return np.array(rows)


@pytest.mark.parametrize("streams", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_means_over_places_clips_and_crops(manifest, tmp_path, streams):
    """Of unlabelled videos, split by split; a pair of streams is put together."""
    config = config_of(streams=streams)
    workdir = make_run(tmp_path / "run", config)
    found = features.extract(load(workdir, config=config), manifest)
    powers = (2, 3)[:streams]
    np.testing.assert_allclose(found["features"], expected(manifest, [0, 4, 8], powers), rtol=1e-4, atol=1e-4)
    assert found["video"].tolist() == [entry.path for entry in manifest.videos]
    assert found["split"].tolist() == ["train"] * 8 + ["test"] * 8
    assert found["label"].tolist() == [-1] * 16
    with np.load(workdir / "features.npz") as saved:
        assert sorted(saved) == sorted(found)
        for name, values in found.items():
            np.testing.assert_array_equal(saved[name], values)
        assert saved["features"].dtype == np.float32 and saved["label"].dtype == np.int32
    assert features.report(found, manifest, workdir).startswith(f"{3 * streams} features of 16 of the 16 videos of ")
    assert found["step"] == 0 and ", checkpoint of step 0: " in features.report(found, manifest, workdir)


def test_several_clips_under_consensus(labelled, tmp_path):
    config = config_of(consensus=True)
    config.clip.segments = 2
    config.test.update(clips="segments", crop="three", flip=False)
    found = features.extract(load(make_run(tmp_path / "run", config), config=config), labelled)
    starts = [int(clip[0]) for clip in clips.segment_clips(12, 4, 1, 2)]
    # The network weighs the four frames of each clip alike.
    np.testing.assert_allclose(found["features"], expected(labelled, starts), rtol=1e-4, atol=1e-4)
    assert found["label"].tolist() == [entry.label for entry in labelled.videos]


@pytest.mark.parametrize("segments", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_knowledge_transfer_gives_its_students(manifest, tmp_path, segments):
    config = config_of()
    config.teacher = {"name": "squares"}
    config.clip.segments = segments
    config.test.update(clips="segments" if segments else "uniform")
    found = features.extract(load(make_run(tmp_path / "run", config), config=config), manifest)
    starts = [int(clip[0]) for clip in clips.segment_clips(12, 4, 1, 2)] if segments else [0, 4, 8]
    np.testing.assert_allclose(found["features"], expected(manifest, starts), rtol=1e-4, atol=1e-4)


def test_videos_that_cannot_be_read_are_counted(manifest, tmp_path):
    config = config_of()
    workdir = make_run(tmp_path / "run", config)
    broken = [dataclasses.replace(manifest.videos[0], path="gone.mp4"), *manifest.videos[1:]]
    found = features.extract(load(workdir, config=config), dataclasses.replace(manifest, videos=tuple(broken)))
    assert found["video"].tolist() == [entry.path for entry in manifest.videos[1:]]
    assert "15 of the 16 videos" in features.report(found, manifest, workdir)
    with pytest.raises(UserError, match="has no readable video"):
        features.extract(load(workdir, config=config), dataclasses.replace(manifest, videos=()))
    with pytest.raises(CheckpointError, match="model.streams: None -> 2"):
        load(workdir, config=config_of(streams=2))


def test_a_chosen_checkpoint_leaves_the_features_of_the_best_alone(manifest, tmp_path):
    config = config_of()
    workdir = make_run(tmp_path / "run", config)
    some = dataclasses.replace(manifest, videos=manifest.videos[:2])
    (workdir / "features.npz").write_text("of the best one")
    features.extract(load(workdir, config=config, step=0), some)
    assert (workdir / "features.npz").read_text() == "of the best one"
    with np.load(workdir / "step0" / "features.npz") as saved:
        assert saved["step"] == 0 and len(saved["video"]) == 2


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_run_that_was_never_mirrored_is_not_looked_at_mirrored(manifest, tmp_path, mirrored):
    """Whatever set is given with a recipe that leaves it open."""
    config = config_of()
    config.clip.flip, config.test.flip = mirrored, None
    workdir = make_run(tmp_path / "run", config)
    config.clip.flip = None
    dataclasses.replace(manifest, flip=True).write(tmp_path / "manifest.jsonl")
    config.data.manifest = str(tmp_path)
    workflow.perform("features", config, workdir)
    with np.load(workdir / "features.npz") as saved:
        assert json.loads(str(saved["subject"]))["protocol"]["flip"] is mirrored
    config.test.split = "val"
    with pytest.raises(UserError, match="test.split=val: --mode=features looks at all videos"):
        workflow.perform("features", config, workdir)


def test_the_mode_of_the_command(manifest, tmp_path):
    """Of a real network, with the arguments of tests/tiny.py; its features are what its classifier sees."""
    config = tiny.get_config()
    workdir = make_run(tmp_path / "run", config)
    manifest.write(tmp_path / "manifest.jsonl")
    arguments = [f"--config={ROOT}/tests/tiny.py", f"--config.data.manifest={tmp_path}", f"--workdir={workdir}"]
    finished = run("jax_video.main", *arguments, "--mode=features")
    assert finished.code == 0, finished.stderr
    assert f"of 16 of the 16 videos of 'motions', checkpoint of step 0: {workdir}/features.npz\n" in finished.stdout
    network = state_lib.join(*state_lib.split(state_lib.network(config, len(CLASSES))), train=False)
    entry = manifest.videos[3]
    frames = video.decode(pathlib.Path(manifest.root, entry.path), range(entry.frames), short_side=SIDE)
    seen = np.stack([frames[clip][:, :, 4 : 4 + SIDE] for clip in clips.test_clips(entry.frames, 4, 1)])
    scores = jax.jit(lambda rgb: network(state_lib.normalize(rgb)).mean(axis=0))(seen)
    with np.load(workdir / "features.npz") as saved:
        found = jnp.asarray(saved["features"][3:4])
        about = json.loads(str(saved["subject"]))
    assert (about["manifest"], about["clip"]["size"], about["dtype"]) == (manifest.hash, SIDE, config.dtype)
    np.testing.assert_allclose(network.fc(found)[0], scores, rtol=1e-3, atol=1e-5)
