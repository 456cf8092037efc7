"""The names that people give to the splits of a set: to folders, to lists, and in a column."""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

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
    return of_all([name]).get(name)


def of_all(names: Iterable[str]) -> dict[str, str]:
    """The splits of those names that mean one by themselves. `eval` is as in `of_folders`: the other names decide."""
    parsed = {name: _parse(name) for name in names}
    return _settled({name: kind for name, (kinds, rest) in parsed.items() if (kind := _one(kinds)) and not rest})


def of_folders(names: Sequence[str]) -> dict[str, str]:
    """The splits of folders beside each other, by name; {} if they are not all folders of splits.

    Names may have other words if these are the same in all: ucf_train and ucf_test, not train_station and test_tube.
    `eval` is for validation if there is a folder for test and none for validation; otherwise it is for test.
    """
    parsed = {name: _parse(name) for name in names}
    found = {name: kind for name, (kinds, _) in parsed.items() if (kind := _one(kinds))}
    rests = {rest for _, rest in parsed.values()}
    if len(found) < len(parsed) or not (rests <= {()} or (len(rests) == 1 and len(set(found.values())) > 1)):
        return {}
    return _settled(found)


def of_files(names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(the splits of files beside each other, by name; the names whose words are for several splits).

    Unlike a folder, which may be a class, a file is for the one split that its name has a word for, whatever else the
    name says: train_fold1 and test_fold1, ucf_train and hmdb_test. Beside train, train_val may be either.
    """
    parsed = {name: _parse(name)[0] for name in names}
    single = {("train",), ("val",)}.isdisjoint(parsed.values())
    found = {name: kind for name, kinds in parsed.items() if (kind := _one(kinds)) and (single or len(kinds) == 1)}
    return _settled(found), [name for name, kinds in parsed.items() if kinds and name not in found]


def of_eval(meant: Mapping[str, str]) -> list[str]:
    """What the user should know of names and the splits that they mean: what `eval` is taken for."""
    return [
        f"{name} is taken for {'validation, as others are for test' if split == 'val' else 'test'}"
        for name, split in meant.items()
        if _EVAL in _parse(name)[0]
    ]


def _one(kinds: tuple[str, ...]) -> str | None:
    """The kind of split that words of these kinds name together; None if it is not one."""
    return kinds[0] if len(kinds) == 1 or kinds == ("train", "val") else None


def _settled(kinds: Mapping[str, str]) -> dict[str, str]:
    """The splits of names of these kinds: whether `eval` is validation or test."""
    meant = "val" if "test" in kinds.values() and "val" not in kinds.values() else "test"
    return {name: meant if kind == _EVAL else kind for name, kind in kinds.items()}


@functools.lru_cache(2**12)  # a column of splits repeats a few words
def _parse(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(the kinds of splits that a name has words for, in alphabetical order; the words that say something else)."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    found, rest = set(), []
    for word in re.findall(r"[^\W\d_]+", spaced):
        kind = _WORDS.get(word) or _WORDS.get(_SUFFIX.sub("", word))
        if kind:
            found.add(kind)
        elif word not in _BESIDE:
            rest.append(word)
    return tuple(sorted(found)), tuple(rest)
