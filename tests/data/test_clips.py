import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_video.data import clips
from jax_video.errors import UserError

sizes = {"frames": st.integers(1, 400), "length": st.integers(1, 64), "stride": st.integers(1, 16)}


def assert_clip(clip, frames, length, stride):
    assert clip.dtype == np.int64
    np.testing.assert_array_equal(clip, (clip[0] + stride * np.arange(length)) % frames)
    if frames < (length - 1) * stride + 1:
        assert clip[0] == 0  # Looped from the start.
    else:
        assert (np.diff(clip) == stride).all()  # Not looped.


@given(**sizes, seed=st.integers(0, 99))
def test_random_clip_keeps_stride_and_stays_inside(frames, length, stride, seed):
    assert_clip(clips.random_clip(frames, length, stride, np.random.default_rng(seed)), frames, length, stride)


def test_random_clip_reaches_every_start_alike():
    rng = np.random.default_rng(0)
    starts = np.bincount([clips.random_clip(20, 8, 2, rng)[0] for _ in range(6000)])
    assert len(starts) == 6  # 20 - (7 * 2 + 1) = 5 is the last.
    assert abs(starts - 1000).max() < 150


@given(**sizes, number=st.integers(1, 7), seed=st.integers(0, 99))
def test_segments_have_a_clip_each(frames, length, stride, number, seed):
    """Starts are those of single clips, divided into parts as equal as they can be."""
    starts = max(0, frames - (length - 1) * stride - 1) + 1
    for rng in (None, np.random.default_rng(seed)):
        result = clips.segment_clips(frames, length, stride, number, rng)
        assert result.shape == (number, length)
        for part, clip in enumerate(result):
            assert_clip(clip, frames, length, stride)
            start = 0 if starts == 1 else clip[0]
            assert part * starts // number <= start <= max(part, (part + 1) * starts // number - 1)


def test_segments_reach_every_start_and_are_tested_in_their_middle():
    rng = np.random.default_rng(0)
    drawn = np.stack([clips.segment_clips(41, 8, 2, 3, rng)[:, 0] for _ in range(2000)])  # the last start is 26
    assert [set(column) for column in drawn.T] == [set(range(9)), set(range(9, 18)), set(range(18, 27))]
    assert clips.segment_clips(41, 8, 2, 3)[:, 0].tolist() == [4, 13, 22]
    with pytest.raises(UserError, match="segments: expected at least 1, got 0"):
        clips.segment_clips(41, 8, 2, 0)


@given(**sizes)
def test_nonoverlapping_clips_tile_the_video_and_drop_a_partial_one(frames, length, stride):
    result = clips.test_clips(frames, length, stride, clips="nonoverlap")
    for i, clip in enumerate(result):
        assert clip[0] == i * length * stride
        assert_clip(clip, frames, length, stride)
    next_end = len(result) * length * stride + (length - 1) * stride
    assert next_end >= frames  # Another one does not fit.


@given(**sizes, number=st.integers(1, 12))
def test_uniform_clips_are_evenly_spread_over_the_whole_video(frames, length, stride, number):
    result = clips.test_clips(frames, length, stride, clips="uniform", number=number)
    assert len(result) == number
    starts = np.array([clip[0] for clip in result])
    last = max(0, frames - (length - 1) * stride - 1)
    if number > 1:
        assert (starts[0], starts[-1]) == (0, last)
        assert np.ptp(np.diff(starts)) <= 1
        assert abs(starts - np.linspace(0, last, number)).max() <= 0.5
    else:
        assert abs(starts[0] - last / 2) <= 0.5
    for clip in result:
        assert_clip(clip, frames, length, stride)


@given(**sizes, number=st.integers(2, 7), seed=st.integers(0, 99))
def test_reflecting_lowers_the_stride_of_short_videos_then_turns_back(frames, length, stride, number, seed):
    fits = (length - 1) * stride < frames
    fitting = max([s for s in range(1, stride + 1) if (length - 1) * s < frames], default=1)
    forth_and_back = [*range(frames), *range(frames)[::-1]] * (length // frames + 1)

    def several(rng, reflect):
        yield clips.random_clip(frames, length, stride, rng, reflect=reflect)
        yield from clips.segment_clips(frames, length, stride, number, rng, reflect=reflect)
        for mode in ("nonoverlap", "uniform"):
            yield from clips.test_clips(frames, length, stride, clips=mode, number=number, reflect=reflect)

    for clip in several(np.random.default_rng(seed), True):
        if length <= frames:
            assert (np.diff(clip) == fitting).all() and 0 <= clip[0] and clip[-1] < frames
        else:
            assert clip.tolist() == forth_and_back[:length]
    if fits:  # a long enough video is seen as without it
        both = [list(map(list, several(np.random.default_rng(seed), reflect))) for reflect in (False, True)]
        assert both[0] == both[1]


def test_worked_examples():
    assert [list(clip) for clip in clips.test_clips(10, 3, 1)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert [list(clip) for clip in clips.test_clips(5, 4, 2)] == [[0, 2, 4, 1]]
    assert [list(clip) for clip in clips.test_clips(1, 3, 2)] == [[0, 0, 0]]
    assert [list(clip) for clip in clips.test_clips(10, 2, 2, clips="uniform", number=3)] == [[0, 2], [4, 6], [7, 9]]


def test_errors_say_what_is_wrong():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="must be at least 1, got 0, 16, 2"):
        clips.random_clip(0, 16, 2, rng)
    with pytest.raises(UserError, match="must be at least 1, got 9, 16, 0"):
        clips.test_clips(9, 16, 0)
    with pytest.raises(UserError, match='unknown test clips \'dense\'; known: "nonoverlap", "uniform"'):
        clips.test_clips(9, 16, 1, clips="dense")
    with pytest.raises(UserError, match="a number of at least 1, got 0"):
        clips.test_clips(9, 16, 1, clips="uniform", number=0)
