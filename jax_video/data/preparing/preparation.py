"""Preparing a set for training: its videos are found and checked, their flow is stored, and they are packed.

This is what `python -m jax_video.prepare` does, and can be called from Python:

    from jax_video.data.preparing.preparation import Preparation, prepare
    result = prepare(Preparation("folder", "data/mine", videos="clips", parameters={"fraction": 0.2}))
    print(result.report)
    result.manifest
"""

import contextlib
import csv
import dataclasses
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jax_video import lock
from jax_video.data import clips, remote, sources
from jax_video.data.decoding import packets, workers
from jax_video.data.decoding.flow import Settings as FlowSettings
from jax_video.data.manifest import MISSING, Manifest, Packed, Video
from jax_video.data.preparing import checks, packs, storing, verdicts
from jax_video.data.preparing.machines import Machines
from jax_video.data.sources import finding, listing, motions
from jax_video.errors import Stopped, UserError

COLUMNS = "columns.csv"  # beside a manifest: what else a table says of its videos
PREPARED = "manifest"  # the source that is the set in `out`, which was prepared before
_OURS = {"manifest.jsonl": b'{"format"', "broken.csv": b"split", COLUMNS: b"video"}  # and how each begins


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is to be done with which set. Raises UserError for what is impossible, before any work."""

    source: str  # one of sources.SOURCES, tfds:NAME, or "manifest": the set that was prepared in `out` before
    out: str | os.PathLike  # the folder to write into
    videos: str | os.PathLike | None = None  # the folder of the videos; "manifest" and "motions" need none
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the source, by name; paths also as str
    check: str | None = None  # one of checks.LEVELS; None: full, but no check for the source "manifest"
    recheck: bool = False  # whether every file is looked at again
    min_frames: int | None = None  # a video with fewer is broken; None: 1
    max_damage: float | None = None  # the part of a video's frames that may be lost; None: packets.MAX_DAMAGE
    accept: Sequence[str] = ()  # videos, folders and patterns: the frames that they give are used, whatever is wrong
    flow: FlowSettings | None = None  # how optical flow is computed and stored; None: it is not
    pack: Packed | None = None  # how frames are packed; None: they are not
    machines: Machines = Machines()
    fps: float | None = None  # frames per second of videos that do not say it, such as pictures

    def __post_init__(self):
        files = [name for name, source in sources.SOURCES.items() if not source.refuses]
        others = [sources.written(name) for name, source in sources.SOURCES.items() if source.refuses]
        if self.source != PREPARED and self._record is None:
            raise UserError(
                f"expected one source of {', '.join([*files, PREPARED, *others])}, got {self.source or 'none'}; "
                "see --help"
            )
        if not self.out or (self.videos is None and self.needs_videos):
            raise UserError("expected --videos=DIR, where the videos are, and --out=DIR, where to write; see --help")
        if "," in os.fspath(self.out):
            raise UserError(f"--out={self.out}: a comma cannot stand in a config's arguments; choose another name")
        if self.folder == pathlib.Path(motions.NAME):  # which `prepared.read` takes for the embedded set
            raise UserError(f"--out={self.out}: in a config this is the embedded set; choose another, as data/motions")
        if self.machines.timeout <= 0:
            raise UserError(f"--timeout={self.machines.timeout:g}: expected more than 0 seconds")
        if remote.is_remote(self.out):
            raise UserError(f"--out={self.out}: prepare writes to a local folder, which can be copied to a store")
        if self.videos is not None and remote.is_remote(self.videos):
            remote.path(self.videos)  # raises if the package for this store is missing
            if self._record is not None and self._record.refuses:
                raise UserError(f"--videos={self.videos}: {self.source} is read from a local folder")
        if self.fps is not None and not clips.is_rate(self.fps):
            least, most = clips.SLOWEST, clips.FASTEST
            raise UserError(f"--fps={self.fps:g}: expected frames per second, from {least:g} to {most:g}")
        if self.machines.beam is not None and self.flow is None and self.pack is None:
            raise UserError("--beam: nothing to do without --flow or --pack")
        if self.flow is not None:
            near = self.videos is not None and not remote.is_remote(self.videos)
            if near and self.folder.resolve() == pathlib.Path(self.videos or "").resolve():
                raise UserError(
                    f"--out={self.out} is the folder of the videos, among which flow has no place; choose another"
                )
            storing.check_settings(self.folder / "flow", self.flow)
        if self.pack is not None:
            packs.check(self.folder / "packed", self.pack)
        self._check_parameters()
        self._check_inputs()

    @property
    def folder(self) -> pathlib.Path:
        """The folder to write into."""
        return pathlib.Path(self.out)

    @property
    def level(self) -> str | None:
        """How thoroughly files are to be looked at; None if that was not given."""
        return self.check or ("full" if self.recheck else None)

    @property
    def _rules(self) -> list[str]:
        """Those flags that were given and that decide which videos are broken."""
        given = {"min_frames": self.min_frames, "max_damage": self.max_damage, "accept": self.accept or None}
        return [f"--{name}" for name, value in given.items() if value is not None]

    @property
    def needs_videos(self) -> bool:
        """Whether the source must be told where the videos are."""
        return self._record is not None and "videos" not in self._record.refuses

    @property
    def _record(self) -> sources.Source | None:
        """The source's record in sources.SOURCES; None for "manifest", which has none, and for an unknown source."""
        name, colon, _ = self.source.partition(":")
        record = sources.SOURCES.get(name)
        return record if record is not None and bool(record.argument) == bool(colon) else None

    def _check_parameters(self) -> None:
        """Raise UserError for a parameter that the source does not know; none is ignored."""
        record = self._record
        known = [parameter.name for parameter in record.parameters] if record else []
        unknown = [f"--{name}" for name in self.parameters if name not in known]
        if record is None or record.refuses:
            given = {"videos": self.videos, "check": self.level, "flow": self.flow, "pack": self.pack}
            refused = record.refuses if record else ()
            unknown += [f"--{name}" for name in refused if given[name] is not None]
            unknown += self._rules if "check" in refused else []
            if unknown:
                raise UserError(f"{' '.join(unknown)}: not for {self.source}, whose videos are known")
        elif unknown:
            names = " ".join(f"--{name}" for name in known)
            raise UserError(f"{' '.join(unknown)}: not for {self.source}, which knows {names}")
        if "group" in self.parameters and (drawn := self.parameters.keys() & {"fraction", "seed"}):
            raise UserError(
                f"{' '.join(f'--{name}' for name in sorted(drawn))}: nothing is drawn where --group, --test_groups and "
                "--val_groups say which videos are for what"
            )
        if self.source != PREPARED:
            return
        if self.level is None and self._rules:
            raise UserError(
                f"{' '.join(self._rules)}: {self.source} is looked at only with --check=fast|full or --recheck"
            )
        if not any((self.flow, self.level, self.videos, self.pack, self.fps)):
            raise UserError(
                "nothing to do for a set that is prepared: --flow=METHOD adds its optical flow, --pack its frames as "
                "JPEGs, --check=fast|full looks at its files again, --videos=DIR says where they are now, --fps=25 how "
                "many frames a second those have that do not say it"
            )

    def _check_inputs(self) -> None:
        """Raise UserError for a file to be read that would be written over."""
        written = {(self.folder / name).resolve() for name in (*_OURS, checks.MEMORY)}
        for name, value in self.parameters.items():
            for each in value if isinstance(value, list | tuple) else [value]:
                if isinstance(each, str | os.PathLike) and pathlib.Path(each).resolve() in written:
                    raise UserError(f"--{name}={each} is a file that is written into --out={self.out}; choose another")

    def find(self) -> "Found":
        """Find the set as its source describes it."""
        record = self._record
        if record is None:
            return Found(self._find_prepared(), self.level is not None)
        name = self.source.partition(":")[2]
        arguments = [name] * bool(record.argument)
        paths = {parameter.name for parameter in record.parameters if parameter.kind is pathlib.Path}
        given = {key: remote.path(value) if key in paths else value for key, value in self.parameters.items()}
        with remote.reaching(self.videos or ""):
            found = record.find(*arguments, *[remote.path(self.videos or "")] * self.needs_videos, **given)
        if isinstance(found, Manifest):
            empty = [split for split in ("train", "test") if not any(row.split == split for row in found.videos)]
            return Found(found, False, [f"no videos for {split}" for split in empty])
        root = os.fspath(remote.absolute(found.root))
        manifest = Manifest(found.name, found.classes, root, found.videos, flip=found.flip)
        return Found(manifest, True, [*found.notes, *listing.alike(found.classes)], found.columns)

    def earlier(self) -> dict[str, str | None]:
        """{name of a video: why it was not used} of the set that was prepared before, if that is looked at again."""
        if self.source != PREPARED or self.level is None:
            return {}
        return {row.name: row.error for row in Manifest.read(self.folder / "manifest.jsonl").videos}

    def _find_prepared(self) -> Manifest:
        """The set that was prepared before, where its videos are now."""
        found = Manifest.read(self.folder / "manifest.jsonl")
        if found.packed is not None:
            raise UserError(f"{self.out} is a packed set, whose videos are no files: name the set that it was made of")
        if self.videos is not None:
            found = _moved(found, remote.path(self.videos), self.level)
        if self.level is None:
            return found
        if remote.is_remote(found.root):
            there = finding.find_videos(remote.path(found.root))
            faults = {path: there.faults.get(path) for path in there.videos}
            rows = (dataclasses.replace(row, error=faults.get(row.path, MISSING)) for row in found.videos)
        else:
            paths = (os.path.join(found.root, row.path) for row in found.videos)
            rows = (
                dataclasses.replace(row, error=finding.fault(path))
                for row, path in zip(found.videos, paths, strict=True)
            )
        return dataclasses.replace(found, videos=tuple(rows))


class Found(NamedTuple):
    """A set as its source describes it."""

    manifest: Manifest
    is_looked_at: bool  # whether its files are to be looked at
    notes: Sequence[str] = ()  # what the user should know
    columns: Mapping[str, Mapping[str, str]] = {}  # what else is known of its videos: `Listing.columns`


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What became of a set."""

    manifest: Manifest  # the one to train on: the packed one, where it was packed
    folder: pathlib.Path  # of that manifest
    report: str  # the table of readable and broken videos, notes, and what was stored

    @property
    def is_in_store(self) -> bool:
        """Whether the videos are files in a store, which training does not read."""
        return self.manifest.packed is None and remote.is_remote(self.manifest.root)


def prepare(
    task: Preparation,
    *,
    say: Callable[[str], None] = lambda text: None,
    takeover: bool = False,
    lost: Callable[[lock.Lost], None] | None = None,
) -> Prepared:
    """Do what a preparation asks for, with progress bars on stderr; after a stop, a new call goes on where it was.

    Args:
      task: what is to be done.
      say: called with each part of the report as soon as it is known.
      takeover: whether to take the folder even if another process writes into it.
      lost: called when another process has taken the folder over (see `lock.hold`).

    Raises:
      UserError: there are no videos, none of them can be read, the folder cannot be written, or another process writes
        into it.
      Stopped: Ctrl-C.
    """
    with lock.hold(task.folder, takeover=takeover, lost=lost):
        return _prepare(task, say)


def _prepare(task: Preparation, say: Callable[[str], None]) -> Prepared:
    parts: list[str] = []

    def tell(text: str) -> None:
        parts.append(text)
        say(text)

    out = task.folder
    found, is_looked_at, notes, columns = task.find()
    _check_found(found)
    _open_folder(out)
    there = sum(row.error != MISSING for row in found.videos)
    print(f"{task.machines}; {found.name}: {there:,} video{'s' * (there != 1)}", file=sys.stderr)

    remarks: Mapping[str, str] = {}
    before = task.earlier()
    with _resumable(out):
        if is_looked_at:
            found, remarks = _check(found, task)
        if task.fps:
            rated = [_says_rate(row) for row in found.videos]
            rows = zip(found.videos, rated, strict=True)
            videos = tuple(row if says else dataclasses.replace(row, fps=float(task.fps)) for row, says in rows)
            found = dataclasses.replace(found, videos=videos)
            if all(rated):
                notes = [*notes, f"warning: --fps={task.fps:g} is for none of them: each has a rate already"]
        folder = out / "flow"
        if task.flow:
            storing.open_folder(folder, task.flow)
        if folder.exists():
            found = dataclasses.replace(found, flow=os.fspath(remote.absolute(folder)))
        lock.check(out)
        found.write(out / "manifest.jsonl")
        if columns:
            _write_columns(out / COLUMNS, found, columns)
            notes = [*notes, f"what else is said of each video: {out / COLUMNS}"]
        elif task.source != PREPARED:
            (out / COLUMNS).unlink(missing_ok=True)  # of another table

    tell(f"\n{checks.table(found, remarks)}")
    alike = {name: remark for name, remark in remarks.items() if remark.startswith(checks.ALIKE)}
    for line in checks.first_reasons("warning", alike, out / "broken.csv"):
        tell(line)
    notes = [*notes, *verdicts.untrained(found)]
    if is_looked_at:
        notes += verdicts.advice(found.videos, remarks, out / "broken.csv")
        notes += verdicts.revived(before, found.videos)
    tell("".join(f"{note}\n" for note in notes))
    if all(row.error for row in found.videos):
        there = sum(row.error != MISSING for row in found.videos)
        raise UserError(f"none of the {there:,} videos can be read; the reasons are in {out / 'broken.csv'}")
    with _resumable(out):
        if task.flow:
            storing.store_all(found, task.flow, out, task.machines, tell, thorough=task.recheck)
        if outdated := _outdated(found, task, is_looked_at):
            tell("".join(f"{line}\n" for line in outdated))
        if task.pack is not None:
            from jax_video.data.preparing import packing

            found, out = packing.pack(found, task.pack, out, task.machines, tell), out / "packed"
            if (task.folder / COLUMNS).exists():
                remote.write_whole(out / COLUMNS, [(task.folder / COLUMNS).read_bytes()])
    return Prepared(found, out, "\n".join(parts))


def _outdated(found: Manifest, task: Preparation, is_looked_at: bool) -> list[str]:
    """Warnings of flow and packed frames that this preparation leaves as they are, and that are not of this set."""
    packed = None if task.pack else task.folder / "packed"
    flow = None if task.flow or not is_looked_at else found.flow
    if flow is None and not (packed and packed.exists()):
        return []
    digests = checks.digests(task.folder, found)
    lines = storing.warning(found, digests) if flow else []
    return lines + (packs.warning(packed, found.hash, packs.checksum(found, digests)) if packed else [])


def _write_columns(path: pathlib.Path, found: Manifest, columns: Mapping[str, Mapping[str, str]]) -> None:
    """Write a CSV with a row for each video, in the set's order: its name, and what else a table says of it."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("video", *(f"{name}_" if name == "video" else name for name in columns)))
    writer.writerows((row.name, *(cells.get(row.name, "") for cells in columns.values())) for row in found.videos)
    remote.write_whole(path, [table.getvalue().encode("utf-8", errors="surrogateescape")])


def _moved(found: Manifest, root: remote.Path, level: str | None) -> Manifest:
    """The set whose files are below another folder now."""
    readable = [row.path for row in found.videos if row.error is None]
    if remote.is_remote(root):
        there = set(finding.find_videos(root).videos)
        lost = [path for path in readable if path not in there]
    else:
        lost = [path for path in readable if not (root / path).exists()]
    if lost and (level is None or len(lost) == len(readable)):  # a check counts those that are missing
        raise UserError(
            f"{len(readable) - len(lost):,} of the {len(readable):,} readable videos of {found.name} are below {root}; "
            f"{lost[0]} is not: looked for {root / lost[0]}. --videos names the folder below which all have the same "
            f"place as below {found.root}"
        )
    return dataclasses.replace(found, root=os.fspath(remote.absolute(root)))


def _check_found(found: Manifest) -> None:
    missing = [row for row in found.videos if row.error == MISSING]
    if len(missing) == len(found.videos):
        raise UserError(
            f"no videos found: {found.root} has none of the {len(missing)} videos of {found.name}, "
            f"e.g. {missing[0].path}; --videos names the folder that holds them"
        )


def _says_rate(row: Video) -> bool:
    """Whether a video that can be read says its rate itself; pictures never do."""
    is_folder = finding.without_extension(row.path) == row.path
    return row.error is not None or (clips.is_rate(row.fps) and not is_folder)


def _open_folder(out: pathlib.Path) -> None:
    """Make the folder, check before hours of decoding that it can be written, and remove what a kill has left."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror}); choose another --out") from error
    prepared = any((out / name).exists() for name in ("manifest.jsonl", checks.MEMORY))
    for name, begins in _OURS.items():
        there = out / name
        if there.is_file():
            with there.open("rb") as file:
                head = file.read(len(begins) + 3).removeprefix(b"\xef\xbb\xbf")[: len(begins)].strip(b"\0")
            if head and (head != begins or name == COLUMNS and not prepared):  # zeros are of a power loss
                raise UserError(f"{there} is there, and is not as prepare writes it: move it, or choose another --out")
    for pattern in (".manifest.jsonl.*", *(f".{name}*.part" for name in (*_OURS, checks.MEMORY))):
        for left in out.glob(pattern):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def _resumable(out: pathlib.Path) -> Iterator[None]:
    """Turn Ctrl-C and errors of the disk into messages that the same command goes on where it was."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("stopped: the same command goes on where it was") from None
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        raise UserError(
            f"cannot write to {out} ({reason}); once it can be, the same command goes on where it was"
        ) from error


def _check(found: Manifest, task: Preparation) -> tuple[Manifest, Mapping[str, str]]:
    """Look at every file: (the checked set, remarks on videos that are used)."""
    # What is not a file is not opened: a pipe would never end.
    faults = {row.path: row.error for row in found.videos if row.error is not None and row.error != MISSING}
    found, remarks = checks.check(
        _with_errors(found, dict.fromkeys(faults, MISSING)),
        task.folder,
        level=task.level or "full",
        min_frames=task.min_frames or 1,
        max_damage=packets.MAX_DAMAGE if task.max_damage is None else task.max_damage,
        accept=task.accept,
        processes=task.machines.workers,
        timeout=task.machines.timeout,
        recheck=task.recheck,
    )
    found = _with_errors(found, faults)
    lock.check(task.folder)
    broken = {row.name: row.error for row in found.videos if row.error is not None and row.error != MISSING}
    workers.stop_at({name: reason for name, reason in broken.items() if reason.startswith(checks.NOT_LOOKED_AT)})
    # Not the missing ones, which can be most of a data set.
    checks.write_reasons(task.folder / "broken.csv", found, broken | remarks)
    return found, remarks


def _with_errors(found: Manifest, errors: Mapping[str, str]) -> Manifest:
    """The set with videos marked as unusable; `errors`: path -> reason."""
    rows = (row.broken(errors[row.path]) if row.path in errors else row for row in found.videos)
    return dataclasses.replace(found, videos=tuple(rows)) if errors else found
