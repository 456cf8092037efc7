"""CoST's analysis (§4.5): means of α against those taken clip by clip, the files and figures, and whom it refuses."""

import dataclasses
import json
import pathlib

import commands
import jax
import jax.numpy as jnp
import matplotlib.pyplot
import numpy as np
import pytest
from conftest import ROOT
from ml_collections import ConfigDict

from configs import cost
from jax_video import optimizer, pictures, sharding
from jax_video import state as state_lib
from jax_video.checkpoint import Checkpoints
from jax_video.data.decoding import video
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions
from jax_video.errors import UserError
from jax_video.meta import Meta
from jax_video.models.cost import VIEWS
from jax_video.run import Run
from jax_video.testing import coefficients

LAYERS = ("layer1/1", "layer3/0")  # of units (2, 1, 1, 1): every second one, counted through
SIZE, STRIDE = 32, 2


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    folder = tmp_path_factory.mktemp("motions")
    return Manifest.read(motions.make(folder, train=8, val=16, test=8, frames=20, width=40, height=32))


def config_of(model: str, data: str = "motions", **network) -> ConfigDict:
    config = cost.get_config(f"model={model},data={data}")
    config.dtype = "float32"
    config.model.update(width=1 / 16, layers=(2, 1, 1, 1), **network)
    config.norm.group_size = None
    config.clip.update(stride=STRIDE, short_side=SIZE, size=SIZE, jitter=(SIZE, SIZE))
    config.data.workers = 0
    return config


def network_of(config: ConfigDict, classes: int = 8):
    """(definition, {"params", "batch_stats"}) whose α are not all alike: their layers begin near zero.

    The values are NumPy's: initialising as the networks do compiles a function for every shape.
    """
    definition, params, batch_stats = state_lib.abstract(config, classes)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        names = {getattr(key, "key", None) for key in path}
        if names & {"scale", "var"}:
            return jnp.ones(leaf.shape, leaf.dtype)
        if leaf.ndim == 1 and not names & {"fc1", "fc2"}:
            return jnp.zeros(leaf.shape, leaf.dtype)
        deviation = 1 if names & {"alpha", "fc1", "fc2"} else np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.normal(0, deviation, leaf.shape), leaf.dtype)

    params, batch_stats = jax.tree_util.tree_map_with_path(draw, (params, batch_stats))
    return definition, {"params": params, "batch_stats": batch_stats}


def measure(config, network, manifest, split="val"):
    config = ConfigDict(config.to_dict())
    config.test.batch = 8
    run = Run(pathlib.Path("run"), config, Meta(config.to_dict(), manifest.classes), 0, *network, sharding.make_mesh())
    return coefficients.measure(run, manifest, split)


def one_by_one(network, manifest, split) -> np.ndarray:
    """Mean over the channels of α of every video's middle clip, [videos, layers, 3]."""
    definition, weights = network
    alpha = jax.jit(lambda clip: state_lib.join(definition, **weights, train=False).coefficients(clip))
    rows = []
    for _, entry in manifest.select(split):
        start = (entry.frames - 7 * STRIDE - 1) // 2
        path = pathlib.Path(manifest.root, entry.path)
        frames = video.decode(path, start + STRIDE * np.arange(8), short_side=SIZE)
        left = (frames.shape[2] - SIZE + 1) // 2
        clip = state_lib.normalize(frames[None, :, :, left : left + SIZE])
        alphas = alpha(clip)
        rows.append([np.asarray(alphas[layer], np.float64)[0].mean(axis=1) for layer in LAYERS])
    return np.array(rows)


def values(row: dict[str, float]) -> list[float]:
    assert tuple(row) == ("H-W", "T-W", "T-H")
    return list(row.values())


def test_means_over_channels_videos_and_layers(manifest):
    """Of predicted α, by batches on eight devices, against one clip after the other."""
    config = config_of("cost_b_resnet50")
    network = network_of(config)
    found, expected = measure(config, network, manifest), one_by_one(network, manifest, "val")
    assert np.ptp(expected, axis=0).max() > 1e-3, "α depends on the clip, or this test would show little"
    assert (found["videos"], found["of"]) == (16, 16)
    np.testing.assert_allclose(values(found["overall"]), expected.mean(axis=(0, 1)), atol=1e-5)
    assert tuple(found["layers"]) == LAYERS
    for layer, alpha in zip(found["layers"].values(), expected.mean(axis=0), strict=True):
        np.testing.assert_allclose(values(layer), alpha, atol=1e-5)
    labels = np.array([entry.label for _, entry in manifest.select("val")])
    for name, row in found["classes"].items():
        mean = expected[labels == manifest.classes.index(name)].mean(axis=(0, 1))
        np.testing.assert_allclose(values(row), mean, atol=1e-5)
    motion = [row["T-W"] + row["T-H"] for row in found["classes"].values()]
    assert set(found["classes"]) == set(manifest.classes) and motion == sorted(motion, reverse=True)


def test_learnt_coefficients_are_those_of_every_video(manifest):
    """CoST(a), whose α are parameters; the network may be one for several clips, of which one is looked at."""
    config = config_of("cost_a_resnet50")
    network = network_of(config)
    found = measure(config, network, manifest, "test")
    logits = [
        network[1]["params"][stage][int(unit)]["conv2"]["alpha"] for stage, unit in (n.split("/") for n in LAYERS)
    ]
    expected = [np.asarray(jax.nn.softmax(alpha, axis=0)).mean(axis=1) for alpha in logits]
    np.testing.assert_allclose([values(row) for row in found["layers"].values()], expected, atol=1e-6)
    for row in [found["overall"], *found["classes"].values()]:
        np.testing.assert_allclose(values(row), np.mean(expected, axis=0), atol=1e-6)
    assert "Motion counts most" not in coefficients.report({"step": 0, "split": "test"} | found, pathlib.Path("run"))

    several = config_of("cost_a_resnet50", consensus=True)
    definition, params, batch_stats = state_lib.split(state_lib.network(several, 8))
    assert set(params) == {"network"}
    inside = definition, {"params": {"network": network[1]["params"]}, "batch_stats": batch_stats}
    assert measure(config, inside, manifest, "test") == found


def test_videos_without_label_and_unreadable_ones(manifest, tmp_path):
    videos = [dataclasses.replace(entry, label=None) for entry in manifest.videos]
    config = config_of("cost_a_resnet50")
    found = measure(config, network_of(config), dataclasses.replace(manifest, videos=tuple(videos)))
    assert found["classes"] == {} and found["videos"] == 16
    first = manifest.select("val")[0][0]
    videos = list(manifest.videos)
    videos[first] = dataclasses.replace(videos[first], path="gone.mp4")
    found = measure(config, network_of(config), dataclasses.replace(manifest, videos=tuple(videos)))
    assert (found["videos"], found["of"]) == (15, 16)


@pytest.mark.parametrize("model", ["c2d_resnet50", "c3d_3x1x1_resnet50", "resnet50"])
def test_networks_without_views_are_refused(manifest, model):
    config = config_of("cost_b_resnet50")
    config.model = {"name": model, "width": 1 / 16}
    with pytest.raises(UserError, match="only the networks of CoST weigh views .*cost_a_resnet50.*; this one is a "):
        measure(config, network_of(config), manifest)


def test_the_mode_of_the_command(manifest, tmp_path):
    """Writes the JSON and both figures; on the test videos where there are no others."""
    config = config_of("cost_b_resnet50", data=manifest.root)
    state = state_lib.create(state_lib.network(config, 8), optimizer.make(0.1))
    state = dataclasses.replace(state, params=network_of(config)[1]["params"])
    checkpoints = Checkpoints(tmp_path / "run", sharding.make_mesh())
    checkpoints.save(state, Meta(config.to_dict(), manifest.classes), {"top1": 0.5})
    checkpoints.close()
    arguments = [
        f"--config={ROOT}/configs/cost.py:model=cost_b_resnet50,data={manifest.root}",
        *(f"--config.{key}" for key in ("dtype=float32", f"model.width={1 / 16}", f"clip.stride={STRIDE}")),
        *(f"--config.clip.{key}={SIZE}" for key in ("short_side", "size")),
        *(f"--config.clip.jitter=({SIZE},{SIZE})", "--config.data.workers=0", f"--workdir={tmp_path / 'run'}"),
    ]
    finished = commands.run("jax_video.main", *arguments, "--mode=views")
    assert finished.code == 0, finished.stderr
    result = json.loads((tmp_path / "run" / "views.json").read_text())
    measured = ["step", "split", "videos", "of", "overall", "layers", "classes"]
    assert list(result) == [*measured, "fingerprint", "manifest", "packed", "protocol", "clip", "dtype"]
    assert (result["manifest"], result["clip"]["stride"], result["dtype"]) == (manifest.hash, STRIDE, "float32")
    assert "Other clips than those of the run" not in finished.stderr
    assert (result["step"], result["split"], result["videos"]) == (0, "val", 16)
    overall = "".join(f"{value:7.3f}" for value in values(result["overall"]))
    assert f"overall   {overall}\n" in finished.stdout and "Motion counts most for" in finished.stdout
    for name in ("views_layers.png", "views_classes.png"):
        assert name in finished.stdout
        assert matplotlib.pyplot.imread(tmp_path / "run" / name).std() > 0.05, "something is drawn"

    only_test = [entry for entry in manifest.videos if entry.split == "test"]
    dataclasses.replace(manifest, videos=tuple(only_test)).write(tmp_path / "manifest.jsonl")
    other = (f"--config.data.manifest={tmp_path}", "--config.clip.stride=1")
    finished = commands.run("jax_video.main", *arguments, "--mode=views", *other)
    assert f"Other clips than those of the run in {tmp_path / 'run'}, which has stride {STRIDE}." in finished.stderr
    assert "8 of 8 videos of the split 'test'" in finished.stdout, finished.stderr


def test_a_chosen_checkpoint_leaves_the_analysis_of_the_best_alone(manifest, tmp_path, monkeypatch):
    config = config_of("cost_a_resnet50")
    share = dict.fromkeys(VIEWS, 1 / 3)
    found = {"videos": 1, "of": 1, "overall": share, "layers": {"layer1/1": share}, "classes": {}}
    monkeypatch.setattr(coefficients, "measure", lambda *_: found)
    for step, chosen in ((3, False), (2, True)):
        meta, mesh = Meta(config.to_dict(), manifest.classes), sharding.make_mesh()
        coefficients.analyse(Run(tmp_path, config, meta, step, *network_of(config), mesh, chosen=chosen), manifest)
    for folder, step in ((tmp_path, 3), (tmp_path / "step2", 2)):
        assert json.loads((folder / "views.json").read_text())["step"] == step
        assert (folder / "views_layers.png").exists() and (folder / "views_classes.png").exists()


@pytest.mark.parametrize("count", [1, 8, 400])
def test_figures_stay_readable(count, tmp_path):
    """Rows of classes never come closer than a line of text; of many classes the extremes are shown."""
    alpha = np.random.default_rng(0).dirichlet((7, 2, 2), count)
    classes = {
        f"class $\\x$ \x1b[31m\udcff {index}": dict(zip(VIEWS, row, strict=True)) for index, row in enumerate(alpha)
    }
    pictures.plot_classes(tmp_path / "classes.png", classes)
    height, width = matplotlib.pyplot.imread(tmp_path / "classes.png").shape[:2]
    assert height <= 1400 and width <= 1500 and height / min(count, 20) > 30
    layers = {f"layer3/{index}": row for index, row in enumerate(list(classes.values())[:16])}
    pictures.plot_layers(tmp_path / "layers.png", layers)
    assert matplotlib.pyplot.imread(tmp_path / "layers.png").shape[1] <= 1300
