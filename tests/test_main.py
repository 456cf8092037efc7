"""`python -m jax_video.main` as a user meets it: a run, a second start, and every mistake with its message."""

import dataclasses
import json
import pathlib
import re
import shutil

import pytest
from commands import TinyRun, check_user_error, run, tiny_run
from conftest import FAST_COMPILE, ROOT

from jax_video import runlog
from jax_video.data.manifest import Manifest

MAIN = "jax_video.main"
STC = "--config=configs/stc.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TinyRun:
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def copied(trained, tmp_path) -> TinyRun:
    """The same in a folder that a test may change."""
    shutil.copytree(trained.workdir, tmp_path / "run")
    return dataclasses.replace(trained, workdir=tmp_path / "run")


def start(tiny: TinyRun, *arguments: str, **kwargs):
    return run(MAIN, *tiny.arguments, f"--workdir={tiny.workdir}", *arguments, **kwargs)


def checkpoints(workdir: pathlib.Path, folder: str = "checkpoints") -> list[int]:
    names = (path.name.split("-")[0] for path in (workdir / folder).iterdir())
    return sorted(int(name) for name in names if name.isdecimal())


def flip_a_bit(workdir: pathlib.Path, step: int) -> None:
    """In the largest file of a checkpoint's weights."""
    folder = workdir / "checkpoints" / str(step) / "ema"  # what a test reads, and a resumed run too
    path = max(folder.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else -1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_run_trains_and_tests(trained):
    finished, workdir = trained.finished, trained.workdir
    assert finished.code == 0, finished.stderr
    result = json.loads((workdir / "test.json").read_text())
    assert (result["step"], result["videos"], result["of"]) == (4, 8, 8)
    assert "motions: 8 of 8 test videos, checkpoint of step 4" in finished.stdout
    assert f"top-1                   {100 * result['top1']:6.2f} %" in finished.stdout
    assert f"--checkpoint='{workdir}'" in finished.stdout.splitlines()[-1], "ends with the command to classify a video"
    assert "Traceback" not in finished.stderr and "Warning" not in finished.stderr

    assert {path.name for path in workdir.iterdir()} == {
        "config.json", "metrics.jsonl", "checkpoints", "tensorboard",
        "test.json", "predictions.jsonl", "confusion.json", "confusion.png", "report.html",
    }  # fmt: skip
    config = json.loads((workdir / "config.json").read_text())
    assert config["train"]["epochs"] == 2 and config["data"]["manifest"] == str(trained.data)
    assert checkpoints(workdir) == [3, 4]
    rows = runlog.read(workdir / "metrics.jsonl")
    assert [(row["step"], row["split"]) for row in rows] == [*((step, "train") for step in (1, 2, 3, 4)), (4, "val")]
    assert {"loss", "top1", "top5", "examples_per_second", "gradient_norm", "learning_rate", "failed"} <= set(rows[0])
    assert {"loss", "top1", "top5", "mean_class_accuracy"} <= set(rows[-1])
    assert len((workdir / "predictions.jsonl").read_text().splitlines()) == 8


def test_a_second_start_says_that_the_run_is_finished(trained):
    again = start(trained)
    assert again.code == 0, again.stderr
    assert again.stdout.startswith(f"The run in {trained.workdir} is finished.\n")
    assert again.stdout.splitlines()[1:] == trained.finished.stdout.splitlines()


def test_a_result_of_other_weights_is_no_result(copied):
    """Of the same step, as of a run that was trained anew in the same folder, and killed before its test."""
    path = copied.workdir / "test.json"
    expected = json.loads(path.read_text())
    path.write_text(json.dumps(expected | {"fingerprint": 1, "top1": 1.0}))
    (copied.workdir / "confusion.json").unlink()
    again = start(copied)
    assert again.code == 0, again.stderr
    assert "is finished" not in again.stdout and json.loads(path.read_text()) == expected


def test_mode_test_tests_again(copied):
    expected = json.loads((copied.workdir / "test.json").read_text())
    for name in ("test.json", "predictions.jsonl"):
        (copied.workdir / name).unlink()
    again = start(copied, "--mode=test", "--config.test.batch=3")
    assert again.code == 0, again.stderr
    found = json.loads((copied.workdir / "test.json").read_text())
    assert found.pop("protocol") == expected.pop("protocol") | {"batch": 3}
    assert found == expected
    assert len((copied.workdir / "predictions.jsonl").read_text().splitlines()) == 8


def test_mode_test_of_another_split_and_step_leaves_the_result_of_the_test_alone(copied):
    before = {path.name: path.read_bytes() for path in copied.workdir.iterdir() if path.is_file()}
    tested = start(copied, "--mode=test", "--config.test.split=val", "--step=3")
    assert tested.code == 0, tested.stderr
    assert "motions: 8 of 8 val videos, checkpoint of step 3" in tested.stdout
    folder = copied.workdir / "val-step3"
    assert tested.stdout.splitlines()[-1] == f"Of every video: {folder}/predictions.jsonl."
    found = json.loads((folder / "test.json").read_text())
    assert (found["step"], found["protocol"]["split"], found["of"]) == (3, "val", 8)
    videos = [json.loads(line)["video"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(videos) == 8 and all(video.startswith("val/") for video in videos)
    assert {path.name: path.read_bytes() for path in copied.workdir.iterdir() if path.is_file()} == before
    check_user_error(
        start(copied, "--mode=test", "--step=2"), "there is no checkpoint of step 2 in ", "choose one of 3, 4"
    )
    check_user_error(start(copied, "--mode=test", "--config.test.split=all"), "'all': choose train, val, test")


def test_the_default_folder_is_named_after_the_config(trained, tmp_path):
    missing = tmp_path / "no such set"
    finished = run(MAIN, f"--config={ROOT}/configs/stc.py:data={missing},frames=32", "--mode=test", cwd=tmp_path)
    check_user_error(finished, f"cannot read the manifest {missing}", "No such file", "python -m jax_video.prepare")
    finished = run(MAIN, f"--config={ROOT}/configs/stc.py:data={trained.data},frames=32", "--mode=test", cwd=tmp_path)
    name = "runs/stc-data=" + re.sub(r"\W+", "_", str(trained.data)) + ",frames=32"
    check_user_error(finished, f"there is no checkpoint in {tmp_path / name}/checkpoints: is this a run's folder?")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--config is missing: for example --config=configs/stc.py"]),
        (["--config=configs/nosuch.py"], ["there is no file 'configs/nosuch.py'"]),
        (["--config=configs/nosuch.py:model=a", "--config.seed=1"], ["there is no file 'configs/nosuch.py"]),
        (["--config", "configs/nosuch.py", "--config.seed=1"], ["there is no file 'configs/nosuch.py'"]),
        (["--config=configs"], ["'configs' is a folder; a recipe is a name or a Python file"]),
        ([STC, "video.mp4", "more"], ["unexpected arguments 'video.mp4 more'", "see --help"]),
        ([STC, "--epochs=3"], ["Unknown command line flag 'epochs'", "See --help"]),
        ([STC, "--mode=predict"], ["--mode=predict", "<train|test|views|features>"]),
        ([STC, "--mode=test", "--profile=2"], ["--profile traces steps of training, and --mode=test takes none"]),
        ([STC, "--mode=views", "--extend"], ["--extend is more training, and --mode=views takes none"]),
        ([STC, "--step=3"], ["--step is the checkpoint that --mode=test, views or features looks at"]),
        ([STC, "--distributed=host"], ["--distributed=host: expected auto, or HOST:PORT,ID,COUNT"]),
        ([STC, "--config.batch=8"], ["unknown config key --config.batch: there is no 'batch'", "train"]),
        ([STC, "--config.train.batch-size=8"], ["--config.train.batch-size: there is no 'batch-size'", "batch, "]),
        (["--config", "configs/stc.py", "--noconfig.clip.flips"], ["there is no 'flips'", "crop, flip, fps, frames"]),
        ([STC, "--config.seed.value=8"], ["--config.seed.value: there is no 'value'. Known here: nothing"]),
        ([STC, "--config.train.batch=many"], ["--config.train.batch=many", "'many'"]),
        ([STC, "--config.train=8"], ["--config.train=8", "is not a dict"]),
        ([STC, "--config.norm.group_size=all"], ["--config.norm.group_size=all", "'all'"]),
        (["--config.seed=1", STC], ["--config.seed=1", "before a value for --config"]),
        ([STC + ":networks=3"], ["unknown config argument 'networks=3': expected key=value with one of model, data"]),
        ([STC + ":frames=many"], ["config argument 'frames=many': expected a value like 16"]),
        ([STC + ":recipe=large"], ["unknown recipe 'large': expected small or paper"]),
    ],
)  # fmt: skip
def test_bad_command_lines(arguments, expected):
    """None of them gets as far as a data set."""
    check_user_error(run(MAIN, *arguments), *expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config.model.name=resnet5"], ["there is no network 'resnet5'; choose one of resnet3d10"]),
        (["--config.model.stem=none"], ["stem='none' is unknown; choose one of 'hara', 'table1'"]),
        (["--config.train.batch=12"], ["a batch of 12 does not divide into 8 devices", "use a multiple of 8"]),
        (["--config.train.batch=0"], ["a batch has 0 videos: expected at least 1"]),
        (["--config.norm.group_size=3", "--config.train.batch=16"], ["groups of 3 do not fit 2 clips per device"]),
        (["--config.train.micro_batch=0"], ["train.micro_batch is 0: expected at least 1"]),
        (["--config.train.accumulate=3", "--config.train.batch=16"], ["train.accumulate is 3, which does not divide"]),
        (["--config.schedule.kind=linear"], ["unknown schedule kind 'linear': choose plateau, step or cosine"]),
        (["--config.test.average_clips=median"], ["unknown test average 'median': choose probability or logit"]),
        (["--config.test.clips=all"], ["unknown test clips 'all'"]),
        (["--config.test.batch=0"], ["test.batch is 0: expected at least 1"]),
        (["--config.train.log_steps=0"], ["train.log_steps is 0: expected at least 1"]),
        (["--config.clip.size=64"], ["a crop of 64 from a short side of 32"]),
        (["--config.clip.crop=left"], ["clip.crop is 'left': choose center, corners, random, scales, sizes"]),
        (["--config.clip.stride=0"], ["stride 0", "expected at least 1"]),
    ],
)  # fmt: skip
def test_bad_values(trained, tmp_path, arguments, expected):
    """Found before anything is compiled."""
    eight = {"XLA_FLAGS": f"{FAST_COMPILE} --xla_force_host_platform_device_count=8"}
    finished = run(MAIN, *trained.arguments, f"--workdir={tmp_path}", *arguments, env=eight)
    check_user_error(finished, *expected)


def test_bad_folders(trained, tmp_path):
    (tmp_path / "file").touch()
    check_user_error(run(MAIN, *trained.arguments, f"--workdir={tmp_path / 'file'}"), "Not a directory", "file")
    finished = run(MAIN, *trained.arguments, f"--workdir={tmp_path}", f"--config.data.manifest={tmp_path}")
    check_user_error(finished, f"cannot read the manifest {tmp_path}/manifest.jsonl", "python -m jax_video.prepare")
    (tmp_path / "manifest.jsonl").write_text("video.mp4 3\n")
    finished = run(MAIN, *trained.arguments, f"--workdir={tmp_path}", f"--config.data.manifest={tmp_path}")
    check_user_error(finished, "manifest.jsonl:1: not JSON")


def test_missing_videos(trained, tmp_path):
    """Found before training, or by it where a whole data set has moved."""
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    first = manifest.select("test")[0][0]
    videos = [dataclasses.replace(v, error="missing") if i == first else v for i, v in enumerate(manifest.videos)]
    dataclasses.replace(manifest, videos=tuple(videos)).write(tmp_path / "partial" / "manifest.jsonl")
    no_val = [video for video in manifest.videos if video.split != "val"]
    dataclasses.replace(manifest, videos=tuple(no_val)).write(tmp_path / "no_val" / "manifest.jsonl")
    dataclasses.replace(manifest, root=str(tmp_path / "moved")).write(tmp_path / "moved" / "manifest.jsonl")

    def start_on(name: str, *arguments: str):
        data = f"--config.data.manifest={tmp_path / name}"
        return run(MAIN, *trained.arguments, f"--workdir={tmp_path / 'run'}", data, *arguments)

    check_user_error(start_on("partial"), "only 7 of the 8 videos", "--config.test.allow_partial=True")
    check_user_error(start_on("no_val", "--config.schedule.kind=plateau"), "no readable validation video", "cosine")
    check_user_error(start_on("moved"), "none of the 16 training videos", "moved?")


def test_no_training_videos(trained, tmp_path):
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    dataclasses.replace(manifest, videos=manifest.videos[16:]).write(tmp_path / "manifest.jsonl")
    finished = run(MAIN, *trained.arguments, f"--workdir={tmp_path}", f"--config.data.manifest={tmp_path}")
    check_user_error(finished, "has no readable training video")


def test_a_run_goes_on_only_as_it_began(trained, tmp_path):
    finished = start(trained, "--config.seed=5", "--config.schedule.learning_rate=0.2")
    check_user_error(finished, "made with another config", "schedule.learning_rate: 0.01 -> 0.2", "seed: 0 -> 5")

    finished = start(trained, "--config.model.width=0.25", "--mode=test")
    check_user_error(finished, "is of another network", "model.width: 0.0625 -> 0.25")
    finished = start(trained, "--config.model.stem=table1", "--mode=test")  # the same shapes, another function
    check_user_error(finished, "is of another network", "model.stem: hara -> table1")
    finished = start(trained, "--config.model.name=stc_resnet50", "--mode=test")
    check_user_error(finished, "model.name: resnet3d18 -> stc_resnet50")

    manifest = Manifest.read(trained.data / "manifest.jsonl")
    swapped = ("right", "left", *manifest.classes[2:])
    dataclasses.replace(manifest, classes=swapped).write(tmp_path / "manifest.jsonl")
    for mode in ("train", "test"):
        finished = start(trained, f"--config.data.manifest={tmp_path}", f"--mode={mode}")
        check_user_error(finished, "was trained on 8 classes (left, right,", "has 8 (right, left,", "--workdir")
    assert json.loads((trained.workdir / "config.json").read_text())["seed"] == 0, "nothing was written over"


@pytest.mark.slow  # tests/test_train.py has it, but for what the command says
@pytest.mark.ci
def test_a_loss_that_is_not_finite(trained, tmp_path):
    finished = run(
        MAIN,
        *trained.arguments,
        f"--workdir={tmp_path}",
        "--config.schedule.learning_rate=1e30",
        "--config.schedule.warmup_epochs=0",
        "--config.train.checkpoint_steps=1",
    )
    check_user_error(finished, "of step 2 is not finite", "'loss': nan", "--config.schedule.learning_rate")
    assert checkpoints(tmp_path) == [1]
    assert not (tmp_path / "test.json").exists()


def test_a_damaged_checkpoint_is_not_used(copied):
    flip_a_bit(copied.workdir, 4)
    tested = start(copied, "--mode=test")
    assert tested.code == 0 and "checkpoint of step 3" in tested.stdout
    assert "checkpoint 4 of" in tested.stderr and "is damaged" in tested.stderr and "Traceback" not in tested.stderr

    expected = (copied.workdir / "metrics.jsonl").read_text()
    resumed = start(copied)
    assert resumed.code == 0, resumed.stderr
    assert "checkpoint 4 is damaged" in resumed.stderr and "Going on from step 3" in resumed.stderr
    assert checkpoints(copied.workdir, "corrupted") == [4] and checkpoints(copied.workdir) == [3, 4]
    assert "checkpoint of step 4" in resumed.stdout
    rows = [json.loads(line) for line in (copied.workdir / "metrics.jsonl").read_text().splitlines()]
    for row, before in zip(rows, map(json.loads, expected.splitlines()), strict=True):
        row.pop("examples_per_second", None), before.pop("examples_per_second", None)
        assert row == before

    flip_a_bit(copied.workdir, 4)  # the same step may be damaged twice
    again = start(copied)
    assert again.code == 0, again.stderr
    assert checkpoints(copied.workdir, "corrupted") == [4, 4]


def test_only_damaged_checkpoints(copied):
    for step in (3, 4):
        flip_a_bit(copied.workdir, step)
    check_user_error(start(copied, "--mode=test"), "checkpoint 4", "is damaged", "no sound one before it")
    check_user_error(start(copied), "every checkpoint of", "is damaged", "corrupted", "--workdir")
    assert checkpoints(copied.workdir) == [] and checkpoints(copied.workdir, "corrupted") == [3, 4]


def test_videos_that_can_no_longer_be_read_are_never_skipped_silently(copied, tmp_path):
    shutil.copytree(copied.data, tmp_path / "data")
    moved = dataclasses.replace(copied, arguments=(*copied.arguments, f"--config.data.manifest={tmp_path / 'data'}"))
    gone = next(iter((tmp_path / "data" / "test").rglob("*.mp4")))
    gone.write_text("no video")
    message = ["1 videos could not be read", str(gone.relative_to(tmp_path / "data")), "covers 7 of 8", "allow_partial"]
    check_user_error(start(moved, "--mode=test"), *message)
    check_user_error(start(moved), *message)  # a finished run; its test.json is of a part
    allowed = start(moved, "--config.test.allow_partial")
    assert allowed.code == 0 and "7 of 8 test videos" in allowed.stdout


def test_a_full_disk(trained, tmp_path):
    """And with room again, the same command."""
    workdir = tmp_path / "run"
    finished = run(MAIN, *trained.arguments, f"--workdir={workdir}", largest_file=500)  # which what it prints fits in
    said = [line for line in finished.stderr.splitlines() if not line.startswith("CPU")]
    advice = "Files may not become as large there: raise the limit (ulimit -f)"
    assert (finished.code, said) == (2, [f"error: cannot write to {workdir} (File too large). {advice}."])
    again = run(MAIN, *trained.arguments, f"--workdir={workdir}")
    assert again.code == 0, again.stderr
    assert json.loads((workdir / "test.json").read_text()) == json.loads((trained.workdir / "test.json").read_text())


def test_a_set_without_test_videos(trained, tmp_path):
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    kept = tuple(video for video in manifest.videos if video.split != "test")
    dataclasses.replace(manifest, videos=kept).write(tmp_path / "manifest.jsonl")
    arguments = (*trained.arguments, f"--workdir={tmp_path / 'run'}", f"--config.data.manifest={tmp_path}")
    finished = run(MAIN, *arguments)
    assert finished.code == 0, finished.stderr
    assert finished.stdout == f"Trained; 'motions' has no test videos. The checkpoints are in {tmp_path / 'run'}.\n"
    check_user_error(run(MAIN, *arguments, "--mode=test"), "has no readable video in its split 'test'")
