"""Two processes of four devices are one process of one device: they train, save, go on, stop and test together."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import socket

import numpy as np
import processes
import pytest
from processes import SMOOTH, losses
from rounding import roundings

from jax_video import lock
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.getbasetemp()
    return motions.make(folder, train=32, val=8, test=8, frames=8, width=40, height=32)


def start_two(
    workdir: pathlib.Path, manifest: pathlib.Path, *flags: str, second: pathlib.Path | None = None, other: str = ""
) -> list:
    """Two processes; `second` is the manifest of the second one, if it has its own, and `other` a flag of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [
        processes.start(workdir, own, f"--distributed={address},{index},2", *each, devices=4, log=f"log{index}")
        for index, (own, each) in enumerate([(manifest, flags), (second or manifest, [*flags, *filter(None, [other])])])
    ]


def outputs(workdir: pathlib.Path) -> str:
    return processes.output(workdir, "log0") + processes.output(workdir, "log1")


def scores(workdir: pathlib.Path) -> list[list[float]]:
    return [json.loads(line)["scores"] for line in (workdir / "predictions.jsonl").read_text().splitlines()]


def assert_same_run(two: pathlib.Path, one: pathlib.Path, *, steps: int) -> None:
    for split, count in (("train", steps), ("val", steps // 8)):
        found, expected = losses(two, split), losses(one, split)
        assert len(found) >= max(count, 1)
        # A loss is the mean of float32 sums; the rest is float64, or the steps would magnify its roundings.
        expected = [expected[step] for step in found]
        np.testing.assert_allclose(list(found.values()), expected, rtol=roundings(32))


def stop(both: list, workdir: pathlib.Path, step: int) -> int:
    """Sends SIGTERM to one of them, once that step is logged; both stop after one and the same, which is returned."""
    processes.wait_until(lambda: step in losses(workdir, "train"), *both)
    os.kill(both[1].pid, signal.SIGTERM)
    assert processes.finish(both) == [130, 130], outputs(workdir)
    first, second = re.findall(r"stopped after step (\d+) of \d+; the same command goes on", outputs(workdir))
    assert first == second and (workdir / "checkpoints" / first).is_dir()
    return int(first)


LONG = ("--config.train.epochs=200",)


@pytest.fixture(autouse=True)
def x64(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")


def test_two_processes_are_one_and_one_goes_on(tmp_path, manifest):
    two = tmp_path / "two"
    stopped = stop(start_two(two, manifest, *SMOOTH), two, 5)
    processes.run(two, manifest, *SMOOTH)
    said = "processes: 2 before, 1 now; devices: 8 before, 1 now. The same clips in the same batches; results equal"
    assert said in processes.output(two) and f"Going on from step {stopped} of" in processes.output(two)
    assert_same_run(two, processes.undisturbed(manifest, *SMOOTH), steps=16)


def test_both_stop_in_a_test(tmp_path, manifest):
    """As a job has to that is preempted then, to go back into the queue."""
    two, test = tmp_path / "two", ("--config.test.clips=uniform", "--config.test.number=5000")
    both = start_two(two, manifest, *SMOOTH, "--config.train.epochs=1", *test)
    processes.wait_until(lambda: losses(two, "val"), *both)
    os.kill(both[0].pid, signal.SIGTERM)
    assert processes.finish(both) == [130, 130], outputs(two)
    assert outputs(two).count("stopped by SIGTERM, on the way; the same command begins this anew.") == 2
    assert not (two / "test.json").exists()
    test = ("--config.test.clips=uniform", "--config.test.number=1")
    both = start_two(two, manifest, *SMOOTH, "--config.train.epochs=1", *test)
    assert processes.finish(both, timeout=200) == [0, 0], outputs(two)  # with the report, which one of them writes
    assert (two / "report.html").exists() and "The report failed" not in outputs(two)


def test_both_are_refused_where_another_run_is(tmp_path, manifest):
    """The second one does not wait for the first."""
    with lock.hold(tmp_path / "two"):
        assert processes.finish(start_two(tmp_path / "two", manifest), timeout=100) == [2, 2], outputs(tmp_path / "two")
    for log in ("log0", "log1"):
        assert f"in use by process {os.getpid()} on" in processes.output(tmp_path / "two", log)


def test_both_are_refused_where_their_sets_differ(tmp_path, manifest):
    """As where each has prepared its own copy, in which a video is broken: rows would get other videos' labels."""
    known = Manifest.read(manifest)
    videos = (known.videos[0].broken("truncated"), *known.videos[1:])
    other = dataclasses.replace(known, videos=videos)
    other.write(tmp_path / "other" / "manifest.jsonl")
    both = start_two(tmp_path / "two", manifest, second=tmp_path / "other" / "manifest.jsonl")
    assert processes.finish(both, timeout=100) == [2, 2], outputs(tmp_path / "two")
    for log in ("log0", "log1"):
        said = processes.output(tmp_path / "two", log)
        assert "process 1 has other videos, labels or splits than process 0" in said
        assert known.hash[:8] in said and other.hash[:8] in said


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            "--config.seed=1",
            ["process 1 has another seed than process 0 (in process 0 it is 0)", "(in process 1 it is 1)"],
        ),
        pytest.param("--workdir={folder}/mine", ["process 1 does not see what process 0"] * 2, marks=pytest.mark.slow),
    ],
)
def test_both_are_refused_where_their_commands_differ(tmp_path, manifest, other, expected):
    """They would train networks of their own, or wait for each other's parts of the first checkpoint for ever."""
    both = start_two(tmp_path / "two", manifest, other=other.format(folder=tmp_path))
    assert processes.finish(both, timeout=100) == [2, 2], outputs(tmp_path / "two")
    for log, said in zip(("log0", "log1"), expected, strict=True):
        assert said in processes.output(tmp_path / "two", log)
    assert not [path for path in tmp_path.rglob(".shared-*")]


@pytest.mark.slow
def test_both_end_where_another_run_has_taken_over(tmp_path, manifest):
    two = tmp_path / "two"
    both = start_two(two, manifest, *LONG)
    processes.wait_until(lambda: len(losses(two, "train")) > 5, *both)
    with lock.hold(two, takeover=True):
        steps = len(losses(two, "train"))
        codes = processes.finish(both, timeout=100)
        assert codes[0] == 2 and codes[1] != 0, outputs(two)
        assert len(losses(two, "train")) <= steps + 1
    assert "was taken over from this process" in outputs(two)


@pytest.mark.slow
def test_two_processes_go_on_and_test(tmp_path, manifest):
    one, two = processes.undisturbed(manifest, *SMOOTH), tmp_path / "two"
    stopped = stop(start_two(two, manifest, *SMOOTH), two, 5)
    assert processes.finish(start_two(two, manifest, *SMOOTH)) == [0, 0], outputs(two)
    assert f"Going on from step {stopped} of" in outputs(two)
    assert_same_run(two, one, steps=16)
    found, expected = (json.loads((workdir / "test.json").read_text()) for workdir in (two, one))
    assert found | {"fingerprint": expected["fingerprint"]} == expected  # weights differ by roundings
    found, expected = (scores(workdir) for workdir in (two, one))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


# Batches of 16: groups of batch / 8, and of half of that.
@pytest.mark.slow
@pytest.mark.parametrize("group_size", [None, 2, 1])
def test_two_processes_are_one_whatever_the_norm(tmp_path, manifest, group_size):
    one, two = tmp_path / "one", tmp_path / "two"
    flags = [*SMOOTH, "--config.train.epochs=6", "--config.train.batch=16"]
    flags += [] if group_size is None else [f"--config.norm.group_size={group_size}"]
    processes.run(one, manifest, *flags)
    assert processes.finish(start_two(two, manifest, *flags)) == [0, 0], outputs(two)
    assert_same_run(two, one, steps=12)
    difference = max(abs(losses(two, "train")[step] / loss - 1) for step, loss in losses(one, "train").items())
    print(f"groups of {group_size}: relative difference of the losses at most {difference:.1e}")
