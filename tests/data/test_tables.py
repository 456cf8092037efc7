"""Tables with a header, and folders with metadata as Hugging Face has them."""

import collections
import datetime
import json
import pathlib
import sys

import hypothesis
import pytest
from hypothesis import strategies

from jax_video.data.manifest import MISSING
from jax_video.data.sources import folder, huggingface, lists, table
from jax_video.errors import UserError

ROWS = [("a.mp4", "walk"), ("b.mp4", "run"), ("sub/c d.mp4", "walk"), ("e.mp4", "run")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("videos")
    (root / "sub").mkdir()
    for name, _ in ROWS:
        (root / name).touch()
    return root


def write(path: pathlib.Path, text: str, encoding: str = "utf-8") -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def parquet(path: pathlib.Path, columns: dict) -> pathlib.Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


def find(videos, *paths, **given):
    return table.find(videos, table=[str(path) for path in paths], **given)


def found(listing) -> list[tuple]:
    return [(v.name, listing.classes[v.label], v.split) for v in listing.videos]


def test_the_part_for_validation_is_the_fraction(tmp_path):
    rows = [f"{number}.mp4,{number % 2},{'test' if number < 4 else 'train'}" for number in range(44)]
    for name in (*range(44), "a", "b", "c"):
        (tmp_path / f"{name}.mp4").touch()
    path = write(tmp_path / "t.csv", "\n".join(["path,label,split", *rows]))
    for given, number in (({}, 2), ({"fraction": 0.3}, 12)):
        assert sum(split == "val" for *_, split in found(find(tmp_path, path, **given))) == number
    all_given = write(tmp_path / "all.csv", "path,label,split\na.mp4,x,train\nb.mp4,x,val\nc.mp4,x,test")
    with pytest.raises(UserError, match="all rows say for which split they are, so nothing is drawn: leave out --frac"):
        find(tmp_path, all_given, fraction=0.3)


CSV = {
    "comma": "label,path,split\nwalk,a.mp4,train\nrun,b.mp4,test\nwalk,sub/c d.mp4,val\n",
    "tab": "Path\tClass Name\tSubset\na.mp4\twalk\tTraining\nb.mp4\trun\tTesting\nsub/c d.mp4\twalk\tvalidation\n",
    "semicolon": '"file_name";"label";"split"\r\n"a";"walk";"train"\r\n"b";"run";"test"\r\n"c d";"walk";"dev"\r\n',
    "pandas": ",path,label,split\n0,a.mp4,walk,train\n1,b.mp4,run,test\n2,/other/sub/c d.mp4,walk,val\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", CSV)
def test_a_table_is_read_by_its_header(kind, encoding, videos, tmp_path):
    listing = find(videos, write(tmp_path / "all.csv", CSV[kind], encoding))
    assert found(listing) == [("a.mp4", "walk", "train"), ("b.mp4", "run", "test"), ("sub/c d.mp4", "walk", "val")]
    assert listing.columns == {}
    assert any("ignored, as in none of the rows of all.csv: 1 of the videos" in note for note in listing.notes)


def test_all_kinds_of_files_say_the_same(videos, tmp_path):
    rows = [
        {"clip": name, "label": label, "n": number, "day": datetime.date(2026, 1, 1), "ok": True, "half": None}
        for number, (name, label) in enumerate(ROWS)
    ]
    plain = [row | {"day": "2026-01-01"} for row in rows]
    nested = [row | {"boxes": [[1, 2]], "n": row["n"]} for row in plain]
    lines = "\n".join(json.dumps({key: value for key, value in row.items() if value is not None}) for row in nested)
    texts = [",".join(["clip", "label", "n", "day", "ok", "half"])]
    texts += [f"{row['clip']},{row['label']},{row['n']},2026-01-01,true," for row in rows]
    paths = [
        write(tmp_path / "t.csv", "\n".join(texts)),
        write(tmp_path / "t.jsonl", lines + "\n\n"),
        write(tmp_path / "t.json", json.dumps(nested, indent=1)),
        parquet(tmp_path / "t.parquet", {key: [row[key] for row in rows] for key in rows[0]}),
    ]
    listings = [find(videos, path) for path in paths]
    for listing in listings[1:]:
        assert found(listing) == found(listings[0])
        assert (
            listing.columns["n"]
            == listings[0].columns["n"]
            == {"a.mp4": "0", "b.mp4": "1", "sub/c d.mp4": "2", "e.mp4": "3"}
        )
        assert listing.columns["day"] == dict.fromkeys((name for name, _ in ROWS), "2026-01-01")
        assert listing.columns["ok"]["a.mp4"] == "true"
    assert [any("left out, as lists, objects or bytes: boxes" in note for note in each.notes) for each in listings] == [
        False, True, True, False
    ]  # fmt: skip


TEXT = strategies.text(
    strategies.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12
).map(lambda text: " ".join(text.split()) or "x")


@hypothesis.given(
    order=strategies.permutations(["path", "label", "start", "end", "split", "camera", "note"]),
    rows=strategies.lists(
        strategies.tuples(
            strategies.sampled_from([name for name, _ in ROWS]),
            strategies.sampled_from(["walk", "run", "sit, then run", 'say "no"']),
            strategies.none() | strategies.tuples(strategies.integers(0, 99), strategies.integers(1, 50)),
            strategies.sampled_from(["train", "val", "test"]),
            TEXT,
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda row: (row[0], row[2] and (row[2][0], sum(row[2]))),
    ),
    kind=strategies.sampled_from([".csv", ".tsv", ".jsonl"]),
)
@hypothesis.settings(max_examples=60)
def test_rows_come_back_as_they_were_written_in_any_order_of_columns(order, rows, kind, videos, tmp_path_factory):
    import csv

    path = tmp_path_factory.mktemp("table") / f"t{kind}"
    written = [
        {
            "path": name,
            "label": label,
            "start": "" if times is None else times[0] / 2,
            "end": "" if times is None else sum(times) / 2,
            "split": split,
            "camera": note,
            "note": note[::-1].strip(),
        }
        for name, label, times, split, note in rows
    ]
    if kind == ".jsonl":
        write(path, "\n".join(json.dumps({name: row[name] for name in order}, ensure_ascii=False) for row in written))
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, order, delimiter="\t" if kind == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(written)
    listing = find(videos, path)
    assert sorted(listing.classes) == list(listing.classes) and set(listing.classes) == {row[1] for row in rows}
    for video, (name, label, times, split, _), row in zip(listing.videos, rows, written, strict=True):
        assert (video.path, listing.classes[video.label], video.error) == (name, label, None)
        assert video.split == split or (split, video.split) == ("train", "val")
        assert video.span == (None if times is None else (times[0] / 2, sum(times) / 2))
        assert listing.columns["camera"][video.name] == table.text.compose(row["camera"])


def test_parts_of_files(videos, tmp_path):
    path = write(
        tmp_path / "t.csv",
        "video,label,start_timestamp,stop_timestamp,start_frame,stop_frame\n"
        "a,walk,0,2.5,0,75\na,run,1:00.25,1:02,9,9\na,sit,1:00:00,1:00:01.5,1,2\nb,run,,,,\n",
    )
    listing = find(videos, path)
    assert [(video.name, listing.classes[video.label]) for video in listing.videos] == [
        ("a.mp4#t=0,2.5", "walk"),
        ("a.mp4#t=60.25,62", "run"),
        ("a.mp4#t=3600,3601.5", "sit"),
        ("b.mp4", "run"),
    ]
    assert list(listing.columns) == ["start_frame", "stop_frame"]
    assert len({video.split for video in listing.videos if video.path == "a.mp4"}) == 1


def test_where_nothing_splits_whole_files_and_groups_are_on_one_side(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.mp4").touch()
    rows = [f"{number}.mp4,{'ab'[number % 2]},person {number // 2}" for number in range(40)]
    listing = find(tmp_path, write(tmp_path / "t.csv", "\n".join(["path,label,subject", *rows])), fraction=0.2)
    sides = collections.defaultdict(set)
    for video in listing.videos:
        sides[video.source].add(video.split)
    assert len(sides) == 20 and all(len(side) == 1 for side in sides.values())
    assert collections.Counter(video.split for video in listing.videos) == {"train": 24, "val": 8, "test": 8}
    assert "8 of the training list's videos, whole sources, are for test (seed 0)" in listing.notes
    again = find(tmp_path, tmp_path / "t.csv", fraction=0.2, seed=1)
    assert [video.split for video in again.videos] != [video.split for video in listing.videos]

    alone = find(
        tmp_path, write(tmp_path / "u.csv", "\n".join(["path,label", *(row.rpartition(",")[0] for row in rows)]))
    )
    counts = collections.Counter((video.split, video.label) for video in alone.videos)
    assert counts == {
        (split, label): {"train": 16}.get(split, 2) for split in ("train", "val", "test") for label in (0, 1)
    }

    few = find(tmp_path, write(tmp_path / "v.csv", "path,label,group\n0.mp4,a,x\n1.mp4,b,x\n2.mp4,a,y\n"))
    assert any("warning: nothing is for test" in note and "a column split" in note for note in few.notes)


def test_each_table_may_be_of_one_split_by_its_name(videos, tmp_path):
    train = write(tmp_path / "EPIC_100_train.csv", "path,label\na.mp4,walk\ne.mp4,run\n")
    val = write(tmp_path / "EPIC_100_validation.csv", "label,path\nrun,b.mp4\n")
    test = write(tmp_path / "EPIC_100_test.tsv", "label\tpath\nwalk\tc d\n")
    listing = find(videos, train, val, test)
    assert [video.split for video in listing.videos] == ["train", "train", "val", "test"]
    other = write(tmp_path / "more.csv", "path,label\na.mp4,walk\n")
    with pytest.raises(UserError, match=r"more.csv:2: nothing says for which split 'a.mp4' is, and for others"):
        find(videos, train, other)


@pytest.mark.parametrize("last", ["test", "testing", "eval"])
@pytest.mark.parametrize(
    "names",
    [*("{}", "{}_fold1", "{}_1", "{}_v2", "{}_labels", "{}-set", "{}.clean", "my {} rows", "{}list01"), "{}/labels"],
)
def test_the_names_of_tables_tell_their_splits_wherever_the_word_stands(names, last, videos, tmp_path):
    rows = {"train": "a.mp4,walk", last: "b.mp4,run"}
    paths = [write(tmp_path / f"{names.format(of)}.csv", f"path,label\n{row}\n") for of, row in rows.items()]
    listing = find(videos, *paths)
    assert found(listing) == [("a.mp4", "walk", "train"), ("b.mp4", "run", "test")]
    assert f"tables of the splits: {paths[0].name} for train, {paths[1].name} for test" in listing.notes
    assert {video.split for video in find(videos, paths[1]).videos} == {"train"}, "one table is all there is"


def test_tables_whose_names_tell_no_split_have_one_drawn_and_those_that_tell_two_are_refused(videos, tmp_path):
    def named(*names: str, header: str = "path,label", end: str = "") -> list[pathlib.Path]:
        rows = [f"{path},{label}{end}" for path, label in ROWS]
        return [write(tmp_path / f"{name}.csv", f"{header}\n{row}\n") for name, row in zip(names, rows, strict=False)]

    drawn = find(videos, *named("walks", "runs", "more"))
    assert any("of every class 10% is for test" in note for note in drawn.notes)
    for names in (("train_or_test", "more"), ("set_train", "set_train_val"), ("a_test", "b_val_test")):
        with pytest.raises(UserError, match=r"\.csv: its name has words for several splits, .*expected a column split"):
            find(videos, *named(*names))
        find(videos, *named(*names, header="path,label,split", end=",train"))  # which a column makes clear
    listing = find(videos, *named("ucf_train_val", "ucf_test"))
    assert any("tables of the splits: ucf_train_val.csv for train, ucf_test.csv for test" in x for x in listing.notes)


EVAL = {  # the words for splits in a set -> what `eval` is there
    ("train", "eval"): "test",
    ("train", "val", "eval"): "test",
    ("train", "val", "eval", "test"): "test",
    ("train", "eval", "test"): "val",
    ("training", "Evaluation", "testing"): "val",
}


@pytest.mark.parametrize("how", ["column", "folders", "tables", "list"])
@pytest.mark.parametrize("words", EVAL)
def test_eval_is_what_the_other_splits_leave_for_it(words, how, tmp_path):
    hub(tmp_path, *(f"{word}/1.mp4" for word in words))
    word = next(word for word in words if "eval" in word.lower())
    if how == "list":
        write(tmp_path / "t.csv", "\n".join(["path,label,split", *(f"{each}/1.mp4,a,{each}" for each in words)]))
        files = {f"{split}_list": tmp_path / "t.csv" for split in ("train", "val", "test")}
        listing = lists.find(tmp_path, **files)
    elif how == "tables":
        listing = find(tmp_path, *(write(tmp_path / f"{each}.csv", f"path,label\n{each}/1.mp4,a\n") for each in words))
    else:
        column = how == "column"
        rows = [f"{each}/1.mp4,a{f',{each}' * column}" for each in words]
        write(tmp_path / "metadata.csv", "\n".join([f"file_name,label{',split' * column}", *rows]))
        listing = huggingface.find(tmp_path)
    assert {video.path: video.split for video in listing.videos}[f"{word}/1.mp4"] == EVAL[words]
    said = {"val": "validation, as others are for test", "test": "test"}[EVAL[words]]
    if how == "tables":
        assert any(f"{word}.csv for {EVAL[words]}" in note for note in listing.notes)
    else:
        assert any(note.endswith(f"{word} is taken for {said}") for note in listing.notes)


def test_the_user_says_which_columns_count(videos, tmp_path):
    path = write(tmp_path / "t.csv", "Datei,Verb,label,start,end\na.mp4,walk,0,1,2\nb.mp4,run,1,3,4\n")
    with pytest.raises(UserError, match="none of the columns Datei, Verb, label, start, end is known as the path"):
        find(videos, path)
    listing = find(videos, path, columns=("path=Datei", "label=Verb"))
    assert [video.name for video in listing.videos] == ["a.mp4#t=1,2", "b.mp4#t=3,4"]
    assert listing.classes == ("run", "walk") and list(listing.columns) == ["label"]
    whole = find(videos, path, columns=("path=Datei", "label=Verb", "start=", "end="))
    assert [video.name for video in whole.videos] == ["a.mp4", "b.mp4"]
    assert whole.columns["start"] == {"a.mp4": "1", "b.mp4": "3"}
    named = write(tmp_path / "names.txt", "walk\nrun\n")
    listing = find(videos, path, columns=("path=Datei", "label=label"), class_names=named)
    assert found(listing)[0][:2] == ("a.mp4#t=1,2", "walk")


WRONG = {
    "no label": (
        "path,label\na.mp4,walk\nb.mp4,\n",
        "t.csv:3: expected the path of a video and its label, got 'b.mp4' and ''",
    ),
    "no path": ("path,label\n,walk\n", "t.csv:2: expected the path of a video and its label"),
    "a split of another kind": ("path,label,split\na.mp4,walk,left\n", "t.csv:2: expected a split .*got 'left'"),
    "no split": ("path,label,split\na.mp4,walk,\n", "t.csv:2: expected a split of train, val or test, got ''"),
    "an end before the start": ("path,label,start,end\na.mp4,walk,3,2\n", "t.csv:2: expected a start and an end after"),
    "a start alone": ("path,label,start,end\na.mp4,walk,3,\n", "t.csv:2: expected a start and an end after it"),
    "a time that is none": ("path,label,start,end\na.mp4,walk,nan,inf\n", "t.csv:2: .*got 'nan' and 'inf'"),
    "no column for the end": (
        "path,label,start\na.mp4,walk,3\n",
        "start would be a part of a video, which two columns",
    ),
    "an end alone by columns": ("path,label,end\na.mp4,walk,3\n", "end would be a part .*--columns=start=,end="),
    "frames": (
        "path,label,start_frame,end_frame\na.mp4,walk,3,9\n",
        "start_frame, end_frame would be a part .*seconds",
    ),
    "a short row": ("path,label,x\na.mp4,walk\n", r"t.csv:2: expected 3 cells \(path, label, x\), got 2"),
    "a long row": ("path,label\na.mp4,walk,run\n", "t.csv:2: expected 2 cells .*, got 3"),
    "an open quote": ('path,label\na.mp4,"walk\nb.mp4,run\n', "t.csv:2: not a table .*unexpected end"),
    "an open quote before another": ('path,label\na.mp4,"walk\nb.mp4,run"\n', "t.csv:2: a quote that is not closed"),
    "the same column twice": (
        "path,label,label\na.mp4,walk,run\n",
        "t.csv:1: the header has two columns called 'label'",
    ),
    "no rows": ("path,label\n", "there are none"),
    "nothing": ("", "none of the columns"),
    "no header": ("a.mp4,walk\nb.mp4,run\n", "none of the columns a.mp4, walk is known .*jax_video.prepare list"),
    "no video that is there": ("path,label\nx.mp4,walk\n", "has none of the 1 videos of the rows of t.csv, e.g. x.mp4"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_tables_that_cannot_be_understood(kind, videos, tmp_path):
    text, message = WRONG[kind]
    with pytest.raises(UserError, match=message):
        find(videos, write(tmp_path / "t.csv", text))


def test_what_is_no_table_is_said_in_one_message(videos, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="expected --table=FILE"):
        find(videos)
    with pytest.raises(UserError, match="cannot read .*none.csv"):
        find(videos, tmp_path / "none.csv")
    with pytest.raises(UserError, match="t.jsonl:2: not JSON .*expected an object in each line"):
        find(videos, write(tmp_path / "t.jsonl", '{"path": "a.mp4", "label": 1}\n{"path"\n'))
    with pytest.raises(UserError, match="t.json: it is an object, expected a list"):
        find(videos, write(tmp_path / "t.json", "{}"))
    with pytest.raises(UserError, match="--columns=path=file: expected some of path=NAME.*t.csv: path, label"):
        find(videos, write(tmp_path / "t.csv", "path,label\na.mp4,0\n"), columns=("path=file",))
    for columns in (("path",), ("class=label",), ("path=path", "path=label")):
        with pytest.raises(UserError, match=f"--columns={','.join(columns)}: expected some of path=NAME.*got '"):
            find(videos, tmp_path / "t.csv", columns=columns)
    with pytest.raises(UserError, match="t.csv: none of the columns path, label is known as the label"):
        find(videos, tmp_path / "t.csv", columns=("label=",))
    with pytest.raises(UserError, match="tags.jsonl: label has several values in a row: expected one label for each"):
        find(videos, write(tmp_path / "tags.jsonl", '{"path": "a.mp4", "label": ["walk", "talk"]}'))
    with pytest.raises(UserError, match="columns with times .start, end.*prepare table --table=FILE reads parts"):
        listed = write(tmp_path / "list.csv", "path,start,end,label\na.mp4,1,2,run\n")
        lists.find(videos, test_list=listed)
    pytest.importorskip("pyarrow")
    with pytest.raises(UserError, match="cannot read .*t.parquet as Parquet"):
        find(videos, write(tmp_path / "t.parquet", "PAR1, but no more"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="t.parquet: what reads Parquet is not installed: pip install pyarrow"):
        find(videos, tmp_path / "t.parquet")


@hypothesis.given(
    kind=strategies.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet"]),
    place=strategies.floats(0, 1),
    junk=strategies.binary(max_size=12) | strategies.sampled_from([b'"', b"\n", b"\0", b"[", b"{", b"\xff\xfe", b","]),
    cut=strategies.integers(0, 12),
)
@hypothesis.settings(max_examples=150)
def test_a_damaged_table_is_read_or_refused_in_one_message(kind, place, junk, cut, videos, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / f"t{kind}"
    rows = [{"path": name, "label": label, "start": 0.5, "end": 2} for name, label in ROWS]
    if kind == ".parquet":
        parquet(path, {key: [row[key] for row in rows] for key in rows[0]})
    elif "json" in kind:
        write(path, json.dumps(rows) if kind == ".json" else "\n".join(map(json.dumps, rows)))
    else:
        write(path, "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
    data = path.read_bytes()
    at = int(place * len(data))
    path.write_bytes(data[:at] + junk + data[at + cut :])
    try:
        listing = find(videos, path)
    except UserError as error:
        assert "t" + kind in str(error) and len(str(error)) < 2000
        return
    assert all(video.span is None or 0 <= video.span[0] < video.span[1] for video in listing.videos)


def test_descriptions_may_have_lines_and_a_row_may_come_twice(videos, tmp_path):
    text = 'path,label,said\na.mp4,walk,"one\ntwo"\na.mp4,run,again\nb.mp4,run,last\n'
    listing = find(videos, write(tmp_path / "t.csv", text))
    assert listing.columns == {"said": {"a.mp4": "one\ntwo", "b.mp4": "last"}}
    assert any("listed with two labels, of which the first is taken: 1, e.g. a.mp4" in note for note in listing.notes)


def test_missing_videos_are_counted_and_files_of_both_sides_named(videos, tmp_path):
    text = "path,label,start,end,split\na.mp4,walk,0,1,train\na.mp4,run,2,3,test\nx.mp4,run,0,1,train\n"
    listing = find(videos, write(tmp_path / "t.csv", text))
    assert [video.error for video in listing.videos] == [None, None, MISSING]
    both = "warning: files with parts for test and for training: 1, e.g. a.mp4"
    assert both in listing.notes

    rows = [f"a.mp4,walk,{second},{second + 1},person {second}" for second in range(40)]
    drawn = find(videos, write(tmp_path / "t.csv", "\n".join(["path,label,start,end,person_id", *rows])))
    assert {video.split for video in drawn.videos} == {"train", "val", "test"} and both in drawn.notes


def test_what_spreadsheets_and_tools_make_of_tables(videos, tmp_path):
    lines = "".join(f"{json.dumps({'path': path, 'label': label})}\n" for path, label in ROWS)
    for name, content in (
        ("lines.json", lines),
        ("cells.csv", "path;label;;\n" + "".join(f"{path};{label};;\n" for path, label in ROWS)),
        ("blank.tsv", "\npath\tlabel\n" + "".join(f"{path}\t{label}\n" for path, label in ROWS)),
    ):
        assert len(find(videos, write(tmp_path / name, content)).videos) == len(ROWS), name
    twice = "path,label\na.mp4,walk\npath,label\nb.mp4,run\n"
    with pytest.raises(UserError, match="joined.csv:3: the header again"):
        find(videos, write(tmp_path / "joined.csv", twice))
    ragged = "path,label,\na.mp4,walk,unsure\nb.mp4,run,\n"
    assert len(find(videos, write(tmp_path / "ragged.csv", ragged)).videos) == 2
    numbers = "path,label\n" + "".join(f"{path},0;1\n" for path, _ in ROWS)
    (tmp_path / "classes.txt").write_text("sub\nwalk")
    given = {"label_separator": ";", "class_names": tmp_path / "classes.txt"}
    assert len(find(videos, write(tmp_path / "numbers.csv", numbers), **given).videos) == len(ROWS)
    several = "path,label\na.mp4,walk;wave\nb.mp4,walk\nsub/c d.mp4,run\n"
    listing = find(videos, write(tmp_path / "several.csv", several))
    assert any("the class 'walk;wave' has others in it; where a video may have" in note for note in listing.notes)


def test_parts_of_a_file_are_on_one_side_however_its_path_is_written(tmp_path):
    """And as long as paths are written alike, a split does not depend on which files are there."""
    forms = ("{}", "{}.mp4", "clips/{}.mp4", "/elsewhere/clips/{}.avi", "{}.MP4", "clips\\{}.mp4")
    rows = [f"{forms[part].format(f'v{n:02}')},walk,{part},{part + 1}" for n in range(30) for part in range(len(forms))]
    path = write(tmp_path / "t.csv", "\n".join(["path,label,start,end", *rows]))
    hub(tmp_path, *(f"clips/v{n:02}.mp4" for n in range(30)))
    whole = find(tmp_path, path, fraction=0.2)
    sides = collections.defaultdict(set)
    for video in whole.videos:
        sides[video.path].add(video.split)
    assert len(sides) == 30 and all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {"train", "val", "test"}
    assert not any("warning" in note for note in whole.notes)

    listed = [f"/elsewhere/clips/v{n:02}.avi,walk,{part},{part + 1}" for n in range(30) for part in range(3)]
    write(path, "\n".join(["path,label,start,end", *listed]))
    whole = find(tmp_path, path)
    for n in range(0, 30, 2):
        (tmp_path / "clips" / f"v{n:02}.mp4").unlink()
    assert [video.split for video in find(tmp_path, path).videos] == [video.split for video in whole.videos]


def test_without_splits_a_path_that_may_be_in_several_folders_is_asked_about(tmp_path):
    hub(tmp_path, "train/1.mp4", "test/1.mp4", "eval/1.mp4", "train/2.mp4")
    path = write(tmp_path / "t.csv", "path,label\n1.mp4,a\n2.mp4,b\n")
    with pytest.raises(
        UserError, match=r"t.csv:2: '1.mp4' may be any of eval/1.mp4, test/1.mp4, train/1.mp4; write its"
    ):
        find(tmp_path, path)
    for split, folder_ in (("train", "train"), ("val", "eval"), ("test", "test")):
        write(path, f"path,label,split\n1.mp4,a,{split}\n")
        assert [video.path for video in find(tmp_path, path).videos] == [f"{folder_}/1.mp4"]


@pytest.mark.parametrize(
    "names", ["startTime,endTime", "Start (S),end(Sec)", "start [sec],EndTime (s)", "t-start,t end"]
)
def test_times_are_known_however_their_columns_are_written(names, videos, tmp_path):
    listing = find(
        videos, write(tmp_path / "t.csv", f"path,label,{names}\na.mp4,walk,0,1\na.mp4,run,2,3\nb.mp4,run,0,1\n")
    )
    assert sorted(video.span for video in listing.videos) == [(0, 1), (0, 1), (2, 3)]


@pytest.mark.parametrize("path, label", [("YouTube_ID", "Label"), ("videoId", "className"), ("FileName", "Class Name")])
def test_columns_are_known_in_any_spelling(path, label, videos, tmp_path):
    listing = find(videos, write(tmp_path / "t.csv", f"{path},{label},SubSet\na,walk,train\nb,run,test\n"))
    assert [(v.path, listing.classes[v.label], v.split) for v in listing.videos] == [
        ("a.mp4", "walk", "train"),
        ("b.mp4", "run", "test"),
    ]


def test_a_plural_is_no_unit(videos, tmp_path):
    with pytest.raises(UserError, match="none of the columns path, label\\(s\\) is known as the label"):
        find(videos, write(tmp_path / "t.csv", "path,label(s)\na.mp4,walk;run\nb.mp4,run\n"))


def test_columns_that_may_tell_parts_are_named(videos, tmp_path):
    text = "path,label,t0,t1,score\na.mp4,walk,0,1,.5\na.mp4,run,2,3,.5\nb.mp4,run,0,1,.7\n"
    said = "warning: rows of one video differ in t0, t1, and whole videos are taken"
    assert any(note.startswith(said) for note in find(videos, write(tmp_path / "t.csv", text)).notes)
    given = find(videos, tmp_path / "t.csv", columns=("start=t0", "end=t1"))
    assert len(given.videos) == 3 and not any(note.startswith("warning: rows") for note in given.notes)


@pytest.mark.parametrize("several", [False, True])
def test_a_split_that_is_drawn_leaves_each_class_something_to_learn_from(several, tmp_path):
    rows = [f"{n}.mp4,{'common;rare' if several and n == 7 else 'common'},{n // 2}" for n in range(60)]
    rows += [f"{n}.mp4,alone {n},alone {n}" for n in range(60, 80)]
    root = hub(tmp_path / "videos", *(f"{n}.mp4" for n in range(80)))
    path = write(tmp_path / "t.csv", "\n".join(["path,label,group", *rows]))
    for seed in range(4):
        listing = find(root, path, fraction=0.2, seed=seed, **({"label_separator": ";"} if several else {}))
        of = {split: [v for v in listing.videos if v.split == split] for split in ("train", "val", "test")}
        learnt = {label for video in of["train"] for label in ([video.label] if not several else video.label)}
        assert learnt == {*range(len(listing.classes))} and of["val"] and of["test"]


def test_what_is_no_utf8_is_said(videos, tmp_path):
    text = "path;label\na.mp4;Fußball\nb.mp4;Tennis\n"
    with pytest.raises(UserError, match=r"t.csv:2: the label b'Fu\\xdfball' is no UTF-8: save the file as UTF-8"):
        find(videos, write(tmp_path / "t.csv", text, "cp1252"))
    (videos / "schön.mp4").touch()
    listing = find(videos, write(tmp_path / "t.csv", "path;label\nschön.mp4;up\nb.mp4;down\n", "cp1252"))
    assert any(
        note.startswith("warning: missing, and no UTF-8: 1 names, e.g. b'sch\\xf6n.mp4'") for note in listing.notes
    )
    (videos / "schön.mp4").unlink()


def hub(root: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("names", [("train", "validation", "test"), ("training", "dev", "eval")])
def test_metadata_beside_the_videos_of_each_split(kind, names, tmp_path):
    for split in names:
        hub(tmp_path, f"data/{split}/clips/0001.mp4", f"data/{split}/0002.mp4")
        rows = {"file_name": ["clips/0001.mp4", "0002.mp4", "0003.mp4"], "label": ["up", "down", "up"], "fps": [25] * 3}
        where = tmp_path / "data" / split / f"metadata.{kind}"
        listed = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
        if kind == "csv":
            write(where, "\n".join([",".join(rows), *(",".join(map(str, row.values())) for row in listed)]))
        elif kind == "jsonl":
            write(where, "\n".join(map(json.dumps, listed)))
        else:
            parquet(where, rows)
    hub(tmp_path, "README.md", ".cache/huggingface/train/metadata.csv", "data/train/extra.mp4")
    listing = huggingface.find(tmp_path)
    assert listing.classes == ("down", "up")
    assert sorted((video.path, listing.classes[video.label], video.split) for video in listing.videos) == sorted(
        (f"data/{folder_}/{name}", label, split)
        for folder_, split in zip(names, ("train", "val", "test"), strict=True)
        for name, label in (("clips/0001.mp4", "up"), ("0002.mp4", "down"), ("0003.mp4", "up"))
    )
    assert sum(video.error == MISSING for video in listing.videos) == 3
    assert listing.columns["fps"][f"data/{names[0]}/0002.mp4"] == "25"
    assert any("ignored, as in none of the metadata: 1 of the videos" in note for note in listing.notes)


def test_metadata_may_be_written_under_windows(tmp_path):
    hub(tmp_path, *(f"train/sub/{n}.mp4" for n in range(4)))
    write(
        tmp_path / "train" / "metadata.csv",
        "".join(["file_name,label\n", *(f"sub\\{n}.mp4,{n % 2}\n" for n in range(4))]),
    )
    assert sorted(v.path for v in huggingface.find(tmp_path).videos) == [f"train/sub/{n}.mp4" for n in range(4)]


def test_names_that_differ_in_case_are_different_videos(tmp_path):
    root = hub(tmp_path / "videos", "A1.mp4", "a1.mp4")
    listing = find(root, write(tmp_path / "t.csv", "video_id,label,split\nA1,run,train\na1,walk,train\n"))
    assert {v.path: listing.classes[v.label] for v in listing.videos} == {"A1.mp4": "run", "a1.mp4": "walk"}


def test_metadata_at_the_top_and_with_a_split_of_its_own(tmp_path):
    hub(tmp_path, *(f"videos/{i}.mp4" for i in range(4)), "train/5.mp4", "test/5.mp4")
    write(tmp_path / "metadata.csv", "input_file_name,label,split\nvideos/0.mp4,a,train\nvideos/1.mp4,b,validation\n")
    assert [video.split for video in huggingface.find(tmp_path).videos] == ["train", "val"]
    write(tmp_path / "metadata.csv", "file_name,label\ntrain/5.mp4,a\ntest/5.mp4,b\n")
    assert [(video.path, video.split) for video in huggingface.find(tmp_path).videos] == [
        ("train/5.mp4", "train"),
        ("test/5.mp4", "test"),
    ]
    write(tmp_path / "metadata.csv", "file_name,label\ntrain/5.mp4,a\nvideos/0.mp4,b\n")
    with pytest.raises(UserError, match="metadata.csv:3: nothing says for which split 'videos/0.mp4' is"):
        huggingface.find(tmp_path)
    write(tmp_path / "metadata.csv", "file_name,text\ntrain/5.mp4,a dog plays\n")
    with pytest.raises(UserError, match="none of the columns file_name, text is known as the label"):
        huggingface.find(tmp_path)
    write(tmp_path / "metadata.jsonl", '{"file_names": ["train/5.mp4"], "label": "a"}')
    with pytest.raises(UserError, match="has metadata.csv and metadata.jsonl: leave one of them"):
        huggingface.find(tmp_path)


def test_class_folders_without_metadata(tmp_path):
    hub(
        tmp_path,
        *(f"{split}/{name}/{i}.mp4" for split in ("train", "test") for name in ("cat", "dog") for i in range(9)),
    )
    assert huggingface.find(tmp_path) == folder.find(tmp_path)
    with pytest.raises(
        UserError, match="--label_separator and --class_names need metadata, and .* has no metadata.csv"
    ):
        huggingface.find(tmp_path, columns=("path=a", "label=b"))


def test_a_folder_with_metadata_is_told_from_class_folders(tmp_path):
    write(tmp_path / "train" / "metadata.csv", "file_name,label\n1.mp4,a\n")
    hub(tmp_path, "train/1.mp4")
    with pytest.raises(UserError, match="train/metadata.csv is read by python -m jax_video.prepare huggingface"):
        folder.find(tmp_path)


def labelled(listing) -> dict[str, set[str]]:
    return {video.name: {listing.classes[label] for label in video.label} for video in listing.videos}


def test_a_video_may_have_several_labels_in_a_cell_a_list_or_several_rows(videos, tmp_path):
    expected = {"a.mp4": {"walk", "wave"}, "b.mp4": set(), "sub/c d.mp4": {"run"}, "e.mp4": {"wave", "run", "walk"}}
    rows = [{"path": name, "labels": sorted(names), "split": "train"} for name, names in expected.items()]
    one_by_one = [(name, label) for name, names in expected.items() for label in (names or {""})]
    cells = [f"{row['path']},{' ; '.join(row['labels'])},train" for row in rows]
    paths = [
        write(tmp_path / "t.csv", "\n".join(["path,labels,split", *cells])),
        write(tmp_path / "rows.csv", "\n".join(["path,label,split", *(f"{a},{b},train" for a, b in one_by_one)])),
        write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))),
        write(tmp_path / "t.json", json.dumps(rows)),
        parquet(tmp_path / "t.parquet", {key: [row[key] for row in rows] for key in rows[0]}),
    ]
    for path in paths:
        listing = find(videos, path, label_separator=";")
        assert labelled(listing) == expected, path
        assert listing.classes == ("run", "walk", "wave")
        assert all(list(video.label) == sorted(video.label) for video in listing.videos)
    hub(tmp_path, "1.mp4", "2.mp4")
    write(tmp_path / "metadata.jsonl", '{"file_name": "1.mp4", "label": ["a", "b"], "split": "train"}\n')
    assert labelled(huggingface.find(tmp_path, label_separator="|")) == {"1.mp4": {"a", "b"}}


def test_several_labels_may_be_numbers_and_parts_of_a_file_have_their_own(videos, tmp_path):
    table_ = "path,label,start,end,split\na.mp4,2|0,0,1,train\na.mp4,1,1,2,train\na.mp4,2,1,2,train\n"
    names = write(tmp_path / "names.txt", "walk\nwave\nrun\n")
    listing = find(videos, write(tmp_path / "t.csv", table_), label_separator="|", class_names=names)
    assert [(video.name, video.label) for video in listing.videos] == [("a.mp4#t=0,1", (0, 2)), ("a.mp4#t=1,2", (1, 2))]


def test_rare_classes_are_in_each_split_where_videos_have_several_labels(tmp_path):
    for number in range(100):
        (tmp_path / f"{number}.mp4").touch()
    rows = [f"{n}.mp4,{'often;rare' if n % 10 == 0 else 'often'}" for n in range(100)]
    listing = find(
        tmp_path, write(tmp_path / "t.csv", "\n".join(["path,label", *rows])), label_separator=";", fraction=0.2
    )
    rare = listing.classes.index("rare")
    count = collections.Counter(video.split for video in listing.videos if rare in video.label)
    assert count == {"train": 6, "val": 2, "test": 2}


@pytest.mark.parametrize(
    "text, options, message",
    [
        ("path,label\na.mp4,walk;run\n", {"label_separator": ""}, "--label_separator=: expected what stands between"),
        ("path,label\na.mp4,walk;run\n", {"label_separator": "x"}, "--label_separator=x: expected what stands between"),
        ("path,label\na.mp4,\n", {"label_separator": ";"}, "t.csv:2: no label, nor in any other row"),
        ("path,label\na.mp4,\n", {}, "t.csv:2: expected the path of a video and its label"),
        (
            "path,label\na.mp4,walk;0\nb.mp4,1\n",
            {"label_separator": ";"},
            "t.csv:2: the label 'walk' is without a",
        ),
    ],
)
def test_several_labels_that_cannot_be(text, options, message, videos, tmp_path):
    with pytest.raises(UserError, match=message):
        find(videos, write(tmp_path / "t.csv", text), **options)


def test_where_several_labels_are_found_and_one_is_expected_the_flag_is_named(videos, tmp_path):
    listing = find(videos, write(tmp_path / "t.csv", "path,label,split\na.mp4,run,train\na.mp4,walk,train\n"))
    assert "where a video may have several labels, --label_separator=';' takes all of them" in listing.notes
    with pytest.raises(UserError, match="label has several values in a row: .*--label_separator=';' takes all"):
        find(videos, write(tmp_path / "t.jsonl", '{"path": "a.mp4", "label": ["run", "walk"]}'))
    with pytest.raises(UserError, match="'a;b' in a list has ';', by which others are told apart"):
        find(videos, write(tmp_path / "t.jsonl", '{"path": "a.mp4", "label": ["a;b"]}'), label_separator=";")
