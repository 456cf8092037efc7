"""Means over tested runs: of splits, of seeds; never of what was not tested alike."""

import json
import statistics
import types

import pytest
from absl import flags
from commands import check_user_error, run

from jax_video import average
from jax_video.errors import UserError
from jax_video.testing import averages

AVERAGE = "jax_video.average"
PROTOCOL = {"clips": "uniform", "number": 10, "crop": "full", "flip": False, "batch": 8, "allow_partial": False}
TOP1 = (0.9, 0.91, 0.95)


def write_test(folder, top1, **changes):
    folder.mkdir()
    result = {
        **{"step": 100, "manifest": folder.name, "protocol": PROTOCOL, "clip": {"frames": 8, "stride": 8}},
        **{"top1": top1, "top5": 1.0, "mean_top1_top5": (top1 + 1) / 2, "mean_class_accuracy": top1 / 2},
    }
    (folder / "test.json").write_text(json.dumps(result | changes))
    return folder


@pytest.fixture
def splits(tmp_path):
    return [write_test(tmp_path / f"split{index}", top1) for index, top1 in enumerate(TOP1)]


def test_the_command(splits, tmp_path):
    finished = run(AVERAGE, *splits, f"--out={tmp_path / 'mean.json'}")
    assert finished.code == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [
        [str(split), f"{100 * top1:.2f}", "%"] for split, top1 in zip(splits, TOP1, strict=True)
    ]
    assert lines[4].split() == "mean 92.00 ± 2.65 % 100.00 ± 0.00 % 96.00 ± 1.32 % 46.00 ± 1.32 %".split()
    assert lines[5] == "Of different sets, or splits: the standard deviation is between them, too."
    result = json.loads((tmp_path / "mean.json").read_text())
    assert result["runs"] == list(map(str, splits)) and result["same_manifest"] is False
    assert result["top1"] == {"mean": statistics.mean(TOP1), "deviation": statistics.stdev(TOP1)}


def test_what_is_always_right_is_said_once(tmp_path):
    runs = [write_test(tmp_path / name, 0.5, note="Top-5 of 3 classes is always 100 %.") for name in ("a", "b")]
    assert run(AVERAGE, *runs).stdout.count("Top-5 of 3 classes is always 100 %.") == 1


def test_runs_in_a_store(store, monkeypatch, capsys):
    monkeypatch.setattr(flags, "FLAGS", types.SimpleNamespace(out=None))
    (store / "bucket").mkdir(parents=True)
    for name, top1 in (("a", 0.5), ("b", 0.7)):
        write_test(store / "bucket" / name, top1)
    average.main(["gs://bucket/a", "gs://bucket/b"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["gs://bucket/a", "50.00"] and lines[3].split()[:2] == ["mean", "60.00"]
    with pytest.raises(UserError, match="a run is named twice: gs://bucket/a gs://bucket/a/"):
        average.main(["gs://bucket/a", "gs://bucket/a/"])
    with pytest.raises(UserError, match="gs://bucket/c has no test.json: test it first"):
        average.main(["gs://bucket/a", "gs://bucket/c"])


@pytest.mark.parametrize(("manifest", "same"), [("x", True), (None, None)])
def test_whether_the_videos_are_the_same(tmp_path, manifest, same):
    runs = [write_test(tmp_path / name, 0.5, manifest=manifest) for name in ("a", "b")]
    assert averages.summarise({run.name: averages.read(run) for run in runs})["same_manifest"] is same


def test_fused_scores_have_no_protocol(splits, tmp_path):
    fused = write_test(tmp_path / "fused", 0.99)
    result = json.loads((fused / "test.json").read_text())
    (fused / "test.json").write_text(json.dumps({key: result[key] for key in averages.METRICS}))
    found = averages.summarise({folder.name: averages.read(folder) for folder in (*splits, fused)})
    assert found["same_manifest"] is None and found["top1"]["mean"] == statistics.mean([*TOP1, 0.99])


def test_runs_that_were_not_tested_alike(splits, tmp_path):
    write_test(tmp_path / "paced", 0.5, protocol=PROTOCOL | {"batch": 64})  # on which nothing depends
    averages.summarise({name: averages.read(tmp_path / name) for name in ("split0", "paced")})
    write_test(tmp_path / "other", 0.5, protocol=PROTOCOL | {"crop": "three"}, clip={"frames": 8, "stride": 4})
    with pytest.raises(UserError) as caught:
        averages.summarise({name: averages.read(tmp_path / name) for name in ("split0", "split1", "other")})
    message = str(caught.value)
    assert "split0 and other were not tested alike:" in message
    assert "protocol.crop: full and three\n" in message and "clip.stride: 8 and 4\n" in message
    assert "number" not in message and "frames" not in message


@pytest.mark.parametrize("told", [["float32", "bfloat16"], ["float32", None], [None, "bfloat16"], [None, None]])
def test_activations_of_two_types_are_not_the_same_test(tmp_path, told):
    """Results of earlier versions do not tell theirs; one of these hides no difference between others."""
    results = {
        str(number): averages.read(write_test(tmp_path / str(number), 0.5, **({"dtype": dtype} if dtype else {})))
        for number, dtype in enumerate([None, *told, *told])
    }
    if None in told:
        assert averages.summarise(results)["top1"]["mean"] == 0.5
    else:
        with pytest.raises(UserError, match="1 and 2 were not tested alike:\n  dtype: float32 and bfloat16\n"):
            averages.summarise(results)


def test_a_part_is_told_with_its_split(tmp_path):
    told = {"val": {"protocol": PROTOCOL | {"split": "val"}}, "fused": {"fused": ["a", "b"]}}
    runs = [write_test(tmp_path / name, 0.5, videos=7, of=8, **each) for name, each in told.items()]
    path = runs[1] / "test.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in result.items() if key not in ("protocol", "clip")}))
    lines = run(AVERAGE, *runs).stdout.splitlines()
    assert [f"{runs[0]} covers 7 of 8 val videos only.", f"{runs[1]} covers 7 of 8 videos only."] == lines[3:5]


def test_one_that_tells_no_protocol_hides_no_difference(splits, tmp_path):
    """Fused scores first: what comes after is still compared."""
    other = write_test(tmp_path / "other", 0.5, clip={"frames": 16, "stride": 8})
    fused = {key: 0.5 for key in averages.METRICS}
    with pytest.raises(UserError, match="a and b were not tested alike:\n  clip.frames: 8 and 16"):
        averages.summarise({"fused": fused, "a": averages.read(splits[0]), "b": averages.read(other)})


@pytest.mark.parametrize("other", [{"l2": True}, {"weights": [1.0, 5.0]}, {"average_clips": "logit"}])
def test_fused_scores_that_were_added_up_otherwise(tmp_path, other):
    alike = {"fused": ["a", "b"], "weights": [1.0, 1.0], "l2": False, "average_clips": "probability"}
    result = dict.fromkeys(averages.METRICS, 0.5)
    averages.summarise({"one": result | alike, "two": result | alike | {"fused": ["c", "d"]}})
    with pytest.raises(UserError, match=f"one and two were not tested alike:\n  {next(iter(other))}: "):
        averages.summarise({"one": result | alike, "two": result | alike | other})


def test_errors_of_the_command(splits, tmp_path):
    check_user_error(run(AVERAGE, splits[0]), "expected at least two tested runs")
    check_user_error(run(AVERAGE, splits[0], f"{splits[0]}/"), "named twice")
    check_user_error(run(AVERAGE, splits[0], splits[1] / ".." / splits[0].name), "named twice")
    check_user_error(run(AVERAGE, splits[0], tmp_path), f"{tmp_path} has no test.json: test it first", "--mode=test")


def test_nothing_but_averages_is_replaced(splits, tmp_path):
    before = (splits[2] / "test.json").read_text()
    check_user_error(run(AVERAGE, *splits[:2], f"--out={splits[2] / 'test.json'}"), "holds no averages: choose another")
    assert (splits[2] / "test.json").read_text() == before
    averages.write(tmp_path / "mean.json", averages.summarise({str(path): averages.read(path) for path in splits}))
    averages.check_out(tmp_path / "mean.json")


@pytest.mark.parametrize("content", ["{", "[]", '{"pair_accuracy": 1.0}', '{"top1": null}'])
def test_files_that_are_no_result(tmp_path, content):
    (tmp_path / "test.json").write_text(content)
    with pytest.raises(UserError, match="test.json is not the result of a test of classes"):
        averages.read(tmp_path)


def test_a_torn_table_does_not_spoil_the_result_beside_it(splits):
    (splits[0] / "confusion.json").write_text('{"result": {"top1": 0.')
    assert averages.read(splits[0])["top1"] == TOP1[0]
