"""What a process that was killed with all its workers leaves behind goes at the next start, and nothing else does."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from jax_video.data import pipeline, processes
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions

SAMPLING = pipeline.Sampling(frames=4, stride=1, short_side=32, size=32)
LOADER = """
import os, sys, time
from absl import flags
from jax_video.data import pipeline
from jax_video.data.manifest import Manifest
sampling = pipeline.Sampling(frames=4, stride=1, short_side=32, size=32)
if __name__ == "__main__":
    batches = pipeline.train_batches(Manifest.read(sys.argv[1]), sampling, batch=4, seed=0, workers=1)
    kept = [next(batches) for _ in range(3)]
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def gone() -> str:
    """The mark of a process that has ended."""
    code = "from jax_video.data import processes; print(processes.mark())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_only_what_belongs_to_processes_that_are_gone_is_removed(gone, tmp_path):
    name, where, pid, started = gone.rstrip("-").split("-")
    again = f"{name}-{where}-{os.getpid()}-{int(started) + 1}-"  # a number that another process has now
    lost = [f"{gone}segment", f"sem.{gone}-semaphore", f"{gone}folder", f"{again}segment"]
    kept = [f"{processes.mark()}segment", f"{name}-elsewhere-{pid}-{started}-segment", "psm_1234", "jax_video-notes"]
    for path in (tmp_path / each for each in [*lost, *kept]):
        path.mkdir() if path.name.endswith("folder") else path.touch()
    (tmp_path / f"{gone}folder" / "file").touch()
    processes.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_others_stays(gone, tmp_path):
    (tmp_path / f"{gone}segment").touch()
    os.chown(tmp_path / f"{gone}segment", 12345, 12345)
    processes.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir())


@pytest.mark.skipif(not processes.SHARED.is_dir(), reason="shared memory is no file here")
def test_shared_memory_of_a_killed_group_goes_at_the_next_start(tmp_path):
    manifest = motions.make(tmp_path, train=8, val=8, test=8, frames=8, width=40, height=32)
    (tmp_path / "loader.py").write_text(LOADER)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "loader.py", manifest],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n", process.communicate()

    def left() -> set[str]:
        return {path.name for path in processes.SHARED.glob(f"*jax_video-*-{process.pid}-*")}

    next(pipeline.train_batches(Manifest.read(manifest), SAMPLING, batch=4, seed=0))
    assert {name.startswith("sem.") for name in left()} == {True, False}, "it lives: semaphores and segments stay"
    os.killpg(process.pid, signal.SIGKILL)  # from here on any start removes them, another test's too
    assert process.communicate()[1] == ""
    next(pipeline.train_batches(Manifest.read(manifest), SAMPLING, batch=4, seed=0))
    assert not left()


def test_a_process_that_is_killed_alone_leaves_nothing_and_says_nothing(tmp_path):
    """Python's own tracker removes it then, and has warned of it."""
    script = (
        "import os, signal\n"
        "from multiprocessing import shared_memory\n"
        "from jax_video.data import processes\n"
        "with processes.keeping_from_children(signal.SIGINT): pass\n"
        "processes.mark_shared_memory(processes.mark())\n"
        "memory = shared_memory.SharedMemory(create=True, size=100)\n"
        "print(memory.name, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)  # waits for both
    assert done.returncode == -signal.SIGKILL and done.stdout.startswith("jax_video-"), done.stderr
    assert done.stderr == "" and not pathlib.Path(processes.SHARED, done.stdout.strip()).exists()


def test_a_child_does_not_get_the_signals_that_are_kept_from_it():
    code = "import time; print('up', flush=True); time.sleep(1)"
    with processes.keeping_from_children(signal.SIGINT):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with child:
        assert child.stdout.readline() == b"up\n"
        child.send_signal(signal.SIGINT)
    assert child.returncode == 0
    with pytest.raises(KeyboardInterrupt), processes.keeping_from_children(signal.SIGINT):
        os.kill(os.getpid(), signal.SIGINT)  # comes when it is given free again
