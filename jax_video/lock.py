"""One writer to a folder: a run's --workdir, or prepare's --out, is held by one process at a time.

The process that holds a folder writes in_use.json there, which says who it is. It renews the time of this file every
`BEAT` seconds: its sign of life. A second process is refused before it touches any file of the folder, unless one of
these allows it to take over:

  * the holder ran on this machine, and its process is gone: ended, killed, or from before a restart;
  * the holder runs elsewhere, or nobody can say where, and its last sign of life is older than `LIMIT` seconds;
  * the holder is the same SLURM job, which was requeued;
  * the user said so (`takeover`).

A holder whose folder was taken over, for example while it was suspended, notices that before it writes again.

If several processes start at the same moment, exactly one of them wins on a local disk. Object stores cannot promise
that, nor can a network's file system when a folder is taken over: there a process writes the file, waits `SETTLE`
seconds and reads it back, and the last writer wins.
"""

import contextlib
import dataclasses
import datetime
import errno
import io
import json
import os
import pathlib
import shlex
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeGuard

from jax_video.data import documents, processes, remote
from jax_video.errors import UserError, unwritable

NAME = "in_use.json"
BEAT = 20.0  # seconds between two signs of life
LIMIT = 300.0  # seconds without one, after which a holder whose process cannot be checked counts as gone
SETTLE = 2.0  # seconds between writing and reading back


class InUse(UserError):
    """A folder that another process writes into; the message says which, and what to do."""


class Lost(UserError):
    """A folder that was taken over by another process while this one wrote into it."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """What in_use.json says of the process that writes into a folder."""

    token: str  # unique to this hold
    host: str
    machine: str  # identifies the kernel's boot: process numbers are unique within one boot,
    namespace: str  # and within one container
    pid: int
    started: int  # when the process began, in ticks since the boot, as numbers are reused; 0: not known
    since: str
    job: str  # of SLURM or another scheduler; empty: none
    restart: int  # how often the job was requeued
    command: str
    heartbeat: float  # seconds since 1970 by the holder's clock, for stores that keep no time of a file
    locked: bool = False  # whether the system locks the file as long as the process lives

    @classmethod
    def parse(cls, data: bytes) -> "Holder | None":
        """The holder in the bytes of an in_use.json; None if they are cut off, or of another version."""
        try:
            holder = cls(**documents.parse(data, dict))
        except (documents.Damaged, TypeError):
            return None
        kinds = (type(getattr(holder, field.name)) is field.type for field in dataclasses.fields(cls))
        return holder if all(kinds) and holder.pid > 0 else None

    def write(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since} ({self.command})"


def this_process() -> Holder:
    """What this process writes into in_use.json."""
    job = next((os.environ[name] for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID") if os.environ.get(name)), "")
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    _, started = processes.look(os.getpid())
    return Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=processes.boot(),
        namespace=processes.namespace(),
        pid=os.getpid(),
        started=started,
        since=datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        job=job,
        restart=int(restart) if restart.isdecimal() else 0,
        command=shlex.join([os.path.basename(sys.argv[0] or "python"), *sys.argv[1:]])[:200],
        heartbeat=time.time(),
    )


_held: dict[str, "_Lock"] = {}  # by folder: what this process holds


@contextlib.contextmanager
def hold(
    folder: str | os.PathLike, *, takeover: bool = False, lost: Callable[[Lost], None] | None = None
) -> Iterator[None]:
    """Hold a folder. Makes it if there is none, and removes it at the end if it is still empty.

    The same thread may hold a folder twice: the inner call does nothing. A call for a folder that cannot be written
    does nothing either, since there is nothing to protect; whoever writes into it will get the error.

    Args:
      takeover: whether to take the folder even if another process holds it.
      lost: called, in any thread, when another process has taken the folder; it should end this process. By default
        `check` raises.

    Raises:
      InUse: another process, or another thread of this one, holds it. No file was touched.
    """
    key = remote.real(folder)
    if key in _held and _held[key].is_ours():
        yield
        return
    lock = _Lock(remote.path(folder), lost)
    if not lock.take(takeover):
        yield
        return
    _held[key] = lock
    try:
        yield
    finally:
        if lock.is_ours():  # not in a process that was forked from this one
            del _held[key]
            lock.release()


def check(folder: str | os.PathLike) -> None:
    """Raise Lost if another process has taken over a folder that this one holds. Call it before a write."""
    lock = _held.get(remote.real(folder))
    if lock is not None and lock.holder.pid == os.getpid():
        lock.check()


def end_process(error: Lost) -> None:
    """End the process with the error's message, from any thread, as a kill does. For the argument `lost` of `hold`."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(2)


class _Found(NamedTuple):
    holder: Holder | None  # None: it cannot be read
    time: float  # of the last sign of life


class _Lock:
    """A folder's in_use.json, which this process has written or is about to write."""

    def __init__(self, folder: remote.Path, lost: Callable[[Lost], None] | None):
        self.holder = this_process()
        self._folder, self._path = folder, folder / NAME
        self._is_remote = remote.is_remote(folder)
        self._thread = threading.get_ident()
        self._ended, self._lost, self._losing = threading.Event(), lost, threading.Lock()
        self._renewing = threading.Lock()  # held while the file is written, when it cannot be read
        self._made: list[remote.Path] = []  # folders that were not there before, the innermost first
        self._file: io.FileIO | None = None  # open, and locked by the system, until it is released; not in a store

    def is_ours(self) -> bool:
        """Whether this very process and thread has made the lock."""
        return self.holder.pid == os.getpid() and self._thread == threading.get_ident()

    def take(self, takeover: bool) -> bool:
        """Take the folder; return False if it cannot be written. Raises InUse, or UserError for a full disk."""
        if not self._make_folder():
            return False
        with remote.reaching(self._path), _one_at_a_time(self._folder, self._is_remote) as alone:
            attempts = (self._write(takeover) for _ in range(10))
            before = next((found for found in attempts if found is not False), False)
        if before is None:
            return False
        if before is False:
            raise UserError(f"cannot write {self._path}, nor read it: remove it if nothing runs in {self._folder}")
        doubtful = before is not True and (not alone or not self._can_be_seen(before.holder) or takeover)
        if self._is_remote or doubtful:
            time.sleep(SETTLE)
            found = self._read()
            if found is None or found.holder is None or found.holder.token != self.holder.token:
                raise InUse(self._refusal(found or _Found(None, time.time())))
        threading.Thread(target=self._beat, name=f"holds {self._path}", daemon=True).start()
        return True

    def _make_folder(self) -> bool:
        if self._is_remote:
            return True
        try:
            self._made = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return True

    def _write(self, takeover: bool) -> "_Found | bool | None":
        """Write the file; return what was there before, or True where nothing was.

        False: another process began or ended at this moment, so look again. None: the folder cannot be written.
        """
        found = self._read()
        if found is not None:
            if not takeover and not self._is_gone(found):
                raise InUse(self._refusal(found))
            if takeover or not self._can_be_seen(found.holder):
                print(f"Taking over {self._folder} from {found.holder or 'one unknown'}.", file=sys.stderr)
        if self._is_remote:
            self._path.write_bytes(self.holder.write())
            return found or True
        try:
            if found is not None:
                self._path.unlink(missing_ok=True)
            self._file = open(self._path, "xb", buffering=0)
            self.holder = dataclasses.replace(self.holder, locked=_lock_open(self._file.fileno()))
            data = self.holder.write()
            while data:  # on a full disk, the first write writes a part and raises nothing
                data = data[self._file.write(data) :]
        except FileExistsError:
            return False
        except OSError as error:
            if self._file is not None:
                self._file.close()
                self._path.unlink(missing_ok=True)
            elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and not os.access(self._folder, os.W_OK):
                return None
            raise UserError(unwritable(self._folder, error)) from error
        return found or True

    def _read(self) -> _Found | None:
        """The file's holder and its last sign of life; None if there is no file."""
        try:
            data = self._path.read_bytes()
            modified = _modified(self._path)
        except FileNotFoundError:
            return None
        holder = Holder.parse(data)
        return _Found(holder, modified or (holder.heartbeat if holder else 0.0))

    def _can_be_seen(self, holder: Holder | None) -> TypeGuard[Holder]:
        """Whether the holder is on this machine and in this container (if any), so that its pid says which it is."""
        own = self.holder
        return holder is not None and (holder.machine, holder.namespace) == (own.machine, own.namespace)

    def _is_gone(self, found: _Found) -> bool:
        own, holder = self.holder, found.holder
        if self._can_be_seen(holder):
            return not processes.is_alive(holder.pid, holder.started)
        if holder is not None and holder.locked and holder.machine == own.machine:  # in another container
            return _can_lock(self._path)
        if holder is not None and holder.job and holder.job == own.job and holder.restart < own.restart:
            return True
        # From an earlier boot of this machine: a second machine of the same name would have renewed the file since.
        restarted = holder is None or (holder.host == own.host and holder.machine != own.machine)
        if restarted and not self._is_remote and found.time < _booted():
            return True
        return self._age(found) > LIMIT

    def _age(self, found: _Found) -> float:
        """Seconds since the last sign of life, both times by the clock of the disk or store."""
        try:
            if not self._is_remote:
                with tempfile.TemporaryFile(dir=self._folder) as file:
                    return os.fstat(file.fileno()).st_mtime - found.time
            probe = self._folder / f".{NAME}.{self.holder.token}"
            probe.write_bytes(b"now")
            now = _modified(probe)
            probe.unlink()
            return (now or time.time()) - found.time
        except OSError:
            return time.time() - found.time

    def _refusal(self, found: _Found) -> str:
        said = f"{self._folder} is in use by {found.holder or f'one that its {NAME} does not tell yet'}: "
        if self._can_be_seen(found.holder):
            advice = f"wait until it has ended, or end it (kill {found.holder.pid})"
        else:
            age = max(0.0, self._age(found))
            advice = (
                f"its last sign of life is {age:.0f} s old. Wait until it has ended; if it is gone already, the same "
                f"command goes on {LIMIT / 60:.0f} minutes after that sign, or at once with --takeover"
            )
        return f"{said}{advice}. Or name another folder: two would destroy each other's files. Nothing was touched."

    def _beat(self) -> None:
        """Renew the sign of life, until the folder is released or lost."""
        while not self._ended.wait(BEAT):
            with contextlib.suppress(Exception), self._renewing:  # a disk or network may be away for a while
                if self._taken() is not None:
                    break
                self._renew()
        if not self._ended.is_set() and self._lost is not None:
            self.check()

    def _renew(self) -> None:
        if not self._is_remote:
            before = self._path.stat().st_mtime_ns
            os.utime(self._path)
            if self._path.stat().st_mtime_ns != before:
                return  # some network file systems keep the old time: then it is written below
        self._path.write_bytes(dataclasses.replace(self.holder, heartbeat=time.time()).write())

    def _taken(self) -> str | None:
        """Who has taken the folder; None if this process still has it, or if the file cannot be read."""
        try:
            found = self._read()
        except OSError:
            return None
        if found is None:
            return f"one that has ended again, or its {NAME} was removed"
        if found.holder is not None and found.holder.token == self.holder.token:
            return None
        return str(found.holder or "one that cannot be read")

    def check(self) -> None:
        """Raise Lost, after a call of `lost` if given, if another process has the folder."""
        with self._renewing:
            taken = self._taken()
        if taken is None or self._ended.is_set():
            return
        error = Lost(
            f"{self._folder} was taken over from this process by {taken}. Nothing more is written into it; what was "
            "saved before is there, and the same command goes on from it when the other one has ended."
        )
        if self._lost is not None:
            with self._losing:  # so that it is said once
                self._lost(error)
        raise error

    def release(self) -> None:
        """Remove the file, if it is still ours, and the folders that were made, if they are empty."""
        self._ended.set()
        with contextlib.suppress(OSError, UserError), _one_at_a_time(self._folder, self._is_remote):
            if self._taken() is None:
                self._path.unlink()
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()


def _modified(path: remote.Path) -> float | None:
    """When a file was written; None if it is in a store that does not say."""
    status: Any = path.stat()
    return status.mtime if remote.is_remote(path) else status.st_mtime


@contextlib.contextmanager
def _one_at_a_time(folder: remote.Path, is_remote: bool) -> Iterator[bool]:
    """Keep other processes of this machine out meanwhile; yields whether that worked.

    Uses the system's lock of the open folder, which ends with the process, even if it is killed.
    """
    descriptor = None
    try:
        if not is_remote:
            import fcntl  # not on Windows

            descriptor = os.open(folder, os.O_RDONLY)
        alone = descriptor is not None and _lock_soon(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        alone = False
    try:
        yield alone
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock_soon(flock: Callable[[int, int], None], descriptor: int, operation: int) -> bool:
    """Try for five seconds, as others lock it for a moment only; False if it stays locked: one of them is suspended."""
    for _ in range(100):
        try:
            flock(descriptor, operation)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def _lock_open(descriptor: int) -> bool:
    """Let the system lock an open file until this process ends or is killed; return whether that worked."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _can_lock(path: pathlib.Path) -> bool:
    """Whether a file can be locked: no process of this machine has it locked, in any container."""
    try:
        with open(path, "rb") as file:
            return _lock_open(file.fileno())
    except OSError:
        return False


def _booted() -> float:
    """When this machine was started, in seconds since 1970; 0 if the system does not say."""
    try:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):
        return 0.0
