"""HMDB51."""

import re

from jax_video.data import remote
from jax_video.data.manifest import MISSING
from jax_video.data.sources import finding, listing, official, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


def find(videos: remote.Path, *, annotations: remote.Path | None = None, split: int = 1, seed: int = 0) -> Listing:
    """HMDB51 by its official lists (<class>_test_splitN.txt in testTrainMulti_7030_splits; 0 there means not used).

    Classes are in the order of their names, as torchvision and mmaction2 have them: climb before climb_stairs.
    Validation videos are whole sources (what stands before the class in the name: a film or an Internet video) of the
    training list.
    """
    official.check_split(split)
    lists = official.find_folder(videos, annotations, "testTrainMulti_7030_splits", f"wave_test_split{split}.txt")
    ending = f"_test_split{split}.txt"
    paths = {path.name.removesuffix(ending): path for path in lists.glob(f"*{ending}")}
    classes = tuple(sorted(paths))
    if len(classes) != 51:
        raise UserError(f"{lists} has {len(classes)} lists *{ending}, expected 51, one for each class")

    rows = []
    unused = 0
    for label, class_name in enumerate(classes):
        path = paths[class_name]
        for number, line in text.read_lines(path):
            file, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise UserError(f"{path}:{number}: expected <file> and 0, 1 or 2, got {line!r}")
            if use == "0":
                unused += 1
                continue
            # <source>_<class>_<body part>_<camera motion>_np<people>_<view>_<quality>_<number>
            source = re.sub(rf"_{class_name}_[a-z]_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+$", "", finding.stem(file.strip()))
            part = "train" if use == "1" else "test"
            rows.append(listing.unopened(f"{class_name}/{file.strip()}", label, part, source, MISSING))
    notes = [f"not used in split {split}: {unused} of the videos in the lists"]
    return official.place(f"hmdb51-split{split}", classes, videos, rows, seed, notes)
