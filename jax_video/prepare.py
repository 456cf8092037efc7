"""Indexes videos for training: python -m jax_video.prepare SOURCE --videos=DIR --out=DIR

Opens and decodes every video once, in parallel, and writes OUT/manifest.jsonl: labels, splits, frame counts, and what
is missing or broken (OUT/broken.csv, with reasons). SOURCE is folder, unlabelled, ucf101 or hmdb51. Examples:

  # any videos, for knowledge transfer (configs/transfer.py)
  python -m jax_video.prepare unlabelled --videos=DIR --out=data/unlabelled
  # class folders, split at random
  python -m jax_video.prepare folder --videos=clips --fraction=.1 --out=data/mine
  # class folders, split by who is seen: anna_run.mp4, boris_run.mp4, ...
  python -m jax_video.prepare folder --videos=clips --group='^([a-z]+)_' --test_groups=anna,boris --out=data/mine
  # train/, val/ and test/ with class folders in each
  python -m jax_video.prepare folder --videos=clips --out=data/mine
  # official lists
  python -m jax_video.prepare ucf101 --videos=UCF-101 --annotations=ucfTrainTestlist --split=1 --out=data/ucf101-1
  python -m jax_video.prepare hmdb51 --videos=hmdb51 --annotations=testTrainMulti_7030_splits --out=data/hmdb51-1

With --flow it stores the optical flow for motion streams as well, below OUT/flow: tvl1 as in the papers, or dis, which
is far quicker. Stopped, it goes on where it was. Two sources need no --videos:

  # the set that OUT/manifest.jsonl describes, which is not checked again
  python -m jax_video.prepare manifest --out=data/ucf101-1 --flow=tvl1
  # the embedded set
  python -m jax_video.prepare motions --out=data/motions --flow=dis --flow_side=62
"""

import collections
import contextlib
import csv
import dataclasses
import inspect
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import shlex
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import tqdm
from absl import flags

from jax_video import command
from jax_video.data import flow, manifest, motions, sources, video
from jax_video.errors import UserError

_VIDEOS = flags.DEFINE_string("videos", None, "Folder of the videos.")
_OUT = flags.DEFINE_string("out", None, "Folder to write manifest.jsonl and broken.csv into.")
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "Folder of the official lists; by default beside the videos.")
_SPLIT = flags.DEFINE_integer("split", None, "Official split, 1 (default), 2 or 3.")
_FRACTION = flags.DEFINE_float("fraction", None, "folder: part of each class for test, as much for val (default .1).")
_GROUP = flags.DEFINE_string("group", None, "folder: regular expression on file names; its first group names a group.")
_TEST_GROUPS = flags.DEFINE_list("test_groups", None, "folder: groups whose videos are for test.")
_VAL_GROUPS = flags.DEFINE_list("val_groups", None, "folder: groups whose videos are for validation.")
_SEED = flags.DEFINE_integer("seed", None, "Of the draw of test and validation videos (default 0).")
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Processes that decode.", lower_bound=1)
_TIMEOUT = flags.DEFINE_float(
    "timeout",
    300.0,
    "Seconds after which a file that still decodes counts as broken; with --flow, every 50 of its frames have as many.",
    lower_bound=0,
)
_FLOW = flags.DEFINE_enum("flow", None, list(flow.METHODS), "Store optical flow, computed by this method.")
_FLOW_SIDE = flags.DEFINE_integer(
    "flow_side", 256, "Short side of the frames it is computed from.", lower_bound=flow.LEAST_SIDE
)

_PREPARED = ("manifest", "motions")  # Sources whose videos are indexed already.


def main(argv: list[str]) -> None:
    known = [*sources.SOURCES, *_PREPARED]
    if len(argv) != 1 or argv[0] not in known:
        raise UserError(f"expected one source of {', '.join(known)}, got {' '.join(argv) or 'none'}; see --help")
    source = argv[0]
    if _OUT.value is None or (_VIDEOS.value is None and source not in _PREPARED):
        raise UserError("expected --videos=DIR, where the videos are, and --out=DIR, where to write; see --help")
    if "," in _OUT.value:
        raise UserError(f"--out={_OUT.value}: a comma cannot stand in a config's arguments; choose another name")
    out = pathlib.Path(_OUT.value)
    folder = out / "flow"
    settings = _FLOW.value and flow.Settings(_FLOW.value, _FLOW_SIDE.value)
    if settings:
        if _VIDEOS.value is not None and out.resolve() == pathlib.Path(_VIDEOS.value).resolve():
            raise UserError(f"--out={out} is the folder of the videos, among which flow has no place; choose another")
        flow.check_settings(folder, settings)
    prepared, notes = (_prepared(source, out), ()) if source in _PREPARED else _index(source, out)

    if settings:
        flow.open_folder(folder, settings)
    if folder.exists():
        prepared = dataclasses.replace(prepared, flow=str(folder.absolute()))
    prepared.write(out / "manifest.jsonl")
    broken = {entry.path: entry.error for entry in prepared.videos if _state(entry) == "broken"}
    _write_broken(out / "broken.csv", broken)
    print(f"\n{summary(prepared)}")
    print("".join(f"{note}\n" for note in notes))
    if all(row.error for row in prepared.videos):
        raise UserError(f"none of the {len(broken)} videos can be read; the reasons are in {out / 'broken.csv'}")
    if settings:
        _store_flow(prepared, settings, out)
    if not prepared.select("train"):
        print("There is no readable training video: nothing can be trained on this part of the set.")
        return
    partial = any(row.split == "test" and row.error for row in prepared.videos)
    accept = " --config.test.allow_partial=True" if partial else ""
    accept += " --config.clip.flip=False" if source == "motions" else ""  # which tell left from right
    recipe, weights = "stc.py:", ""
    if settings:
        recipe, weights = "st_resnet.py:phase=motion,", "imagenet=resnet50.pth,"
        accept += f" --config.clip.flow_method={settings.method} --config.clip.short_side={settings.short_side}"
    elif not prepared.classes:
        recipe, weights = "transfer.py:", "weights=resnet50.pth,"
    for use, size in (("Train on it", weights), ("Or, for a small set and a CPU", "recipe=small,")):
        config = shlex.quote(f"--config=configs/{recipe}{size}data={out}")
        print(f"{use}:\n  python -m jax_video.main {config}{accept}")


def _index(source: str, out: pathlib.Path) -> tuple[manifest.Manifest, Sequence[str]]:
    """Lists the source's videos and decodes each; the manifest, and what the user should know."""
    listing = _list(source)
    missing = [row for row in listing.videos if row.error == manifest.MISSING]
    if len(missing) == len(listing.videos):
        raise UserError(
            f"no videos found: {listing.root} has none of the {len(missing)} videos of {listing.name}, "
            f"e.g. {missing[0].path}; --videos names the folder that holds them"
        )
    _check_writable(out)
    rows = list(listing.videos)
    present = [i for i, row in enumerate(rows) if row.error is None]
    paths = [str(listing.root / rows[i].path) for i in present]
    checked = check(paths, workers=_WORKERS.value, timeout=_TIMEOUT.value)
    for which, result in tqdm.tqdm(checked, desc="checking", total=len(paths), unit=" videos"):
        row = rows[present[which]]
        if isinstance(result, video.VideoInfo):
            rows[present[which]] = dataclasses.replace(row, **dataclasses.asdict(result))
        else:
            rows[present[which]] = dataclasses.replace(row, error=result)
    return manifest.Manifest(listing.name, listing.classes, str(listing.root.absolute()), tuple(rows)), listing.notes


def _prepared(source: str, out: pathlib.Path) -> manifest.Manifest:
    """The set that a manifest describes already."""
    given = [f"--{name}" for name, value in _source_flags().items() if value is not None]
    if given or _VIDEOS.value is not None:
        raise UserError(f"{' '.join(given) or '--videos'}: not for {source}, whose videos are known")
    if source == "manifest" and _FLOW.value is None:
        raise UserError("nothing to do for a set that is prepared: --flow=METHOD adds its optical flow")
    found = manifest.Manifest.read(motions.make() if source == "motions" else out / "manifest.jsonl")
    _check_writable(out)
    return found


def _store_flow(prepared: manifest.Manifest, settings: flow.Settings, out: pathlib.Path) -> None:
    """Computes the flow of the readable videos that have none yet, and says what became of it."""
    readable = [entry for entry in prepared.videos if entry.error is None]
    waiting = [entry for entry in readable if not flow.is_stored(prepared.flow, entry)]
    tasks = [
        (os.path.join(prepared.root, entry.path), flow.stored_path(prepared.flow, entry), entry.frames, settings)
        for entry in waiting
    ]
    results = check(
        tasks,
        workers=_WORKERS.value,
        timeout=lambda task: _TIMEOUT.value * max(1, task[2] / 50),
        probe=_store_one,
    )
    done = len(readable) - len(waiting)
    broken = {}
    with tqdm.tqdm(desc="flow", total=len(readable), initial=done, unit=" videos") as progress:
        for which, reason in results:
            if reason is not None:
                broken[waiting[which].path] = reason
            progress.update()
    _write_broken(out / "broken_flow.csv", broken)
    print(f"flow: {len(readable) - len(broken):,} of {len(readable):,} videos in {prepared.flow}")
    for path, reason in list(broken.items())[:10]:
        print(f"no flow: {path}: {reason}")
    if len(broken) > 10:
        print(f"no flow: {len(broken) - 10:,} more, in {out / 'broken_flow.csv'}")
    if len(broken) == len(readable):
        raise UserError(f"no video's flow can be computed; the reasons are in {out / 'broken_flow.csv'}")
    print()


def _store_one(task: tuple) -> None:
    flow.store(*task)


def _list(source: str) -> sources.Listing:
    """Calls the source with the flags that were given; one that it does not know is an error, not ignored."""
    given = {name: value for name, value in _source_flags().items() if value is not None}
    function = sources.SOURCES[source]
    known = list(inspect.signature(function).parameters)[1:]
    unknown = [f"--{name}" for name in given if name not in known]
    if unknown:
        raise UserError(f"{' '.join(unknown)}: not for {source}, which knows {' '.join(f'--{name}' for name in known)}")
    return function(pathlib.Path(_VIDEOS.value), **given)


def _source_flags() -> dict[str, Any]:
    """What the sources' keyword arguments were given as flags; None where not given."""
    return {
        "annotations": _ANNOTATIONS.value and pathlib.Path(_ANNOTATIONS.value),
        "split": _SPLIT.value,
        "fraction": _FRACTION.value,
        "group": _GROUP.value,
        "test_groups": _TEST_GROUPS.value,
        "val_groups": _VAL_GROUPS.value,
        "seed": _SEED.value,
    }


def check(
    tasks: Sequence, *, workers: int, timeout: float | Callable[[Any], float], probe: Callable = video.probe
) -> Iterator[tuple[int, Any]]:
    """Probes files in processes of their own, and yields what becomes of them as they finish.

    A decoder that crashes or never ends costs its process, which is replaced, and its file, which is broken.

    Args:
      tasks: what `probe` gets, one after the other: for `video.probe` the paths.
      workers: number of processes.
      timeout: seconds that one may take; or a function from a task to them.
      probe: a function of a module, that may raise VideoError.

    Yields:
      (index in tasks, what `probe` returns, or in plain words why the file is broken).

    Raises:
      OSError: what `probe` raised, for example of a full disk: it is not one file's fault.
    """
    seconds = timeout if callable(timeout) else lambda _: timeout
    context = multiprocessing.get_context("spawn")  # Forking a process that has threads (the progress bar) can hang.
    waiting = collections.deque(enumerate(tasks))
    idle = []  # (process, connection)
    busy = {}  # connection -> (process, index in tasks, deadline)
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                process, connection = idle.pop() if idle else _start_worker(context, probe)
                index, task = waiting.popleft()
                busy[connection] = process, index, time.monotonic() + seconds(task)
                connection.send(task)

            soonest = min(deadline for _, _, deadline in busy.values())
            ready = multiprocessing.connection.wait(list(busy), timeout=max(0, soonest - time.monotonic()))
            for connection in ready:
                process, index, _ = busy.pop(connection)
                try:
                    result = connection.recv()
                    idle.append((process, connection))
                except (EOFError, OSError):
                    process.join()
                    connection.close()
                    result = f"the decoder crashes ({_ending(process)})"
                if isinstance(result, OSError):
                    raise result
                yield index, result
            for connection, (process, index, deadline) in list(busy.items()):
                if deadline <= time.monotonic():
                    del busy[connection]
                    _stop(process, connection)
                    yield index, f"not done after {seconds(tasks[index]):g} s"
    finally:
        for process, connection in [*idle, *((process, connection) for connection, (process, *_) in busy.items())]:
            _stop(process, connection)


def _start_worker(context, probe: Callable) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    connection, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, probe), daemon=True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Inherited: Ctrl-C is for the parent.
    process.start()
    signal.signal(signal.SIGINT, handler)
    theirs.close()  # So that the end of the process is the end of the connection.
    return process, connection


def _work(connection: Connection, probe: Callable) -> None:
    """A worker process: a task in, what `probe` says out, until the other end is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            task = connection.recv()
            try:
                result = probe(task)
            except video.VideoError as error:
                result = error.reason
            except OSError as error:
                result = error
            connection.send(result)


def _end_with_parent() -> None:
    """Ends the process when the one that started it has been killed; the flow of a video may take it hours."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _stop(process: multiprocessing.process.BaseProcess, connection: Connection) -> None:
    process.kill()
    process.join()
    connection.close()


def _ending(process: multiprocessing.process.BaseProcess) -> str:
    code = process.exitcode
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def summary(prepared: manifest.Manifest) -> str:
    """A table of found, missing and broken videos per split, and of the broken ones by reason."""
    lines = [f"{prepared.name}: {len(prepared.classes)} classes", f"{'':8}{'found':>9}{'missing':>9}{'broken':>9}"]
    total = collections.Counter()
    for split in manifest.SPLITS:
        count = collections.Counter(_state(row) for row in prepared.videos if row.split == split)
        total += count
        lines.append(f"{split:8}{count['found']:9,}{count['missing']:9,}{count['broken']:9,}")
    lines.append(f"{'all':8}{total['found']:9,}{total['missing']:9,}{total['broken']:9,}")
    reasons = collections.Counter(row.error for row in prepared.videos if _state(row) == "broken")
    for reason, count in reasons.most_common(10):
        lines.append(f"broken: {count:,} {reason}")
    return "\n".join(lines)


def _state(row: manifest.Video) -> str:
    return "found" if row.error is None else "missing" if row.error == manifest.MISSING else "broken"


def _check_writable(out: pathlib.Path) -> None:
    """Before hours of decoding, not after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror}); choose another --out") from error


def _write_broken(path: pathlib.Path, broken: dict[str, str]) -> None:
    """The broken files as path, reason; not the missing ones, which can be most of a data set."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "reason"))
        writer.writerows(broken.items())


if __name__ == "__main__":
    command.run(main)
