"""Runs of the main command as processes of their own, which can be signalled and killed."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import commands
import jax
import numpy as np
import tiny
from conftest import FAST_COMPILE, ROOT

from jax_video import optimizer, runlog
from jax_video import state as state_lib
from jax_video.checkpoint import Checkpoints

# In float64, 48 pixels and small steps: see tests/test_train.py on the last stage. Four epochs of four steps.
SMOOTH = ("clip.size=48", "clip.short_side=48", "schedule.learning_rate=0.001", "dtype=float64")
SMOOTH = tuple(f"--config.{flag}" for flag in (*SMOOTH, "train.epochs=4", "train.checkpoint_steps=100"))


def start(
    workdir: pathlib.Path, manifest: pathlib.Path, *flags: str, devices: int = 1, log: str = "log"
) -> subprocess.Popen:
    """Starts `python -m jax_video.main --config=tests/tiny.py` in a session and process group of its own.

    What it prints is added to WORKDIR.log.
    """
    with workdir.with_name(f"{workdir.name}.{log}").open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "jax_video.main", *arguments(workdir, manifest, *flags)],
            cwd=ROOT,
            env=environment(workdir, devices),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run(workdir: pathlib.Path, manifest: pathlib.Path, *flags: str) -> None:
    """The same on one device, from start to end and sent no signal: with the imports paid for once."""
    settings = {"jax_enable_x64": os.environ.get("JAX_ENABLE_X64") == "1"}
    finished = commands.run("jax_video.main", *arguments(workdir, manifest, *flags), jax_settings=settings)
    with workdir.with_name(f"{workdir.name}.log").open("a") as file:
        file.write(finished.stdout + finished.stderr)
    assert finished.code == 0, output(workdir)


def arguments(workdir: pathlib.Path, manifest: pathlib.Path, *flags: str) -> list[str]:
    """Those of jax_video.main."""
    return ["--config=tests/tiny.py", f"--config.data.manifest={manifest}", f"--workdir={workdir}", *flags]


def environment(workdir: pathlib.Path, devices: int = 1) -> dict[str, str]:
    """That of processes of their own. The programs that were compiled before are there in a copy: killed while it adds
    one, a process would leave half of a file."""
    compiled = workdir.with_name(f"{workdir.name}.compiled")
    if not compiled.exists():
        shutil.copytree(os.environ["JAX_COMPILATION_CACHE_DIR"], compiled, copy_function=os.link)
    return os.environ | {
        "XLA_FLAGS": f"{FAST_COMPILE} --xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
    }


def output(workdir: pathlib.Path, log: str = "log") -> str:
    return workdir.with_name(f"{workdir.name}.{log}").read_text()


def wait_until(condition: Callable[[], bool], *processes: subprocess.Popen, timeout: float = 300) -> None:
    """Polls often; fails, and kills the processes, when one of them ends before."""
    end = time.monotonic() + timeout
    try:
        while not condition():
            ended = [process.returncode for process in processes if process.poll() is not None]
            assert not ended, f"ended too early, with {ended}"
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.001)
    except BaseException:
        kill(*processes)
        raise


def kill(*processes: subprocess.Popen) -> None:
    """Ends whole process groups."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def undisturbed(manifest: pathlib.Path, *flags: str) -> pathlib.Path:
    """The folder of a run on one device that nothing disturbs; a test run makes it once."""
    workdir = manifest.parent / "-".join(["undisturbed", *(flag.rpartition(".")[2] for flag in flags)])
    if not (workdir / "test.json").exists():
        run(workdir, manifest, *flags)
    return workdir


def finish(processes: Sequence[subprocess.Popen], timeout: float = 300) -> list[int]:
    """Waits for all; returns their exit codes."""
    end = time.monotonic() + timeout
    try:
        return [process.wait(end - time.monotonic()) for process in processes]
    finally:
        kill(*processes)


def rows(workdir: pathlib.Path) -> list[dict]:
    """metrics.jsonl without times."""
    return [
        {key: value for key, value in row.items() if key != "examples_per_second"}
        for row in runlog.read(workdir / "metrics.jsonl")
    ]


def losses(workdir: pathlib.Path, split: str) -> dict[int, float]:
    """By step."""
    return {row["step"]: row["loss"] for row in rows(workdir) if row["split"] == split}


def members(session: int) -> dict[int, str]:
    """The living processes of a session, and their commands."""
    found = {}
    for folder in pathlib.Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and os.getsid(int(folder.name)) == session:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":  # dead, but not yet collected by init
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


def resident(session: int) -> int:
    """Megabytes of memory of a session's processes."""
    pages = sum(int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in members(session))
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


@dataclasses.dataclass
class Leftovers:
    """What a run that was killed has left behind: processes of its session, and shared memory."""

    session: int  # the number of the run's main process, too

    def find(self) -> list[str]:
        alive = [f"process {pid} {command}" for pid, command in members(self.session).items()]
        # With the mark of the run, also in its workers: those of other programs may come and go.
        return alive + [str(path) for path in pathlib.Path("/dev/shm").glob(f"*jax_video-*-{self.session}-*")]

    def wait_until_none(self, timeout: float = 30) -> None:
        end = time.monotonic() + timeout
        while found := self.find():
            assert time.monotonic() < end, found
            time.sleep(0.05)


@dataclasses.dataclass
class Result:
    """All that must be the same in two runs."""

    rows: list[dict]
    steps: list[int]  # of the checkpoints
    arrays: dict[str, np.ndarray]  # of the last one
    meta: dict


def result(workdir: pathlib.Path) -> Result:
    config = json.loads((workdir / "config.json").read_text())
    tx = optimizer.make(lambda step: 0.0)

    def create(classes: int):
        return state_lib.create(state_lib.network(tiny.get_config(), classes), tx, ema=config["train"]["ema"] > 0)

    mesh = jax.sharding.Mesh(jax.devices()[:1], ("batch",))
    checkpoints = Checkpoints(workdir, mesh, read_only=True)
    target = jax.eval_shape(lambda: create(8))
    restored, meta = checkpoints.restore(target)
    checkpoints.close()
    return Result(rows(workdir), checkpoints.steps, jax.device_get(state_lib.named_leaves(restored)), meta)


def assert_same(found: Result, expected: Result) -> None:
    """To the bit."""
    assert found.rows == expected.rows
    assert found.steps == expected.steps
    assert found.arrays.keys() == expected.arrays.keys()
    different = [name for name, leaf in expected.arrays.items() if found.arrays[name].tobytes() != leaf.tobytes()]
    assert not different
    assert found.meta.progress == expected.meta.progress
