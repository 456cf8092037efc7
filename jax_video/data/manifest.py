"""A manifest: the one file in which a data set's videos, labels and splits are settled before a device is used.

JSON lines. The first line is a header with the data set's name, class names, the folder of the videos, and a hash;
every other line is one video, readable or not.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import operator
import os
import types
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_video.data import documents, labels, remote
from jax_video.errors import UserError

SPLITS = ("train", "val", "test")
EXTENSIONS = frozenset(  # of video files
    (
        ".264 .265 .3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2t .m2ts .m2v .m4v "
        ".mjpeg .mjpg .mkv .mov .mp4 .mpe .mpeg .mpg .mpv .mts .mxf .nut .obu .ogm .ogv .qt .rm .rmvb .ts .vob .webm "
        ".wmv .y4m"
    ).split()
)
MISSING = "missing"  # the `error` of a video that a list names and the folder does not have
_FORMAT, _MULTILABEL = 1, 2  # of the file; the second if videos have several labels, which earlier versions refuse


@dataclasses.dataclass(frozen=True, slots=True)
class FrameIndex:
    """Where the frames of a file are: enough to decode from a keyframe before a wanted frame, and no more.

    An index that is not `verified` is not used to seek. A verified one is trusted: that the file was replaced is
    noticed only by another size.
    """

    frames: int  # in the file; with keyframes, each in a packet of its own; not verified: packets, whatever they hold
    start: int = 0  # timestamp of frame 0, in the stream's time base
    step: int = 0  # from a frame's timestamp to the next one's; 0: uneven, or other after a seek: the file is asked
    keyframes: tuple[int, ...] = ()  # ascending; decoding from each gave the frames that decoding in order gave
    size: int = 0  # of the file, in bytes; 0: not known
    verified: bool = False  # whether the whole file was decoded, and gave these frames
    undecodable: int = 0  # packets that do not decode, and are skipped; if there are any, there is no seeking

    @classmethod
    def from_json(cls, values: dict) -> "FrameIndex":
        """The inverse of `to_json`, after JSON, which has no tuples."""
        return cls(**values | {"keyframes": tuple(values["keyframes"])})

    def to_json(self) -> dict[str, Any]:
        """The index as it is written; without `undecodable` if that is 0, as earlier versions wrote it."""
        values = dataclasses.asdict(self)
        return values if self.undecodable else {key: values[key] for key in values if key != "undecodable"}


@dataclasses.dataclass(frozen=True, slots=True)
class Video:
    """One video of a data set. Where `error` is set, frames, fps, width and height are 0."""

    path: str  # relative to the manifest's root; the same for several parts of one file
    label: labels.Label  # index into the classes, or a tuple of several; None: not labelled
    split: str  # one of SPLITS
    frames: int  # that decode
    fps: float  # 0 if unknown
    width: int  # upright, in pixels
    height: int
    error: str | None  # why it cannot be used: MISSING or what is broken; None if it can
    source: str  # what it was cut from, or who is seen: a split that we draw has all of a source on one side
    span: tuple[float, float] | None = None  # the part of a longer file, in seconds; None: the whole file
    first: int = 0  # the frame of the file at which it starts: not 0 for a part of a longer file
    index: FrameIndex | None = None  # of the file; None: it is not a file, or is decoded from its start

    @property
    def name(self) -> str:
        """A name that is unique in the set: the path, and for a part of a longer file the seconds, too."""
        if self.span is None:
            return self.path
        start, end = (f"{second}".removesuffix(".0") for second in self.span)
        return f"{self.path}#t={start},{end}"

    def broken(self, reason: str) -> "Video":
        """The same video, marked as unusable for a reason."""
        return dataclasses.replace(self, frames=0, fps=0.0, width=0, height=0, error=reason, first=0, index=None)


class Packed(NamedTuple):
    """How frames are stored in records of TFDS below the manifest's root, if the set is not video files."""

    feature: str  # the feature of an example that has the encoded pictures
    record_frames: int = 0  # frames in a record; 0: a record is a whole video
    short_side: int = 0  # of the frames, in pixels, at most; 0: as they came
    quality: int = 0  # of the JPEGs; 0: as they came


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A data set. A video's index in `videos` is its identity in batches and predictions."""

    name: str
    classes: tuple[str, ...]
    root: str  # absolute folder of the videos; that of a packed set may be in a store (gs://…)
    videos: tuple[Video, ...]
    flow: str | None = None  # absolute folder of the videos' stored optical flow; None: it is computed when needed
    packed: Packed | None = None  # None: the videos are files below the root
    flip: bool = True  # whether a mirrored video is still one of its class; False if classes tell left from right
    # The frames of each video by its path, uint8 [T, H, W, 3], if they are in memory; None: they are read from disk.
    memory: Mapping[str, np.ndarray] | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self):
        self.check_labels()
        if strange := {video.split for video in self.videos} - {*SPLITS}:
            video = next(video for video in self.videos if video.split in strange)
            raise UserError(
                f"the split of {video.path} of {self.name!r} is {video.split!r}: expected {', '.join(SPLITS)}"
            )

    def check_labels(self, *needed: str) -> None:
        """Raise UserError, naming the video, for a label that is not one of the classes, or is needed and missing.

        Args:
          needed: splits whose videos all need a label.
        """
        if found := labels.wrong([video.label for video in self.videos], len(self.classes)):
            place, expected = found
            path, label = self.videos[place].path, self.videos[place].label
            raise UserError(f"the label of {path} of {self.name!r} is {label!r}: expected {expected}")
        lacking = [video.path for video in self.videos if video.label is None and video.split in needed]
        if lacking:
            raise UserError(
                f"{len(lacking)} of the {len(self.videos)} videos of {self.name!r} have no label, {lacking[0]} first; "
                "training and test need one for each. Without labels: --config=configs/transfer.py"
            )

    @functools.cached_property
    def multilabel(self) -> bool:
        """Whether videos may have several labels: then the label of every labelled video is a tuple."""
        return labels.are_several(video.label for video in self.videos)

    def target(self, video: Video) -> np.ndarray:
        """The label of a video as batches have it (`labels.target`)."""
        return labels.target(video.label, len(self.classes), self.multilabel)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of what the data is, wherever it lies: of all but `root`, `flow`, `packed`, `flip` and `index`."""
        rows = map(_row, self.videos)
        frames = (
            hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in (self.memory or {}).values()
        )
        return _hash(self.name, self.classes, itertools.chain(rows, frames))

    def __reduce__(self):
        """Pickle columns: every worker process gets the set, and 300,000 rows take seconds one by one."""
        rows = map(operator.attrgetter(*_ALWAYS, "span", "first", "index"), self.videos)
        *columns, indices = zip(*rows, strict=True) if self.videos else ((),)
        columns.append(tuple(index and _index_values(index) for index in indices))
        others = {name: getattr(self, name) for name in ("name", "classes", "root", "flow", "packed", "flip", "memory")}
        return _from_columns, (columns, others)

    def select(self, split: str) -> list[tuple[int, Video]]:
        """The readable videos of a split as (index in `videos`, video)."""
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
        return [(i, video) for i, video in enumerate(self.videos) if video.split == split and video.error is None]

    def describe(self) -> str:
        """Name and readable videos in words: "motions: 320 train, 64 val, 160 test videos"."""
        numbers = {split: len(self.select(split)) for split in SPLITS}
        parts = [f"{number:,} {split}" for split, number in numbers.items() if number] or ["no"]
        return f"{self.name}: {', '.join(parts)} video{'s' * (sum(numbers.values()) != 1)}"

    @property
    def packed_as(self) -> list[int]:
        """Short side and JPEG quality of packed frames, which `hash` does not tell; [] for others."""
        return [self.packed.short_side, self.packed.quality] if self.packed and self.packed.short_side else []

    def keep(self, fraction: float) -> "Manifest":
        """The set with only a part of every class's training videos: at least one, and always the same ones.

        Of several labels the rarest one counts (`labels.strata`).
        """
        if not 0 < fraction <= 1:
            raise UserError(f"data.fraction is {fraction}: expected a part of the training videos, above 0 and up to 1")
        if fraction == 1:
            return self
        classes = collections.defaultdict(list)
        train = self.select("train")
        for (index, _), label in zip(train, labels.strata([video.label for _, video in train]), strict=True):
            classes[label].append(index)
        dropped = set()
        for number, members in enumerate(classes.values()):
            order = np.random.default_rng(number).permutation(members)
            dropped.update(order[max(1, round(fraction * len(members))) :].tolist())
        videos = tuple(video for index, video in enumerate(self.videos) if index not in dropped)
        return dataclasses.replace(self, videos=videos)

    def write(self, path: str | os.PathLike) -> None:
        """Write the file whole or not at all; folders beside or below it are stored relative, so all can move.

        Raises:
          ValueError: the frames are in memory, so that a file about them would be of no use.
          UserError: a video is there more than once.
          OSError: the file cannot be written.
        """
        if self.memory is not None:
            raise ValueError(f"the frames of {self.name!r} are in memory: write the videos to files, and prepare these")
        if repeated := _repeated(row.name for row in self.videos):
            raise UserError(f"{len(repeated)} videos are there more than once, e.g. {repeated[0]!r}")
        path = remote.absolute(path)
        header = {
            "format": _MULTILABEL if self.multilabel else _FORMAT,
            "name": self.name,
            "classes": self.classes,
            "root": _relative(self.root, path.parent),
            "flow": None if self.flow is None else _relative(self.flow, path.parent, beside=self.packed is not None),
            "videos": len(self.videos),
            "hash": self.hash,
        }
        if self.packed is not None:
            header["packed"] = self.packed._asdict()
        if not self.flip:
            header["flip"] = False
        # Names of files need not be valid Unicode: surrogateescape carries any bytes through.
        lines = [f"{_line(video)}\n".encode(errors="surrogateescape") for video in self.videos]
        header["crc32"] = _checksum(header, lines)
        first = f"{_encode(header)}\n".encode(errors="surrogateescape")
        if not remote.is_remote(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        remote.write_whole(path, [first, *lines])

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Manifest":
        """Read and checks a file that `write` made.

        Raises:
          UserError: no such file, or not a whole and valid manifest; names the line.
        """
        path = remote.path(path)
        try:
            with remote.reaching(path):
                content = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read the manifest {path} ({error.strerror or error}); make one with "
                "python -m jax_video.prepare"
            ) from error

        lines = content.decode(errors="surrogateescape").removesuffix("\n").split("\n")
        header = {"flow": None, "packed": None, "flip": True} | _parse(path, 1, lines[0])
        if header.get("format") not in (_FORMAT, _MULTILABEL):
            raise UserError(
                f"{path}:1: not a manifest of format {_FORMAT} or {_MULTILABEL} "
                f"(found format {header.get('format')!r}); "
                "make one with python -m jax_video.prepare"
            )
        if wrong := documents.defect(header, _HEADER):
            raise UserError(f"{path}:1: {wrong}; run prepare again")
        classes = tuple(header["classes"])
        if len(set(classes)) < len(classes):
            raise UserError(f"{path}:1: class names must be different strings, got {header['classes']}")
        if header["videos"] != len(lines) - 1:
            raise UserError(
                f"{path}: the header promises {header['videos']} videos, {len(lines) - 1} follow; the file was cut or "
                "changed: run prepare again"
            )

        # What `write` wrote needs no check of every line; otherwise the error says which line is wrong, and why.
        texts = (line.partition(_INDEX)[0] + "}" if _INDEX in line else line for line in lines[1:])
        written = _hash(header["name"], classes, texts) == header["hash"]
        rest = content.partition(b"\n")[2].removesuffix(b"\n")
        sealed = header.get("crc32") == _checksum(header, [rest + b"\n"] if rest else [])
        rows = (_parse(path, number, line) for number, line in enumerate(lines[1:], 2))
        try:
            videos = tuple(map(_video, rows)) if written else ()
        except (AttributeError, KeyError, TypeError):  # a row has other keys, or values of other types
            videos = ()
        names = [video.name for video in videos]
        if len(names) < len(lines) - 1 or not _plausible(videos):
            checked = (_checked(path, number, line, len(classes)) for number, line in enumerate(lines[1:], 2))
            names = [_video(row).name for row in checked]
        if repeated := _repeated(names):
            raise UserError(f"{path}: {len(repeated)} videos are listed more than once, e.g. {repeated[0]!r}")
        root = _absolute(header["root"], path.parent)
        flow = None if header["flow"] is None else _absolute(header["flow"], path.parent)
        packed = header["packed"] and Packed(*(header["packed"][key] for key in Packed._fields))
        if len(videos) < len(lines) - 1 or not (sealed or "crc32" not in header):  # earlier versions wrote none
            raise UserError(f"{path}: the content does not match its hash: the file was changed; run prepare again")
        manifest = cls(header["name"], classes, root, videos, flow, packed, header["flip"])
        if manifest.multilabel != (header["format"] == _MULTILABEL):
            raise UserError(f"{path}:1: format {header['format']} does not fit the labels: run prepare again")
        manifest.__dict__["hash"] = header["hash"]  # it was computed just now; with 300,000 videos that takes seconds
        return manifest


def in_memory(
    videos: Sequence[np.ndarray] | Mapping[str, np.ndarray], *, fps: float = 0.0, classes: Sequence[str] = ()
) -> Manifest:
    """A set of videos whose frames are in memory; all are for test, and without labels.

    Args:
      videos: uint8 [T, H, W, 3] each, upright RGB, by name; without names they are called "array 0", "array 1", ....
        They are not copied, so they should not be changed while the set is in use.
      fps: frames per second of all of them; 0: unknown.
      classes: the names of the classes that a network knows.

    Raises:
      UserError: no videos, or one that is not such an array.
    """
    if not isinstance(videos, Mapping):
        videos = {f"array {number}": array for number, array in enumerate(videos)}
    if not videos:
        raise UserError("no video given: expected arrays uint8 [T, H, W, 3]")
    rows = []
    for name, array in videos.items():
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
            raise UserError(f"{name} is {found}: expected frames as a NumPy array uint8 [T, H, W, 3], RGB")
        if 0 in array.shape:
            raise UserError(f"{name} is {found}: expected at least one frame of one pixel")
        frames, height, width, _ = array.shape
        rows.append(Video(name, None, "test", frames, float(fps), width, height, None, name))
    return Manifest("arrays", tuple(classes), "", tuple(rows), memory=dict(videos))


def _repeated(names: Iterable[str]) -> list[str]:
    """The names that are there more than once."""
    return [name for name, count in collections.Counter(names).items() if count > 1]


def _absolute(folder: str, parent: remote.Path) -> str:
    """The absolute path of a folder as a manifest in `parent` stores it: the inverse of `_relative`."""
    if os.path.dirname(folder) == os.pardir:  # beside `parent`, as that is named
        return os.fspath(remote.absolute(parent).parent / os.path.basename(folder))
    whole = remote.is_remote(folder) or os.path.isabs(folder)
    return folder if whole else os.fspath(remote.absolute(parent / folder))


def _relative(folder: str, parent: remote.Path, beside: bool = False) -> str:
    """A folder as the manifest in `parent` stores it: relative if it is below `parent`, or with `beside` next to it."""
    absolute = remote.absolute(folder)
    if beside and not remote.is_remote(folder) and absolute.parent == parent.parent:
        return os.path.join(os.pardir, absolute.name)
    return os.fspath(absolute.relative_to(parent) if absolute.is_relative_to(parent) else absolute)


def _checksum(header: Mapping[str, Any], lines: Iterable[bytes]) -> int:
    """CRC-32 of what the file says of the set, except for the folders of the videos and their flow, which may move."""
    told = {key: header.get(key) for key in ("name", "classes", "packed")} | {"flip": header.get("flip", True)}
    return functools.reduce(lambda crc, line: zlib.crc32(line, crc), lines, documents.checksum(told))


def _hash(name: str, classes: Iterable[str], rows: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in (json.dumps([_FORMAT, name, list(classes)], ensure_ascii=False), *rows):
        digest.update(line.encode("utf-8", errors="surrogateescape") + b"\n")
    return digest.hexdigest()


_encode = json.JSONEncoder(ensure_ascii=False).encode
_INDEX = ', "index": '  # begins the last part of a line; inside of a string the quotes would be escaped


def _row(video: Video) -> str:
    """A video as JSON, without its index; `span` and `first` only where they are set."""
    row = {key: getattr(video, key) for key in _ALWAYS}
    if video.span is not None:
        row["span"] = video.span
    if video.first:
        row["first"] = video.first
    return _encode(row)


def _line(video: Video) -> str:
    """A video's line of the file: its row, with its index at the end."""
    row = _row(video)
    return row if video.index is None else f"{row[:-1]}{_INDEX}{_encode(video.index.to_json())}}}"


def _from_columns(columns: list[tuple], others: dict[str, Any]) -> Manifest:
    *values, indexed = columns or [()]
    indices = (None if index is None else FrameIndex(*index) for index in indexed)
    videos = tuple(map(Video, *values, indices)) if values else ()
    manifest = object.__new__(Manifest)  # not checked again: its labels were checked when it was made
    manifest.__dict__.update(others, videos=videos)
    return manifest


def _parse(path: remote.Path, number: int, line: str) -> dict[str, Any]:
    try:
        return documents.parse(line, dict)
    except documents.Damaged as error:
        raise UserError(f"{path}:{number}: {error}; run prepare again") from error


_HEADER = {
    "name": str,
    "classes": [str],
    "root": str,
    "flow": str | None,
    "packed": (types.NoneType, dict(Packed.__annotations__)),
    "flip": bool,
    "videos": int,
    "hash": str,
    "crc32?": int,
}
_ALWAYS = ("path", "label", "split", "frames", "fps", "width", "height", "error", "source")  # in a row
# The shapes of an index and of a row, as JSON has them.
INDEX = {
    "frames": int,
    "start": int,
    "step": int,
    "keyframes": [int],
    "size": int,
    "verified?": bool,
    "undecodable?": int,
}
_VIDEO = {
    "path": str,
    "label": ([int], int | None),
    "split": str,
    "frames": int,
    "fps": float,
    "width": int,
    "height": int,
    "error": str | None,
    "source": str,
    "span?": (types.NoneType, [float]),
    "first?": int,
    "index?": (types.NoneType, INDEX),
}
_MOST = 2**31  # above all numbers of frames and pixels
_index_numbers = operator.attrgetter("frames", "start", "step", "size", "undecodable")
_index_values = operator.attrgetter(*(field.name for field in dataclasses.fields(FrameIndex)))


def _checked(path: remote.Path, number: int, line: str, classes: int) -> dict[str, Any]:
    row = _parse(path, number, line)
    if wrong := _defect(row, classes):
        raise UserError(f"{path}:{number}: {wrong}; run prepare again")
    return row


def _video(row: dict[str, Any]) -> Video:
    if isinstance(row["label"], list):
        row["label"] = tuple(row["label"])
    if row.get("span") is not None:
        row["span"] = tuple(row["span"])
    if row.get("index") is not None:
        row["index"] = FrameIndex.from_json(row["index"])
    return Video(**row)


def _plausible(videos: tuple[Video, ...]) -> bool:
    """Whether `_defect` would find nothing wrong with the rows: checked by columns, which takes a tenth of the time.

    Labels are left to `Manifest.check_labels`.
    """
    kinds = {str: ("path", "split", "source"), int: ("frames", "width", "height", "first")}
    for kind, names in kinds.items():
        if any(set(map(type, map(operator.attrgetter(name), videos))) - {kind} for name in names):
            return False
    found = [(row.frames, row.width, row.height, row.first, row.fps) for row in videos]
    indices = [row.index for row in videos if row.index is not None]
    keyframes = itertools.chain.from_iterable(index.keyframes for index in indices)
    return (
        {type(row.fps) for row in videos} <= {int, float}
        and all(0 <= min(row) <= max(row) < _MOST for row in found)
        and all(math.isfinite(row.fps) for row in videos)
        and all(row.error is not None or min(row.frames, row.width, row.height) >= 1 for row in videos)
        and {type(row.error) for row in videos} <= {str, types.NoneType}
        and {row.split for row in videos} <= set(SPLITS)
        and not any("\0" in row.path for row in videos)
        and not any(documents.defect([*row.span], [float]) or len(row.span) != 2 for row in videos if row.span)
        and {type(number) for index in indices for number in _index_numbers(index)} <= {int}
        and set(map(type, keyframes)) <= {int}
        and {type(index.verified) for index in indices} <= {bool}
    )


def _defect(row: dict[str, Any], classes: int) -> str:
    """What is wrong with a row of the file; empty if nothing."""
    if wrong := documents.defect(row, _VIDEO):
        return wrong
    for found, known in ((row, _VIDEO), (row.get("index") or {}, INDEX)):
        if unknown := sorted(found.keys() - {key.removesuffix("?") for key in known}):
            return f"unknown keys {unknown}; expected {[key.removesuffix('?') for key in known]}"
    if row["split"] not in SPLITS:
        return f"split is {row['split']!r}, expected one of {', '.join(SPLITS)}"
    several = row["label"] if isinstance(row["label"], list) else [] if row["label"] is None else [row["label"]]
    if not labels.are_classes(several, classes):
        return f"label is {row['label']}, but there are {classes} classes"
    numbers = [row[key] for key in ("frames", "width", "height", "fps")] + [row.get("first", 0)]
    if not 0 <= min(numbers) <= max(numbers) < _MOST:
        return f"frames, width, height, fps and first are {numbers}, expected none below 0 or above {_MOST}"
    if row["error"] is None and min(row["frames"], row["width"], row["height"]) < 1:
        return f"a readable video has frames, width and height of at least 1, got {row}"
    if row.get("span") is not None and len(row["span"]) != 2:
        return f"'span' is {row['span']}, expected two numbers of seconds"
    if "\0" in row["path"]:
        return f"'path' is {row['path']!r}, which no file can be called"
    return ""
