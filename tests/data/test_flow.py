"""Optical flow: what it measures, what is kept of it, and that a batch's two streams are of one place and one time."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import re
import shutil
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_video.data import pipeline, reader
from jax_video.data.decoding import flow, video
from jax_video.data.manifest import Manifest, Video
from jax_video.data.preparing import contents, storing
from jax_video.data.preparing.machines import Machines
from jax_video.data.preparing.preparation import Preparation, prepare
from jax_video.data.sources import motions
from jax_video.errors import UserError, VideoError

HEIGHT, WIDTH = 48, 64
SETTINGS = flow.Settings("dis", HEIGHT)


def moving(frames: int, seed: int = 0) -> np.ndarray:
    """A texture that moves 3 pixels to the right and 2 up per frame: uint8 [frames, HEIGHT, WIDTH, 3]."""
    noise = np.random.default_rng(seed).standard_normal((HEIGHT + 2 * frames, WIDTH + 3 * frames, 3))
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = np.clip(128 + 40 * texture / texture.std(), 0, 255).astype(np.uint8)
    lefts = 3 * np.arange(frames)[::-1]
    return np.stack([texture[2 * t : 2 * t + HEIGHT, left : left + WIDTH] for t, left in enumerate(lefts)])


def listed(path: str, frames: int, split: str = "train") -> Video:
    return Video(path, 0, split, frames, 25.0, WIDTH, HEIGHT, None, path)


def manifest_of(root: pathlib.Path, *videos: Video, flow_folder: str | None = None) -> Manifest:
    return Manifest("moving", ("up",), str(root), videos, flow_folder)


@pytest.fixture(scope="module")
def moved(tmp_path_factory) -> Manifest:
    """A video of 14 frames, for training and for test."""
    root = tmp_path_factory.mktemp("moved")
    for name in ("a.mp4", "b.mp4"):
        motions.encode(root / name, moving(14))
    return manifest_of(root, listed("a.mp4", 14), listed("b.mp4", 14, "test"))


def stored(manifest: Manifest, folder: pathlib.Path, settings: flow.Settings = SETTINGS) -> Manifest:
    """The same with the flow of its videos in a folder."""
    storing.open_folder(folder, settings)
    for entry in manifest.videos:
        storing.store(pathlib.Path(manifest.root, entry.path), flow.stored_path(folder, entry), entry, settings)
    return dataclasses.replace(manifest, flow=str(folder))


def median(fields: np.ndarray) -> np.ndarray:
    """Median x and y in pixels of uint8 [..., H, W, 20 or 2]."""
    return np.median(flow.decode_values(fields).reshape(-1, 2), axis=0)


@pytest.mark.parametrize("method", flow.METHODS)
def test_the_flow_of_a_moved_pattern_is_its_motion(method, moved, tmp_path):
    """Through the video's encoder, the flow, its JPEG, and back."""
    manifest = stored(moved, tmp_path / "flow", SETTINGS._replace(method=method))
    fields = reader.flow_stacks(manifest, manifest.videos[0], np.arange(5, 9), short_side=HEIGHT)
    assert fields.shape == (4, HEIGHT, WIDTH, 20) and fields.dtype == np.uint8
    np.testing.assert_allclose(median(fields), [3, -2], atol=0.2)
    np.testing.assert_allclose(median(flow.flip(fields)), [-3, -2], atol=0.2)
    computed = reader.flow_stacks(moved, moved.videos[0], np.arange(5, 9), short_side=HEIGHT, method=method)
    np.testing.assert_allclose(median(computed), [3, -2], atol=0.2)
    assert abs(computed.astype(int) - fields).mean() < 0.2  # by JPEG; in steps of .16 px


def test_tvl1_follows_fast_motions():
    """With pyramid steps of 1.25, which OpenCV has by default, it finds less than 6 of the 15 pixels."""
    noise = np.random.default_rng(0).standard_normal((128, 175, 3))
    texture = cv2.GaussianBlur(noise, (0, 0), 4)
    texture = np.clip(128 + 40 * texture / texture.std(), 0, 255).astype(np.uint8)
    (field,) = flow.compute([texture[:, 15:], texture[:, :160]], "tvl1")
    np.testing.assert_allclose(median(field), [15, 0], atol=0.2)


def test_encoding_rounds_to_a_step_and_clips():
    pixels = np.array([-50, -20, -1, -0.08, 0, 0.08, 1, 20, 50], np.float32)
    assert flow.encode(pixels).tolist() == [1, 1, 122, 127, 128, 129, 134, 255, 255]
    inside = np.linspace(-20, 20, 999)
    assert abs(flow.decode_values(flow.encode(inside)) - inside).max() <= 0.5 * 20 / 127 + 1e-5


def test_a_flip_mirrors_the_image_and_the_sign_of_x():
    fields = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 20), np.uint8)
    flipped = flow.flip(fields).astype(int)
    np.testing.assert_array_equal(flipped[..., 1::2], fields[:, :, ::-1, 1::2])
    np.testing.assert_array_equal(flipped[..., ::2], np.minimum(256 - fields[:, :, ::-1, ::2].astype(int), 255))
    still = np.full((1, 2, 2, 2), 128, np.uint8)
    np.testing.assert_array_equal(flow.flip(still), still)


@pytest.fixture
def numbered_fields(monkeypatch):
    """Field i has x = 3 i and y = 3 i + 100, whatever the video."""

    def compute(images, method):
        for index, (image, _) in enumerate(itertools.pairwise(images)):
            yield np.full((*image.shape[:2], 2), (3 * index, 3 * index + 100), np.uint8)

    monkeypatch.setattr(flow, "compute", compute)


@pytest.mark.parametrize(
    ("frames", "frame", "expected"),
    [
        (14, 5, range(10)),
        (14, 8, range(3, 13)),
        (8, 0, [0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
        (8, 7, [2, 3, 4, 5, 6, 6, 6, 6, 6, 6]),
        (2, 1, [0] * 10),
    ],
)
def test_the_fields_of_a_frame_are_the_ten_about_it(frames, frame, expected, numbered_fields, tmp_path):
    motions.encode(tmp_path / "a.mp4", moving(frames))
    manifest = stored(manifest_of(tmp_path, listed("a.mp4", frames)), tmp_path / "flow")
    (fields,) = reader.flow_stacks(manifest, manifest.videos[0], np.array([frame]), short_side=HEIGHT)
    values = [value for index in expected for value in (3 * index, 3 * index + 100)]
    assert abs(fields.astype(int) - values).max() <= 1  # by JPEG
    if frame == 8:  # one read for neighbours, two where others lie between
        both = reader.flow_stacks(manifest, manifest.videos[0], np.array([8, 5]), short_side=HEIGHT)
        np.testing.assert_array_equal(both[0], fields)


def test_a_video_of_one_frame_does_not_move(tmp_path):
    motions.encode(tmp_path / "a.mp4", moving(1))
    alone = manifest_of(tmp_path, listed("a.mp4", 1))
    for manifest in (alone, stored(alone, tmp_path / "flow")):
        fields = reader.flow_stacks(manifest, manifest.videos[0], np.array([0, 0]), short_side=24)
        assert fields.shape == (2, 24, 32, 20) and (fields == 128).all()
    assert storing.is_stored(tmp_path / "flow", alone.videos[0])


def test_usable_frames_have_all_their_fields():
    for frames in (1, 5, 10, 11, 12, 40):
        first, count = flow.usable(frames)
        assert 0 <= first and count >= 1 and first + count <= frames
        indices = np.arange(first, first + count)
        complete = (np.diff(flow.around(indices, frames)) == 1).all()
        assert complete == (frames > 10)
        if complete:
            assert not (np.diff(flow.around(np.array([first - 1]), frames)) == 1).all()
            assert not (np.diff(flow.around(np.array([first + count]), frames)) == 1).all()


# ---- batches

FRAMES = 40
BOTH = pipeline.Sampling(
    frames=3, stride=2, short_side=HEIGHT, size=28, streams=("rgb", "flow"), strides=(2, 4), flow_method="dis"
)


@pytest.fixture
def places(monkeypatch) -> Manifest:
    """Videos whose pixels tell frame, row and column, as RGB; as flow, column + 1 (x) and the field's number (y)."""
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))

    def decode(path, indices, *, index, short_side):
        assert short_side == HEIGHT and max(indices) < FRAMES and index is None
        return np.stack([np.stack([np.full_like(row, index), row, column], -1) for index in indices]).astype(np.uint8)

    def compute(images, method):
        for image, _ in itertools.pairwise(images):
            yield np.stack([image[..., 2] + 1, image[..., 0]], axis=-1)

    monkeypatch.setattr(video, "decode", decode)
    monkeypatch.setattr(flow, "compute", compute)
    names = [f"{split}{number}.mp4" for split in ("train", "test") for number in range(4)]
    return manifest_of(pathlib.Path("nowhere"), *(listed(name, FRAMES, name[:-5]) for name in names))


def take(number: int, manifest: Manifest, sampling: pipeline.Sampling, batch: int = 4) -> dict[str, np.ndarray]:
    """The rows of some training batches."""
    with contextlib.closing(pipeline.train_batches(manifest, sampling, batch=batch, seed=0)) as batches:
        taken = [next(batches) for _ in range(number)]
    return {name: np.concatenate([one[name] for one in taken]) for name in taken[0]}


@pytest.mark.parametrize("crop", ["center", "corners", "random", "scales", "sizes"])
def test_both_streams_see_one_crop_one_flip_and_one_time(crop, places):
    rows = take(10, places, dataclasses.replace(BOTH, crop=crop))
    rgb, fields = rows["rgb"].astype(int), rows["flow"].astype(int)
    assert rgb.shape == (40, 3, 28, 28, 3) and fields.shape == (40, 3, 28, 28, 20) and rows["flow"].dtype == np.uint8
    np.testing.assert_array_equal(fields[..., 1::2], rgb[..., :1] + flow.OFFSETS)
    flipped = rgb[:, 0, 0, 0, 2] > rgb[:, 0, 0, -1, 2]
    assert 8 < flipped.sum() < 32
    columns = np.where(flipped[:, None, None, None, None], 256 - fields[..., ::2], fields[..., ::2]) - 1
    assert abs(columns - rgb[..., 2:]).max() <= (1 if crop in ("scales", "sizes") else 0)  # by resizing
    sides = {(row[0, -1, 0, 1] - row[0, 0, 0, 1], abs(row[0, 0, -1, 2] - row[0, 0, 0, 2])) for row in rgb}
    assert (len(sides) > 5) == (crop in ("scales", "sizes")), "the size of the crop"
    assert (rgb[:, 1:, ..., 1:] == rgb[:, :1, ..., 1:]).all(), "one crop for all frames"


def test_one_stream_alone_and_several_clips(places):
    rows = take(1, places, dataclasses.replace(BOTH, streams=("flow",), frames=1, strides=()))
    assert "rgb" not in rows and rows["flow"].shape == (4, 1, 28, 28, 20)
    rows = take(2, places, dataclasses.replace(BOTH, segments=2))
    assert rows["rgb"].shape == (8, 2, 3, 28, 28, 3) and rows["flow"].shape == (8, 2, 3, 28, 28, 20)
    np.testing.assert_array_equal(rows["flow"][..., 1::2], rows["rgb"][..., :1] + flow.OFFSETS)


def test_training_draws_the_stride_and_keeps_to_frames_with_flow(places):
    sampling = dataclasses.replace(BOTH, size=4)
    times = take(60, places, sampling)["rgb"][:, :, 0, 0, 0].astype(int)  # [240, 3]
    strides = np.diff(times)
    assert (strides[:, 0] == strides[:, 1]).all()
    assert {*strides[:, 0]} == {2, 3, 4} and min(np.bincount(strides[:, 0])[2:]) > 50
    assert (times.min(), times.max()) == (5, FRAMES - 6)


def test_a_short_video_has_the_largest_stride_that_fits_then_runs_forth_and_back(places):
    def times(frames: int, **changes) -> list:
        short = dataclasses.replace(places, videos=tuple(dataclasses.replace(v, frames=frames) for v in places.videos))
        sampling = dataclasses.replace(BOTH, frames=5, strides=(4, 9), size=4, **changes)
        return [row.tolist() for row in np.unique(take(1, short, sampling)["rgb"][:, :, 0, 0, 0].astype(int), axis=0)]

    assert times(19) == [[5, 7, 9, 11, 13]]  # nine usable frames
    assert times(13) == [[5, 6, 7, 7, 6]]  # three
    assert times(11) == [[5] * 5]
    assert times(3) == [[0, 1, 2, 2, 1]]  # no frame has all its fields
    assert times(9, streams=("rgb",)) == [[0, 2, 4, 6, 8]]


def test_a_spread_test_clip_is_of_frames_with_flow(places):
    sampling = dataclasses.replace(BOTH, frames=5)
    protocol = pipeline.Protocol("spread", 7, "full", flip=True)
    cropped = pipeline.cropped_clips(places, "test", sampling, protocol)
    assert len(cropped) == 8 and cropped[0].frames.tolist() == [5, 10, 15, 20, 24, 29, 34]
    with contextlib.closing(pipeline.test_batches(places, sampling, cropped, batch=3)) as batches:
        batches = list(batches)
    assert batches[0]["flow"].shape == (3, 7, HEIGHT, HEIGHT, 20)  # long sides are rounded down to multiples of 32
    plain, mirrored = ({name: batches[0][name][row].astype(int) for name in ("rgb", "flow")} for row in range(2))
    np.testing.assert_array_equal(mirrored["rgb"], plain["rgb"][:, :, ::-1])
    np.testing.assert_array_equal(mirrored["flow"][..., ::2], 256 - plain["flow"][:, :, ::-1, ::2])
    assert batches[-1]["mask"].tolist() == [1, 1, 0] and not batches[-1]["flow"][2].any()
    rgb_only = pipeline.cropped_clips(places, "test", dataclasses.replace(sampling, streams=("rgb",)), protocol)
    assert rgb_only[0].frames[[0, -1]].tolist() == [0, FRAMES - 1]


# ---- what is stored


def test_flow_that_was_stopped_goes_on_where_it_was(moved, tmp_path, monkeypatch):
    """With the field after the last whole one, to the same bytes."""
    entry, folder = moved.videos[0], tmp_path / "flow"
    path, target = pathlib.Path(moved.root, entry.path), pathlib.Path(flow.stored_path(folder, entry))
    storing.open_folder(folder, SETTINGS)
    compute = flow.compute
    computed = []

    def counted(images, method, most=99):
        for field in compute(images, method):
            if len(computed) == most:
                raise KeyboardInterrupt
            computed.append(1)
            yield field

    monkeypatch.setattr(storing, "_SYNC", 0.0)
    for most in (3, 7):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(flow, "compute", functools.partial(counted, most=most))
            storing.store(path, target, entry, SETTINGS)
        (begun,) = folder.glob(".*.part")
        assert not storing.is_stored(folder, entry)
    with open(begun, "ab") as file:
        file.write(b"half of a field")
    monkeypatch.setattr(flow, "compute", counted)
    storing.store(path, target, entry, SETTINGS)
    assert len(computed) == entry.frames - 1
    resumed = target.read_bytes()
    target.unlink()
    storing.store(path, target, entry, SETTINGS)
    assert target.read_bytes() == resumed
    assert sorted(os.listdir(folder)) == ["a.mp4.flow", "flow.json"]


@pytest.mark.parametrize("torn", [b"", b"no flow", 100, 300])
def test_what_was_torn_is_computed_anew(torn, moved, tmp_path, monkeypatch):
    entry, target = moved.videos[0], tmp_path / "a.mp4.flow"
    path = pathlib.Path(moved.root, entry.path)
    storing.store(path, target, entry, SETTINGS)
    expected = target.read_bytes()
    target.unlink()
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(flow, "compute", None)
        storing.store(path, target, entry, SETTINGS)
    (begun,) = tmp_path.glob(".*.part")
    begun.write_bytes(expected[:torn] if isinstance(torn, int) else torn)
    storing.store(path, target, entry, SETTINGS)
    assert target.read_bytes() == expected and os.listdir(tmp_path) == ["a.mp4.flow"]


def test_flow_of_a_video_that_was_replaced_by_a_like_one_is_computed_anew(tmp_path):
    """With as many frames of the same size: a file, a folder of pictures, a part of a file, a single frame."""

    def make(folder: pathlib.Path, seed: int) -> Manifest:
        folder.mkdir(exist_ok=True)
        motions.encode(folder / "a.mp4", moving(14, seed))
        motions.encode(folder / "one.mp4", moving(1, seed))
        (folder / "pictures").mkdir(exist_ok=True)
        for place, image in enumerate(moving(4, seed)):
            cv2.imwrite(str(folder / "pictures" / f"{place}.png"), image)
        part = dataclasses.replace(listed("a.mp4", 5), span=(0.2, 0.4), first=5, index=video.FrameIndex(14))
        return manifest_of(folder, listed("a.mp4", 14), part, listed("pictures", 4), listed("one.mp4", 1))

    def is_stored(manifest: Manifest, folder: pathlib.Path) -> list[bool]:
        digests = [contents.digest(pathlib.Path(manifest.root, entry.path), entry.span) for entry in manifest.videos]
        pairs = zip(manifest.videos, digests, strict=True)
        return [storing.is_stored(folder, entry, HEIGHT, digest=digest) for entry, digest in pairs]

    def bytes_of(folder: pathlib.Path) -> list[bytes]:
        return [path.read_bytes() for path in sorted(folder.glob("*.flow"))]

    first = make(tmp_path / "videos", seed=0)
    stored(first, tmp_path / "flow")
    assert is_stored(first, tmp_path / "flow") == [True] * 4
    before = bytes_of(tmp_path / "flow")
    second = make(tmp_path / "videos", seed=1)
    assert is_stored(second, tmp_path / "flow") == [False] * 4
    stored(second, tmp_path / "flow")
    stored(second, tmp_path / "fresh")
    assert is_stored(second, tmp_path / "flow") == [True] * 4
    assert bytes_of(tmp_path / "flow") == bytes_of(tmp_path / "fresh")
    assert not set(bytes_of(tmp_path / "flow")) & set(before)
    # Its place does not matter.
    shutil.copytree(tmp_path / "videos", tmp_path / "copied", copy_function=shutil.copyfile)
    assert is_stored(dataclasses.replace(second, root=str(tmp_path / "copied")), tmp_path / "flow") == [True] * 4


def test_flow_that_an_earlier_version_has_stored_is_read_and_kept(moved, tmp_path):
    """It did not say of which video it was."""
    entry, target = moved.videos[0], tmp_path / "flow" / "a.mp4.flow"
    manifest = stored(moved, tmp_path / "flow")
    fields = reader.flow_stacks(manifest, entry, np.arange(14), short_side=HEIGHT)
    whole = target.read_bytes()
    start = 128 + 8 * entry.frames
    places = np.frombuffer(whole[128:start], np.int64) - flow.DIGITS
    target.write_bytes(whole[:128] + places.tobytes() + whole[start + flow.DIGITS :])
    earlier = target.read_bytes()
    assert storing.is_stored(manifest.flow, entry, HEIGHT, digest="0" * flow.DIGITS, thorough=True)
    storing.store(pathlib.Path(moved.root, entry.path), target, entry, SETTINGS)
    assert target.read_bytes() == earlier
    np.testing.assert_array_equal(reader.flow_stacks(manifest, entry, np.arange(14), short_side=HEIGHT), fields)


def test_flow_may_be_stored_twice_and_at_once(moved, tmp_path, monkeypatch):
    """As Beam does where a machine is slow or lost: all write the same, and what is whole is left alone."""
    entry, target = moved.videos[0], tmp_path / "a.mp4.flow"
    path = pathlib.Path(moved.root, entry.path)
    storing.store(path, target, entry, SETTINGS)
    expected, written = target.read_bytes(), target.stat().st_mtime_ns
    storing.store(path, target, entry, SETTINGS)
    assert target.stat().st_mtime_ns == written
    monkeypatch.setattr(storing, "_SYNC", 0.0)
    compute = flow.compute
    for late in (0.0, 0.03):
        target.unlink()
        starts = iter(range(9))

        def delayed(images, method, late=late, starts=starts):
            pause = late * next(starts)  # with more or less of it there already
            for field in compute(images, method):
                time.sleep(pause / entry.frames)
                yield field

        monkeypatch.setattr(flow, "compute", delayed)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(storing.store, path, target, entry, SETTINGS) for _ in range(6)]:
                done.result()
        assert target.read_bytes() == expected and os.listdir(tmp_path) == ["a.mp4.flow"]


def test_one_process_goes_on_with_what_another_still_writes(moved, tmp_path, monkeypatch):
    """Neither waits for the other, and neither spoils it."""
    entry, target = moved.videos[0], tmp_path / "a.mp4.flow"
    path = pathlib.Path(moved.root, entry.path)
    monkeypatch.setattr(storing, "_SYNC", 0.0)
    compute, computed = flow.compute, []

    def overtaken(images, method):
        for number, field in enumerate(compute(images, method)):
            if number == 7:
                with monkeypatch.context() as patch:
                    patch.setattr(flow, "compute", lambda *given: map(counted, compute(*given)))
                    storing.store(path, target, entry, SETTINGS)
            yield field

    def counted(field):
        computed.append(field)
        return field

    monkeypatch.setattr(flow, "compute", overtaken)
    storing.store(path, target, entry, SETTINGS)
    assert len(computed) == entry.frames - 1 - 7 and os.listdir(tmp_path) == ["a.mp4.flow"]
    found = target.read_bytes()
    target.unlink()
    monkeypatch.setattr(flow, "compute", compute)
    storing.store(path, target, entry, SETTINGS)
    assert target.read_bytes() == found


def test_what_another_process_takes_away_meanwhile_is_computed(moved, tmp_path, monkeypatch):
    """It was done first, after this one had seen how far it was."""
    entry, target = moved.videos[0], tmp_path / "a.mp4.flow"
    path = pathlib.Path(moved.root, entry.path)
    storing.store(path, target, entry, SETTINGS)
    expected = target.read_bytes()
    target.unlink()
    compute, whole_fields, seen = flow.compute, storing._whole_fields, []

    def killed(images, method):
        yield from itertools.islice(compute(images, method), 7)
        raise KeyboardInterrupt

    def taken(part, empty):
        fields = whole_fields(part, empty)
        seen.append(len(fields) - 1)
        part.unlink()
        return fields

    monkeypatch.setattr(storing, "_SYNC", 0.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(flow, "compute", killed)
        storing.store(path, target, entry, SETTINGS)
    monkeypatch.setattr(storing, "_whole_fields", taken)
    storing.store(path, target, entry, SETTINGS)
    assert seen == [7] and target.read_bytes() == expected and os.listdir(tmp_path) == ["a.mp4.flow"]


def test_what_was_begun_of_other_videos_is_swept_away(moved, tmp_path):
    manifest = stored(moved, tmp_path / "flow")
    (tmp_path / "flow" / "deep").mkdir()
    (tmp_path / "flow" / "deep" / ".abc.part").write_text("of a video that has changed")
    storing.close_folder(tmp_path / "flow")
    assert os.listdir(tmp_path / "flow" / "deep") == []
    assert all(storing.is_stored(tmp_path / "flow", entry) for entry in manifest.videos)


def test_flow_of_another_number_of_frames_is_refused(moved, tmp_path):
    for frames, found in ((13, "more than 13 of 13"), (15, "only 14 of 15")):
        with pytest.raises(VideoError, match=f"{found} frames decode: the file has changed"):
            storing.store(pathlib.Path(moved.root, "a.mp4"), tmp_path / "a.flow", listed("a.mp4", frames), SETTINGS)
    assert os.listdir(tmp_path) == []

    part = dataclasses.replace(listed("a.mp4", 6), first=5, index=video.FrameIndex(14))  # of the longer file
    target = tmp_path / "part.flow"
    storing.store(pathlib.Path(moved.root, "a.mp4"), target, part, SETTINGS)
    stack = reader.flow_stacks(moved, part, np.array([2]), short_side=HEIGHT, method=SETTINGS.method)
    target.rename(tmp_path / "a.mp4.flow")
    read = reader.flow_stacks(dataclasses.replace(moved, flow=str(tmp_path)), part, np.array([2]), short_side=HEIGHT)
    assert np.abs(stack.astype(int) - read).mean() < 2  # JPEG
    (tmp_path / "a.mp4.flow").unlink()

    manifest = stored(moved, tmp_path / "flow")
    longer = dataclasses.replace(manifest.videos[0], frames=15)
    assert not storing.is_stored(manifest.flow, longer)
    with pytest.raises(VideoError, match="the flow of 14 frames, but the video has 15"):
        reader.flow_stacks(manifest, longer, np.array([6]), short_side=HEIGHT)


@pytest.mark.parametrize("damage", [b"", b"no flow at all", 400, None])
def test_damaged_flow_is_an_unreadable_video(damage, moved, tmp_path):
    """In a test it has mask 0; in training there is no other video here that could stand in."""
    manifest = stored(moved, tmp_path / "flow")
    for entry in manifest.videos:
        path = pathlib.Path(flow.stored_path(manifest.flow, entry))
        path.write_bytes(path.read_bytes()[:damage] if isinstance(damage, int) else damage or b"")
        if damage is None:
            path.unlink()
    sampling = dataclasses.replace(BOTH, strides=(), stride=1)
    cropped = pipeline.cropped_clips(manifest, "test", sampling, pipeline.Protocol("uniform", 1))
    with contextlib.closing(pipeline.test_batches(manifest, sampling, cropped, batch=1)) as batches:
        (batch,) = batches
    assert batch["mask"].tolist() == [0] and batch["failed"].tolist() == [2]
    with pytest.raises(UserError, match="none of the 1 training videos"):
        take(1, manifest, sampling, batch=1)


@pytest.mark.parametrize("path", ["../aside/a.mp4", "b/../../aside/a.mp4", "{aside}/a.mp4", "..", "a\0"])
def test_no_flow_is_stored_outside_its_folder(path, moved, tmp_path):
    """Whatever a manifest that someone else made says of where the videos are."""
    (tmp_path / "aside").mkdir()
    motions.encode(tmp_path / "aside" / "a.mp4", moving(14))
    wild = manifest_of(tmp_path / "videos", listed(path.format(aside=tmp_path / "aside"), 14))
    wild.write(tmp_path / "set" / "manifest.jsonl")
    with pytest.raises(UserError, match="this path leads out of the set's folder|which no file can be called"):
        prepare(Preparation("manifest", tmp_path / "set", flow=SETTINGS, machines=Machines(1)))
    assert {path.name for path in tmp_path.rglob("*.flow")} == set()
    assert os.listdir(tmp_path / "aside") == ["a.mp4"]


def test_no_flow_is_stored_where_a_link_leads(moved, tmp_path):
    """Unless the whole folder is one: it may be on another disk."""
    (tmp_path / "aside").mkdir()
    (tmp_path / "set" / "flow").mkdir(parents=True)
    (tmp_path / "set" / "flow" / "walk").symlink_to(tmp_path / "aside")
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "walk").symlink_to(moved.root)
    manifest_of(videos, listed("walk/a.mp4", 14)).write(tmp_path / "set" / "manifest.jsonl")
    task = Preparation("manifest", tmp_path / "set", flow=SETTINGS, machines=Machines(1))
    with pytest.raises(UserError, match="leads out of .*remove that link"):
        prepare(task)
    assert not os.listdir(tmp_path / "aside")
    shutil.rmtree(tmp_path / "set" / "flow")
    (tmp_path / "set" / "flow").symlink_to(tmp_path / "aside")
    prepare(task)
    assert (tmp_path / "aside" / "walk" / "a.mp4.flow").is_file()


def test_a_file_of_flow_with_a_hole_is_not_read_into_memory(moved, tmp_path):
    path = flow.stored_path(stored(moved, tmp_path).flow, moved.videos[0])
    places = np.array(flow.read_places(path))
    places[1:] += 2**40
    with open(path, "r+b") as file:
        np.save(file, places)
        file.truncate(places[-1])
    with pytest.raises(VideoError, match="index is damaged"):
        flow.read(path, [[0, 1]], 14, (HEIGHT, WIDTH))


def test_a_video_with_broken_flow_is_replaced_and_named(moved, tmp_path):
    """As one that cannot be read itself."""
    videos = (*moved.videos, dataclasses.replace(moved.videos[0], path="b.mp4"))
    manifest = stored(dataclasses.replace(moved, videos=(videos[0], videos[2])), tmp_path / "flow")
    path = tmp_path / "flow" / "b.mp4.flow"
    content = path.read_bytes()
    damages = {
        content.replace(b"\xff\xd9", b"\0\0"): "a field is damaged",
        content[:-1]: f"{len(content) - 1:,} bytes, but it should have {len(content):,}",
        b"": "an empty file",
        b"PK\3\4" + content: "its index is damaged",
    }
    for damage, reason in damages.items():
        path.write_bytes(damage)
        entry = manifest.videos[1]
        with pytest.raises(VideoError, match=re.escape(reason)):
            reader.flow_stacks(manifest, entry, np.array([6]), short_side=HEIGHT)
        assert reason in reader.fault(manifest, entry, ("rgb", "flow"))
        assert f"remove {path}, and prepare with --flow" in reader.fault(manifest, entry, ("flow",))
        assert reader.fault(manifest, entry) == ""
    rows = take(4, manifest, dataclasses.replace(BOTH, strides=(), stride=1))
    assert set(rows["video"]) == {0} and set(rows["failed"]) == {0, 2}
    path.unlink()
    assert reader.fault(manifest, entry, ("flow",)) == f"there is no flow of it: prepare with --flow makes {path}"


def check_damage(damage: bytes, manifest: Manifest, path: pathlib.Path) -> None:
    """Whatever stands in a file of flow, it is read or it is broken."""
    path.write_bytes(damage)
    entry = manifest.videos[0]
    with contextlib.suppress(VideoError):
        fields = reader.flow_stacks(manifest, entry, np.arange(5, 9), short_side=HEIGHT)
        assert fields.shape == (4, HEIGHT, WIDTH, 20)
    for thorough in (False, True):
        storing.is_stored(manifest.flow, entry, HEIGHT, thorough=thorough)


HEADERS = (
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (9999999999999999999999,), }",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (-14,), }",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (0,), }",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (), }",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (7, 2), }",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': 14, }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (14,), }",
    b"{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (14,), }",
    b"{'descr': 5, 'fortran_order': None, 'shape': (14,), }",
    b"(" * 90,
    b"{[]: 1}",
    b"\xff" * 90,
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (14,), \0}",
)


def test_any_header_of_an_index_is_one_or_is_broken(moved, tmp_path):
    manifest = stored(moved, tmp_path / "flow")
    path = tmp_path / "flow" / "a.mp4.flow"
    content = path.read_bytes()
    start = content.index(b"{")
    for header in HEADERS:
        check_damage(content[:start] + header.ljust(127 - start) + b"\n" + content[128:], manifest, path)
        assert not storing.is_stored(manifest.flow, manifest.videos[0])


@pytest.mark.parametrize("examples", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_damage_anywhere_in_a_file_of_flow_breaks_no_more_than_the_file(examples, moved, tmp_path):
    manifest = stored(moved, tmp_path / "flow")
    path = tmp_path / "flow" / "a.mp4.flow"
    content = path.read_bytes()
    place = st.one_of(st.integers(0, 260), st.integers(0, len(content)))  # the index, or anywhere

    @settings(max_examples=examples)
    @given(st.lists(st.tuples(place, st.binary(max_size=9), st.integers(0, 9)), min_size=1, max_size=3), place)
    def check(changes, end):
        damage = bytearray(content)
        for start, new, old in changes:
            damage[start : start + old] = new
        check_damage(bytes(damage if end % 3 else damage[:end]), manifest, path)

    check()


def test_other_settings_in_a_folder_are_an_error(tmp_path):
    storing.open_folder(tmp_path, SETTINGS)
    storing.open_folder(tmp_path, SETTINGS)
    with pytest.raises(UserError, match=r"holds flow of method dis, short_side 48.* asked for was method tvl1.*remove"):
        storing.open_folder(tmp_path, SETTINGS._replace(method="tvl1"))
    for broken in ("{}", "", "\0" * 40, "[" * 9999, "[1]", '{"method": 3, "short_side": "x"}', "null"):
        (tmp_path / "flow.json").write_text(broken)
        with pytest.raises(UserError, match="flow.json does not say how .* remove this file"):
            flow.read_settings(tmp_path)


def test_flow_that_is_missing_or_of_other_frames_is_an_error(moved, tmp_path, capsys):
    manifest = stored(moved, tmp_path / "flow")
    assert pipeline.check_stored(manifest, BOTH) == set()
    with pytest.raises(UserError, match="is dis of frames with a short side of 48 pixels, the clips ask for dis of 64"):
        pipeline.check_stored(manifest, dataclasses.replace(BOTH, short_side=64))
    with pytest.raises(UserError, match="the clips ask for tvl1 of 48: set --config.clip.flow_method=dis --"):
        pipeline.check_stored(manifest, dataclasses.replace(BOTH, flow_method="tvl1"))
    pathlib.Path(flow.stored_path(manifest.flow, manifest.videos[1])).unlink()
    with pytest.raises(UserError, match="1 of the 2 videos of 'moving' have no flow in .*, e.g. b.mp4") as caught:
        pipeline.check_stored(manifest, BOTH)
    command = f"prepare manifest --out={tmp_path} --flow=dis --flow_side=48"
    assert command in str(caught.value)
    pipeline.check_stored(manifest, dataclasses.replace(BOTH, streams=("rgb",)))
    pipeline.check_stored(moved, BOTH)  # computed when needed
    assert capsys.readouterr().err == ""

    # One of a hundred is like a file that has become unreadable, and so are those that prepare has named.
    others = [dataclasses.replace(manifest.videos[0], path=f"{number}.mp4") for number in range(98)]
    for entry in others:
        os.link(flow.stored_path(manifest.flow, manifest.videos[0]), flow.stored_path(manifest.flow, entry))
    large = dataclasses.replace(manifest, videos=(*manifest.videos, *others))
    assert pipeline.check_stored(large, BOTH) == {"b.mp4"} and pipeline.given_up(large, BOTH.streams) == set()
    said = capsys.readouterr().err
    assert "1 of the 100 videos" in said and command in said
    pathlib.Path(flow.stored_path(manifest.flow, others[0])).unlink()
    with pytest.raises(UserError, match="2 of the 100 videos"):
        pipeline.check_stored(large, BOTH)
    (tmp_path / "broken_flow.csv").write_text("split,path,reason\ntest,b.mp4,damaged\ntrain,1.mp4,mended since\n")
    assert pipeline.check_stored(large, BOTH) == {"b.mp4", "0.mp4"}
    assert pipeline.given_up(large, BOTH.streams) == {"b.mp4"} and not pipeline.given_up(large, ("rgb",))
    assert pipeline.check_stored(manifest, BOTH) == {"b.mp4"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": ("flow", "rgb")}, r"clip.streams is \('flow', 'rgb'\): choose \('rgb',\)"),
        ({"streams": ()}, r"clip.streams is \(\)"),
        ({"strides": (5,)}, r"clip.strides is \(5,\): expected the least and the most"),
        ({"strides": (5, 4)}, r"clip.strides is \(5, 4\)"),
        ({"strides": (0, 4)}, r"clip.strides is \(0, 4\)"),
        ({"flow_method": "farneback"}, "clip.flow_method is 'farneback': choose tvl1, dis"),
        ({"jitter": (40, 48)}, r"clip.jitter is \(40, 48\) and clip.short_side 48: flow is computed at one"),
        ({"short_side": 12, "size": 12}, "short side of at least 16"),
        ({"crop": "middle"}, "clip.crop is 'middle': choose center, corners, random, scales, sizes"),
    ],
)
def test_clips_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(BOTH, **changes)
