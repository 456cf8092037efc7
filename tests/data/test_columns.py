"""Lists with more than a path and a label in each line: read as they say themselves, or asked about."""

import pathlib
import re
import time

import hypothesis
import pytest
from hypothesis import strategies

from jax_video.data.sources import lists
from jax_video.errors import UserError


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    """Files, and folders of pictures."""
    root = tmp_path_factory.mktemp("videos")
    for name in ("a.mp4", "b.mp4", "c.mp4", "d e.mp4", *(f"x{i}.mp4" for i in range(24))):
        (root / name).touch()
    for name in ("v_1", "v_2", "v_3", "clip 4"):
        (root / name).mkdir()
        for i in range(2):
            (root / name / f"img_{i}.jpg").touch()
    return root


def read(videos: pathlib.Path, folder: pathlib.Path, text: str, columns: str = "", split: str = "test"):
    path = folder / "list"
    path.write_text(text)
    return lists.find(videos, **{f"{split}_list": path}, columns=tuple(filter(None, columns.split(","))))


def labels(listing) -> dict[str, str]:
    return {video.path: listing.classes[video.label] for video in listing.videos}


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.mp4,walk\nd e.mp4,run\n",
        "path label\na.mp4 walk\nd e.mp4 run\n",
        "# path label\na.mp4 walk\nd e.mp4 run\n",
        '"Video Path";"Class Name"\na.mp4;walk\nd e.mp4;run\n',
        "label\tfilename\nwalk\ta.mp4\nrun\td e.mp4\n",
        "video_path,num_frames,label\na.mp4,40,walk\nd e.mp4,60,run\n",
        "id,path,label\n0,a.mp4,walk\n1,d e.mp4,run\n",
        ",path,label\n0,a.mp4,walk\n1,d e.mp4,run\n",
        "path label frames\na.mp4 walk 40\nd e.mp4 run 60\n",
        "label path\nwalk a.mp4\nrun d e.mp4\n",
        "name,label,class_id\na,walk,1\nd e,run,0\n",
        "path,label,split\na.mp4,walk,Test\nb.mp4,walk,train\nd e.mp4,run,testing\n",
    ],
)
def test_a_header_says_what_the_columns_are(text, videos, tmp_path):
    listing = read(videos, tmp_path, text)
    assert labels(listing) == {"a.mp4": "walk", "d e.mp4": "run"}
    assert listing.notes[0].endswith(f"list:1: taken for a header: {text.splitlines()[0]!r}")
    assert any("1 of its videos are for other splits than test" in note for note in listing.notes) == ("split" in text)


@pytest.mark.parametrize(
    "columns, text",
    [
        ("path,frames,label", "a.mp4 40 walk\nd e.mp4 60 run\n"),
        ("path,frames,label", "a.mp4,40,walk\n'd e.mp4',60,run\n"),
        ("path,label,frames", "a walk 40\nd e run 60\n"),
        ("path,label", "a.mp4 walk\nd e.mp4 run\n"),
        ("frames,label,path", "40 walk a.mp4\n60 run d e.mp4\n"),
        ("x,path,y,label", "1\ta\t2\twalk\n1\td e\t2\trun\n"),
        ("path,x,x,label", "path start end label\na.mp4 1 2 walk\nd e.mp4 3 4 run\n"),
        ("path,label,split", "a.mp4 walk test\nb.mp4 walk train\nd e.mp4 run test\n"),
    ],
)
def test_the_user_says_what_the_columns_are(columns, text, videos, tmp_path):
    assert labels(read(videos, tmp_path, text, columns)) == {"a.mp4": "walk", "d e.mp4": "run"}


def test_of_several_labels_the_first_counts_on_demand(videos, tmp_path):
    text = "a.mp4 1 3 5\nb.mp4 2\nc.mp4 0 4\n"
    assert labels(read(videos, tmp_path, text, "path,label")) == {"a.mp4": "1", "b.mp4": "2", "c.mp4": "0"}


ASKED = {
    "several labels": ("a.mp4 1 3 5\nb.mp4 2\n", 1, ""),
    "several labels with commas": ("a.mp4 2\nb.mp4,1,3\n", 2, ""),
    "frames, then the label": (
        "a.mp4 40 0\nb.mp4 60 1\nc.mp4 80 0\n",
        1,
        "column 2 from the end, 40 to 80, looks like",
    ),
    "the label, then frames": ("a.mp4 0 40\nb.mp4 1 60\nc.mp4 0 80\n", 1, "the last column, 40 to 80, looks like"),
    "no label": ("a.mp4 0 -1\nb.mp4 0 -1\n", 1, ""),
    "one odd line": ("a.mp4 0\nb.mp4 1\nc.mp4 40 1\n", 3, ""),
    "a split": ("a.mp4,0,train\nb.mp4,1,test\n", 1, ""),
    "names, then frames": ("a.mp4,walk,40\nb.mp4,run,60\n", 1, ""),
    "names, then frames, with blanks": ("".join(f"x{i}.mp4 walk {40 + i}\n" for i in range(9)), 1, "number behind"),
    "folders with several labels": ("v_1 1 3 5\nv_2 2 4 6\n", 1, ""),
    "folders without labels": ("v_1 0 -1\nv_2 0 -1\n", 1, ""),
    "folders, the label, then frames": ("v_1 3 120\nv_2 0 80\nv_3 0 90\n", 1, "the last column, 80 to 120, looks like"),
    "one odd folder": ("v_1 3\nv_2 0\nv_3 90 1\n", 3, ""),
}


@pytest.mark.parametrize("kind", ASKED)
def test_more_than_a_path_and_a_label_is_asked_about(kind, videos, tmp_path):
    text, line, frames = ASKED[kind]
    with pytest.raises(
        UserError, match=f"list:{line}: more than a path and a label, got .*{frames}.*--columns=path,fra"
    ):
        read(videos, tmp_path, text)


@pytest.mark.parametrize(
    "text, message",
    [
        ("v_1 120 3\nv_2 80 0\nv_3 1\n", "list:3: expected a folder, how many frames it has, and its label.*'v_3 1'"),
        ("path,frames\na.mp4,40\n", "list:1: a header without a label: 'path,frames'; .*--columns=path,label"),
        ("label,num_frames\n0,40\n", "list:1: a header without a path"),
        ("label,youtube_id,time_start,time_end\nrun,a,0,1\n", "list:1: a list of Kinetics: .*prepare kinetics400"),
        (
            "path,start,end,label\na.mp4,1,2,run\n",
            "list:1: columns with times .start, end., but lists are of whole videos",
        ),
        ("path,label,split\na.mp4,0,extra\n", "list:2: expected a split of train, val or test, got 'extra'"),
        ("path,label\na.mp4,\n", "list:2: expected path, label, got 'a.mp4,'"),
        ("a.mp4 0\nb.mp4 1\nc.mp4 run\n", "list:3: the label 'run' is without a class"),
        ("Datei,Klasse\na.mp4,walk\nb.mp4,run\n", "list:1: 'Datei' is no video, and no other line has .* 'Klasse'"),
        ("Datei,Klasse\nv_1,walk\nv_2,run\n", "list:1: 'Datei' is no video, and no other line has .* 'Klasse'"),
        ("# my list\na.mp4 walk\nb.mp4 run\n", "list:1: '# my' is no video, and no other line has .* 'list'"),
        ("a.mp4 walk\nb.mp4 run\n# the end\n", "list:3: '# the' is no video, and no other line has .* 'end'"),
        (
            "".join(f"x{i}.mp4 {30 + 3 * i}\n" for i in range(12)),
            "list:1: the labels, 30 to 63, 12 different ones of 12 videos, look like numbers of frames; .*--columns",
        ),
        (
            "".join(f"x{i}.mp4 someone does {i}-th thing\n" for i in range(24)),
            "list:1: 24 different labels for 24 videos, such as 'someone does 0-th thing', look like no classes",
        ),
    ],
)
def test_lines_that_cannot_be_labels_are_refused(text, message, videos, tmp_path):
    with pytest.raises(UserError, match=message):
        read(videos, tmp_path, text)
    if "--columns=path,label" in message or "look like" in message:
        columns = "path,label" if "look like" in message else "path,x"
        try:
            assert len(read(videos, tmp_path, text, columns).videos) >= 12
        except UserError as error:
            assert columns == "path,x" and "once each" in str(error)


@pytest.mark.parametrize("text", ["v_9 jump\nv_1 walk\nv_2 run\n", "a.mp4 walk\nb.mp4 run\nv_9 jump\n"])
def test_a_class_of_one_video_that_is_missing_is_one_on_demand(text, videos, tmp_path):
    assert read(videos, tmp_path, text, "path,label").classes == ("jump", "run", "walk")
    assert read(videos, tmp_path, text.replace("v_9", "v_9.mp4")).classes == ("jump", "run", "walk")


@pytest.mark.parametrize("columns", ["path", "label", "path,path,label", "video,class"])
def test_columns_without_a_path_and_a_label(columns, videos, tmp_path):
    with pytest.raises(UserError, match=f"--columns={columns}: expected `path` and `label` once each"):
        read(videos, tmp_path, "a.mp4 1\n", columns)


def test_what_was_understood_still_is(videos, tmp_path):
    assert labels(read(videos, tmp_path, "v_1 120 3\nv_2 80 0\nclip 4 2 1\n")) == {
        "v_1": "3",
        "v_2": "0",
        "clip 4": "1",
    }
    assert labels(read(videos, tmp_path, "clip 4 1\nv_2 0\n")) == {"clip 4": "1", "v_2": "0"}
    assert labels(read(videos, tmp_path, "a.mp4 1.0\nb.mp4 0.0\n")) == {"a.mp4": "1", "b.mp4": "0"}
    assert labels(read(videos, tmp_path, "a.mp4;1\nb.mp4|0\n")) == {"a.mp4": "1", "b.mp4": "0"}
    assert labels(read(videos, tmp_path, "a.mp4 'push up'\nb.mp4 \"run\"\n")) == {"a.mp4": "push up", "b.mp4": "run"}
    assert labels(read(videos, tmp_path, "a.mp4 push up 2\nb.mp4 run\n")) == {"a.mp4": "push up 2", "b.mp4": "run"}


@hypothesis.given(
    rows=strategies.lists(
        strategies.tuples(strategies.sampled_from("abc"), strategies.integers(0, 3)), min_size=4, max_size=9
    ),
    odd=strategies.sampled_from(
        ["d e.mp4 40 1", "d e.mp4", "d e.mp4 1 2 3", "d e.mp4 run", "d e.mp4,1,train", "d e 7 1"]
    ),
    place=strategies.integers(0, 9),
)
@hypothesis.settings(max_examples=60)
def test_one_odd_line_never_changes_what_the_others_mean(rows, odd, place, videos, tmp_path_factory):
    lines = [f"{name}.mp4 {label}" for name, label in rows]
    lines.insert(place, odd)
    where = lines.index(odd) + 1
    try:
        listing = read(videos, tmp_path_factory.mktemp("list"), "\n".join(lines))
    except UserError as error:
        assert f"list:{where}: " in str(error)
        return
    first = {f"{name}.mp4": str(label) for name, label in reversed(rows)}
    assert {path: label for path, label in labels(listing).items() if path in first} == first


@pytest.mark.parametrize(
    "line",
    [
        "a" + " " * 100_000 + "b c",
        "a " * 50_000 + "x",
        "a" + "," * 100_000,
        '"' + "a " * 50_000,
        "a.mp4 " + "1 " * 50_000,
        "a 1" * 50_000,
    ],
)
def test_a_long_line_takes_no_long_time(line, videos, tmp_path):
    began = time.process_time()  # of this process alone, however busy the machine is
    try:
        read(videos, tmp_path, f"a.mp4 0\n{line}\nb.mp4 1\n")
    except UserError as error:
        assert re.search("list:2: ", str(error)) and len(str(error)) < 1000
    assert time.process_time() - began < 3
