"""Sets whose videos may have several labels: their manifest, their batches, and what draws videos class by class."""

import collections
import contextlib
import dataclasses
import json
import pickle

import numpy as np
import pytest

from jax_video.data import labels, pipeline
from jax_video.data.decoding import packed
from jax_video.data.decoding.packed import RECORD_FRAMES
from jax_video.data.manifest import Manifest, Packed
from jax_video.data.preparing import checks
from jax_video.data.sources import motions
from jax_video.errors import UserError

SAMPLING = pipeline.Sampling(frames=4, stride=1, short_side=16, size=16, flip=False)
CLASSES = ("left", "right", "fast")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    folder = tmp_path_factory.mktemp("motions")
    made = motions.read(folder, train=16, val=8, test=8, frames=6, width=24, height=24)
    several = [(), (0,), (0, 2), (1,), (1, 2)]
    rows = tuple(dataclasses.replace(row, label=several[i % 5]) for i, row in enumerate(made.videos))
    return Manifest("several", CLASSES, made.root, rows)


def multi_hot(label: tuple[int, ...]) -> list[float]:
    return [float(number in label) for number in range(3)]


def test_the_file_comes_back_and_says_that_it_is_of_another_format(manifest, tmp_path):
    manifest.write(tmp_path / "manifest.jsonl")
    header, *rows = map(json.loads, (tmp_path / "manifest.jsonl").read_text().splitlines())
    assert header["format"] == 2 and [row["label"] for row in rows[:3]] == [[], [0], [0, 2]]
    found = Manifest.read(tmp_path / "manifest.jsonl")
    assert found == manifest and found.hash == manifest.hash and found.multilabel
    copied = pickle.loads(pickle.dumps(manifest))
    assert copied == manifest and copied.multilabel
    single = dataclasses.replace(
        manifest, videos=tuple(dataclasses.replace(row, label=len(row.label)) for row in manifest.videos)
    )
    single.write(tmp_path / "single.jsonl")
    assert json.loads((tmp_path / "single.jsonl").read_text().splitlines()[0])["format"] == 1
    assert not single.multilabel and single.hash != manifest.hash


@pytest.mark.parametrize("label", [(2, 0), (0, 0), (3,), (-1,), (True,), (1.0,), 1, [0, 1], "left", {}])
def test_labels_that_cannot_be_are_refused_with_the_video(label, manifest):
    rows = list(manifest.videos)
    rows[3] = dataclasses.replace(rows[3], label=label)
    with pytest.raises(UserError, match=r"the label of .* of 'several' is .*: expected different numbers from 0 to 2"):
        dataclasses.replace(manifest, videos=tuple(rows))
    rows[3] = dataclasses.replace(rows[3], label=None)
    some = dataclasses.replace(manifest, videos=tuple(rows))
    with pytest.raises(UserError, match="1 of the 32 videos of 'several' have no label"):
        some.check_labels("train")


def test_a_damaged_line_is_named(manifest, tmp_path):
    path = tmp_path / "manifest.jsonl"
    manifest.write(path)
    path.write_text(path.read_text().replace('"label": [0, 2]', '"label": [2, 0]', 1))
    with pytest.raises(UserError, match=r":4: label is \[2, 0\], but there are 3 classes"):
        Manifest.read(path)


def batches(manifest: Manifest, **options) -> list[pipeline.Batch]:
    found = pipeline.train_batches(manifest, SAMPLING, batch=4, seed=1, **options)
    with contextlib.closing(found):
        return [next(found) for _ in range(3)]


def check_rows(manifest: Manifest, rows: pipeline.Batch) -> None:
    assert rows["label"].dtype == np.float32
    counts = rows["mask"] > 0
    expected = [multi_hot(manifest.videos[index].label) for index in rows["video"][counts]]
    assert rows["label"][counts].tolist() == expected


def test_every_row_of_a_batch_has_a_number_for_each_class_whoever_loads_it(manifest):
    expected = batches(manifest)
    for rows in expected:
        assert rows["label"].shape == (4, 3)
        check_rows(manifest, rows)
    for rows, others in zip(expected[1:], batches(manifest, first_step=1), strict=False):
        assert all(np.array_equal(rows[name], others[name]) for name in rows)
    halves = [batches(manifest, hosts=pipeline.Hosts(host, 2)) for host in (0, 1)]
    for rows, *parts in zip(expected, *halves, strict=True):
        assert np.array_equal(rows["label"], np.concatenate([part["label"] for part in parts]))


def test_a_test_has_them_too_and_zeros_where_it_is_filled_up(manifest):
    clips = pipeline.cropped_clips(manifest, "test", SAMPLING, pipeline.Protocol("uniform"))
    found = pipeline.test_batches(manifest, SAMPLING, clips, batch=3)
    with contextlib.closing(found):
        rows = list(found)
    for each in rows:
        check_rows(manifest, each)
    assert rows[-1]["mask"].tolist() == [1, 1, 0] and not rows[-1]["label"][-1].any()


def test_packed_they_are_the_same(manifest, tmp_path):
    import tensorflow_datasets as tfds

    from jax_video.data.preparing import packing

    settings = Packed("frames", RECORD_FRAMES, 24, 90)
    builder = packing.open_folder(tmp_path, manifest, settings)
    for shard in packing.shards(manifest, builder.data_dir, settings):
        packing.write_shard(shard)
    found = packing.finish(manifest, builder, tmp_path)
    assert [row.label for row in found.videos] == [row.label for row in manifest.videos]
    for rows, others in zip(batches(manifest), batches(found), strict=True):
        assert np.array_equal(rows["label"], others["label"]) and np.array_equal(rows["video"], others["video"])
    described = tfds.builder_from_directory(found.root).info.features["label"]
    assert isinstance(described, tfds.features.Sequence) and described.feature.names == list(CLASSES)
    record = packed.read_record(found.root, "train", 2)
    assert list(record["label"].int64_list.value) == [0, 2]


def test_a_part_of_the_training_videos_has_some_of_every_class(manifest):
    part = manifest.keep(0.5)
    kept = [video for _, video in part.select("train")]
    assert 6 <= len(kept) <= 10
    assert {label for video in kept for label in video.label} == {0, 1, 2}
    assert part == manifest.keep(0.5)


def test_the_rarest_label_decides_as_what_a_video_is_drawn():
    found = labels.strata([(0, 1), (0,), (0, 2), (0, 1), (), None])
    assert found == [1, 0, 2, 1, None, None]
    assert labels.strata([3, None, 1]) == [3, None, 1]


def test_the_table_of_a_set_says_how_many_labels_its_videos_have(manifest):
    counts = collections.Counter(len(row.label) for row in manifest.videos)
    mean = sum(size * number for size, number in counts.items()) / len(manifest.videos)
    said = checks.table(manifest, {}).splitlines()[0]
    expected = f"3 classes; labels of a video: {mean:.1f} on average, 2 at most, {counts[0]} have none"
    assert said == f"several: {expected}"
