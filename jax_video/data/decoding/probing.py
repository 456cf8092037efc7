"""What a video file holds: how many frames decode, and from which of them decoding may start.

Headers lie, so the whole file is decoded; its keyframes are tried, since decoding from one need not give the frames
that decoding in order gives.

A file is truncated if its video stream holds fewer pictures than the container promises for that stream, and damaged if
packets do not decode. Pictures that a player does not show do not count as promised: those that an edit list cuts away,
the dropped frames of an AVI file, and those before the first keyframe. Nor does the length of other streams count:
sound may last longer than the pictures.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import av
import numpy as np

from jax_video.data.decoding import packets, pictures, times, video
from jax_video.data.decoding.packets import Packets
from jax_video.data.manifest import FrameIndex
from jax_video.errors import UnavailableError, VideoError

# Headers are trusted to this many frames: HMDB51's AVI files promise one that does not exist (packed B-frames).
_TOLERATED_MISSING_FRAMES = 2
LOSSES = ("damaged: undecodable from", "damaged: only")  # how the reasons of a `Loss` begin
_REORDERED = 16  # frames by which a timestamp may come too early, at most
_NO_FRAME = 8  # bytes, at most, of a packet that only repeats the last frame: DivX packs two frames into the one before
_COMPARED = 4  # frames compared from a keyframe on: those that could still need frames before it
_APART = 8  # frames between keyframes that are tried: trying all would take longer than decoding the file
_ROUNDED = 0.01  # seconds by which headers round the length of a stream
_UNHEADED = ("mpegts", "mpeg")  # formats that do not store their duration: FFmpeg estimates it from timestamps
_CLOCK = 1000.0  # such high rates are the ticks of a clock, as in DV files, if another rate is named as well
_SLACK = 0.5  # seconds before the end of the longest stream at which its last packet may end


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What `probe` finds out about a file, or about the part of it that was asked for."""

    frames: int  # that truly decode, of the part that was asked for
    fps: float  # the header's, unless the frames' times tell another; 0 if unknown
    width: int  # upright, in pixels
    height: int
    first: int = 0  # the frame of the file at which that part starts
    index: FrameIndex | None = None  # None: a frame is found only by decoding all frames before it


class Loss(NamedTuple):
    """Frames of a file that cannot be decoded. The others are numbered as if these did not exist."""

    lost: int
    frames: int  # that there should be
    reason: str

    @property
    def part(self) -> float:
        return self.lost / self.frames


class Examined(NamedTuple):
    """A file that gives at least one frame, and what is wrong with it."""

    info: VideoInfo
    loss: Loss | None = None
    fault: str | None = None  # in which way it is truncated, or why it cannot be read to its end


def probe(
    path: str | os.PathLike,
    *,
    span: tuple[float, float] | None = None,
    full: bool = True,
    seekable: bool = True,
    max_damage: float = packets.MAX_DAMAGE,
    watcher: pictures.Watcher = pictures.Watcher(),  # noqa: B008, without a state
) -> VideoInfo:
    """Count the frames of a file by decoding all of it, since headers lie.

    Args:
      path: a video file, or a folder of picture files (`pictures.py`).
      span: start and end, in seconds, of the part that counts; None: all of it. What comes after it need not decode.
      full: False: decode only the first frame, and count packets. A file whose packets are evidently not one frame each
        is decoded all the same.
      seekable: False: do not try the keyframes, for frames that are only read in order.
      max_damage: the part of the frames that may be lost, from 0 to 1.
      watcher: is shown the frames as they are decoded.

    Raises:
      VideoError: the file is missing, empty, truncated or damaged, has no video stream, or no frame in that part.
    """
    found = examine(path, span=span, full=full, seekable=seekable, watcher=watcher)
    reason = verdict(found.loss, found.fault, max_damage)
    if reason is not None:
        raise VideoError(path, reason)
    return found.info


def verdict(loss: Loss | None, fault: str | None, max_damage: float) -> str | None:
    """Why a file that gives frames is not used; None if it is used."""
    return fault or (loss.reason if loss is not None and loss.part > max_damage else None)


def examine(
    path: str | os.PathLike,
    *,
    span: tuple[float, float] | None = None,
    full: bool = True,
    seekable: bool = True,
    watcher: pictures.Watcher = pictures.Watcher(),  # noqa: B008, without a state
) -> Examined:
    """Find what `probe` finds, in a truncated or damaged file, too. Raises VideoError if there is no frame.

    The watcher is shown the frames as they are decoded.
    """
    if os.path.isdir(path):
        if span:
            reason = f"pictures without times: which of them are from {span[0]:g} to {span[1]:g} s cannot be told"
            raise VideoError(path, f"{reason}; a folder of these alone is called <name>_<start>_<end>")
        return Examined(VideoInfo(*pictures.probe(path, full=full, watcher=watcher)))
    end = span[1] if span else math.inf
    read = _Read(end, full, full and seekable, watcher)
    try:
        with packets.opened(path) as (container, stream):
            promise = _Promise.of(container, stream)
            watcher.at_rate(promise.rate)
            watcher.begin(promise.frames or round(promise.duration * promise.rate))
            read.all(path, container, stream, promise.start)
            packs = stream.codec_context.name == "mpeg4" and read.has_tiny_packets()
            intra_only = stream.codec_context.codec.intra_only
            one_each = stream.codec_context.name == "hevc"  # whose decoder leaves lost frames out
    except UnavailableError:
        raise
    except VideoError as error:
        if not read.times:
            raise
        read.fault = error.reason.replace("not a readable video", f"damaged: unreadable after {len(read.times)} frames")
        packs = intra_only = one_each = False

    table = np.array(read.rows, packets.ROW)
    listed = Packets.sorted(table)
    if not full and read.times:
        # Each packet is one frame, so the timestamps of packets are those of frames.
        back = listed is not None and times.runs_back(table["time"] * promise.tick) is not None  # joined recordings
        if packs or listed is None or back or not table["keyframe"][0] or read.undecodable or read.fault:
            return examine(path, span=span, watcher=watcher)
        read.times = listed.times.tolist()
        read.seconds = (listed.times * promise.tick - promise.start).tolist()
    fault = read.fault or promise.broken(path, read, end)
    if not read.times:
        raise VideoError(path, fault or read.damage or "no frames: the video stream is empty")
    # The frames are in order even if their timestamps are not, as in AVI files with B-frames.
    decoded = len(read.times)
    seconds = np.array(read.seconds)
    first, count = (0, decoded) if span is None else times.part(path, seconds, *span)
    rate = promise.rate
    if not promise.is_raw:
        rate = times.rate(rate, seconds[first : first + count], promise.tick)
    one_each &= full and span is None and not promise.is_raw
    loss = read.loss(promise.frames if full and span is None else 0, each=one_each)
    index: FrameIndex | None = FrameIndex(len(table), size=os.path.getsize(path))
    if read.undecodable or read.fault:
        index = FrameIndex(decoded, size=os.path.getsize(path), verified=True, undecodable=read.undecodable)
    elif full:
        index = None
        if seekable and listed is not None and np.array_equal(listed.times[:decoded], read.times):
            if (span or decoded == len(table)) and not read.corrupt:  # each packet gave one frame
                index = _verified(path, listed, decoded, read.prints, watcher, every=intra_only)
    info = VideoInfo(count, rate, *read.size, first, index)
    return Examined(info, loss, fault)


class _Promise(NamedTuple):
    """What a container says of its video stream."""

    frames: int  # 0 where it does not say
    rate: float  # frames per second; 0 where it does not say
    tick: float  # seconds of a unit of the stream's timestamps
    start: float  # of the container, in seconds
    duration: float  # of the container: that of its longest stream; 0 where it does not say
    own: float  # of the stream, from its first frame on; nan where it does not say
    is_raw: bool  # whether there is no container, so that times and rates are FFmpeg's
    numbers_drops: bool  # whether dropped frames are among `frames`, and timestamps for decoding count them

    @classmethod
    def of(cls, container: av.container.InputContainer, stream: av.VideoStream) -> "_Promise":
        assert stream.time_base is not None  # every stream of a file has one
        tick = float(stream.time_base)
        drops = container.format.name == "avi"
        own = math.nan if stream.duration is None or drops else stream.duration * tick  # of a cut AVI FFmpeg guesses it
        if "matroska" in container.format.name:
            own = _seconds(stream.metadata.get("DURATION", "")) - (stream.start_time or 0) * tick
        is_raw = container.format.name in packets.RAW
        told = [stream.codec_context.framerate] if is_raw else [stream.average_rate, stream.guessed_rate]
        rates = [float(rate) for rate in told if rate] or [0.0]
        frames = stream.frames
        listed = len(stream.index_entries)  # after the edit list
        if "mov" in container.format.name and 0 < listed < frames:
            frames = listed
        return cls(
            frames,
            next(filter(lambda rate: rate < _CLOCK, rates), rates[0]),
            tick,
            (container.start_time or 0) / av.time_base,
            0.0 if container.format.name in _UNHEADED else (container.duration or 0) / av.time_base,
            own,
            is_raw,
            drops,
        )

    def broken(self, path: str | os.PathLike, read: "_Read", end: float) -> str | None:
        """How the file is truncated, in words; None if the pictures are all there, or no more were promised."""
        promised = self.frames - read.hidden
        counted = self.numbers_drops and len(read.rows) <= read.slots <= promised + _TOLERATED_MISSING_FRAMES
        held = read.slots if counted else len(read.rows)
        if promised - held > _TOLERATED_MISSING_FRAMES and not self._is_kept(read):
            return f"truncated: the header promises {promised} frames, the file holds {len(read.rows)}"
        if read.is_cut_off and abs(promised - len(read.rows)) > _TOLERATED_MISSING_FRAMES and read.times:
            return f"truncated: the file ends within a frame, the last of {len(read.rows)}"
        latest = max(read.seconds, default=0.0)
        # If only the container has a duration, it may be that of sound, which may last a little longer than pictures.
        if self.frames <= 0 and read.times and latest < min(end, 0.9 * self.duration - 1):
            if not self._is_kept(read) and not _reaches(path, self.start + self.duration):
                return f"truncated: the header promises {self.duration:.1f} s, the frames end at {latest:.1f} s"
        return None

    def _is_kept(self, read: "_Read") -> bool:
        """Whether the pictures last as long as the container says of their own stream."""
        frame = 1 / self.rate if self.rate else 0.0
        return read.lasting(self.tick, frame) > self.own - 0.6 * frame - _ROUNDED


def _seconds(text: str) -> float:
    """The seconds of a tag such as 00:01:02.500000000; nan if it is not a time."""
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        return math.nan
    return 3600 * hours + 60 * minutes + seconds


def _reaches(path: str | os.PathLike, end: float) -> bool:
    """Whether any stream of a file, such as its sound, comes to the end that the container promises, in seconds."""
    with contextlib.suppress(VideoError), packets.opened(path) as (container, _):
        for packet in packets.demux(container):
            if packet.size > 0 and packet.pts is not None:
                if float((packet.pts + (packet.duration or 0)) * packet.time_base) > end - _SLACK:
                    return True
    return False


class _Read:
    """One pass through a file, and what it has found so far."""

    def __init__(self, end: float, full: bool, tried: bool, watcher: pictures.Watcher):
        self._watcher = watcher
        self._end, self._full = end, full  # of the part that counts, in seconds; whether all is to be decoded
        self._tried = tried  # whether keyframes will be tried
        self.rows: list[tuple] = []  # of the packets that are shown
        self.hidden = 0  # packets that an edit list cuts away, and which only help to decode what comes after them
        self.slots = 0  # the largest timestamp for decoding, plus 1
        self.times: list[int] = []  # timestamps of the frames that were decoded
        self.seconds: list[float] = []  # of each of these frames, from the file's start
        self.size = (0, 0)  # width and height of the frames, upright
        self.corrupt = False  # whether the decoder made up a part of a frame, which it would do otherwise after a seek
        self.undecodable = 0  # packets that do not decode
        self.damage: str | None = None  # what is wrong with the first of these that is shown
        self.fault: str | None = None  # why the file cannot be read to its end
        self.is_cut_off = False  # whether the last packet does not decode, as when the file ends within it
        self.prints = _Prints()
        self._lost = 0  # undecodable packets that are shown, from the first keyframe on
        self._has_keyframe = False
        self._span = (0, 0, 0)  # timestamps of the first and the last packet that is shown, and how long the last is

    def all(
        self, path: str | os.PathLike, container: av.container.InputContainer, stream: av.VideoStream, start: float
    ) -> None:
        """Read all packets, and decode those of the part that counts."""
        past: float = 0  # frames since the first one after the part; infinite once one of these does not decode
        one = None
        for packet in packets.demux(container, stream):
            self._watcher.go_on()
            self._note(packet)
            if (self.times and not self._full) or past > _REORDERED:
                continue
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                if past:
                    past = math.inf
                    continue
                if not packets.is_damage(error, packet):
                    raise
                self.undecodable += 1
                if not self._lost:
                    self.damage = f"damaged: undecodable from frame {len(self.times)} ({error.strerror})"
                if packets.is_shown(packet):
                    self._lost += self._has_keyframe or bool(self.times)
                    self.is_cut_off = True
                continue
            self.is_cut_off &= not packets.is_shown(packet)
            for frame in decoded:
                one = one or frame
                video.check_size(path, frame, one, len(self.times))
                if not self.times:
                    height, width, _ = video.rgb(frame, av.video.reformatter.VideoReformatter()).shape
                    self.size = width, height
                self.times.append(packets.MISSING if frame.pts is None else frame.pts)
                self.seconds.append(math.nan if frame.time is None else frame.time - start)
                past += past > 0 or self.seconds[-1] >= self._end
                self.corrupt |= frame.is_corrupt
                self.prints.take(frame)
                self._watcher.see(frame)

    def _note(self, packet: av.Packet) -> None:
        self._has_keyframe |= packet.is_keyframe
        if packet.dts is not None:
            self.slots = max(self.slots, packet.dts + 1)
        if not packets.is_shown(packet):
            self.hidden += packet.is_discard
            return
        self.rows.append(packets.row(packet))
        if self._tried and packet.is_keyframe:
            self.prints.expect(packet)
        if packet.pts is not None:
            first, last, duration = self._span if len(self.rows) > 1 else (packet.pts, packet.pts, 0)
            if packet.pts >= last:
                last, duration = packet.pts, packet.duration or 0
            self._span = min(first, packet.pts), last, duration

    def lasting(self, tick: float, frame: float) -> float:
        """Seconds from the first picture to the end of the last one, if a frame of unknown duration lasts `frame`."""
        first, last, duration = self._span
        return (last - first) * tick + (duration * tick or frame)

    def loss(self, promised: int, *, each: bool) -> Loss | None:
        """What cannot be decoded; None if nothing is lost.

        Args:
          promised: frames that the container promises; 0: it does not say.
          each: whether each packet is a frame, where the container does not say how many there are.
        """
        decoded = len(self.times)
        held = len(self.rows)
        expected = (min(promised - self.hidden, held) if promised > 0 else held) - self._leading()
        short = expected - decoded if promised > 0 or each else 0
        if not self._lost and short <= _TOLERATED_MISSING_FRAMES:
            return None
        lost = max(self._lost, short)
        if self._lost:
            reason = f"{self.damage}; {lost} of {decoded + lost} frames lost"
        else:
            promise = "that the header promises" if promised > 0 else "in as many packets"
            reason = f"damaged: only {decoded} frames decode of {expected} {promise}"
        return Loss(lost, decoded + lost, reason)

    def _leading(self) -> int:
        """How many packets are stored or shown before the first keyframe: they need frames that are not there.

        0 if there are hidden packets, which hold what these need.
        """
        table = np.array(self.rows, packets.ROW)
        if self.hidden or not table["keyframe"].any():
            return 0
        start = int(table["keyframe"].argmax())
        return start + int((table["time"][start:] < table["time"][start]).sum())

    def has_tiny_packets(self) -> bool:
        return bool(self.rows) and min(size for _, (_, size), _ in self.rows) <= _NO_FRAME


class _Prints:
    """Checksums of the images at keyframes, as decoding in order gives them, and of a few images after each."""

    def __init__(self):
        self._keyframes = set()
        self._left = 0  # images to take before the next keyframe
        self._image = video.image_of(None)
        self._sums = {}  # timestamp -> checksum

    def expect(self, keyframe: av.Packet) -> None:
        """Note a keyframe whose packet was read; its image is among those that follow."""
        self._keyframes.add(keyframe.pts)

    def take(self, frame: av.VideoFrame) -> None:
        """Take the checksum of the file's next frame, if it is at a keyframe or soon after one."""
        if frame.pts in self._keyframes:
            self._keyframes.remove(frame.pts)
            self._left = _COMPARED
        if self._left and frame.pts is not None:
            self._left -= 1
            self._sums[frame.pts] = self._sum(frame)

    def are_of(self, decoded: Sequence[av.VideoFrame]) -> bool:
        """Whether the frames have the checksums that were taken."""
        return all(self._sums.get(frame.pts) == self._sum(frame) for frame in decoded)

    def _sum(self, frame: av.VideoFrame) -> int:
        if not frame.format.is_planar or frame.format.is_rgb:
            return zlib.crc32(np.ascontiguousarray(self._image(frame)).data)
        total = 0
        for plane in frame.planes:  # of YCbCr, since a conversion would take longer than all else here
            lines = video.lines_of(plane)[:, : plane.width]
            total = zlib.crc32(np.ascontiguousarray(lines).data, total)
        return total


def _verified(
    path: str | os.PathLike,
    listed: Packets,
    decoded: int,
    prints: _Prints,
    watcher: pictures.Watcher,
    *,
    every: bool,
) -> FrameIndex:
    """The index of a file whose packets give one frame each, with the keyframes from which decoding gives the same.

    Not all keyframes do: with intra-refresh the picture is complete only some frames later, some containers mark every
    frame as a keyframe, and after a seek an AVI file's timestamps come from another part of the file than in order.

    Args:
      decoded: how many of the frames were decoded.
      every: whether each frame is coded by itself, so that it is enough to find it.
    """
    tried: list[int] = []
    reached = []
    for place in listed.keyframes[listed.keyframes < decoded].tolist():
        if every or not tried or place >= tried[-1] + _APART:
            tried.append(place)
    with packets.opened(path, **packets.STRICT) as (container, stream):
        for place, following in itertools.pairwise([*tried, len(listed.times)]):
            watcher.go_on()
            with contextlib.suppress(av.FFmpegError):  # some files do not support seeking at all
                is_there = _is_reached(container, stream, listed, place, following)
                if is_there and (every or _is_keyframe(container, stream, listed, place, decoded, prints)):
                    reached.append(place)
    steps = np.diff(listed.times)
    even = len(steps) > 0 and np.all(steps == steps[0]) and reached == tried
    start, step = (int(listed.times[0]), int(steps[0])) if even else (0, 0)
    return FrameIndex(len(listed.times), start, step, tuple(reached), os.path.getsize(path), verified=True)


def _is_reached(
    container: av.container.InputContainer, stream: av.VideoStream, listed: Packets, place: int, following: int
) -> bool:
    """Whether a seek reaches a keyframe, and then the packets up to the `following` one, as they are `listed`."""
    missing = set(listed.times[place:following].tolist())
    container.seek(int(listed.times[place]), stream=stream)
    for packet in packets.demux(container, stream):
        if packet.size > 0:
            if not listed.holds(packet) or (packet.pts > listed.times[place] and listed.times[place] in missing):
                return False
            missing.discard(packet.pts)
        if not missing:
            return True
    return False


def _is_keyframe(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    listed: Packets,
    place: int,
    decoded: int,
    prints: _Prints,
) -> bool:
    """Whether decoding from a keyframe gives the same image, and the same few after it, as decoding in order."""
    time = int(listed.times[place])
    expected = listed.times[place : min(place + _COMPARED, decoded)].tolist()
    found = []
    for frame in packets.decode_from(container, stream, time, listed, None):
        if frame.pts is None or frame.is_corrupt:
            return False
        if frame.pts >= time:
            found.append(frame)
        if len(found) == len(expected):
            break
    return [frame.pts for frame in found] == expected and prints.are_of(found)
