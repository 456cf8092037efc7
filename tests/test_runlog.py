"""What a run writes about itself."""

import io
import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jax_video import runlog
from jax_video.data import processes, remote
from jax_video.runlog import RunLog


@pytest.fixture
def clock(monkeypatch):
    """`clock[0]` is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def open_log(folder, *, step=0, held=0, validated=0, write=True) -> RunLog:
    return RunLog(folder, step=step, held=held, validated=validated, total=20, batch=4, write=write)


def pictures(folder) -> dict[tuple[str, int], np.ndarray]:
    """{(tag, step): RGB} from TensorBoard's files."""
    found = {}
    for step, value in events(folder):
        if value.HasField("image"):
            image = cv2.imdecode(np.frombuffer(value.image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR_RGB)
            assert image.shape == (value.image.height, value.image.width, 3)
            found[value.tag, step] = image
    return found


def scalars(folder) -> list[tuple[str, int, float]]:
    """(tag, step, value) from TensorBoard's files."""
    return [(value.tag, step, value.simple_value) for step, value in events(folder) if value.HasField("simple_value")]


def events(folder) -> Iterator[tuple[int, Any]]:
    """(step, value) from files of records: length, checksum, event, checksum."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            yield from ((event.step, value) for value in event.summary.value)
            data = data[16 + length :]


def batch(seed: int, *streams: str, clips: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    draw, channels = np.random.default_rng(seed), {"rgb": 3, "flow": 20}
    rows = {name: draw.integers(0, 256, (6, *clips, 4, 20, 30, channels[name]), np.uint8) for name in streams}
    return rows | {"label": np.arange(6)}


def test_clips_of_the_first_batch_and_of_those_after_a_validation_are_shown(tmp_path):
    batches = [batch(seed, "rgb") for seed in range(6)]
    log = open_log(tmp_path, step=7)
    for step, rows in enumerate(batches, 8):
        log.batch(step, rows, ("run", "jump <b>", "éa", "swim", "sit", "walk"))
        log.row(step, "train", loss=1.0, top1=0.5)
        if step == 9:
            log.row(step, "val", loss=1.0, top1=0.5)
    log.close()
    shown = pictures(tmp_path / "tensorboard")
    assert set(shown) == {("train/batch", 8), ("train/batch", 10)}
    for step in (8, 10):
        image = shown["train/batch", step]
        for place in range(4):
            top = place * (18 + 22) + 18
            strip = image[top : top + 20].reshape(20, 4, 32, 3)[:, :, :30].swapaxes(0, 1)
            np.testing.assert_array_equal(strip, batches[step - 8]["rgb"][place])
            assert image[top - 18 : top].max() > 200, "a name"


@pytest.mark.parametrize("clips", [(), (3,)])
def test_a_row_for_each_stream(tmp_path, clips):
    rows = batch(0, "rgb", "flow", clips=clips)
    log = open_log(tmp_path)
    log.batch(1, rows, ())
    log.close()
    image = pictures(tmp_path / "tensorboard")["train/batch", 1]
    rgb, flow = (rows[name].reshape(6, -1, *rows[name].shape[-3:]) for name in ("rgb", "flow"))
    frames = min(8, rgb.shape[1])
    assert image.shape == (8 * 22, frames * 32, 3)
    for place in range(4):
        for last in (0, 1):  # the first frame of each, and the last
            x, y = last * (frames - 1) * 32, 44 * place
            np.testing.assert_array_equal(image[y : y + 20, x : x + 30], rgb[place, -last])
            np.testing.assert_array_equal(image[y + 22 : y + 42, x : x + 30, :2], flow[place, -last, ..., :2])


def test_only_the_first_process_draws(tmp_path):
    log = open_log(tmp_path, write=False)
    log.batch(1, batch(0, "rgb"), ())
    log.confusion(1, ("a", "b"), np.eye(2))
    log.close()
    assert not list(tmp_path.iterdir())


def test_rows(tmp_path, clock):
    log = open_log(tmp_path)
    for _ in range(5):
        log.stepped()
    clock[0] += 2
    log.row(5, "train", loss=1.5, top1=0.25)
    clock[0] += 100  # a validation is not part of the rate
    log.row(5, "val", loss=2.5, top1=0.5)
    for _ in range(5):
        log.stepped()
    clock[0] += 4
    log.row(10, "train", loss=1.0, top1=0.75)
    log.close()

    expected = [
        {"step": 5, "split": "train", "loss": 1.5, "top1": 0.25, "examples_per_second": 5 * 4 / 2},
        {"step": 5, "split": "val", "loss": 2.5, "top1": 0.5},
        {"step": 10, "split": "train", "loss": 1.0, "top1": 0.75, "examples_per_second": 5 * 4 / 4},
    ]
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == expected
    assert runlog.read(tmp_path / "metrics.jsonl") == expected
    assert sorted(scalars(tmp_path / "tensorboard")) == sorted(
        (f"{row['split']}/{name}", row["step"], value)
        for row in expected
        for name, value in row.items()
        if name not in ("step", "split")
    )


def test_rows_are_on_disk_at_once(tmp_path):
    log = open_log(tmp_path)
    log.row(5, "val", loss=2.5, top1=0.5)
    assert len(runlog.read(tmp_path / "metrics.jsonl")) == 1
    log.close()


def test_rows_are_printed_where_there_is_no_terminal(tmp_path, clock, capsys):
    log = open_log(tmp_path, step=2)
    clock[0] += 60  # compiling
    log.stepped()
    clock[0] += 20
    log.row(3, "train", loss=1.5, top1=0.25)
    log.row(3, "val", loss=2.5, top1=0.5)
    clock[0] += 10
    log.stepped()
    clock[0] += 6
    log.stepped()
    log.row(5, "train", loss=1.5, top1=0.25)
    log.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[1:] == [  # after a note on the rows of two steps
        "The first step took 60.0 s.",
        "step 3/20  train  loss 1.500  top-1 25.0%  examples/s 0.1",
        "step 3/20  val    loss 2.500  top-1 50.0%",
        "08:00 left, by what the second took.",  # 16 steps of 30 s
        "step 5/20  train  loss 1.500  top-1 25.0%  examples/s 0.5  left 04:30",  # 15 of 18 s
    ]


def test_a_terminal_shows_the_time_left_from_the_second_step_on(tmp_path, clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    log = open_log(tmp_path, step=2)
    clock[0] += 600
    log.stepped()
    assert "00:00<?" in terminal.getvalue(), "nothing is known before"
    clock[0] += 30
    log.stepped()
    assert "00:30<08:00, 30.00s/step" in terminal.getvalue()
    log.close()


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path):
    log = open_log(tmp_path)
    for step in (5, 10, 15):
        log.row(step, "train", loss=1.0, top1=0.0)
        log.row(step, "val", loss=1.0, top1=0.0)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "spl')  # a kill in the middle of a write

    log = open_log(tmp_path, step=10, validated=5)
    log.row(10, "val", loss=2.0, top1=0.0)
    log.close()
    rows = [(row["step"], row["split"], row["loss"]) for row in runlog.read(tmp_path / "metrics.jsonl")]
    assert rows == [(5, "train", 1.0), (5, "val", 1.0), (10, "train", 1.0), (10, "val", 2.0)]
    assert not (tmp_path / "metrics.tmp").exists()


def test_a_row_of_steps_that_a_checkpoint_holds_is_written_once(tmp_path, capsys):
    """As where a run was killed between the row and the checkpoint after it."""
    log = open_log(tmp_path)
    for step in (5, 7):
        log.row(step, "train", loss=1.0, top1=0.0)
    log.close()
    log = open_log(tmp_path, step=7, held=2)
    log.row(7, "train", loss=2.0, top1=0.0)
    log.close()
    rows = [(row["step"], row["loss"]) for row in runlog.read(tmp_path / "metrics.jsonl")]
    assert rows == [(5, 1.0), (7, 2.0)]
    (tmp_path / "new").mkdir()
    open_log(tmp_path / "new", step=7, held=7).close()
    assert "begins anew" not in capsys.readouterr().err, "no row was due"
    open_log(tmp_path / "new", step=7, held=2).close()
    assert "begins anew: no row up to step 7" in capsys.readouterr().err


def test_what_a_power_loss_leaves_is_left_out_and_said(tmp_path, capsys):
    log = open_log(tmp_path)
    for step in (4, 8, 12):
        log.row(step, "train", loss=1.0, top1=0.0)
    log.row(12, "val", loss=float("nan"), top1=0.0)  # which says nothing against the file
    log.close()
    path = tmp_path / "metrics.jsonl"
    first, second, *others = path.read_bytes().splitlines(keepends=True)
    rows = runlog.read(path)
    capsys.readouterr()
    for damage, lost in {bytes(40) + b"\n": 0, bytes(len(second)): 1, second[:20] + b"\n": 1}.items():
        path.write_bytes(b"".join([first, *([] if lost else [second]), damage, *others]))
        found = runlog.read(path)
        left = rows if not lost else [rows[0], *rows[-len(found) + 1 :]]
        assert repr(found) == repr(left)  # as NaN is not itself
        said = capsys.readouterr().err
        assert f"{path}: 1 of its lines are damaged and left out:\n  line " in said

    path.write_bytes(first + bytes(40) + b"\n" + second)
    log = open_log(tmp_path, step=8)
    log.row(9, "train", loss=2.0, top1=0.0)
    log.close()
    assert [row["step"] for row in runlog.read(path)] == [4, 8, 9] and b"\0" not in path.read_bytes()
    path.unlink()
    open_log(tmp_path, step=8).close()
    assert "metrics.jsonl begins anew: no row up to step 8 is there." in capsys.readouterr().err


def test_rows_are_on_the_disk_before_a_checkpoint_is(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    log = open_log(tmp_path)
    synced.clear()
    log.row(5, "train", loss=1.0, top1=0.0)
    assert not synced, "a step waits for no disk"
    log.sync()
    assert str(tmp_path / "metrics.jsonl") in synced
    log.close()


def test_other_processes_write_nothing(tmp_path, capsys):
    log = open_log(tmp_path, write=False)
    log.stepped()
    log.row(5, "train", loss=1.0, top1=0.0)
    log.close()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def test_read_of_a_run_that_has_not_begun(tmp_path):
    assert runlog.read(tmp_path / "metrics.jsonl") == []


def test_rows_are_in_the_store_before_a_checkpoint_and_now_and_then(store, monkeypatch):
    workdir = remote.path("gs://bucket/run")
    log = open_log(workdir)
    log.row(5, "train", loss=1.5, top1=0.25)
    log.sync()
    log.row(6, "train", loss=1.0, top1=0.5)
    assert [row["step"] for row in runlog.read(workdir / "metrics.jsonl")] == [5]
    trace = log.tensorboard / "host.xplane.pb"
    trace.write_bytes(b"a trace")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    log.row(7, "train", loss=0.5, top1=0.75)
    assert [row["step"] for row in runlog.read(workdir / "metrics.jsonl")] == [5, 6, 7]
    copy = store / "bucket" / "run" / "tensorboard" / trace.name
    assert copy.read_bytes() == b"a trace"
    copy.unlink()
    log.sync()
    assert not copy.exists(), "what has not changed is not copied again"

    resumed = open_log(workdir, step=5)  # the one before was killed
    resumed.row(6, "train", loss=1.0, top1=0.5)
    resumed.close()
    assert [row["step"] for row in runlog.read(workdir / "metrics.jsonl")] == [5, 6]
    assert {step for _, step, _ in scalars(store / "bucket" / "run" / "tensorboard")} >= {6}
    log.close()


def test_the_temporary_files_of_runs_that_were_killed_go(store, monkeypatch, tmp_path):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    name, where, pid, started, _ = processes.mark().split("-")
    killed = tmp_path / "temporary" / f"{name}-{where}-{pid}-{int(started) + 1}-folder"  # the number is in use again
    (killed / "tensorboard").mkdir(parents=True)
    log = open_log(remote.path("gs://bucket/run"))
    (own,) = (tmp_path / "temporary").iterdir()
    assert own != killed and own.name.startswith(processes.mark())
    log.close()
    assert not own.exists()
