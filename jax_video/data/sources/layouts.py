"""The layout of a set's folders: which of them are classes, and which are splits."""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jax_video.data import remote
from jax_video.data.sources import finding, splits, text
from jax_video.errors import UserError

# Folders that lie beside classes and splits and are neither, whatever is in them.
ACCESSORIES = frozenset("annotation annotations metadata".split())
_KNOWN = """known are
  <class>/<video>
  train/, val/ and test/, or names like these, with <class>/<video> in each
  <class>/train/<video>, <class>/val/<video> and <class>/test/<video>
and any of these in one folder more"""


class Layout(NamedTuple):
    """Where the videos of a set are."""

    labels: dict[str, str]  # path of a video -> the name of its class; without those that are in no class folder
    splits: dict[str, str]  # path of a video -> its split; {}: the folders do not say
    folders: list[str]  # those of the splits, by name; else []
    parents: list[str]  # the folders that class folders are in, relative to the set's
    notes: list[str]  # what the user should know


def read(root: remote.Path, paths: Sequence[str], class_depth: int | None = None) -> Layout:
    """Find out which folders of a set are classes, and which are splits.

    Args:
      root: the folder of the set.
      paths: of the videos, relative to it.
      class_depth: which folder in a video's path is its class, 1 for the one in `root`; None: it is found out.

    Raises:
      UserError: the layout is not a known one, so that a class would be made of what may be something else.
    """
    found = split_paths = [path.split("/") for path in paths]
    if class_depth is not None:
        return _given(root, split_paths, class_depth)
    notes: list[str] = []
    split_paths, top = _see_through(split_paths, 0, notes)
    by_split = splits.of_folders(sorted(_children(split_paths, top)))
    if not by_split:
        return _by_class(root, split_paths, top, notes)

    labels, where, parents, rows = {}, {}, [], []
    for folder, split in by_split.items():
        inside, depth = _see_through([parts for parts in split_paths if _at(parts, top) == folder], top + 1, notes)
        parents += ["/".join(inside[0][:depth])] if inside else []
        rows += [(parts, depth) for parts in inside]
        for parts in inside:
            if len(parts) > depth + 1:
                labels["/".join(parts)] = parts[depth]
                where["/".join(parts)] = split
    _check_depth(root, rows)
    beside = set(finding.folders_in(root.joinpath(*rows[0][0][:top]))) - {_at(parts, top) for parts in found}
    if beside:
        notes.append(f"ignored, as without videos: {text.some(sorted(beside))}")
    notes += _split_notes(by_split)
    return Layout(labels, where, sorted(by_split), parents, notes)


def _by_class(root: remote.Path, split_paths: list[list[str]], top: int, notes: list[str]) -> Layout:
    """Class folders, with or without folders of splits in them."""
    inside = [parts for parts in split_paths if len(parts) > top + 1]
    labels = {"/".join(parts): parts[top] for parts in inside}
    parent = "/".join(split_paths[0][:top]) if inside else ""
    by_split = splits.of_folders(sorted(_children(inside, top + 1)))
    if by_split and all(len(parts) == top + 3 for parts in inside):
        where = {"/".join(parts): by_split[parts[top + 1]] for parts in inside}
        notes += [f"split by the folders in the class folders: {', '.join(by_split)}", *_split_notes(by_split)]
        return Layout(labels, where, sorted(by_split), [parent], notes)
    _check_depth(root, [(parts, top) for parts in inside])
    return Layout(labels, {}, [], [parent], notes)


def _given(root: remote.Path, split_paths: list[list[str]], depth: int) -> Layout:
    """Class folders as deep as the user says; folders around or in them that are named as splits are splits."""
    inside = [parts for parts in split_paths if len(parts) > depth]
    if depth < 1 or not inside:
        raise UserError(
            f"--class_depth={depth}: no video in {root} lies in so many folders; 1 means {root}/<class>/<video>, 2 "
            f"{root}/<folder>/<class>/<video>; found {_found(split_paths)}"
        )
    labels = {"/".join(parts): parts[depth - 1] for parts in inside}
    parents = sorted({"/".join(parts[: depth - 1]) for parts in inside})
    notes: list[str] = []
    for place in (*range(depth - 1), depth):  # above the class, or in it
        names = sorted({_at(parts, place) or "" for parts in inside})
        if by_split := splits.of_folders(names):
            where = {"/".join(parts): by_split[parts[place]] for parts in inside}
            return Layout(labels, where, sorted(by_split), parents, [*notes, *_split_notes(by_split)])
        if named := [name for name in names if splits.of(name)]:
            others = text.some([name or "no folder" for name in names if name not in named])
            notes.append(
                f"warning: {text.some(named)} are named as splits, and {others} beside them not: these folders split "
                "nothing"
            )
    return Layout(labels, {}, [], parents, notes)


def _see_through(split_paths: list[list[str]], top: int, notes: list[str]) -> tuple[list[list[str]], int]:
    """(the paths without those in accessory folders, how many folders lie above the classes or splits).

    A folder is neither a class nor a split, and is seen through, if it is the only one at its depth and holds folders
    of splits, or folders of videos and no videos.
    """
    while True:
        accessories = {name for name in _children(split_paths, top) if name.casefold() in ACCESSORIES}
        if accessories and accessories < _children(split_paths, top):
            split_paths = [parts for parts in split_paths if _at(parts, top) not in accessories]
            notes.append(f"ignored, as neither classes nor splits: {', '.join(sorted(accessories))}")
        folders = _children(split_paths, top)
        inside = [parts for parts in split_paths if len(parts) > top + 1]
        holds_videos = any(len(parts) == top + 2 for parts in inside)
        around_splits = splits.of_folders(sorted(_children(split_paths, top + 1)))
        if len(folders) != 1 or splits.of(*folders) or (holds_videos and not around_splits):
            return split_paths, top
        split_paths, top = inside, top + 1
        notes.append(f"seen through, as a folder around all others: {'/'.join(inside[0][:top])}")


def _children(split_paths: list[list[str]], top: int) -> set[str]:
    """The names of the folders at depth `top`."""
    return {parts[top] for parts in split_paths if len(parts) > top + 1}


def _at(parts: list[str], top: int) -> str | None:
    """The folder of a video at depth `top`; None if there is none."""
    return parts[top] if len(parts) > top + 1 else None


def _split_notes(by_split: Mapping[str, str]) -> list[str]:
    """A note on which folder is for which split, unless all names say it to the letter."""
    if all(name.lower() == split for name, split in by_split.items()):
        return []
    return [f"folders of the splits: {', '.join(f'{name} for {split}' for name, split in by_split.items())}"]


def _check_depth(root: remote.Path, rows: list[tuple[list[str], int]]) -> None:
    """Raise UserError if a folder in the place of a class holds folders of videos rather than videos.

    Args:
      rows: the parts of each path, and which of them is the class.
    """
    names = {parts[depth] for parts, depth in rows if len(parts) > depth + 1}
    direct: collections.Counter[str] = collections.Counter()
    deeper = collections.defaultdict(set)  # class folder -> the folders in it
    for parts, depth in rows:
        if len(parts) == depth + 2:
            direct["/".join(parts[: depth + 1])] += 1
        elif len(parts) > depth + 2:
            deeper["/".join(parts[: depth + 1])].add(parts[depth + 1])
    odd = [
        folder
        for folder, inner in deeper.items()
        if not direct[folder] or any(splits.of(name) or name in names for name in inner)
    ]
    if not odd:
        return
    tops = {parts[0] for parts, _ in rows if len(parts) > 1}
    named = sorted(name for name in tops if splits.of(name))
    others = sorted(tops - {*named})
    beside = f"; {text.some(named)} are named as splits, and {text.some(others)} beside them not" if named else ""
    holds = {folder: text.some(sorted(deeper[folder], key=finding.natural)) for folder in odd[:3]}
    raise UserError(
        f"the folders in {root} are not as expected: what stands where a class is expected holds folders of videos: "
        f"{'; '.join(f'{folder} has {inner}' for folder, inner in holds.items())}"
        f"{f' and {len(odd) - 3} more of this kind' if len(odd) > 3 else ''}{beside * bool(others)}.\n"
        f"Found {_found([parts for parts, _ in rows])};\n{_KNOWN}.\n"
        "Move or rename the folders, or leave those out that are no classes; or say which folder on the way to a video "
        "is its class: --class_depth=1 for the one in --videos, 2 for the one in that"
    )


def _found(split_paths: list[list[str]]) -> str:
    """What there is, in words: an example for each folder at the top."""
    examples = {parts[0]: "/".join(parts) for parts in reversed(split_paths)}
    return text.some([examples[name] for name in sorted(examples, key=finding.natural)])
