"""One process at a time writes into a folder, and a folder that nobody holds any more is free at once."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import types

import commands
import processes
import pytest
from conftest import ROOT

from jax_video import lock
from jax_video import train as train_lib
from jax_video.data.sources import motions
from jax_video.errors import UserError
from jax_video.testing import coefficients, features, results

HOLDER = """
import pathlib, sys, time
from jax_video import lock
lock.BEAT, lock.SETTLE = 0.02, 0.05
folder, takeover = sys.argv[1], "takeover" in sys.argv
try:
    with lock.hold(folder, takeover=takeover, lost=lock.end_process if "ends" in sys.argv else None):
        print("held", flush=True)
        sys.stdin.readline()
        lock.check(folder)
        pathlib.Path(folder, "written").write_text("by " + sys.argv[2])
except lock.InUse as error:
    print(error, flush=True)
    sys.exit(2)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.05)


@contextlib.contextmanager
def starting(folder: pathlib.Path, *arguments: str):
    """A process that holds a folder until it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *(arguments or ("first",))],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def holding(folder: pathlib.Path, *arguments: str):
    with starting(folder, *arguments) as process:
        said = process.stdout.readline()
        assert said == "held\n", said + process.stderr.read()
        yield process


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(folder: pathlib.Path, age: float = 0.0, **changes) -> lock.Holder:
    """Enters a holder that is another machine's, if `changes` say nothing else, and was heard of so long ago."""
    elsewhere = {"host": "elsewhere", "machine": "another boot", "token": "theirs"}
    holder = dataclasses.replace(lock.this_process(), **elsewhere | changes)
    (folder / lock.NAME).write_bytes(holder.write())
    os.utime(folder / lock.NAME, (time.time() - age,) * 2)
    return holder


def refused(folder: pathlib.Path | str, there: pathlib.Path | None = None) -> str:
    """What a start is told; it touches nothing. `there`: the folder that a store's is."""
    before = contents(there or folder)
    with pytest.raises(lock.InUse) as error, lock.hold(folder):
        pass
    assert contents(there or folder) == before
    return str(error.value)


def is_free(folder: pathlib.Path, **given) -> bool:
    try:
        with lock.hold(folder, **given):
            return json.loads((folder / lock.NAME).read_bytes())["pid"] == os.getpid()
    except lock.InUse:
        return False


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    with holding(tmp_path) as process:
        (tmp_path / "metrics.jsonl").write_text("rows")
        message = refused(tmp_path)
        holder = json.loads((tmp_path / lock.NAME).read_bytes())
        assert holder["pid"] == process.pid and f"process {process.pid} on {holder['host']}" in message
        assert holder["since"] in message and f"kill {process.pid}" in message and "another folder" in message
        assert time.time() - time.mktime(time.strptime(holder["since"][:19], "%Y-%m-%d %H:%M:%S")) < 100
        process.communicate("go on\n")
        assert process.returncode == 0
    assert contents(tmp_path) == {"metrics.jsonl": b"rows", "written": b"by first"}
    assert is_free(tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_gone_holds_nothing(tmp_path, how, capsys):
    with holding(tmp_path) as process:
        process.send_signal(how)
        process.wait()
        assert (tmp_path / lock.NAME).exists() == (how != signal.SIGINT)
        assert is_free(tmp_path)
    assert not (tmp_path / lock.NAME).exists() and capsys.readouterr().err == ""


def test_a_dead_process_that_nobody_has_collected_holds_nothing(tmp_path):
    with holding(tmp_path) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert is_free(tmp_path)


def test_a_number_that_another_process_has_now_holds_nothing(tmp_path):
    with holding(tmp_path / "theirs") as process:
        holder = lock.Holder.parse((tmp_path / "theirs" / lock.NAME).read_bytes())
        there = {"host": holder.host, "machine": holder.machine, "pid": process.pid}
        put(tmp_path, **there, started=holder.started + 1)
        assert is_free(tmp_path)
        put(tmp_path, **there, started=holder.started)
        assert f"process {process.pid}" in refused(tmp_path)
        put(tmp_path, age=10 * lock.LIMIT, **there, started=holder.started)
        assert "wait until it has ended" in refused(tmp_path), "one that is there, suspended for example, is there"


def test_a_holder_elsewhere_counts_as_gone_after_a_while(tmp_path, capsys):
    put(tmp_path, age=lock.LIMIT - 30)
    message = refused(tmp_path)
    assert "on elsewhere" in message and re.search(r"27\d s old", message) and "--takeover" in message
    put(tmp_path, age=lock.LIMIT + 30)
    assert is_free(tmp_path)
    assert "Taking over" in capsys.readouterr().err
    put(tmp_path, age=-1000)  # a clock that was wrong
    assert "on elsewhere" in refused(tmp_path)
    assert is_free(tmp_path, takeover=True)


def test_a_container_of_the_same_name_is_elsewhere(tmp_path):
    """Its numbers of processes mean others."""
    own = lock.this_process()
    put(tmp_path, host=own.host, machine=own.machine, namespace="pid:[1]", pid=2**22 + 1)
    assert "sign of life" in refused(tmp_path)


def test_a_container_that_was_started_again_on_its_machine_goes_on_at_once(tmp_path):
    """Numbers of processes mean others there, but the system's lock of the file is of all containers."""
    with holding(tmp_path) as process:
        holder = json.loads((tmp_path / lock.NAME).read_bytes())
        assert holder["locked"]
        (tmp_path / lock.NAME).write_text(json.dumps(holder | {"namespace": "pid:[1]"}))  # the same open file
        assert "sign of life" in refused(tmp_path)
        process.kill()
        process.wait()
        assert is_free(tmp_path)


def test_a_machine_that_was_started_again_goes_on_at_once(tmp_path, monkeypatch):
    put(tmp_path, age=100, host=lock.this_process().host)
    monkeypatch.setattr(lock, "_booted", lambda: time.time() - 200)
    assert "sign of life" in refused(tmp_path), "another machine of this name, for it was alive after the start of this"
    monkeypatch.setattr(lock, "_booted", lambda: time.time() - 50)
    assert is_free(tmp_path)


def test_a_requeued_job_goes_on_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    put(tmp_path)
    assert "job 77" in refused(tmp_path), "another task of the job"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert is_free(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    put(tmp_path, job="77", restart=0)
    assert "job 77" in refused(tmp_path)


@pytest.mark.parametrize("data", [b"", b'{"token": "x", "hos', b"[1]", b"\xff\0", b'{"pid": -1}', b"null"])
def test_a_file_that_cannot_be_read_counts_until_it_is_old(tmp_path, data, monkeypatch):
    monkeypatch.setattr(lock, "_booted", lambda: 0.0)
    (tmp_path / lock.NAME).write_bytes(data)
    assert "does not tell" in refused(tmp_path)
    os.utime(tmp_path / lock.NAME, (time.time() - lock.LIMIT - 10,) * 2)
    assert is_free(tmp_path)


@pytest.mark.parametrize("left", ["nothing", "one that is gone"])
def test_of_many_starts_at_once_one_wins(tmp_path, left):
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if left != "nothing":
            own = lock.this_process()
            put(folder, host=own.host, machine=own.machine, pid=os.getpid(), started=own.started + 1)
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(starting(folder, str(number))) for number in range(4)]
            said = [process.stdout.readline() for process in started]
            assert said.count("held\n") == 1, said
            assert sum("is in use by process" in line for line in said) == 3, said


def test_a_suspended_process_that_was_taken_over_writes_nothing_more(tmp_path):
    with holding(tmp_path, "first") as first:
        first.send_signal(signal.SIGSTOP)
        assert not is_free(tmp_path)
        with holding(tmp_path, "second", "takeover") as second:
            second.communicate("go on\n")
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate("go on\n")
        assert first.returncode == 1 and "was taken over" in errors
    assert contents(tmp_path) == {"written": b"by second"}


def test_a_command_ends_by_itself_when_its_folder_was_taken_over(tmp_path):
    with holding(tmp_path, "first", "ends") as first:
        with holding(tmp_path, "second", "takeover") as second:
            _, errors = first.communicate()  # without a word to it
            assert first.returncode == 2 and errors.startswith("error: ") and errors.count("was taken over") == 1
            assert f"process {second.pid}" in errors
            second.communicate("go on\n")
    assert contents(tmp_path) == {"written": b"by second"}


def test_a_sign_of_life_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with lock.hold(tmp_path):
        os.utime(tmp_path / lock.NAME, (0, 0))
        while os.stat(tmp_path / lock.NAME).st_mtime < time.time() - 60:
            time.sleep(0.01)


def test_a_sign_of_life_where_times_of_files_stay(tmp_path, monkeypatch):
    """As on some mounted stores: the file is written again."""
    monkeypatch.setattr(lock, "BEAT", 0.01)
    monkeypatch.setattr(lock.os, "utime", lambda path: None)
    with lock.hold(tmp_path):
        began = lock.this_process().heartbeat
        while (holder := lock.Holder.parse((tmp_path / lock.NAME).read_bytes())) is None or holder.heartbeat <= began:
            time.sleep(0.001)


def test_a_full_disk_leaves_no_half_entry(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self._file = file

        def write(self, data):
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(self._file, name)

    monkeypatch.setattr(lock, "open", lambda *given, **options: Full(open(*given, **options)), raising=False)
    with pytest.raises(UserError, match="cannot write to .*No space left"), lock.hold(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / lock.NAME).exists()


def test_a_holder_may_hold_again_but_not_its_other_threads_nor_children(tmp_path):
    with lock.hold(tmp_path / "run"):
        with lock.hold(tmp_path / "elsewhere" / ".." / "run"):
            lock.check(tmp_path / "run")
        assert (tmp_path / "run" / lock.NAME).exists()
        told = []
        thread = threading.Thread(target=lambda: told.append(refused(tmp_path / "run")))
        thread.start()
        thread.join()
        assert f"process {os.getpid()}" in told[0]
        child = multiprocessing.get_context("spawn").Process(target=refused, args=(tmp_path / "run",))
        child.start()
        child.join()
        assert child.exitcode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path):
    with pytest.raises(UserError, match="a mistake"), lock.hold(tmp_path / "runs" / "first"):
        raise UserError("a mistake")
    assert list(tmp_path.iterdir()) == []
    with lock.hold(tmp_path / "runs" / "first"):
        (tmp_path / "runs" / "first" / "config.json").write_text("{}")
    assert contents(tmp_path) == {"runs/first/config.json": b"{}"}


def test_what_cannot_be_written_is_not_held(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with lock.hold(tmp_path / "file" / "run"), lock.hold(tmp_path / "file"):
        pass
    (tmp_path / "run").mkdir()

    def read_only(path, mode="r", **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(lock, "open", read_only, raising=False)
    with pytest.raises(UserError, match="cannot write to .*Permission denied"), lock.hold(tmp_path / "run"):
        pass  # other files can be written there
    monkeypatch.setattr(lock.os, "access", lambda path, mode: False)
    with lock.hold(tmp_path / "run"):
        assert contents(tmp_path / "run") == {}


def test_in_a_store_the_last_to_write_wins(store):
    folder = "gs://bucket/run"
    there = store / "bucket" / "run"
    with lock.hold(folder):
        assert [path.name for path in there.iterdir()] == [lock.NAME]
        with lock.hold(folder):
            pass
        put(there)
        with pytest.raises(lock.Lost, match="taken over from this process by process"):
            lock.check(folder)
    assert "on elsewhere" in refused(folder, there)  # what is theirs has stayed
    put(there, age=lock.LIMIT + 10)
    with lock.hold(folder):
        lock.check(folder)
    assert not (there / lock.NAME).exists()
    put(there)
    with lock.hold(folder, takeover=True):
        lock.check(folder)


def test_of_two_starts_at_once_in_a_store_one_wins(store, monkeypatch):
    """Both find nothing, and write."""
    there = store / "bucket" / "run"
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: put(there))
    with pytest.raises(lock.InUse, match="on elsewhere"), lock.hold("gs://bucket/run"):
        pass
    assert json.loads((there / lock.NAME).read_bytes())["host"] == "elsewhere"


MAIN = ("jax_video.main", f"--config={ROOT}/tests/tiny.py", "--workdir")
PREPARE = ("jax_video.prepare", "motions", "--out")
CONVERT = ("jax_video.convert", "weights.npz", "--layout=jax_video", f"--config={ROOT}/tests/tiny.py", "--out")


@pytest.mark.parametrize("command", [MAIN, (MAIN[0], "--mode=test", *MAIN[1:]), PREPARE, CONVERT])
def test_commands_that_write_are_refused_before_they_touch_a_file(tmp_path, command):
    folder = tmp_path / "in use"
    with lock.hold(folder):
        (folder / "config.json").write_text("{}")
        (folder / ".manifest.jsonl.half").write_text("of the other one")
        before = contents(folder)
        *arguments, flag = command
        finished = commands.run(*arguments, f"{flag}={folder}")
        commands.check_user_error(finished, f"{folder} is in use by process {os.getpid()}", "Nothing was touched")
        assert contents(folder) == before


@pytest.mark.parametrize("function", [train_lib.train, results.test, features.extract, coefficients.analyse])
def test_functions_that_write_into_a_run_are_refused_too(tmp_path, function):
    folder = types.SimpleNamespace(folder=tmp_path)  # all of a run that is looked at before
    arguments = (None, None, tmp_path) if function is train_lib.train else (folder, None)
    put(tmp_path)
    with pytest.raises(lock.InUse, match="on elsewhere"):
        function(*arguments)
    put(tmp_path, age=lock.LIMIT + 10)
    with pytest.raises((AttributeError, TypeError)):  # it begins
        function(*arguments)


@pytest.mark.slow
def test_two_runs_at_once(tmp_path, tmp_path_factory):
    """One trains and is the run that nothing disturbs; the other is refused. Killed and started again, it goes on."""
    manifest = motions.make(tmp_path_factory.getbasetemp(), train=32, val=8, test=8, frames=8, width=40, height=32)
    expected = processes.undisturbed(manifest)
    workdir = tmp_path / "run"
    both = [processes.start(workdir, manifest, log=log) for log in ("one", "two")]
    processes.wait_until(lambda: any(process.poll() is not None for process in both))
    (refused_one,) = [number for number, process in enumerate(both) if process.poll() is not None]
    assert both[refused_one].returncode == 2
    other = both[1 - refused_one]
    assert f"is in use by process {other.pid} on" in processes.output(workdir, ("one", "two")[refused_one])
    processes.wait_until(lambda: len(processes.rows(workdir)) > 5, other)
    processes.kill(other)
    assert (workdir / lock.NAME).exists()
    assert processes.finish([processes.start(workdir, manifest)]) == [0], processes.output(workdir)
    processes.assert_same(processes.result(workdir), processes.result(expected))
    assert not (workdir / lock.NAME).exists()


@pytest.mark.slow
def test_a_suspended_run_that_was_taken_over(tmp_path, tmp_path_factory):
    manifest = motions.make(tmp_path_factory.getbasetemp(), train=32, val=8, test=8, frames=8, width=40, height=32)
    expected = processes.undisturbed(manifest)
    workdir = tmp_path / "run"
    first = processes.start(workdir, manifest)
    processes.wait_until(lambda: len(processes.rows(workdir)) > 5, first)
    first.send_signal(signal.SIGSTOP)
    assert processes.finish([processes.start(workdir, manifest, log="refused")]) == [2]
    second = processes.start(workdir, manifest, "--takeover", log="second")
    assert processes.finish([second]) == [0], processes.output(workdir, "second")
    first.send_signal(signal.SIGCONT)
    assert processes.finish([first]) == [2]
    assert "was taken over from this process" in processes.output(workdir)
    processes.assert_same(processes.result(workdir), processes.result(expected))
