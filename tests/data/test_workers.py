import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT

from jax_video.data.decoding import probing, workers
from jax_video.data.sources import motions
from jax_video.errors import VideoError


def run(tasks, probe, *, count=1, timeout=60):
    return list(workers.run(tasks, probe, workers=count, timeout=timeout))


def test_a_decoder_that_crashes_or_hangs_costs_one_file():
    """Built-in functions stand for decoders: what they are given decides how they end."""
    # Those that end at once may wait for a busy machine.
    ends = run([0.0, 60.0, 0.0], time.sleep, timeout=lambda seconds: 2 if seconds else 30)
    assert ends == [(0, None), (1, "not done after 2 s"), (2, None)]
    crashes = dict(run([signal.SIGSEGV, signal.SIGABRT], signal.raise_signal, count=2))
    assert crashes == {0: "the decoder crashes (SIGSEGV)", 1: "the decoder crashes (SIGABRT)"}
    assert run([3], os._exit, count=4) == [(0, "the decoder crashes (exit code 3)")]
    assert run([], os._exit, count=4) == []
    slow = run([0.0, 60.0], time.sleep, count=2, timeout=lambda seconds: 60 - seconds)
    assert sorted(slow) == [(0, None), (1, "not done after 0 s")]


def test_one_that_goes_on_may_take_any_time_and_one_that_does_not_is_ended():
    """As a decoder does on a long file, a frame each tenth of a second."""
    imports = "import time\nfrom jax_video.data.decoding import workers\n"
    works = imports + "for _ in range(60):\n time.sleep(0.1)\n workers.go_on()\n"
    stops = imports + "time.sleep(0.2)\nworkers.go_on()\ntime.sleep(60)"
    assert sorted(run([works, stops], exec, count=2, timeout=5)) == [(0, None), (1, "not done after 5 s")]
    workers.go_on()  # in no worker nobody is told


def test_what_is_no_fault_of_a_file_stops_it():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(["/nowhere/at/all"], os.mkdir)


def test_it_gives_what_the_probe_says(tmp_path):
    motions.encode(tmp_path / "good.mp4", np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), np.uint8))
    (tmp_path / "empty.mp4").touch()
    results = dict(run([str(tmp_path / "good.mp4"), str(tmp_path / "empty.mp4")], probing.probe, count=2))
    assert results == {0: probing.probe(tmp_path / "good.mp4"), 1: "empty file"}


def _process(_) -> int:
    return os.getpid()


def test_a_process_of_a_pool_stays_for_the_next_tasks_until_it_is_gone():
    pool = workers.Pool(_process)
    pool.start()
    (_, first), (_, second) = pool.run([0, 1], workers=1, timeout=60)
    ((_, third),) = pool.run([0], workers=8, timeout=60)
    assert first == second == third != os.getpid()
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    ((_, another),) = pool.run([0], workers=1, timeout=60)
    assert another != first
    pool.close(keep=1)
    os.kill(another, 0)  # it is there
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(another, 0)


def test_tasks_are_taken_as_workers_become_free():
    taken = []

    def tasks():
        for i in itertools.count():
            taken.append(i)
            yield 0.0

    results = workers.run(tasks(), time.sleep, workers=2, timeout=60)
    finished = [index for index, _ in itertools.islice(results, 20)]
    results.close()
    assert sorted(set(finished)) == sorted(finished)
    assert len(finished) <= len(taken) <= len(finished) + 4


REASON = "needs more than 1 GiB of memory"


def _fill(size: int) -> int:
    """Needs `size` bytes, and says how many the process has then."""
    np.ones(size, np.uint8)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _fill_in_disguise(size: int) -> None:
    """As where a decoder's error has become one of ours."""
    try:
        _fill(size)
    except MemoryError as error:
        raise VideoError("x.mp4", "damaged") from error


def _decode(size: int) -> None:
    """A decoder that says nothing of memory."""
    _fill(size)
    raise VideoError("x.mp4", "damaged (x)")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the limit is of Linux")
@pytest.mark.parametrize("fill", [_fill, _fill_in_disguise])
def test_a_worker_has_at_most_1_gib_of_memory(fill):
    assert run([2**30, 2**40], fill) == [(0, REASON), (1, REASON)]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the limit is of Linux")
def test_what_a_file_took_is_not_held_against_the_next():
    (_, half), (_, reason), (_, again) = run([2**29, 2**30, 1], _fill)
    assert half < 2**30 and again < 2**30 and reason == REASON
    # Little more than half a GiB: what this file imports takes a quarter of the GiB before.
    assert run([1, 2**29 + 2**26, 1], _decode) == [
        (0, "damaged (x)"),
        (1, f"damaged (x); or it {REASON}"),
        (2, "damaged (x)"),
    ]


def test_a_worker_ends_with_its_parent(tmp_path):
    """`kill -9` leaves no decoder behind."""
    (tmp_path / "decoder.py").write_text(
        "import time\ndef decode(_):\n    print('decoding', flush=True)\n    time.sleep(600)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import decoder\nfrom jax_video.data.decoding import workers\n"
        "list(workers.run([0], decoder.decode, workers=1, timeout=600))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, start_new_session=True, env=environment, text=True
    )
    try:
        assert process.stdout.readline() == "decoding\n"  # It is the worker that says so.
        process.kill()
        process.communicate(timeout=30)  # Ends when the last process that could write has ended.
    finally:
        with contextlib.suppress(ProcessLookupError):  # None is left.
            os.killpg(process.pid, signal.SIGKILL)
