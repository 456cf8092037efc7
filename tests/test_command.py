"""The frame of all commands: help, errors and exit codes; each as a process, since that is what a shell sees."""

import os
import signal
import subprocess
import sys

import pytest
from commands import run
from conftest import ROOT

PYTHON = [sys.executable, "-W", "error"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def python(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*PYTHON, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=120, **{"cwd": "/", **kwargs}
    )


def command(tmp_path, body: str, *arguments: str) -> subprocess.CompletedProcess:
    """A command whose main is `body`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    script = tmp_path / "script.py"
    script.write_text(
        '"""Does something.\n\n  python script.py\n"""\n'
        "import errno, os, signal, time\nfrom absl import flags\n"
        "from jax_video import command\nfrom jax_video.errors import UserError\n"
        "SIZE = flags.DEFINE_integer('size', 3, 'How large.', lower_bound=1)\n"
        f"def main(arguments):\n{lines}\ncommand.run(main)\n"
    )
    return python(str(script), *arguments)


def test_the_package_lists_its_commands():
    listed = python("-m", "jax_video")
    assert (listed.returncode, listed.stderr) == (0, "")
    for name in ("main", "prepare", "predict"):
        assert f"python -m jax_video.{name} " in listed.stdout
        assert (ROOT / "jax_video" / f"{name}.py").exists()
    assert len(listed.stdout.splitlines()) < 15


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpshort"])
@pytest.mark.parametrize("name", ["main", "prepare", "predict"])
def test_help_is_short_and_has_examples(name, flag):
    finished = run(f"jax_video.{name}", flag)
    assert (finished.code, finished.stderr) == (0, "")
    assert f"  python -m jax_video.{name} " in finished.stdout
    lines = finished.stdout.splitlines()
    assert len(lines) < 60 and max(map(len, lines)) <= 120
    own = {"main": "--config", "prepare": "--videos", "predict": "--checkpoint"}
    assert f"  {own[name]}: " in finished.stdout
    assert "--verbosity" not in finished.stdout and "--xml_output" not in finished.stdout, (
        "absl's and Grain's own flags"
    )


def test_help_comes_before_mistakes():
    finished = run("jax_video.main", "--nosuch", "--help")
    assert (finished.code, finished.stderr) == (0, "") and "--config" in finished.stdout


def test_a_command_by_itself():
    """As a user starts it, imports and all."""
    # ml_collections loads a config in a way that Python deprecates, unseen but under -W error.
    finished = python("-W", "ignore::DeprecationWarning", "-m", "jax_video.main", "--config=nosuch.py", cwd=ROOT)
    assert finished.returncode == 2
    lines = [line for line in finished.stderr.splitlines() if "Grain" not in line]  # which has a word on jaxlib 0.10.0
    assert lines == ["error: --config: there is no file 'nosuch.py': for example --config=configs/stc.py"]
    assert finished.stdout == ""


def test_arguments_and_flags(tmp_path):
    done = command(tmp_path, "print(arguments, SIZE.value)", "a", "--size=5", "b c")
    assert (done.returncode, done.stdout, done.stderr) == (0, "['a', 'b c'] 5\n", "")


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--size=0", "error: flag --size=0: 0 is not a positive integer\nSee --help.\n"),
        ("--size=big", "error: flag --size=big: invalid literal for int() with base 10: 'big'\nSee --help.\n"),
        ("--sise=4", "error: Unknown command line flag 'sise'. Did you mean: size ?\nSee --help.\n"),
    ],
)
def test_bad_flags(tmp_path, flag, expected):
    done = command(tmp_path, "print('main')", flag)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


@pytest.mark.parametrize(
    ("body", "code", "expected"),
    [
        ("raise UserError('found a, expected b: do c.')", 2, "error: found a, expected b: do c.\n"),
        ("raise command.Stopped('stopped after step 3')", 130, "\nstopped after step 3\n"),
        ("raise KeyboardInterrupt", 130, "\nstopped\n"),
        ("raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'runs/a')", 2,
         "error: [Errno 28] No space left on device: 'runs/a'\n"),
        ("open('/nosuch/file', 'w')", 2, "error: [Errno 2] No such file or directory: '/nosuch/file'\n"),
    ],
)  # fmt: skip
def test_exit_codes(tmp_path, body, code, expected):
    done = command(tmp_path, f"print('before')\n{body}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "before\n", expected)


def test_a_bug_keeps_its_traceback(tmp_path):
    """Only what the user can mend is put into one line."""
    done = command(tmp_path, "{}['key']")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "KeyError: 'key'" in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    command(tmp_path, "for line in range(100_000): print('line', line)", "--help")  # writes the script
    process = subprocess.Popen(
        [*PYTHON, tmp_path / "script.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == ""
    assert process.wait(60) == 0


def test_ctrl_c(tmp_path):
    command(tmp_path, "print('ready', flush=True)\ntime.sleep(60)", "--help")
    process = subprocess.Popen(
        [*PYTHON, tmp_path / "script.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "\nstopped\n")
    assert process.returncode == 130


def test_names_that_are_no_unicode_are_printed_as_they_are(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from jax_video import command\ncommand.run(lambda arguments: print(*arguments))\n")
    done = subprocess.run([*PYTHON, script, b"a\xff.mp4"], capture_output=True, env=ENVIRONMENT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\xff.mp4\n", b"")


def test_errors_that_nobody_can_catch_are_reported(tmp_path):
    """But for a flood of one kind, which follows a failed read or write of a checkpoint."""
    body = "class Ends:\n    def __del__(self): raise {}\nEnds()\nprint('after')"
    done = command(tmp_path, body.format("RuntimeError('Event loop is closed')"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "")
    done = command(tmp_path, body.format("RuntimeError('something else')"))
    assert done.stdout == "after\n" and "RuntimeError: something else" in done.stderr
