import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_video.data import transforms
from jax_video.errors import UserError


def numbered(height, width, count=2):
    """uint8 [count, height, width, 3]: every pixel tells its place."""
    t, y, x = np.mgrid[:count, :height, :width]
    return np.stack([t, y, x], axis=-1).astype(np.uint8)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(8, 250), width=st.integers(8, 250), size=st.integers(4, 130))
def test_resize_keeps_the_aspect_ratio(height, width, size):
    resized = transforms.resize_short(np.zeros((2, height, width, 3), np.uint8), size)
    short, long = sorted(resized.shape[1:3])
    assert short == size
    assert abs(long - max(height, width) * size / min(height, width)) <= 0.5
    assert (height <= width) == (resized.shape[1] <= resized.shape[2]) or short == long


def test_resize_leaves_a_fitting_video_alone_and_enlarges_linearly():
    frames = numbered(20, 30)
    assert transforms.resize_short(frames, 20) is frames
    expected = cv2.resize(frames[1], (60, 40), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(transforms.resize_short(frames, 40)[1], expected)


@pytest.mark.parametrize("factor", [1.5, 2, 4.3, 9])
def test_shrinking_averages_instead_of_skipping(factor):
    """A fine checkerboard becomes grey; linear interpolation alone would alias it where it shrinks by more than 2."""
    size = round(24 * factor)
    board = np.indices((size, size)).sum(0) % 2 * 255
    resized = transforms.resize_short(np.repeat(board[None, ..., None], 3, axis=-1).astype(np.uint8), 24)
    assert abs(resized.mean() - 127.5) < 3
    if factor >= 2:
        assert resized.std() < 12


@pytest.mark.parametrize("where", ["center", "corners", "random"])
@given(height=st.integers(5, 20), width=st.integers(5, 20), seed=st.integers(0, 50))
def test_a_crop_is_the_same_window_of_every_frame(where, height, width, seed):
    frames = numbered(height, width, count=3)
    cropped = transforms.crop(frames, 5, where, np.random.default_rng(seed))
    assert cropped.shape == (3, 5, 5, 3)
    top, left = cropped[0, 0, 0, 1:]
    for t in range(3):
        np.testing.assert_array_equal(cropped[t], frames[t, top : top + 5, left : left + 5])


@pytest.mark.parametrize(
    "where, places",
    [
        ("center", {(3, 4)}),
        ("first", {(0, 0)}),
        ("last", {(6, 9)}),
        ("corners", {(0, 0), (0, 9), (6, 0), (6, 9), (3, 4)}),
        ("random", {(y, x) for y in range(7) for x in range(10)}),
    ],
)
def test_crops_reach_all_their_places_alike(where, places):
    rng = np.random.default_rng(0)
    frames = numbered(11, 14)
    corners = [tuple(int(v) for v in transforms.crop(frames, 5, where, rng)[0, 0, 0, 1:]) for _ in range(4000)]
    assert set(corners) == places
    counts = np.array([corners.count(place) for place in places])
    assert abs(counts - 4000 / len(places)).max() < 5 * np.sqrt(4000 / len(places))


def test_crop_errors():
    with pytest.raises(UserError, match="cannot crop 112x112 from frames of 160x90; resize them to larger ones"):
        transforms.crop(np.zeros((1, 90, 160, 3), np.uint8), 112, "center")
    with pytest.raises(UserError, match="unknown crop 'middle'"):
        transforms.crop(numbered(9, 9), 5, "middle")


def test_flip_mirrors_left_and_right_of_every_frame():
    frames = numbered(4, 6)
    flipped = transforms.flip(frames)
    np.testing.assert_array_equal(flipped[..., 2], 5 - frames[..., 2])
    np.testing.assert_array_equal(flipped[..., :2], frames[..., :2])
    np.testing.assert_array_equal(transforms.flip(flipped), frames)
