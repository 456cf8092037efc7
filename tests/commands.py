"""Runs the commands as a user does, each in a process of its own, but with the imports paid for once."""

import dataclasses
import functools
import gc
import multiprocessing
import os
import pathlib
import re
import resource
import runpy
import sys
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any

import jax
from conftest import FAST_COMPILE, ROOT, SELDOM

from jax_video.data.sources import motions

_CONTEXT = multiprocessing.get_context("forkserver")
# What the commands import, but not the commands: those run anew, as __main__. Also what they import only where it is
# needed; tests/test_environment.py sees, in fresh processes, that they load it nowhere else.
_CONTEXT.set_forkserver_preload(
    [f"jax_video.{name}" for name in ("workflow", "config_flag", "data.preparing.preparation", "weights.conversion")]
    + ["absl.app", "matplotlib.figure", "matplotlib.backends.backend_agg", "torch", "tensorboardX"]
)
STRICT = ("error", "ignore:label() is deprecated:DeprecationWarning")  # the latter of TFDS 4.9, as in pyproject.toml
_ONE_DEVICE = {"XLA_FLAGS": f"{FAST_COMPILE} --xla_force_host_platform_device_count=1"}


@dataclasses.dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    stdout: str
    stderr: str


def run(
    module: str,
    *arguments: str | os.PathLike,
    cwd: str | os.PathLike = ROOT,
    env: Mapping[str, str] | None = None,
    largest_file: int | None = None,
    strict: bool = False,
    jax_settings: Mapping[str, Any] | None = None,
    timeout: float = 240,
) -> Finished:
    """`python -m MODULE ARGUMENTS` in the folder `cwd`, on one device, with `env` added to the environment.

    `largest_file`: bytes after which writing to a file fails, as on a full disk. `strict`: warnings are errors, also in
    the processes that it starts. `jax_settings`: what JAX would take from the environment, which it has read before.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [pathlib.Path(folder, name) for name in ("stdout", "stderr")]
        process = _CONTEXT.Process(
            target=_command,
            args=(
                module,
                [os.fspath(argument) for argument in arguments],
                cwd,
                _ONE_DEVICE | dict(env or {}),
                largest_file,
                strict,
                dict(jax_settings or {}),
                outputs,
            ),
        )
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
        stdout, stderr = (path.read_text(errors="surrogateescape") for path in outputs)
        return Finished(process.exitcode, stdout, stderr)


def _command(module, arguments, cwd, env, largest_file, strict, jax_settings, outputs) -> None:
    gc.freeze()  # what was imported before is no garbage, and to look through it takes long
    gc.set_threshold(*SELDOM)
    os.environ.update(env)
    os.chdir(cwd)
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if strict:
        sys.warnoptions += STRICT
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", re.escape("label() is deprecated"), DeprecationWarning)
    for name, value in jax_settings.items():
        jax.config.update(name, value)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def check_user_error(finished: Finished, *expected: str) -> None:
    """One message, which holds every `expected` text, exit code 2, and no traceback."""
    assert finished.code == 2, f"exit code {finished.code}\n{finished.stdout}\n{finished.stderr}"
    assert "Traceback" not in finished.stderr, finished.stderr
    assert len(re.findall("^error: ", finished.stderr, re.MULTILINE)) == 1, finished.stderr
    message = finished.stderr[finished.stderr.index("error: ") :]
    missing = [text for text in expected if text not in message]
    assert not missing, f"{missing} not in:\n{message}"


@dataclasses.dataclass(frozen=True)
class TinyRun:
    """A finished run of tests/tiny.py on a small `motions` set, 8 videos of it for test."""

    arguments: tuple[str, ...]  # of jax_video.main, but for --workdir
    data: pathlib.Path
    workdir: pathlib.Path
    finished: Finished


@functools.cache
def tiny_run(folder: pathlib.Path) -> TinyRun:
    """Trains it once in a session, whose folder this is; a test that changes files works on a copy."""
    data = motions.make(folder, train=16, val=8, test=8, frames=8, width=40, height=32).parent
    arguments = (f"--config={ROOT}/tests/tiny.py", f"--config.data.manifest={data}", "--config.train.epochs=2")
    workdir = folder / "tiny run"
    finished = run("jax_video.main", *arguments, f"--workdir={workdir}")
    return TinyRun(arguments, data, workdir, finished)
