"""From a manifest to batches: the Grain pipelines of training and of testing.

A sample depends on (seed, position in the run) alone, never on the number of workers, hosts or devices, nor on where a
run was resumed.
"""

import collections
import ctypes
import dataclasses
import functools
import gc
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Hashable, Sequence
from typing import Any, TypedDict, cast

import grain
import numpy as np
from absl import flags

from jax_video.data import labels, processes, remote, transforms
from jax_video.data.decoding import flow
from jax_video.data.manifest import Manifest
from jax_video.data.samples import (
    CHANNELS,
    CroppedClip,
    Sampling,
    check_rates,
    cut,
    flips,
    load,
    looked_at,
    random_clips,
)
from jax_video.data.samples import Protocol as Protocol  # for those who call `test_batches`
from jax_video.data.samples import cropped_clips as cropped_clips
from jax_video.errors import UserError, VideoError

_NO_LABEL = labels.target(None, 0, several=False)
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Batch(TypedDict, total=False):
    """What a step gets: B rows, as NumPy arrays until they are placed on devices; of rgb and flow what is asked for."""

    rgb: np.ndarray  # [B, T, H, W, 3] or, of several clips, [B, N, T, H, W, 3], uint8, normalised on the device
    flow: np.ndarray  # [B, T, H, W, 20] or, of several clips, [B, N, ...], uint8: x and y of each frame's ten fields
    label: np.ndarray  # [B] int32; with several labels [B, K] float32 (labels.target)
    video: np.ndarray  # [B] int32, index in the manifest
    mask: np.ndarray  # [B] float32, 0 = padding or an unreadable video (test only)
    failed: np.ndarray  # [B] int32, 1 + manifest index of an unreadable video (training takes another sample), or 0


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Which process this is and of how many; each loads its contiguous rows of every global batch."""

    index: int = 0
    count: int = 1


def train_batches(
    manifest: Manifest,
    sampling: Sampling,
    *,
    batch: int,
    seed: int,
    first_step: int = 0,
    workers: int | None = 0,
    hosts: Hosts = Hosts(),  # noqa: B008, frozen
    balanced: bool = False,
) -> Generator[Batch, None, None]:
    """Endless shuffled batches of random clips of the training videos, this host's rows of each global batch.

    Batches run on over the ends of epochs, so none is smaller. Starting at `first_step` gives the same batches as
    having drawn the ones before.

    Args:
      balanced: all classes come equally often, whatever their numbers of videos (`training_order`).

    Raises:
      UserError: no readable training video, or, while iterating, none of them can be read any more.
    """
    videos = manifest.select("train")
    if not videos:
        raise UserError(f"manifest {manifest.name!r} has no readable training video: look at prepare's table.")
    row = functools.partial(_train_sample, manifest, np.array([index for index, _ in videos]), sampling)
    order = training_order([video.label for _, video in videos], seed, balanced=balanced)
    batches = _HostRows(order.random_map(row), batch, hosts).batch(batch // hosts.count)[first_step:]
    return _iterate(batches, workers)


def training_order(labels: Sequence[Hashable], seed: int, *, balanced: bool = False) -> grain.MapDataset:
    """The endless order of training, as places in `labels`, the labels of the training videos.

    Each place comes once in every epoch. If `balanced`, each class comes equally often instead, whatever its number of
    videos: in each round every class once, in a new order; and within a class each place once before any comes again.
    """
    return _Balanced(labels, seed) if balanced else grain.MapDataset.range(len(labels)).seed(seed).shuffle().repeat()


def test_batches(
    manifest: Manifest,
    sampling: Sampling,
    cropped: Sequence[CroppedClip],
    *,
    batch: int,
    workers: int | None = 0,
    hosts: Hosts = Hosts(),  # noqa: B008, frozen
) -> Generator[Batch, None, None]:
    """Batches of cropped clips, in the order of `test_rows`; rows that only fill a batch up have mask 0."""
    rows = test_rows(cropped, batch)
    row = functools.partial(_test_sample, manifest, sampling, list(cropped), rows)
    batches = _HostRows(grain.MapDataset.range(len(rows)).map(row), batch, hosts).batch(batch // hosts.count)
    return _iterate(batches, workers)


def test_batch(manifest: Manifest, sampling: Sampling, cropped: Sequence[CroppedClip], *, batch: int) -> Batch:
    """One batch of at most `batch` cropped clips of one shape, made at once in this thread, without reading ahead."""
    rows = test_rows(cropped, batch)
    samples: list[Any] = [_test_sample(manifest, sampling, list(cropped), rows, place) for place in range(len(rows))]
    return cast(Batch, {name: np.stack([sample[name] for sample in samples]) for name in samples[0]})


def batch_of(clips_: Sequence[dict[str, np.ndarray]], size: int) -> Batch:
    """A batch of clips of one shape, which `samples.cut` gave; rows that only fill it up have mask 0."""
    blank = {name: np.zeros_like(frames) for name, frames in clips_[0].items()}
    rows: list[Any] = [_row(clip, _NO_LABEL, 0, mask=1, failed=0) for clip in clips_]
    rows += [_row(blank, _NO_LABEL, 0, mask=0, failed=0)] * (size - len(rows))
    return cast(Batch, {name: np.stack([row[name] for row in rows]) for name in rows[0]})


def test_rows(cropped: Sequence[CroppedClip], batch: int) -> list[tuple[int, bool]]:
    """(place in `cropped`, whether the row counts and is not padding) of every row of the test's batches.

    All rows of a batch have one shape: rows come shape by shape, and each shape is filled up to whole batches.
    """
    shapes: dict[tuple, list[int]] = collections.defaultdict(list)
    for place, clip in enumerate(cropped):
        shapes[clip.size, clip.frames.shape].append(place)
    return [
        row
        for places in shapes.values()
        for row in [(place, True) for place in places] + [(places[0], False)] * (-len(places) % batch)
    ]


def check_stored(manifest: Manifest, sampling: Sampling) -> set[str]:
    """Check that what is stored fits the clips; return the names of the few videos whose stored flow is missing.

    Raises:
      UserError: packed frames are smaller than the clips, stored flow was made otherwise or is missing for many videos,
        or a frame rate that clips need is not known.
    """
    check_rates(manifest, sampling)
    side = max(sampling.short_side, *sampling.jitter, 0)
    least = manifest.packed.short_side if manifest.packed else 0
    if 0 < least < side and any(min(entry.width, entry.height) > least for entry in manifest.videos):
        raise UserError(
            f"{manifest.name!r} is packed with a short side of {least} pixels, and the clips ask for {side}: "
            f"they would be enlarged. Pack it again with --pack_side={side}, or set --config.clip.short_side={least}"
        )
    if "flow" in sampling.streams and manifest.flow is not None:
        if remote.is_remote(manifest.flow):
            raise UserError(
                f"the flow of {manifest.name!r} is in {manifest.flow}, but it is read from local disks only: copy the "
                "set, its flow included, and give --config.data.manifest the copy."
            )
        flow.check_made(manifest.flow, sampling.flow_method, sampling.short_side)
        return flow.check_stored(manifest)
    return set()


def given_up(manifest: Manifest, streams: Sequence[str]) -> set[str]:
    """The names of the videos that lack one of the streams, since prepare could not compute their flow."""
    return flow.given_up(manifest) if "flow" in streams else set()


def _train_sample(
    manifest: Manifest, indices: np.ndarray, sampling: Sampling, position: int, rng: np.random.Generator
) -> Batch:
    failed = 0
    for attempt in range(len(indices)):
        index = int(indices[(position + attempt) % len(indices)])
        entry = manifest.videos[index]
        wanted = random_clips(entry, sampling, rng)
        least, most = sampling.jitter or (sampling.short_side,) * 2
        try:
            streams = load(manifest, entry, wanted, sampling, short_side=int(rng.integers(least, most + 1)))
        except VideoError:
            failed = failed or 1 + index
            continue
        height, width = next(iter(streams.values())).shape[1:3]
        box = transforms.draw_box(height, width, sampling.size, sampling.crop, rng)
        flip = flips(sampling, manifest) and bool(rng.random() < 0.5)
        streams = looked_at(streams, wanted, box, (sampling.size,) * 2, flip)
        return _row(streams, manifest.target(entry), index, mask=1, failed=failed)
    raise UserError(f"none of the {len(indices)} training videos in {manifest.root} can be read: has the folder moved?")


def _test_sample(
    manifest: Manifest, sampling: Sampling, cropped: list[CroppedClip], rows: list[tuple[int, bool]], position: int
) -> Batch:
    place, counts = rows[position]
    clip = cropped[place]
    entry = manifest.videos[clip.video]
    blank = {name: np.zeros((*clip.frames.shape, *clip.size, CHANNELS[name]), np.uint8) for name in sampling.streams}
    if not counts:
        return _row(blank, np.zeros_like(manifest.target(entry)), 0, mask=0, failed=0)
    try:
        streams = cut(manifest, clip, sampling)
    except VideoError:
        return _row(blank, manifest.target(entry), clip.video, mask=0, failed=1 + clip.video)
    return _row(streams, manifest.target(entry), clip.video, mask=1, failed=0)


def _row(streams: dict[str, np.ndarray], label: np.ndarray, index: int, *, mask: float, failed: int) -> Batch:
    row: dict[str, np.ndarray | np.generic] = {name: np.ascontiguousarray(frames) for name, frames in streams.items()}
    row["label"] = label
    row["video"] = np.int32(index)
    row["mask"] = np.float32(mask)
    row["failed"] = np.int32(failed)
    return cast(Batch, row)  # Grain makes one of these rows


class _Balanced(grain.MapDataset):
    """The order of training in which every class comes equally often (`training_order`).

    Shuffled by NumPy: for sets of a few videos Grain takes milliseconds per place.
    """

    def __init__(self, labels: Sequence[Hashable], seed: int):
        super().__init__(grain.MapDataset.range(len(labels)).seed(seed).repeat())
        members: dict[Hashable, list[int]] = collections.defaultdict(list)
        for place, label in enumerate(labels):
            members[label].append(place)
        self._members, self._seed = [*members.values()], seed

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        number, place = divmod(index, len(self._members))
        label = _shuffled(len(self._members), self._seed, 0, number)[place]
        members = self._members[label]
        epoch, place = divmod(number, len(members))
        return members[_shuffled(len(members), self._seed, 1 + label, epoch)[place]]


@functools.lru_cache(maxsize=2048)
def _shuffled(count: int, *seed: int) -> list[int]:
    return np.random.default_rng(seed).permutation(count).tolist()


class _HostRows(grain.MapDataset):
    """The elements of one host's rows of every global batch.

    They are selected after `random_map`, so that an element keeps the randomness of its place in the global order.
    """

    def __init__(self, parent: grain.MapDataset, batch: int, hosts: Hosts):
        super().__init__(parent)
        if batch % hosts.count:
            raise UserError(
                f"a batch of {batch} does not divide among {hosts.count} processes: use a multiple of that."
            )
        self._batch, self._rows, self._hosts = batch, batch // hosts.count, hosts

    def __len__(self) -> int:
        # Endless means half of sys.maxsize: Grain divides it by the batch in floats, which would round all of it up.
        return min(len(self._parent) // self._hosts.count, sys.maxsize // 2)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, self._rows)
        return self._parent[batch * self._batch + self._hosts.index * self._rows + row]


def worker_processes() -> int:
    """The best number of worker processes, as measured (RESULTS.md): two fewer than cores, from 0 to 32."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores <= 2 else min(32, cores - 2)  # each takes 300 MB


def _iterate(batches: grain.MapDataset, workers: int | None) -> Generator[Batch, None, None]:
    """The batches, read ahead in threads of this process, or in `workers` processes; None: as many as are best here."""
    if workers is None:
        workers = worker_processes()
    if workers < 0:
        raise UserError(f"{workers} workers: expected their number, or 0 to load in the process itself.")
    processes.remove_leftovers(processes.SHARED)
    threads = 1 if workers else 2
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2)
    dataset = batches.to_iter_dataset(read)
    if workers:
        if not flags.FLAGS.is_parsed():  # outside of a command: Grain's processes read absl's flags; none is given
            flags.FLAGS.mark_as_parsed()
        processes.mark_semaphores()
        processes.keep_main_to_itself()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        start = functools.partial(_start_worker, processes.mark())
        dataset = dataset.mp_prefetch(options, worker_init_fn=start)
    return _closed_at_once(iter(dataset), workers)


def _closed_at_once(iterator: grain.DatasetIterator, workers: int) -> Generator[Batch, None, None]:
    """The iterator's elements; at its end, or when closed, workers are ended and their shared memory is freed."""
    try:
        if workers:  # they start with the first element, and leave signals to this process, which saves before it ends
            with processes.keeping_from_children(*_STOPPING):
                first = [*itertools.islice(iterator, 1)]
            yield from (first.pop() for _ in range(len(first)))  # popped, so that nothing here keeps it
        yield from iterator
    finally:
        iterator.close()
        del iterator
        gc.collect()  # Grain's iterators are in a reference cycle, and each holds a batch of every worker


def _start_worker(owner: str, index: int, count: int) -> None:
    """In a worker: name shared memory after the owner, leave signals to the owner, and die with it."""
    del index, count
    processes.mark_shared_memory(owner)
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG in prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is None or os.getppid() != parent.pid:
            os._exit(1)  # the parent died before it could be watched
