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


def write(path, pictures: str, sound: str, rate: int = RATE, layout: str = "stereo") -> None:
    with av.open(path, "w") as container:
        video = container.add_stream(pictures, rate=25)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio = container.add_stream(sound, rate=rate)
        audio.layout = layout
        for place, (_, image) in enumerate(FRAMES):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = place
            container.mux(video.encode(frame))
        container.mux(video.encode())
        wave = np.sin(np.arange(round(SECONDS * rate)) / 20)
        samples = np.repeat((9_000 * wave).astype(np.int16), 2)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, fractions.Fraction(1, rate)
        size = audio.codec_context.frame_size or 1024
        resampler = av.AudioResampler(audio.codec_context.format.name, layout, rate, frame_size=size)
        for piece in itertools.chain(resampler.resample(frame), resampler.resample(None)):
            container.mux(audio.encode(piece))
        container.mux(audio.encode())


def sound_of(path) -> tuple[str, float]:
    """(codec, seconds)."""
    with av.open(path) as container:
        stream = container.streams.audio[0]
        return stream.codec_context.name, sum(frame.samples / frame.sample_rate for frame in container.decode(stream))


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


@pytest.mark.parametrize("rate", [192_000, 37_800, 6_000])
def test_sound_at_a_rate_that_aac_lacks(rate, tmp_path):
    write(tmp_path / "a.mkv", "libx264", "pcm_s16le", rate)
    for suffix in encoding.SUFFIXES:
        encoding.write(tmp_path / f"out{suffix}", FRAMES, sound_of=tmp_path / "a.mkv")
        assert sound_of(tmp_path / f"out{suffix}") == ("aac", pytest.approx(SECONDS, abs=0.1))


def test_sound_that_changes_its_form_as_on_air(tmp_path):
    """From stereo to mono and to another rate, in one stream."""
    forms = [(RATE, "stereo"), (RATE, "mono"), (44_100, "mono"), (RATE, "stereo")]
    with av.open(tmp_path / "air.mkv", "w") as container:
        streams = {}
        for number, (rate, layout) in enumerate(forms):
            write(tmp_path / f"{number}.mkv", "libx264", "mp2", rate, layout)
            with av.open(tmp_path / f"{number}.mkv") as part:
                for name in ("video", "audio") if not streams else ():
                    streams[name] = container.add_stream_from_template(part.streams.best(name))
                for packet in part.demux(part.streams.audio[0], *([part.streams.video[0]] if not number else [])):
                    if packet.dts is not None:
                        moved = round(number * SECONDS / packet.time_base)
                        packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                        packet.stream = streams[packet.stream.type]
                        container.mux(packet)
    frames = [(place / 25, np.zeros((32, 32, 3), np.uint8)) for place in range(round(4 * SECONDS * 25))]
    encoding.write(tmp_path / "out.mp4", frames, sound_of=tmp_path / "air.mkv")
    assert sound_of(tmp_path / "out.mp4") == ("aac", pytest.approx(4 * SECONDS, abs=0.3))


def test_damaged_sound_is_left_out(tmp_path):
    write(tmp_path / "a.mkv", "libx264", "flac")
    with av.open(tmp_path / "a.mkv") as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = (tmp_path / "a.mkv").read_bytes()
    middle = packets[len(packets) // 2]
    (tmp_path / "a.mkv").write_bytes(data.replace(middle, middle[:8] + bytes(len(middle) - 8)))
    encoding.write(tmp_path / "out.mp4", FRAMES, sound_of=tmp_path / "a.mkv")
    found, lasts = sound_of(tmp_path / "out.mp4")
    assert found == "aac" and SECONDS - 0.3 < lasts < SECONDS + 0.1


def test_two_that_write_one_name_write_one_of_both(tmp_path):
    def frames(inner):
        for place, frame in enumerate(FRAMES):
            if place == 5 and inner:
                encoding.write(tmp_path / "out.mp4", frames(False))
            yield frame

    encoding.write(tmp_path / "out.mp4", frames(True))
    with av.open(tmp_path / "out.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == len(FRAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
