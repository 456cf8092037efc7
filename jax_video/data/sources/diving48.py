"""Diving48."""

import re

from jax_video.data import remote
from jax_video.data.manifest import MISSING
from jax_video.data.sources import listing, official, records, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError

_VOCABULARY = "Diving48_vocab.json"
_ROWS = [{"vid_name": str, "label": int, "start_frame?": int, "end_frame?": int}]


def find(videos: remote.Path, *, annotations: remote.Path | None = None, seed: int = 0) -> Listing:
    """Diving48 by its official lists: Diving48_V2_train.json, Diving48_V2_test.json and Diving48_vocab.json.

    The labels are the cleaned ones (V2). A class is a dive by its four attributes, "Back 15som 05Twis FREE". Files are
    cut already: each counts as a whole. 5 % of the training list, drawn by `seed`, are for validation; the dives of a
    competition's video stay together.

    Raises:
      UserError: no lists, or none of their videos is there; a row not understood, or whose label is no class.
    """
    lists = official.find_folder(videos, annotations, "annotations", _VOCABULARY)
    classes = tuple(" ".join(words) for words in records.read_json(lists / _VOCABULARY, [[str]]))
    if len(set(classes)) < len(classes):
        raise UserError(f"{lists / _VOCABULARY} has the same dive twice")
    rows, notes, later = [], [], 0
    for split in ("train", "test"):
        path = lists / f"Diving48_V2_{split}.json"
        if not path.is_file():
            notes.append(f"no {path}: nothing is for {split}")
            continue
        for number, row in enumerate(records.read_json(path, _ROWS), 1):
            name, label = row["vid_name"], row["label"]
            if not re.fullmatch(r"[^/\0]+", name) or not 0 <= label < len(classes):
                raise UserError(
                    f"{path}, row {number}: expected the name of a video and a label from 0 to {len(classes) - 1}, of "
                    f"{_VOCABULARY}, got {text.short(name)} and {label}"
                )
            later += row.get("start_frame", 0) > 0
            source = re.sub(r"_[0-9]+$", "", name)  # <id of a YouTube video>_<number of the dive in it>
            rows.append(listing.unopened(f"{name}.mp4", label, split, source, MISSING))
    if later:
        notes.append(f"warning: rows that begin after the first frame: {later}; their whole files count all the same")
    if not rows:
        raise UserError(f"no videos in {lists}: expected Diving48_V2_train.json and Diving48_V2_test.json")
    return official.place("diving48", classes, videos, rows, seed, notes)
