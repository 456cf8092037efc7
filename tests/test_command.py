"""The frame of all commands: help, errors and exit codes; each as a process, since that is what a shell sees."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import check_user_error, run
from conftest import ROOT

from jax_video.__main__ import COMMANDS
from jax_video.command import _expanded, _report_unraisable
from jax_video.errors import UserError, VideoError

PYTHON = [sys.executable, "-W", "error"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def python(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*PYTHON, *arguments], capture_output=True, env=ENVIRONMENT, timeout=120, **{"cwd": "/", "text": True, **kwargs}
    )


def command(tmp_path, body: str, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
    """A command whose main is `body`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    script = tmp_path / "script.py"
    script.write_text(
        '"""Does something.\n\n  python script.py\n"""\n'
        "import errno, os, signal, time\nfrom absl import flags\n"
        "from jax_video import command\nfrom jax_video.errors import UserError, writing\n"
        "def define_flags():\n"
        "    flags.DEFINE_integer('size', 3, 'How large.', lower_bound=1)\n"
        "    command.define_takeover()\n"
        f"def main(arguments):\n{lines}\n"
        "command.run(main, define_flags)\n"
    )
    return python(str(script), *arguments, **kwargs)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_the_package_lists_its_commands(arguments):
    listed = python("-m", "jax_video", *arguments)
    assert (listed.returncode, listed.stderr) == (0, "")
    names = re.findall("^  python -m jax_video ([a-z]+) ", listed.stdout, re.MULTILINE)
    assert names == ["main", "prepare", "predict", "convert", "report", "export", "fuse", "average", "plan", "models"]
    lines = listed.stdout.splitlines()
    assert len(lines) < 15 and max(map(len, lines)) <= 120


def test_the_list_is_complete():
    started = {
        path.parent.name if path.name == "__main__.py" else path.stem
        for path in (ROOT / "jax_video").rglob("*.py")
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert started - {"jax_video", "classify"} == set(COMMANDS), "classify.py is run where export has written it"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_the_same_by_either_name(name):
    by_package, by_module = run("jax_video", name, "--help"), run(f"jax_video.{name}", "--help")
    assert (by_package.code, by_package.stderr) == (0, "")
    assert by_package == by_module


def test_a_commands_arguments_are_its_own():
    """Also the config's values, which are read off the whole command line."""
    finished = run("jax_video", "main", "--config=tests/tiny.py", "--config.train.nosuch=1")
    check_user_error(finished, "unknown config key --config.train.nosuch: there is no 'nosuch'.")
    finished = run("jax_video", "predict", "nosuch.mp4", "--checkpoint=nosuch")
    check_user_error(finished, "nosuch.mp4: no such file")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("predikt", "predict"), ("prepair", "prepare"), ("train", "main"), ("test", "main --mode=test"), ("qqq", None)],
)
def test_an_unknown_command(name, nearest):
    finished = python("-m", "jax_video", name, "--size=3")
    assert (finished.returncode, finished.stdout) == (2, "")
    hint = f": did you mean python -m jax_video {nearest}?" if nearest else "."
    listed = f"Commands: {', '.join(COMMANDS)}; see python -m jax_video --help."
    assert finished.stderr == f"error: there is no command {name!r}{hint} {listed}\n"


@pytest.mark.parametrize(
    ("arguments", "module", "command"),
    [
        (("-m", "jax_video.train", "--config=stc"), "jax_video.train", "main"),
        (("-mjax_video.train",), "jax_video.train", "main"),
        (("-Bm", "jax_video.data.pipeline", "-m", "jax_video.main"), "jax_video.data.pipeline", "prepare"),
        (("-m", "jax_video.data"), "jax_video.data", "prepare"),
        (("-m", "jax_video.models.stc"), "jax_video.models.stc", "models"),
        (("-m", "jax_video.evaluate"), "jax_video.evaluate", "main --mode=test"),
    ],
)
def test_a_module_that_is_no_command(arguments, module, command):
    finished = python(*arguments)
    assert (finished.returncode, finished.stdout) == (2, "")
    expected = f"error: {module} is no command: did you mean python -m jax_video {command}?"
    assert finished.stderr.startswith(expected) and finished.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("-m", "job", "jax_video.train"), ("-m", "job.work", "-m", "jax_video.train")])
def test_whoever_imports_the_package_may_be_anything(tmp_path, arguments):
    """Another package that is run with -m, its spawned processes, and a forkserver's."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "__init__.py").write_text("import jax_video.errors\n")
    (tmp_path / "job" / "work.py").write_text(
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    for method in ('spawn', 'forkserver'):\n"
        "        process = multiprocessing.get_context(method).Process(target=print, args=(method,))\n"
        "        process.start(), process.join()\n"
        "        assert process.exitcode == 0\n"
    )
    (tmp_path / "job" / "__main__.py").write_text("print('main')\n")
    finished = python(*arguments, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == (["main"] if "job" in arguments else ["spawn", "forkserver"])


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpshort"])
@pytest.mark.parametrize("name", ["main", "prepare", "predict"])
def test_help_is_short_and_has_examples(name, flag):
    finished = run(f"jax_video.{name}", flag)
    assert (finished.code, finished.stderr) == (0, "")
    assert f"  python -m jax_video.{name} " in finished.stdout
    lines = finished.stdout.splitlines()
    assert len(lines) < 70 and max(map(len, lines)) <= 120
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
    done = command(tmp_path, "print(arguments, flags.FLAGS.size, flags.FLAGS.takeover)", "a", "--size=5", "b c")
    assert (done.returncode, done.stdout, done.stderr) == (0, "['a', 'b c'] 5 False\n", "")


def test_help_is_the_docstring_and_the_flags(tmp_path):
    done = command(tmp_path, "raise AssertionError", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    description, example, named, *known = filter(None, done.stdout.splitlines())
    assert (description, example.strip()) == ("Does something.", "python script.py") and named.endswith("script.py:")
    takeover = "Take the folder over from another process, which is gone."
    assert known == ["  --size: How large. [3]", f"  --[no]takeover: {takeover} [false]"]


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
         "error: cannot write to runs/a (No space left on device). Make room there.\n"),
        ("raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), 'runs/a')", 2,
         "error: cannot write to runs/a (Disk quota exceeded). Your quota there is used up: free some of it.\n"),
        ("raise OSError(errno.EROFS, os.strerror(errno.EROFS), 'runs/a')", 2,
         "error: cannot write to runs/a (Read-only file system). It can only be read: choose another folder.\n"),
        ("with writing('runs/a', 'then again'): raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))", 2,
         "error: cannot write to runs/a (File too large). Files may not become as large there: raise the limit "
         "(ulimit -f); then again.\n"),
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


def test_a_reader_of_help_that_goes_away_is_no_error(tmp_path):
    command(tmp_path, "pass", "--help")  # writes the script
    script = tmp_path / "script.py"
    script.write_text(script.read_text().replace("Does something.", "Does something.\n" * 10_000))
    process = subprocess.Popen(
        [*PYTHON, script, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    assert process.stdout.readline() == "Does something.\n"
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == ""
    assert process.wait(60) == 0


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c(number, tmp_path):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests run under nohup, which commands respect")
    command(tmp_path, "print('ready', flush=True)\ntime.sleep(60)", "--help")
    process = subprocess.Popen(
        [*PYTHON, tmp_path / "script.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=60) == ("", "\nstopped\n")
    assert process.returncode == 130


def interrupted(
    arguments: list, *, times: int = 1, number: signal.Signals = signal.SIGINT, env=ENVIRONMENT
) -> tuple[int, str, float]:
    """Starts a process and sends it a signal each time that it says it is ready: exit code, stderr, and the seconds
    that it still took."""
    process = subprocess.Popen(
        [*PYTHON, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True, cwd="/"
    )
    for _ in range(times):
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
    began = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr, time.monotonic() - began


@pytest.mark.parametrize("arguments", [["-m", "jax_video.predict"], ["-m", "jax_video", "main"]])
def test_ctrl_c_while_modules_are_loaded(tmp_path, arguments):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    env = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    assert interrupted(arguments, env=env)[:2] == (130, "\nstopped\n")


READY = "print('ready', flush=True)"


@pytest.mark.parametrize(
    "body",
    [
        f"import hashlib\n{READY}\nhashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
        f"class Late:\n    def __del__(self):\n        {READY}\n        time.sleep(60)\nLate()\ntime.sleep(60)",
        f"try:\n    {READY}\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    raise RuntimeError('of XLA') from None",
    ],
    ids=["in a function that does not return", "where nobody can catch it", "where another error comes of it"],
)
def test_ctrl_c_at_bad_moments(tmp_path, body):
    command(tmp_path, body, "--help")
    for number in (signal.SIGINT, signal.SIGTERM):
        code, stderr, seconds = interrupted([tmp_path / "script.py"], number=number)
        assert (code, stderr) == (130, "\nstopped\n") and seconds < 10


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    body = f"try:\n    {READY}\n    time.sleep(60)\nfinally:\n    {READY}\n    time.sleep(60)"
    command(tmp_path, body, "--help")
    code, stderr, seconds = interrupted([tmp_path / "script.py"], times=2)
    assert (code, stderr) == (130, "\nstopped\n") and seconds < 10


def test_ctrl_c_stays_ignored_where_it_is(tmp_path):
    """As in a job that a script has started with &."""
    command(tmp_path, "os.kill(os.getpid(), signal.SIGINT)\nprint('after')", "--help")
    script = tmp_path / "script.py"
    start = f"import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nos.execv({sys.executable!r}, "
    done = python("-c", f"{start}[{sys.executable!r}, {str(script)!r}])")
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "")


def test_a_full_disk_below_what_is_printed(tmp_path):
    command(tmp_path, "print('result')", "--help")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PYTHON, tmp_path / "script.py"], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
        )
    expected = "error: cannot write to the output (No space left on device). Make room there.\n"
    assert (done.returncode, done.stderr) == (2, expected)


@pytest.mark.parametrize("closed", [1, 2])
def test_output_that_is_closed(closed, tmp_path):
    """As a service or a scheduler may start it: what is printed there goes nowhere."""
    body = "import sys, tqdm\nprint('result')\nprint('note', file=sys.stderr)\ntqdm.tqdm.write('row', file=sys.stderr)"
    command(tmp_path, body, "--help")
    start = f"import os\nos.close({closed})\nos.execv({sys.executable!r}, {[*PYTHON, 'script.py']})"
    done = python("-c", start, cwd=tmp_path)
    found = ("", "note\nrow\n") if closed == 1 else ("result\n", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, *found)


def test_the_home_folder_in_flags(tmp_path):
    """No shell replaces ~ there."""
    flags = ("--config=stc:data=~/set,frames=8", "--config.init_from.path=~/other", "--print_config")
    finished = run("jax_video.main", *flags, env={"HOME": str(tmp_path)})
    assert finished.code == 0, finished.stderr
    found = dict(re.findall(r"^(data\.manifest|init_from\.path) += '([^']*)'", finished.stdout, re.MULTILINE))
    assert found == {"data.manifest": f"{tmp_path}/set", "init_from.path": f"{tmp_path}/other"}


def test_a_home_folder_is_where_a_path_begins(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for given, expected in (
        ("--table=~/a.csv,~/b.csv", "--table=/home/me/a.csv,/home/me/b.csv"),
        ("--label_separator=~", "--label_separator=~"),
        ("--workdir=~", "--workdir=/home/me"),
        ("--group=(.*)~", "--group=(.*)~"),
        ("~/a.mp4", "~/a.mp4"),
    ):
        assert _expanded(given) == expected


def test_devices_that_are_not_there(tmp_path):
    done = command(tmp_path, "import jax\njax.config.update('jax_platforms', 'gpux')\njax.devices()")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: JAX_PLATFORMS=gpux asks for devices that JAX does not find here: ")
    assert "Leave it out" in done.stderr


def test_names_that_are_no_unicode_are_printed_as_they_are(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from jax_video import command\ncommand.run(lambda arguments: print(*arguments))\n")
    done = subprocess.run([*PYTHON, script, b"a\xff.mp4"], capture_output=True, env=ENVIRONMENT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\xff.mp4\n", b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_an_encoding_lacks_stay_json(encoding, tmp_path):
    script, names = tmp_path / "script.py", ["é", "動画", "🎬"]
    body = f"lambda arguments: print(json.dumps({names!r}, ensure_ascii=False))"
    script.write_text(f"import json\nfrom jax_video import command\ncommand.run({body})\n", encoding="utf-8")
    environment = ENVIRONMENT | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([*PYTHON, script], capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"") and json.loads(done.stdout.decode(encoding)) == names


def test_errors_that_nobody_can_catch_are_reported(tmp_path):
    """But for a flood of one kind, which follows a failed read or write of a checkpoint."""
    body = "class Ends:\n    def __del__(self): raise {}\nEnds()\nprint('after')"
    done = command(tmp_path, body.format("RuntimeError('Event loop is closed')"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "")
    done = command(tmp_path, body.format("RuntimeError('something else')"))
    assert done.stdout == "after\n" and "RuntimeError: something else" in done.stderr


NAMES = ("\x1b]0;title\x07\x1b[31mred", "a\rb", "up\ndown", "\u202egpj.4pm", "\x9b31m", "\x7f")
OBEYED = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"


def test_a_name_commands_no_terminal(tmp_path):
    """Neither in a table, a message, a log nor a progress bar; where its bytes are no UTF-8 they go out as they are."""
    body = (
        "import logging, sys, tqdm\n"
        "from jax_video.errors import VideoError\n"
        f"names = {NAMES!r}\n"
        "for name in (*names, '\\udcff é'):\n"
        "    print(name, end=';')\n"
        "    logging.warning('of %s', name)\n"
        "    tqdm.tqdm.write(name, file=sys.stderr)\n"
        "with tqdm.tqdm(desc=names[0], total=2) as outer, tqdm.tqdm(total=2, desc='inner') as inner:\n"
        "    outer.update()\n"
        "    inner.update()\n"
        "raise VideoError(names[2], 'of ' + names[0])"
    )
    done = command(tmp_path, body, text=False)
    stdout, stderr = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    assert done.returncode == 2 and "Traceback" not in stderr, stderr
    assert not re.findall(OBEYED, stdout) and stdout.endswith(";\udcff é;")
    assert r"\x1b]0;title\x07\x1b[31mred;a\x0db;" in stdout and r"\u202egpj.4pm;\u009b31m;\u007f;" in stdout
    assert stderr.endswith("error: up\\x0adown: of \\x1b]0;title\\x07\\x1b[31mred\n")
    assert not re.findall(OBEYED, stderr.replace("\r", "").replace("\x1b[A", "")), "but for how tqdm moves"
    assert "a\rb" not in stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_error_shows_names_from_python_too(name):
    assert not re.findall(OBEYED, str(UserError(f"no {name}"))) and not re.findall(OBEYED, str(VideoError(name, name)))
    assert "\n" not in str(VideoError(name, "damaged"))


def test_what_orbax_forgets_after_a_failed_read_is_not_reported(monkeypatch, capsys):
    """It raises one failure of several, and drops the coroutines of the others."""
    monkeypatch.setattr(sys, "unraisablehook", _report_unraisable)
    text = "import asyncio\nasync def read():\n try: await asyncio.sleep(9)\n finally: raise ValueError('no array')"
    for place, reported in {"orbax": False, "ours": True}.items():
        found: dict = {}
        exec(compile(text, os.path.join("packages", place, "read.py"), "exec"), found)

        async def begin(read=found["read"]):
            coroutine = read()
            coroutine.send(None)
            del coroutine

        asyncio.run(begin())
        assert ("no array" in capsys.readouterr().err) == reported
