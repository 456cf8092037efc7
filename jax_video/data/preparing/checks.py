"""The check of a data set's files: which of them can be used, and what is wrong with the others.

Results are stored in a folder's checked.jsonl, one line for each file, as they are found. A check that was stopped or
killed goes on where it was, and a later one looks only at files that are new, have changed, or were looked at less
thoroughly or with another decoder. Why a file could not be looked at, through no fault of its own, is not stored.
"""

import collections
import contextlib
import csv
import dataclasses
import filecmp
import io
import json
import os
import pathlib
import re
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import tqdm

from jax_video.data import documents, remote
from jax_video.data.decoding import fetching, packets, pictures, probing, video, workers
from jax_video.data.manifest import INDEX, MISSING, SPLITS, Manifest, Video
from jax_video.data.preparing import contents, likeness, verdicts
from jax_video.errors import UserError, VideoError, shown

LEVELS = ("fast", "full")  # only the container is looked at, or every frame is decoded
# Remarks on a video for training or validation that is also a test video, to the byte or re-encoded. It is still used.
DOUBLE, ALIKE = "duplicate of a test video", "looks like a test video"
NOT_LOOKED_AT = "not looked at"  # begins the reason of a video that is not itself to blame
_REMARKS = (DOUBLE, ALIKE, verdicts.LOST, verdicts.ACCEPTED, verdicts.BEYOND)  # on readable videos
MEMORY = "checked.jsonl"
_VIDEO = {
    "frames": int,
    "fps": float,
    "width": int,
    "height": int,
    "first": int,
    "index": (types.NoneType, INDEX),
}
_RECORD = {  # a line, without its checksum
    "path": str,
    "size": int,
    "modified": int,
    "span": (types.NoneType, [float]),
    "level": str,
    "decoder": str,
    "digest": str | None,
    "reason": str | None,
    "video": (types.NoneType, _VIDEO),
    "loss?": object,  # `verdicts.is_loss`
    "fault?": str | None,
    "print?": str | None,
}
_DIGEST = {key: _RECORD[key] for key in ("path", "span", "digest")}
_ADDED = {"loss": None, "fault": None, "print": None}  # keys added since the first version
_SYNC = 1.0  # seconds of work that may be lost if the whole machine fails


def check(
    prepared: Manifest,
    out: pathlib.Path,
    *,
    level: str = "full",
    min_frames: int = 1,
    max_damage: float = packets.MAX_DAMAGE,
    accept: Sequence[str] = (),
    processes: int = 1,
    timeout: float = 300.0,
    recheck: bool = False,
) -> tuple[Manifest, dict[str, str]]:
    """Check every video of a set that is not MISSING, with a progress bar.

    Args:
      prepared: the set; what its rows say of frames, size and errors is found anew.
      out: the folder of checked.jsonl. Files are recognised by path, size and modification time; a folder of pictures
        by its own, which changes when pictures come or go.
      level: one of LEVELS.
      min_frames: a video with fewer is broken.
      max_damage: the part of a video's frames that may be lost, from 0 to 1.
      accept: names the videos that are used for the frames that they give, whatever is wrong (`verdicts.accepted`).
      processes: how many processes look at files.
      timeout: seconds within which a file must make progress, by a packet or a picture.
      recheck: whether all files are looked at again.

    Returns:
      (the checked set, name -> remark). Remarks are on videos that are used although frames are lost, or a part reaches
      beyond its file, or although they are for training or validation and are, or look like, a test video. Only files
      that were looked at in full, and by this version, are compared by their looks.

    Raises:
      UserError: `accept` names none of the videos.
      OSError: checked.jsonl cannot be written, for example because the disk is full; what it has already still counts.
    """
    accepted = verdicts.accepted(accept, prepared.root, (row.path for row in prepared.videos))
    remarks: dict[str, str] = {}
    with contextlib.closing(_Records(out / MEMORY, prepared.videos)) as records:
        unknown = _look(prepared, records, level, processes, timeout, recheck)
        digests = np.zeros(len(prepared.videos), np.uint64)
        prints = np.zeros((len(prepared.videos), likeness.PICTURES), np.uint64)
        rows = []
        for index, row in enumerate(prepared.videos):
            record = None if row.error == MISSING or index in unknown else records.read(index)
            if record is None:
                rows.append(row.broken(unknown.get(index, MISSING)))
                continue
            found, remark = verdicts.judged(
                row, record, min_frames=min_frames, max_damage=max_damage, accepted=row.path in accepted
            )
            rows.append(found)
            if remark is not None:
                remarks[row.name] = remark
            if record["digest"] is not None:
                digests[index] = int(record["digest"], 16)
            if record["print"] is not None:
                prints[index] = likeness.read(record["print"])
        records.sort()
    checked = dataclasses.replace(prepared, videos=tuple(rows))
    for name, reason in (_alike(checked, prints) | _doubles(checked, digests)).items():
        remarks[name] = f"{reason}; {remarks[name]}" if name in remarks else reason
    return checked, remarks


def digests(out: pathlib.Path, prepared: Manifest) -> dict[str, str]:
    """What the last check has found of the content of readable videos (`contents.digest`), by name, where it is known.

    Args:
      prepared: the set.
      out: the folder of checked.jsonl.
    """
    names = {(row.path, row.span): row.name for row in prepared.videos if row.error is None}
    found = {}
    with contextlib.suppress(FileNotFoundError), open(out / MEMORY, "rb") as file:
        for line in file:
            with contextlib.suppress(documents.Damaged):
                record = documents.parse(line, _DIGEST)
                name = names.get((record["path"], _span(record)))
                if name is not None and record["digest"] is not None:
                    found[name] = record["digest"]
    return found


def table(prepared: Manifest, remarks: Mapping[str, str]) -> str:
    """How many videos of each split can be read, how many cannot, and why; and on how many there are remarks."""
    count: dict[str, collections.Counter[str]] = {split: collections.Counter() for split in SPLITS}
    for row in prepared.videos:
        count[row.split]["readable" if row.error is None else _kind(row.error)] += 1
        count[row.split]["all"] += 1
        for kind in _REMARKS:
            count[row.split][kind] += kind in remarks.get(row.name, "")
    count["all"] = sum(count.values(), collections.Counter())

    first, last = ("readable", *_REMARKS, MISSING), ("all",)
    others = sorted(count["all"].keys() - {*first, *last}, key=lambda kind: (-count["all"][kind], kind))
    kinds = [kind for kind in (*first, *others, *last) if count["all"][kind] or kind in ("readable", "all")]
    width = max(map(len, kinds)) + 2
    lines = [f"{prepared.name}: {len(prepared.classes)} classes{_several_labels(prepared)}"]
    lines.append(" " * width + "".join(f"{name:>10}" for name in count))
    for kind in kinds:
        name = f"  {kind}" if kind in _REMARKS else kind  # indented: they are among the readable ones
        lines.append(f"{name:{width}}" + "".join(f"{numbers[kind]:10,}" for numbers in count.values()))
    return "\n".join(lines)


def _several_labels(prepared: Manifest) -> str:
    """How many labels the videos of a set have, where they may have several."""
    if not prepared.multilabel:
        return ""
    numbers = [len(row.label) for row in prepared.videos if isinstance(row.label, tuple)]
    mean, none = np.mean(numbers), numbers.count(0)
    return f"; labels of a video: {mean:.1f} on average, {max(numbers)} at most, {none:,} have none"


def write_reasons(path: pathlib.Path, prepared: Manifest, reasons: Mapping[str, str]) -> None:
    """Write a CSV of the videos whose names have a reason, in the set's order: split, path, reason."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("split", "path", "reason"))
    writer.writerows((row.split, row.name, reasons[row.name]) for row in prepared.videos if row.name in reasons)
    remote.write_whole(path, [table.getvalue().encode("utf-8", errors="surrogateescape")])


def first_reasons(what: str, reasons: Mapping[str, str], path: pathlib.Path) -> list[str]:
    """Lines with the first ten reasons (of which `what` came), and where the CSV with all of them is."""
    lines = [f"{what}: {shown(name)}: {reason}" for name, reason in list(reasons.items())[:10]]
    return lines + [f"{what}: {len(reasons) - 10:,} more, in {path}"] * (len(reasons) > 10)


def _look(
    prepared: Manifest,
    records: "_Records",
    level: str,
    processes: int,
    timeout: float,
    recheck: bool,
) -> dict[int, str]:
    """Look at the files that have no valid record yet; return {index of a video: why it could not be looked at}."""
    root, videos = prepared.root, prepared.videos
    present = np.array([row.error != MISSING for row in videos], bool)
    known = np.zeros(len(videos), bool)
    for index, record in records.earlier():
        path = videos[index].path
        stamp = (record["size"], record["modified"])
        known[index] = (
            not recheck
            and present[index]
            and record["decoder"] == _decoder(os.path.join(root, path))
            and LEVELS.index(record["level"]) >= LEVELS.index(level)
            and not workers.is_of_other_limits(record["reason"], timeout)
            and stamp == _stamp(os.path.join(root, path))
        )
    waiting = np.flatnonzero(present & ~known)
    stamps = {}  # of the files that are looked at now, as they were before

    def tasks() -> Iterator[tuple]:
        for which, index in enumerate(waiting):
            path = os.path.join(root, videos[index].path)
            stamps[which] = _stamp(path)
            yield path, videos[index].span, level == "full"

    results = workers.run(tasks(), _examine, workers=processes, timeout=timeout)
    unknown, told = {}, set()
    progress = tqdm.tqdm(desc="checking", total=int(present.sum()), initial=int(known.sum()), unit=" videos")
    with progress, contextlib.closing(results):
        for which, result in results:
            row = videos[waiting[which]]
            size, modified = stamps.pop(which)
            if isinstance(result, workers.NoVerdict):
                unknown[waiting[which]] = f"{NOT_LOOKED_AT}: {result}"
                if result.traceback and result.traceback not in told:
                    told.add(result.traceback)
                    tqdm.tqdm.write(f"{row.name}: {result.traceback}", file=sys.stderr)
                progress.update()
                continue
            digest, words, examined, reason = (None, None, None, result) if isinstance(result, str) else (*result, None)
            record = {
                "path": row.path,
                "size": size,
                "modified": modified,
                "span": row.span,
                "level": level,
                "decoder": _decoder(os.path.join(root, row.path)),
                "digest": digest,
                "reason": reason,
                "video": examined and dataclasses.asdict(examined.info),
                "loss": examined and examined.loss,
                "fault": examined and examined.fault,
                "print": words,
            }
            records.add(waiting[which], record)
            progress.update()
    return unknown


def _examine(task: tuple[str, tuple[float, float] | None, bool]) -> tuple[str | None, str | None, probing.Examined]:
    """A video's digest, its print, and what `probing.examine` says; runs in a worker."""
    path, span, full = task
    path = fetching.local(path, workers.go_on)
    sampler = likeness.Sampler()
    examined = probing.examine(path, span=span, full=full, watcher=sampler)
    words = sampler.words() if full and span is None else None  # the frames of a part are known only afterwards
    return contents.digest(path, span), words, examined


def _decoder(path: str) -> str:
    """The decoder of a file, with its version, since another one may find something else."""
    return pictures.DECODER if os.path.isdir(path) else video.DECODER


def _span(record: dict[str, Any]) -> tuple[float, float] | None:
    """The part of a file that a record describes, in seconds; None: the whole file."""
    return None if record["span"] is None else tuple(record["span"])


def _stamp(path: str) -> tuple[int, int]:
    """(size, modification time in ns) by which a file or a folder is recognised; zeros as long as it cannot be read."""
    try:
        if remote.is_remote(path):
            return fetching.stamp(path)
        return remote.stamp(path) if os.access(path, os.R_OK) else (0, 0)
    except (OSError, VideoError):
        return 0, 0


def _doubles(checked: Manifest, digests: np.ndarray) -> dict[str, str]:
    """Reasons for the videos of training and validation whose content is also a test video's; `digests` uint64 [N]."""
    videos = checked.videos
    comparable = np.array([row.error is None for row in videos], bool) & (digests != 0)
    test = np.array([row.split == "test" for row in videos], bool)
    tested = collections.defaultdict(list)
    for index in np.flatnonzero(comparable & test & np.isin(digests, digests[~test])):
        tested[digests[index]].append(videos[index])
    reasons = {}
    for index in np.flatnonzero(comparable & ~test & np.isin(digests, digests[test])):
        row = videos[index]
        same = next((other for other in tested[digests[index]] if _equal(checked.root, row.path, other.path)), None)
        if same is not None:
            reasons[row.name] = f"{DOUBLE}: {same.name}"
    fetching.forget()
    return reasons


def _alike(checked: Manifest, prints: np.ndarray) -> dict[str, str]:
    """Reasons for the videos of training and validation that look like a test video; `prints` uint64 [N, PICTURES]."""
    videos = checked.videos
    readable = np.array([row.error is None for row in videos], bool)
    test = np.array([row.split == "test" for row in videos], bool)
    ours, tested = np.flatnonzero(readable & ~test), np.flatnonzero(readable & test)
    found = likeness.find(prints[ours], prints[tested])
    return {videos[ours[one]].name: f"{ALIKE}: {videos[tested[other]].name}" for one, other in found.items()}


def _equal(root: str, one: str, other: str) -> bool:
    try:
        first, second = (fetching.local(os.path.join(root, path)) for path in (one, other))
        if not os.path.isdir(first):
            return filecmp.cmp(first, second, shallow=False)
        ours, theirs = pictures.files(first), pictures.files(second)
        return len(ours) == len(theirs) and all(
            filecmp.cmp(os.path.join(first, name), os.path.join(second, same), shallow=False)
            for name, same in zip(ours, theirs, strict=True)
        )
    except (OSError, VideoError):
        return False


def _kind(reason: str) -> str:
    """What a table calls a reason: "damaged" for "damaged: undecodable from frame 37"."""
    return re.split("[:(]", reason, maxsplit=1)[0].strip()


class _Records:
    """The lines of checked.jsonl for the videos of a set. Only their places are in memory."""

    def __init__(self, path: pathlib.Path, videos: tuple[Video, ...]):
        self._path = path
        self._videos = videos
        self._places = np.full(len(videos), -1, np.int64)  # of each video's line; -1: it has none
        self._numbers = {(row.path, row.span): index for index, row in enumerate(videos)}
        self._writer = open(path, "ab")
        self._reader = open(path, "rb")
        self._synced = time.monotonic()

    def earlier(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(index of a video, its record) of each valid line; of several lines of a video the last one counts."""
        whole = strange = 0
        for start, end, record in _lines(self._reader):
            whole = end
            strange += record is None
            index = self._numbers.get((record["path"], _span(record))) if record is not None else None
            if index is not None and record is not None:
                self._places[index] = start
                yield index, record
        self._writer.truncate(whole)  # a kill may have cut off the last line
        self._writer.seek(whole)
        self._numbers = {}
        if strange:
            said = (
                f"{self._path}: {strange:,} lines are damaged, or of another version. Their files are looked at again."
            )
            print(said, file=sys.stderr)

    def add(self, index: int, record: dict[str, Any]) -> None:
        """Append the record of a video."""
        line = (json.dumps(documents.sealed(record), ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
        self._writer.write(line)
        self._writer.flush()
        self._places[index] = self._writer.tell() - len(line)
        if time.monotonic() > self._synced + _SYNC:
            os.fsync(self._writer.fileno())
            self._synced = time.monotonic()

    def read(self, index: int) -> dict[str, Any] | None:
        """The record of a video; None if there is none. Raises UserError if its line is another's by now."""
        line = self._line(self._places[index])
        record = _parse(line) if line else None
        row = self._videos[index]
        if line and (record is None or (record["path"], _span(record)) != (row.path, row.span)):
            raise UserError(
                f"{self._path} was changed while it was written: does another process write it? Start again"
            )
        return record

    def sort(self) -> None:
        """Write the file anew, in the order of the set, without lines of other videos."""
        remote.write_whole(self._path, map(self._line, self._places.tolist()))

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        with contextlib.suppress(OSError):  # a full disk, which was reported when the line was added
            self._writer.close()

    def _line(self, place: int) -> bytes:
        if place < 0:
            return b""
        self._reader.seek(place)
        return self._reader.readline()


def _lines(file: IO[bytes]) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """(where it begins, where it ends, its record) of each whole line of a file; the record is None if not valid."""
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            return
        start, end = end, end + len(line)
        yield start, end, _parse(line)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Parse a record; None if it is cut off, was changed, or is of another version."""
    try:
        record = documents.unsealed(documents.parse(line, _RECORD))
    except documents.Damaged:
        return None
    if not record.keys() & _ADDED.keys() and (record["reason"] or "").startswith(
        ("truncated", "damaged", workers.LATE)
    ):
        return None  # of an earlier version, which had other rules
    record = _ADDED | record
    found = record["video"] or {}
    known = record.keys() == {key.rstrip("?") for key in _RECORD} and (found.get("index") or {}).keys() <= {
        key.rstrip("?") for key in INDEX
    }
    right = record["level"] in LEVELS and (record["digest"] is None or re.fullmatch("[0-9a-f]{16}", record["digest"]))
    told = found.keys() == _VIDEO.keys() or record["reason"] is not None and not found
    return record if known and right and told and verdicts.is_loss(record["loss"]) else None
