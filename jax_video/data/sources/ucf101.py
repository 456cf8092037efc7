"""UCF101."""

import re

from jax_video.data import remote
from jax_video.data.manifest import MISSING
from jax_video.data.sources import class_files, finding, listing, official, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


def find(videos: remote.Path, *, annotations: remote.Path | None = None, split: int = 1, seed: int = 0) -> Listing:
    """UCF101 by its official lists (classInd.txt, trainlist0N.txt, testlist0N.txt in ucfTrainTestlist).

    Validation videos are whole groups (gXX in the name: one original video) of the training list.
    """
    official.check_split(split)
    lists = official.find_folder(videos, annotations, "ucfTrainTestlist", "classInd.txt")
    classes = class_files.read(lists / "classInd.txt").names  # "37 HandstandPushups"
    if len(classes) != 101:
        raise UserError(f"{lists / 'classInd.txt'} names {len(classes)} classes, expected 101")
    label = {name: i for i, name in enumerate(classes)}

    rows = []
    for part in ("train", "test"):
        path = lists / f"{part}list{split:02d}.txt"
        for number, line in text.read_lines(path):
            name = line.split()[0]  # Class/v_Class_g08_c01.avi, and the class's number in a training list
            class_name, _, file = name.partition("/")
            if class_name not in label or not file:
                raise UserError(f"{path}:{number}: expected <class of classInd.txt>/<file>, got {line!r}")
            group = re.sub(r"_c\d+$", "", finding.stem(file))
            rows.append(listing.unopened(name, label[class_name], part, group, MISSING))
    return official.place(f"ucf101-split{split}", classes, videos, rows, seed, [])
