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
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from absl import flags
from conftest import FAST_COMPILE, ROOT, SELDOM

from jax_video import workflow
from jax_video.data.sources import motions

_CONTEXT = multiprocessing.get_context("forkserver")
# What the commands import, but not the commands: those run anew, as __main__. Also what they import only where it is
# needed; tests/test_environment.py sees, in fresh processes, that they load it nowhere else.
_CONTEXT.set_forkserver_preload(
    [f"jax_video.{name}" for name in ("workflow", "config_flag", "data.preparing.preparation", "weights.conversion")]
    + [
        "absl.app",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "scipy.cluster.hierarchy",
        "torch",
        "tensorboardX",
    ]
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
    during: Callable[[int], None] = lambda pid: None,
) -> Finished:
    """`python -m MODULE ARGUMENTS` in the folder `cwd`, on one device, with `env` added to the environment.

    `largest_file`: bytes after which writing to a file fails, as on a full disk. `strict`: warnings are errors, also in
    the processes that it starts. `jax_settings`: what JAX would take from the environment, which it has read before.
    `during` is called with the process's number while it runs.
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
        during(process.pid)
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
    _leave_explanations_out()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _leave_explanations_out() -> None:
    """Of the reports that tests of runs write: they are compiled for seconds, and `report` itself still makes them."""
    write = workflow.write_report
    workflow.write_report = lambda run, *, data, explain: write(run, data=data, explain=False)


def run_each(
    calls: Iterable[tuple[str, Sequence[str | os.PathLike]]], *, cwd: str | os.PathLike = ROOT, timeout: float = 240
) -> list[Finished]:
    """The same of many commands, (MODULE, ARGUMENTS) each, one after the other in one process."""
    given = [(module, [os.fspath(argument) for argument in arguments]) for module, arguments in calls]
    with tempfile.TemporaryDirectory() as folder:
        process = _CONTEXT.Process(target=_commands, args=(given, cwd, pathlib.Path(folder)))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
        found = []
        for number in range(len(given)):
            code, *outputs = (pathlib.Path(folder, f"{number}.{name}") for name in ("code", "stdout", "stderr"))
            texts = [path.read_text(errors="surrogateescape") if path.exists() else "" for path in outputs]
            found.append(Finished(int(code.read_text()) if code.exists() else process.exitcode, *texts))
        return found


def _commands(calls, cwd, folder) -> None:
    gc.freeze()
    gc.set_threshold(*SELDOM)
    os.environ.update(_ONE_DEVICE)
    os.chdir(cwd)
    _leave_explanations_out()
    ours = set(flags.FLAGS)
    for number, (module, arguments) in enumerate(calls):
        for descriptor, name in enumerate(("stdout", "stderr"), start=1):
            opened = os.open(folder / f"{number}.{name}", os.O_WRONLY | os.O_CREAT)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.argv = [module, *arguments]
        code: Any = 0
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        for name in set(flags.FLAGS) - ours:  # the next command defines its own
            delattr(flags.FLAGS, name)
        (folder / f"{number}.code").write_text(str(code))


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
