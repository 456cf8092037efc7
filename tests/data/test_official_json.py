"""Something-Something v2, Diving48 and Charades by their official lists, small ones of the same form."""

import collections
import json
import pathlib

import hypothesis
import pytest
from hypothesis import strategies

from jax_video.data.manifest import MISSING
from jax_video.data.preparing.preparation import Preparation
from jax_video.data.sources import charades, diving48, something
from jax_video.errors import UserError

TEMPLATES = [
    "Holding something",
    "Pushing something from left to right",
    "Putting something similar to things that are already on the table",
]
WRITTEN = [
    "Holding [something]",
    "Pushing [something] from left to right",
    "Putting [something similar to things that are already on the table]",
]


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path: pathlib.Path, content) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def row(number: int, label: int) -> dict:
    return {"id": str(number), "label": "holding a cup", "template": WRITTEN[label], "placeholders": ["a cup"]}


def found(listing) -> dict[str, tuple[str, str]]:
    """The class and the split of the videos that are there."""
    return {v.path: (listing.classes[v.label], v.split) for v in listing.videos if v.error is None}


def something_lists(folder: pathlib.Path, prefix: str = "", **lists) -> pathlib.Path:
    write(folder / f"{prefix}labels.json", {name: str(label) for label, name in reversed([*enumerate(TEMPLATES)])})
    lists = {
        "train": [row(number, number % 3) for number in range(1, 41)],
        "validation": [row(41, 0), row(42, 1), row(43, 2)],
        "test": [{"id": "51"}, {"id": "52"}],
    } | lists
    for name, rows in lists.items():
        write(folder / f"{prefix}{name}.json", rows)
    return folder


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_something_something_is_tested_on_its_validation_list(prefix, tmp_path):
    something_lists(tmp_path / "labels", prefix)
    root = touch(tmp_path / "20bn-something-something-v2", "1.webm", "41.webm", "42.mp4", "51.webm")
    touch(root, *(f"43/{number:06d}.jpg" for number in range(3)))
    listing = something.find(root)
    assert (listing.name, listing.classes) == ("something-something-v2", tuple(TEMPLATES))
    assert not Preparation("something", "out", videos=root).find().manifest.flip, "left is not right"
    assert found(listing) == {
        "1.webm": (TEMPLATES[1], "train"),
        "41.webm": (TEMPLATES[0], "test"),
        "42.mp4": (TEMPLATES[1], "test"),
        "43": (TEMPLATES[2], "test"),
    }
    assert collections.Counter(video.split for video in listing.videos) == {"train": 38, "val": 2, "test": 3}
    assert sum(video.error == MISSING for video in listing.videos) == 39
    assert any("left out: 2 videos of the official test list" in note for note in listing.notes)


def test_something_something_is_tested_on_its_test_list_on_demand(tmp_path):
    lists = something_lists(tmp_path / "labels")
    root = touch(tmp_path / "videos", "1.webm", "51.webm", "52.webm", "41.webm")
    with pytest.raises(UserError, match="test.json has no labels, and there is no .*test-answers.csv that has"):
        something.find(root, annotations=lists, test_on="test")
    answers = write(lists / "test-answers.csv", f"52;{TEMPLATES[0]}\n51;{TEMPLATES[2]}\n")
    listing = something.find(root, annotations=lists, test_on="test")
    assert collections.Counter(video.split for video in listing.videos) == {"train": 40, "val": 3, "test": 2}
    assert {path: of for path, of in found(listing).items() if of[1] != "train"} == {
        "51.webm": (TEMPLATES[2], "test"),
        "52.webm": (TEMPLATES[0], "test"),
        "41.webm": (TEMPLATES[0], "val"),
    }
    answers.write_text(f"51;{TEMPLATES[2]}\n")
    with pytest.raises(UserError, match="has no answer for 1 videos of .*test.json, e.g. 52"):
        something.find(root, annotations=lists, test_on="test")
    for name in ("train.json", "validation.json", "test-answers.csv"):
        (lists / name).unlink()
    alone = something.find(root, annotations=lists)
    assert [(video.path, video.label) for video in alone.videos] == [("51.webm", None), ("52.webm", None)]
    assert "there are no labels: only the official test list is here" in alone.notes
    with pytest.raises(UserError, match="--test_on=both: expected validation, as in the papers, or test"):
        something.find(root, annotations=lists, test_on="both")


WRONG = {
    "a template of no class": ([row(1, 0) | {"template": "Eating [something]"}], "row 1: the template 'Eating"),
    "no template": ([row(1, 0), {"id": "2"}], "row 2: a training or validation video without a template"),
    "a name that leads elsewhere": ([row(1, 0) | {"id": "../1"}], "row 1: expected the id of a video, got '../1'"),
    "no list": ({"id": "1"}, "train.json: it is an object, expected a list"),
    "no JSON": ("[{", "train.json: not JSON"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_lists_of_something_something_that_cannot_be_understood(kind, tmp_path):
    rows, message = WRONG[kind]
    something_lists(tmp_path / "labels", train=rows)
    with pytest.raises(UserError, match=message):
        something.find(touch(tmp_path / "videos", "1.webm"), annotations=tmp_path)


@pytest.mark.parametrize("source", [something, diving48])
def test_lists_that_are_not_there(source, tmp_path):
    with pytest.raises(UserError, match="no official lists .*--annotations=DIR"):
        source.find(touch(tmp_path, "1.webm"))


DIVES = [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "PIKE"]]


def dives(folder: pathlib.Path, train: int = 40, **changes) -> pathlib.Path:
    rows = [
        {"vid_name": f"-a{number // 4}b_{number % 4:05d}", "label": number % 2, "start_frame": 0, "end_frame": 60}
        for number in range(train)
    ]
    write(folder / "Diving48_vocab.json", changes.pop("vocabulary", DIVES))
    write(folder / "Diving48_V2_train.json", rows)
    write(folder / "Diving48_V2_test.json", [rows[0] | {"vid_name": "other_00000"} | changes])
    return folder


def test_diving48_by_its_lists(tmp_path):
    dives(tmp_path / "annotations")
    root = touch(tmp_path / "rgb", "-a0b_00000.mp4", "-a0b_00001.MP4", "other_00000.mp4", "more.mp4")
    listing = diving48.find(root)
    assert listing.classes == ("Back 15som 05Twis FREE", "Forward 25som NoTwis PIKE") and listing.flip
    train = {name: split for name, (_, split) in found(listing).items()}
    assert train == {"-a0b_00000.mp4": "train", "-a0b_00001.MP4": "train", "other_00000.mp4": "test"}
    sources = collections.defaultdict(set)
    for video in listing.videos:
        sources[video.source].add(video.split)
    assert len(sources) == 11 and all(len(splits) == 1 for splits in sources.values())
    assert any("in no list of diving48 or there twice: 1 of the videos" in note for note in listing.notes)
    (tmp_path / "annotations" / "Diving48_V2_test.json").unlink()
    assert any("nothing is for test" in note for note in diving48.find(root).notes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"label": 2}, "test.json, row 1: expected the name of a video and a label from 0 to 1, of .* and 2"),
        ({"vid_name": "a/b"}, "row 1: expected the name of a video .*, got 'a/b' and 0"),
        ({"label": "0"}, "test.json: 'label' is '0', expected int"),
        ({"vocabulary": [DIVES[0], DIVES[0]]}, "has the same dive twice"),
        ({"vocabulary": ["Back"]}, "Diving48_vocab.json: number 0 of it is 'Back', expected a list"),
    ],
)
def test_lists_of_diving48_that_cannot_be_understood(changes, message, tmp_path):
    dives(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        diving48.find(touch(tmp_path, "other_00000.mp4"))


HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"


def households(folder: pathlib.Path, *rows: tuple[str, str, str], test=()) -> pathlib.Path:
    """Lists of Charades with (id, subject, actions) in their rows."""
    write(
        folder / "Charades_v1_classes.txt", "c000 Holding some clothes\nc001 Putting clothes somewhere\nc002 Running\n"
    )
    for split, listed in (("train", rows), ("test", test)):
        lines = [f'{id_},{who},Kitchen,6,7,Yes,"A person, walks.",a;b,d,{actions},24.8' for id_, who, actions in listed]
        write(folder / f"Charades_v1_{split}.csv", "\n".join([HEADER, *lines]))
    return folder


def test_a_video_of_charades_has_the_labels_of_all_its_actions(tmp_path):
    households(
        tmp_path / "Charades",
        ("46GP8", "HR43", "c002 11.90 21.20;c000 0.00 12.60;c002 22.00 24"),
        ("N11GT", "0KZ7", "c001 3.00 3.00"),
        ("EMPTY", "0KZ7", ""),
        ("GONE0", "IT5W", "c001 2.00 9.50"),
        test=[("TEST1", "HR43", "c001 1.00 2.00;c000 1.00 2.00"), ("BARE1", "HR43", "")],
    )
    root = touch(tmp_path / "Charades_v1_480", "46GP8.mp4", "N11GT.mp4", "TEST1.mp4", "EMPTY.mp4", "BARE1.mp4")
    listing = charades.find(root)
    assert listing.name == "charades"
    assert [(video.name, video.label, video.split, video.source, video.error) for video in listing.videos] == [
        ("46GP8.mp4", (0, 2), "train", "HR43", None),
        ("N11GT.mp4", (1,), "train", "0KZ7", None),
        ("GONE0", (1,), "train", "IT5W", MISSING),
        ("TEST1.mp4", (0, 1), "test", "HR43", None),
    ]
    notes = "\n".join(listing.notes)
    assert "Charades_v1_train.csv: 3 videos with 4 labels" in notes
    assert "Charades_v1_test.csv: left out, without an action: 1 videos" in notes


def test_each_labelled_segment_of_charades_is_a_video(tmp_path):
    households(
        tmp_path / "Charades",
        ("46GP8", "HR43", "c001 11.90 21.20;c000 0.00 12.60;c002 21.20 24"),
        ("N11GT", "0KZ7", "c000 0.00 31.00;c000 5.00 6.00"),
        ("EMPTY", "0KZ7", ""),
        ("GONE0", "IT5W", "c002 3.00 3.00;c002 2.00 9.50;c001 2.00 9.50"),
        test=[("TEST1", "HR43", "c002 1.00 2.00")],
    )
    root = touch(tmp_path / "Charades_v1_480", "46GP8.mp4", "N11GT.mp4", "TEST1.mp4", "EMPTY.mp4")
    listing = charades.find(root, segments=True)
    assert listing.classes == ("Holding some clothes", "Putting clothes somewhere", "Running")
    assert [(video.name, video.label, video.split, video.source, video.error) for video in listing.videos] == [
        ("46GP8.mp4#t=11.9,21.2", 1, "train", "HR43", None),
        ("46GP8.mp4#t=0,12.6", 0, "train", "HR43", None),
        ("46GP8.mp4#t=21.2,24", 2, "train", "HR43", None),
        ("N11GT.mp4#t=0,31", 0, "train", "0KZ7", None),
        ("N11GT.mp4#t=5,6", 0, "train", "0KZ7", None),
        ("GONE0.mp4#t=2,9.5", 2, "train", "IT5W", MISSING),
        ("TEST1.mp4#t=1,2", 2, "test", "HR43", None),
    ]
    notes = "\n".join(listing.notes)
    for said in (
        "Charades_v1_train.csv: 7 labelled segments in 3 videos",
        "left out, without a labelled segment: 1 videos",
        "left out, as they end where they begin, or before: 1 segments",
        "segments that overlap one of another class, which they show, too: 4 (57%)",
        "listed with two labels, of which the first is taken: 1, e.g. GONE0.mp4#t=2,9.5",
        "parts of whole videos: 6, of 3 files",
    ):
        assert said in notes


@hypothesis.given(
    strategies.lists(
        strategies.lists(
            strategies.tuples(strategies.integers(0, 2), strategies.integers(0, 3000), strategies.integers(1, 900)),
            max_size=6,
            unique_by=lambda segment: segment[1:],
        ),
        min_size=1,
        max_size=8,
    ).filter(any)
)
@hypothesis.settings(max_examples=40)
def test_the_segments_of_charades_come_back_as_they_were_written(videos):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rows = [
            (
                f"V{number:04d}",
                f"P{number // 2}",
                ";".join(
                    f"c{label:03d} {start / 100:.2f} {(start + length) / 100:.2f}" for label, start, length in part
                ),
            )
            for number, part in enumerate(videos)
        ]
        root = touch(households(pathlib.Path(folder), *rows), *(f"{id_}.mp4" for id_, _, _ in rows))
        listing = charades.find(root, segments=True)
    expected = [
        (f"V{number:04d}.mp4", label, (start / 100, (start + length) / 100))
        for number, part in enumerate(videos)
        for label, start, length in part
    ]
    assert [(video.path, video.label) for video in listing.videos] == [(path, label) for path, label, _ in expected]
    for video, (_, _, span) in zip(listing.videos, expected, strict=True):
        assert video.span == pytest.approx(span, abs=1e-9)


@pytest.mark.parametrize(
    "actions, message",
    [
        ("c003 0 1", "train.csv:2: expected <class> <start> <end>, as in .*, got 'c003 0 1'"),
        ("c001 0", "train.csv:2: .*got 'c001 0'"),
        ("c001 0 x", "train.csv:2: .*got 'c001 0 x'"),
        ("c001 0 1 2", "train.csv:2: .*got 'c001 0 1 2'"),
        ("", "no labelled segments in"),
    ],
)
def test_lists_of_charades_that_cannot_be_understood(actions, message, tmp_path):
    households(tmp_path, ("46GP8", "HR43", actions))
    with pytest.raises(UserError, match=message):
        charades.find(touch(tmp_path, "46GP8.mp4"), segments=True)
    write(tmp_path / "Charades_v1_train.csv", "id,labels\na,b\n")
    with pytest.raises(UserError, match="expected columns id and actions, found id, labels"):
        charades.find(tmp_path, segments=True)
    write(tmp_path / "Charades_v1_classes.txt", "c000 Running\n001 Eating\n")
    with pytest.raises(UserError, match="classes.txt:2: expected a class as c000 and its name, once, got '001 Eating'"):
        charades.find(tmp_path, segments=True)
