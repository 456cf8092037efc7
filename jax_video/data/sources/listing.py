"""What a source says of a set, and how videos are held out of its training part: what sources share."""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from jax_video.data import labels, remote
from jax_video.data.manifest import MISSING, Video
from jax_video.data.sources import finding, text
from jax_video.errors import UserError

RELABELLED = "listed with two labels"
DRAWN = 0.1  # of each class for test, and for validation, where nothing splits
HELD_OUT = 0.05  # of the training videos, where a data set has no validation list


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source found. Its videos are not opened yet and have 0 frames; those without a file are MISSING."""

    name: str
    classes: tuple[str, ...]
    root: remote.Path
    videos: tuple[Video, ...]
    notes: tuple[str, ...]  # what the user should know: what was ignored, how a split was made
    flip: bool = True  # whether a mirrored video is still one of its class
    # What else a table says of its videos: column -> {name of a video: its cell}.
    columns: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Raise UserError for a class whose name cannot be written to files."""
        for name in self.classes:
            if wrong := text.defect(name):
                shown = name if text.is_unicode(name) else name.encode("utf-8", "surrogateescape")
                raise UserError(f"the class {shown!r} {wrong}: rename it, or its folder")


def unopened(path: str, label: labels.Label, split: str, source: str, error: str | None = None) -> Video:
    """A row about a video of which only the name is known."""
    return Video(path, label, split, 0, 0.0, 0, 0, error, source)


def alike(classes: Sequence[str]) -> list[str]:
    """A warning of classes whose names differ only in case, blanks or signs that are not seen."""
    spellings: dict[str, list[str]] = collections.defaultdict(list)
    for name in classes:
        seen = "".join(letter for letter in text.fold(name) if unicodedata.category(letter) != "Cf")
        spellings[re.sub(r"[\s_]+", " ", seen).strip()].append(name)
    twins = [f"{each!r}" for names in spellings.values() if len(names) > 1 for each in names]
    return [f"warning: different classes, whose names look alike: {text.some(twins)}"] if twins else []


def check_found(name: str, root: remote.Path, rows: Sequence[Video], found: Sequence[str]) -> None:
    """Raise UserError if the folder has none of the videos that lists name."""
    if all(row.error == MISSING for row in rows):
        others = f"{len(found)} other videos, e.g. {found[0]}" if found else "no videos at all"
        raise UserError(
            f"no videos found: {root} has none of the {len(rows)} videos of {name}, e.g. {rows[0].path}, in it or "
            f"below, whatever their extension; it has {others}. --videos names the folder that holds them"
        )


def once(rows: list[Video]) -> tuple[list[Video], list[str]]:
    """(the rows without those that repeat a path, or the same part of one; notes on what was left out).

    Of several rows the first counts; but a video that is for test in any row is for nothing else. Paths that differ
    only in their extensions are one video, if they have the same label.
    """
    first: dict[tuple, Video] = {}  # by path and part, and by path without extension
    repeated = 0
    relabelled, moved, twins = [], [], []
    for row in sorted(rows, key=lambda row: ("test", "val", "train").index(row.split)):
        path = text.compose(row.path)
        kept = first.setdefault((path, row.span), row)
        if kept is not row:
            repeated += 1
            if kept.label != row.label:
                relabelled.append(row.name)
            elif kept.split != row.split:
                moved.append(f"{row.name} ({row.split} and {kept.split})")
            continue
        twin = first.setdefault((finding.without_extension(path), row.span, row.label), row)
        if twin is not row:
            first[(path, row.span)] = twin
            twins.append(f"{row.path} beside {twin.path} ({twin.split})")
    notes = []
    if repeated:
        notes.append(f"listed again, taken once: {repeated} videos")
    if relabelled:
        notes.append(f"{RELABELLED}, of which the first is taken: {len(relabelled)}, e.g. {relabelled[0]}")
    if moved:
        notes.append(f"listed for two splits, of which the second is taken: {len(moved)}, e.g. {moved[0]}")
    if twins:
        notes.append(
            f"listed in two forms, taken once: {len(twins)}; left out: {text.some(twins)}; where these are different "
            "videos, give them different names"
        )
    return [row for row in rows if first[(text.compose(row.path), row.span)] is row], notes


def hold_out(rows: list[Video], seed: int, *, split: str = "val", part: float = HELD_OUT) -> tuple[list[Video], str]:
    """Move a part of the training videos, in whole sources, to another split: (all rows, a note on it)."""
    held_out = _hold_out_sources([row for row in rows if row.split == "train"], seed, part)
    rows = [
        dataclasses.replace(row, split=split) if row.split == "train" and row.source in held_out else row
        for row in rows
    ]
    count = sum(row.split == split for row in rows)
    use = "validation" if split == "val" else split
    return rows, f"{count} of the training list's videos, whole sources, are for {use} (seed {seed})"


def _hold_out_sources(rows: list[Video], seed: int, part: float) -> set[str]:
    """Draw, by seed, whole sources that make up a part of a training list: one of each class before a second of any,
    and never the last one of a class.

    The list decides, not which files are there: with a part of a data set the split is the same.
    """
    sources = collections.defaultdict(list)
    for row, label in zip(rows, labels.strata([row.label for row in rows]), strict=True):
        sources[row.source].append(label)
    names = sorted(sources)
    turns = []  # (how many sources of the same class came before, name)
    seen: collections.Counter[int | None] = collections.Counter()  # sources of each class so far
    for i in np.random.default_rng(seed).permutation(len(names)):
        label = sources[names[i]][0]
        turns.append((seen[label], names[i]))
        seen[label] += 1
    turns.sort(key=lambda turn: turn[0])  # stable: the draw decides among equals

    classes: dict[str, set[int | None]] = collections.defaultdict(set)
    for row in rows:
        classes[row.source] |= labels.all_of(row.label)
    left = collections.Counter(label for of in classes.values() for label in of)  # sources of each class in training
    room = round(part * len(rows))
    held_out = set()
    for _, name in turns:
        if len(sources[name]) <= room and all(left[label] > 1 for label in classes[name]):
            held_out.add(name)
            room -= len(sources[name])
            left.subtract(classes[name])
    return held_out


def strange_names(rows: Sequence[Video]) -> list[str]:
    """A warning of videos that are missing, and whose names, as a list has them, are no UTF-8."""
    names = [row.path for row in rows if row.error == MISSING and not text.is_unicode(row.path)]
    if not names:
        return []
    shown = names[0].encode("utf-8", "surrogateescape")
    return [f"warning: missing, and no UTF-8: {len(names)} names, e.g. {shown!r}; save the list as UTF-8"]


def check_none_drawn(given: Mapping[str, float | None], why: str) -> None:
    """Raise UserError if the user has said how to draw, and nothing is drawn, because of `why`."""
    if named := [f"--{name}" for name, value in given.items() if value is not None]:
        raise UserError(f"{why}, so nothing is drawn: leave out {' '.join(named)}")


def check_fraction(fraction: float) -> None:
    if not 0 < fraction < 0.5:
        raise UserError(f"the fraction for test, and again for validation, must be between 0 and 0.5, got {fraction}")


def split_by_fraction(rows: list[Video], fraction: float, seed: int, splits: tuple[str, ...]) -> list[Video]:
    """Move a fraction of every class's training videos into each of `splits`; of several labels the rarest counts."""
    by_class = collections.defaultdict(list)
    train = [i for i, row in enumerate(rows) if row.split == "train"]
    for i, label in zip(train, labels.strata([rows[i].label for i in train]), strict=True):
        by_class[label].append(i)
    rows = list(rows)
    for label, members in by_class.items():
        count = min(max(1, round(fraction * len(members))), (len(members) - 1) // len(splits))
        order = np.random.default_rng([seed, label or 0]).permutation(members)  # a label of None: all are one class
        for part, split in enumerate(splits):
            for i in order[part * count : (part + 1) * count]:
                rows[i] = dataclasses.replace(rows[i], split=split)
    return rows
