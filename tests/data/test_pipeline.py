"""Batches: which rows they hold, whoever loads them, and what stands in for a file that cannot be read."""

import contextlib
import dataclasses
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from jax_video.data import clips, pipeline, transforms
from jax_video.data.decoding import video
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions
from jax_video.errors import UserError

FRAMES = 12  # of every video
SAMPLING = pipeline.Sampling(frames=8, stride=1, short_side=24, size=16)
WHOLE_FRAMES = pipeline.Sampling(frames=8, stride=1, short_side=24, size=24, flip=False)  # nothing is cut or turned


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    folder = tmp_path_factory.mktemp("motions")
    made = motions.read(folder, train=16, val=8, test=8, frames=FRAMES, width=24, height=24)
    return dataclasses.replace(made, flip=True)  # classes are not of interest here


@pytest.fixture
def copied(manifest, tmp_path) -> Manifest:
    """The same with files that a test may break."""
    shutil.copytree(manifest.root, tmp_path / "copy")
    return dataclasses.replace(manifest, root=str(tmp_path / "copy"))


def take(number: int, manifest: Manifest, sampling=SAMPLING, *, batch=4, seed=0, **kwargs) -> list[pipeline.Batch]:
    batches = pipeline.train_batches(manifest, sampling, batch=batch, seed=seed, **kwargs)
    with contextlib.closing(batches):
        return [next(batches) for _ in range(number)]


def take_test(manifest: Manifest, cropped, sampling=SAMPLING, *, batch=3, **kwargs) -> list[pipeline.Batch]:
    batches = pipeline.test_batches(manifest, sampling, cropped, batch=batch, **kwargs)
    with contextlib.closing(batches):
        return list(batches)


def two_clips(manifest: Manifest, sampling=SAMPLING) -> list[pipeline.CroppedClip]:
    return pipeline.cropped_clips(manifest, "test", sampling, pipeline.Protocol("uniform", 2))


def assert_equal(found: list[pipeline.Batch], expected: list[pipeline.Batch]) -> None:
    assert len(found) == len(expected) > 0
    for left, right in zip(found, expected, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name, strict=True)


def frames_of(manifest: Manifest, index: int) -> np.ndarray:
    return video.decode(pathlib.Path(manifest.root, manifest.videos[index].path), range(FRAMES))


def test_shapes_and_types(manifest):
    (batch,) = take(1, manifest)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "rgb": ((4, 8, 16, 16, 3), "uint8"),
        "label": ((4,), "int32"),
        "video": ((4,), "int32"),
        "mask": ((4,), "float32"),
        "failed": ((4,), "int32"),
    }
    (padded,) = take_test(manifest, two_clips(manifest)[:2])
    assert [(name, array.shape[1:], array.dtype) for name, array in padded.items()] == [
        (name, array.shape[1:], array.dtype) for name, array in batch.items()
    ]


def test_rows_are_consecutive_frames_of_their_video(manifest):
    for batch in take(4, manifest, WHOLE_FRAMES):
        for row, index in enumerate(batch["video"]):
            assert manifest.videos[index].split == "train"
            assert batch["label"][row] == manifest.videos[index].label
            frames = frames_of(manifest, index)
            starts = [
                start for start in range(FRAMES - 7) if np.array_equal(batch["rgb"][row], frames[start : start + 8])
            ]
            assert starts, "a row is no clip of its video"


def test_any_number_of_workers_gives_the_same_batches(manifest):
    """Seven batches of six from sixteen videos: the ends of two epochs lie within batches."""
    alone = take(7, manifest, batch=6)
    assert_equal(take(7, manifest, batch=6, workers=1), alone)
    assert_equal(take(4, manifest, batch=6, workers=2, first_step=3), alone[3:])

    cropped = two_clips(manifest)
    assert_equal(take_test(manifest, cropped, workers=2), take_test(manifest, cropped))


def test_workers_do_not_run_the_users_script(manifest, tmp_path):
    """Which would train once more, in each of them."""
    script = """
import pathlib, pickle, sys
from jax_video.data import pipeline
print("once")
manifest, sampling = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
batches = pipeline.train_batches(manifest, sampling, batch=4, seed=0, workers=3)
print([next(batches)["rgb"].shape for _ in range(4)])
batches.close()
"""
    (tmp_path / "script.py").write_text(script)
    (tmp_path / "given").write_bytes(pickle.dumps((manifest, SAMPLING)))
    command = [sys.executable, tmp_path / "script.py", tmp_path / "given"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"once\n{[(4, 8, 16, 16, 3)] * 4}\n" and "Traceback" not in done.stderr


def test_resumed_batches_are_the_tail(manifest):
    alone = take(9, manifest, batch=6)
    for step in (1, 5, 8):
        assert_equal(take(9 - step, manifest, batch=6, first_step=step), alone[step:])


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_hosts_hold_contiguous_rows_of_the_global_batch(manifest, count):
    def joined(of_hosts: list[list[pipeline.Batch]]) -> list[pipeline.Batch]:
        return [{k: np.concatenate([b[k] for b in rows]) for k in rows[0]} for rows in zip(*of_hosts, strict=True)]

    hosts = [pipeline.Hosts(index, count) for index in range(count)]
    parts = [take(5, manifest, batch=8, first_step=1, hosts=host) for host in hosts]
    assert_equal(joined(parts), take(6, manifest, batch=8)[1:])

    cropped = two_clips(manifest)[:13]  # 16 rows, the last three are padding
    parts = [take_test(manifest, cropped, batch=8, hosts=host) for host in hosts]
    assert_equal(joined(parts), take_test(manifest, cropped, batch=8))


ONE_FRAME = pipeline.Sampling(frames=1, stride=1, short_side=8, size=8)


def of_size(manifest: Manifest, videos: int) -> Manifest:
    """So many of its training videos, and the others."""
    train = [entry for _, entry in manifest.select("train")]
    others = [entry for entry in manifest.videos if entry.split != "train"]
    return dataclasses.replace(manifest, videos=(*train[:videos], *others))


# Sets, batches, hosts: batches that do not divide the set, and one that is larger than it.
@pytest.mark.parametrize(("size", "batch", "count"), [(1, 2, 2), (7, 6, 3), (16, 8, 2)])
def test_hosts_share_every_epoch_and_go_on_at_any_step(manifest, size, batch, count):
    few, hosts = of_size(manifest, size), [pipeline.Hosts(index, count) for index in range(count)]
    steps = -(-2 * size // batch)  # two epochs
    parts = [take(steps, few, ONE_FRAME, batch=batch, hosts=host) for host in hosts]
    assert {len(batch["video"]) for part in parts for batch in part} == {batch // count}
    rows = np.concatenate([batch["video"] for together in zip(*parts, strict=True) for batch in together])
    for epoch in rows[: 2 * size].reshape(2, size):
        assert sorted(epoch) == list(range(size))
    last = steps - 1
    assert_equal(take(1, few, ONE_FRAME, batch=batch, first_step=last, hosts=hosts[-1]), parts[-1][last:])


@pytest.mark.parametrize(("cropped", "batch", "count"), [(1, 4, 4), (7, 2, 2), (16, 6, 3)])
def test_hosts_share_every_view_in_as_many_batches(manifest, cropped, batch, count):
    wanted = two_clips(manifest, ONE_FRAME)[:cropped]
    hosts = [pipeline.Hosts(index, count) for index in range(count)]
    parts = [take_test(manifest, wanted, ONE_FRAME, batch=batch, hosts=host) for host in hosts]
    assert {len(part) for part in parts} == {-(-cropped // batch)}
    seen = [batch["video"][batch["mask"] == 1] for together in zip(*parts, strict=True) for batch in together]
    assert np.concatenate(seen).tolist() == [clip.video for clip in wanted]


def test_a_batch_that_hosts_cannot_share_is_an_error(manifest):
    hosts = pipeline.Hosts(1, 4)
    with pytest.raises(UserError, match="a batch of 6 does not divide among 4 processes"):
        take(1, manifest, batch=6, hosts=hosts)
    with pytest.raises(UserError, match="a batch of 6 does not divide among 4 processes"):
        take_test(manifest, two_clips(manifest), batch=6, hosts=hosts)


def test_a_batch_may_be_one_row(manifest):
    rows = take(4, manifest, batch=1)
    assert_equal([{k: np.concatenate([row[k] for row in rows]) for k in rows[0]}], take(1, manifest))


def test_an_epoch_has_every_video_once(manifest):
    rows = np.concatenate([batch["video"] for batch in take(8, manifest, batch=6)])  # three epochs
    epochs = rows.reshape(3, 16)
    train = [index for index, _ in manifest.select("train")]
    for epoch in epochs:
        assert sorted(epoch) == train
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])


def test_epochs_and_seeds_draw_other_clips(manifest):
    def by_video(batches: list[pipeline.Batch]) -> dict[int, np.ndarray]:
        return {int(v): rgb for batch in batches for v, rgb in zip(batch["video"], batch["rgb"], strict=True)}

    two = take(8, manifest)
    first, second, other = by_video(two[:4]), by_video(two[4:]), by_video(take(4, manifest, seed=1))
    assert len(first) == 16
    # Of 16 clips drawn from 5 starts, 5 crops and 2 flips, few are drawn twice.
    for drawn in (second, other):
        assert sum(np.array_equal(first[index], drawn[index]) for index in first) < 4
    assert [int(v) for b in two[:4] for v in b["video"]] != list(other)


def test_flip_turns_half_of_the_clips(manifest):
    flipped = 0
    for plain, turned in zip(
        take(16, manifest, WHOLE_FRAMES), take(16, manifest, dataclasses.replace(WHOLE_FRAMES, flip=True)), strict=True
    ):
        for left, right in zip(plain["rgb"], turned["rgb"], strict=True):
            mirrored = np.array_equal(left[:, :, ::-1], right)
            assert mirrored != np.array_equal(left, right)
            flipped += mirrored
    assert 16 < flipped < 48  # of 64: four standard deviations


def test_a_set_that_must_not_be_flipped_is_not(manifest):
    """Where it is not asked for: its clips are those of a recipe that does not flip, all random draws included."""
    fixed, free = dataclasses.replace(manifest, flip=False), dataclasses.replace(SAMPLING, crop="random", flip=None)
    assert_equal(take(4, fixed, free), take(4, manifest, dataclasses.replace(free, flip=False)))
    assert_equal(take(4, fixed, dataclasses.replace(free, flip=True)), take(4, manifest, free))
    protocol = pipeline.Protocol("uniform", 2, flip=None)
    mirrored = [
        [clip.flip for clip in pipeline.cropped_clips(m, "test", SAMPLING, protocol)] for m in (manifest, fixed)
    ]
    assert mirrored == [[False, True] * 16, [False] * 16]


def test_training_draws_the_short_side_and_testing_does_not(manifest):
    sampling = dataclasses.replace(WHOLE_FRAMES, crop="center", size=20, jitter=(20, 23))

    def side(rgb: np.ndarray, index: int) -> int:
        """The short side that a clip of whole frames was resized to before its centre was cut out."""
        path = pathlib.Path(manifest.root, manifest.videos[index].path)
        for size in range(20, 25):
            box = transforms.draw_box(size, size, 20, "center")
            frames = transforms.crop(video.decode(path, range(FRAMES), short_side=size), box)
            if any(np.array_equal(rgb, frames[start : start + 8]) for start in range(FRAMES - 8 + 1)):
                return size
        raise AssertionError("neither of them")

    batches = take(5, manifest, sampling)
    assert {side(batch["rgb"][row], batch["video"][row]) for batch in batches for row in range(4)} == {20, 21, 22, 23}
    (tested, *_) = take_test(manifest, two_clips(manifest, sampling), sampling)
    assert side(tested["rgb"][0], tested["video"][0]) == 24
    for wrong in ((30, 20), (19, 30), (20,)):
        with pytest.raises(UserError, match=r"clip.jitter is .*: expected the least and the most"):
            dataclasses.replace(sampling, jitter=wrong)


def test_several_clips_of_a_video_are_one_sample(manifest):
    sampling = dataclasses.replace(WHOLE_FRAMES, frames=3, segments=4)
    (batch,) = take(1, manifest, sampling)
    assert batch["rgb"].shape == (4, 4, 3, 24, 24, 3)
    for row, index in enumerate(batch["video"]):
        frames = frames_of(manifest, index)
        for part, clip in enumerate(batch["rgb"][row]):  # ten starts: 0 and 1, 2 to 4, 5 and 6, 7 to 9
            first, last = [(0, 1), (2, 4), (5, 6), (7, 9)][part]
            assert any(np.array_equal(clip, frames[start : start + 3]) for start in range(first, last + 1))
    cropped = pipeline.cropped_clips(manifest, "test", sampling, pipeline.Protocol("segments"))
    assert [clip.frames.shape for clip in cropped] == [(4, 3)] * 8
    (tested, *_, last) = take_test(manifest, cropped, sampling)
    expected = frames_of(manifest, cropped[0].video)[cropped[0].frames]
    np.testing.assert_array_equal(tested["rgb"][0], expected)
    assert last["mask"].tolist() == [1, 1, 0] and last["rgb"].shape == (3, 4, 3, 24, 24, 3)


def test_consensus_and_its_test_go_together(manifest):
    with pytest.raises(UserError, match="test.clips is 'uniform' and clip.segments 2.*test.clips='segments'"):
        pipeline.cropped_clips(
            manifest, "test", dataclasses.replace(SAMPLING, segments=2), pipeline.Protocol("uniform")
        )
    with pytest.raises(UserError, match="test.clips is 'segments' and clip.segments 0"):
        pipeline.cropped_clips(manifest, "test", SAMPLING, pipeline.Protocol("segments"))
    with pytest.raises(UserError, match="clip.segments is -1"):
        dataclasses.replace(SAMPLING, segments=-1)


def test_a_short_video_is_looped(manifest):
    sampling = dataclasses.replace(WHOLE_FRAMES, frames=10, stride=2)
    order = np.arange(10) * 2 % FRAMES
    for batch in take(2, manifest, sampling):
        for row, index in enumerate(batch["video"]):
            np.testing.assert_array_equal(batch["rgb"][row], frames_of(manifest, index)[order])
    cropped = pipeline.cropped_clips(manifest, "test", sampling, pipeline.Protocol("nonoverlap"))
    assert [clip.video for clip in cropped] == [index for index, _ in manifest.select("test")]
    (batch,) = take_test(manifest, cropped[:1], sampling, batch=1)
    np.testing.assert_array_equal(batch["rgb"][0], frames_of(manifest, cropped[0].video)[order])


def test_an_unreadable_training_video_is_replaced(copied):
    whole = np.concatenate([batch["video"] for batch in take(8, copied)])
    gone = int(whole[5])
    pathlib.Path(copied.root, copied.videos[gone].path).write_text("no video")
    batches = take(8, copied)  # two epochs

    rows = np.concatenate([batch["video"] for batch in batches])
    failed = np.concatenate([batch["failed"] for batch in batches])
    np.testing.assert_array_equal(failed, np.where(whole == gone, 1 + gone, 0))
    np.testing.assert_array_equal(rows[failed == 0], whole[failed == 0])
    assert gone not in rows
    # What stands in is a whole sample: picture, label and index are of one readable video.
    for batch in take(8, copied, WHOLE_FRAMES):
        for row in np.flatnonzero(batch["failed"]):
            frames = frames_of(copied, batch["video"][row])
            assert batch["label"][row] == copied.videos[batch["video"][row]].label
            assert any(np.array_equal(batch["rgb"][row], frames[start : start + 8]) for start in range(FRAMES - 7))
            assert batch["mask"][row] == 1
    assert_equal(take(5, copied, first_step=3), batches[3:])


@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_training_video_is_an_error(copied, workers):
    shutil.rmtree(pathlib.Path(copied.root, "train"))
    with pytest.raises(UserError, match="none of the 16 training videos in .*copy can be read"):
        take(1, copied, workers=workers)


def test_a_manifest_without_training_videos_is_an_error(manifest):
    empty = dataclasses.replace(manifest, videos=tuple(v for v in manifest.videos if v.split != "train"))
    with pytest.raises(UserError, match="'motions' has no readable training video"):
        take(1, empty)


def test_a_negative_number_of_workers_is_an_error(manifest):
    with pytest.raises(UserError, match="-2 workers"):
        take(1, manifest, workers=-2)


def test_the_machine_decides_on_workers_where_asked(manifest, monkeypatch):
    for cores, expected in ((1, 0), (2, 0), (4, 2), (96, 32)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert pipeline.worker_processes() == expected
    monkeypatch.setattr(pipeline, "worker_processes", lambda: 1)
    assert_equal(take(2, manifest, workers=None), take(2, manifest))


def test_test_rows_come_in_order_and_are_padded(manifest):
    cropped = two_clips(manifest, WHOLE_FRAMES)[:7]
    batches = take_test(manifest, cropped, WHOLE_FRAMES)
    assert [batch["mask"].tolist() for batch in batches] == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert rows["video"][:7].tolist() == [clip.video for clip in cropped]
    assert rows["label"][:7].tolist() == [manifest.videos[clip.video].label for clip in cropped]
    assert not rows["rgb"][7:].any() and not rows["failed"].any()
    for rgb, (index, wanted, *_) in zip(rows["rgb"], cropped, strict=False):
        np.testing.assert_array_equal(rgb, frames_of(manifest, index)[wanted])


def test_test_crops_the_centre_and_never_flips(manifest):
    cropped = two_clips(manifest)
    batches = take_test(manifest, cropped, dataclasses.replace(SAMPLING, crop="random"), batch=4)
    clips_of_batches = np.concatenate([batch["rgb"] for batch in batches])
    for rgb, (index, wanted, *_) in zip(clips_of_batches, cropped, strict=True):
        np.testing.assert_array_equal(rgb, frames_of(manifest, index)[wanted, 4:20, 4:20])


def test_an_unreadable_test_video_says_so(copied):
    cropped = two_clips(copied)
    gone = cropped[2].video
    pathlib.Path(copied.root, copied.videos[gone].path).unlink()
    batches = take_test(copied, cropped, batch=4)
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert rows["failed"].tolist() == [0, 0, 1 + gone, 1 + gone] + [0] * 12
    assert rows["mask"].tolist() == [1, 1, 0, 0] + [1] * 12
    assert rows["video"].tolist() == [clip.video for clip in cropped]


def test_a_video_without_label_has_minus_one(manifest):
    unlabelled = tuple(dataclasses.replace(entry, label=None) for entry in manifest.videos)
    manifest = dataclasses.replace(manifest, videos=unlabelled)
    for batch in (take(1, manifest)[0], take_test(manifest, two_clips(manifest)[:3])[0]):
        assert set(batch["label"].tolist()) == {-1}


@pytest.mark.parametrize(("mode", "number"), [("nonoverlap", 1), ("uniform", 3)])
def test_a_test_sees_the_clips_of_every_readable_video(manifest, mode, number):
    videos = list(manifest.videos)
    damaged = manifest.select("test")[3][0]
    videos[damaged] = dataclasses.replace(videos[damaged], error="damaged")
    broken = dataclasses.replace(manifest, videos=tuple(videos))
    sampling = dataclasses.replace(SAMPLING, frames=4)
    cropped = pipeline.cropped_clips(broken, "test", sampling, pipeline.Protocol(mode, number))
    readable = [i for i, entry in enumerate(broken.videos) if entry.split == "test" and entry.error is None]
    assert len(readable) == 7
    expected = [
        (index, clip.tolist())
        for index in readable
        for clip in clips.test_clips(FRAMES, 4, 1, clips=mode, number=number)
    ]
    assert [(clip.video, clip.frames.tolist()) for clip in cropped] == expected
    assert len(expected) == 7 * 3
