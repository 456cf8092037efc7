"""Processes of this machine: which they are, whether they live, and what killed ones have left behind.

What a process makes in a folder that all share, such as shared memory in /dev/shm, has a name that begins with the
process's `mark`. A process that is killed with all its children (`kill -9` of the group, the end of a SLURM step)
cannot remove it; the next process does.
"""

import contextlib
import multiprocessing.process
import os
import pathlib
import re
import shutil
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from multiprocessing import resource_tracker, shared_memory, spawn

WORKER = "jax_video-worker"  # how the names of our own worker processes begin
SHARED = pathlib.Path("/dev/shm")  # where Linux keeps shared memory and semaphores, those of Python's processes, too
_STARTING = threading.Lock()  # `_start_tracker` changes the environment, which is the whole process's
_MARKED = re.compile(r"(?:sem\.)?jax_video-(?P<where>\w+)-(?P<pid>\d+)-(?P<started>\d+)-")


def is_alive(pid: int, started: int) -> bool:
    """Whether this machine has a process with this number that began at this time, in ticks as from `look`."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # another user's
    state, began = look(pid)
    return state not in ("Z", "X") and (not began or not started or began == started)


def look(pid: int) -> tuple[str, int]:
    """The state of a process, and when it began, in ticks since the boot; "" and 0 if the system does not say."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", 0


def boot() -> str:
    """An identifier of this machine since its last start; its name if the system has none."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def namespace() -> str:
    """An identifier of the container, or machine, within which processes' numbers are unique.

    On Windows a new one with each call, as no process can be looked at there.
    """
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "" if os.name == "posix" else uuid.uuid4().hex


def mark() -> str:
    """What the names of all that this process makes in shared folders begin with."""
    return f"jax_video-{_where()}-{os.getpid()}-{look(os.getpid())[1]}-"


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove from a folder what processes of this user and machine have made there, if these processes are gone."""
    for path in pathlib.Path(folder).glob("*jax_video-*"):
        found = _MARKED.match(path.name)
        if found is None or found["where"] != _where() or is_alive(int(found["pid"]), int(found["started"])):
            continue
        with contextlib.suppress(OSError):  # another process may remove it at the same time
            if path.lstat().st_uid != os.geteuid():
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def mark_semaphores() -> None:
    """Mark, from now on, the names of the semaphores that this process shares with its children."""
    if SHARED.is_dir():
        multiprocessing.process.current_process()._config["semprefix"] = f"/{mark()}"  # type: ignore[attr-defined]


def mark_shared_memory(owner: str) -> None:
    """Give shared memory that this process makes, from now on, the mark of another process, which takes it over."""
    if SHARED.is_dir():
        shared_memory._make_filename = lambda: f"/{owner}{uuid.uuid4().hex[:12]}"  # type: ignore[attr-defined]


@contextlib.contextmanager
def keeping_from_children(*signals: signal.Signals) -> Iterator[None]:
    """Block signals, for good, in processes that are started meanwhile; those to this process come after the block.

    A terminal sends Ctrl-C to all processes of a command, and a worker would end with a traceback while it starts.
    """
    with _STARTING:
        _start_tracker()  # otherwise it is started meanwhile, which unblocks these signals
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_preparation = spawn.get_preparation_data
_WITHOUT_MAIN = ("grain-process-prefetch", WORKER)  # how the names of processes begin that Grain starts, and we


def keep_main_to_itself() -> None:
    """Let Grain's workers and ours, from now on, not import the main module as other new processes do: a command with
    JAX, or a user's whole script, which would run again in each."""
    global _preparation
    if spawn.get_preparation_data.__name__ != _prepared.__name__:  # also where this module was loaded anew
        _preparation, spawn.get_preparation_data = spawn.get_preparation_data, _prepared


def _prepared(name: str) -> dict[str, object]:
    data = _preparation(name)
    if name.startswith(_WITHOUT_MAIN):
        data = {key: value for key, value in data.items() if not key.startswith("init_main_from")}
    return data


def _start_tracker() -> None:
    """Start Python's resource tracker, a process that removes shared memory when this process alone is killed.

    It is told not to warn of that, which helps nobody; and closing the terminal (SIGHUP) does not end it.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, "ignore:resource_tracker"]))
    hangup = {signal.SIGHUP} if hasattr(signal, "SIGHUP") else set()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, hangup) if hangup else None
    try:
        resource_tracker.ensure_running()
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _where() -> str:
    """An identifier of this machine since its last start, and this container, in which process numbers are unique."""
    return re.sub(r"\W", "", f"{boot()[:8]}_{namespace().removeprefix('pid:')}")
