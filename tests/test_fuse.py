"""Late fusion: sums of scores from runs and from elsewhere, videos and classes matched by name."""

import csv
import json
import struct
import zipfile

import numpy as np
import pytest
from commands import check_user_error, run

from jax_video.errors import UserError
from jax_video.testing import fusion

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
    check_user_error(run(FUSE, *sources, "--weights=1,x,1"), "--weights=1,x,1: expected numbers")
    check_user_error(run(FUSE, tmp_path, sources[0]), "has no predictions.jsonl: was the run tested?")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "name,run,walk\n", "header begins with 'name'; expected video"),
        ("x.csv", "video,run,walk\nb,1\n", "b has 1 scores for 2 classes"),
        ("x.csv", "video,run,walk\nb,1,many\n", "cannot be read as scores"),
        ("x.csv", "video,run,walk\nb,1,nan\n", "b are not a row of finite numbers"),
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
