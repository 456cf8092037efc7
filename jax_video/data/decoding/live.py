"""Live streams in, frames out as they come: cameras, pipes and network addresses, which only this module opens.

A stream that breaks, ends or falls silent is opened again, after growing pauses, for as long as frames are wanted. The
end of a file or a pipe is final. The seconds of the frames ascend, whatever a stream's own timestamps do.
"""

import contextlib
import dataclasses
import errno
import glob
import os
import re
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import av
import numpy as np

from jax_video.data.decoding import packets, pictures, video
from jax_video.errors import UserError, VideoError, unreadable

SCHEMES = ("http", "https", "rtmp", "rtmps", "rtsp", "rtsps", "tcp", "udp")
_KINDS = (
    "a camera (0, /dev/video0), a pipe (- for standard input, or its path), a video file, or an address "
    "(rtsp://, udp://, tcp://, http:// and the like)"
)
_SILENCE = 10.0  # seconds without data after which a connection is taken for dead
_SEGMENT = 30.0  # the same over HTTP, where a stream may come in parts of that many seconds
_PAUSE = 1.0  # seconds before a stream is opened again; each time twice as long
_LONGEST_PAUSE = 30.0
_READABLE = "a video that can be read from its start to its end, as MPEG-TS or Matroska can"
_ENDED = "it has ended"
_LOOK = 0.2  # seconds between two checks whether to stop, while waiting for data
_GAP = 10.0  # seconds: if a timestamp is later than the one before by more, the stream has begun anew
_BACK = 1.0  # the same, if it is earlier
_PACE = 1.01  # speed of playing a source that waits: a little above its own, so that a lag is caught up

_PROTOCOLS = {"protocol_whitelist": ",".join((*SCHEMES, "httpproxy", "tls", "rtp", "crypto"))}  # never files
_OPTIONS = _PROTOCOLS | {
    "format_whitelist": f"{packets.FORMATS},hls,rtsp",
    "rtsp_flags": "prefer_tcp",  # passes routers, and loses nothing
    "overrun_nonfatal": "1",  # UDP packets that come while nobody reads are lost, without an error
}
_DEVICES = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


class Frame(NamedTuple):
    """A frame of a stream."""

    seconds: float  # since the first frame, ascending; after a break, by the clock
    image: np.ndarray  # uint8 [H, W, 3], upright RGB
    arrived: float  # when it came, by time.monotonic()
    follows: bool  # whether it goes on from the frame before it, without a break and at the same size
    rate: float  # frames per second, as the stream says; 0 where it does not


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a stream comes from."""

    kind: str  # "camera", "pipe", "file" or "network"
    place: str  # what is opened: "-", a path, a device's name or an address

    def __str__(self) -> str:
        """The place, without the password that an address may hold."""
        return re.sub("(?<=://)([^/?#@:]*):[^/?#]*@", lambda match: f"{match[1]}:***@", self.place)

    @property
    def ends(self) -> bool:
        """Whether the end of its data is final, and not just that of a connection."""
        return self.kind in ("pipe", "file")

    @property
    def waits(self) -> bool:
        """Whether data that is not yet read waits: it is then played at its own speed, not as fast as it decodes."""
        return self.ends or self.place.startswith(("http", "tcp"))

    @property
    def silence(self) -> float:
        """Seconds without data after which its connection is taken for dead."""
        return _SEGMENT if self.place.startswith("http") else _SILENCE


def find(name: str | os.PathLike | int) -> Source:
    """The source that a name means; nothing is opened.

    Raises:
      UserError: it does not name a source, or there is no such camera, pipe or file.
    """
    if not isinstance(name, str | os.PathLike | int):
        raise UserError(f"got {type(name).__name__}: expected {_KINDS}")
    name = str(name) if isinstance(name, int) else os.fspath(name)
    if "://" in name:
        scheme, _, rest = name.partition("://")
        if scheme.lower() not in SCHEMES or not rest:
            raise UserError(f"{Source('network', name)}: not an address of a stream; expected {_KINDS}")
        return Source("network", f"{scheme.lower()}://{rest}")
    if name == "-":
        if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
            raise UserError("-: nothing is piped into standard input; expected a stream: COMMAND | … --live=-")
        return Source("pipe", name)
    if sys.platform != "linux" and (name.isdigit() or name.startswith("video=")):
        return Source("camera", name)
    place = f"/dev/video{name}" if name.isdigit() else name
    try:
        mode = os.stat(place).st_mode
    except OSError as error:
        if place.startswith("/dev/"):
            here = ", ".join(sorted(glob.glob("/dev/video*"))) or "none"
            raise UserError(f"{place}: no such camera; those here: {here}") from error
        raise UserError(f"{name or '(nothing)'}: {error.strerror}; expected {_KINDS}") from error
    for kind, is_kind in (("camera", stat.S_ISCHR), ("pipe", stat.S_ISFIFO), ("file", stat.S_ISREG)):
        if is_kind(mode):
            return Source(kind, place)
    raise UserError(f"{name}: {'a folder' if stat.S_ISDIR(mode) else 'no stream'}; expected {_KINDS}")


class Stream:
    """A source that one thread reads; other threads say when frames are wanted (`begin`), and when no longer (`stop`).

    Attributes:
      opened: an event that is set once the source is open for the first time, or cannot be opened.
      connected: whether it is open now.
    """

    def __init__(self, source: Source, *, short_side: int | None, fps: float, say: Callable[[str], None]):
        """
        Args:
          short_side: of the frames, in pixels; None leaves them as they are.
          fps: frames per second, in place of the stream's own times; 0: its own times.
          say: called with messages, in plain words, on what becomes of the connection.
        """
        self.source, self.opened, self.connected = source, threading.Event(), False
        self._short_side, self._fps, self._say = short_side, fps, say
        self._wanted, self._stopped = threading.Event(), threading.Event()
        self._times = _Times()
        self._frames = self._connections = 0

    @property
    def reconnections(self) -> int:
        """How often the source was opened again."""
        return max(0, self._connections - 1)

    def begin(self) -> None:
        """Begin to read: frames are wanted from now on."""
        self._wanted.set()

    def stop(self) -> None:
        """Stop reading: no frame is wanted any more."""
        self._stopped.set()
        self._wanted.set()

    def frames(self) -> Generator[Frame, None, None]:
        """All frames, until the source ends or `stop` is called.

        Raises:
          UserError: it cannot be opened the first time, or is not a video stream.
        """
        pause, told = _PAUSE, ""
        while not self._stopped.is_set():
            before, over, reason, silent = self._frames, self.source.ends, _ENDED, False
            try:
                over |= yield from self._connection()
            except VideoError as error:
                reason, silent = error.reason, isinstance(error, _Silent)
                if not (self._connections or silent and self.source.place.startswith("udp")):  # UDP may come later
                    raise
            finally:
                self.connected = False
                self.opened.set()
            if over and not self._frames:
                raise VideoError(str(self.source), f"no frames: expected {_READABLE}")
            if self._frames == 1 and reason == _ENDED:
                raise VideoError(str(self.source), "a single picture: expected a video that goes on")
            if over or self._stopped.is_set():
                if over and reason != _ENDED:
                    self._say(f"{self.source}: {reason}")
                return
            pause = _PAUSE if silent or self._frames > before else pause
            if not silent or reason != told or self._frames > before:  # else a night of silence would fill a log
                self._say(f"{self.source}: {reason}; opened again in {pause:g} s")
            told = reason
            self._stopped.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _connection(self) -> Generator[Frame, None, bool]:
        """The frames until the connection ends; returns whether the source is a recording that is over."""
        image, size, rate, since = video.image_of(self._short_side), None, self._fps, time.monotonic()
        with self._open() as (container, stream, first_byte):
            behind = time.monotonic() - (first_byte() or since)  # seconds in which FFmpeg detected the format
            self._connect()
            rate = rate or float(stream.average_rate or 0)
            self._times.interrupt()
            start = due = 0.0
            for frame in self._decoded(container, stream):
                if self._stopped.is_set():
                    break
                now = time.monotonic()
                shape = frame.width, frame.height
                if shape != size:
                    pictures.check_shape(str(self.source), *shape)
                    self._times.interrupt()
                size = shape
                own = self._frames / self._fps if self._fps else frame.time
                is_timed = self._fps or own is not None and container.format.name not in packets.RAW
                if not (is_timed or self._frames) and self.source.kind == "file":  # they come as fast as they decode
                    raise UserError(f"{self.source}: its frames {video.NO_TIMES}")
                seconds, follows = self._times.ascending(own, now)
                if self.source.waits:
                    if not follows:
                        start, behind = now - behind - seconds / _PACE, 0.0
                    due = start + seconds / _PACE
                    self._stopped.wait(max(0.0, due - now))
                self._frames += 1
                yield Frame(seconds, image(frame), time.monotonic(), follows, rate)
            return self.source.place.startswith("http") and (container.size > 0 or bool(container.duration))

    def _connect(self) -> None:
        if self.opened.is_set():  # it was open before, or an earlier attempt failed
            self._say(f"{self.source}: open {'again' if self._connections else 'now'}")
        self._connections += 1
        self.connected = True
        self.opened.set()
        self._wanted.wait()

    def _decoded(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        """The stream's frames; packets that do not decode, as before the first keyframe after joining, are skipped."""
        for packet in packets.demux(container, stream):
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                if not packets.is_damage(error, packet):
                    raise

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[av.container.InputContainer, Any, Callable[[], float]]]:
        """Open the source: (container, its best video stream, function: when its first byte came; 0: not known)."""
        source, name = self.source, str(self.source)
        if source.kind == "file":
            with packets.opened(source.place) as opened:
                yield *opened, time.monotonic
            return
        try:
            with contextlib.ExitStack() as stack:
                pipe = stack.enter_context(_Pipe(source, self._stopped)) if source.kind == "pipe" else None
                format_ = _DEVICES.get(sys.platform) if source.kind == "camera" else None
                options = {} if format_ else packets.CONTAINER if pipe else _OPTIONS
                timeout = (source.silence, source.silence) if source.kind == "network" else None
                container = stack.enter_context(
                    av.open(
                        pipe or source.place,
                        format=format_,
                        container_options=options,
                        timeout=timeout,
                        **packets.OPTIONS,
                    )
                )
                stream: Any = packets.video_stream(name, container)
                if stream.codec_context is None:
                    raise VideoError(name, "its video codec is unknown")
                stream.codec_context.options = packets.LIMITS
                yield container, stream, lambda: pipe.began if pipe else 0.0
        except av.error.ExitError as error:
            raise _Silent(name, f"nothing has come for {source.silence:g} s") from error
        except av.FFmpegError as error:
            if self.connected and source.kind == "network":
                raise VideoError(name, f"it has broken off ({error.strerror})") from error
            raise VideoError(name, _reason(source, error)) from error
        except OSError as error:
            raise unreadable(name, error) from error


class _Silent(VideoError):
    """No data comes."""


def _reason(source: Source, error: av.FFmpegError) -> str:
    """Why a source cannot be opened, and what to do."""
    if source.kind == "pipe":
        return f"not a readable video ({error.strerror}): expected {_READABLE}"
    if source.kind == "network":
        return f"cannot be opened ({error.strerror}): is a stream sent there, and is the address right?"
    hint = {
        errno.EACCES: "give yourself the right to read it; on Linux the group video has it",
        errno.EPERM: "give yourself the right to read it; on Linux the group video has it",
        errno.EBUSY: "another program uses it: end that",
    }.get(error.errno or 0, "is it a camera?")
    return f"cannot be opened ({error.strerror}): {hint}"


class _Pipe:
    """A pipe as a file for FFmpeg to read; it ends when `stopped` is set."""

    def __init__(self, source: Source, stopped: threading.Event):
        # Without O_NONBLOCK, opening would wait for a writer.
        own = source.place != "-"
        self._descriptor = os.open(source.place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)) if own else 0
        self._own, self._stopped = own, stopped
        self.began = 0.0  # when the first byte came, by time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._own:
            os.close(self._descriptor)

    def read(self, size: int) -> bytes:
        while not self._stopped.is_set():
            if sys.platform == "win32" or select.select([self._descriptor], [], [], _LOOK)[0]:
                data = os.read(self._descriptor, size)
                self.began = self.began or (time.monotonic() if data else 0.0)
                return data
        return b""


class _Times:
    """Ascending seconds since a first frame, from timestamps that may jump, run back or be missing."""

    def __init__(self):
        self.seconds = 0.0  # of the last frame
        self._own: float | None = None  # its timestamp; None after a break
        self._now = self._zero = 0.0  # when it came, and when the first one did
        self._shift = 0.0

    def interrupt(self) -> None:
        """Note a break: the next frame does not follow the last one."""
        self._own = None

    def ascending(self, own: float | None, now: float) -> tuple[float, bool]:
        """(seconds, whether it follows without a break) of a frame with timestamp `own` that comes at time `now`."""
        self._zero = self._zero or now
        if own is None:
            own = 0.0 if self._own is None else self._own + now - self._now
        follows = self._own is not None and -_BACK <= own - self._own <= _GAP
        if not follows:
            self._shift = max(self.seconds, now - self._zero) - own
        self._own, self._now = own, now
        self.seconds = max(self.seconds, own + self._shift)
        return self.seconds, follows
