"""Two tasks of SLURM are one process, and go on after all that SLURM does to a job: launch/slurm.sh, for real.

On a cluster of one node, which tests/slurm.sh sets up and starts on this machine.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import processes
import pytest
from conftest import ROOT
from processes import SMOOTH, losses

from jax_video.data.sources import motions

SCRIPT = ROOT / "tests" / "slurm.sh"
DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
LONG = (*SMOOTH, "--config.train.epochs=20")  # 80 steps: SLURM takes seconds to stop a job
# What launch/slurm.sh asks for, but on this cluster.
NODE = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(shutil.which(name, path=PATH) is None for name in ("sbatch", *DAEMONS)),
        reason="needs SLURM: apt-get install slurm-wlm munge",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", PATH)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("JAX_ENABLE_X64", "1")
        try:
            call(SCRIPT, "start", folder)
            yield
        finally:
            call(SCRIPT, "stop", folder)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("motions")
    return motions.make(folder, train=32, val=8, test=8, frames=8, width=40, height=32)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, manifest) -> pathlib.Path:
    """The folder of a run of two tasks."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "two"
    wait_for(submit(workdir, manifest), "COMPLETED", workdir)
    return workdir


def call(*command: str | os.PathLike, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def submit(workdir: pathlib.Path, manifest: pathlib.Path) -> str:
    """The job's number. What it prints is added to WORKDIR.log."""
    output = f"--output={workdir.with_name(f'{workdir.name}.log')}"
    arguments = processes.arguments(workdir, manifest, *LONG)
    script = ROOT / "launch" / "slurm.sh"
    return call("sbatch", "--parsable", *NODE, output, script, *arguments, env=processes.environment(workdir))


def state(job: str) -> str:
    return re.search(r"JobState=(\S+)", call("scontrol", "show", "job", job))[1]


def wait_for(job: str, expected: str, workdir: pathlib.Path) -> None:
    end = time.monotonic() + 300
    while (found := state(job)) != expected:
        assert found in ("PENDING", "RUNNING", "COMPLETING") and time.monotonic() < end, (
            f"{found}, waited for {expected}:\n{processes.output(workdir)}"
        )
        time.sleep(0.2)


def wait_for_step(step: int, job: str, workdir: pathlib.Path) -> None:
    end = time.monotonic() + 300
    while step not in losses(workdir, "train"):
        assert time.monotonic() < end and state(job) in ("PENDING", "RUNNING"), processes.output(workdir)
        time.sleep(0.1)


def saved_step(workdir: pathlib.Path) -> int:
    """The step after which both tasks have stopped and saved."""
    first, second = re.findall(r"stopped after step (\d+) of 80; the same command goes on", processes.output(workdir))
    assert first == second and 5 <= int(first) < 80
    assert (workdir / "checkpoints" / first).is_dir() and not (workdir / "in_use.json").exists()
    return int(first)


def assert_same_run(found: pathlib.Path, expected: pathlib.Path) -> None:
    assert processes.rows(found) == processes.rows(expected)
    for name in ("test.json", "predictions.jsonl"):
        assert (found / name).read_text() == (expected / name).read_text()


def test_two_tasks_are_one_process(manifest, undisturbed):
    one = processes.undisturbed(manifest, *LONG)
    assert "CPU" in processes.output(undisturbed) and "in 2 processes" in processes.output(undisturbed)
    for split, steps in (("train", 80), ("val", 10)):
        found, expected = losses(undisturbed, split), losses(one, split)
        assert found.keys() == expected.keys() and len(found) == steps
        differences = [abs(found[step] / expected[step] - 1) for step in found]
        print(f"{split}: relative difference of {steps} losses at most {max(differences):.1e}")
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


def requeue(job: str) -> None:
    """As an administrator does, or SLURM itself where a node is drained by force."""
    call("scontrol", "requeue", job)


def signal(job: str) -> None:
    """As SLURM does before a job's time is up: --signal of launch/slurm.sh."""
    call("scancel", "--signal=TERM", job)


def preempt(job: str) -> None:
    call("sbatch", "--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 1")


@pytest.mark.parametrize("disturb", [requeue, signal, preempt])
def test_a_job_that_is_stopped_saves_and_goes_on(
    disturb: Callable[[str], None], tmp_path, manifest, undisturbed: pathlib.Path
):
    workdir = tmp_path / "two"
    job = submit(workdir, manifest)
    wait_for_step(5, job, workdir)
    disturb(job)
    wait_for(job, "PENDING", workdir)
    step = saved_step(workdir)
    print(f"{disturb.__name__}: saved after step {step}")
    # SLURM would wait for two minutes. Within a second the node would refuse the job, as one that it has just killed.
    call("scontrol", "update", f"JobId={job}", "StartTime=now+5")
    wait_for(job, "COMPLETED", workdir)
    assert f"Going on from step {step} of the run" in processes.output(workdir)
    assert_same_run(workdir, undisturbed)


def test_a_job_that_is_cancelled_saves_and_the_same_command_goes_on(tmp_path, manifest, undisturbed):
    workdir = tmp_path / "two"
    job = submit(workdir, manifest)
    wait_for_step(5, job, workdir)
    call("scancel", job)
    wait_for(job, "CANCELLED", workdir)
    step = saved_step(workdir)
    print(f"scancel: saved after step {step}")
    wait_for(submit(workdir, manifest), "COMPLETED", workdir)
    assert f"Going on from step {step} of the run" in processes.output(workdir)
    assert_same_run(workdir, undisturbed)
