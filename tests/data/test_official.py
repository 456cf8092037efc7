import collections
import csv
import io
import pathlib
import unicodedata

import pytest

from jax_video.data.manifest import MISSING
from jax_video.data.sources import SOURCES, hmdb51, ucf101
from jax_video.errors import UserError


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path: pathlib.Path, text: str, encoding: str = "utf-8") -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def found(listing) -> dict[str, tuple[str, str]]:
    """The class and the split of the videos that are there."""
    return {v.path: (listing.classes[v.label], v.split) for v in listing.videos if v.error is None}


@pytest.mark.parametrize("split", [1, 2, 3])
@pytest.mark.parametrize("name, classes, listed", [("ucf101", 101, 13320), ("hmdb51", 51, 5100)])
def test_official_lists(name, classes, listed, split, test_data):
    listing = SOURCES[name].find(test_data / name / "videos", split=split)
    assert len(listing.classes) == classes
    assert len(listing.videos) == listed == len({video.path for video in listing.videos})
    groups = collections.defaultdict(set)
    counts = collections.Counter()
    for video in listing.videos:
        groups[video.split].add(video.source)
        counts[video.split] += 1
        assert listing.classes[video.label] == video.path.split("/")[0]
        assert (test_data / name / "videos" / video.path).exists() == (video.error is None)
    assert not groups["train"] & groups["val"]
    training = counts["train"] + counts["val"]
    assert counts["val"] == pytest.approx(0.05 * training, abs=5)
    assert len({video.label for video in listing.videos if video.split == "val"}) > 0.85 * classes
    if name == "ucf101":
        assert (training, counts["test"]) == {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}[split]
        assert listing.classes[0] == "ApplyEyeMakeup" and listing.classes[100] == "YoYo"
        assert not groups["test"] & (groups["train"] | groups["val"])
    else:
        assert (training, counts["test"]) == (3570, 1530)
        assert listing.classes == tuple(HMDB51)
        assert not any("_np" in group for names in groups.values() for group in names)


HMDB51 = (
    "brush_hair cartwheel catch chew clap climb climb_stairs dive draw_sword dribble drink eat fall_floor fencing "
    "flic_flac golf handstand hit hug jump kick kick_ball kiss laugh pick pour pullup punch push pushup ride_bike "
    "ride_horse run shake_hands shoot_ball shoot_bow shoot_gun sit situp smile smoke somersault stand swing_baseball "
    "sword sword_exercise talk throw turn walk wave"
).split()  # as torchvision and mmaction2 number them


def test_the_classes_of_hmdb51_are_in_the_order_of_their_names(tmp_path):
    """Not in that of their lists' names, where climb_stairs_test comes before climb_test."""
    for name in HMDB51:
        write(tmp_path / "lists" / f"{name}_test_split2.txt", f"film_{name}_u_cm_np1_fr_med_0.avi 1\n")
    root = touch(
        tmp_path / "videos", "climb/film_climb_u_cm_np1_fr_med_0.avi", "kick_ball/film_kick_ball_u_cm_np1_fr_med_0.avi"
    )
    listing = hmdb51.find(root, annotations=tmp_path / "lists", split=2)
    assert listing.classes == tuple(HMDB51)
    assert [listing.classes[video.label] for video in listing.videos] == HMDB51
    assert {name for name, _ in found(listing).values()} == {"climb", "kick_ball"}


def test_validation_videos_depend_on_the_lists_and_the_seed_alone(test_data, tmp_path):
    lists = test_data / "ucf101" / "ucfTrainTestlist"
    here = ucf101.find(test_data / "ucf101" / "videos")
    root = touch(tmp_path, "v_Archery_g01_c01.mp4")
    other = ucf101.find(root, annotations=lists)
    assert [v.split for v in here.videos] == [v.split for v in other.videos]
    assert [v.split for v in here.videos] != [v.split for v in ucf101.find(root, annotations=lists, seed=1).videos]
    assert collections.Counter(v.error for v in other.videos) == {MISSING: 13319, None: 1}


def test_official_videos_are_found_flat_or_converted(test_data, tmp_path):
    lists = test_data / "ucf101" / "ucfTrainTestlist"
    root = touch(
        tmp_path, "v_Archery_g01_c01.mp4", "other/v_Archery_g01_c02.AVI", "v_archery_g01_c03.webm", "extra.mp4"
    )
    listing = ucf101.find(root, annotations=lists.parent)
    assert {v.path for v in listing.videos if v.error is None} == {
        "v_Archery_g01_c01.mp4",
        "other/v_Archery_g01_c02.AVI",
        "v_archery_g01_c03.webm",
    }
    assert any("in no list of ucf101-split1 or there twice: 1 of the videos" in note for note in listing.notes)


def test_official_lists_that_are_not_there_or_damaged(test_data, tmp_path):
    with pytest.raises(UserError, match="no official lists .*--annotations=DIR/ucfTrainTestlist"):
        ucf101.find(tmp_path)
    with pytest.raises(UserError, match="splits 1, 2 and 3, got --split=4"):
        hmdb51.find(tmp_path, split=4)
    lists = tmp_path / "testTrainMulti_7030_splits"
    touch(lists, "wave_test_split1.txt")
    with pytest.raises(UserError, match="has 1 lists .*expected 51"):
        hmdb51.find(tmp_path)
    for path in (test_data / "hmdb51" / "testTrainMulti_7030_splits").glob("*_split1.txt"):
        (lists / path.name).write_bytes(path.read_bytes())
    (lists / "wave_test_split1.txt").write_text("a.avi 1 \r\n\r\nb.avi 3\r\n")
    with pytest.raises(UserError, match="wave_test_split1.txt:3: expected <file> and 0, 1 or 2, got 'b.avi 3'"):
        hmdb51.find(tmp_path)
    ucf = tmp_path / "ucfTrainTestlist"
    ucf.mkdir()
    for path in (test_data / "ucf101" / "ucfTrainTestlist").iterdir():
        (ucf / path.name).write_bytes(path.read_bytes())
    (ucf / "testlist01.txt").write_text("Archery/v_1.avi\nFlying/v_2.avi\n")
    with pytest.raises(
        UserError, match="testlist01.txt:2: expected <class of classInd.txt>/<file>, got 'Flying/v_2.avi'"
    ):
        ucf101.find(tmp_path)
    (ucf / "classInd.txt").write_text("1 Archery\n")
    with pytest.raises(UserError, match="names 1 classes, expected 101"):
        ucf101.find(tmp_path)


def test_no_video_of_the_lists(test_data, tmp_path):
    lists = test_data / "ucf101" / "ucfTrainTestlist"
    with pytest.raises(UserError, match="no videos found: .* none of the 13320 .*ApplyEyeMakeup_g.*no videos at all"):
        ucf101.find(tmp_path, annotations=lists)
    with pytest.raises(UserError, match="no videos found: .* it has 1 other videos, e.g. my/x.mp4. --videos names"):
        ucf101.find(touch(tmp_path, "my/x.mp4"), annotations=lists)


def test_official_lists_with_what_editors_do_to_them(test_data, tmp_path):
    for path in (test_data / "ucf101" / "ucfTrainTestlist").iterdir():
        lines = path.read_text().split()
        write(
            tmp_path / path.name, path.read_text().replace("\r\n", "\n\n") + (lines[0] if "list" in path.name else "")
        )
    write(tmp_path / "testlist01.txt", (tmp_path / "testlist01.txt").read_text(), "utf-16")
    classes = (tmp_path / "classInd.txt").read_text().replace("\n\n", " \r")
    write(tmp_path / "classInd.txt", classes, "utf-8-sig")
    root = test_data / "ucf101" / "videos"
    listing = ucf101.find(root, annotations=tmp_path)
    assert any("listed again, taken once: 2 videos" in note for note in listing.notes)
    assert listing.videos == ucf101.find(root).videos
    assert listing.classes == ucf101.find(root).classes


HEADER = "label,youtube_id,time_start,time_end,split"


def test_kinetics_with_three_of_its_files(test_data):
    listing = SOURCES["kinetics400"].find(test_data / "kinetics400" / "val", annotations=test_data / "kinetics400")
    assert (listing.name, len(listing.classes), listing.classes[0]) == ("kinetics400", 400, "abseiling")
    assert len(listing.videos) == 19877
    assert {v.split for v in listing.videos} == {"test"}
    names = ("R6llTwEh07w_000000_000010", "SOX5yA1l24A_000299_000309", "WUzgd7C1pWA_000101_000111")
    assert found(listing) == {f"{name}.mp4": ("using segway", "test") for name in names}
    assert {v.source for v in listing.videos if v.error is None} == {name[:11] for name in names}
    assert not [v for v in listing.videos if v.span]


def test_kinetics_in_class_folders_in_folders_of_the_splits_and_whole(tmp_path):
    write(
        tmp_path / "annotations" / "train.csv",
        f"{HEADER}\nplaying guitar,-abc_def-12,3,13,train\nrun,ABCDEFGHIJK,0,10,train\nrun,abcdefghijk,0,10,train\n"
        "run,wholewhole1,5.5,15.5,train\nrun,wholewhole1,20,30,train\nrun,wholewhole1,40,50,train\n",
    )
    write(
        tmp_path / "annotations" / "val.csv",
        "\ufeffSplit;Time End;time_start;YouTube ID;LABEL;is_cc\r\nval;310;300;-abc_def-12; playing guitar ;0\r\n\r\n"
        'val;10;0;othernumber;"run";0\r\n',
    )
    write(tmp_path / "annotations" / "test.csv", "youtube_id,time_start,time_end,split\nnolabelhere,1,2,test\n")
    root = touch(
        tmp_path / "videos",
        "train/playing_guitar/-abc_def-12_000003_000013.mkv",
        "train/run/abcdefghijk_000000_000010.mp4",
        "train/run/ABCDEFGHIJK_000000_000010.mp4",
        "train/run/wholewhole1.webm",
        "train/run/wholewhole1_000020_000030.mp4",
        "val/playing_guitar/-abc_def-12_000300_000310.mp4",
        "val/playing_guitar/another_000300_000310.mp4",
        *(f"val/run/othernumber_000000_000010/image_{i:05d}.jpg" for i in range(3)),
    )
    listing = SOURCES["kinetics700"].find(root)
    assert listing.classes == ("playing guitar", "run")
    assert found(listing) == {
        "train/playing_guitar/-abc_def-12_000003_000013.mkv": ("playing guitar", "train"),
        "train/run/ABCDEFGHIJK_000000_000010.mp4": ("run", "train"),
        "train/run/abcdefghijk_000000_000010.mp4": ("run", "train"),
        "train/run/wholewhole1.webm": ("run", "train"),
        "train/run/wholewhole1_000020_000030.mp4": ("run", "train"),
        "val/playing_guitar/-abc_def-12_000300_000310.mp4": ("playing guitar", "test"),
        "val/run/othernumber_000000_000010": ("run", "test"),
    }
    assert [(v.path, v.span) for v in listing.videos if v.span] == [
        ("train/run/wholewhole1.webm", (5.5, 15.5)),
        ("train/run/wholewhole1.webm", (40.0, 50.0)),
    ]
    assert not [v.path for v in listing.videos if v.error == MISSING]
    assert [v.path for v in listing.videos][1] == "train/run/ABCDEFGHIJK_000000_000010.mp4"
    notes = "\n".join(listing.notes)
    for said in (
        "warning: the lists name 2 classes, not 700",
        "left out: 1 videos of the official test list; the papers test on the validation list",
        "parts of whole videos: 2, of 1 files",
        "or there twice: 1 of the videos",
    ):
        assert said in notes


@pytest.mark.parametrize(
    "name",
    [
        "ABCDEFGHIJK_000003_000013.mp4",
        "ABCDEFGHIJK_3_13.mp4",
        "ABCDEFGHIJK_003_013.webm",
        "ABCDEFGHIJK_3.0_13.0.mp4",
        "ABCDEFGHIJK_3.mp4",
        "ABCDEFGHIJK_000003.mkv",
        "ABCDEFGHIJK_3_13/frame_1.jpg",
        "ABCDEFGHIJK_000003/00001.png",
    ],
)
def test_kinetics_files_with_their_times_in_any_form(name, tmp_path):
    rows = [
        "run,ABCDEFGHIJK,3,13,val",
        "run,ABCDEFGHIJK,30,40,val",
        "run,abcdefghijk,3,13,val",
        "walk,ABCDEFGHIJK_3,1,2,val",
    ]
    write(tmp_path / "val.csv", "\n".join([HEADER, *rows]))
    root = touch(tmp_path / "videos", f"val/{name}")
    if "/" in name:
        touch(root, f"val/{name.replace('1.', '2.')}")
    listing = SOURCES["kinetics400"].find(root)
    path = f"val/{name.split('/')[0]}"
    assert [(v.path, v.span, v.error) for v in listing.videos][0] == (path, None, None)
    assert [v.error for v in listing.videos] == [None, MISSING, MISSING, MISSING]


def test_rows_share_a_whole_video_but_not_that_of_another_case(tmp_path):
    rows = [
        "run,ABCDEFGHIJK,3,13,val",
        "walk,ABCDEFGHIJK,30,40.5,val",
        "run,abcdefghijk,3,13,val",
        "run,lowercase01,1,2,val",
    ]
    write(tmp_path / "val.csv", "\n".join([HEADER, *rows]))
    listing = SOURCES["kinetics700"].find(touch(tmp_path / "videos", "run/ABCDEFGHIJK.mp4", "LOWERCASE01.mp4"))
    assert [(v.path, v.span) for v in listing.videos] == [
        ("run/ABCDEFGHIJK.mp4", (3.0, 13.0)),
        ("run/ABCDEFGHIJK.mp4", (30.0, 40.5)),
        ("abcdefghijk_000003_000013.mp4", None),
        ("LOWERCASE01.mp4", (1.0, 2.0)),
    ]
    names = [video.name for video in listing.videos]
    assert names[:2] == ["run/ABCDEFGHIJK.mp4#t=3,13", "run/ABCDEFGHIJK.mp4#t=30,40.5"]
    both = touch(tmp_path / "both", "ABCDEFGHIJK.mp4", "abcdefghijk.mp4")
    listing = SOURCES["kinetics700"].find(both, annotations=tmp_path / "val.csv")
    assert [v.path for v in listing.videos][:3] == ["ABCDEFGHIJK.mp4", "ABCDEFGHIJK.mp4", "abcdefghijk.mp4"]


def test_replacements_come_before_what_they_replace(tmp_path):
    rows = [f"run,{name},0,10,train" for name in ("damaged", "empty", "sound", "only", "lost")]
    write(tmp_path / "annotations" / "train.csv", "\n".join([HEADER, *rows]))
    replacement = "replacement/replacement_for_corrupted_k400"
    times = "000000_000010.mp4"
    for name in ("damaged", "sound"):
        write(tmp_path / "train" / "run" / f"{name}_{times}", "bytes")
    for name in ("damaged", "empty", "only"):
        write(tmp_path / replacement / f"{name}_{times}", "others")
    touch(tmp_path, f"train/run/empty_{times}", f"train/run/lost_{times}", f"{replacement}/sound_{times}")
    listing = SOURCES["kinetics400"].find(tmp_path)
    assert [v.path for v in listing.videos] == [
        f"{replacement}/damaged_{times}",
        f"{replacement}/empty_{times}",
        f"train/run/sound_{times}",  # the replacement is empty
        f"{replacement}/only_{times}",
        f"train/run/lost_{times}",
    ]
    assert any(
        f"taken from folders of replacements, before files elsewhere: 3, e.g. {replacement}" in note
        for note in listing.notes
    )


def test_kinetics_600_as_its_downloader_lays_it_out(tmp_path):
    lists = tmp_path / "annotations"
    write(lists / "train.txt", f"{HEADER}\nrun,a,0,10,train\n")
    write(lists / "val.txt", "run,b,0,10,val\nrun,c,0,10,val\n")  # without a header
    write(lists / "test.csv", f"{HEADER}\nrun,d,0,10,test\n")
    write(lists / "kinetics600_holdout_test.csv", f"{HEADER}\nrun,e,0,10,holdout\n")
    write(lists / "label_map.txt", "walk\nrun\n")
    write(lists / "k600_train_path.txt", "https://example.org/part_0.tar.gz\n")
    root = touch(tmp_path / "videos", *(f"{name}_000000_000010.mp4" for name in "abcde"))
    listing = SOURCES["kinetics600"].find(root)
    assert {v.source: v.split for v in listing.videos} == {"a": "train", "b": "test", "c": "test"}
    assert "ignored, as other lists for the same splits: kinetics600_holdout_test.csv" in listing.notes
    write(lists / "val.csv", f"{HEADER}\nrun,b,0,10,val\n")
    listing = SOURCES["kinetics600"].find(root)
    assert {v.source: v.split for v in listing.videos} == {"a": "train", "b": "test"}
    assert "ignored, as other lists for the same splits: kinetics600_holdout_test.csv, val.txt" in listing.notes
    (lists / "val.csv").unlink()
    write(lists / "val.txt", "videos/b_000000_000010.mp4 1\n")
    with pytest.raises(
        UserError, match="val.txt is no list of Kinetics, which begins with label, .*--annotations=FILE"
    ):
        SOURCES["kinetics600"].find(root)
    assert [v.source for v in SOURCES["kinetics600"].find(root, annotations=lists / "test.csv").videos] == ["d"]
    write(lists / "val.csv", f"{HEADER}\nrun,b,0,10,val\n")
    write(lists / "train.txt", "videos/a_000000_000010.mp4 1\n")
    assert "ignored, as no lists of Kinetics: train.txt" in SOURCES["kinetics600"].find(root).notes


def test_kinetics_holds_whole_videos_out_for_validation(tmp_path):
    rows = [f"class {i % 5},video{i // 2:06d},{i % 2 * 10},{i % 2 * 10 + 10},train" for i in range(400)]
    path = write(tmp_path / "list.csv", "\n".join([HEADER, *rows]))
    root = touch(tmp_path, "video000003_000000_000010.mp4")
    listing = SOURCES["kinetics600"].find(root, annotations=path)
    sides = collections.defaultdict(set)
    for video in listing.videos:
        sides[video.split].add(video.source)
    assert collections.Counter(v.split for v in listing.videos) == {"train": 380, "val": 20}
    assert not sides["train"] & sides["val"]
    again = SOURCES["kinetics600"].find(root, annotations=path, seed=1)
    assert [v.split for v in again.videos] != [v.split for v in listing.videos]


def test_kinetics_rows_that_repeat(tmp_path):
    rows = ["run,a,0,10,train", "run,a,0,10,train", "walk,a,0,10,train", "run,a,10,20,train", "run,b,0,10,train"]
    write(tmp_path / "train.csv", "\n".join([HEADER, *rows]))
    write(tmp_path / "validate.csv", f"{HEADER}\nrun,b,0,10,validate\nwalk,c,1,2,validate\n")
    listing = SOURCES["kinetics400"].find(touch(tmp_path, "a_000000_000010.mp4"))
    paths = ["a_000000_000010.mp4", "a_000010_000020.mp4", "b_000000_000010.mp4", "c_000001_000002.mp4"]
    assert [v.path for v in listing.videos] == paths
    assert [v.split for v in listing.videos] == ["train", "train", "test", "test"]
    assert found(listing) == {"a_000000_000010.mp4": ("run", "train")}
    notes = "\n".join(listing.notes)
    assert "listed again, taken once: 3 videos" in notes
    assert "two labels, of which the first is taken: 1, e.g. a_000000_000010.mp4" in notes
    assert "two splits, of which the second is taken: 1, e.g. b_000000_000010.mp4 (train and test)" in notes


def test_which_kinetics_lists_count(tmp_path):
    root = touch(tmp_path, "a_000000_000010.mp4", "b_000000_000010.mp4")
    test = write(tmp_path / "kinetics_test.csv", "youtube_id,time_start,time_end\na,0,10\n")
    listing = SOURCES["kinetics400"].find(root)
    assert [(v.label, v.split, v.error) for v in listing.videos] == [(None, "test", None)]
    assert "there are no labels: only the official test list is here" in listing.notes
    train = write(tmp_path / "kinetics_train.csv", f"{HEADER}\nrun,b,0,10,train\n")
    listing = SOURCES["kinetics400"].find(root)
    assert list(found(listing)) == ["b_000000_000010.mp4"]
    assert "left out: 1 videos of the official test list that have no labels" in listing.notes
    write(test, f"{HEADER}\nrun,a,0,10,test\n")
    assert found(SOURCES["kinetics400"].find(root))["a_000000_000010.mp4"] == ("run", "test")
    assert list(found(SOURCES["kinetics400"].find(root, annotations=train))) == ["b_000000_000010.mp4"]
    write(tmp_path / "train.csv", HEADER)
    with pytest.raises(UserError, match="has several lists for train: kinetics_train.csv, train.csv; give one"):
        SOURCES["kinetics400"].find(root)


def test_a_label_map_says_which_classes_there_are(tmp_path):
    write(tmp_path / "validate.csv", f"{HEADER}\nrun,a,0,10,validate\n")
    write(tmp_path / "label_map.txt", "walk\r\nrun\r\n")
    listing = SOURCES["kinetics400"].find(touch(tmp_path, "a_000000_000010.mp4"))
    assert (listing.classes, listing.videos[0].label) == (("walk", "run"), 1)
    write(tmp_path / "validate.csv", f"{HEADER}\nrun,a,0,10,validate\n\njump,b,0,10,validate\n")
    with pytest.raises(
        UserError, match="validate.csv:4: the label 'jump' is without a class: .*label_map.txt has 2 names"
    ):
        SOURCES["kinetics400"].find(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "train.csv:1: expected a header with label, youtube_id, time_start, time_end, split, found nothing"),
        ("label,id,time_start\n", "train.csv:1: expected a header .*, found label, id, time_start"),
        (
            f"{HEADER}\nrun,a,0,10,train\nrun,b,x,10,train",
            "train.csv:3: expected .*times in seconds .*got 'run,b,x,10,train'",
        ),
        (f"{HEADER}\nrun,a,10,0,train\n", "train.csv:2: expected"),
        (f"{HEADER}\nrun,a,0,nan,train\n", "train.csv:2: expected"),
        (f"{HEADER}\nrun,a,0\n", "train.csv:2: expected .* got 'run,a,0,,'"),
        (f"{HEADER}\n,a,0,10,train\n", "train.csv:2: expected"),
        (f"{HEADER}\nrun,,0,10,train\n", "train.csv:2: expected"),
        (f"{HEADER}\nrun,../a,0,10,train\n", "train.csv:2: expected"),
        (f"{HEADER}\nrun,a,0,10,holdout\n", "train.csv:2: expected .*split of train, validate or test"),
        (
            f'{HEADER}\nrun,a,0,10,train\n"run,b,0,10,train\nrun,c,0,10,train\n',
            "train.csv:3: a quote that is not closed",
        ),
        (f'{HEADER}\n"run{"x" * 200_000}', "train.csv:2: expected a line of text, got one of [0-9,]+ characters"),
        (HEADER, "no videos in .*train.csv"),
    ],
)
def test_kinetics_rows_that_cannot_be_understood(text, message, tmp_path):
    touch(tmp_path, "a_000000_000010.mp4")
    write(tmp_path / "train.csv", text)
    with pytest.raises(UserError, match=message):
        SOURCES["kinetics400"].find(tmp_path)


def test_kinetics_lists_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no official lists \(train.csv, validate.csv or val.csv, test.csv\) in "):
        SOURCES["kinetics400"].find(tmp_path, annotations=tmp_path / "none")
    path = write(tmp_path / "mine.csv", "label,youtube_id,time_start,time_end\n")
    with pytest.raises(UserError, match="mine.csv:1: expected a header with .*split, found label"):
        SOURCES["kinetics400"].find(tmp_path, annotations=path)


@pytest.fixture
def moments_lists(test_data, tmp_path) -> pathlib.Path:
    """The official categories with lists in the official form."""
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "moments_categories.txt").write_bytes((test_data / "moments" / "moments_categories.txt").read_bytes())
    text = io.StringIO()
    rows = csv.writer(text)
    for i in range(100):
        rows.writerow((f"clapping/yt-{i // 2:03d}_{i}.mp4", "clapping", 3, 0))
    rows.writerow(("adult+male+singing/flickr-1-2_7.mp4", "adult+male+singing", 3, 1))
    rows.writerow(("clapping/getty-é.mp4", "clapping", 3, 1))
    write(lists / "trainingSet.csv", text.getvalue())
    write(lists / "validationSet.csv", "clapping/same.mp4,clapping,3,1\npraying/same.mp4,praying,3,0\n")
    return lists


@pytest.mark.parametrize("folders", [("training/", "validation/"), ("", "")])
def test_moments(moments_lists, folders, tmp_path):
    training, validation = folders
    decomposed = unicodedata.normalize("NFD", f"{training}clapping/getty-é.mp4")
    root = touch(
        tmp_path / "videos",
        *(f"{training}clapping/yt-{i // 2:03d}_{i}.mp4" for i in range(100)),
        f"{training}adult+male+singing/flickr-1-2_7.webm",
        decomposed,
        f"{validation}praying/same.mp4",
    )
    listing = SOURCES["moments"].find(root, annotations=moments_lists)
    assert (listing.name, len(listing.classes), listing.classes[1]) == ("moments", 339, "praying")
    assert collections.Counter(v.split for v in listing.videos) == {"train": 97, "val": 5, "test": 2}
    there = found(listing)
    assert there[f"{validation}praying/same.mp4"] == ("praying", "test")
    assert there[decomposed][0] == "clapping"
    assert there[f"{training}adult+male+singing/flickr-1-2_7.webm"][0] == "adult+male+singing"
    assert [v.path for v in listing.videos if v.error == MISSING] == ["clapping/same.mp4"]
    sides = {split: {v.source for v in listing.videos if v.split == split} for split in ("train", "val")}
    assert "yt-000" in sides["train"] | sides["val"] and not sides["train"] & sides["val"]


@pytest.mark.parametrize(
    "row, message",
    [
        (
            "clapping/x.mp4,klapping,3,0",
            "validationSet.csv:3: the label 'klapping' is without a class: .* has 339 names",
        ),
        (
            "x.mp4,clapping,3,0",
            "validationSet.csv:3: expected <category>/<file>,<category>,<agree>,<disagree>, got 'x.mp4",
        ),
        ("clapping/x.mp4", "validationSet.csv:3: expected"),
    ],
)
def test_moments_rows_that_cannot_be_understood(row, message, moments_lists, tmp_path):
    with open(moments_lists / "validationSet.csv", "a") as file:
        file.write(row)
    with pytest.raises(UserError, match=message):
        SOURCES["moments"].find(tmp_path, annotations=moments_lists)


def test_moments_with_a_part_of_the_lists(moments_lists, tmp_path):
    (moments_lists / "trainingSet.csv").unlink()
    listing = SOURCES["moments"].find(touch(tmp_path, "same.mp4"), annotations=moments_lists)
    assert {v.split for v in listing.videos} == {"test"}
    assert any("trainingSet.csv: nothing is for train" in note for note in listing.notes)
    (moments_lists / "validationSet.csv").unlink()
    with pytest.raises(UserError, match="one of them must be there"):
        SOURCES["moments"].find(tmp_path, annotations=moments_lists)
    with pytest.raises(UserError, match="no official lists .*moments_categories.txt"):
        SOURCES["moments"].find(tmp_path / "videos")
