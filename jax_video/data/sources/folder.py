"""A folder of class folders."""

import collections
import dataclasses
import posixpath
import re
from collections.abc import Sequence

from jax_video.data import remote
from jax_video.data.manifest import Video
from jax_video.data.sources import finding, layouts, listing, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


def find(
    videos: remote.Path,
    *,
    fraction: float | None = None,
    seed: int | None = None,
    group: str | None = None,
    test_groups: Sequence[str] = (),
    val_groups: Sequence[str] = (),
    class_depth: int | None = None,
) -> Listing:
    """A folder of class folders, or of train/, val/ and test/ with class folders in each (see `layouts`).

    Classes are in the order of their sorted names. Class folders are split by one of two rules:
      * fraction (.1): of every class with at least three videos, this part is for test and as much for validation, at
        least one video each, drawn by `seed`;
      * group: a regular expression searched in each file's name, whose first group says e.g. who is seen. Videos of
        `test_groups` are for test, of `val_groups` for validation, all others for training.
    If there is train/ without val/, the fraction of its videos is for validation.

    Args:
      class_depth: which folder in a video's path is its class, 1 for the one in `videos`; None: it is found out.

    Raises:
      UserError: no class folders with videos in them, or a rule that does not fit them; a class in val/ or test/ that
        train/ does not have; folders that are not in a known layout.
    """
    finding.check_folder(videos)
    given = {"fraction": fraction, "seed": seed}
    fraction, seed = listing.DRAWN if fraction is None else fraction, seed or 0
    listing.check_fraction(fraction)
    if group is None and (test_groups or val_groups):
        raise UserError("--test_groups and --val_groups need --group, the regular expression that finds the groups")
    found = finding.find_videos(videos)
    paths, twin_notes = finding.once(videos, found)
    layout = layouts.read(videos, paths, class_depth)
    if not layout.labels:
        folders = finding.folders_in(videos)
        places = [videos, *(videos / name for name in folders)]
        metadata = [place / name for place in places for name in finding.METADATA if (place / name).is_file()]
        raise UserError(
            f"no videos in class folders in {videos}: found {len(paths)} video files elsewhere, folders "
            f"{folders[:5]}; expected {videos}/<class>/<video>, or train/, val/ and test/ with such folders in them; "
            f"looked for {finding.LOOKED_FOR}{finding.instead(found)}"
            + "".join(f"; {path} is read by python -m jax_video.prepare huggingface" for path in metadata[:1])
            + f"; if {', '.join(layout.folders)} are classes and no splits: --class_depth=1" * bool(layout.folders)
        )
    pictures = _pictures_of_files(layout)
    if pictures:
        twin_notes.append(f"pictures of videos that are there as files, left out: {len(pictures)}, e.g. {pictures[0]}")
        paths = [path for path in paths if path not in {*pictures}]
    class_of = {path: text.compose(name) for path, name in layout.labels.items()}
    classes = tuple(sorted(set(class_of.values())))
    label = {name: i for i, name in enumerate(classes)}
    rows = [
        listing.unopened(
            path, label[name], layout.splits.get(path, "train"), finding.stem(path), found.faults.get(path)
        )
        for path in paths
        if (name := class_of.get(path)) is not None
    ]

    notes = [*dict.fromkeys(layout.notes), *finding.ignored_note(found), *twin_notes]
    if len(rows) < len(paths):
        notes.append(f"ignored, as outside of class folders: {len(paths) - len(rows)} videos")
    known = {text.compose(name) for parent in layout.parents for name in finding.folders_in(videos / parent)}
    empty = sorted(name for name in known - set(classes) if name.casefold() not in layouts.ACCESSORIES)
    if empty:
        notes.append(f"warning: no videos in these class folders, which make no class: {', '.join(empty)}")

    if layout.splits and group is not None:
        raise UserError(f"{videos} is split by its folders {', '.join(layout.folders)}: leave out --group")
    if layout.splits:
        present = {row.split for row in rows}
        notes.extend(_compare_classes(videos, rows, classes))
        if present == {"train"} or present == {"train", "test"}:
            rows = listing.split_by_fraction(rows, fraction, seed, ("val",))
            notes.append(f"no val/: {fraction:.0%} of every class in train/ is for validation (seed {seed})")
        else:
            listing.check_none_drawn(given, f"{videos} is split by its folders {', '.join(layout.folders)}")
        notes.extend(f"no {split}/" for split in ("train", "test") if split not in present)
    elif group is not None:
        rows = _split_by_group(rows, group, tuple(test_groups), tuple(val_groups))
        notes.append(f"split by {group!r}: test {', '.join(test_groups)}; val {', '.join(val_groups) or '(none)'}")
    else:
        rows = listing.split_by_fraction(rows, fraction, seed, ("test", "val"))
        notes.append(f"of every class {fraction:.0%} is for test and as much for validation (seed {seed})")
        tested = {row.label for row in rows if row.split == "test"}
        if few := [name for name in classes if label[name] not in tested]:
            notes.append(f"warning: with less than three videos, all for training: {text.some(few)}")
    return Listing(remote.absolute(videos).name, classes, videos, tuple(rows), tuple(notes))


def _pictures_of_files(layout: layouts.Layout) -> list[str]:
    """Folders of pictures in one folder of a split that are files in another: videos_train/, rawframes_train/."""
    files, pictures = set(), {}
    for path, split in layout.splits.items():
        _, _, inside = f"/{path}".partition(f"/{layout.labels[path]}/")
        key = split, layout.labels[path], finding.without_extension(inside)
        if finding.without_extension(path) == path:
            pictures[path] = key
        else:
            files.add(key)
    return [path for path, key in pictures.items() if key in files]


def _compare_classes(videos: remote.Path, rows: list[Video], classes: tuple[str, ...]) -> list[str]:
    """Notes on the classes that are only in train/. Raises UserError for classes that are not in it."""
    names: dict[str, set[str]] = collections.defaultdict(set)
    for row in rows:
        if isinstance(row.label, int):
            names[row.split].add(classes[row.label])
    if "train" not in names:
        return []
    for split in names.keys() - {"train"}:
        unknown = sorted(names[split] - names["train"])
        if unknown:
            only = sorted(names["train"] - names[split])
            raise UserError(
                f"{len(unknown)} class folders in {videos} have videos for {split} and none in train/: "
                f"{text.some(unknown)}; expected the folders of train/, of which these are not for {split}: "
                f"{text.some(only) or '(none)'}"
            )
    return [
        f"classes in train/ that have no videos for {split}: {text.some(sorted(names['train'] - names[split]))}"
        for split in ("val", "test")
        if split in names and names["train"] - names[split]
    ]


def _split_by_group(rows: list[Video], pattern: str, test: tuple[str, ...], val: tuple[str, ...]) -> list[Video]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group={pattern!r} is not a regular expression: {error}") from error
    if expression.groups < 1:
        raise UserError(f"--group={pattern!r} has no group in parentheses, as in '^([a-z]+)_'")
    matches = [expression.search(posixpath.basename(row.path)) for row in rows]
    group_of = [match[1] or "" if match else "" for match in matches]
    unmatched = [row.path for row, match in zip(rows, matches, strict=True) if match is None or match[1] is None]
    if unmatched:
        raise UserError(f"--group={pattern!r} finds nothing in the names of {len(unmatched)} videos: {unmatched[:5]}")

    groups = sorted(set(group_of), key=finding.natural)
    unknown = [name for name in (*test, *val) if name not in groups]
    if unknown or not test or set(test) & set(val):
        raise UserError(
            f"--test_groups={','.join(test)} --val_groups={','.join(val)}: expected at least one group for test and "
            f"none for both; --group={pattern!r} finds {', '.join(groups)}"
        )
    split = dict.fromkeys(test, "test") | dict.fromkeys(val, "val")
    return [
        dataclasses.replace(row, split=split.get(group, "train"), source=group)
        for row, group in zip(rows, group_of, strict=True)
    ]
