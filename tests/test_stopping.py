"""Signals that ask a training to stop."""

import concurrent.futures
import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from jax_video.errors import Stopped
from jax_video.stopping import StopSignals


@contextlib.contextmanager
def handler(number, action):
    before = signal.signal(number, action)
    yield
    signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_to_stop(number):
    with handler(number, signal.default_int_handler):  # these tests themselves may run under nohup
        with StopSignals() as signals:
            assert not signals.requested
            os.kill(os.getpid(), number)
            assert signals.requested
        assert signal.getsignal(number) is signal.default_int_handler


def test_signals_are_the_main_threads():
    """Training in another thread leaves them alone."""

    def train():
        with StopSignals() as signals:
            return signals.requested, signal.getsignal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(train).result() == (False, before)


def test_nohup_is_respected():
    with handler(signal.SIGHUP, signal.SIG_IGN), StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not signals.requested


def test_a_second_ctrl_c_stops_at_once_and_says_what_is_saved():
    expected = "stopped at once; the same command goes on from the last checkpoint"
    with pytest.raises(Stopped, match=expected), StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(not shutil.which("setsid"), reason="needs setsid, of util-linux")
def test_what_is_printed_on_a_terminal_that_was_closed_is_no_error(tmp_path):
    saves = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # these tests themselves may run under nohup
        "from jax_video.stopping import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    print('ready', flush=True)\n"
        "    while not signals.requested: time.sleep(0.01)\n"
        "    print('stopping', flush=True)\n"
        "    print('stopping', file=sys.stderr, flush=True)\n"
        "    pathlib.Path(sys.argv[1]).write_text('saved')\n"
    )
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-c", saves, tmp_path / "saved"],
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    assert b"ready" in os.read(main, 100)
    os.close(main)
    assert process.wait(60) == 0
    assert (tmp_path / "saved").read_text() == "saved"
