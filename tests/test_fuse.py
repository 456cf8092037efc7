"""Late fusion: sums of scores from runs and from elsewhere, videos and classes matched by name."""

import csv
import json
import struct
import zipfile

import numpy as np
import pytest
from commands import check_user_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jax_video import recipe
from jax_video.data import archives
from jax_video.errors import UserError
from jax_video.testing import averages, fusion, score_archive

FUSE = "jax_video.fuse"
CLASSES = ("run", "walk", "walk dog")
VIDEOS = {"walk/å 1.avi": "walk", "run/b.avi": "run", "run/c.mp4": "run", "walk dog/d.avi": "walk dog"}


def write_run(folder, scores):
    folder.mkdir()
    lines = [
        {"video": video, "label": label, "scores": row.tolist()}
        for (video, label), row in zip(VIDEOS.items(), scores, strict=True)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "confusion.json").write_text(json.dumps({"classes": CLASSES, "videos": []}))
    return folder


def write_csv(path, header, rows):
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def scores():
    return np.random.default_rng(0).normal(size=(3, 4, 3))


@pytest.fixture
def sources(tmp_path, scores):
    """A run, a CSV with its videos and classes in another order and one more of each, and an .npz by file name."""
    order = [2, 0, 1]
    stems = ["å 1", "b", "c", "d"]
    rows = [[video, 9, *scores[1, index, order]] for index, video in reversed(list(enumerate(VIDEOS)))]
    header = ["video", "swim", *(CLASSES[k] for k in order)]
    np.savez(tmp_path / "c.npz", **dict(zip(stems, scores[2], strict=True)))
    return [
        write_run(tmp_path / "a", scores[0]),
        write_csv(tmp_path / "b.csv", header, [*rows, ["swim/e.avi", 1, 2, 3, 4]]),
        tmp_path / "c.npz",
    ]


@pytest.mark.parametrize("l2", [False, True])
def test_the_weighted_sum(sources, scores, l2):
    weights = [1.0, 0.5, -2.0]
    fused = fusion.fuse([fusion.read(source) for source in sources], weights, l2=l2)
    if l2:
        scores = scores / np.linalg.norm(scores, axis=-1, keepdims=True)
    assert list(fused.scores) == list(VIDEOS) and fused.labels == VIDEOS and fused.classes == CLASSES
    np.testing.assert_allclose(list(fused.scores.values()), np.tensordot(weights, scores, 1), rtol=1e-12)
    right = np.tensordot(weights, scores, 1).argmax(axis=1) == [1, 0, 0, 2]
    assert fusion.measure(fused)["top1"] == right.mean()


def test_scores_of_nothing_stay_nothing(tmp_path):
    nothing = write_run(tmp_path / "a", np.zeros((4, 3)))
    fused = fusion.fuse([fusion.read(nothing)] * 2, [1.0, 1.0], l2=True)
    assert not np.any(list(fused.scores.values()))


def test_the_command(sources, scores, tmp_path):
    """Shows each source and the sum, and writes what can be fused again."""
    finished = run(FUSE, *sources, "--weights=1,2,1", f"--out={tmp_path / 'out'}")
    assert (finished.code, finished.stderr) == (
        0,
        "CPU; scores of 3 sources; 4 videos\nTop-5 of 3 classes is always 100 %.\n",
    )
    lines = finished.stdout.splitlines()
    assert lines[0] == "4 videos, 3 classes" and len(lines) == 6
    label = np.array([1, 0, 0, 2])
    for line, row in zip(lines[2:], [*scores, np.tensordot([1, 2, 1], scores, 1)], strict=True):
        assert f" {100 * np.mean(row.argmax(axis=1) == label):6.2f} %" in line
    result = json.loads((tmp_path / "out" / "test.json").read_text())
    assert result["weights"] == [1, 2, 1] and result["top1"] == np.mean(row.argmax(axis=1) == label)
    again = fusion.read(tmp_path / "out")
    np.testing.assert_allclose(list(again.scores.values()), row)
    assert json.loads((tmp_path / "out" / "confusion.json").read_text())["classes"] == list(CLASSES)


def test_errors_of_the_command(sources, tmp_path):
    check_user_error(run(FUSE, sources[0]), "at least two sources")
    check_user_error(run(FUSE, sources[0], sources[1], f"{sources[0]}/predictions.jsonl"), "a source is named twice")
    check_user_error(run(FUSE, *sources, "--weights=1,x,1"), "--weights=1,x,1: expected numbers")
    check_user_error(run(FUSE, tmp_path, sources[0]), "has no predictions.jsonl: was the run tested?")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "name,run,walk\n", "header begins with 'name'; expected video"),
        ("x.csv", "video,run,walk\nb,1\n", "b has 1 scores for 2 classes"),
        ("x.csv", "video,run,walk\nb,1,many\n", "cannot be read as scores"),
        ("x.csv", "video,run,walk\nb,1,nan\n", "b are not a row of finite numbers"),
        ("x.csv", "video,run,walk\nb,1,2\nb,2,1\n", "b is in it twice, with other scores; leave one of them out"),
        ("x.csv", "video,run, run\nb,1,2\n", "'run' is in its header twice; expected one column for each class"),
        ("x.csv", "", "cannot be read as scores"),
        ("x.npz", "no zip", "cannot be read as scores"),
        ("x.jsonl", "{}\n", "confusion.json, which names the classes in order, is not beside it"),
        ("x.txt", "b 1 2\n", "expected a run's folder, a .jsonl of a test, a .csv or an .npz"),
    ],
)
def test_files_that_are_no_scores(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        fusion.read(tmp_path / name)


def test_a_video_may_be_in_a_table_twice_if_both_say_the_same(tmp_path):
    rows = [["b", 1, 2], ["c", 3, 4], ["b", 1.0, "2.0"]]
    found = fusion.read(write_csv(tmp_path / "x.csv", ["video", "run", "walk"], rows))
    assert {name: row.tolist() for name, row in found.scores.items()} == {"b": [1, 2], "c": [3, 4]}


def test_an_archive_of_scores_that_is_damaged_or_would_swell(tmp_path):
    header = "(" * 5000
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("b.npy", b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode())
    with pytest.raises(UserError, match="cannot be read as scores .an array's header is damaged"):
        fusion.read(tmp_path / "x.npz")
    data = bytearray((tmp_path / "x.npz").read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 24, 2**31)  # its size, in the archive's directory
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(UserError, match="refused, as its .* bytes would become 2,147,483,648 in memory"):
        fusion.read(tmp_path / "x.npz")


def test_sources_that_do_not_fit(sources, scores, tmp_path):
    first, outside, by_stem = map(fusion.read, sources)
    with pytest.raises(UserError, match="2 weights for 3 sources"):
        fusion.fuse([first, outside, by_stem], [1, 1])
    with pytest.raises(UserError, match="b.csv has no labels; the first source must be a run"):
        fusion.fuse([outside, first], [1, 1])
    write_csv(tmp_path / "few.csv", ["video", "run", "walk"], [["b", 1, 2]])
    with pytest.raises(UserError, match="few.csv has no scores for 1 classes of .*a, 'walk dog' first"):
        fusion.fuse([first, fusion.read(tmp_path / "few.csv")], [1, 1])
    rows = [[f"{folder}/{stem}.avi", 1, 2, 3] for folder in ("p", "q") for stem in ("b", "c")]
    write_csv(tmp_path / "twice.csv", ["video", *CLASSES], [*rows, ["å 1", 1, 2, 3]])
    with pytest.raises(UserError, match="twice.csv has no scores, or those of two videos of one name, for 3 of the 4"):
        fusion.fuse([first, fusion.read(tmp_path / "twice.csv")], [1, 1])
    np.savez(tmp_path / "narrow.npz", b=np.ones(2))
    with pytest.raises(UserError, match="narrow.npz: b has 2 scores; .*a has 3 classes"):
        fusion.fuse([first, fusion.read(tmp_path / "narrow.npz")], [1, 1])


@pytest.mark.parametrize(
    ("names", "theirs"),
    [
        (["x/s1/001.avi", "x/s2/001.avi"], ["x/s1/001.avi"]),
        (["x/s1/001.avi", "x/s2/001.avi"], ["001"]),
        (["x/s1/001.avi", "001"], ["001"]),
        (["x/s1/001.avi", "x/s1/001.mp4"], ["x/s1/001.mp4"]),
    ],
)
def test_no_video_gets_the_scores_of_another_of_its_name(tmp_path, names, theirs):
    """A file name tells a video only where no other one has it."""
    first = write_archive(tmp_path / "first.npz", np.eye(2), [0, 1], names)
    header = ["video", *fusion.read(first).class_names]
    part = write_csv(tmp_path / "part.csv", header, [[name, 1, 2] for name in theirs])
    with pytest.raises(
        UserError, match=r"part.csv has no scores, or those of .* for \d of the 2 .*told apart by their"
    ):
        fused(first, part)
    whole = write_csv(tmp_path / "whole.csv", header, [[name, k, 0] for k, name in enumerate(names, 1)])
    assert [row.tolist() for row in fused(first, whole).scores.values()] == [[2, 0], [2, 1]], "by their paths"


@pytest.mark.parametrize(
    ("name", "theirs", "same"),
    [
        ("x/a.mp4", "a", True),
        ("x/a.b.mp4", "a.b", True),
        ("x/a.b", "a.b.AVI", True),
        ("x/a.b", "y/a.b", True),
        ("x/a.mp4", "a.1", False),
        ("x/a.mp4", "a.1.mp4", False),
        ("x/a.b", "a.c", False),
        ("x/a.mp4#t=5,15", "y/a.avi#t=5,15", True),
        ("x/a.mp4#t=5,15", "a", True),
        ("x/a.mp4#t=5,15", "y/a.mp4#t=20,30", False),
        ("x/a.mp4#t=5,15.5", "y/a.mp4#t=5,15", False),
    ],
)
def test_a_dot_in_a_name_does_not_end_it(tmp_path, name, theirs, same):
    """But a video's suffix does; and parts of one file are videos of their own."""
    first = write_archive(tmp_path / "first.npz", np.eye(1), [0], [name])
    write_archive(tmp_path / "other.npz", np.ones((1, 1)), [0], [theirs])
    if same:
        assert [row.tolist() for row in fused(first, tmp_path / "other.npz").scores.values()] == [[2.0]]
    else:
        with pytest.raises(
            UserError, match="other.npz has no scores, or those of two videos of one name, for 1 of the"
        ):
            fused(first, tmp_path / "other.npz")


def test_two_runs_of_other_videos_are_not_added_up(tmp_path):
    """Where file names repeat in the folders of persons, for example."""
    for name, person in (("a", "daria"), ("b", "denis")):
        lines = [{"video": f"{person}/{each}.mp4", "label": each, "scores": [1, 0, 0]} for each in CLASSES]
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (tmp_path / name / "confusion.json").write_text(json.dumps({"classes": CLASSES, "videos": []}))
    with pytest.raises(UserError, match="b has no scores, .* for 3 of the 3 .*denis/run.mp4 is in another folder than"):
        fused(tmp_path / "a", tmp_path / "b")
    rows = [[f"/data/daria/{each}.avi", 0, 1, 0] for each in CLASSES]
    beside = write_csv(tmp_path / "c.csv", ["video", *CLASSES], rows)
    assert all(row.tolist() == [1, 1, 0] for row in fused(tmp_path / "a", beside).scores.values())


def test_scores_of_a_file_are_not_those_of_its_many_parts(tmp_path):
    first = write_archive(tmp_path / "first.npz", np.eye(2), [0, 1], ["a.mp4#t=5,15", "a.mp4#t=20,30"])
    write_archive(tmp_path / "other.npz", np.ones((1, 2)), [0], ["a"])
    with pytest.raises(UserError, match="other.npz has no scores, or those of two videos of one name, for 2 of the 2"):
        fused(first, tmp_path / "other.npz")


def test_fused_scores_take_the_place_of_no_others(sources, tmp_path):
    """Of a run, an export, a test, or a source; those of an earlier fusion they do replace."""
    for name, file in (("run", "config.json"), ("export", "model.safetensors"), ("val", "test.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"top1": 1.0}')
    for name, file in (("torn", "test.json"), ("labels", "predictions.jsonl")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"top1')
    (tmp_path / "young" / "checkpoints").mkdir(parents=True)
    before = (sources[0] / "predictions.jsonl").read_bytes()
    for name, why in (
        *((name, "is the folder of a run, or an export") for name in ("run", "export", "young")),
        *((name, "holds the result of a test, or predictions") for name in ("val", "torn", "labels")),
        ("a", "is one of the sources"),
        ("b/../a", "is one of the sources"),
    ):
        with pytest.raises(UserError, match=f"{name} {why}, and fused scores would take the place of its own: choose"):
            fusion.check_out(tmp_path / name, [str(source) for source in sources])
    check_user_error(run(FUSE, *sources, f"--out={sources[0]}"), f"{sources[0]} is one of the sources")
    total = fused(*sources)
    for own in (sources[0], sources[0] / "predictions.jsonl"):
        with pytest.raises(UserError, match="a is one of the sources"):
            fusion.write(sources[0], total, [str(own), "x.csv"], [1.0, 1.0])
    assert (sources[0] / "predictions.jsonl").read_bytes() == before
    for _ in range(2):
        fusion.write(tmp_path / "out", total, ["a", "b"], [1.0, 1.0])
    fusion.check_out(tmp_path, ["gs://bucket/run", str(sources[1])])  # a table beside it stays
    fusion.check_out(sources[1], ["c", "d"])  # that it is a file shows when it is written to


def write_result(folder, **told):
    (folder / "test.json").write_text(json.dumps(dict.fromkeys(averages.METRICS, 0.5) | told))
    return folder


@pytest.fixture
def tested(tmp_path, scores):
    """Folders of tested runs, by what their tests are means of; of version 0.1, and of none that tells."""
    told = {
        "probability": {"protocol": {"average_clips": "probability"}},
        "logit": {"protocol": {"average_clips": "logit"}},
        "earlier": {"protocol": {"average": "logit"}},
        "other": {},
    }
    return {name: write_result(write_run(tmp_path / name, scores[0]), **each) for name, each in told.items()}


def test_probabilities_and_logits_are_not_added_up(tested, sources, tmp_path):
    _, outside, by_stem = sources
    for alike in (["logit", "earlier"], ["probability"] * 2, ["other", "logit"], ["probability", "other"]):
        fused(*(tested[name] for name in alike), outside, by_stem)
    for one, other in (("probability", "logit"), ("earlier", "probability")):
        with pytest.raises(UserError, match=f"{one} was tested with test.average_clips=.*, .*{other} with .*: probab"):
            fused(tested["other"], tested[one], outside, tested[other])
    fusion.write(tmp_path / "out", fused(tested["logit"], tested["earlier"]), ["a", "b"], [1.0, 1.0])
    with pytest.raises(UserError, match="Test one again as the other: .*--mode=test --config.test.average_clips=logit"):
        fused(tmp_path / "out", tested["probability"])
    fused(tmp_path / "out", tested["logit"])
    fusion.write(tmp_path / "out", fused(tested["logit"], outside, l2=True), ["a", "b"], [1.0, 1.0], l2=True)
    fused(tmp_path / "out", tested["probability"])  # nothing is known of what came from elsewhere


def test_a_part_stays_a_part(sources, tmp_path):
    write_result(sources[0], videos=4, of=5)
    finished = run(FUSE, *sources, f"--out={tmp_path / 'out'}")
    assert finished.stdout.startswith("4 of 5 videos, 3 classes\n"), finished.stderr
    result = averages.read(tmp_path / "out")
    assert (result["videos"], result["of"]) == (4, 5)
    assert fused(tmp_path / "out", tmp_path / "out").of == 5


LABEL = np.array([1, 0, 0, 2])  # of VIDEOS, by the order of CLASSES


def write_archive(path, scores, labels=LABEL, names=tuple(VIDEOS)):
    np.savez(path, scores=scores, labels=labels, names=np.array(names))
    return path


def fused(*paths, l2=False):
    sources = [fusion.read(path) for path in paths]
    return fusion.fuse(sources, [1.0] * len(sources), l2=l2)


def test_published_scores_are_a_source_and_the_first_one(tmp_path, scores):
    """The command says of them what NumPy does, and what it writes can be fused again, and averaged."""
    rgb, flow = (write_archive(tmp_path / f"{k}.npz", np.float32(scores[k])) for k in (0, 1))
    finished = run(FUSE, rgb, flow, "--l2", f"--out={tmp_path / 'out'}")
    assert finished.code == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[0] == "4 videos, 3 classes" and len(lines) == 5
    rows = [np.float32(each).astype(float) for each in scores[:2]]
    total = sum(row / np.sqrt((row**2).sum(axis=1, keepdims=True)) for row in rows)
    for line, row in zip(lines[2:], [*rows, total], strict=True):
        assert f" {100 * np.mean(row.argmax(axis=1) == LABEL):6.2f} %" in line
    again = fusion.read(tmp_path / "out")
    np.testing.assert_allclose(list(again.scores.values()), total, rtol=1e-12)
    assert again.classes == CLASSES and again.labels == VIDEOS  # folders tell the names of the classes
    assert averages.read(tmp_path / "out")["top1"] == np.mean(total.argmax(axis=1) == LABEL)
    np.testing.assert_allclose([*fused(tmp_path / "out", flow).scores.values()], total + rows[1], rtol=1e-12)


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("x/a", "x/b", "y/c", "z/d"), ("v/a", "w/b", "v/c", "v/d")])
def test_classes_are_called_by_number_where_folders_do_not_tell_their_names(tmp_path, scores, names):
    found = fused(write_archive(tmp_path / "a.npz", scores[0], names=names))
    assert found.classes == ("0", "1", "2") and list(found.labels.values()) == ["1", "0", "0", "2"]


def test_one_video_of_one_class(tmp_path):
    write_archive(tmp_path / "a.npz", np.ones((1, 1), np.float16), np.zeros(1, np.uint8), [b"x/a.avi"])
    found = fused(tmp_path / "a.npz", tmp_path / "a.npz")
    assert found.classes == ("0",) and fusion.measure(found)["top1"] == 1
    assert {name: row.tolist() for name, row in found.scores.items()} == {"x/a.avi": [2.0]}


@pytest.mark.parametrize("names", [tuple(VIDEOS), ("å 1", "b", "c", "d")])
@pytest.mark.parametrize("first", [0, 1])
def test_a_run_and_an_archive_in_either_order(tmp_path, scores, names, first):
    """Videos are matched by path or by stem; where names of videos tell no classes, labels do."""
    rows = np.random.default_rng(1).permutation(4)
    archive = write_archive(tmp_path / "b.npz", scores[1, rows], LABEL[rows], np.array(names)[rows])
    sources = [write_run(tmp_path / "a", scores[0]), archive]
    found = fused(*(sources[place] for place in (first, 1 - first)))
    expected = dict(zip(VIDEOS if first == 0 else names, scores[0] + scores[1], strict=True))
    assert found.scores.keys() == expected.keys()
    for name, row in expected.items():
        np.testing.assert_allclose(found.scores[name], row, rtol=1e-12)


@pytest.mark.parametrize("names", [tuple(VIDEOS), ("å 1", "b", "c", "d")])
def test_an_archive_may_number_the_classes_otherwise_if_its_scores_bear_it_out(tmp_path, scores, names, capsys):
    """As that of HMDB51 does, whose first class is not the first by the alphabet. Wrong labels look alike."""
    recipe.note.cache_clear()
    turn = np.array([2, 0, 1])  # class k of the run is class turn[k] of the archive
    good = 0.1 * scores[1] + np.eye(3)[LABEL]
    theirs = np.empty_like(good)
    theirs[:, turn] = good
    folder = write_run(tmp_path / "a", scores[0])
    archive = write_archive(tmp_path / "b.npz", theirs, turn[LABEL], names)
    np.testing.assert_allclose([*fused(folder, archive).scores.values()], scores[0] + good, rtol=1e-12)
    said = capsys.readouterr().err
    assert "b.npz: its class 2 is class 0 of " in said and said.count("\n") == 1
    np.testing.assert_allclose([*fused(archive, folder).scores.values()], theirs + scores[0][:, [1, 2, 0]], rtol=1e-12)
    write_archive(archive, good, turn[LABEL], names)
    for sources in ((folder, archive), (archive, folder)):
        with pytest.raises(UserError, match="but 0.0 % of the scores of .*b.npz are right so, and 100.0 %"):
            fused(*sources)


def test_labels_that_disagree(tmp_path, scores):
    folder = write_run(tmp_path / "a", scores[0])
    good = write_archive(tmp_path / "b.npz", scores[1])
    wrong = write_archive(tmp_path / "c.npz", scores[1], np.array([1, 0, 2, 2]))
    for first in (folder, good):
        with pytest.raises(UserError, match="1 of 4 labels differ; run/c.mp4 is '2' in the one and "):
            fused(first, wrong)
    other = tmp_path / "other"
    write_run(other, scores[1])
    text = (other / "predictions.jsonl").read_text(encoding="utf-8")
    (other / "predictions.jsonl").write_text(text.replace('"label": "walk dog"', '"label": "run"'), encoding="utf-8")
    with pytest.raises(UserError, match="1 of 4 labels differ; walk dog/d.avi is 'run' in the one and 'walk dog' in"):
        fused(folder, other)
    with pytest.raises(UserError, match="narrow.npz: å 1 has 2 scores; .*a has 3 classes"):
        fused(folder, write_archive(tmp_path / "narrow.npz", np.ones((4, 2)), [1, 0, 0, 1], ["å 1", "b", "c", "d"]))


def test_videos_that_are_called_as_the_arrays_of_an_archive(tmp_path):
    """The form with a row for each video stays: what `scores` are shows by their shape."""
    for names in (["scores"], ["scores", "labels", "names"]):
        np.savez(tmp_path / "a.npz", **{name: np.arange(3.0) for name in names})
        found = fusion.read(tmp_path / "a.npz")
        assert list(found.scores) == names and found.classes is None
    with pytest.raises(UserError, match="a.npz has no labels; the first source must be a run .* or an .npz"):
        fused(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": None}, "scores is missing among labels, names; expected scores, labels, names"),
        ({"labels": None}, "labels is missing among scores, names"),
        ({"names": None}, "names is missing among scores, labels"),
        ({"scores": np.ones((4, 2, 3))}, r"scores are \[4, 2, 3\]; expected scores \[N, K\], a row for each video"),
        ({"scores": np.ones(4)}, r"scores are \[4\]; expected"),
        ({"scores": np.ones((4, 0))}, r"scores are \[4, 0\]; expected"),
        ({"scores": np.ones((3, 3))}, r"labels are \[4\] beside scores of \[3, 3\]"),
        ({"names": np.array(["a", "b"])}, r"names are \[2\] beside scores of \[4, 3\]"),
        ({"labels": np.eye(3)[LABEL].astype(int)}, r"labels are \[4, 3\] beside"),
        ({"labels": np.array([1, 0, 0, 3])}, r"labels\[3\] is 3; expected 0 to 2"),
        ({"labels": np.array([1, -1, 0, 2])}, r"labels\[1\] is -1; expected 0 to 2"),
        ({"labels": LABEL.astype(float)}, "labels are of type float64; expected whole numbers"),
        ({"labels": np.array(["a", "b", "c", "d"])}, "labels are of type <U1; expected whole numbers"),
        ({"names": np.arange(4)}, "names are of type int64; expected text"),
        ({"names": np.array(["a", "b", "b", "c"])}, "b is in it twice, with other scores or another label"),
        ({"names": np.array(["a", "", "b", "c"])}, r"names\[1\] is empty"),
        ({"names": np.array(["a", "\ud800", "b", "c"])}, "cannot be read as scores .*surrogates not allowed"),
        (
            {"names": np.array(["a", "b", "c", "d"], object)},
            "it holds Python objects, which are not loaded; save",
        ),
        ({"scores": np.full((4, 3), np.nan)}, "the scores of walk/å 1.avi are not a row of finite numbers"),
        ({"scores": np.full((4, 3), 1j)}, "scores: an array of type complex128; expected numbers"),
        ({"scores": np.full((4, 3), "1")}, "scores: an array of type <U1; expected numbers"),
        ({"scores": np.ones((0, 3)), "labels": LABEL[:0], "names": np.array([], str)}, "there are no scores in it"),
    ],
)
def test_archives_that_are_none(tmp_path, scores, change, message):
    made = {"scores": scores[0], "labels": LABEL, "names": np.array(list(VIDEOS))} | change
    np.savez(tmp_path / "x.npz", **{name: array for name, array in made.items() if array is not None})
    with pytest.raises(UserError, match=message) as caught:
        fusion.read(tmp_path / "x.npz")
    assert str(caught.value).startswith(f"{tmp_path / 'x.npz'}: ") and "\n" not in str(caught.value)


def test_a_video_may_be_in_an_archive_twice_if_both_say_the_same(tmp_path):
    names = ["x/a", "y/b", "x/a"]
    write_archive(tmp_path / "a.npz", np.eye(3)[[0, 1, 0]], [0, 1, 0], names)
    assert list(fusion.read(tmp_path / "a.npz").labels.items()) == [("x/a", "0"), ("y/b", "1")]
    write_archive(tmp_path / "a.npz", np.eye(3)[[0, 1, 0]], [0, 1, 1], names)
    with pytest.raises(UserError, match="x/a is in it twice"):
        fusion.read(tmp_path / "a.npz")


def test_sums_and_weights_that_are_no_numbers(tmp_path, sources):
    first = fusion.read(sources[0])
    with pytest.raises(UserError, match="weights nan, 1.0: expected finite numbers"):
        fusion.fuse([first, first], [float("nan"), 1.0])
    with pytest.raises(UserError, match="all weights are 0, so that no score counts"):
        fusion.fuse([first, first], [0.0, 0.0])
    large = fusion.read(write_archive(tmp_path / "large.npz", np.full((4, 3), 1e308)))
    with pytest.raises(UserError, match="the sum of the scores of walk/å 1.avi is too large for a number"):
        fusion.fuse([large, large], [1.0, 1.0])
    found = fusion.fuse([large, large], [1.0, 1.0], l2=True)
    np.testing.assert_allclose(list(found.scores.values()), 2 / np.sqrt(3))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@given(data=st.data())
@settings(max_examples=60)
def test_any_byte_of_an_archive_may_be_wrong(tmp_path_factory, compression, data):
    folder = tmp_path_factory.getbasetemp()
    write_archive(folder / "sound.npz", np.eye(4, 3), [0, 1, 2, 2], ["a/1", "b/2", "c/å", "c/4"])
    with zipfile.ZipFile(folder / "sound.npz") as sound, zipfile.ZipFile(folder / "x.npz", "w", compression) as packed:
        for name in sound.namelist():
            packed.writestr(name, sound.read(name))
    content = bytearray((folder / "x.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "x.npz").write_bytes(content[: data.draw(st.sampled_from([None, len(content) // 2]))])
    try:
        assert fusion.read(folder / "x.npz").scores
    except UserError:
        pass


ANY = st.sampled_from([np.float32, np.int8, np.uint64, np.bool_, np.complex64, "U3", "S2", "M8[s]"]).flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)


@given(made=st.fixed_dictionaries({}, optional=dict.fromkeys([*score_archive.ARRAYS, "x"], ANY)))
@settings(max_examples=150)
def test_arrays_of_any_kind(tmp_path_factory, made):
    path = tmp_path_factory.getbasetemp() / "any.npz"
    np.savez(path, **made)
    try:
        found = fusion.read(path)
    except UserError:
        return
    lengths = {len(row) for row in found.scores.values()}
    assert all(row.dtype == np.float64 and np.isfinite(row).all() for row in found.scores.values())
    if found.numbered:
        assert lengths == {len(found.classes)} and found.labels.keys() == found.scores.keys()


@given(st.data())
@settings(max_examples=40)
def test_whatever_the_order_and_the_names_of_an_archive_its_sum_is_that_of_the_rows(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    videos, classes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
    names = data.draw(st.lists(text, min_size=videos, max_size=videos, unique=True))
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=videos, max_size=videos)))
    scores = data.draw(arrays.arrays(np.float32, (2, videos, classes), elements=st.floats(-100, 100, width=32)))
    rows = data.draw(st.permutations(range(videos)))
    write_archive(folder / "p.npz", scores[0], labels, names)
    write_archive(folder / "q.npz", scores[1, rows], labels[rows], np.array(names)[rows])
    found = fused(folder / "p.npz", folder / "q.npz")
    assert list(found.scores) == names
    np.testing.assert_array_equal(list(found.scores.values()), scores.astype(float).sum(axis=0))
    fusion.write(folder / "again", found, ["p", "q"], [1.0, 1.0])
    again = fusion.read(folder / "again")
    assert (again.labels, again.classes) == (found.labels, found.classes)
    np.testing.assert_array_equal(list(again.scores.values()), list(found.scores.values()))


def test_archives_that_need_a_password_or_another_version_of_the_format(tmp_path):
    write_archive(tmp_path / "a.npz", np.ones((1, 1)), [0], ["a"])
    sound = (tmp_path / "a.npz").read_bytes()
    entry = sound.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (6, 99)):  # in the archive's directory: flags, and the version that it takes
        data = bytearray(sound)
        data[entry + offset] = value
        data[sound.index(b"PK\x03\x04") + offset - 2] = value
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(UserError, match="cannot be read as scores"):
            fusion.read(tmp_path / "a.npz")
    with pytest.raises(zipfile.BadZipFile, match="version"):
        archives.check(tmp_path / "a.npz")
