"""Tests of a network: scores per video, whatever the batches and devices; coverage; and what is written."""

import collections
import dataclasses
import functools
import json
import pathlib
import shutil
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict
from rounding import roundings

from jax_video import networks, objectives, optimizer, scoring, sharding, task
from jax_video import state as state_lib
from jax_video.checkpoint import Checkpoints
from jax_video.data import clips, pipeline
from jax_video.data.decoding import video
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions
from jax_video.errors import CheckpointError, UserError
from jax_video.meta import Meta
from jax_video.models.layers import BatchNorm, Conv, Linear
from jax_video.run import load
from jax_video.testing import results

SAMPLING = pipeline.Sampling(frames=4, stride=1, short_side=24, size=16, flip=False)
PROTOCOLS = [("nonoverlap", 1), ("uniform", 3)]  # 3 and 2 clips for the two lengths of video below; 3 clips


SCORE = roundings(2)  # of what was computed in float64 and is given as float32


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    """Eight test videos of 12 frames, eight of 9."""
    folder = tmp_path_factory.mktemp("motions")
    size = {"width": 24, "height": 24}
    long = Manifest.read(motions.make(folder, train=8, val=8, test=8, frames=12, **size))
    short = Manifest.read(motions.make(folder, train=0, val=0, test=8, frames=9, **size))
    shorter = pathlib.Path(short.root).name
    videos = [dataclasses.replace(entry, path=f"../{shorter}/{entry.path}") for entry in short.videos]
    return dataclasses.replace(long, videos=(*long.videos, *videos))


@pytest.fixture
def copied(manifest, tmp_path) -> Manifest:
    """The same with files that a test may break."""
    shutil.copytree(pathlib.Path(manifest.root).parent, tmp_path / "copy")
    return dataclasses.replace(manifest, root=str(tmp_path / "copy" / pathlib.Path(manifest.root).name))


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


class Affine(nnx.Module):
    """Class scores that are linear in the pixels, so that a float64 reference is one matrix product.

    Its BatchNorm has running statistics that no batch of the test has: used in training mode, every score would change.
    """

    def __init__(self, *, num_classes, rngs, dtype, norm):
        self.bn = norm(3, dtype=dtype)
        self.bn.mean[...], self.bn.var[...] = jnp.array([-1.0, 0.0, 2.0]), jnp.array([0.5, 1.0, 4.0])
        size = SAMPLING.frames * SAMPLING.size**2 * 3
        normal = nnx.initializers.normal(0.02)
        self.fc = Linear(size, num_classes, kernel_init=normal, dtype=dtype, rngs=rngs)

    def __call__(self, x, *, keys=None):
        return self.fc(self.bn(x).reshape(x.shape[0], -1))


@pytest.fixture(scope="module", autouse=True)
def affine_is_a_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "affine", networks.Network(f"{__name__}:Affine"))
        yield


@pytest.fixture
def config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "dtype": "float32",
            "model": {"name": "affine"},
            "norm": {"group_size": None, "frozen": False},
            "data": {"workers": 0},
            "normalize": {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
            "clip": dataclasses.asdict(SAMPLING),
            "train": {"loss_reduction": "sum"},
            "test": {
                **{"clips": "uniform", "number": 2, "crop": "center", "flip": False},
                **{"average_clips": "probability", "batch": 8, "allow_partial": False},
            },
        }
    )


@pytest.fixture
def affine(config):
    """In float64: sums of 3,072 products in float32 differ with the processor."""
    with jax.enable_x64(True):
        return state_lib.split(state_lib.network(ConfigDict(config.to_dict() | {"dtype": "float64"}), 8))


def score(
    network, manifest, mesh, *, clips, number, batch, crop="center", flip=False, average="probability", **kwargs
) -> scoring.VideoMeans:
    definition, params, batch_stats = network
    with jax.enable_x64(True):
        return scoring.mean_over_clips(
            scoring.make_eval_step(definition, mesh, objectives.Classification(average)),
            sharding.place_state((params, batch_stats), mesh),
            manifest,
            "test",
            SAMPLING,
            mesh,
            protocol=pipeline.Protocol(clips, number, crop, flip),
            batch=batch,
            **kwargs,
        )


def reference(params, manifest, *, clips, number, average) -> tuple[list[int], np.ndarray, float]:
    """Videos, mean scores and single clips' accuracy, by float64 NumPy, clip after clip."""
    kernel = np.asarray(params["fc"]["kernel"], np.float64)
    by_video = collections.defaultdict(list)
    for index, wanted, *_ in pipeline.cropped_clips(manifest, "test", SAMPLING, pipeline.Protocol(clips, number)):
        path = pathlib.Path(manifest.root, manifest.videos[index].path)
        pixels = video.decode(path, wanted)[:, 4:20, 4:20].astype(np.float64)
        normalised = (pixels - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
        logits = ((normalised - [-1, 0, 2]) / np.sqrt(np.array([0.5, 1, 4]) + 1e-5)).reshape(-1) @ kernel
        odds = np.exp(logits - logits.max())
        by_video[index].append(odds / odds.sum() if average == "probability" else logits)
    right = [
        row.argmax() == manifest.videos[index].label for index, rows in by_video.items() for row in rows
    ]  # softmax keeps the order
    return list(by_video), np.array([np.mean(rows, axis=0) for rows in by_video.values()]), float(np.mean(right))


@pytest.mark.parametrize(
    ("clips", "number", "average"),
    [(*PROTOCOLS[0], "logit"), (*PROTOCOLS[1], "probability")],
)
def test_scores_are_means_over_clips(affine, manifest, clips, number, average):
    """For any batch size and number of devices."""
    videos, expected, clip_top1 = reference(affine[1], manifest, clips=clips, number=number, average=average)
    assert len(videos) == 16
    # What is float32: pixels are normalised, by a mean and a standard deviation that are rounded too, to at most
    # 255 / 57.12, and BatchNorm divides by at least sqrt(0.5). Then the logits, of at most 10, and softmax's steps.
    of_pixels = roundings(4) * 255 / 57.12 / 0.5**0.5 * np.abs(affine[1]["fc"]["kernel"]).sum(axis=0).max()
    tolerance = 2 * of_pixels + roundings(20) * max(1, np.abs(expected).max())
    if average == "probability":
        np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-12)
    for devices, batch in ((1, 3), (1, 1000), (8, 3), (8, 24)):
        found = score(affine, manifest, mesh_of(devices), clips=clips, number=number, batch=batch, average=average)
        assert found.video.tolist() == videos
        assert found.label.tolist() == [manifest.videos[index].label for index in videos]
        np.testing.assert_allclose(found.values, expected, rtol=0, atol=tolerance)
        assert found.clips["top1"] == pytest.approx(clip_top1, abs=1e-12)
        assert found.failed == ()


class Local(nnx.Module):
    """Class scores of every place that the kernel fits in, averaged: of frames of any size."""

    def __init__(self, *, num_classes, rngs, dtype, norm):
        self.bn = norm(3, dtype=dtype)
        self.conv = Conv(3, 6, (1, 7, 7), strides=(1, 3, 3), dtype=dtype, rngs=rngs)
        self.fc = Linear(6, num_classes, kernel_init=nnx.initializers.normal(1.0), dtype=dtype, rngs=rngs)

    def __call__(self, x, *, keys=None):
        return self.fc(nnx.relu(self.conv(self.bn(x))).mean((1, 2, 3)))


@pytest.fixture(scope="module")
def local():
    """The network, and it as a function of a clip of uint8 [T, H, W, 3]: logits [K] in float64."""
    with jax.enable_x64(True):
        network = state_lib.split(Local(num_classes=8, rngs=nnx.Rngs(0), dtype=jnp.float64, norm=BatchNorm))
    apply = jax.jit(functools.partial(state_lib.apply, network[0], train=False))

    def logits(clip):
        with jax.enable_x64(True):
            return np.asarray(apply(*network[1:], {"rgb": clip[None]})[0][0])

    return network, logits


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> tuple[Manifest, list[tuple[int, int]]]:
    """Test videos of several shapes, in turn, and what whole frames with a short side of 24 are cut to: 32 pixels more
    than a square, or as much as that."""
    folder, read, sizes = tmp_path_factory.mktemp("shapes"), [], [(96, 32), (24, 24), (40, 128), (76, 24)]
    for width, height in sizes:
        made = motions.make(folder, train=0, val=0, test=8, frames=9, width=width, height=height)
        read.append(Manifest.read(made))
    videos = [
        dataclasses.replace(one.videos[number], path=f"../{pathlib.Path(one.root).name}/{one.videos[number].path}")
        for number in range(2)
        for one in read
    ]
    return dataclasses.replace(read[0], videos=tuple(videos), flip=True), [(24, 56), (24, 24), (56, 24), (24, 56)]


@pytest.mark.parametrize(
    ("crop", "flip"),
    [
        ("center", True),
        ("three", False),
        ("full", True),
        *(pytest.param(crop, flip, marks=pytest.mark.slow) for crop, flip in (("three", True), ("full", False))),
    ],
)
def test_every_crop_and_its_mirror_image(local, shapes, crop, flip):
    """In videos of several shapes, for any batch size and number of devices."""
    network, logits = local
    manifest, whole = shapes
    expected = []
    for index, entry in enumerate(manifest.videos):
        rows = []
        for wanted in clips.test_clips(9, 4, 1, clips="uniform", number=2):
            frames = video.decode(pathlib.Path(manifest.root, entry.path), wanted, short_side=24)
            height, width = frames.shape[1:3]
            high, wide = {"center": (16, 16), "three": (24, 24), "full": whole[index % 4]}[crop]
            top, left = (height - high) // 2, (width - wide) // 2
            places = [(0, 0), (top, left), (height - high, width - wide)] if crop == "three" else [(top, left)]
            for top, left in places:
                cut = frames[:, top : top + high, left : left + wide]
                rows += [logits(cut), logits(cut[:, :, ::-1])] if flip else [logits(cut)]
        expected.append(np.mean(rows, axis=0))
    expected = np.array(expected)
    for devices, batch in ((1, 1), (1, 3), (1, 8), (8, 8)):
        asked = {"clips": "uniform", "number": 2, "crop": crop, "flip": flip, "average": "logit", "batch": batch}
        found = score(network, manifest, mesh_of(devices), **asked)
        assert found.video.tolist() == list(range(8)) and found.failed == ()
        np.testing.assert_allclose(found.values, expected, rtol=0, atol=SCORE * np.abs(expected).max())


def test_whole_frames_are_the_mean_over_all_places(local, shapes):
    """Which are looked at here one by one."""
    network, logits = local
    manifest, whole = shapes
    found = score(network, manifest, mesh_of(1), clips="uniform", number=1, crop="full", average="logit", batch=4)
    for index, entry in enumerate(manifest.videos[:4]):
        (wanted,) = clips.test_clips(9, 4, 1, clips="uniform", number=1)
        frames = video.decode(pathlib.Path(manifest.root, entry.path), wanted, short_side=24)
        (height, width), (high, wide) = frames.shape[1:3], whole[index]
        frames = frames[:, (height - high) // 2 :, (width - wide) // 2 :]
        rows = [logits(frames[:, y : y + 7, x : x + 7]) for y in range(0, high - 6, 3) for x in range(0, wide - 6, 3)]
        np.testing.assert_allclose(found.values[index], np.mean(rows, axis=0), rtol=0, atol=SCORE * np.abs(rows).max())


def test_a_spread_clip_is_the_whole_video(local, shapes):
    network, logits = local
    manifest, _ = shapes
    found = score(network, manifest, mesh_of(1), clips="spread", number=5, crop="full", average="logit", batch=3)
    frames = video.decode(pathlib.Path(manifest.root, manifest.videos[1].path), [0, 2, 4, 6, 8], short_side=24)
    np.testing.assert_allclose(found.values[1], logits(frames), rtol=SCORE)


def test_an_unknown_crop():
    with pytest.raises(UserError, match="test.crop is 'five': choose center, three, full"):
        pipeline.Protocol("uniform", crop="five")


def test_more_devices_than_clips(affine, manifest):
    one = dataclasses.replace(manifest, videos=manifest.videos[:17])  # of the last split there is one video
    found = score(affine, one, mesh_of(8), clips="uniform", number=1, batch=64)
    assert found.video.tolist() == [16] and found.values.shape == (1, 8)


def test_an_unreadable_video_is_left_out_and_named(affine, copied):
    """Whether all of its clips fail or only its last one."""
    whole = score(affine, copied, mesh_of(1), clips="nonoverlap", number=1, batch=5)
    gone, cut = int(whole.video[2]), int(whole.video[9])
    path = pathlib.Path(copied.root, copied.videos[gone].path)
    path.write_text("no video")
    short = dataclasses.replace(copied.videos[cut], frames=12)  # it has 9: its third clip does not exist
    videos = [short if index == cut else entry for index, entry in enumerate(copied.videos)]
    found = score(
        affine, dataclasses.replace(copied, videos=tuple(videos)), mesh_of(1), clips="nonoverlap", number=1, batch=5
    )
    assert found.failed == tuple(sorted((gone, cut)))
    kept = ~np.isin(whole.video, found.failed)
    assert found.video.tolist() == whole.video[kept].tolist()
    np.testing.assert_allclose(found.values, whole.values[kept], rtol=0, atol=SCORE)


def test_no_readable_video_is_an_error(affine, copied):
    shutil.rmtree(pathlib.Path(copied.root, "test"))
    only = dataclasses.replace(copied, videos=copied.videos[:24])
    with pytest.raises(UserError, match="none of the videos of this test can be read"):
        score(affine, only, mesh_of(1), clips="uniform", number=1, batch=8)
    none = dataclasses.replace(copied, videos=copied.videos[:8])
    with pytest.raises(UserError, match="'motions' has no readable video in its split 'test'"):
        score(affine, none, mesh_of(1), clips="uniform", number=1, batch=8)


def test_a_test_can_be_interrupted(affine, manifest):
    asked = []
    given = {"clips": "uniform", "number": 1, "batch": 4, "interrupted": lambda: asked.append(None) or len(asked) == 3}
    with pytest.raises(scoring.Interrupted):
        score(affine, manifest, mesh_of(1), **given)
    assert len(asked) == 3


def test_too_little_memory_is_said_with_what_needs_less(affine, manifest, monkeypatch):
    """The device's own refusal: 2**48 bytes are more than any has."""
    greedy = functools.partial(jnp.zeros, 2**46, jnp.float32)
    monkeypatch.setattr(scoring, "make_eval_step", lambda *_: lambda *_: greedy())
    with pytest.raises(UserError, match="too little memory .*train.micro_batch=N.*model.remat=True.*test.batch=N"):
        score(affine, manifest, mesh_of(1), clips="uniform", number=1, batch=8)


def make_run(workdir: pathlib.Path, config: ConfigDict, classes: tuple[str, ...], step: int = 0) -> pathlib.Path:
    """The folder of a run whose best checkpoint is the one of a step."""
    state = state_lib.create(state_lib.network(config, len(classes)), optimizer.make(0.1))
    state = dataclasses.replace(state, step=jnp.int32(step))
    checkpoints = Checkpoints(workdir, mesh_of(1))
    checkpoints.save(state, Meta(config.to_dict(), tuple(classes)), {"top1": 0.5 + 0.1 * step})
    checkpoints.wait()
    checkpoints.close()
    return workdir


@pytest.mark.parametrize(
    ("classes", "note"),
    [
        (1, "There is one class only: every answer is right, so 100 % says nothing of the network."),
        (2, "Top-5 of 2 classes is always 100 %."),
        (5, "Top-5 of 5 classes is always 100 %."),
        (6, None),
    ],
)
def test_a_report_says_what_is_always_right(config, manifest, tmp_path, classes, note):
    names = tuple(map(str, range(classes)))
    videos = tuple(dataclasses.replace(video, label=index % classes) for index, video in enumerate(manifest.videos))
    few = dataclasses.replace(manifest, classes=names, videos=videos)
    workdir = make_run(tmp_path / "run", config, names)
    result = results.test(load(workdir, config=config, mesh=mesh_of(1)), few)
    lines = results.report(result, few, workdir).splitlines()
    assert result.get("note") == note and (lines[6] == note if note else lines[6].startswith("Per class"))
    assert (result["top5"] == 1) or classes > 5
    assert lines[2].split() == ["top-5", f"{100 * result['top5']:.2f}", "%"]


class TestRun:
    """`results.test` on the folder of a run."""

    @pytest.fixture
    def workdir(self, config, manifest, tmp_path):
        return make_run(tmp_path / "run", config, manifest.classes)

    def test_needs_labels(self, config, workdir, manifest):
        index, video = manifest.select("test")[2]
        videos = list(manifest.videos)
        videos[index] = dataclasses.replace(video, label=None)
        with pytest.raises(UserError, match=f"have no label, {video.path} first"):
            results.test(
                load(workdir, config=config, mesh=mesh_of(1)), dataclasses.replace(manifest, videos=tuple(videos))
            )

    def test_writes_what_it_returns(self, config, workdir, manifest):
        result = results.test(load(workdir, config=config, mesh=mesh_of(8)), manifest)

        names = {path.name for path in workdir.iterdir()} - {"checkpoints"}
        assert names == {"test.json", "predictions.jsonl", "confusion.json", "confusion.png"}
        assert json.loads((workdir / "test.json").read_text()) == result
        assert (result["step"], result["videos"], result["of"]) == (0, 16, 16)
        assert result["manifest"] == manifest.hash
        assert result["protocol"] == config.test.to_dict() | {"split": "test"}
        assert result["clip"] == json.loads(json.dumps(config.clip.to_dict()))

        rows = [json.loads(line) for line in (workdir / "predictions.jsonl").read_text().splitlines()]
        assert [row["video"] for row in rows] == [entry.path for _, entry in manifest.select("test")]
        assert [row["label"] for row in rows] == [manifest.classes[e.label] for _, e in manifest.select("test")]
        scores = np.array([row["scores"] for row in rows])
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)

        # The numbers of test.json and confusion.json, from predictions.jsonl.
        label = np.array([manifest.classes.index(row["label"]) for row in rows])
        order = np.argsort(-scores, axis=1, kind="stable")
        top1, top5 = (float(np.mean((order[:, :k] == label[:, None]).any(axis=1))) for k in (1, 5))
        per_class = {name: float(np.mean(order[label == k, 0] == k)) for k, name in enumerate(manifest.classes)}
        expected = {
            "top1": top1,
            "top5": top5,
            "mean_top1_top5": (top1 + top5) / 2,
            "mean_class_accuracy": np.mean(list(per_class.values())),
        }
        assert {name: result[name] for name in expected} == pytest.approx(expected)
        assert result["class_accuracy"] == pytest.approx(per_class)
        table = json.loads((workdir / "confusion.json").read_text())
        assert table["classes"] == list(manifest.classes)
        confusion = np.zeros((8, 8), int)
        for k, predicted in zip(label, order[:, 0], strict=True):
            confusion[k, predicted] += 1
        assert table["videos"] == confusion.tolist()
        assert min(cv2.imread(str(workdir / "confusion.png")).shape[:2]) > 300

        report = results.report(result, manifest, pathlib.Path("my run"))
        assert "motions: 16 of 16 test videos, checkpoint of step 0" in report
        assert f"{100 * top1:.2f} %" in report
        assert f"python -m jax_video.predict {manifest.root}/{rows[0]['video']} --checkpoint='my run'" in report

    def test_an_earlier_result_counts_only_for_the_same_test(self, config, workdir, manifest):
        assert results.read_result(load(workdir, config=config, mesh=mesh_of(8)), manifest) is None
        result = results.test(load(workdir, config=config, mesh=mesh_of(8)), manifest)
        assert results.read_result(load(workdir, config=config, mesh=mesh_of(8)), manifest) == result
        for section, change in (("test", {"average_clips": "logit"}), ("test", {"number": 3}), ("clip", {"stride": 2})):
            other = config.copy_and_resolve_references()
            other[section].update(change)
            assert results.read_result(load(workdir, config=other, mesh=mesh_of(8)), manifest) is None
        other = load(workdir, config=config, mesh=mesh_of(8), dtype="bfloat16")
        assert results.read_result(other, manifest) is None
        told = {key: value for key, value in result.items() if key != "dtype"}  # as earlier versions
        (workdir / "test.json").write_text(json.dumps(told))
        assert results.read_result(load(workdir, config=config, mesh=mesh_of(8)), manifest) == told
        fewer = dataclasses.replace(manifest, videos=manifest.videos[1:])
        assert results.read_result(load(workdir, config=config, mesh=mesh_of(8)), fewer) is None
        make_run(workdir, config, manifest.classes, step=1)
        assert results.read_result(load(workdir, config=config, mesh=mesh_of(8)), manifest) is None

    def test_a_part_is_an_error_unless_allowed(self, config, workdir, copied):
        """A file that goes away after `prepare`."""
        gone = copied.select("test")[3][1].path
        pathlib.Path(copied.root, gone).unlink()
        with pytest.raises(UserError, match=f"1 videos could not be read .*{gone}.* 15 of 16.*allow_partial=True"):
            results.test(load(workdir, config=config, mesh=mesh_of(8)), copied)
        result = json.loads((workdir / "test.json").read_text())
        assert (result["videos"], result["of"]) == (15, 16)
        assert f'"{gone}"' not in (workdir / "predictions.jsonl").read_text()
        assert results.read_result(load(workdir, config=config, mesh=mesh_of(8)), copied) is None, (
            "a part is no result that a second start may show"
        )

        config.test.allow_partial = True
        result = results.test(load(workdir, config=config, mesh=mesh_of(8)), copied)
        assert (result["videos"], result["of"]) == (15, 16)
        assert results.read_result(load(workdir, config=config, mesh=mesh_of(8)), copied) == result
        assert "15 of 16 test videos" in results.report(result, copied, workdir)

    def test_names_of_files_and_classes_may_be_anything(self, config, workdir, copied):
        index, entry = copied.select("test")[0]
        name = "a b\udcff $x_é.mp4"  # a byte that is no UTF-8
        pathlib.Path(copied.root, entry.path).rename(pathlib.Path(copied.root, name))
        videos = list(copied.videos)
        videos[index] = dataclasses.replace(entry, path=name)
        # matplotlib would read dollars as mathematics.
        classes = ("$x_{$ <a> é", *copied.classes[1:])
        renamed = dataclasses.replace(copied, classes=classes, videos=tuple(videos))
        with pytest.raises(CheckpointError, match="was trained on 8 classes .left.* 'motions' has 8 "):
            results.test(load(workdir, config=config, mesh=mesh_of(8)), renamed)

        with_classes = make_run(workdir.with_name("other"), config, classes)
        result = results.test(load(with_classes, config=config, mesh=mesh_of(8)), renamed)
        assert list(result["class_accuracy"]) == list(classes)
        first = (with_classes / "predictions.jsonl").read_bytes().splitlines()[0]
        assert json.loads(first.decode(errors="surrogateescape"))["video"] == name


class TestCheck:
    """What is refused before anything is trained."""

    def test_accepts_a_whole_test(self, config, manifest):
        task.check(config, manifest)

    def test_missing_and_broken_videos(self, config, manifest):
        videos = [
            dataclasses.replace(entry, error="missing") if index in (17, 20) else entry
            for index, entry in enumerate(manifest.videos)
        ]
        partial = dataclasses.replace(manifest, videos=tuple(videos))
        with pytest.raises(UserError, match="only 14 of the 16 videos of the split 'test' of 'motions'.*allow_partial"):
            task.check(config, partial)
        config.test.allow_partial = True
        task.check(config, partial)

    def test_a_set_without_test_videos_can_be_trained(self, config, manifest):
        task.check(config, dataclasses.replace(manifest, videos=manifest.videos[:16]))

    def test_videos_without_labels(self, config, manifest):
        videos = (dataclasses.replace(manifest.videos[0], label=None), *manifest.videos[1:])
        with pytest.raises(UserError, match="1 of the 32 videos of 'motions' have no label, train/left/left_000.mp4"):
            task.check(config, dataclasses.replace(manifest, videos=videos))

    def test_one_class_is_said(self, config, manifest, capsys):
        task.check(config, manifest)
        assert capsys.readouterr().err == ""
        videos = tuple(dataclasses.replace(video, label=0) for video in manifest.videos)
        task.check(config, dataclasses.replace(manifest, classes=("all",), videos=videos))
        assert "There is one class only: every answer is right" in capsys.readouterr().err

    def test_unknown_protocol(self, config, manifest):
        config.test.clips = "all"
        with pytest.raises(UserError, match="unknown test clips 'all'"):
            task.check(config, manifest)
        config.test.update(clips="uniform", batch=0)
        with pytest.raises(UserError, match="test.batch is 0: expected at least 1"):
            task.check(config, manifest)


def test_other_clips_than_those_of_the_run(capsys):
    """A run that was converted has those of its weights' own test; a config may have others, and that is said."""
    clip = {"frames": 16, "stride": 1, "short_side": 112, "size": 112, "crop": "corners"}

    def said(dtype="float32", **changes) -> str:
        meta = types.SimpleNamespace(config={"clip": clip, "dtype": "float32"})
        config = ConfigDict({"clip": clip | changes, "dtype": dtype})
        results.print_other_clips(types.SimpleNamespace(meta=meta, config=config, folder="runs/x"))
        return capsys.readouterr().err

    assert said(crop="random") == ""
    before = "Other clips than those of the run in runs/x, which has "
    assert said(stride=2, short_side=122) == f"{before}stride 1, short_side 112.\n"
    assert said(dtype="bfloat16") == f"{before}dtype float32.\n"
