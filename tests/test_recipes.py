"""The papers' procedures from end to end, with the smallest networks: what one phase hands over to the next."""

import contextlib
import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from configs import cost, finetune, t3d, transfer
from jax_video import optimizer, sharding, task
from jax_video import state as state_lib
from jax_video.checkpoint import Checkpoints
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions
from jax_video.errors import UserError
from jax_video.meta import Meta
from jax_video.run import load
from jax_video.testing import results
from jax_video.train import train
from jax_video.weights.start import initial_state
from jax_video.workflow import train_and_test


def mesh() -> Mesh:
    return jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Manifest:
    """24 videos of 12 frames, 8 of them each for training, validation and test."""
    path = motions.make(tmp_path_factory.mktemp("motions"), train=8, val=8, test=8, frames=12, width=40, height=32)
    return Manifest.read(path)


def run(config: ConfigDict, manifest: Manifest, workdir: pathlib.Path, steps: int = 2) -> dict:
    """Trains so many steps and tests: what test.json holds."""
    config.train.update(steps=steps, epochs=steps, log_steps=1)
    task.check(config, manifest)
    workdir.mkdir()
    assert train(config, manifest, workdir, mesh())
    return results.test(load(workdir, config=config, mesh=mesh()), manifest)


def make_run(config: ConfigDict, workdir: pathlib.Path, classes: tuple[str, ...] = motions.CLASSES) -> dict:
    """A run that has a checkpoint, but has learnt nothing: its weights, as `weights` reads them."""
    state = jax.eval_shape(lambda: state_lib.create(state_lib.network(config, len(classes)), optimizer.make(0.1)))
    rng = np.random.default_rng(len(str(workdir)))
    state = jax.tree.map(lambda leaf: np.asarray(rng.uniform(0.1, 1, leaf.shape), leaf.dtype), state)
    state = sharding.place_state(dataclasses.replace(state, step=np.int32(0)), mesh())
    meta = Meta(config.to_dict(), tuple(classes))
    with contextlib.closing(Checkpoints(workdir, mesh())) as checkpoints:
        checkpoints.save(state, meta)
    return state_lib.named_leaves({"params": state.params, "batch_stats": state.batch_stats})


def weights(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    network = load(workdir, mesh=mesh()).weights
    return state_lib.named_leaves(network)


def start(config: ConfigDict, classes: tuple[str, ...] = motions.CLASSES) -> dict[str, np.ndarray]:
    """The weights that a run of this config begins with."""

    def create():
        return state_lib.create(state_lib.network(config, len(classes)), optimizer.make(0.1), ema=config.train.ema > 0)

    state = initial_state(config, classes, mesh(), create)
    return state_lib.named_leaves({"params": state.params, "batch_stats": state.batch_stats})


def strip_labels(manifest: Manifest) -> Manifest:
    rows = tuple(dataclasses.replace(video, label=None) for video in manifest.videos)
    return dataclasses.replace(manifest, classes=(), videos=rows)


@pytest.fixture(scope="module")
def transferred(videos, tmp_path_factory) -> tuple[pathlib.Path, dict]:
    """(folder, test.json) of a run of knowledge transfer on videos without labels."""
    workdir = tmp_path_factory.mktemp("transfer") / "run"
    return workdir, run(tiny.get_config("transfer,clips=2"), strip_labels(videos), workdir)


def test_knowledge_transfer_needs_no_label(transferred):
    workdir, result = transferred
    assert (result["videos"], result["of"]) == (8, 8)
    assert result["pair_accuracy"] == (result["positive_accuracy"] + result["negative_accuracy"]) / 2
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "val"}
    assert all({"loss", "pair_accuracy", "positive_accuracy", "negative_accuracy"} <= row.keys() for row in rows)
    report = results.report(result, strip_labels(motions_like()), workdir)
    assert "pairs told right" in report and f"start={workdir}" in report
    with pytest.raises(UserError, match="is a run of knowledge transfer, which knows no classes"):
        load(workdir).classify([])


def test_the_accuracy_of_pairs_does_not_depend_on_the_batch(transferred, videos):
    """Not even where no batch holds two videos, as with the last one of many."""
    workdir, result = transferred
    config = tiny.get_config("transfer,clips=2")
    config.test.batch = 1
    alone = results.test(load(workdir, config=config, mesh=mesh()), strip_labels(videos))
    names = ("loss", "pair_accuracy", "positive_accuracy", "negative_accuracy")
    assert [alone[name] for name in names] == pytest.approx([result[name] for name in names], rel=1e-5)


def motions_like() -> Manifest:
    return Manifest("x", (), "", ())


def test_what_a_transfer_has_not_trained_begins_afresh(tmp_path):
    """Of C3D, whose `features` are the last pool's: fc6 and fc7, their BatchNorm too."""
    small = {"width": 1 / 64}
    config = transfer.get_config("model=c3d,teacher=resnet18,size=112")
    config.teacher.update(layers=(1, 1, 1, 1), **small)
    config.model.update(small)
    given = make_run(config, tmp_path / "run")
    config = t3d.get_config(f"model=c3d,frames=16,size=112,start={tmp_path / 'run'}")
    config.model.update(small)
    found = start(config)
    fresh = {name for name in found if name.split("/")[1] in ("fc6", "fc7", "fc8")}
    assert {name.partition("/")[0] for name in fresh} == {"params", "batch_stats"}
    for name in found:
        kept = np.array_equal(found[name], given[name.replace("/", "/student/", 1)])
        assert kept != (name in fresh), name


def test_the_student_is_what_is_kept(transferred, capsys):
    workdir, _ = transferred
    config = tiny.get_config()
    config.init_from.update(path=str(workdir))
    found, student = start(config), weights(workdir)
    heads = {name for name in found if name.split("/")[1] == "fc"}
    assert heads == {"params/fc/kernel", "params/fc/bias"}
    for name in found.keys() - heads:
        np.testing.assert_array_equal(found[name], student[name.replace("/", "/student/", 1)])
    assert "fresh        2 arrays  params/fc/bias, params/fc/kernel" in capsys.readouterr().err


def test_fine_tuning_takes_over_a_runs_network_clips_and_test(videos, tmp_path):
    """Trained for two steps, the lower half and all statistics are the run's to the bit; the rest has moved."""
    first = tiny.get_config()
    first.normalize.update(mean=(100.0, 101.0, 102.0))
    given = make_run(first, tmp_path / "first", ("a", "b", "c"))
    with contextlib.suppress(FileExistsError):
        (tmp_path / "first" / "config.json").write_text(json.dumps(first.to_dict()))
    config = finetune.get_config(f"weights={tmp_path / 'first'},data=x,batch=4")
    assert config.model.to_dict() == first.model.to_dict()
    assert (config.clip.frames, config.clip.size, config.test.clips) == (
        first.clip.frames,
        first.clip.size,
        first.test.clips,
    )
    assert config.normalize.mean == (100.0, 101.0, 102.0)
    config.data.workers = 0
    result = run(config, videos, tmp_path / "second")
    assert result["videos"] == 8
    found = weights(tmp_path / "second")
    changed = {name for name, leaf in found.items() if name.startswith("params/") and "fc" not in name.split("/")}
    changed = {name for name in changed if not np.array_equal(found[name], given[name])}
    still = ("stem", "layer1", "layer2")
    assert changed and not any(name.split("/")[1] in ("conv1", "bn1", *still) or "bn" in name for name in changed)
    statistics = [name for name in found if name.startswith("batch_stats/")]
    assert statistics and all(np.array_equal(found[name], given[name]) for name in statistics)
    with pytest.raises(ValueError, match="is not the folder of a run, or an export"):
        finetune.get_config(f"weights={tmp_path}")


def test_a_teacher_is_another_runs_network(transferred, tmp_path):
    config = tiny.get_config()
    del config.model
    config.model = tiny.get_config("transfer").teacher
    given = make_run(config, tmp_path / "teacher")
    found = start(tiny.get_config(f"transfer,weights={tmp_path / 'teacher'}"))
    constants = {name: leaf for name, leaf in found.items() if name.startswith("batch_stats/teacher/")}
    assert len(constants) > 20 and not any(name.startswith("params/teacher/") for name in found)
    for name, leaf in constants.items():
        path = name.removeprefix("batch_stats/teacher/")
        own = given.get(f"params/{path}", given.get(f"batch_stats/{path}"))
        assert path.startswith("fc/") or np.array_equal(leaf, own), name

    # Nor need it have a classifier, also where the videos have no classes.
    path = tmp_path / "teacher.npz"
    np.savez(path, **{name: leaf for name, leaf in given.items() if "fc" not in name.split("/")})
    config = tiny.get_config(f"transfer,weights={path}")
    config.teacher, config.init_from.layout = tiny.get_config("transfer").teacher, "jax_video"
    headless = start(config, classes=())
    assert all(
        name.startswith("batch_stats/teacher/fc/") or np.array_equal(headless[name], constants[name])
        for name in constants
    )

    mismatch = "shape    batch_stats/teacher/conv1/kernel: found 7×7×7×3×4, expected 1×7×7×3×4"
    with pytest.raises(UserError, match=mismatch):
        start(tiny.get_config(f"transfer,weights={transferred[0]}"))  # a 3D network is no teacher


def test_pairs_need_two_videos_at_once(videos):
    config = tiny.get_config("transfer")
    config.train.update(batch=8, micro_batch=1)
    with pytest.raises(UserError, match="train.batch=8 and train.micro_batch=1 leave single videos"):
        task.check(config, videos)


def test_a_teacher_of_random_weights_is_spoken_of(videos, capsys):
    task.check(tiny.get_config("transfer"), videos)
    assert "The teacher has random weights: give ImageNet's, weights=" in capsys.readouterr().err
    task.check(tiny.get_config("transfer,weights=resnet18.pth"), videos)
    assert capsys.readouterr().err == ""


def test_training_from_python_uses_the_configs_part_of_the_videos(videos, tmp_path):
    """As the command does, once: a half of a half would be a quarter."""
    config = tiny.get_config()
    config.data.fraction = 0.5
    config.train.update(steps=1, epochs=None)
    many = dataclasses.replace(
        videos, videos=tuple(dataclasses.replace(video, split="train") for video in videos.videos)
    )
    train_and_test(config, many, tmp_path, mesh())
    assert load(tmp_path).meta.manifest == many.keep(0.5).hash


@pytest.fixture(scope="module")
def streams(tmp_path_factory) -> tuple[pathlib.Path, dict[str, dict]]:
    """The folder of runs `motion` and `appearance`, and their weights."""
    folder = tmp_path_factory.mktemp("streams")
    return folder, {
        phase: make_run(tiny.get_config(f"phase={phase}"), folder / phase) for phase in ("motion", "appearance")
    }


@pytest.fixture(scope="module")
def joint(videos, streams) -> pathlib.Path:
    """The folder of a run of ST-ResNet from both streams."""
    streams, _ = streams
    config = tiny.get_config(f"phase=joint,appearance={streams}/appearance,motion={streams}/motion")
    result = run(config, videos, streams / "joint", steps=1)
    assert (result["videos"], result["protocol"]["clips"]) == (8, "spread")
    return streams / "joint"


def test_st_resnet_starts_from_both_streams(streams):
    streams, both = streams
    found = start(tiny.get_config(f"phase=joint,appearance={streams}/appearance,motion={streams}/motion"))
    inflated = set()
    for stream, given in both.items():
        assert len(given) == sum(f"/{stream}/" in name for name in found)
        for name, leaf in given.items():
            here = found[name.replace("/", f"/{stream}/", 1)]
            if here.shape != leaf.shape:
                inflated.add(name)
                assert here.shape == (3, *leaf.shape[1:])
                leaf = np.repeat(leaf / np.float32(3), 3, axis=0)
            np.testing.assert_array_equal(here, leaf)
    assert inflated == {"params/layer1/1/conv1/kernel", "params/layer1/1/conv3/kernel"}, "second units, of which one is"


def test_st_resnet_star_starts_from_st_resnet(joint):
    found, given = start(tiny.get_config(f"phase=star,start={joint}")), weights(joint)
    assert found.keys() == given.keys() and all(np.array_equal(found[name], given[name]) for name in found)


def test_a_phase_after_the_wrong_one(streams, joint):
    streams, _ = streams
    for argument, message in {
        f"phase=joint,appearance={streams}/motion,motion={streams}/appearance": (
            "motion is a run of motion_stream, where one of appearance_stream is expected"
        ),
        f"phase=star,start={streams}/motion": "is a run of motion_stream, where one of st_resnet is expected",
        f"phase=motion,start={joint}": "is a run of st_resnet, where one of motion_stream is expected",
        f"phase=star,start={streams}/nowhere": "there is no such weight file or run's folder",
    }.items():
        with pytest.raises(UserError, match=message):
            start(tiny.get_config(argument))
    config = tiny.get_config(f"phase=joint,appearance={streams}/appearance,motion={streams}/motion")
    config.init_from.path = str(streams / "motion")
    with pytest.raises(UserError, match="expected 2 paths, for appearance,motion, with commas between them"):
        start(config)


def test_groups_that_do_not_divide_the_batch(videos, tmp_path):
    config = tiny.get_config("phase=motion")
    config.norm.group_size = 3
    with pytest.raises(UserError, match="BatchNorm groups of 3 do not fit 8 clips per device"):
        run(config, videos, tmp_path / "run")


def test_a_network_gets_the_streams_that_it_takes(videos):
    config = tiny.get_config("phase=joint,appearance=A,motion=M")
    config.clip.streams = ("rgb",)
    with pytest.raises(UserError, match=r"clip.streams is \('rgb',\), but st_resnet takes \('rgb', 'flow'\)"):
        task.check(config, videos)


def small_cost(string: str) -> ConfigDict:
    config = cost.get_config(f"model=cost_b_resnet50,{string}")
    config.model.update(width=1 / 16, layers=(2, 1, 1, 1))
    config.clip.update(short_side=32, jitter=(32, 40), size=32)
    config.dtype, config.data.workers = "float32", 0
    config.train.update(batch=2, validate_epochs=100)
    config.test.update(number=1, crop="center", batch=2)
    if config.norm.group_size:
        config.norm.group_size = 2
    return config


def test_cost_of_32_frames_starts_from_8_with_batchnorm_frozen(videos, tmp_path):
    few = dataclasses.replace(videos, videos=videos.videos[:2] + videos.videos[-1:])
    given = make_run(small_cost("span=8"), tmp_path / "8")
    config = small_cost(f"frames=32,span=32,start={tmp_path / '8'}")
    found = start(config)
    stem = "params/conv1/kernel"
    assert (given[stem].shape[0], found[stem].shape[0]) == (1, 5)
    np.testing.assert_array_equal(found[stem], np.repeat(given[stem] / np.float32(5), 5, axis=0))
    assert all(np.array_equal(found[name], given[name]) for name in given if name != stem)

    run(config, few, tmp_path / "32", steps=1)
    after = weights(tmp_path / "32")
    still = {name for name in after if np.array_equal(after[name], found[name])}
    norms = {name for name in after if "/bn" in name or "/downsample/bn" in name or name.startswith("batch_stats")}
    assert norms and norms <= still, "running moments, scales and offsets"
    assert "params/conv1/kernel" not in still and "params/fc/kernel" not in still


def test_five_clips_of_videos_too_short_for_them(videos, tmp_path):
    """They overlap: a video is looped to a clip's span, and every clip is the same."""
    config = t3d.get_config("model=densenet3d121,frames=16,stride=1,consensus=true")
    config.model.update(width=1 / 16, layers=(1, 1, 1, 1))
    config.clip.update(short_side=32, size=32)
    config.dtype, config.data.workers = "float32", 0
    config.train.update(batch=2, validate_epochs=100)
    config.schedule.kind = "cosine"
    config.test.batch = 2
    few = dataclasses.replace(videos, videos=videos.videos[:2] + videos.videos[-2:])
    assert run(config, few, tmp_path / "run", steps=1)["videos"] == 2


def test_a_part_of_the_training_videos(videos):
    half = videos.keep(0.5)
    classes = [video.label for video in videos.videos if video.split == "train"]
    assert len(set(classes)) == 8 and len(half.select("train")) == 8, "one of each class is the least"
    many = dataclasses.replace(
        videos, videos=tuple(dataclasses.replace(video, split="train") for video in videos.videos)
    )
    kept = [video for _, video in many.keep(0.67).select("train")]
    assert sorted(np.bincount([video.label for video in kept])) == [2] * 8
    assert kept == [video for _, video in many.keep(0.67).select("train")], "always the same"
    assert videos.keep(1.0) is videos
    assert half.hash == videos.keep(0.5).hash
    for fraction in (0.0, 1.5):
        with pytest.raises(UserError, match="data.fraction is"):
            videos.keep(fraction)
