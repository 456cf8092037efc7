"""Grad-CAM against PyTorch's and against class activation maps, on a network that sees motion alone; what users see."""

import dataclasses
import functools
import itertools
import json

import commands
import cv2
import jax
import numpy as np
import outlines
import parity
import pytest
import tiny
import torch
import windows
from conftest import ROOT
from ml_collections import ConfigDict
from reference import resnet as reference

import jax_video
from jax_video import explanation, models, networks, sharding
from jax_video import state as state_lib
from jax_video.data import encoding, pipeline, samples, transforms
from jax_video.data.decoding import video
from jax_video.data.manifest import Manifest, in_memory
from jax_video.errors import UserError, VideoError
from jax_video.meta import Meta
from jax_video.run import Run
from jax_video.testing import heatmaps

pytestmark = pytest.mark.usefixtures("one_device")


def config_of(model: dict, **clip) -> ConfigDict:
    config = tiny.get_config()
    config.model = ConfigDict(model)
    config.clip.update(clip)
    return config


def run_of(config: ConfigDict, definition, params, batch_stats, classes=("still", "moves")) -> Run:
    """A run with these weights, which was never trained."""
    weights = {"params": params, "batch_stats": batch_stats}
    record = Meta(config.to_dict(), tuple(classes))
    return Run("a run", config, record, 0, definition, weights, sharding.make_mesh())


def drawn_weights(config: ConfigDict, seed: int = 0) -> tuple:
    """(definition, params, batch_stats) with random values for five classes."""
    definition, *trees = state_lib.abstract(config, 5)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if leaf.ndim == 1:  # scales, offsets and statistics
            return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        return (rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(leaf.dtype)

    return definition, *jax.tree.map(draw, trees)


@functools.cache
def motion_detector() -> Run:
    """Its first layer takes large differences of frames four apart, and the others hand them on: "moves"."""
    config = tiny.get_config()
    config.clip.update(frames=16, size=56, short_side=62)
    definition, *trees = state_lib.abstract(config, 2)

    def fill(path, leaf):  # normalisations that change nothing, and no weights
        return np.full(leaf.shape, float(path[-1].key in ("scale", "var")), np.float32)

    params, batch_stats = (jax.tree_util.tree_map_with_path(fill, tree) for tree in trees)
    for channel, sign in enumerate((1, -1)):
        params["conv1"]["kernel"][1, 3, 3, :, channel] = sign
        params["conv1"]["kernel"][5, 3, 3, :, channel] = -sign
        params["bn1"]["bias"][channel] = -1.5
        for stage in ("layer2", "layer3", "layer4"):
            params[stage][0]["conv1"]["kernel"][:, :, :, channel, channel] = 1 / 9  # sees all places, which are strided
            params[stage][0]["conv2"]["kernel"][1, 1, 1, channel, channel] = 1
    params["fc"]["kernel"][:2] = [[-1, 1]] * 2
    return run_of(config, definition, params, batch_stats)


def moving(number: int) -> tuple[np.ndarray, tuple[int, int]]:
    """A video that moves in a window, whose picture around it is faint, and the window's centre."""
    frames, center = windows.render(number)
    mean = np.array(state_lib.IMAGENET.mean)
    faint = np.round(mean + 0.2 * (frames - mean))
    return np.where(windows.window(center)[..., None], frames, faint.astype(np.uint8)), center


def mass(found: explanation.Explanation, center: tuple[int, int]) -> float:
    """How many times its share of the area a window has of the maps' sum."""
    mask = np.repeat(windows.window(center)[None, ..., None], 3, axis=3).astype(np.uint8) * 255
    mask = transforms.resize_short(mask, 62)
    mask = transforms.crop(mask, transforms.draw_box(*mask.shape[1:3], (56, 56), "center"))[0, ..., 0] > 127
    return float(found.maps[:, mask].sum() / found.maps.sum() / mask.mean())


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [values.ravel().argsort(kind="stable").argsort(kind="stable") for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_it_is_what_pytorch_computes():
    """Activations, gradients, their mean, the map and its interpolation, in float64."""
    torch.manual_seed(0)
    options = {"name": "resnet3d10", "width": 0.125}
    network = reference.build("resnet3d10", 5, width=0.125)
    parity.randomize(network)
    model = models.build(num_classes=5, rngs=models.Keys(0), **options)
    config = config_of(options, frames=6, size=40, short_side=40)
    run = run_of(config, *parity.copied(model, network), classes="abcde")
    found = {label: run.explain(windows.render(0)[0][:6], label=label, layer="layer2") for label in "abcde"}

    kept = []
    network.double().eval().layer2.register_forward_hook(lambda _, __, output: kept.append(output))
    mean, std = (np.array(values) for values in run.normalization)
    logits = network(parity.channels_first((found["a"].frames[None] - mean) / std))[0]
    mixed = 0
    for ours, logit, probability in zip(found.values(), logits, logits.softmax(0).tolist(), strict=True):
        [gradient] = torch.autograd.grad(logit, kept, retain_graph=True)
        values = (gradient.mean((2, 3, 4), keepdim=True) * kept[0]).sum(1, keepdim=True).relu()
        maps = torch.nn.functional.interpolate(values, ours.maps.shape, mode="trilinear")[0, 0].detach().numpy()
        np.testing.assert_allclose(ours.maps, maps / (maps.max() or 1), atol=1e-4)
        assert ours.probability == pytest.approx(probability, abs=1e-5)
        assert ours.places == tuple(kept[0].shape[2:])
        assert ours.note == ("" if maps.any() else f"the map is zero: nothing in layer2 speaks for '{ours.label}'")
        mixed += 0 < (maps > 0).mean() < 1
    assert mixed >= 2, "or nothing is compared"


CASES = {  # the last stage, and clips that are taken together
    "cost_b_resnet50": ("layer4", 3),
    "st_resnet": ("layer4", 0),
    "resnet3d18": ("layer4", 0),
    "stc_resnet50": ("layer4", 0),
    "densenet3d121": ("norm5", 0),
    "t3d121": ("norm5", 2),
    "resnet18": ("layer4", 0),
    "densenet121": ("norm5", 0),
    "c2d_resnet50": ("layer4", 0),
    "cost_a_resnet50": ("layer4", 0),
    "appearance_stream": ("layer4", 0),
    "motion_stream": ("layer4", 0),
    "two_streams": ("layer4", 2),
    "inception3d": ("Mixed_5b", 0),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (number > 1)) for number, name in enumerate(CASES)]
)
def test_of_the_last_stage_it_is_the_class_activation_map(name):
    """Zhou et al. 2016: features times the classifier's weights, of any network that classifies their mean.

    For several clips that a network takes together, and for each of two streams.
    """
    network, (layer, segments) = networks.find(name), CASES[name]
    frames, size = outlines.small_clip(name)[0], 64
    model = {"name": name, "width": 0.125, **outlines.small(name)} | network.clip_keywords(frames, size)
    config = config_of(
        model | ({"consensus": True} if segments else {}), frames=frames, size=size, short_side=size, segments=segments
    )
    config.clip.streams = network.streams
    config.test.update(clips="segments" if segments else "uniform", number=1)
    run = run_of(config, *drawn_weights(config), classes="abcde")
    video_ = windows.render(0)[0]
    found = run.explain(video_, layer=layer, label="c")
    assert found.frames.shape == (max(1, segments) * frames, size, size, 3)
    assert (found.views is not None) == network.weighs_views

    manifest = in_memory([video_])
    clips = pipeline.cropped_clips(manifest, "test", run.sampling, run.task.validation)
    batch = pipeline.test_batch(manifest, run.sampling, clips, batch=1)
    inner = run.network.network if segments else run.network
    streams = [inner.appearance, inner.motion] if len(network.streams) == 2 else [inner]
    features = jax.tree.leaves(jax.jit(run.network.features)(*state_lib.inputs(batch, run.normalization)))
    ours = [found.maps] if found.flow_maps is None else [found.maps, found.flow_maps]
    for maps, stream, values in zip(ours, streams, features, strict=True):
        values = np.asarray(values[0] @ getattr(stream, network.head).kernel[:, 2]).clip(0)
        assert found.places == (len(values) // max(1, segments), *values.shape[1:])
        whole = [jax.image.resize(part, (frames, size, size), "linear") for part in np.split(values, max(1, segments))]
        np.testing.assert_allclose(maps, np.concatenate(whole) / (np.max(whole) or 1), atol=1e-4)
    if network.weighs_views:
        parts = batch["rgb"].reshape(-1, *batch["rgb"].shape[-4:])
        alphas = jax.jit(inner.coefficients)(state_lib.normalize(parts, run.normalization))
        expected = {layer: alpha.mean(axis=(0, 2)).tolist() for layer, alpha in alphas.items()}
        assert {layer: [*row.values()] for layer, row in found.views_by_layer.items()} == {
            layer: pytest.approx(row, abs=1e-5) for layer, row in expected.items()
        }
        assert [*found.views.values()] == pytest.approx(np.mean([*expected.values()], axis=0), abs=1e-5)
        assert [*found.views] == ["H-W", "T-W", "T-H"]


def test_it_lies_where_something_moves():
    """A network that sees motion alone looks at the window in which there is some."""
    for number in range(4):
        frames, center = moving(number)
        found = motion_detector().explain(frames)
        assert (found.label, found.layer, found.places) == ("moves", "layer2", (4, 7, 7))
        assert mass(found, center) >= 3, number


def test_it_depends_on_the_weights():
    """Adebayo et al. 2018: with random weights it is another."""
    run, (frames, _) = motion_detector(), moving(0)
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), run.weights["params"])
    other = run_of(run.config, run.definition, drawn, run.weights["batch_stats"])
    before, after = (each.explain(frames, label="moves").maps for each in (run, other))
    assert before.any() and after.any() and abs(rank_correlation(before, after)) < 0.5


@pytest.mark.slow  # trains for minutes
def test_of_a_trained_network_it_lies_where_something_moves_and_depends_on_the_weights(tmp_path):
    """On `motions` in a window, left, right, up and down; and Adebayo et al. 2018: weights are made random from the top
    layer on, one more after another, and the maps are less and less what they were."""
    windows.make(tmp_path / "windows", train=320, val=32, test=32)
    config = f"--config={ROOT}/configs/stc.py:recipe=small,data={tmp_path / 'windows'}"
    epochs = ("--config.train.epochs=12", "--config.train.validate_epochs=12")
    done = commands.run("jax_video.main", config, *epochs, f"--workdir={tmp_path / 'run'}", timeout=3600)
    assert done.code == 0, done.stderr
    run = jax_video.load(tmp_path / "run")
    videos = [(*windows.render(352 + number), windows.CLASSES[number % 4]) for number in range(32)]
    assert np.mean([max(found := run.classify(frames), key=found.get) == label for frames, _, label in videos]) > 0.9
    for layer in ("layer1", "layer2"):
        found = [mass(run.explain(frames, label=label, layer=layer), center) for frames, center, label in videos]
        assert np.mean(found) >= 3

    before = [run.explain(frames, label=label).maps for frames, _, label in videos[:8]]
    config = run.config.copy_and_resolve_references()
    config.seed = 1
    _, fresh, _ = state_lib.split(state_lib.network(config, 4))
    params, correlations = dict(run.weights["params"]), []
    for name in ("fc", "layer4", "layer3", "layer2", "layer1", "conv1"):
        params[name] = fresh[name]
        other = Run(run.folder, run.config, run.meta, 0, run.definition, run.weights | {"params": params}, run.mesh)
        after = [other.explain(frames, label=label).maps for frames, _, label in videos[:8]]
        correlations.append(np.mean([rank_correlation(*pair) for pair in zip(before, after, strict=True)]))
    assert max(correlations[1:]) < 0.5


@pytest.mark.parametrize(
    ("length", "starts"), [(2, [0]), (7, [0]), (16, [0]), (17, [0, 1]), (32, [0, 16]), (41, [0, 16, 25])]
)
def test_one_clip_after_another_covers_a_video(length, starts, monkeypatch):
    """Each as it is by itself, whatever the video's length and however little of it is in memory."""
    frames, run = np.tile(moving(0)[0], (2, 1, 1, 1))[:length], motion_detector()
    monkeypatch.setattr(explanation, "_MOST", 1)
    found = [*run.explain_clips(frames, fps=10)]
    seen = np.concatenate([part.indices for part in found])
    assert set(seen.tolist()) == set(range(length))
    assert [int(part.indices[0]) for part in found] == starts
    for part in found:
        np.testing.assert_allclose(part.seconds, part.indices / 10)
        alone = run.explain(frames[part.indices[0] :][:16])
        np.testing.assert_array_equal(part.frames, alone.frames)
        np.testing.assert_allclose(part.maps, alone.maps, atol=1e-6)
    drawn = [seconds for seconds, _ in heatmaps.drawn(found)]
    assert drawn == pytest.approx(np.arange(length) / 10)


def test_clips_at_a_rate_are_those_of_a_slower_video(monkeypatch):
    """Also of parts that are read one after the other: a video of 20 frames a second, of which clips take 10."""
    frames, run = np.tile(moving(0)[0], (2, 1, 1, 1))[:41], motion_detector()
    config = run.config.copy_and_resolve_references()
    config.clip.fps = 10.0
    slow = run_of(config, run.definition, run.weights["params"], run.weights["batch_stats"])
    for whole in (False, True):
        expected = [*run.explain_clips(frames, fps=10, whole=whole)]
        found = [*slow.explain_clips(np.repeat(frames, 2, axis=0), fps=20, whole=whole)]
        assert len(found) == len(expected)
        monkeypatch.setattr(explanation, "_MOST", 1)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.indices.tolist() == (2 * theirs.indices).tolist()
            np.testing.assert_array_equal(ours.frames, theirs.frames)
            np.testing.assert_allclose(ours.seconds, theirs.seconds)
    assert slow.explain(frames, fps=5).indices.tolist() == [(place + 1) // 2 for place in range(33, 49)]
    with pytest.raises(UserError, match="its frame rate is not known, and clips have 10: say how many frames"):
        slow.explain(frames)


@pytest.mark.parametrize("rates", [(10, 20), (20, 10), (1, 20), (1000, 10), (10, 1000, 10)])
def test_all_of_a_video_is_explained_however_its_rate_changes(rates, monkeypatch):
    """As in recordings of screens: clips follow one another, and are looped only where the video is too short."""
    detector = motion_detector()
    config = detector.config.copy_and_resolve_references()
    config.clip.update(frames=4, stride=1, fps=10.0)
    run = run_of(config, detector.definition, detector.weights["params"], detector.weights["batch_stats"])
    steps = np.repeat(1 / np.array(rates), [8, *(160 // len(rates) for _ in rates[1:])])
    seconds = np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    images = np.tile(moving(0)[0], (4, 1, 1, 1))
    for most in (2**27, 1):
        monkeypatch.setattr(explanation, "_MOST", most)
        frames = ((time, images[place % len(images)]) for place, time in enumerate(seconds))
        parts = [*explanation._in_turn(frames, run.sampling, 3)]
        assert all(len(part.seconds) <= 100 for part in parts), "and little of it is in memory"
        places = [part.first + clip.frames.ravel() for part in parts for clip in part.clips]
        assert all((np.diff(found) >= 0).all() for found in places), "none is looped"
        assert places[0][0] == 0 and seconds[-1] - seconds[places[-1][-1]] < 0.1
        for one, following in itertools.pairwise(places):
            assert one[-1] <= following[-1], "in order"
            step = max(np.diff(one).max(), np.diff(following).max(), 0)
            assert following[0] - one[-1] <= step + 1, "no hole"


def test_last_frames_that_have_one_time_are_explained():
    """As some recorders end files."""
    sampling = pipeline.Sampling(frames=4, stride=1, short_side=32, size=32, fps=10.0)
    image = np.zeros((32, 32, 3), np.uint8)
    for count, same in itertools.product(range(20, 60), (3, 5, 7)):
        times = [*(place / 30 for place in range(count)), *[(count - 1) / 30] * same]
        parts = [*explanation._in_turn(((time, image) for time in times), sampling, 3)]
        assert parts[-1].first + parts[-1].clips[-1].frames.max() >= count - 4


def test_a_files_own_times_count_before_fps_as_in_a_classification(tmp_path):
    frames, run = np.tile(moving(0)[0], (2, 1, 1, 1))[:20], motion_detector()
    config = run.config.copy_and_resolve_references()
    config.clip.fps = 10.0
    slow = run_of(config, run.definition, run.weights["params"], run.weights["batch_stats"])
    encoding.write(tmp_path / "a.mkv", ((place / 20, image) for place, image in enumerate(frames)))
    found, other = (slow.explain(tmp_path / "a.mkv", fps=fps, timeout=None) for fps in (0.0, 10.0))
    assert found.indices.tolist() == other.indices.tolist() == [2 * (place % 10) for place in range(16)]
    np.testing.assert_allclose(other.seconds, other.indices / 20, atol=2e-3)


def test_frames_of_clips_with_a_stride_are_numbered_as_in_the_video(monkeypatch):
    frames, run = np.tile(moving(0)[0], (4, 1, 1, 1)), motion_detector()
    config = run.config.copy_and_resolve_references()
    config.clip.stride = 3
    run = run_of(config, run.definition, run.weights["params"], run.weights["batch_stats"])
    monkeypatch.setattr(explanation, "_MOST", 1)
    found = [*run.explain_clips(frames, fps=10)]
    assert [int(part.indices[0]) for part in found] == [0, 48, 82]
    for part in found:
        seen = transforms.resize_short(frames[part.indices], 62)
        seen = transforms.crop(seen, transforms.draw_box(*seen.shape[1:3], (56, 56), "center"))
        np.testing.assert_array_equal(part.frames, seen)


def test_a_long_video_is_explained_in_its_middle(monkeypatch):
    frames, run = np.tile(moving(0)[0], (2, 1, 1, 1)), motion_detector()
    expected = run.explain(frames)
    monkeypatch.setattr(explanation, "_MOST", 30 * frames[0].nbytes)
    found = run.explain(frames)
    assert found.indices.tolist() == expected.indices.tolist() == [*range(24, 40)]
    np.testing.assert_array_equal(found.maps, expected.maps)


@pytest.mark.parametrize(
    ("clip", "clips"),
    [
        ({}, "uniform"),
        ({"segments": 3}, "segments"),
        ({"segments": 3, "fps": 7.0}, "segments"),
        ({"segments": 2, "streams": ("rgb", "flow"), "flow_method": "dis"}, "segments"),
    ],
)
def test_what_a_test_sees_is_explained_however_little_is_in_memory(clip, clips, monkeypatch):
    """Clips are planned over the whole video, not over as much of it as fits."""
    sampling = pipeline.Sampling(**{"frames": 4, "stride": 2, "short_side": 34, "size": 32} | clip)
    images = np.random.default_rng(0).integers(0, 256, (100, 34, 40, 3), np.uint8)
    manifest, protocol = in_memory([images], fps=10.0), pipeline.Protocol(clips)
    [expected] = pipeline.cropped_clips(manifest, "test", sampling, protocol)

    def frames(count=100):
        return ((place / 10, image) for place, image in enumerate(images[:count]))

    for most in (2**27, 1):
        monkeypatch.setattr(explanation, "_MOST", most)
        part = explanation._middle(frames, sampling, protocol)
        [found] = part.clips
        assert found.frames.tolist() == expected.frames.tolist() and part.first == 0
        seen = samples.cut(part.manifest, found, sampling)
        for name, values in samples.cut(manifest, expected, sampling).items():
            np.testing.assert_array_equal(seen[name], values)
    counts = iter((100, 30))
    with pytest.raises(UserError, match="the video has changed while it was read"):
        explanation._middle(lambda: frames(next(counts)), sampling, protocol)


def test_a_video_of_a_set_is_explained_as_it_was_tested():
    """In the middle one of the test's clips, from memory or from a file, with the labels that it has there."""
    frames, run = np.tile(moving(0)[0], (3, 1, 1, 1)), motion_detector()
    config = run.config.copy_and_resolve_references()
    config.test.update(clips="nonoverlap", crop="three", flip=True)
    explainer = explanation.Explainer(
        run.definition, tuple(run.weights.values()), config, run.classes, run.normalization, run.mesh
    )
    manifest = in_memory([frames, frames[:20]], fps=10.0)
    several = tuple(dataclasses.replace(video, label=(0, 1), split="val") for video in manifest.videos)
    manifest = dataclasses.replace(manifest, classes=run.classes, videos=several)
    found = explainer.explain_tested(manifest, several[0], label="moves")
    assert found.indices.tolist() == [*range(48, 64)] and found.frames.shape == (16, 62, 62, 3)
    np.testing.assert_allclose(found.seconds, found.indices / 10)
    gone = dataclasses.replace(several[0], path="gone.mp4")
    with pytest.raises(VideoError, match="gone.mp4"):
        explainer.explain_tested(dataclasses.replace(manifest, memory=None), gone, label="moves")


def test_pictures_have_colour_where_the_map_is():
    frames = np.full((1, 2, 2, 3), 100, np.uint8)
    drawn = heatmaps.overlaid(frames, np.array([[[0, 1], [0, 0.5]]], np.float32))
    assert (drawn[0, :, 0] == 100).all() and drawn[0, 0, 1, 0] > drawn[0, 0, 1, 2], "red, and nothing at 0"
    found = motion_detector().explain(moving(0)[0], label="still")
    assert not found.maps.any() and found.note == "the map is zero: nothing in layer2 speaks for 'still'"
    strip = heatmaps.filmstrip(found, columns=4)
    assert strip.shape == (24 + 2 * 128 + 16, 4 * 130 - 2, 3)
    np.testing.assert_array_equal(strip[24:152], strip[152:280])
    first = cv2.resize(found.frames[0], (128, 128), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(strip[24:152, :128], first)
    assert heatmaps.filmstrip(found, columns=99).shape[1] == 16 * 130 - 2
    with pytest.raises(UserError, match="columns is 0"):
        heatmaps.filmstrip(found, columns=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"label": "move"}, "there is no class 'move' among the 2 of this run: choose one of them, such as moves"),
        ({"layer": "layer9"}, r"the network has no layer 'layer9' .*conv1 \(16×28×28\), pool \(8×14×14\)"),
        ({"fps": -1}, "fps is -1: expected frames per second"),
        ({"video": "nosuch.mp4"}, "nosuch.mp4: no such file"),
        ({"video": np.zeros((2, 3))}, "expected frames as a NumPy array uint8"),
    ],
)
def test_mistakes(wrong, message):
    with pytest.raises(UserError, match=message):
        motion_detector().explain(**{"video": moving(0)[0]} | wrong)


def test_the_command(tmp_path, tmp_path_factory):
    """A video in which every frame of the other is, a filmstrip, what they show; and wrong uses, one message each."""
    trained = commands.tiny_run(tmp_path_factory.getbasetemp())
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    path, another = (f"{manifest.root}/{entry.path}" for _, entry in manifest.select("test")[:2])
    (tmp_path / "picture.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes())
    (tmp_path / "moving.png").write_bytes((tmp_path / "picture.jpg").read_bytes())
    calls = [
        [path, "--explain=out.mp4", "--explain_layer=layer1", "--json"],
        [path, another, "--explain=a.mp4"],
        [path, "--explain=a.gif"],
        ["moving.png", "--explain=moving.mp4"],
        [path, "--explain=nosuch/a.mp4"],
        [path, "--explain=a.mp4", "--window=1"],
        [path, "--explain_label=up"],
        [path, "--explain=a.mp4", "--explain_label=upp"],
        ["picture.jpg", "--explain=a.mp4"],
    ]
    done, *wrong = commands.run_each(
        [("jax_video.predict", [*call, f"--checkpoint={trained.workdir}"]) for call in calls], cwd=tmp_path
    )
    assert done.code == 0, done.stderr
    best = json.loads(done.stdout)["classes"][0]["name"]
    assert f"explained: {best}; layer1 of 2×8×8 places; surest (" in done.stderr
    assert "out.mp4 and out.png" in done.stderr
    frames = video.decode(tmp_path / "out.mp4", range(8))
    assert frames.shape == (8, 224, 450, 3) and cv2.imread(str(tmp_path / "out.png")).shape[1] == 4 * 130 - 2
    messages = [
        "--explain: one file cannot hold 2 videos",
        "a.gif: expected the name of a video",
        "moving.png is the video itself; name another file",
        "nosuch/a.mp4: there is no folder nosuch; make it",
        "--explain: not with --window",
        "--explain_label and --explain_layer are of --explain",
        "there is no class 'upp' among the 8 of this run: choose one of them, such as up",
        "the video has 1 frame: expected at least 2",
    ]
    for finished, message in zip(wrong, messages, strict=True):
        commands.check_user_error(finished, message)
    assert not wrong[6].stdout, "a class that there is not is told before anything is classified"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["moving.png", "out.mp4", "out.png", "picture.jpg"]
