"""What a run writes about itself."""

import json
import os
import struct
import tempfile
import time

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


def open_log(folder, *, step=0, validated=0, write=True) -> RunLog:
    return RunLog(folder, step=step, validated=validated, total=20, batch=4, write=write)


def scalars(folder) -> list[tuple[str, int, float]]:
    """(tag, step, value) from TensorBoard's files: records of length, checksum, event, checksum."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


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
    log = open_log(tmp_path)
    log.stepped()
    clock[0] += 0.5
    log.row(1, "train", loss=1.5, top1=0.25)
    log.row(1, "val", loss=2.5, top1=0.5)
    log.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "step 1/20  train  loss 1.500  top-1 25.0%  examples/s 8.0",
        "step 1/20  val    loss 2.500  top-1 50.0%",
    ]


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
