"""Videos that are written keep the sound of another, whatever its codec and its file."""

import fractions
import itertools

import av
import numpy as np
import pytest

from jax_video.data import encoding
from jax_video.errors import UserError

RATE = 48_000
SECONDS = 1.5
SOURCES = {  # name of a file: encoders of its pictures and of its sound
    "aac.ts": ("libx264", "aac"),
    "ac3.mkv": ("libx264", "ac3"),
    "alac.mov": ("libx264", "alac"),
    "eac3.mp4": ("libx264", "eac3"),
    "flac.mkv": ("libx264", "flac"),
    "mp2.mpg": ("mpeg2video", "mp2"),
    "mp3.avi": ("mpeg4", "libmp3lame"),
    "mp3.mp4": ("libx264", "libmp3lame"),
    "opus.mkv": ("libx264", "libopus"),
    "opus.webm": ("libvpx", "libopus"),
    "pcm.mov": ("libx264", "pcm_s16le"),
}
FRAMES = [(place / 25, np.full((32, 32, 3), place, np.uint8)) for place in range(round(25 * SECONDS))]


def write(path, pictures: str, sound: str) -> None:
    with av.open(path, "w") as container:
        video = container.add_stream(pictures, rate=25)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio = container.add_stream(sound, rate=RATE)
        audio.layout = "stereo"
        for place, (_, image) in enumerate(FRAMES):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = place
            container.mux(video.encode(frame))
        container.mux(video.encode())
        wave = np.sin(np.arange(round(SECONDS * RATE)) / 20)
        samples = np.repeat((9_000 * wave).astype(np.int16), 2)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, fractions.Fraction(1, RATE)
        size = audio.codec_context.frame_size or 1024
        resampler = av.AudioResampler(audio.codec_context.format.name, "stereo", RATE, frame_size=size)
        for piece in itertools.chain(resampler.resample(frame), resampler.resample(None)):
            container.mux(audio.encode(piece))
        container.mux(audio.encode())


def sound_of(path) -> tuple[str, float]:
    """(codec, seconds)."""
    with av.open(path) as container:
        stream = container.streams.audio[0]
        return stream.codec_context.name, sum(frame.samples for frame in container.decode(stream)) / RATE


@pytest.mark.parametrize("source", SOURCES)
def test_sound_is_kept(source, tmp_path):
    write(tmp_path / source, *SOURCES[source])
    codec, seconds = sound_of(tmp_path / source)
    for suffix in encoding.SUFFIXES:
        encoding.write(tmp_path / f"out{suffix}", FRAMES, sound_of=tmp_path / source)
        kept = codec in ("aac", "ac3", "alac", "eac3", "opus") and (codec, suffix) != ("opus", ".mov")
        found, lasts = sound_of(tmp_path / f"out{suffix}")
        assert found == (codec if kept else "aac") and lasts == pytest.approx(seconds, abs=0.1)


def test_frames_that_are_hours_apart_need_a_format_that_holds_them(tmp_path):
    frames = [(seconds, np.zeros((32, 32, 3), np.uint8)) for seconds in (0.0, 1.0, 8 * 3600.0)]
    with pytest.raises(UserError, match="too far apart for this format: name it .mkv"):
        encoding.write(tmp_path / "a.mp4", frames)
    encoding.write(tmp_path / "a.mkv", frames)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_a_file_whose_times_run_back_loses_that_sound(tmp_path):
    """As of two recordings, one behind the other."""
    write(tmp_path / "once.ts", "libx264", "aac")
    (tmp_path / "twice.ts").write_bytes((tmp_path / "once.ts").read_bytes() * 2)
    for suffix in encoding.SUFFIXES:
        encoding.write(tmp_path / f"out{suffix}", FRAMES, sound_of=tmp_path / "twice.ts")
        assert sound_of(tmp_path / f"out{suffix}")[1] == pytest.approx(SECONDS, abs=0.1)
