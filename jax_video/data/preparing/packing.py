"""The packed form of a data set: frames as JPEGs in ArrayRecord shards that TFDS knows, read without TensorFlow.

The frames of a split's readable videos are stored video after video, RECORD_FRAMES of one video in each record, so that
a clip (`decoding/packed.py`) costs reading only its own records and decoding only its own frames. Where a video starts
follows from the videos before it; the manifest of the packed set stores it (`Video.first`). Shards hold the same number
of records each, and are written independently: by processes here, or by the workers of an Apache Beam pipeline.

TFDS takes half a second to import, so this module is imported where a set is packed, and nowhere else.
"""

import contextlib
import dataclasses
import datetime
import errno
import itertools
import os
import pathlib
import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds
import tqdm
from array_record.python import array_record_module

from jax_video.data import documents, remote
from jax_video.data.decoding import fetching, verified, video, workers
from jax_video.data.decoding.packed import RECORD_FRAMES, encoded
from jax_video.data.labels import Label
from jax_video.data.manifest import SPLITS, Manifest, Packed, Video
from jax_video.data.preparing import checks, packs
from jax_video.data.preparing.machines import Machines
from jax_video.errors import UnavailableError, UserError, VideoError, shown

# Records of a shard, at most. With frames of 340x256 pixels they are 350 MB and half a minute of work, which is lost if
# packing is stopped.
_SHARD_RECORDS, _PIXELS = 2048, 340 * 256
_PART = ".part"  # ends the name of a shard that is being written
_FAILED = ".failed"  # ends the name of a list beside a shard, until all are written: its videos that cannot be read
_FRESH = ".description"  # begins the name of a folder in which TFDS writes its description of the set


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Do nothing: TFDS's bucket has no packed set, and TFDS would leave a temporary folder behind."""


class PackedVideos(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder of a packed set; `tfds.builder_from_directory` finds it again.

    An example is a part of a video: the video's name and label, the place of the part's first frame in the video, and
    the frames, as JPEGs.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, folder: str | os.PathLike, source: Manifest, settings: Packed):
        self._source, self.settings = source, settings
        super().__init__(data_dir=os.fspath(folder), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        settings = self.settings._asdict() | {"manifest": self._source.hash, "set": shown(self._source.name)}
        return _Info(
            builder=self,
            features=features(self._source.classes, several=self._source.multilabel),
            description=f"The videos of {shown(self._source.name)}, packed by jax_video.",
            metadata=tfds.core.MetadataDict(settings),
        )

    def _split_generators(self, dl_manager):
        raise NotImplementedError("shards are written one by one, so that packing goes on where it was stopped")

    def _generate_examples(self):
        raise NotImplementedError


def features(classes: Sequence[str], *, several: bool = False) -> tfds.features.FeaturesDict:
    """The TFDS features of an example; `several`: whether videos may have several labels."""
    label = tfds.features.ClassLabel(names=list(classes)) if classes else tfds.features.Scalar(np.int64)
    if several:
        label = tfds.features.Sequence(label)
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Text(),  # name in the set that was packed
            "label": label,  # -1: not labelled
            "first": tfds.features.Scalar(np.int64),  # the first frame's place in the video
            "frames": tfds.features.Sequence(tfds.features.Text()),  # JPEGs; Text takes any bytes, without TensorFlow
        }
    )


class Part(NamedTuple):
    """Frames of one video in a shard."""

    entry: Video  # in the set that is packed
    start: int  # the first of the frames, a multiple of RECORD_FRAMES
    end: int  # one after the last


class Shard(NamedTuple):
    """One file to write."""

    path: str
    root: str  # of the videos
    classes: tuple[str, ...]
    settings: Packed
    parts: tuple[Part, ...]
    several: bool = False  # whether videos may have several labels

    @property
    def frames(self) -> int:
        return sum(part.end - part.start for part in self.parts)


def shards(source: Manifest, folder: str | os.PathLike, settings: Packed) -> list[Shard]:
    """All files of the packed set."""
    template = {split: _template(folder, split) for split in SPLITS}
    records = _shard_records(source)
    return [
        Shard(
            os.fspath(template[split].sharded_filepath(shard_index=number, num_shards=count)),
            source.root,
            source.classes,
            settings,
            tuple(_parts(entries, starts, number * records, (number + 1) * records)),
            source.multilabel,
        )
        for split, entries, starts, count in _layout(source)
        for number in range(count)
    ]


def _layout(source: Manifest) -> Iterator[tuple[str, list[Video], np.ndarray, int]]:
    """For each split: name, readable videos, the record at which each starts (and the last ends), number of shards."""
    records_each = _shard_records(source)
    for split in SPLITS:
        entries = [entry for _, entry in source.select(split)]
        if entries:
            records = [-(-entry.frames // RECORD_FRAMES) for entry in entries]
            starts = np.concatenate([[0], np.cumsum(records)])
            yield split, entries, starts, -(-int(starts[-1]) // records_each)


def _shard_records(source: Manifest) -> int:
    """Records in a shard: fewer if frames are large, since decoding them takes most of the time."""
    pixels = np.mean([entry.width * entry.height for entry in source.videos if entry.error is None])
    return max(1, min(_SHARD_RECORDS, round(_SHARD_RECORDS * _PIXELS / pixels)))


def _parts(entries: list[Video], starts: np.ndarray, first: int, last: int) -> Iterator[Part]:
    """The parts of videos in the records from `first` to before `last`."""
    begin = int(np.searchsorted(starts, first, side="right")) - 1
    end = int(np.searchsorted(starts[:-1], last, side="left"))
    for entry, start in zip(entries[begin:end], starts[begin:end].tolist(), strict=True):
        yield Part(entry, max(0, first - start) * RECORD_FRAMES, min(entry.frames, (last - start) * RECORD_FRAMES))


def _template(folder: str | os.PathLike, split: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        dataset_name=PackedVideos.name, data_dir=folder, split=split, filetype_suffix="array_record"
    )


def open_folder(
    folder: str | os.PathLike, source: Manifest, settings: Packed, contents: str | None = None
) -> PackedVideos:
    """Begin a packed set, or go on with one; remove what was left half written.

    Args:
      contents: a checksum of the content of its videos (`packs.checksum`); None: it is not known.

    Raises:
      UserError: the folder holds a set packed otherwise, from another manifest, or from other files.
    """
    found = packs.check(folder, settings, source.hash, contents)
    try:
        builder = PackedVideos(folder, source, settings)
    except Exception:  # TFDS's own files are damaged; `finish` writes them anew
        for path in pathlib.Path(folder).glob("*/*/*.json"):
            path.unlink()
        builder = PackedVideos(folder, source, settings)
    os.makedirs(builder.data_dir, exist_ok=True)
    for left in pathlib.Path(builder.data_dir).glob(f"*{_PART}"):
        left.unlink()
    for left in pathlib.Path(builder.data_dir).glob(f"{_FRESH}*"):
        shutil.rmtree(left)
    packs.write(folder, settings, source.hash, contents or found.get("contents"))
    return builder


def write_shard(shard: Shard) -> None:
    """Decode, resize, encode and write the records of one shard, whole or not at all.

    A video that cannot be read to the end of its part has no frames from there on, and is noted for `finish`. Any
    number of processes may write the same shard at once, wherever they run: the first that is done counts.

    Raises:
      OSError: the file cannot be written.
    """
    if is_whole(shard):
        return
    described = features(shard.classes, several=shard.several)
    serializer = tfds.core.ExampleSerializer(described.get_serialized_info())
    failures: dict[str, str] = {}  # name -> why it cannot be read
    temporary = f"{shard.path}.{uuid.uuid4().hex[:8]}{_PART}"
    try:
        writer = array_record_module.ArrayRecordWriter(temporary, "group_size:1,uncompressed")  # JPEGs are compressed
        try:
            for part in shard.parts:
                jpegs = _jpegs(shard.root, part, shard.settings, failures)
                for first in range(part.start, part.end, RECORD_FRAMES):
                    example = {
                        "video": encoded(part.entry.name),
                        "label": _stored(part.entry.label, shard.several),
                        "first": first,
                        "frames": list(itertools.islice(jpegs, RECORD_FRAMES)),
                    }
                    found = serializer.get_tf_example(described.encode_example(example))
                    writer.write(found.SerializeToString(deterministic=True))  # the same set gives the same bytes
        finally:
            if writer.is_open():
                writer.close()
    except BaseException as error:
        pathlib.Path(temporary).unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # ArrayRecord's; "write() failed: No space left on device; writing ..."
            raise OSError(errno.EIO, str(error), shard.path) from error
        raise
    if is_whole(shard):  # another process was done first; its note belongs to its file
        os.unlink(temporary)
        return
    note = pathlib.Path(f"{shard.path}{_FAILED}")
    if failures:
        documents.write(note, {"failures": failures})
    else:
        note.unlink(missing_ok=True)  # of a shard that was damaged
    remote.put_in_place(temporary, shard.path)


def _stored(label: Label, several: bool) -> int | list[int]:
    """A label as an example has it; -1: not labelled."""
    if several:
        return list(label) if isinstance(label, tuple) else [-1]
    return label if isinstance(label, int) else -1


def is_whole(shard: Shard) -> bool:
    """Whether a shard is there with all of its records, and the list of its videos that failed, if any, is readable."""
    try:
        reader = array_record_module.ArrayRecordReader(shard.path)
        records = reader.num_records()
        reader.close()
        _read_failures(shard.path)
    except (RuntimeError, ValueError, OSError):
        return False
    return records == sum(-(-(part.end - part.start) // RECORD_FRAMES) for part in shard.parts)


def _read_failures(path: str) -> dict[str, str]:
    """Why videos of a shard could not be packed: name -> reason. Raises documents.Damaged if the list is damaged."""
    with contextlib.suppress(FileNotFoundError):
        return documents.read(pathlib.Path(f"{path}{_FAILED}"), {"failures": {"*": str}})["failures"]
    return {}


def _jpegs(root: str, part: Part, settings: Packed, failures: dict[str, str]) -> Iterator[bytes]:
    """The frames of a part as JPEGs; where the video fails they end, and `failures` gets the reason."""
    entry, quality = part.entry, (cv2.IMWRITE_JPEG_QUALITY, settings.quality)
    count = 0
    try:
        path = fetching.local(os.path.join(root, entry.path))
        frames = video.frames_in_order(
            path,
            first=entry.first + part.start,
            index=verified.index(path, entry),
            short_side=min(settings.short_side, entry.width, entry.height),
        )
        for frame in itertools.islice(frames, part.end - part.start):
            yield cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)[1].tobytes()
            count += 1
        if count < part.end - part.start:
            raise VideoError(entry.path, f"only {part.start + count} of {entry.frames} frames decode")
    except UnavailableError:  # nothing is known of the video: packing stops
        raise
    except VideoError as error:
        failures[entry.name] = error.reason


def samples(source: Manifest, settings: Packed) -> list[Shard]:
    """A few frames of a few videos all over the set, for `measure`."""
    entries = [entry for entry in source.videos if entry.error is None]
    return [
        Shard("", source.root, source.classes, settings, (Part(entry, 0, min(entry.frames, 2 * RECORD_FRAMES)),))
        for entry in entries[:: -(-len(entries) // 24)]
    ]


def measure(sample: Shard) -> tuple[int, int, float]:
    """(frames, bytes, seconds) of packing a sample, which is not written."""
    began = time.perf_counter()
    sizes = [len(jpeg) for part in sample.parts for jpeg in _jpegs(sample.root, part, sample.settings, {})]
    return len(sizes), sum(sizes), time.perf_counter() - began


def finish(source: Manifest, builder: PackedVideos, folder: str | os.PathLike) -> Manifest:
    """Describe the written shards for TFDS; write and return the manifest of the packed set.

    This manifest has the videos of the source's manifest, in the same order. If it is there already, only the folder of
    its flow is brought up to date, and videos are marked that could not be read when damaged shards were packed anew.
    """
    path = pathlib.Path(folder, "manifest.jsonl")
    notes = list(pathlib.Path(builder.data_dir).glob(f"*{_FAILED}"))
    layout, records_each = list(_layout(source)), _shard_records(source)
    infos = [
        _split_info(builder.data_dir, split, int(starts[-1]), count, records_each) for split, _, starts, count in layout
    ]
    _describe(source, builder, infos)
    failed = {name: why for note in notes for name, why in _read_failures(str(note).removesuffix(_FAILED)).items()}
    if path.exists():
        try:
            done = Manifest.read(path)
        except UserError as error:
            raise UserError(f"{error}. As it is of a packed set: remove {folder}, to pack it again") from error
        lost = [row.error is None and row.name in failed for row in done.videos]  # in shards that were packed anew
        if done.flow != source.flow or any(lost):  # flow that was stored since
            marked = zip(done.videos, lost, strict=True)
            videos = tuple(row.broken(failed[row.name]) if is_lost else row for row, is_lost in marked)
            done = dataclasses.replace(done, flow=source.flow, videos=videos)
            done.write(path)
    else:
        first = {
            entry.name: start * RECORD_FRAMES
            for _, entries, starts, _ in layout
            for entry, start in zip(entries, starts.tolist(), strict=False)
        }
        rows = tuple(_packed_row(row, first, failed) for row in source.videos)
        root = os.fspath(remote.absolute(builder.data_dir))
        done = dataclasses.replace(source, root=root, videos=rows, packed=builder.settings)
        done.write(path)
    for note in notes:
        note.unlink()
    return done


def _describe(source: Manifest, builder: PackedVideos, infos: list[tfds.core.SplitInfo]) -> None:
    """Write TFDS's description of the set; files that would be the same are left as they are."""
    with tempfile.TemporaryDirectory(prefix=_FRESH, dir=builder.data_dir) as folder:
        fresh = PackedVideos(folder, source, builder.settings)
        fresh.info.set_splits(tfds.core.SplitDict(infos))
        fresh.info.write_to_directory(folder)
        for path in filter(pathlib.Path.is_file, pathlib.Path(folder).iterdir()):
            there = pathlib.Path(builder.data_dir, path.name)
            if not there.is_file() or there.read_bytes() != path.read_bytes():
                remote.put_in_place(path, there)


def _split_info(
    folder: str | os.PathLike, split: str, records: int, shards: int, records_each: int
) -> tfds.core.SplitInfo:
    template = _template(folder, split)
    size = sum(os.path.getsize(file) for file in template.sharded_filepaths(shards))
    lengths = [min(records_each, records - number * records_each) for number in range(shards)]
    return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)


def _packed_row(row: Video, first: dict[str, int], failures: dict[str, str]) -> Video:
    """The row of a video in the packed set. Width and height stay the file's, so that clips have the same sizes."""
    if row.error is not None:
        return row
    if row.name in failures:
        return row.broken(failures[row.name])
    return dataclasses.replace(row, first=first[row.name], index=None)


def pack(
    prepared: Manifest, settings: Packed, out: pathlib.Path, machines: Machines, say: Callable[[str], None]
) -> Manifest:
    """Write the shards of a packed set that are not there yet; write and return its manifest.

    Args:
      prepared: the set.
      settings: what the frames become.
      out: the set's folder; the packed set is in its folder `packed`.
      machines: where it is packed.
      say: called with how much space and time it will take, and with what became of it.

    Raises:
      UserError: the folder holds another set, the disk has no room, or a reason other than the videos stopped packing.
    """
    folder = out / "packed"
    builder = open_folder(folder, prepared, settings, packs.checksum(prepared, checks.digests(out, prepared)))
    everything = shards(prepared, builder.data_dir, settings)
    waiting = [shard for shard in everything if not is_whole(shard)]
    if damaged := [os.path.basename(shard.path) for shard in waiting if os.path.lexists(shard.path)]:
        say(f"packed anew, as they are damaged: {len(damaged)} shards, {damaged[0]} first")
    total, frames = (sum(shard.frames for shard in each) for each in (everything, waiting))
    if waiting:
        size, seconds = _measure_frame(prepared, settings, machines)
        free = shutil.disk_usage(folder).free
        hours = datetime.timedelta(seconds=round(seconds * frames / machines.workers))
        say(
            f"packing {frames:,} frames into {folder}: about {size * frames / 1e9:,.2f} GB, of {free / 1e9:,.0f} GB "
            f"that are free, in {hours} on this machine"
        )
        if size * frames > free:
            raise UserError(f"{folder} has no room for it: take a smaller --pack_side or --pack_quality, or free some")

    with tqdm.tqdm(desc="packing", total=total, initial=total - frames, unit=" frames") as progress:
        for which, reason in machines.run(waiting, write_shard, _share, folder):
            name = os.path.basename(waiting[which].path)
            if isinstance(reason, workers.NoVerdict):
                workers.stop_at({name: reason})
            if reason is not None and reason.startswith(workers.LATE):
                raise UserError(f"{name}: {reason}: give a larger --timeout, which is {machines.timeout:g} s now")
            if reason is not None:
                raise UserError(
                    f"{name}: {reason}. One of its videos cannot be decoded any more: "
                    f"python -m jax_video.prepare manifest --out={shlex.quote(str(out))} --check=full"
                )
            progress.update(waiting[which].frames)
    done = finish(prepared, builder, folder)
    size = sum(os.path.getsize(shard.path) for shard in everything)
    say(f"packed: {size / 1e9:,.2f} GB in {len(everything):,} shards in {folder}")
    lost = {
        row.name: row.error
        for row, was in zip(done.videos, prepared.videos, strict=True)
        if row.error is not None and row.error != was.error
    }
    broken = folder / "broken.csv"
    checks.write_reasons(broken, done, lost)
    for line in checks.first_reasons("not packed", lost, broken):
        say(line)
    if lost:
        say(f"not packed: {len(lost):,} in all, in {broken}; remove {folder} to pack again")
    say("")
    return done


def _share(shard: Shard) -> float:
    """How many times as long as a usual piece of work, a thousand frames, a shard may take."""
    return shard.frames / 1000


def _measure_frame(prepared: Manifest, settings: Packed, machines: Machines) -> tuple[float, float]:
    """(bytes, seconds of one process) for each frame of the set, estimated from a few."""
    some = samples(prepared, settings)
    found = dict(workers.run(some, measure, workers=machines.workers, timeout=machines.timeout))
    strange = {which: result for which, result in found.items() if isinstance(result, workers.NoVerdict)}
    workers.stop_at({some[which].parts[0].entry.name: result for which, result in strange.items()})
    measured = [result for result in found.values() if not isinstance(result, str)]
    if not any(frames for frames, *_ in measured):
        why = next((result for result in found.values() if isinstance(result, str)), "no frames")
        raise UserError(f"none of {len(found)} videos can be read, the first as: {why}. Look again with --check=full")
    frames, size, seconds = map(sum, zip(*measured, strict=True))
    return size / frames, seconds / frames
