"""The packed form: the same frames as the files give, but for JPEG; any shard can be written on its own."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import shutil

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from jax_video.data import pipeline, reader
from jax_video.data.decoding import packed, probing
from jax_video.data.manifest import MISSING, Manifest, Packed, Video
from jax_video.data.preparing import packing, packs
from jax_video.data.preparing.preparation import Preparation
from jax_video.data.sources import motions
from jax_video.data.sources import tfds as tfds_source
from jax_video.errors import UserError, VideoError

SETTINGS = Packed("frames", packed.RECORD_FRAMES, short_side=32, quality=100)
WIDTH, HEIGHT = 64, 48
FRAMES = {"a.mp4": 20, "sub/é b.mp4": 8, "c.mp4": 1, "d.mp4": 33, "t.mp4": 9}


def smooth(frames: int, seed: int) -> np.ndarray:
    """Frames that JPEG hardly changes: uint8 [frames, HEIGHT, WIDTH, 3], each of its own brightness."""
    noise = np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH, 3))
    texture = cv2.GaussianBlur(noise, (0, 0), 6)
    images = 60 + 5 * np.arange(frames)[:, None, None, None] + 20 * texture / texture.std()
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Manifest:
    root = tmp_path_factory.mktemp("videos")
    (root / "sub").mkdir()
    rows = []
    for number, (path, frames) in enumerate(FRAMES.items()):
        motions.encode(root / path, smooth(frames, number))
        split = "test" if path == "t.mp4" else "train"
        rows.append(Video(path, number % 2, split, error=None, source=path, **vars(probing.probe(root / path))))
    rows.insert(1, Video("missing.mp4", 1, "train", 0, 0.0, 0, 0, MISSING, "missing"))
    return Manifest("small", ("even", "odd"), str(root), tuple(rows))


@pytest.fixture
def shards_of_two_records(monkeypatch):
    monkeypatch.setattr(packing, "_SHARD_RECORDS", 2)


def pack(source: Manifest, folder, settings: Packed = SETTINGS) -> Manifest:
    builder = packing.open_folder(folder, source, settings)
    for shard in packing.shards(source, builder.data_dir, settings):
        packing.write_shard(shard)
    return packing.finish(source, builder, folder)


def test_packed_frames_are_those_of_the_files(source, tmp_path, shards_of_two_records):
    done = pack(source, tmp_path)
    assert Manifest.read(tmp_path / "manifest.jsonl") == done
    assert [row.path for row in done.videos] == [row.path for row in source.videos]
    assert done.videos[1] == source.videos[1]
    for entry, row in zip(source.videos, done.videos, strict=True):
        if entry.error is not None:
            continue
        assert row == dataclasses.replace(entry, first=row.first, index=None)
        indices = np.random.default_rng(0).integers(0, entry.frames, 12)
        for side in (32, 16):
            expected = reader.decode(source, entry, indices, short_side=side)
            found = reader.decode(done, row, indices, short_side=side)
            assert found.dtype == np.uint8 and found.shape == expected.shape
            assert np.abs(found.astype(int) - expected).mean() < 1.5


def test_a_shard_may_be_written_twice_and_at_once(source, tmp_path):
    """The first that is done counts, with what it noted, also where the others could read more or less."""
    plain, lost = pack(source, tmp_path / "plain"), dataclasses.replace(source, root=str(tmp_path / "nowhere"))
    builder = packing.open_folder(tmp_path / "packed", source, SETTINGS)
    everything = packing.shards(source, builder.data_dir, SETTINGS)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(packing.write_shard, everything * 4))
    for shard in (*everything, *packing.shards(lost, builder.data_dir, SETTINGS)):
        packing.write_shard(shard)
    done = packing.finish(source, builder, tmp_path / "packed")
    assert done.videos == plain.videos
    files = {path.name: path.read_bytes() for path in pathlib.Path(done.root).iterdir()}
    assert files == {path.name: path.read_bytes() for path in pathlib.Path(plain.root).iterdir()}


def test_the_pipeline_takes_the_same_clips_of_it(source, tmp_path):
    done = pack(source, tmp_path)
    sampling = pipeline.Sampling(frames=4, stride=2, short_side=32, size=24)
    batches = [
        next(pipeline.train_batches(manifest, sampling, batch=4, seed=3, workers=0)) for manifest in (source, done)
    ]
    np.testing.assert_array_equal(batches[0]["video"], batches[1]["video"])
    assert np.abs(batches[0]["rgb"].astype(int) - batches[1]["rgb"]).mean() < 1.5
    assert not batches[1]["failed"].any()


def test_tfds_reads_it_by_itself(source, tmp_path, shards_of_two_records):
    done = pack(source, tmp_path)
    builder = tfds.builder_from_directory(done.root)
    assert builder.info.metadata["manifest"] == source.hash and builder.info.metadata["short_side"] == 32
    assert builder.info.features["label"].names == ["even", "odd"]
    examples = list(builder.as_data_source("train"))
    assert len(examples) == sum(
        -(-frames // packed.RECORD_FRAMES) for name, frames in FRAMES.items() if name != "t.mp4"
    )
    assert len(builder.info.splits["train"].filepaths) == -(-len(examples) // 2)
    assert [example["first"] for example in examples if example["video"] == b"d.mp4"] == [0, 8, 16, 24, 32]
    assert sum(len(example["frames"]) for example in examples) == 20 + 8 + 1 + 33
    image = cv2.imdecode(np.frombuffer(examples[0]["frames"][0], np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (32, 43, 3)


def test_a_shard_written_again_is_the_same(source, tmp_path, shards_of_two_records):
    done = pack(source, tmp_path)
    shard = packing.shards(source, done.root, SETTINGS)[2]
    with open(shard.path, "rb") as file:
        before = file.read()
    os.unlink(shard.path)
    packing.write_shard(shard)
    with open(shard.path, "rb") as file:
        assert file.read() == before


def test_a_video_that_fails_is_left_out_and_the_others_stay_where_they_are(source, tmp_path, shards_of_two_records):
    longer = tuple(
        dataclasses.replace(row, frames=24, index=None) if row.path == "a.mp4" else row for row in source.videos
    )
    claimed = dataclasses.replace(source, videos=longer)
    done = pack(claimed, tmp_path)
    assert done.videos[0].error == "only 20 of 24 frames decode" and done.videos[0].frames == 0
    for entry, row in list(zip(claimed.videos, done.videos, strict=True))[2:]:
        indices = np.arange(entry.frames)
        expected = reader.decode(source, entry, indices, short_side=32)
        assert np.abs(reader.decode(done, row, indices, short_side=32).astype(int) - expected).mean() < 1.5


def test_a_video_that_is_gone_when_a_damaged_shard_is_packed_anew_is_left_out(source, tmp_path, shards_of_two_records):
    shutil.copytree(source.root, tmp_path / "videos")
    source = dataclasses.replace(source, root=str(tmp_path / "videos"))
    before = pack(source, tmp_path / "packed")
    assert before.videos[0].error is None
    for shard in packing.shards(source, before.root, SETTINGS):
        if any(part.entry.path == "a.mp4" for part in shard.parts):
            pathlib.Path(shard.path).write_bytes(b"damaged")
    (tmp_path / "videos" / "a.mp4").unlink()
    done = pack(source, tmp_path / "packed")
    assert done.videos[0].error == "no such file" and done.videos[2:] == before.videos[2:]
    assert Manifest.read(tmp_path / "packed" / "manifest.jsonl").videos == done.videos


def test_another_packing_is_not_mixed_in(source, tmp_path):
    pack(source, tmp_path)
    with pytest.raises(UserError, match=r"quality 100 \(asked for: 90\): remove that folder"):
        packing.open_folder(tmp_path, source, SETTINGS._replace(quality=90))
    with pytest.raises(UserError, match="the set has changed since .* was packed from it"):
        packing.open_folder(tmp_path, dataclasses.replace(source, videos=source.videos[:3]), SETTINGS)


def test_a_packing_of_files_that_were_replaced_is_not_gone_on_with(source, tmp_path):
    about = tmp_path / "packed.json"
    packing.open_folder(tmp_path, source, SETTINGS)  # as earlier versions, which did not look at what files hold
    assert "contents" not in about.read_text()
    packing.open_folder(tmp_path, source, SETTINGS, "abc")
    packing.open_folder(tmp_path, source, SETTINGS)  # where it is not known
    packing.open_folder(tmp_path, source, SETTINGS, "abc")
    with pytest.raises(UserError, match="videos of the set have been replaced since .* was packed from it: remove"):
        packing.open_folder(tmp_path, source, SETTINGS, "def")

    digests = {row.name: "1" * 16 for row in source.videos if row.error is None}
    whole = packs.checksum(source, digests)
    assert packs.checksum(source, digests | {"another": "2" * 16}) == whole
    for name in digests:
        assert packs.checksum(source, digests | {name: "2" * 16}) not in (whole, None)
        assert packs.checksum(source, {key: digests[key] for key in digests if key != name}) is None


def test_flow_that_was_stored_since_is_found(source, tmp_path):
    """Beside the packed set, so that both can move together, in whatever way the folder is named."""
    way = tmp_path / ".." / tmp_path.name / "set"
    pack(source, way / "packed")
    with_flow = dataclasses.replace(source, flow=str(way / "flow"))
    assert pack(with_flow, way / "packed").flow == str(way / "flow")
    (tmp_path / "set").rename(tmp_path / "moved")
    moved = Manifest.read(tmp_path / "moved" / "packed" / "manifest.jsonl")
    assert moved.flow == str(tmp_path / "moved" / "flow")
    assert reader.decode(moved, moved.videos[0], np.array([3]), short_side=32).shape == (1, 32, 43, 3)


def test_shards_of_large_frames_hold_fewer(source):
    def largest(width: int, height: int) -> int:
        rows = tuple(
            dataclasses.replace(row, frames=10**5, width=width, height=height) if row.error is None else row
            for row in source.videos
        )
        return max(s.frames for s in packing.shards(dataclasses.replace(source, videos=rows), "somewhere", SETTINGS))

    assert largest(320, 240) == largest(340, 256) == 2048 * packed.RECORD_FRAMES
    assert largest(1920, 1080) < 2048 * packed.RECORD_FRAMES / 20


def test_clips_larger_than_the_packed_frames_are_refused(source, tmp_path):
    done = pack(source, tmp_path)
    small, large = (pipeline.Sampling(frames=2, stride=1, short_side=side, size=24) for side in (32, 40))
    pipeline.check_stored(done, small)
    with pytest.raises(UserError, match="short side of 32 pixels, and the clips ask for 40: .* --pack_side=40"):
        pipeline.check_stored(done, large)
    as_they_are = pack(source, tmp_path / "large", SETTINGS._replace(short_side=48))
    pipeline.check_stored(as_they_are, dataclasses.replace(large, short_side=99))  # No file is larger.


def test_a_part_of_a_longer_file(source, tmp_path):
    part = dataclasses.replace(source.videos[4], first=13, frames=10)
    cut = dataclasses.replace(source, videos=(part,))
    done = pack(cut, tmp_path)
    expected = reader.decode(source, source.videos[4], np.arange(13, 23), short_side=32)
    found = reader.decode(done, done.videos[0], np.arange(10), short_side=32)
    assert np.abs(found.astype(int) - expected).mean() < 1.5


def test_frames_are_not_enlarged(source, tmp_path):
    done = pack(source, tmp_path, SETTINGS._replace(short_side=500))
    example = tfds.builder_from_directory(done.root).as_data_source("test")[0]
    assert cv2.imdecode(np.frombuffer(example["frames"][0], np.uint8), cv2.IMREAD_COLOR).shape == (HEIGHT, WIDTH, 3)


def test_damage_is_an_unreadable_video(source, tmp_path):
    done = pack(source, tmp_path)
    moved = dataclasses.replace(done.videos[0], first=done.videos[0].first + 8 * packed.RECORD_FRAMES)
    with pytest.raises(VideoError, match="another video's"):
        reader.decode(done, moved, np.array([0]), short_side=32)
    with pytest.raises(VideoError, match="there is no record 5000"):
        reader.decode(done, dataclasses.replace(moved, first=5000 * packed.RECORD_FRAMES), np.array([0]), short_side=32)
    (path,) = [
        shard.path for shard in packing.shards(source, done.root, SETTINGS) if "test" in os.path.basename(shard.path)
    ]
    gone = shutil.copytree(done.root, tmp_path / "gone")
    os.unlink(gone / os.path.basename(path))
    os.truncate(path, 100)
    for root in (done.root, str(gone)):
        with pytest.raises(VideoError, match="its packed frames cannot be read"):
            reader.decode(dataclasses.replace(done, root=root), done.videos[-1], np.array([0]), short_side=32)


def test_a_folder_that_cannot_be_written(source, tmp_path):
    shard = packing.shards(source, tmp_path / "nowhere", SETTINGS)[0]
    with pytest.raises(OSError, match="No such file or directory"):
        packing.write_shard(shard)


def test_an_estimate_is_near_what_comes_out(source, tmp_path):
    measured = [packing.measure(sample) for sample in packing.samples(source, SETTINGS)]
    assert [frames for frames, *_ in measured] == [16, 8, 1, 16, 9] and all(seconds > 0 for *_, seconds in measured)
    size = sum(size for _, size, _ in measured) / sum(frames for frames, *_ in measured)
    builder = tfds.builder_from_directory(pack(source, tmp_path).root)
    examples = [example for split in ("train", "test") for example in builder.as_data_source(split)]
    total = sum(len(frame) for example in examples for frame in example["frames"])
    assert 0.8 * total < size * sum(FRAMES.values()) < 1.25 * total


class Clips(tfds.core.GeneratorBasedBuilder):
    """A set as somebody else would store it with TFDS."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, folder, videos=("clip",), labels=("label",)):
        self.videos, self.labels = videos, labels
        super().__init__(data_dir=folder, file_format="array_record")

    def _info(self):
        clip = tfds.features.Sequence(tfds.features.Image(encoding_format="jpeg"))
        described = {name: clip for name in self.videos}
        described |= {name: tfds.features.ClassLabel(names=[f"{name} 0", f"{name} 1"]) for name in self.labels}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(described))

    def _split_generators(self, dl_manager):
        raise NotImplementedError

    def _generate_examples(self):
        raise NotImplementedError


def store_clips(folder, *, counts, **features):
    """A video of i + 2 frames that brighten from i; of several videos and labels, the next ones are other by one."""
    builder = Clips(folder, **features)
    os.makedirs(builder.data_dir)
    splits = []
    for name, count in counts.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=builder.data_dir, dataset_name="clips", split=name, filetype_suffix="array_record"
        )
        writer = ArrayRecordWriter(os.fspath(template.sharded_filepath(shard_index=0, num_shards=1)), "group_size:1")
        for i in range(count):
            example = {}
            for place, video in enumerate(builder.videos, i):
                example[video] = [cv2.imencode(".jpg", image)[1].tobytes() for image in smooth(place + 2, i)]
            example |= {label: place % 2 for place, label in enumerate(builder.labels, i)}
            writer.write(builder.info.features.serialize_example(example))
        writer.close()
        splits.append(tfds.core.SplitInfo(name=name, shard_lengths=[count], num_bytes=1, filename_template=template))
    builder.info.set_splits(tfds.core.SplitDict(splits))
    builder.info.write_to_directory(builder.data_dir)
    return folder


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    return store_clips(tmp_path_factory.mktemp("tensorflow_datasets"), counts={"train": 5, "validation": 2})


def test_of_several_labels_or_videos_the_one_that_is_called_so_or_asked_for_counts(tmp_path):
    def found(names, role, columns=()):
        folder = tmp_path / "-".join(names)
        if not folder.exists():
            store_clips(folder, counts={"train": 1}, **{f"{role}s": names})
        set_ = tfds_source.find("clips", folder, columns=columns)
        (row,) = set_.videos
        return set_.classes[0], row.label, row.frames, set_.packed.feature

    assert found(("actor", "label"), "label") == ("label 0", 1, 2, "clip")
    assert found(("verb", "noun"), "label", ("label=noun",)) == ("noun 0", 1, 2, "clip")
    assert found(("depth", "video"), "video") == ("label 0", 0, 3, "video")
    assert found(("depth", "flow"), "video", ("video=flow",)) == ("label 0", 0, 3, "flow")
    for names, role in ((("verb", "noun"), "label"), (("depth", "flow"), "video")):
        with pytest.raises(UserError, match=f"2 features that may be the {role}: .*{names[0]}.*--columns={role}="):
            found(names, role)
        with pytest.raises(UserError, match=f"--columns={role}=other: the {role} of clips may be .*{names[1]}"):
            found(names, role, (f"{role}=other",))
        with pytest.raises(UserError, match="--columns=split=x: expected video=NAME or label=NAME, features of clips"):
            found(names, role, ("split=x",))


def test_a_set_that_tfds_holds(tfds_folder, tmp_path, capsys):
    found = tfds_source.find("clips", tfds_folder)
    assert found.classes == ("label 0", "label 1")
    assert sorted((row.frames, row.label) for row in found.videos if row.split == "train") == [
        (2, 0), (3, 1), (4, 0), (5, 1), (6, 0)
    ]  # fmt: skip
    assert [row.split for row in found.videos].count("val") == 2
    task = Preparation("tfds:clips", tmp_path / "set", videos=tfds_folder)
    assert list(task.find().notes) == ["no videos for test"]
    store_clips(tmp_path / "other", counts={"train": 1, "extra": 3})
    capsys.readouterr()
    assert len(tfds_source.find("clips", tmp_path / "other").videos) == 1
    assert "warning: splits of clips that are left out: extra (3)" in capsys.readouterr().err
    for row in found.videos:
        images = reader.decode(found, row, np.arange(row.frames), short_side=24)
        assert images.shape == (row.frames, 24, 32, 3)
        brightness = images.mean((1, 2, 3))
        np.testing.assert_allclose(np.diff(brightness), 5, atol=0.5)


def test_tfds_sets_that_cannot_be_read_say_so(tfds_folder, tmp_path):
    with pytest.raises(UserError, match=r"no set ucf101 in .*: TFDS finds clips there"):
        tfds_source.find("ucf101", tfds_folder)
    (tmp_path / "clips" / "1.0.0").mkdir(parents=True)
    for path in (tfds_folder / "clips" / "1.0.0").glob("*.*"):
        (tmp_path / "clips" / "1.0.0" / path.name).write_bytes(path.read_bytes())
    about = tmp_path / "clips" / "1.0.0" / "dataset_info.json"
    text = about.read_text()
    about.write_text(text.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="stored as tfrecord, which only TensorFlow reads"):
        tfds_source.find("clips", tmp_path)
    about.write_text(text)
    described = tmp_path / "clips" / "1.0.0" / "features.json"
    content = json.loads(described.read_text())
    content["featuresDict"]["features"]["clip"] = {
        "pythonClassName": "tensorflow_datasets.core.features.video_feature.Video",
        "video": {"shape": {"dimensions": ["-1", "48", "64", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"},
    }
    described.write_text(json.dumps(content))
    with pytest.raises(UserError, match="pip install tensorflow"):
        tfds_source.find("clips", tmp_path)


def test_a_part_of_a_file_that_an_earlier_version_has_packed(source, tmp_path, monkeypatch):
    """It stored the path alone, as a file had one part."""
    part = dataclasses.replace(source.videos[0], span=(0.4, 0.8), first=10, frames=10)
    asked = dataclasses.replace(source, videos=(part,))
    with monkeypatch.context() as earlier:
        earlier.setattr(Video, "name", property(lambda row: row.path))
        done = pack(asked, tmp_path)
    found = reader.decode(done, done.videos[0], np.arange(10), short_side=None)
    assert np.abs(found.mean((1, 2, 3)) - smooth(20, 0)[10:].mean((1, 2, 3))).max() < 2
