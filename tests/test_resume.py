"""A run that is killed or stopped at any moment and started again is the run that was never disturbed, to the bit."""

import gc
import os
import pathlib
import random
import re
import signal
import statistics
import time

import processes
import pytest

from jax_video.data import pipeline
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions

VALIDATED = 8  # steps: tests/tiny.py validates after every eighth
SHORT = ("--config.train.epochs=4",)
LONG = ("--config.train.epochs=20", "--config.train.log_steps=4")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.getbasetemp()
    return motions.make(folder, train=32, val=8, test=8, frames=8, width=40, height=32)


def logged(workdir: pathlib.Path) -> int:
    """The last step that the log has a row of."""
    found = processes.rows(workdir)
    return found[-1]["step"] if found else 0


def moment(where: str, workdir: pathlib.Path, rng: random.Random):
    """A function of no arguments that says whether the moment has come."""
    begun = logged(workdir)
    if where == "saving":
        return lambda: any((workdir / "checkpoints").glob("*tmp*"))
    if where == "validation":  # there is the row of the training before it, but not yet its own

        def validating():
            last = processes.rows(workdir)[-1:]
            return any(row["split"] == "train" and begun < row["step"] and row["step"] % VALIDATED == 0 for row in last)

        return validating
    if where == "start":
        end = time.monotonic() + rng.uniform(0, 6)
        return lambda: time.monotonic() > end
    progress = rng.randint(1, 6)
    return lambda: logged(workdir) >= begun + progress


INTERRUPTIONS = {
    "a kill and a Ctrl-C": (SHORT, [("saving", signal.SIGKILL), ("training", signal.SIGINT)]),
    "clips at a rate of their own": (
        (*SHORT, "--config.clip.fps=12"),
        [("saving", signal.SIGKILL), ("training", signal.SIGINT)],
    ),
    "once each": (
        (),
        [
            ("saving", signal.SIGKILL),
            ("training", signal.SIGINT),
            ("training", signal.SIGTERM),
            ("training", signal.SIGHUP),
        ],
    ),
    "10 kills": (
        LONG,
        [(where, signal.SIGKILL) for where in ("training", "validation", "saving", "start", "training") * 2],
    ),
    "5 Ctrl-C, 5 SIGTERM": (
        LONG,
        [
            (where, number)
            for where in ("training", "validation", "saving", "training", "training")
            for number in (signal.SIGINT, signal.SIGTERM)
        ],
    ),
}


@pytest.mark.parametrize(
    "name", ["a kill and a Ctrl-C", *(pytest.param(name, marks=pytest.mark.slow) for name in list(INTERRUPTIONS)[1:])]
)
def test_a_disturbed_run_is_the_undisturbed_one(tmp_path, manifest, name):
    flags, interruptions = INTERRUPTIONS[name]
    expected = processes.undisturbed(manifest, *flags)
    workdir = tmp_path / "run"
    rng = random.Random(0)
    for number, (where, signal_number) in enumerate(interruptions):
        workers = (number + 1) % 2
        process = processes.start(workdir, manifest, *flags, f"--config.data.workers={workers}")
        processes.wait_until(moment(where, workdir, rng), process)
        if where != "saving":
            time.sleep(rng.uniform(0, 0.1))
        if signal_number == signal.SIGKILL:
            process.kill()  # it alone: its workers must notice
            assert process.wait() == -signal.SIGKILL
        else:
            os.killpg(process.pid, signal_number)  # as a terminal does, the workers too
            assert processes.finish([process]) == [130], processes.output(workdir)
            (*_, said) = re.findall("^stopped after step.*", processes.output(workdir), re.MULTILINE)
            assert "the same command goes on from there" in said
            saved = int(said.split()[3])
            assert (workdir / "checkpoints" / str(saved)).is_dir()
        processes.Leftovers(process.pid).wait_until_none()
        print(f"{signal_number.name} in {where} ({workers} workers) after step {logged(workdir)}")

    processes.run(workdir, manifest, *flags)
    processes.assert_same(processes.result(workdir), processes.result(expected))


def test_the_end_of_a_split_frees_its_shared_memory(manifest):
    """At once: every validation would leave a batch of each worker, until Python collects its garbage."""
    videos = Manifest.read(manifest)
    sampling = pipeline.Sampling(frames=4, stride=1, short_side=32, size=32)
    views = pipeline.cropped_clips(videos, "val", sampling, pipeline.Protocol("uniform"))
    segments = set()
    gc.disable()
    try:
        for rows in pipeline.test_batches(videos, sampling, views, batch=4, workers=1):  # noqa: B007, kept to the end
            segments |= set(re.findall(r"/dev/shm/jax_video-[\w-]+", pathlib.Path("/proc/self/maps").read_text()))
        del rows
        assert segments
        end = time.monotonic() + 5
        while left := [name for name in segments if os.path.exists(name)]:
            assert time.monotonic() < end, left
            time.sleep(0.01)
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_does_not_grow(tmp_path, manifest, workers, monkeypatch):
    """Resident size, of the run and of its worker, after 2,000 batches and after 200."""
    # Many threads' arenas of freed memory take glibc a few hundred steps to fill, another size in every run.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    workdir = tmp_path / "run"
    flags = ["epochs=550", "validate_epochs=25", "checkpoint_steps=50", "log_steps=20"]  # 2,200 steps; both before 200
    process = processes.start(
        workdir, manifest, *(f"--config.train.{flag}" for flag in flags), f"--config.data.workers={workers}"
    )
    sizes = []
    for step in (200, 2000):
        processes.wait_until(lambda step=step: logged(workdir) >= step, process, timeout=900)
        sizes.append(statistics.median(processes.resident(process.pid) for _ in range(20) if not time.sleep(0.1)))
    assert processes.finish([process]) == [0], processes.output(workdir)
    print(f"{workers} workers: {sizes[0]:.0f} MB after 200 batches, {sizes[1]:.0f} MB after 2,000")
    assert sizes[1] < 1.05 * sizes[0]
