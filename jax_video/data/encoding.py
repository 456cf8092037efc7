"""Frames in, video files out."""

import contextlib
import fractions
import os
import pathlib
import uuid
from collections.abc import Generator, Iterable
from typing import Any

import av
import numpy as np

from jax_video.data import remote
from jax_video.data.decoding import packets
from jax_video.errors import UserError, VideoError

SUFFIXES = (".mkv", ".mov", ".mp4")
_TICK = fractions.Fraction(1, 90_000)  # seconds, of timestamps: fine enough for every frame rate in use
_COPIED = ("aac", "ac3", "alac", "eac3", "opus")  # decoders of sound that SUFFIXES allow; other sound becomes AAC


def check_name(out: str | os.PathLike) -> None:
    """Raise UserError if a file's name does not end in one of SUFFIXES, or it has no folder on a local disk."""
    remote.check_local(out)
    if pathlib.Path(out).suffix.lower() not in SUFFIXES:
        raise UserError(f"{os.fspath(out)}: expected the name of a video, which ends in {' or '.join(SUFFIXES)}")
    if not pathlib.Path(out).parent.is_dir():
        raise UserError(f"{os.fspath(out)}: there is no folder {pathlib.Path(out).parent}; make it, or name another")


def write(
    out: str | os.PathLike,
    frames: Iterable[tuple[float, np.ndarray]],
    *,
    sound_of: str | os.PathLike | None = None,
) -> None:
    """Encode frames as H.264; the file appears only when it is complete.

    Args:
      out: the file to write; its name ends in one of SUFFIXES.
      frames: (seconds, uint8 [H, W, 3]) of each, ascending. Odd sides lose a row or a column: H.264 needs even sides.
      sound_of: a video whose sound is added; None: no sound.

    Raises:
      UserError: as `check_name`, or there is no frame.
      VideoError: the sound cannot be read.
      OSError: the file cannot be written.
    """
    check_name(out)
    name = pathlib.Path(out)
    part = name.with_name(f".{name.name}.{uuid.uuid4().hex[:8]}.part{name.suffix}")  # another process may write it, too
    try:
        with av.open(f"file:{part}", "w") as container, contextlib.closing(_sound(container, sound_of)) as sound:
            stream: Any = container.add_stream("libx264", options={"crf": "20", "preset": "veryfast"})
            next(sound)
            last = -1
            for seconds, image in frames:
                high, wide = (side // 2 * 2 for side in image.shape[:2])
                if last < 0:
                    stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
                    stream.codec_context.time_base = _TICK
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:high, :wide]), format="rgb24")
                frame.pts = last = max(round(seconds / _TICK), last + 1)
                frame.time_base = _TICK
                container.mux(stream.encode(frame))
                for packet in sound:
                    container.mux(packet)
                    if packet.pts * packet.time_base >= seconds:
                        break
            if last < 0:
                raise UserError(f"{os.fspath(out)}: there is no frame to write")
            container.mux(stream.encode())
            for packet in sound:
                container.mux(packet)
        remote.put_in_place(part, out)
    except av.error.PatchWelcomeError as error:
        raise UserError(f"{os.fspath(out)}: its frames are too far apart for this format: name it .mkv") from error
    finally:
        part.unlink(missing_ok=True)


def _sound(container: av.container.OutputContainer, path: str | os.PathLike | None) -> Generator[Any, None, None]:
    """Add a stream for the sound of a video and yield None; then yield the packets of that stream, ascending."""
    last = None
    with contextlib.closing(_packets(container, path)) as found:
        yield next(found)
        for packet in found:
            if last is None or packet.dts > last:  # a file whose times run back loses that part
                last = packet.dts
                yield packet


def _packets(container: av.container.OutputContainer, path: str | os.PathLike | None) -> Generator[Any, None, None]:
    if path is None or os.path.isdir(path):
        yield None
        return
    with packets.opened(path) as (source, _):
        given: Any = source.streams.best("audio")
        if given is None or given.codec_context is None:
            yield None
            return
        start = fractions.Fraction(source.start_time or 0, av.time_base)
        # A .mov of FFmpeg cannot hold Opus.
        if (codec := given.codec_context.name) in _COPIED and (codec, container.format.name) != ("opus", "mov"):
            kept = container.add_stream_from_template(given)
            yield None
            for packet in source.demux(given):
                if packet.pts is not None and packet.dts is not None:
                    shift = round(start / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, kept
                    yield packet
            return
        rate = given.codec_context.sample_rate or 48_000
        rates = av.Codec("aac", "w").audio_rates or [rate]
        made: Any = container.add_stream("aac", rate=min(rates, key=lambda known: abs(known - rate)))
        made.layout = "stereo"
        yield None
        resampler: Any = None
        form = None
        for frame in _decoded(source, given):
            before, form = form, (frame.sample_rate, frame.layout.name, frame.format.name)
            if form != before:  # as from mono to stereo, on air
                resampler = av.AudioResampler("fltp", "stereo", made.rate, frame_size=1024)
            if frame.pts is not None:
                # In samples: the units of some files (AVI) are longer than a frame of AAC.
                frame.pts = round((frame.pts * frame.time_base - start) * frame.sample_rate)
                frame.time_base = fractions.Fraction(1, frame.sample_rate)
            try:
                pieces = resampler.resample(frame)
            except av.error.FFmpegError as error:
                sound = f"{frame.layout.nb_channels} channels at {frame.sample_rate:,} Hz"
                raise VideoError(path, f"its sound, {sound}, cannot be made stereo: take a copy without it") from error
            for piece in pieces:
                yield from made.encode(piece)
        for piece in resampler.resample(None) if resampler else ():
            yield from made.encode(piece)
        yield from made.encode()


def _decoded(source: Any, stream: Any) -> Generator[Any, None, None]:
    """The frames of a sound, without those that are damaged."""
    for packet in source.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        yield from frames
