"""Optical flow, computed once from a set's videos and stored beside its manifest, for `decoding/flow.py` to read."""

import contextlib
import hashlib
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

import cv2
import numpy as np
import tqdm

from jax_video.data import documents, remote, transforms
from jax_video.data.decoding import fetching, flow, verified, video, workers
from jax_video.data.manifest import Manifest, Video
from jax_video.data.preparing import checks, contents
from jax_video.data.preparing.machines import Machines
from jax_video.errors import UserError, VideoError

_PART = ".part"  # ends the name of a file that is being written
_SYNC = 10.0  # seconds of work that may be lost if a process is killed
_COPIED = 2**20  # bytes that are copied at once


def is_stored(
    folder: str | os.PathLike,
    entry: Video,
    short_side: int | None = None,
    *,
    digest: str | None = None,
    thorough: bool = False,
) -> bool:
    """Whether the folder has the whole flow of a video: for all of its frames, and of their size.

    Args:
      short_side: of the frames, in pixels; None: the size is not checked.
      digest: of the video (`contents.digest`), for which flow of another file of the same name does not do; None: it is
        not known. Nor is it of flow that earlier versions stored, which is taken for the video's.
      thorough: whether every field is looked at, and not only the first and the last.
    """
    size = None if short_side is None else transforms.resized(entry.height, entry.width, short_side)
    try:
        flow.check_file(flow.stored_path(folder, entry), entry.frames, size, thorough=thorough)
    except VideoError:
        return False
    return not is_of_another(folder, entry, digest)


def is_of_another(folder: str | os.PathLike, entry: Video, digest: str | None) -> bool:
    """Whether the folder has flow that is known to be of another file than the one with this digest."""
    return digest is not None and flow.source_of(flow.stored_path(folder, entry), entry.frames) not in (None, digest)


def _is_whole(target: pathlib.Path, entry: Video, size: tuple[int, int]) -> bool:
    try:
        flow.check_file(os.fspath(target), entry.frames, size, thorough=True)
    except VideoError:
        return False
    return True


def store(path: str | os.PathLike, target: str | os.PathLike, entry: Video, settings: flow.Settings) -> None:
    """Compute all fields of a video and write them, whole or not at all; this takes the memory of a few frames.

    Fields that a killed process has computed are in a file beside the target, and are not computed again. Any number of
    processes may store the same video at once, wherever they run: each writes into a file of its own, all write the
    same, and one that finds the target whole, and of this video, does nothing.

    Args:
      path: the file of a video.
      target: the file to write; its folder is made if there is none.
      entry: what the file is known to hold; of a longer file, the part that counts.
      settings: how the folder's flow is made.

    Raises:
      VideoError: the video cannot be read, or has more or fewer frames.
      OSError: the file cannot be written.
    """
    target = pathlib.Path(target)
    size = transforms.resized(entry.height, entry.width, settings.short_side)
    source = contents.digest(path, entry.span)
    if _is_whole(target, entry, size):
        if flow.source_of(os.fspath(target), entry.frames) in (None, source):
            return
        target.unlink(missing_ok=True)  # of a file that was replaced
    target.parent.mkdir(parents=True, exist_ok=True)
    begun = _begun(path, target, entry, settings)
    earlier = list(target.parent.glob(f"{begun}.*{_PART}"))
    temporary = target.with_name(f"{begun}.{uuid.uuid4().hex[:8]}{_PART}")
    try:
        with open(temporary, "x+b") as file:
            _lock(file)  # until it is closed
            places = _start(file, entry.frames, source, earlier)
            done = int(np.count_nonzero(places)) - 1
            synced = time.monotonic()
            images = _counted(path, entry, done, settings.short_side)
            for index, field in enumerate(flow.compute(images, settings.method), start=done):
                height, width, _ = field.shape
                # x above y, and between them lines that fill up a block of the JPEG, so that no block has both.
                padded = np.pad(field, ((0, -height % flow.BLOCK), (0, 0), (0, 0)), "edge")
                both = padded.transpose(2, 0, 1).reshape(-1, width)
                _, jpeg = cv2.imencode(".jpg", both, (cv2.IMWRITE_JPEG_QUALITY, settings.quality))
                file.write(jpeg.tobytes())
                places[index + 1] = file.tell()
                if time.monotonic() - synced >= _SYNC:
                    _write_places(file, places)
                    synced = time.monotonic()
            _write_places(file, places)
        try:
            remote.put_in_place(temporary, target)
        except FileNotFoundError:
            # Another process was done first and has removed this file; or it began just now, after the lock ended and
            # before the file was renamed, and took it for one that a killed process has left.
            if not _is_whole(target, entry, size):
                return store(path, target, entry, settings)
    except (VideoError, OSError):
        temporary.unlink(missing_ok=True)
        raise
    for left in earlier:
        left.unlink(missing_ok=True)


def _begun(path: str | os.PathLike, target: pathlib.Path, entry: Video, settings: flow.Settings) -> str:
    """How the names of unfinished files of a video's flow begin: otherwise once the video or what is asked changes."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror})") from error
    version = f"{target.name} {status.st_size} {status.st_mtime_ns} {entry.first} {entry.frames} {settings}"
    return f".{hashlib.sha256(version.encode(errors='surrogateescape')).hexdigest()[:16]}"


def _start(file: BinaryIO, frames: int, source: str, earlier: Sequence[pathlib.Path]) -> np.ndarray:
    """Begin a file with the fields of the earlier file that has the most; other processes may still write to these.

    Args:
      source: the digest of the video.

    Returns:
      Where the fields start: int64 [frames], with 0 for those that the file does not hold yet.
    """
    places = np.zeros(frames, np.int64)
    np.save(file, places)  # its size is known, its content is not yet
    file.write(source.encode())
    places[0] = file.tell()
    found = [(part, _whole_fields(part, places)) for part in earlier]
    part, fields = max(found, key=lambda one: len(one[1]), default=(None, places[:1]))
    if part is not None and len(fields) > 1:
        with contextlib.suppress(FileNotFoundError), open(part, "rb") as other:  # its process may just be done with it
            other.seek(places[0])
            for start in range(fields[0], fields[-1], _COPIED):
                file.write(other.read(min(_COPIED, fields[-1] - start)))
            places[: len(fields)] = fields
            _write_places(file, places)
    for part in earlier:
        with contextlib.suppress(OSError), open(part, "r+b") as other:
            if os.fstat(other.fileno()).st_size and _lock(other):  # its process has ended; an empty one just begins
                part.unlink()
    return places


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed; return whether that was possible, and no other process has locked it."""
    try:
        import fcntl  # does not exist on Windows, where all else works

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _whole_fields(part: pathlib.Path, empty: np.ndarray) -> np.ndarray:
    """Where the complete fields of an unfinished file start, and the last of them ends: int64 [N + 1]."""
    with contextlib.suppress(OSError, ValueError):
        places = np.array(flow.read_places(part))
        if len(places) == len(empty) and places[0] == empty[0]:
            places = places[: np.count_nonzero(places)]
            whole = flow.count_whole(part, places)
            return places[: whole + 1]
    return empty[:1]


def _write_places(file: BinaryIO, places: np.ndarray) -> None:
    """Write the index at the beginning of the file, and go back to the position in it."""
    position = file.tell()
    file.flush()
    file.seek(0)
    np.save(file, places)
    file.flush()
    file.seek(position)


def _counted(path: str | os.PathLike, entry: Video, skipped: int, short_side: int) -> Iterator[np.ndarray]:
    """The frames of a video after the first `skipped`. Raises VideoError if there are not as many as its entry says."""
    end = entry.first + entry.frames
    part_of_more = entry.span is not None or (entry.index is not None and entry.index.frames > end)
    count = entry.first + skipped
    index = verified.index(path, entry)
    for image in video.frames_in_order(path, first=count, index=index, short_side=short_side):
        count += 1
        if count > end:
            break
        yield image
    if count < end or (count > end and not part_of_more):
        found = f"only {count}" if count < end else f"more than {end}"
        raise VideoError(path, f"{found} of {end} frames decode: the file has changed; run prepare again")


def check_settings(folder: str | os.PathLike, settings: flow.Settings) -> None:
    """Raise UserError if the folder holds flow of other settings."""
    stored = pathlib.Path(folder).rglob("*.flow")
    if pathlib.Path(folder, flow.SETTINGS_FILE).exists() or next(stored, None) is not None:
        found = flow.read_settings(folder)
        if found != settings:
            raise UserError(
                f"{folder} holds flow of {_in_words(found)}; asked for was {_in_words(settings)}: "
                f"remove {folder}, or choose another --out"
            )


def open_folder(folder: str | os.PathLike, settings: flow.Settings) -> None:
    """Make a folder for flow, or go on with one. Raises as `check_settings`."""
    check_settings(folder, settings)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    documents.write(folder / flow.SETTINGS_FILE, settings._asdict())


def warning(prepared: Manifest, digests: Mapping[str, str]) -> list[str]:
    """Lines that say which videos' stored flow is of files that were replaced since, and which have none."""
    assert prepared.flow is not None
    readable = [entry for entry in prepared.videos if entry.error is None]
    without = [entry.name for entry in readable if not os.path.exists(flow.stored_path(prepared.flow, entry))]
    old = [entry.name for entry in readable if is_of_another(prepared.flow, entry, digests.get(entry.name))]
    hint = "prepare with --flow computes it"
    return [
        f"warning: {what}: {len(names):,}, e.g. {names[0]}: {hint}"
        for what, names in (("flow of files that were replaced since", old), ("videos without stored flow", without))
        if names
    ]


def close_folder(folder: str | os.PathLike) -> None:
    """Remove unfinished files of videos that are no longer in the set; called when all the others are stored."""
    for left in pathlib.Path(folder).rglob(f".*{_PART}"):
        left.unlink(missing_ok=True)


def _in_words(settings: flow.Settings) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings._asdict().items())


def store_all(
    prepared: Manifest,
    settings: flow.Settings,
    out: pathlib.Path,
    machines: Machines,
    say: Callable[[str], None],
    *,
    thorough: bool,
) -> None:
    """Compute and store the flow of the readable videos that have none yet, a broken one, or one of another file.

    Args:
      prepared: the set; its flow is in the manifest's folder.
      settings: how the folder's flow is made.
      out: where checked.jsonl is, and where broken_flow.csv is written: the videos without flow, and why.
      machines: where it is computed.
      say: called with what became of it.
      thorough: whether every stored field is checked, and not only the first and the last of each file.

    Raises:
      UserError: no video's flow can be computed, or it failed for reasons other than the videos.
    """
    assert prepared.flow is not None
    readable = [entry for entry in prepared.videos if entry.error is None]
    digests = checks.digests(out, prepared)
    waiting = [
        entry
        for entry in readable
        if not is_stored(prepared.flow, entry, settings.short_side, digest=digests.get(entry.name), thorough=thorough)
    ]
    _check_inside(prepared.flow, waiting)
    tasks = (
        (os.path.join(prepared.root, entry.path), flow.stored_path(prepared.flow, entry), entry, settings)
        for entry in waiting
    )
    results = machines.run(tasks, _store_one, _share, out)
    done = len(readable) - len(waiting)
    broken: dict[str, str] = {}
    strange: dict[str, str] = {}
    with tqdm.tqdm(desc="flow", total=len(readable), initial=done, unit=" videos") as progress:
        for which, reason in results:
            if reason is not None:
                (strange if isinstance(reason, workers.NoVerdict) else broken)[waiting[which].name] = reason
            progress.update()
    workers.stop_at(strange)
    close_folder(prepared.flow)
    path = out / flow.REASONS_FILE
    checks.write_reasons(path, prepared, broken)
    say(f"flow: {len(readable) - len(broken):,} of {len(readable):,} videos in {prepared.flow}")
    for line in checks.first_reasons("no flow", broken, path):
        say(line)
    if len(broken) == len(readable):
        raise UserError(f"no video's flow can be computed; the reasons are in {path}")
    say("")


def _check_inside(folder: str, entries: Iterable[Video]) -> None:
    """Raise UserError if a link in a folder for flow leads out of it, to files that would be overwritten."""
    root = os.path.realpath(folder)
    for place in {os.path.dirname(flow.stored_path(folder, entry)) for entry in entries}:
        if os.path.commonpath((root, os.path.realpath(place))) != root:
            raise UserError(
                f"{place} leads out of {folder}, to {os.path.realpath(place)}, where no flow is stored: remove that "
                f"link. If it is of your own making, link {folder} as a whole"
            )


_Task = tuple[str, str, Video, flow.Settings]  # the arguments of `store`


def _store_one(task: _Task) -> None:
    path, target, entry, settings = task
    store(fetching.local(path), target, entry, settings)


def _share(task: _Task) -> float:
    """How many times as long as a usual piece of work, the flow of 50 frames, a video may take."""
    entry = task[2]
    return (entry.first + entry.frames) / 50
