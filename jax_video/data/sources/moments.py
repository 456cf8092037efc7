"""Moments in Time."""

import re

from jax_video.data import remote
from jax_video.data.manifest import MISSING
from jax_video.data.sources import class_files, finding, listing, official, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


def find(videos: remote.Path, *, annotations: remote.Path | None = None, seed: int = 0) -> Listing:
    """Moments in Time by its official lists (moments_categories.txt, trainingSet.csv, validationSet.csv).

    The papers' results are on the validation list: it is for test here. 5 % of the training list, drawn by `seed`, are
    for validation; the parts of an original video stay together.

    Raises:
      UserError: no lists, or none of their videos is there; a row not understood, or whose label is no category.
    """
    lists = official.find_folder(videos, annotations, "annotations", "moments_categories.txt")
    categories = lists / "moments_categories.txt"
    classes = class_files.read(categories).names
    label = {name: i for i, name in enumerate(classes)}
    rows, notes = [], []
    for file, split in (("trainingSet.csv", "train"), ("validationSet.csv", "test")):
        path = lists / file
        if not path.is_file():
            notes.append(f"no {path}: nothing is for {split}")
            continue
        for number, cells in text.read_csv(path):
            if len(cells) < 2 or not re.fullmatch(r"[^/]+/[^/]+", cells[0]):
                form = "<category>/<file>,<category>,<agree>,<disagree>"
                raise UserError(f"{path}:{number}: expected {form}, got {','.join(cells)!r}")
            if cells[1] not in label:
                raise UserError(
                    f"{path}:{number}: the label {cells[1]!r} is without a class: {categories} has {len(classes)} "
                    "names, and not this one"
                )
            source = re.sub(r"_\d+$", "", finding.stem(cells[0]))  # yt-<id>_<second>: from one video come several
            rows.append(listing.unopened(cells[0], label[cells[1]], split, source, MISSING))
    if not rows:
        raise UserError(f"no videos in {lists / 'trainingSet.csv'} and validationSet.csv; one of them must be there")
    return official.place("moments", classes, videos, rows, seed, notes)
