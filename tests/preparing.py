"""Runs of `python -m jax_video.prepare` as processes of their own, which can be interrupted and killed."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import commands
import pytest
from conftest import ROOT


def run(*arguments, expected: int = 0, module: str = "jax_video.prepare") -> commands.Finished:
    """Runs the command, with one worker where nothing else is said: a process takes half a second to start."""
    given = [str(argument) for argument in arguments]
    if not any(argument.startswith("--workers") for argument in given):
        given.append("--workers=1")
    finished = commands.run(module, *given, strict=True)
    assert finished.code == expected, finished.stderr
    return finished


def run_beside(
    modules: pathlib.Path, *arguments, expected: int = 0, module: str = "jax_video.prepare"
) -> subprocess.CompletedProcess:
    """Runs the command where the modules of this folder come before all others."""
    options = [part for option in commands.STRICT for part in ("-W", option)]
    done = subprocess.run(
        [sys.executable, *options, "-m", module, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [modules, ROOT]))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == expected, done.stderr
    return done


def running(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    lines = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in lines.splitlines()]
    return [args[0] for pgid, stat, *args in rows if int(pgid) == group and not stat.startswith("Z")]


def interrupt(
    how: signal.Signals, when: str, *arguments, module: str = "jax_video.prepare", modules: pathlib.Path = ROOT
) -> tuple[int, str, str]:
    """Runs the command until it says what matches `when`, then ends it: exit code, stdout, stderr.

    The modules of the folder `modules` come before all others.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [modules, ROOT, ROOT / "tests"]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said = ""
    while not re.search(when, said[-200:]):  # Until it is in the middle of its work.
        letter = process.stderr.read(1)
        said += letter
        if not letter:
            process.communicate()
            pytest.fail(f"it ended before {when}: {said}")
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # As from a terminal.
    else:
        process.send_signal(how)
    stdout, stderr = process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while running(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running(process.pid)
    return process.returncode, stdout, stderr


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
