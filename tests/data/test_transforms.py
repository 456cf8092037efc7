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


@settings(max_examples=50)
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
    box = transforms.draw_box(height, width, 5, where, np.random.default_rng(seed))
    cropped = transforms.crop(frames, box)
    assert cropped.shape == (3, 5, 5, 3)
    for t in range(3):
        np.testing.assert_array_equal(cropped[t], frames[t, box.top : box.top + 5, box.left : box.left + 5])


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
    corners = [transforms.draw_box(11, 14, 5, where, rng)[:2] for _ in range(4000)]
    assert set(corners) == places
    counts = np.array([corners.count(place) for place in places])
    assert abs(counts - 4000 / len(places)).max() < 5 * np.sqrt(4000 / len(places))


@pytest.mark.parametrize("where", ["scales", "sizes"])
@given(short=st.integers(8, 300), longer=st.integers(0, 200), part=st.floats(0.1, 1), seed=st.integers(0, 1000))
def test_crops_of_other_sizes_lie_inside_the_frame(where, short, longer, part, seed):
    size = max(4, int(part * short))
    box = transforms.draw_box(short, short + longer, size, where, np.random.default_rng(seed))
    frame = (short, short + longer)
    for start, side, whole in zip(box[:2], box[2:], frame, strict=True):
        assert 0 <= start <= start + side <= whole
        assert min(whole, 0.74 * size - 1) <= side <= 1.26 * size + 1
        slack = whole - side
        if where == "scales":
            assert start in (0, slack // 2, slack)
        else:
            assert start <= slack / 4 or slack - start <= slack / 4
    resized = transforms.resize(transforms.crop(np.zeros((2, *frame, 2), np.uint8), box), (size, size))
    assert resized.shape == (2, size, size, 2)


def test_the_sides_of_scaled_crops_are_four_and_the_places_five():
    """ST-ResNet's motion stream: 224 of a short side of 256."""
    rng = np.random.default_rng(0)
    boxes = [transforms.draw_box(256, 340, 224, "scales", rng) for _ in range(2000)]
    assert {box.height for box in boxes} == {box.width for box in boxes} == {256, 224, 192, 168}
    assert {(box.height, box.width) for box in boxes} >= {(168, 256), (256, 168)}
    places = {(box.top, box.left) for box in boxes if (box.height, box.width) == (168, 192)}
    assert places == {(0, 0), (0, 148), (88, 0), (88, 148), (44, 74)}


def test_the_sides_of_jittered_crops_differ_by_a_quarter_and_lie_near_borders():
    """ST-ResNet's appearance stream; 280 is more than the height, and is cut to it."""
    rng = np.random.default_rng(0)
    boxes = [transforms.draw_box(256, 340, 224, "sizes", rng) for _ in range(4000)]
    heights, widths = np.array([box.height for box in boxes]), np.array([box.width for box in boxes])
    assert (heights.min(), heights.max(), widths.min(), widths.max()) == (168, 256, 168, 280)
    assert abs(np.mean(heights == 256) - (280 - 256) / 112) < 0.03
    assert abs(widths.mean() - 224) < 2 and abs(np.corrcoef(heights, widths)[0, 1]) < 0.05
    left = np.array([box.left / (340 - box.width) for box in boxes])
    assert abs(np.mean(left <= 0.25) - 0.5) < 0.04 and not np.any((left > 0.25) & (left < 0.75))


def test_resizing_maps_pixels_linearly_whatever_the_channels():
    fields = np.repeat(numbered(8, 12)[..., :1], 20, axis=-1) + np.arange(20, dtype=np.uint8)
    resized = transforms.resize(fields, (6, 6))
    np.testing.assert_array_equal(resized[:, 0, 0], [range(20), range(1, 21)])
    assert transforms.resize(fields, (8, 12)) is fields


def test_crop_errors():
    with pytest.raises(UserError, match="cannot crop 112x112 from frames of 160x90; resize them to larger ones"):
        transforms.draw_box(90, 160, 112, "center")
    with pytest.raises(UserError, match="unknown crop 'middle'"):
        transforms.draw_box(9, 9, 5, "middle")


def test_flip_mirrors_left_and_right_of_every_frame():
    frames = numbered(4, 6)
    flipped = transforms.flip(frames)
    np.testing.assert_array_equal(flipped[..., 2], 5 - frames[..., 2])
    np.testing.assert_array_equal(flipped[..., :2], frames[..., :2])
    np.testing.assert_array_equal(transforms.flip(flipped), frames)
