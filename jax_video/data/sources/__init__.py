"""Data sets as their owners have them: which videos there should be, their labels and their splits.

Each kind of source is one file, with a function `find` from a folder of videos to a `Listing` of them (no video is
opened), and one record in `SOURCES`. What sources share is in `finding` (the videos below a folder), `layouts` (what
its folders mean), `splits` (the names of splits), `columns` (the lines of lists), `places` (the videos that listed
paths mean), `class_files` (files of class names), `records` (tables with a header, JSON), `text` (text files and
names), `listing` (what is found, and what is held out of it) and `official` (the files of official lists).

A set that is prepared already is read by `prepared`; single files on a command line are found by `files`.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable

from jax_video.data.manifest import Manifest
from jax_video.data.sources import (
    charades,
    diving48,
    folder,
    hmdb51,
    huggingface,
    kinetics,
    lists,
    moments,
    motions,
    something,
    table,
    tfds,
    ucf101,
    unlabelled,
)
from jax_video.data.sources.listing import Listing


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What a source may be told: a keyword argument of its `find`, and a flag of prepare."""

    name: str
    kind: type  # of its value: pathlib.Path, str, int, float, bool, or list (of strings)
    help: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A kind of source."""

    find: Callable[..., Listing | Manifest]  # from the folder of the videos, and its parameters as keywords
    help: str  # for prepare's --help; may have several lines
    parameters: tuple[Parameter, ...] = ()
    argument: str = ""  # what stands after a colon, as NAME in tfds:NAME, and is the first argument of `find`
    # Empty for a source that finds files. Otherwise `find` returns a Manifest, as the videos are known already: what
    # prepare does with files and cannot do with these; with "videos" among it, `find` takes no folder.
    refuses: tuple[str, ...] = ()


ANNOTATIONS = Parameter("annotations", pathlib.Path, "Official lists: folder or file; default: beside the videos.")
SPLIT = Parameter("split", int, "Official split, 1 (default), 2 or 3.")
FRACTION = Parameter("fraction", float, "Of each class for test and val, where these are not given (.1).")
CLASS_NAMES = Parameter("class_names", pathlib.Path, "File of the classes: names, with numbers or not, or JSON.")
COLUMNS = Parameter("columns", list, "Of list: path,frames,label; else label=NAME; default: seen.")
LABEL_SEPARATOR = Parameter("label_separator", str, "What is between a video's labels, where it may have several: ;")
SEED = Parameter("seed", int, "Of the draw of test and validation videos (default 0).")

_LISTS = "official lists: --annotations=DIR"
SOURCES: dict[str, Source] = {
    "folder": Source(
        folder.find,
        "<class>/<video>, or train/, val/ and test/ with class folders in each: --fraction=.1, or by who is seen\n"
        "in anna_run.mp4, boris_run.mp4, ...: --group='^([a-z]+)_' --test_groups=anna,boris",
        (
            FRACTION,
            SEED,
            Parameter("group", str, "folder: regular expression; its first group in a name is the group."),
            Parameter("test_groups", list, "folder: groups whose videos are for test."),
            Parameter("val_groups", list, "folder: groups whose videos are for validation."),
            Parameter("class_depth", int, "folder: which folder is the class; 1: that in --videos."),
        ),
    ),
    "unlabelled": Source(
        unlabelled.find,
        "any videos, for knowledge transfer (configs/transfer.py): --fraction=.1",
        (FRACTION, SEED),
    ),
    "list": Source(
        lists.find,
        "`path label` in each line: --train_list=FILE --val_list=FILE --test_list=FILE --class_names=FILE",
        (
            Parameter("train_list", pathlib.Path, "list: file of the training videos."),
            Parameter("val_list", pathlib.Path, "list: file of the validation videos (default: 5 % of training)."),
            Parameter("test_list", pathlib.Path, "list: file of the test videos."),
            CLASS_NAMES,
            COLUMNS,
            SEED,
        ),
    ),
    "table": Source(
        table.find,
        "CSV, TSV, JSON, Parquet with a header path,label[,start,end][,split][,group]: --table=FILE",
        (
            Parameter("table", list, "table: the file, or one for each split."),
            COLUMNS,
            LABEL_SEPARATOR,
            CLASS_NAMES,
            FRACTION,
            SEED,
        ),
    ),
    "huggingface": Source(
        huggingface.find,
        "VideoFolder of Hugging Face: metadata.csv, .jsonl, .parquet with file_name, or class folders",
        (COLUMNS, LABEL_SEPARATOR, CLASS_NAMES, FRACTION, SEED),
    ),
    "ucf101": Source(ucf101.find, f"{_LISTS} --split=1", (ANNOTATIONS, SPLIT, SEED)),
    "hmdb51": Source(hmdb51.find, f"{_LISTS} --split=1", (ANNOTATIONS, SPLIT, SEED)),
    "kinetics400": Source(functools.partial(kinetics.find, "kinetics400"), _LISTS, (ANNOTATIONS, SEED)),
    "kinetics600": Source(functools.partial(kinetics.find, "kinetics600"), _LISTS, (ANNOTATIONS, SEED)),
    "kinetics700": Source(functools.partial(kinetics.find, "kinetics700"), _LISTS, (ANNOTATIONS, SEED)),
    "moments": Source(moments.find, _LISTS, (ANNOTATIONS, SEED)),
    "diving48": Source(diving48.find, _LISTS, (ANNOTATIONS, SEED)),
    "something": Source(
        something.find,
        f"Something-Something v2, {_LISTS}, tested on the validation list: --test_on=test",
        (ANNOTATIONS, Parameter("test_on", str, "something: validation (default, as the papers) or test."), SEED),
    ),
    "charades": Source(
        charades.find,
        f"{_LISTS} all labels of a video; --segments: each labelled segment is a video",
        (ANNOTATIONS, Parameter("segments", bool, "charades: take each labelled segment, with its one label."), SEED),
    ),
    "motions": Source(motions.read, "the embedded set, rendered once; needs no --videos", refuses=("videos", "check")),
    "tfds": Source(
        tfds.find,
        "a set that TFDS has prepared below --videos=DIR, in the format array_record",
        (COLUMNS,),
        argument="NAME",
        refuses=("check", "flow", "pack"),
    ),
}


def parameters() -> list[Parameter]:
    """The parameters of all sources, each once."""
    return list(dict.fromkeys(parameter for source in SOURCES.values() for parameter in source.parameters))


def describe() -> str:
    """The sources with their lines of help, for prepare's --help; those with the same help together."""
    rows = []
    column = max(len(written(name)) for name in SOURCES)
    for text, names in itertools.groupby(SOURCES, lambda name: SOURCES[name].help):
        first, *more = text.splitlines()
        rows += [
            f"  {', '.join(map(written, names)):{column}}  {first}",
            *(f"  {'':{column}}  {line}" for line in more),
        ]
    return "\n".join(rows)


def written(name: str) -> str:
    """A source as a user writes it."""
    return f"{name}:{SOURCES[name].argument}" if SOURCES[name].argument else name
