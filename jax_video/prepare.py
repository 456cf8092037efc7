"""Indexes videos for training: python -m jax_video.prepare SOURCE --videos=DIR --out=DIR

Looks at every video once and writes OUT/manifest.jsonl: labels, splits, frame counts, and what is missing or broken
(OUT/broken.csv). Stopped, it goes on where it was; later, it looks only at files that are new or have changed. SOURCE:

  folder      <class>/<video>, or train/, val/ and test/ with class folders in each: --fraction=.1, or by who is seen in
              anna_run.mp4, boris_run.mp4, ...: --group='^([a-z]+)_' --test_groups=anna,boris
  unlabelled  any videos, for knowledge transfer (configs/transfer.py): --fraction=.1
  list        `path label` in each line: --train_list=FILE --val_list=FILE --test_list=FILE --class_names=FILE
  ucf101, hmdb51, kinetics400, kinetics600, kinetics700, moments
              official lists: --annotations=DIR, and of the first two --split=1
  tfds:NAME   a set that TFDS has prepared below --videos=DIR, in the format array_record

  python -m jax_video.prepare folder --videos=clips --fraction=.1 --out=data/mine

--flow stores optical flow for motion streams too, below OUT/flow: tvl1 as in the papers, or dis, which is far quicker.
--pack stores all frames as JPEGs, below OUT/packed, a set that loads many times as fast. Two sources need no --videos:

  # the set that OUT/manifest.jsonl describes: look at its files again, say where they are now, or add its flow
  python -m jax_video.prepare manifest --out=data/ucf101-1 --check=fast
  python -m jax_video.prepare manifest --out=data/ucf101-1 --videos=/elsewhere/UCF-101
  python -m jax_video.prepare manifest --out=data/ucf101-1 --flow=tvl1
  python -m jax_video.prepare manifest --out=data/ucf101-1 --pack --pack_side=128
  # the embedded set
  python -m jax_video.prepare motions --out=data/motions --flow=dis --flow_side=62
  # how fast it loads, where the time goes, and what to change
  python -m jax_video.prepare --benchmark data/ucf101-1 --clip=16,2,122,112
"""

import contextlib
import dataclasses
import datetime
import inspect
import os
import pathlib
import shlex
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tqdm
from absl import flags

from jax_video import command, lock
from jax_video.data import manifest, remote, sources
from jax_video.data.decoding import flow
from jax_video.data.preparing import beam, checks, workers
from jax_video.data.sources import motions, official
from jax_video.errors import Stopped, UserError, listed

_VIDEOS = flags.DEFINE_string("videos", None, "Folder of the videos.")
_OUT = flags.DEFINE_string("out", None, "Folder to write manifest.jsonl and broken.csv into.")
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "Official lists: folder or file; default: beside the videos.")
_TRAIN_LIST = flags.DEFINE_string("train_list", None, "list: file of the training videos.")
_VAL_LIST = flags.DEFINE_string("val_list", None, "list: file of the validation videos (default: 5 % of training).")
_TEST_LIST = flags.DEFINE_string("test_list", None, "list: file of the test videos.")
_CLASS_NAMES = flags.DEFINE_string("class_names", None, "list: file of the classes, a name in each line.")
_SPLIT = flags.DEFINE_integer("split", None, "Official split, 1 (default), 2 or 3.")
_FRACTION = flags.DEFINE_float("fraction", None, "folder: part of each class for test, as much for val (default .1).")
_GROUP = flags.DEFINE_string("group", None, "folder: regular expression; its first group in a name is the group.")
_TEST_GROUPS = flags.DEFINE_list("test_groups", None, "folder: groups whose videos are for test.")
_VAL_GROUPS = flags.DEFINE_list("val_groups", None, "folder: groups whose videos are for validation.")
_SEED = flags.DEFINE_integer("seed", None, "Of the draw of test and validation videos (default 0).")
_CHECK = flags.DEFINE_enum("check", None, list(checks.LEVELS), "Containers only, or (default) every frame.")
_RECHECK = flags.DEFINE_boolean("recheck", False, "Look at every file again; so does another decoder.")
_MIN_FRAMES = flags.DEFINE_integer("min_frames", None, "A video of fewer frames is broken.", lower_bound=1)
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Processes that decode.", lower_bound=1)
_TIMEOUT = flags.DEFINE_float(
    "timeout",
    300.0,
    "Seconds after which a file that still decodes is broken; with --flow for every 50 frames, with --pack for 1000.",
    lower_bound=0,
)
_FLOW = flags.DEFINE_enum("flow", None, list(flow.METHODS), "Store optical flow, computed by this method.")
_FLOW_SIDE = flags.DEFINE_integer(
    "flow_side", 256, "Short side of the frames it is computed from.", lower_bound=flow.LEAST_SIDE
)
_PACK = flags.DEFINE_boolean("pack", False, "Store all frames as JPEGs, in a set of its own below OUT/packed.")
_PACK_SIDE = flags.DEFINE_integer("pack_side", 256, "Their short side at most; none is enlarged.", lower_bound=1)
_PACK_QUALITY = flags.DEFINE_integer("pack_quality", 90, "Of these JPEGs.", lower_bound=1, upper_bound=100)
_BEAM = flags.DEFINE_string("beam", None, "Run --flow and --pack on Apache Beam, with these options.")
_BENCHMARK = flags.DEFINE_string("benchmark", None, "A prepared set whose loading is timed.")
_CLIP = flags.DEFINE_list("clip", ["16", "2", "122", "112"], "benchmark: frames, stride, short side, crop.")
_BATCH = flags.DEFINE_integer("batch", 32, "benchmark: clips in a batch.", lower_bound=1)
_SECONDS = flags.DEFINE_float("benchmark_seconds", 6.0, "How long each of its measurements takes.", lower_bound=0.1)
flags.declare_key_flag("takeover")

_OF_STEPS = {"flow": ("flow_side",), "pack": ("pack_side", "pack_quality")}  # Flags that mean nothing without these.
_PREPARED = ("manifest", "motions")  # Sources whose videos are indexed already.
_TFDS = "tfds:"  # Before the name of a set of TFDS.
_Found = tuple[manifest.Manifest, Sequence[str]]  # A set, and what the user should know of it.


def main(argv: list[str]) -> None:
    if _BENCHMARK.value is not None:
        _benchmark(argv)
        return
    source, out, settings = _asked(argv)
    with lock.hold(out, takeover=command.TAKEOVER.value, lost=lock.end_process):
        _prepare(source, out, settings)


def _prepare(source: str, out: pathlib.Path, settings: flow.Settings | None) -> None:
    prepared, notes = _found(source, out)
    _check_found(prepared)
    _open_folder(out)
    _announce(prepared)

    doubles = {}
    with _resumable(out):
        if _is_looked_at(source):
            prepared, doubles = _check(prepared, out)
        folder = out / "flow"
        if settings:
            flow.open_folder(folder, settings)
        if folder.exists():
            prepared = dataclasses.replace(prepared, flow=str(folder.absolute()))
        lock.check(out)
        prepared.write(out / "manifest.jsonl")

    print(f"\n{checks.table(prepared, doubles)}")
    print("".join(f"{note}\n" for note in notes))
    if all(row.error for row in prepared.videos):
        there = sum(row.error != manifest.MISSING for row in prepared.videos)
        raise UserError(f"none of the {there:,} videos can be read; the reasons are in {out / 'broken.csv'}")
    with _resumable(out):
        if settings:
            _store_flow(prepared, settings, out)
        if _PACK.value:
            prepared, out = _pack(prepared, out), out / "packed"
    _say_next(source, prepared, settings, out)


def _asked(argv: list[str]) -> tuple[str, pathlib.Path, flow.Settings | None]:
    """The source, the folder to write into, and what flow to store; mistakes come to light before any work."""
    known = [*official.SOURCES, *_PREPARED]
    if len(argv) != 1 or not (argv[0] in known or argv[0].startswith(_TFDS)):
        raise UserError(
            f"expected one source of {', '.join(known)}, {_TFDS}NAME, got {' '.join(argv) or 'none'}; see --help"
        )
    source = argv[0]
    if _OUT.value is None or (_VIDEOS.value is None and source not in _PREPARED):
        raise UserError("expected --videos=DIR, where the videos are, and --out=DIR, where to write; see --help")
    if "," in _OUT.value:
        raise UserError(f"--out={_OUT.value}: a comma cannot stand in a config's arguments; choose another name")
    for name, value in (("out", _OUT.value), ("videos", _VIDEOS.value)):
        if value is not None and remote.is_remote(value):
            raise UserError(
                f"--{name}={value}: prepare works on local folders; what it writes can be copied to a store"
            )
    for step, names in _OF_STEPS.items():
        idle = [f"--{name}" for name in names if flags.FLAGS[name].present and not flags.FLAGS[step].value]
        if idle:
            raise UserError(f"{' '.join(idle)}: nothing to do without --{step}")
    if _BEAM.value is not None and not (_FLOW.value or _PACK.value):
        raise UserError("--beam: nothing to do without --flow or --pack")
    out = pathlib.Path(_OUT.value)
    settings = flow.Settings(_FLOW.value, _FLOW_SIDE.value) if _FLOW.value else None
    if settings:
        if _VIDEOS.value is not None and out.resolve() == pathlib.Path(_VIDEOS.value).resolve():
            raise UserError(f"--out={out} is the folder of the videos, among which flow has no place; choose another")
        flow.check_settings(out / "flow", settings)
    if _PACK.value:
        _packed().check_settings(out / "packed", _pack_settings())
    return source, out, settings


def _found(source: str, out: pathlib.Path) -> _Found:
    if source in _PREPARED:
        return _prepared(source, out)
    if source.startswith(_TFDS):
        return _tfds_set(source.removeprefix(_TFDS))
    return _listed(source)


def _is_looked_at(source: str) -> bool:
    """Whether the files of a source are checked."""
    return _level() is not None or not (source in _PREPARED or source.startswith(_TFDS))


def _level() -> str | None:
    """How thoroughly files are to be looked at; None where nothing was said."""
    return _CHECK.value or ("full" if _RECHECK.value else None)


def _tfds_set(name: str) -> _Found:
    """A set whose frames lie in TFDS's records."""
    _refuse(_source_flags() | {"check": _level(), "flow": _FLOW.value, "pack": _PACK.value or None}, f"tfds:{name}")
    return _packed().tfds_set(name, _VIDEOS.value), ()


def _refuse(given: Mapping[str, Any], source: str) -> None:
    """Flags, by name, that have a value but do not belong to the source, whose videos are known."""
    strange = [f"--{name}" for name, value in given.items() if value is not None]
    if strange:
        raise UserError(f"{' '.join(strange)}: not for {source}, whose videos are known")


def _listed(source: str) -> _Found:
    """What a source says there is; not checked yet."""
    listing = _list(source)
    found = manifest.Manifest(listing.name, listing.classes, str(listing.root.absolute()), listing.videos)
    return found, listing.notes


def _prepared(source: str, out: pathlib.Path) -> _Found:
    """The set that a manifest describes already, where it is now."""
    strange = _source_flags()
    if source == "motions":
        strange |= {"videos": _VIDEOS.value, "check": _level()}
    elif _level() is None and _MIN_FRAMES.value:
        raise UserError(f"--min_frames: {source} is looked at only with --check=fast|full or --recheck")
    _refuse(strange, source)
    if source == "motions":
        return manifest.Manifest.read(motions.make()), ()
    if _FLOW.value is None and _level() is None and _VIDEOS.value is None and not _PACK.value:
        raise UserError(
            "nothing to do for a set that is prepared: --flow=METHOD adds its optical flow, --pack its frames as "
            "JPEGs, --check=fast|full looks at its files again, --videos=DIR says where they are now"
        )
    found = manifest.Manifest.read(out / "manifest.jsonl")
    if found.packed is not None:
        raise UserError(f"{out} is a packed set, whose videos are no files: name the set that it was made of")
    if _VIDEOS.value is not None:
        found = _moved(found, pathlib.Path(_VIDEOS.value))
    if _level() is None:
        return found, ()
    videos = (dataclasses.replace(row, error=sources.fault(os.path.join(found.root, row.path))) for row in found.videos)
    return dataclasses.replace(found, videos=tuple(videos)), ()


def _moved(found: manifest.Manifest, root: pathlib.Path) -> manifest.Manifest:
    """The set whose files are below another folder now."""
    readable = [row.path for row in found.videos if row.error is None]
    lost = [path for path in readable if not (root / path).exists()]
    if lost and (_level() is None or len(lost) == len(readable)):  # A check counts those that are missing.
        raise UserError(
            f"{len(readable) - len(lost):,} of the {len(readable):,} readable videos of {found.name} are below {root}; "
            f"{lost[0]} is not: looked for {root / lost[0]}. --videos names the folder below which all have the same "
            f"place as below {found.root}"
        )
    return dataclasses.replace(found, root=str(root.absolute()))


def _check_found(prepared: manifest.Manifest) -> None:
    missing = [row for row in prepared.videos if row.error == manifest.MISSING]
    if len(missing) == len(prepared.videos):
        raise UserError(
            f"no videos found: {prepared.root} has none of the {len(missing)} videos of {prepared.name}, "
            f"e.g. {missing[0].path}; --videos names the folder that holds them"
        )


def _check(prepared: manifest.Manifest, out: pathlib.Path) -> tuple[manifest.Manifest, dict[str, str]]:
    """Looks at every file; the set as it is, and what is said of videos that are also in the test."""
    # What is no file is not opened: a pipe would never end.
    faults = {row.path: row.error for row in prepared.videos if row.error not in (None, manifest.MISSING)}
    prepared, doubles = checks.check(
        _with_errors(prepared, dict.fromkeys(faults, manifest.MISSING)),
        out,
        level=_level() or "full",
        min_frames=_MIN_FRAMES.value or 1,
        processes=_WORKERS.value,
        timeout=_TIMEOUT.value,
        recheck=_RECHECK.value,
    )
    prepared = _with_errors(prepared, faults)
    lock.check(out)
    strange = {row.path: row.error for row in prepared.videos if (row.error or "").startswith(checks.NOT_LOOKED_AT)}
    _stop_where_nothing_is_known(strange)
    # Not the missing ones, which can be most of a data set.
    broken = {row.path: row.error for row in prepared.videos if row.error not in (None, manifest.MISSING)}
    checks.write_reasons(out / "broken.csv", prepared, broken | doubles)
    return prepared, doubles


def _with_errors(prepared: manifest.Manifest, errors: Mapping[str, str]) -> manifest.Manifest:
    """The set whose videos of these paths cannot be used, for these reasons."""
    videos = (row.broken(errors[row.path]) if row.path in errors else row for row in prepared.videos)
    return dataclasses.replace(prepared, videos=tuple(videos)) if errors else prepared


def _stop_where_nothing_is_known(strange: Mapping[str, str]) -> None:
    """Raises UserError where something else than files or videos is to blame, by reason, before that is stored."""
    for traceback in filter(None, {getattr(reason, "traceback", ""): None for reason in strange.values()}):
        print(traceback, file=sys.stderr)
    if strange:
        raise UserError(
            f"stopped at {len(strange):,} of the files, by no fault of theirs:\n"
            + listed([f"{path}: {reason}" for path, reason in strange.items()])
            + "\nNothing was stored of it. Mend it, or move these files away; the same command goes on where it was"
        )


def _announce(prepared: manifest.Manifest) -> None:
    there = sum(row.error != manifest.MISSING for row in prepared.videos)
    processes = f"{_WORKERS.value} process{'es' * (_WORKERS.value != 1)}" if _BEAM.value is None else "Apache Beam"
    command.announce(processes, f"{prepared.name}: {there:,} video{'s' * (there != 1)}")


@contextlib.contextmanager
def _resumable(out: pathlib.Path) -> Iterator[None]:
    """Work whose every step counts."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("stopped: the same command goes on where it was") from None
    except OSError as error:
        raise UserError(
            f"cannot write to {out} ({error.strerror}); once it can be, the same command goes on where it was"
        ) from error


def _list(source: str) -> sources.Listing:
    """Calls the source with the flags that were given; one that it does not know is an error, not ignored."""
    given = {name: value for name, value in _source_flags().items() if value is not None}
    function = official.SOURCES[source]
    known = list(inspect.signature(function).parameters)[1:]
    unknown = [f"--{name}" for name in given if name not in known]
    if unknown:
        raise UserError(f"{' '.join(unknown)}: not for {source}, which knows {' '.join(f'--{name}' for name in known)}")
    return function(pathlib.Path(_VIDEOS.value), **given)


def _source_flags() -> dict[str, Any]:
    """What the sources' keyword arguments were given as flags; None where not given."""
    return {
        "annotations": _ANNOTATIONS.value and pathlib.Path(_ANNOTATIONS.value),
        "train_list": _TRAIN_LIST.value and pathlib.Path(_TRAIN_LIST.value),
        "val_list": _VAL_LIST.value and pathlib.Path(_VAL_LIST.value),
        "test_list": _TEST_LIST.value and pathlib.Path(_TEST_LIST.value),
        "class_names": _CLASS_NAMES.value and pathlib.Path(_CLASS_NAMES.value),
        "split": _SPLIT.value,
        "fraction": _FRACTION.value,
        "group": _GROUP.value,
        "test_groups": _TEST_GROUPS.value,
        "val_groups": _VAL_GROUPS.value,
        "seed": _SEED.value,
    }


def _open_folder(out: pathlib.Path) -> None:
    """Whether it can be written is known before hours of decoding; what a kill left half written goes."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror}); choose another --out") from error
    for left in (*out.glob(".manifest.jsonl.*"), *out.glob(".*.part")):
        left.unlink(missing_ok=True)


def _store_flow(prepared: manifest.Manifest, settings: flow.Settings, out: pathlib.Path) -> None:
    """Computes the flow of the readable videos that have none yet, and says what became of it."""
    readable = [entry for entry in prepared.videos if entry.error is None]
    waiting = [entry for entry in readable if not flow.is_stored(prepared.flow, entry)]
    tasks = (
        (os.path.join(prepared.root, entry.path), flow.stored_path(prepared.flow, entry), entry, settings)
        for entry in waiting
    )

    def seconds(task: tuple) -> float:
        entry = task[2]
        return _TIMEOUT.value * max(1, (entry.first + entry.frames) / 50)

    results = _run(tasks, _store_one, seconds, out)
    done = len(readable) - len(waiting)
    broken, strange = {}, {}
    with tqdm.tqdm(desc="flow", total=len(readable), initial=done, unit=" videos") as progress:
        for which, reason in results:
            if reason is not None:
                (strange if isinstance(reason, workers.NoVerdict) else broken)[waiting[which].path] = reason
            progress.update()
    _stop_where_nothing_is_known(strange)
    flow.close_folder(prepared.flow)
    checks.write_reasons(out / "broken_flow.csv", prepared, broken)
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


def _pack(prepared: manifest.Manifest, out: pathlib.Path) -> manifest.Manifest:
    """Writes the shards that are not there yet; the packed set."""
    packed, settings = _packed(), _pack_settings()
    folder = out / "packed"
    builder = packed.open_folder(folder, prepared, settings)
    shards = packed.shards(prepared, builder.data_dir, settings)
    waiting = [shard for shard in shards if not os.path.exists(shard.path)]
    total, frames = (sum(shard.frames for shard in each) for each in (shards, waiting))
    if waiting:
        size, seconds = _measure_packing(prepared, settings)
        free = shutil.disk_usage(folder).free
        hours = datetime.timedelta(seconds=round(seconds * frames / _WORKERS.value))
        print(
            f"packing {frames:,} frames into {folder}: about {size * frames / 1e9:,.2f} GB, of {free / 1e9:,.0f} GB "
            f"that are free, in {hours} on this machine"
        )
        if size * frames > free:
            raise UserError(f"{folder} has no room for it: take a smaller --pack_side or --pack_quality, or free some")

    def seconds_for(shard: packed.Shard) -> float:
        return _TIMEOUT.value * max(1, shard.frames / 1000)

    with tqdm.tqdm(desc="packing", total=total, initial=total - frames, unit=" frames") as progress:
        for which, reason in _run(waiting, packed.write_shard, seconds_for, folder):
            if isinstance(reason, workers.NoVerdict):
                _stop_where_nothing_is_known({os.path.basename(waiting[which].path): reason})
            if reason is not None:
                raise UserError(
                    f"{os.path.basename(waiting[which].path)}: {reason}. One of its videos cannot be decoded any more: "
                    f"python -m jax_video.prepare manifest --out={out} --check=full"
                )
            progress.update(waiting[which].frames)
    done = packed.finish(prepared, builder, folder)
    size = sum(os.path.getsize(shard.path) for shard in shards)
    print(f"packed: {size / 1e9:,.2f} GB in {len(shards):,} shards in {folder}")
    lost = {
        row.path: row.error for row, was in zip(done.videos, prepared.videos, strict=True) if row.error != was.error
    }
    checks.write_reasons(folder / "broken.csv", done, lost)
    for path, reason in list(lost.items())[:10]:
        print(f"not packed: {path}: {reason}")
    if lost:
        print(f"not packed: {len(lost):,} in all, in {folder / 'broken.csv'}; remove {folder} to pack again")
    print()
    return done


def _packed() -> types.ModuleType:
    """The module, imported where it is needed: TFDS takes half a second."""
    from jax_video.data.decoding import packed

    return packed


def _pack_settings() -> manifest.Packed:
    return manifest.Packed("frames", _packed().RECORD_FRAMES, _PACK_SIDE.value, _PACK_QUALITY.value)


def _measure_packing(prepared: manifest.Manifest, settings: manifest.Packed) -> tuple[float, float]:
    """(bytes, seconds of one process) for each frame of the set, from a few."""
    packed = _packed()
    samples = packed.samples(prepared, settings)
    found = dict(workers.run(samples, packed.measure, workers=_WORKERS.value, timeout=60))
    strange = {which: result for which, result in found.items() if isinstance(result, workers.NoVerdict)}
    _stop_where_nothing_is_known({samples[which].parts[0].entry.path: result for which, result in strange.items()})
    measured = [result for result in found.values() if not isinstance(result, str)]
    if not any(frames for frames, *_ in measured):
        raise UserError(f"none of {len(measured)} videos can be read: look at the set again with --check=full")
    frames, size, seconds = map(sum, zip(*measured, strict=True))
    return size / frames, seconds / frames


def _run(
    tasks: Iterable, function: Callable[[Any], None], seconds: Callable[[Any], float], folder: pathlib.Path
) -> Iterator[tuple[int, str | None]]:
    """Calls a function of a module with each task, in processes here or wherever Apache Beam runs."""
    if _BEAM.value is None:
        return workers.run(tasks, function, workers=_WORKERS.value, timeout=seconds)
    return beam.run(tasks, function, options=_BEAM.value, folder=folder)


def _benchmark(argv: list[str]) -> None:
    if argv:
        raise UserError(f"--benchmark takes a prepared set, and no source besides: got {' '.join(argv)}")
    found = motions.read_manifest(_BENCHMARK.value)
    if len(_CLIP.value) != 4 or not all(number.isdecimal() for number in _CLIP.value):
        raise UserError(f"--clip={','.join(_CLIP.value)}: expected frames, stride, short side and crop: 16,2,122,112")
    import jax  # For the way to the device; all else here does without.

    from jax_video import sharding
    from jax_video.data import pipeline, reader
    from jax_video.data.preparing import speed

    reader.check(found)
    command.announce(sharding.describe(sharding.make_mesh()), found.describe())

    frames, stride, short_side, size = map(int, _CLIP.value)
    sampling = pipeline.Sampling(frames=frames, stride=stride, short_side=short_side, size=size)
    measured = speed.measure(
        found,
        sampling,
        batch=_BATCH.value,
        transfer=lambda batch: jax.block_until_ready(jax.device_put(batch)),
        workers=tuple(sorted({0, 1, max(1, _WORKERS.value // 2), _WORKERS.value})),
        seconds=_SECONDS.value,
    )
    print(speed.report(found, sampling, measured))


def _say_next(source: str, prepared: manifest.Manifest, settings: flow.Settings | None, out: pathlib.Path) -> None:
    """The commands that train on the set."""
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


if __name__ == "__main__":
    command.run(main)
