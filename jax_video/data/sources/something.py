"""Something-Something v2."""

import dataclasses
import re

from jax_video.data import remote
from jax_video.data.manifest import MISSING, Video
from jax_video.data.sources import class_files, listing, official, records, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError

_PREFIX = "something-something-v2-"
_ROWS = [{"id": (str, int), "template?": (str, type(None))}]
_ANSWERS = "test-answers.csv"


def find(
    videos: remote.Path, *, annotations: remote.Path | None = None, test_on: str = "validation", seed: int = 0
) -> Listing:
    """Something-Something v2 by its official lists: labels.json, train.json, validation.json, test.json and
    test-answers.csv, or the same names after the prefix something-something-v2-.

    A row of a list has an id, which is the name of its file, and a template, "Putting [something] on [something]",
    which is a class of labels.json without the brackets. The papers' results are on the validation list: it is for test
    here. 5 % of the training list, drawn by `seed`, are for validation. With `test_on` "test" the official test list is
    for test, with the labels of its answers, and the validation list for validation.

    Classes tell left from right, so that no video is mirrored.

    Raises:
      UserError: no lists, or none of their videos is there; a row not understood, or whose template is no class.
    """
    if test_on not in ("validation", "test"):
        raise UserError(f"--test_on={test_on}: expected validation, as in the papers, or test")
    lists = official.find_folder(videos, annotations, "labels", "labels.json", f"{_PREFIX}labels.json")
    labels = _file(lists, "labels.json")
    assert labels is not None  # by it the folder was found
    classes = class_files.read(labels).names
    index = {_plain(name): i for i, name in enumerate(classes)}
    use = {"train": "train", "validation": "test" if test_on == "validation" else "val", "test": "test"}
    rows: list[Video] = []
    notes = []
    for part, split in use.items():
        path = _file(lists, f"{part}.json")
        if path is None:
            notes.append(f"no {lists / part}.json: nothing of it is here")
            continue
        if part == "test":
            found, said = _test_rows(path, index, test_on, needed=test_on == "test" or not rows)
            rows += found
            notes += said
            continue
        for number, row in enumerate(records.read_json(path, _ROWS), 1):
            where = f"{path}, row {number}"
            if not row.get("template"):
                raise UserError(f"{where}: a training or validation video without a template, {row['id']}")
            rows.append(_row(where, row["id"], _label(where, row["template"], index), split))
    if not rows:
        raise UserError(f"no videos in the lists in {lists}: expected train.json and validation.json")
    return dataclasses.replace(official.place("something-something-v2", classes, videos, rows, seed, notes), flip=False)


def _file(folder: remote.Path, name: str) -> remote.Path | None:
    """A list under one of its two names; None where it is not there."""
    return next((path for path in (folder / name, folder / f"{_PREFIX}{name}") if path.is_file()), None)


def _test_rows(
    path: remote.Path, index: dict[str, int], test_on: str, *, needed: bool
) -> tuple[list[Video], list[str]]:
    """(the rows of the official test list, if needed, with labels if its answers are there; notes)."""
    listed = records.read_json(path, _ROWS)
    if not needed:
        return [], [
            f"left out: {len(listed)} videos of the official test list; the papers test on the validation list, and so "
            "does this; --test_on=test takes it, by its answers"
        ]
    answers = _file(path.parent, _ANSWERS)
    if answers is None and test_on != "test":
        rows = [_row(f"{path}, row {i}", row["id"], None, "test") for i, row in enumerate(listed, 1)]
        return rows, ["there are no labels: only the official test list is here"]
    if answers is None:
        raise UserError(f"{path} has no labels, and there is no {path.parent / _ANSWERS} that has: leave out --test_on")
    label = {}
    for number, line in text.read_lines(answers):  # "1420;Holding something"
        id_, _, template = line.partition(";")
        label[id_.strip()] = _label(f"{answers}:{number}", template, index)
    lacking = [row["id"] for row in listed if str(row["id"]) not in label]
    if lacking:
        raise UserError(f"{answers} has no answer for {len(lacking)} videos of {path}, e.g. {lacking[0]}")
    return [_row(f"{path}, row {i}", row["id"], label[str(row["id"])], "test") for i, row in enumerate(listed, 1)], []


def _row(where: str, id_: str | int, label: int | None, split: str) -> Video:
    if not re.fullmatch(r"[^/\0]+", str(id_)):
        raise UserError(f"{where}: expected the id of a video, got {text.short(str(id_))}")
    return listing.unopened(f"{id_}.webm", label, split, str(id_), MISSING)


def _label(where: str, template: str, index: dict[str, int]) -> int:
    """The class that a template means."""
    label = index.get(_plain(template))
    if label is None:
        raise UserError(
            f"{where}: the template {text.short(template)} is without a class: labels.json has {len(index)} names, and "
            "not this one"
        )
    return label


def _plain(template: str) -> str:
    """A template without brackets, in one spelling."""
    return text.fold(" ".join(re.sub(r"[\[\]]", "", template).split()))
