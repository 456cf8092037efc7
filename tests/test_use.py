"""What is done with a run, and takes no training to see: where results go, what is done again, in what batches."""

import json
import os
import pathlib
import types

import commands
import jax
import numpy as np
import pytest
import tiny

import jax_video
from jax_video import published, sharding, videos
from jax_video import state as state_lib
from jax_video.data import encoding, isolated
from jax_video.errors import UserError
from jax_video.exporting import folder as sharing
from jax_video.meta import Meta
from jax_video.predicting import labels
from jax_video.testing import predictions

pytestmark = pytest.mark.usefixtures("one_device")
CLASSES = ("still", "moves")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A network with random weights, as an export has it; its training mirrored nothing."""
    config = tiny.get_config()
    _, params, batch_stats = state_lib.abstract(config, len(CLASSES))
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(leaf.dtype)  # noqa: E731
    weights = jax.tree.map(draw, {"params": params, "batch_stats": batch_stats})
    folder = tmp_path_factory.mktemp("exported")
    published.write(folder, Meta(config.to_dict(), CLASSES), 0, weights)
    return folder


@pytest.fixture(scope="module")
def run(folder) -> jax_video.Run:
    return jax_video.load(folder)


OUTPUTS = [  # commands up to a flag that names a file or folder to write
    *(f"predict video.mp4 --checkpoint=run {flag}" for flag in ("--out", "--explain")),
    *(f"predict video.mp4 --checkpoint=run --window=1 {flag}" for flag in ("--csv", "--srt", "--video")),
    *("export run --out", "convert run --layout=torchvision --export", "prepare folder --videos=. --out"),
    *("fuse a b --out", "average a b --out"),
]


def test_what_is_not_written_to_a_store_is_not_written_beside_it_either(tmp_path):
    """But refused, before anything is read."""
    calls, place = [], "gs://bucket/out"
    (tmp_path / "video.mp4").touch()
    (tmp_path / "gs:" / "bucket").mkdir(parents=True)  # as an earlier version has left it
    for command, *arguments in map(str.split, OUTPUTS):
        calls.append((f"jax_video.{command}", [*arguments[:-1], f"{arguments[-1]}={place}.mp4"]))
    for (command, arguments), finished in zip(calls, commands.run_each(calls, cwd=tmp_path), strict=True):
        commands.check_user_error(finished, f"{place}.mp4: ")
        assert "local" in finished.stderr, (command, arguments)
    assert not [*(tmp_path / "gs:" / "bucket").iterdir()]
    with pytest.raises(UserError, match="gs://bucket/a.mp4: expected a local path"):
        encoding.check_name("gs://bucket/a.mp4")


def draw(path: pathlib.Path, level: int) -> None:
    path.parent.mkdir(exist_ok=True)
    encoding.write(path, [(place / 10, np.full((32, 40, 3), level, np.uint8)) for place in range(6)])


def rows_of(out: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_another_file_of_the_same_name_is_another_video(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "predictions.jsonl"
    given = types.SimpleNamespace(out=str(out), top="5", clips=None, fps=0.0, timeout=None, batch=None)
    for day, level in (("day1", 40), ("day2", 200)):
        draw(tmp_path / day / "a.mp4", level)
        (tmp_path / day / "b.mp4").write_text(f"not a video of {day}")

    def again(day: str) -> int:
        monkeypatch.chdir(tmp_path / day)
        labels.write(run, ["a.mp4", "b.mp4"], given)
        return len(rows_of(out))

    assert again("day1") == 2 and "already" not in capsys.readouterr().err
    assert again("day2") == 4 and "already" not in capsys.readouterr().err
    first, _, second, _ = rows_of(out)
    for row, day in ((first, "day1"), (second, "day2")):
        status = os.stat(tmp_path / day / "a.mp4")
        assert row["classes"] and (row["size"], row["modified"]) == (status.st_size, status.st_mtime_ns)
    assert again("day1") == again("day2") == 4
    said = capsys.readouterr().err
    assert said.count("2 of them are in") == said.count("b.mp4: not a readable video") == 2, "a fault is told again"
    draw(tmp_path / "day2" / "b.mp4", 90)
    assert again("day2") == 5 and rows_of(out)[-1]["classes"], "what is another file now is tried again"
    os.utime(tmp_path / "day2" / "a.mp4", ns=(1, 1))
    assert again("day2") == 6


def test_lines_without_a_stamp_are_of_any_file_of_their_name(run, tmp_path):
    """As earlier versions wrote them."""
    draw(tmp_path / "videos" / "a.mp4", 40)
    pictures = tmp_path / "videos" / "pictures"
    pictures.mkdir()
    (pictures / "1.png").write_text("1")
    with predictions.File(tmp_path / "p.jsonl", run) as out:
        out.write(predictions.of("a.mp4", "empty file", CLASSES, None))
        out.write(predictions.of("none.mp4", "no such file", CLASSES, None), predictions.stamp("none.mp4"))
    before = predictions.stamp(str(pictures))
    with predictions.File(tmp_path / "p.jsonl", run) as out:
        assert out.found("a.mp4", predictions.stamp(str(tmp_path / "videos" / "a.mp4"))) == "empty file"
        assert out.found("none.mp4", (0, 0)) == "no such file" and out.found("none.mp4", (1, 2)) is None
    (pictures / "1.png").write_text("12")
    assert before[0] == 1 and predictions.stamp(str(pictures))[0] == 2, "of a folder: of what is in it"


def batches(size: videos.BatchSize, clips: int, most: int) -> list[int]:
    """Sizes of the batches of a call with so many clips."""
    mesh, sizes = sharding.make_mesh(), []

    def step(params, batch_stats, batch):
        sizes.append(len(batch["video"]))
        return {"values": np.zeros((len(batch["video"]), 2))}

    clip = {"rgb": np.zeros((2, 4, 4, 3), np.uint8)}
    seen = [isolated.Seen(place, what) for place in range(clips) for what in (clip, None)]
    assert len([*videos.means(step, ({}, {}), seen, mesh, most=most, size=size)]) == clips
    return sizes


def test_no_batch_is_larger_than_what_is_asked_for():
    """Whatever earlier calls were allowed; and of equal calls all but the first compile nothing."""
    size = videos.BatchSize()
    assert set(batches(size, 20, 8)) == {8} == set(batches(size, 20, 8))
    assert set(batches(size, 20, 2)) == {2} == set(batches(size, 3, 2))
    assert max(batches(size, 200, 8)) == 8
    assert max(batches(size, 1, 1)) == 1


def test_a_config_that_leaves_mirroring_open_does_not_mirror_a_run_that_never_did(folder, run, tmp_path):
    config = run.config.copy_and_resolve_references()
    config.clip.flip = config.test.flip = None
    other = jax_video.load(folder, config=config)
    assert other.protocol.flip is other.sampling.flip is False
    config.test.flip = True
    assert jax_video.load(folder, config=config).protocol.flip, "but where it says so"
    mirrored = run.config.copy_and_resolve_references()
    mirrored.clip.flip, config.test.flip = True, None
    published.write(tmp_path, Meta(mirrored.to_dict(), CLASSES), 0, run.weights)
    assert jax_video.load(tmp_path, config=config).protocol.flip is None


@pytest.mark.parametrize("fps", [-25, float("nan"), float("inf"), "25"])
def test_a_rate_that_is_none_is_refused_wherever_it_is_given(run, fps):
    frames = np.zeros((8, 32, 40, 3), np.uint8)
    for use in (run.classify, run.features, run.timeline, run.explain):
        with pytest.raises(UserError, match="fps is .*: expected frames per second, or 0"):
            use(frames, fps=fps)


def test_weights_that_are_changed_outside_do_not_reach_the_run(run):
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 40, 3), np.uint8)
    before = run.classify(frames)
    run.weights["params"]["fc"]["kernel"] = np.zeros_like(run.weights["params"]["fc"]["kernel"])
    run.weights["batch_stats"].clear()
    assert run.classify(frames) == before


def test_a_type_that_jax_would_not_compute_in_is_refused(folder, run):
    with pytest.raises(UserError, match="dtype is 'float64', which JAX computes in float32 unless told"):
        jax_video.load(folder, dtype="float64")
    config = run.config.copy_and_resolve_references()
    config.dtype = "float64"
    with pytest.raises(UserError, match="dtype is 'float64'"):
        jax_video.load(folder, config=config)


def test_what_is_given_to_others_has_no_passwords(run, tmp_path):
    """And a name that is no Unicode is no reason not to give it."""
    config = run.config.to_dict()
    config["init_from"]["path"] = "https://me:secret@host/models/run?X-Amz-Signature=abc"
    config["data"]["manifest"] = "/data/\udce9t\udce9"
    meta = Meta(config, CLASSES, manifest="0" * 64, progress={})
    (tmp_path / "first").mkdir()
    published.write(tmp_path / "first", meta, 0, run.weights)
    sharing.write(jax_video.load(tmp_path / "first"), tmp_path / "second", ["safetensors"])
    for path in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.md")]:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        assert not any(word in text for word in ("secret", "Amz", "Signature")), path
