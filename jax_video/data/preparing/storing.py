"""Optical flow, computed once from a set's videos and stored beside its manifest, for `decoding/flow.py` to read."""

import hashlib
import os
import pathlib
import time
import tokenize
from collections.abc import Callable, Iterator
from typing import BinaryIO

import cv2
import numpy as np
import tqdm

from jax_video.data import documents, remote
from jax_video.data.decoding import flow, verified, video
from jax_video.data.manifest import Manifest, Video
from jax_video.data.preparing import checks, workers
from jax_video.data.preparing.machines import Machines
from jax_video.errors import UserError, VideoError

_PART = ".part"  # of a file that is being written
_SYNC = 10.0  # seconds of work that may be lost with a process


def is_stored(folder: str | os.PathLike, entry: Video) -> bool:
    """Whether the folder has the whole flow of a video with so many frames."""
    path = flow.stored_path(folder, entry)
    try:
        places = flow.read_places(path)
        return len(places) == entry.frames and os.path.getsize(path) == places[-1]
    except (OSError, ValueError):
        return False


def store(path: str | os.PathLike, target: str | os.PathLike, entry: Video, settings: flow.Settings) -> None:
    """Computes all fields of a video and writes them, whole or not at all; takes the memory of a few frames.

    What a process that was killed had of them stands in a file beside the target, and is not computed again.

    Args:
      path: the file of a video.
      target: the file to write; its folder is made where there is none.
      entry: what the file is known to hold; of a longer file, the part that counts.
      settings: what the folder's flow is.

    Raises:
      VideoError: the video cannot be read, or has more or fewer frames.
      OSError: the file cannot be written.
    """
    target = pathlib.Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path, target)
    temporary.touch()
    try:
        with open(temporary, "r+b") as file:
            places = _begun(file, entry.frames)
            done = int(np.count_nonzero(places)) - 1
            file.truncate(places[done])
            file.seek(places[done])
            synced = time.monotonic()
            images = _counted(path, entry, done, settings.short_side)
            for index, field in enumerate(flow.compute(images, settings.method), start=done):
                height, width, _ = field.shape
                # x above y, and between them as many lines as end a block of the JPEG, so that none has both.
                padded = np.pad(field, ((0, -height % flow.BLOCK), (0, 0), (0, 0)), "edge")
                both = padded.transpose(2, 0, 1).reshape(-1, width)
                _, jpeg = cv2.imencode(".jpg", both, (cv2.IMWRITE_JPEG_QUALITY, settings.quality))
                file.write(jpeg.tobytes())
                places[index + 1] = file.tell()
                if time.monotonic() - synced >= _SYNC:
                    _write_places(file, places)
                    synced = time.monotonic()
            _write_places(file, places)
        remote.put_in_place(temporary, target)
    except (VideoError, OSError):
        temporary.unlink(missing_ok=True)
        raise


def _temporary(path: str | os.PathLike, target: pathlib.Path) -> pathlib.Path:
    """The file for a video's flow until it is whole; another one if the video has changed."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror})") from error
    version = f"{target.name} {status.st_size} {status.st_mtime_ns}"
    name = hashlib.sha256(version.encode(errors="surrogateescape")).hexdigest()[:16]
    return target.with_name(f".{name}{_PART}")


def _begun(file: BinaryIO, frames: int) -> np.ndarray:
    """Where the fields of a new or a begun file start: int64 [frames], with 0 for those that it does not hold yet."""
    try:
        places = np.load(file)
        whole = np.count_nonzero(places)
        if places.shape == (frames,) and places.dtype == np.int64 and places[0] == file.tell():
            if np.all(np.diff(places[:whole]) > 0) and places[whole - 1] <= os.fstat(file.fileno()).st_size:
                return places
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError):  # it is empty, or was torn
        pass
    places = np.zeros(frames, np.int64)
    file.seek(0)
    file.truncate()
    np.save(file, places)  # its size is known, its content is not yet
    places[0] = file.tell()
    return places


def _write_places(file: BinaryIO, places: np.ndarray) -> None:
    """Writes the index at the beginning of the file, and goes back to where the file was."""
    position = file.tell()
    file.flush()
    file.seek(0)
    np.save(file, places)
    file.flush()
    file.seek(position)


def _counted(path: str | os.PathLike, entry: Video, skipped: int, short_side: int) -> Iterator[np.ndarray]:
    """The frames of a video behind the `skipped` first ones; VideoError if they are not as many as its entry says."""
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
    """Raises UserError where the folder holds flow of other settings."""
    stored = pathlib.Path(folder).rglob("*.flow")
    if pathlib.Path(folder, flow.SETTINGS_FILE).exists() or next(stored, None) is not None:
        found = flow.read_settings(folder)
        if found != settings:
            raise UserError(
                f"{folder} holds flow of {_in_words(found)}; asked for was {_in_words(settings)}: "
                f"remove {folder}, or choose another --out"
            )


def open_folder(folder: str | os.PathLike, settings: flow.Settings) -> None:
    """Makes a folder for flow, or goes on with one. Raises as `check_settings`."""
    check_settings(folder, settings)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    documents.write(folder / flow.SETTINGS_FILE, settings._asdict())


def close_folder(folder: str | os.PathLike) -> None:
    """Removes what was begun of videos that are no longer in the set; called when all the others are stored."""
    for left in pathlib.Path(folder).rglob(f".*{_PART}"):
        left.unlink(missing_ok=True)


def _in_words(settings: flow.Settings) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings._asdict().items())


def store_all(
    prepared: Manifest, settings: flow.Settings, out: pathlib.Path, machines: Machines, say: Callable[[str], None]
) -> None:
    """Stores the flow of the readable videos that have none yet, in the manifest's folder for it.

    Args:
      prepared: the set.
      settings: what the folder's flow is.
      out: where broken_flow.csv is written: the videos without flow, and why.
      machines: where it is computed.
      say: called with what became of it.

    Raises:
      UserError: no video's flow can be computed, or something else than the videos is to blame.
    """
    assert prepared.flow is not None
    readable = [entry for entry in prepared.videos if entry.error is None]
    waiting = [entry for entry in readable if not is_stored(prepared.flow, entry)]
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
                (strange if isinstance(reason, workers.NoVerdict) else broken)[waiting[which].path] = reason
            progress.update()
    workers.stop_at(strange)
    close_folder(prepared.flow)
    path = out / "broken_flow.csv"
    checks.write_reasons(path, prepared, broken)
    say(f"flow: {len(readable) - len(broken):,} of {len(readable):,} videos in {prepared.flow}")
    for line in checks.first_reasons("no flow", broken, path):
        say(line)
    if len(broken) == len(readable):
        raise UserError(f"no video's flow can be computed; the reasons are in {path}")
    say("")


_Task = tuple[str, str, Video, flow.Settings]  # the arguments of `store`


def _store_one(task: _Task) -> None:
    store(*task)


def _share(task: _Task) -> float:
    """How much longer than a usual piece of work, the flow of 50 frames, a video may take."""
    entry = task[2]
    return (entry.first + entry.frames) / 50
