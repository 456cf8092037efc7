"""Labels with times: windows of a video that is known frame by frame, and what the commands make of them."""

import csv
import io
import json

import av
import cv2
import numpy as np
import pytest
from commands import tiny_run
from ml_collections import ConfigDict

import jax_video
from jax_video import timeline
from jax_video.data import encoding
from jax_video.data.decoding import video
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError


def numbered(count: int, fps: float = 10.0):
    """Frames of one pixel, whose grey level is their number."""
    return [(place / fps, np.full((1, 1, 3), place, np.uint8)) for place in range(count)]


def cut(*arguments) -> list[tuple[float, float, list[int]]]:
    return [
        (round(part.start, 6), round(part.end, 6), [int(image[0, 0, 0]) for image in part.images])
        for part in timeline.windows(*arguments)
    ]


def test_windows_hold_the_frames_of_their_seconds():
    found = cut(numbered(10), 0.4, 0.2)
    assert found == [(start / 10, (start + 4) / 10, [*range(start, start + 4)]) for start in (0, 2, 4, 6)]


def test_the_last_window_ends_with_the_video():
    assert cut(numbered(11), 0.4, 0.3) == [
        (0.0, 0.4, [0, 1, 2, 3]),
        (0.3, 0.7, [3, 4, 5, 6]),
        (0.6, 1.0, [6, 7, 8, 9]),
        (0.7, 1.1, [7, 8, 9, 10]),
    ]
    assert cut(numbered(3), 0.4, 0.3) == [(0.0, 0.3, [0, 1, 2])]
    with pytest.raises(UserError, match="the video has 1 frame: expected at least 2"):
        cut(numbered(1), 0.4, 0.3)


def test_windows_and_hops_are_measured_by_how_far_frames_are_apart():
    for window, hop, said in (
        (0.15, 0.1, "a window of 0.15 s has 1 of the video's frames"),
        (1.0, 1e-9, "a hop of 1e-09 s"),
    ):
        with pytest.raises(UserError, match=said):
            cut(numbered(30), window, hop)


def test_there_is_no_segment_where_there_are_no_frames():
    starts = np.array([0.0, 0.5, 1.0, 60.0, 60.5])
    same = np.tile([0.9, 0.1], (5, 1))
    found = timeline.Timeline(("a", "b"), starts, starts + 1, same).segments
    assert [(part.start, part.end) for part in found] == [(0, 2), (60, 61.5)]
    apart = timeline.Timeline(("a", "b"), starts * 4, starts * 4 + 1, same).segments  # a hop beyond the window
    assert [(part.start, part.end) for part in apart] == [(0, 5), (240, 243)]


@pytest.mark.parametrize("window", [0.6, 0.3])
def test_gaps_are_seen_also_where_most_hops_are_gaps(window):
    """As of a camera that records half a second at a time."""
    times = [burst + place / 10 for burst in (0, 18, 36, 54) for place in range(5)]
    parts = timeline.windows([(time, np.zeros((1, 1, 3), np.uint8)) for time in times], window, 0.6)
    starts, ends = (np.array(each) for each in zip(*((part.start, part.end) for part in parts), strict=True))
    for several in (None, np.array([0.5, 0.5])):
        rows = np.tile([0.9, 0.1], (len(starts), 1))
        found = timeline.Timeline(("a", "b"), starts, ends, rows, thresholds=several, hop=0.6).segments
        assert len(found) == 4 and all(part.end - part.start < 1 for part in found)


def test_a_hop_beyond_the_window_leaves_gaps():
    assert cut(numbered(10), 0.2, 0.5) == [(0.0, 0.2, [0, 1]), (0.5, 0.7, [5, 6]), (0.8, 1.0, [8, 9])]


def test_seconds_and_not_frames_make_a_window():
    """Of a variable frame rate: a gap has no windows, dense parts have many frames."""
    times = [*np.arange(0, 1, 0.1), *np.arange(5, 6, 0.05)]
    found = cut([(time, np.full((1, 1, 3), place, np.uint8)) for place, time in enumerate(times)], 1.0, 1.0)
    assert [(start, end, len(frames)) for start, end, frames in found] == [(0, 1, 10), (5, 6, 20)]


@pytest.mark.parametrize("late", [0.05, 2.0, 2.95, 3.0, 100.0])
def test_the_picture_may_begin_later_than_the_sound(late):
    """Windows before it are left out, and those that it begins in hold what there is of it."""
    frames = [(late + place / 10, np.full((1, 1, 3), place, np.uint8)) for place in range(30)]
    for window, hop in ((2.0, 0.5), (0.2, 0.05), (0.3, 1.0), (8.0, 1.0)):
        found = cut(frames, window, hop)
        assert all(numbers for *_, numbers in found) and found[-1][1] == pytest.approx(late + 3), "all of it is seen"
        for start, end, numbers in found[:-1]:
            assert numbers == [place for place in range(30) if start - 1e-6 <= late + place / 10 < end - 1e-6]
        apart = np.diff([start for start, *_ in found[:-1]])
        np.testing.assert_allclose(apart, hop, err_msg="none is missing in between")
    for window, hop, said in (
        (0.1, 0.1, "0.1 s has 1 of the video's frames, which are 0.1 s"),
        (1.0, 1e-9, "a hop of"),
    ):
        with pytest.raises(UserError, match=said):
            cut(frames, window, hop)
    with pytest.raises(UserError, match="the video has 1 frame: expected at least 2"):
        cut(frames[:1], 2.0, 0.5)


@pytest.mark.parametrize(
    ("window", "hop", "message"),
    [
        (0.1, 0.1, "a window of 0.1 s has 1 of the video's frames, which are 0.1 s apart: expected at least 2"),
        (0, 1, "window is 0: expected seconds, more than 0"),
        (1, float("nan"), "hop is nan: expected seconds"),
        (1, "1", "hop is '1': expected seconds"),
    ],
)
def test_wrong_windows_are_refused(window, hop, message):
    with pytest.raises(UserError, match=message):
        cut(numbered(10), window, hop)


def test_windows_are_bounded(monkeypatch):
    """Neither a window nor what waits for the network grows with the video."""
    monkeypatch.setattr(timeline, "_LARGEST", 30)
    with pytest.raises(UserError, match="the frames of a window of 5 s take more than"):
        cut(numbered(100), 5, 1)
    assert len(cut(numbered(100), 0.5, 0.1)) == 96
    monkeypatch.setattr(timeline, "_GROUP", 40)
    found = [len(group) for group in timeline.groups(timeline.windows(numbered(100), 0.5, 0.1), 10)]
    assert set(found[:-1]) == {2} and sum(found) == 96


def example() -> timeline.Timeline:
    """Windows of 2 s, 1 s apart: two of b, a tie that counts as a, and two of a."""
    rows = np.array([[0.1, 0.9], [0.2, 0.8], [0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])
    return timeline.Timeline(("a", "b, or 'c'\n"), np.arange(5.0), np.arange(5.0) + 2, rows)


def test_neighbours_of_one_class_are_a_segment():
    first, second = example().segments
    assert first == (0.0, 2.5, "b, or 'c'\n", pytest.approx(0.85))
    assert second == (2.5, 6.0, "a", pytest.approx(0.8))


def test_what_it_says_can_be_read_back():
    found = example()
    rows = [*csv.DictReader(io.StringIO(found.csv()))]
    assert [row["best"] for row in rows] == ["b, or 'c'\n"] * 2 + ["a"] * 3
    assert [float(row["a"]) for row in rows] == found.probabilities[:, 0].tolist()
    assert [(float(row["start"]), float(row["end"])) for row in rows] == [(start, start + 2) for start in range(5)]
    assert found.srt() == (
        "1\n00:00:00,000 --> 00:00:02,500\nb, or 'c' (85%)\n\n2\n00:00:02,500 --> 00:00:06,000\na (80%)\n"
    )
    read = json.loads(json.dumps(found.json(), allow_nan=False))
    assert read["segments"][1] == {"start": 2.5, "end": 6.0, "name": "a", "probability": pytest.approx(0.8)}
    assert timeline.clock(3723.9996) == "01:02:04.000"


NAMES = (
    "<b>x",
    r"{\an8}x",
    "{high} jump",
    r"a\Nb",
    "1 < 2",
    "--> 00:01",
    "=1+1",
    "+x",
    "-x",
    "@x",
    "\t=x",
    "a;b",
    'a"b',
)


def test_names_are_no_markup_in_subtitles(tmp_path):
    """FFmpeg, whose players obey <b> and {\\an8}, shows what the file says, to the letter."""
    rows = np.eye(len(NAMES))
    found = timeline.Timeline(NAMES, np.arange(len(NAMES)) * 1.0, np.arange(len(NAMES)) + 1.0, rows)
    (tmp_path / "x.srt").write_text(found.srt(), encoding="utf-8")
    with av.open(tmp_path / "x.srt") as container:
        shown = [each.ass.decode() for packet in container.demux() for each in packet.decode()]
    assert [text.split(",,")[-1] for text in shown[:5]] == [
        "‹b›x (100%)",
        "(/an8)x (100%)",
        "(high) jump (100%)",
        "a/Nb (100%)",
        "1 ‹ 2 (100%)",
    ]
    assert len(shown) == len(NAMES) and not any(set("<>{}\\") & set(text.split(",,")[-1]) for text in shown)


def test_names_are_no_formulas_in_tables_and_can_be_told_apart():
    rows = np.eye(len(NAMES))
    starts = np.arange(len(NAMES)) * 1.0
    for several in (None, np.full(len(NAMES), 0.5), np.full(len(NAMES), -1.0)):
        found = timeline.Timeline(NAMES, starts, starts + 1, rows, thresholds=several)
        header, *table = csv.reader(io.StringIO(found.csv(), newline=""))
        assert not any(name[0] in "=+-@\t" for name in header)
        assert [name.removeprefix("'") for name in header[3:]] == [*NAMES]
        for place, row in enumerate(table):
            labels = [row[2]] if several is None else next(csv.reader([row[2]], delimiter=";"))
            assert labels == (header[3:] if several is not None and several[0] < 0 else [header[3 + place]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def run(trained):
    config = ConfigDict(json.loads((trained.workdir / "config.json").read_text()))
    config.test.update(clips="uniform", number=1)
    return jax_video.load(trained.workdir, config=config)


@pytest.fixture(scope="module")
def frames(trained) -> np.ndarray:
    """Four videos of the test in a row: 32 frames."""
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    paths = [f"{manifest.root}/{entry.path}" for _, entry in manifest.select("test")[:4]]
    return np.concatenate([video.decode(path, range(8)) for path in paths])


def test_a_window_is_classified_as_a_video_of_its_own(run, frames):
    found = run.timeline(frames, window=0.6, hop=0.25, fps=10)
    starts = [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25]  # in frames; every 2.5
    assert [round(10 * start, 6) for start in found.starts[:-1]] == [2.5 * place for place in range(len(starts))]
    assert (found.starts[-1], found.ends[-1]) == pytest.approx((2.6, 3.2)) and found.note == ""
    for row, start in zip(found.probabilities, [*starts, 26], strict=True):
        alone = run.classify(frames[start : start + 6])
        assert [alone[name] for name in run.classes] == pytest.approx(row, abs=1e-6)


def test_a_file_gives_what_its_frames_give_with_its_own_times(run, frames, tmp_path):
    path = tmp_path / "long.mkv"
    encoding.write(path, ((place / 10, image) for place, image in enumerate(frames)))
    decoded = video.decode(path, range(32))
    found, expected = run.timeline(path, window=0.8, hop=0.8), run.timeline(decoded, window=0.8, hop=0.8, fps=10)
    assert found.starts == pytest.approx(expected.starts, abs=2e-3)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    twice = run.timeline(path, window=0.8, hop=0.8, fps=5)  # at half the speed
    assert len(twice.starts) == 8 and twice.note.startswith("clips span") == (run.sampling.frames > 4)


def test_a_windows_own_rate_is_that_of_its_times(run, trained, frames, tmp_path):
    """Of a file of variable rate, whose windows are fast and slow; clips have 5 frames a second."""
    config = run.config.copy_and_resolve_references()
    config.clip.fps = 5.0
    slow = jax_video.load(trained.workdir, config=config)
    path = tmp_path / "uneven.mkv"
    times = np.cumsum([0.0] + [0.1] * 16 + [0.2] * 15)
    encoding.write(path, zip(times, frames, strict=True))
    decoded = video.decode(path, range(32))
    found = slow.timeline(path, window=0.8, hop=0.8)
    assert len(found.starts) == 6 and found.note == ""
    for row, (first, last, rate) in zip(found.probabilities, [(0, 8, 10), (8, 16, 10), (16, 20, 5)], strict=False):
        alone = slow.classify(decoded[first:last], fps=rate)
        assert [alone[name] for name in slow.classes] == pytest.approx(row, abs=1e-6)
    looped = slow.timeline(decoded, window=0.6, hop=0.6, fps=10)
    assert looped.note.startswith("clips span 4 frames at 5 to a second, and 6 of 6 windows have fewer, from 3: they")


def test_clips_longer_than_a_window_are_looped_and_that_is_said(run, frames):
    found = run.timeline(frames, window=0.2, hop=1, fps=10)
    assert found.note == "clips span 4 frames, and 4 of 4 windows have fewer, from 2: they are looped, as in training"


def test_videos_without_times_need_a_rate(run, frames, tmp_path):
    with pytest.raises(UserError, match="frames have no times: say how many there are to a second"):
        run.timeline(frames)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place, image in enumerate(frames):
        cv2.imwrite(str(folder / f"{place:03}.png"), image[..., ::-1])
    with pytest.raises(UserError, match="pictures have no times: say how many there are to a second"):
        run.timeline(folder)
    found = run.timeline(folder, window=0.6, hop=0.25, fps=10)
    expected = run.timeline(frames, window=0.6, hop=0.25, fps=10)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    with pytest.raises(UserError, match="no such file"):
        run.timeline(tmp_path / "none.mp4")


def test_a_clock_that_jumps_by_years_costs_nothing():
    """As of a camera that begins in 1970 and then is told the time."""
    frames = numbered(10) + [(631_152_000 + time, image) for time, image in numbered(10)]
    found = cut(frames, 0.5, 0.1)
    assert [start for start, *_ in found[:6]] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert found[-1][0] > 6e8 and len(found) < 30


def test_the_last_frame_after_a_pause_does_not_last_as_long_as_the_pause():
    frames = [*numbered(20), (62.0, np.zeros((1, 1, 3), np.uint8))]
    assert cut(frames, 1.0, 1.0)[-1] == (61.1, 62.1, [0])
    assert cut([*numbered(2), (100.0, numbered(1)[0][1])], 1.0, 0.5)[-1] == (99.1, 100.1, [0])
    assert cut(numbered(20), 1.0, 1.0)[-1][1] == 2.0


def test_a_file_that_is_cut_has_no_labels_with_times_either(run, frames, tmp_path):
    path = tmp_path / "whole.mkv"
    encoding.write(path, ((place / 10, image) for place, image in enumerate(frames)))
    (tmp_path / "cut.mkv").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="truncated"):
        run.timeline(tmp_path / "cut.mkv", window=0.8)
    assert len(run.timeline(str(path), window=np.float32(0.8), fps=np.int64(10)).starts) == 6, "NumPy's numbers"
    assert run.classify(np.str_(path)) == run.classify(np.array([str(path)]))[0], "and names"
