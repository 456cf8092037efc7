"""The names that people give to the splits of a set: to folders, to lists, and in a column."""

import re
from collections.abc import Sequence

_EVAL = "eval"  # which is validation to some and test to others
_WORDS = {
    word: split
    for split, words in {
        "train": "train training trn trainval trainvalid",
        "val": "val valid validate validating validation dev devel development",
        "test": "test testing tst",
        _EVAL: "eval evaluate evaluating evaluation",
    }.items()
    for word in words.split()
}
# Words that may stand beside such a word and name no class: train_256, videos_train, training_set, test_part1, ...
_BESIDE = frozenset(
    "all avi clip clips compress compressed crop cropped data dataset final folder folders fps frame frames full image "
    "images img imgs jpeg jpegs jpg jpgs k lists list mini mp4 official p part parts px raw rawframes resized rgb set "
    "sets side short small split splits subset tiny trimmed v video videos webm x".split()
)
_SUFFIX = re.compile(r"(?:set|sets|data|videos|clips|frames|list)$")  # trainset, testlist


def of(name: str) -> str | None:
    """The split that a name means by itself: "train" for train, Training or videos_train; None if it means none."""
    split, rest = _parse(name)
    return None if rest else "test" if split == _EVAL else split


def of_folders(names: Sequence[str]) -> dict[str, str]:
    """The splits of folders beside each other, by name; {} if they are not all folders of splits.

    Names may have other words if these are the same in all: ucf_train and ucf_test, not train_station and test_tube.
    `eval` is for validation if there is a folder for test and none for validation; otherwise it is for test.
    """
    parsed = {name: _parse(name) for name in names}
    kinds = {split for split, _ in parsed.values()}
    rests = {rest for _, rest in parsed.values()}
    if None in kinds or not (rests <= {()} or (len(rests) == 1 and len(kinds) > 1)):
        return {}
    meant = "val" if "test" in kinds and "val" not in kinds else "test"
    return {name: meant if split == _EVAL else str(split) for name, (split, _) in parsed.items()}


def _parse(name: str) -> tuple[str | None, tuple[str, ...]]:
    """(the split that a name has a word for, None unless it is exactly one; the words that say something else)."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    found, rest = set(), []
    for word in re.findall(r"[^\W\d_]+", spaced):
        kind = _WORDS.get(word) or _WORDS.get(_SUFFIX.sub("", word))
        if kind:
            found.add(kind)
        elif word not in _BESIDE:
            rest.append(word)
    if found == {"train", "val"}:  # train+val
        found = {"train"}
    return (found.pop() if len(found) == 1 else None), tuple(rest)
