"""A video file's packets: where they are, and the frames decoded from them."""

import contextlib
import dataclasses
import errno
import functools
import os
import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Any, BinaryIO

import av
import numpy as np

from jax_video.data.decoding import pictures, regular
from jax_video.data.manifest import FrameIndex
from jax_video.errors import UnavailableError, VideoError, unreadable

MISSING = np.iinfo(np.int64).min  # for a timestamp or position that a packet does not have
# By default a video that has lost more than this part of its frames is not used: a clip of 16 frames may lack one.
MAX_DAMAGE = 0.05
ROW = np.dtype([("time", np.int64), ("place", np.int64, 2), ("keyframe", np.bool_)])


@dataclasses.dataclass(frozen=True)
class Packets:
    """The packets of a video stream in presentation order, one for each frame; without their data."""

    times: np.ndarray  # [P] int64, ascending
    keyframes: np.ndarray  # ascending indices into the P packets
    places: np.ndarray | None = None  # [P, 2] int64: position in the file, size; None: a probe has verified them

    @classmethod
    def sorted(cls, rows: np.ndarray) -> "Packets | None":
        """Sort packets, [P] ROW, by the order in which they are shown; None if timestamps do not tell it."""
        rows = rows[np.argsort(rows["time"])]
        times = rows["time"].copy()  # contiguous in memory, for a fast search
        if not len(times) or times[0] == MISSING or not np.all(np.diff(times)):
            return None
        return cls(times, np.flatnonzero(rows["keyframe"]), rows["place"].copy())

    @classmethod
    def of(cls, index: FrameIndex) -> "Packets":
        """The packets that an index with a `step` describes."""
        return cls(index.start + index.step * np.arange(index.frames), np.array(index.keyframes))

    @functools.cached_property
    def is_whole(self) -> bool:
        """Whether the timestamps have no gap, as a lost frame would leave."""
        steps = np.diff(self.times)
        return not len(steps) or bool(steps.max() < 2 * steps.min())

    def holds(self, packet: av.Packet) -> bool:
        """Whether a packet that was read after a seek is one of these, at the same place in the file."""
        if packet.pts is None or self.places is None:
            return packet.pts is not None
        index = min(int(np.searchsorted(self.times, packet.pts)), len(self.times) - 1)
        return (self.times[index], *self.places[index]) == (packet.pts, *_place(packet))


def is_shown(packet: av.Packet) -> bool:
    """Whether a packet is neither the empty one at the end, which flushes the decoder, nor hidden by an edit list."""
    return packet.size > 0 and not packet.is_discard


def row(packet: av.Packet) -> tuple:
    """A packet's timestamp, place and whether it is a keyframe, as ROW."""
    return MISSING if packet.pts is None else packet.pts, _place(packet), packet.is_keyframe


def _place(packet: av.Packet) -> tuple[int, int]:
    return MISSING if packet.pos is None else packet.pos, packet.size


# Formats of streams without a container. They have no times; FFmpeg gives them those of 25 frames a second.
RAW = ("h264", "hevc", "vvc", "mjpeg", "obu", "m4v", "mpegvideo", "h263", "h261", "cavsvideo")
# Options of decoders, which may find another size than the header's.
LIMITS = {"max_pixels": str(pictures.MOST_PIXELS)}
# Decoders conceal damage with what they decoded before, so differently after a seek; with this, damage is an error.
STRICT = {"err_detect": "explode"}
PYAV = int(av.__version__.partition(".")[0])  # its major version
# The formats that FFmpeg may detect: those that hold their own pictures. A playlist (hls, dash, concat, imf, sdp), a
# pattern of names (image2) or a part of a recording (mlv) would make it open other files, a script (lavfi, avisynth) or
# a device something else, and text (tty, bin, subtitles) is no video. Sound is listed so that it is reported as sound.
FORMATS = ",".join(
    """
    3dostr 4xm apng asf asf_o avi avs bethsoftvid bfi bink bmv c93 cdg cdxl cine dfa dhav dsicin dv dxa ea film_cpk
    filmstrip flic flv frm gdv gif gxf hnm hxvs idcin ifv ipmovie iv8 ivf ivr jv kux live_flv lmlm4 lvf lxf matroska
    mm mods moflex mov mpeg mpegts mpjpeg mtv mv mvi mxf mxg nsv nut nuv obu ogg paf pdv pmp psxstr pva r3d rl2 rm
    roq rpl sdr2 ser sga siff simbiosis_imx smjpeg smk smush swf thp tiertexseq tmv ty usm vividas vivo vmd wc3movie
    wsvqa wtv xmv yop
    apv av1 avs2 avs3 cavsvideo dirac dnxhd evc h261 h263 h264 hevc ingenient ipu m4v mjpeg mjpeg_2000 mpegvideo vc1
    vc1test vvc yuv4mpegpipe
    alias_pix bmp_pipe brender_pix cri_pipe dds_pipe dpx_pipe exr_pipe fits gem_pipe gif_pipe hdr_pipe ico iff
    j2k_pipe jpeg_pipe jpegls_pipe jpegxl_anim jpegxl_pipe jpegxs_pipe msp pam_pipe pbm_pipe pcx_pipe pfm_pipe
    pgm_pipe pgmyuv_pipe pgx_pipe phm_pipe photocd_pipe pictor_pipe png_pipe ppm_pipe psd_pipe qdraw_pipe qoi_pipe
    sgi_pipe sunrast_pipe tiff_pipe txd vbn_pipe webp_pipe xbm_pipe xpm_pipe xwd_pipe
    aac ac3 aiff amr ape au caf dts eac3 flac mp3 truehd tta w64 wav wv
    """.split()
)
# The beginnings of text that names other files: a playlist, a session, a page.
_NAMING = (b"#EXTM3U", b"ffconcat version", b"<?xml", b"<MPD", b"<svg", b"<ASX", b"<asx", b"v=0", b"[playlist]")
# FFmpeg gets the open file without its name, so that the content decides the format; and no other protocol, so that no
# file can make it open another file, or reach into the network.
CONTAINER = {"protocol_whitelist": "fd", "format_whitelist": FORMATS}
OPTIONS: dict[str, Any] = {}
if PYAV < 19:
    OPTIONS["metadata_errors"] = "ignore"  # titles may be in any encoding
if PYAV >= 18:
    OPTIONS["options"] = LIMITS  # earlier versions crash with them if a container finds streams late, as FLV does


@contextlib.contextmanager
def opened(
    path: str | os.PathLike, **decoder_options: str
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file at its best video stream; what goes wrong inside the block becomes a VideoError.

    Raises:
      UnavailableError: the system, and not the file, is at fault.
      VideoError: anything else is wrong.
    """
    try:
        with regular.opened(path) as file, _container(path, file) as container:
            stream: Any = video_stream(path, container)
            if stream.codec_context is None:
                raise VideoError(path, "its video codec is unknown")
            stream.codec_context.thread_count = 1  # parallel over videos: more threads here would fight over cores
            stream.codec_context.options = LIMITS | decoder_options
            yield container, stream
    except av.FFmpegError as error:
        if error.errno in _OF_THE_SYSTEM or (error.errno in _OF_EITHER and not _is_readable(path)):
            raise UnavailableError(path, f"cannot be read ({error.strerror})") from error
        raise VideoError(path, f"not a readable video ({_other_kind(path) or error.strerror})") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VideoError(path, "no such file") from error
    except OSError as error:
        raise unreadable(path, error) from error
    except MemoryError as error:
        raise VideoError(path, f"cannot be read ({error})") from error


_ARCHIVE = "an archive, to be unpacked first"
# The beginnings of files that are often taken for videos.
_OTHER_KINDS = (
    (b"PK\x03\x04", _ARCHIVE),
    (b"Rar!", _ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", _ARCHIVE),
    (b"\x1f\x8b", _ARCHIVE),
    (b"BZh", _ARCHIVE),
    (b"\xfd7zXZ", _ARCHIVE),
    (b"<!doctype html", "a web page, as a failed download leaves"),
    (b"<html", "a web page, as a failed download leaves"),
    (b"%pdf-", "a document"),
    (b"version https://git-lfs", "a pointer of Git LFS: git lfs pull brings the file"),
)


def _other_kind(path: str | os.PathLike) -> str | None:
    """The kind of a file that is no video; None if its beginning does not tell."""
    try:
        with open(path, "rb") as file:
            start = file.read(64).lstrip()
    except OSError:
        return None
    return next((kind for begin, kind in _OTHER_KINDS if start[: len(begin)].lower() == begin.lower()), None)


def _container(path: str | os.PathLike, file: BinaryIO) -> av.container.InputContainer:
    """Open a file with FFmpeg. Raises VideoError, or av.FFmpegError."""
    if os.fstat(file.fileno()).st_size == 0:
        raise VideoError(path, "empty file")
    start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    file.seek(0)
    if start.startswith(_NAMING):
        raise VideoError(path, "not a readable video (text that may name others, as a playlist does: give these)")
    try:
        return av.open("fd:", container_options=CONTAINER | {"fd": str(file.fileno())}, **OPTIONS)
    except av.FFmpegError as error:
        if error.errno != errno.EINVAL:
            raise
        kind = _other_kind(path) or "a format that does not hold its own pictures"
        raise VideoError(path, f"not a readable video ({kind})") from error


# Errors of FFmpeg that are never a file's fault, and errors that a damaged file can cause, too: for a Y4M header with
# an impossible size it says "busy".
_OF_THE_SYSTEM = {errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT}
_OF_EITHER = {errno.EIO, errno.EBUSY}


def video_stream(path: str | os.PathLike, container: av.container.InputContainer) -> av.VideoStream:
    """The best video stream, other than cover pictures of music. Raises VideoError if there is none."""
    best: Any = container.streams.best("video")
    if best is not None and _is_cover(best):
        best = next((stream for stream in container.streams.video if not _is_cover(stream)), None)
    if best is None:
        kinds: set[str] = {"a cover picture" if stream.type == "video" else stream.type for stream in container.streams}
        found = ", ".join(sorted(kinds, reverse=True)) or "none"
        raise VideoError(path, f"no video stream (streams found: {found})")
    return best


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _is_readable(path: str | os.PathLike) -> bool:
    """Whether every byte of a file can be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            while file.read(2**20):
                pass
    except OSError:
        return False
    return True


def demux(container: av.container.InputContainer, *streams: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of some streams, or of all."""
    # If other streams begin in the middle of a file, PyAV may look for one that it does not know, after our last one.
    with contextlib.suppress(IndexError):
        yield from container.demux(*streams)


def decode_all(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    undecodable: int = 0,
    skipped: list[av.FFmpegError] | None = None,
) -> Iterator[av.VideoFrame]:
    """All frames; up to `undecodable` packets that do not decode are skipped, and one more raises av.FFmpegError.

    With a list, any number is skipped, and the errors are added to it.
    """
    for packet in demux(container, stream):
        try:
            decoded = packet.decode()
        except av.FFmpegError as error:
            if not is_damage(error, packet) or (skipped is None and not undecodable):
                raise
            if skipped is not None:
                skipped.append(error)
            undecodable -= 1
            continue
        yield from decoded


def is_damage(error: av.FFmpegError, packet: av.Packet) -> bool:
    """Whether a decoder's error is the packet's fault, and not the system's or the end of the stream.

    Nor that of a decoder that could not be opened: PyAV 19 must not give it another packet.
    """
    decoder: Any = packet.stream.codec_context
    return decoder.is_open and error.errno != errno.ENOMEM and not isinstance(error, av.error.EOFError)


# Decoders of FFmpeg that can skip single packets to which no other frame refers (B-frames, mostly).
_SKIPPING = ("h264", "mpeg4")


def decode_from(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    time: int,
    listed: Packets,
    wanted: Collection[int] | None,
) -> Iterator[av.VideoFrame]:
    """Frames from the keyframe at timestamp `time` on, until the caller has removed all timestamps from `wanted`.

    With `wanted` None, all frames. Ends early if the packets are not at their `listed` places.
    """
    decoder = stream.codec_context
    # Where a frame is lost, the decoder makes it up from any other, so that none may be skipped.
    kept = wanted if decoder.name in _SKIPPING and listed.is_whole else None
    container.seek(time, stream=stream)
    arrived = False
    for packet in demux(container, stream):
        if packet.size > 0:
            if packet.pts is None or not listed.holds(packet) or (not arrived and packet.pts > time):
                return
            arrived = True
            if kept is not None:
                decoder.skip_frame = "DEFAULT" if packet.pts in kept else "NONREF"
        yield from packet.decode()
        if wanted is not None and not wanted:
            return


class KnownPackets:
    """The packets of one file, listed once, with its first clip: a clip of a long video costs only its own frames."""

    def __init__(self):
        self._lock = threading.Lock()  # Grain reads in several threads
        self._known = False
        self._packets = None

    def read(self, packets: Iterable[av.Packet]) -> Packets | None:
        """All packets that are shown; None if timestamps do not tell their order."""
        with self._lock:
            if not self._known:
                rows = (row(packet) for packet in packets if is_shown(packet))
                self._packets = Packets.sorted(np.fromiter(rows, ROW))
                self._known = True
            return self._packets


def known(path: str | os.PathLike) -> KnownPackets:
    """The packets of a file as it is now, kept from clip to clip."""
    status = os.stat(path)
    with _KNOWING:
        return _known(os.path.abspath(path), status.st_size, status.st_mtime_ns)


_KNOWING = threading.Lock()


@functools.lru_cache(maxsize=4)  # the files read last: the packets of two hours of video take 5 MB
def _known(path: str, size: int, modified: int) -> KnownPackets:
    return KnownPackets()
