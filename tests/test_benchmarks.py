"""What the benchmark for GPUs finds in networks and writes down; and, by hand, that all of it runs."""

import collections
import contextlib
import dataclasses
import importlib.util
import io
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from conftest import ROOT
from scipy import stats

from configs import stc
from jax_video import lock
from jax_video.data import documents
from jax_video.data.manifest import Manifest, Video
from jax_video.data.sources import motions
from jax_video.errors import Stopped, UserError
from jax_video.models.convolution import conv


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    """Benchmarks are scripts: an import defines their flags, which may have the names of another's."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield
    ours = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    for name in [name for name in flags.FLAGS if flags.FLAGS.find_module_defining_flag(name) in ours]:
        delattr(flags.FLAGS, name)
    for name in ours & set(sys.modules):
        del sys.modules[name]


def test_convolutions_of_a_network_are_found_and_weighed():
    from gpu_convolutions import Convolution, convolutions, costliest

    def network(x, kernel, last):
        def layer(x, _):
            return jnp.tanh(conv(x, kernel, padding=((1, 1),) * 3)), None

        x, _ = jax.lax.scan(jax.checkpoint(layer), x, length=3)
        return conv(jax.jit(jnp.tanh)(x), last, strides=(1, 2, 2))

    shapes = ((2, 4, 6, 6, 8), (3, 3, 3, 8, 8), (1, 1, 1, 8, 16))
    found = convolutions(jax.make_jaxpr(network)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)
    cube = Convolution(shapes[0], shapes[1], (1, 1, 1), ((1, 1),) * 3)
    last = Convolution(shapes[0], shapes[2], (1, 2, 2), ((0, 0),) * 3)
    assert found == {cube: 1, last: 1}  # a loop's body counts once
    assert (cube.output, last.output) == ((2, 4, 6, 6, 8), (2, 4, 3, 3, 16))
    assert (cube.operations, last.operations) == (2 * 2 * 4 * 36 * 8 * 8 * 27, 2 * 2 * 4 * 9 * 8 * 16)

    batch_of_3 = Convolution((3, *shapes[0][1:]), *list(vars(cube).values())[1:])
    shares = costliest({"a": found, "b": {batch_of_3: 5}}, number=2)
    assert list(shares) == [cube, last]
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
def test_a_large_video_is_compared_in_parts(kernel):
    from gpu_convolutions import Convolution, largest_error

    convolution = Convolution((1, 9, 5, 5, 2), (*kernel, 2, 2), (1, 1, 1), ((0, 0),) * 3)
    assert max(largest_error(convolution, jnp.float32, parts=3).values()) < 1e-6


def test_results_are_whole_after_every_row(tmp_path):
    from gpu_results import Results, table

    def render(data):
        return table(["network", "ms"], [[name, entry["ours"].get("ms")] for name, entry in data["networks"].items()])

    Results(tmp_path / "out", "speed", render).add("networks", "first", "ours", ms=1.25)
    Results(tmp_path / "out", "speed", render).add("networks", "second", "ours", failed="no memory")
    lines = (tmp_path / "out" / "speed.md").read_text().splitlines()
    assert lines == ["| network | ms |", "| --- | --- |", "| first | 1.25 |", "| second |  |"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"speed.json", "speed.md"}


def test_differences_are_of_the_same_videos_and_of_whole_groups():
    from evidence_differences import Difference, Outcomes, balanced_accuracy, difference, verdict

    random = np.random.default_rng(0)
    groups, labels = [f"g{number // 6}" for number in range(60)], ["fight", "other", "other"] * 20
    some = Outcomes(random.random((3, 60)) < 0.6, groups, labels, [0] * 60)
    assert difference(some, some) == (0, (0, 0), (0, 0)) and verdict(difference(some, some)) == "cannot tell (±0)"
    none, all_ = (some._replace(right=np.full((2, 60), value)) for value in (False, True))
    found = difference(all_, none)
    assert found.gain == 1 and np.allclose([found.videos, found.networks], 1) and verdict(found) == "holds"
    assert verdict(difference(none, all_)) == "does not"

    # One that is right in half of the groups: the t interval of the mean of ten numbers.
    half = some._replace(right=np.repeat([True, False] * 5, 6)[None])
    found = difference(half, none)
    expected = stats.t.interval(0.95, 9, 0.5, stats.sem([1, 0] * 5))
    assert found.gain == 0.5 and found.videos == pytest.approx(expected, abs=0.01)
    single = half._replace(groups=[str(number) for number in range(60)])  # as sixty: narrower, and wrong
    low, high = difference(single, none._replace(groups=single.groups)).videos
    assert 0.35 < low < high < 0.65

    of_class = some._replace(right=np.array([label == "other" for label in labels])[None])
    assert (of_class.right.mean(), balanced_accuracy(of_class)) == pytest.approx((2 / 3, 1 / 2))
    with pytest.raises(ValueError, match="not of the same videos"):
        difference(some, some._replace(groups=groups[::-1]))

    # Other networks: the t interval of the folds' differences, or of the seeds'; both intervals have to leave zero.
    folds = [number // 12 for number in range(60)]
    one, other = (of._replace(folds=folds) for of in (half._replace(right=np.arange(60)[None] % 12 < 6), none))
    assert difference(one, other).networks == (0.5, 0.5)
    one = one._replace(right=np.array([folds]) < 2)
    expected = stats.t.interval(0.95, 4, 0.4, stats.sem([1, 1, 0, 0, 0]))
    assert difference(one, other).networks == pytest.approx(expected)
    seeds = difference(some, none._replace(right=np.zeros((3, 60), bool)))
    each = some.right.mean(axis=1)
    assert seeds.networks == pytest.approx(stats.t.interval(0.95, 2, each.mean(), stats.sem(each)))
    assert difference(half, none._replace(right=none.right[:1])).networks == (-np.inf, np.inf)  # one of each: unknown
    sure, unsure = Difference(0.1, (0.05, 0.15), (0.02, 0.18)), Difference(0.1, (0.05, 0.15), (-0.02, 0.22))
    assert (verdict(sure), verdict(unsure), verdict(sure, unsure)) == ("holds", *["cannot tell (±12)"] * 2)
    assert difference(some._replace(groups=["g"] * 60), some._replace(groups=["g"] * 60)).videos == (-np.inf, np.inf)

    # Balanced: the rarer class counts as much as the other.
    found = difference(of_class, none._replace(right=none.right[:1]), balanced=True)
    assert found.gain == pytest.approx(1 / 2) and found.videos[0] == pytest.approx(found.videos[1])
    # In every fold anew: who is right of one class alone is right in a half, whatever share of the fold that class is.
    labels = ["fight"] * 6 + ["other"] * 30 + ["fight"] * 18 + ["other"] * 6
    of_class = Outcomes(np.array([label == "other" for label in labels])[None], groups, labels, [0] * 36 + [1] * 24)
    found = difference(of_class, of_class._replace(right=np.zeros((1, 60), bool)), balanced=True)
    assert found.gain == 0.5 and found.networks == (0.5, 0.5)
    assert found.videos[0] > 0.3, "draws without one of the classes tell of the other"


@pytest.mark.slow
def test_intervals_leave_out_zero_as_often_as_they_say():
    """Two rows alike, 25 groups of 7 videos in five folds. Groups differ, and so do the networks of the folds, which
    the first interval does not know: docs/explanation/evidence.md."""
    import evidence_differences
    from evidence_differences import Outcomes, difference

    random = np.random.default_rng(0)
    groups, folds = [f"g{number // 7}" for number in range(175)], [number // 35 for number in range(175)]

    def row(networks):
        easy = random.normal(0, 1, 25).repeat(7) + random.normal(0, networks, 5).repeat(35)
        return Outcomes(random.random((1, 175)) < 1 / (1 + np.exp(-easy)), groups, ["x"] * 175, folds)

    missed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_differences, "DRAWS", 1000)
        for networks in (0.0, 0.6):
            found = [difference(row(networks), row(networks)) for _ in range(1000)]
            missed[networks] = [
                np.mean([not low <= 0 <= high for low, high in ends])
                for ends in zip(*((of.videos, of.networks) for of in found), strict=True)
            ]
    assert missed[0.0] == pytest.approx([0.05, 0.05], abs=0.02)
    assert missed[0.6][0] > 0.1 and missed[0.6][1] == pytest.approx(0.05, abs=0.02), missed


def test_all_runs_of_the_evidence_can_be_given_as_commands(tmp_path):
    """Every row's config is one that a run can have: the command that `--list` prints shows it."""
    sets = {"fights": ("fight", "other"), "ut_interaction": ("hug", "push")}
    for name, classes in sets.items():
        videos = [
            Video(
                f"{kind}/{group}.mp4",
                number,
                "test" if group == 5 else "train",
                30,
                25.0,
                64,
                48,
                None,
                source=f"s{group}",
            )
            for group in range(6)
            for number, kind in enumerate(classes)
        ]
        Manifest(name, classes, str(tmp_path), tuple(videos)).write(tmp_path / name / "manifest.jsonl")
    (tmp_path / "thin.npz").touch()
    options = [f"--data={tmp_path}", f"--out={tmp_path / 'out'}", f"--weights={tmp_path / 'thin.npz'}", "--list"]
    claims = "--claims=stc,t3d,st_resnet,transfer,cost,views"
    script = [sys.executable, str(ROOT / "benchmarks" / "evidence.py")]
    listed = subprocess.run([*script, *options, claims], capture_output=True, text=True, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    commands = [shlex.split(line) for line in listed.stdout.splitlines()]
    counts = collections.Counter(
        command[2].removeprefix("jax_video.") + "".join(word for word in command if word.startswith("--mode="))
        for command in commands
    )
    assert counts == {"prepare": 1, "main": 20 + 15 + 20 + 101 + 40 + 3, "main--mode=views": 20 + 3, "fuse": 5}
    (flow,) = [command for command in commands if command[2] == "jax_video.prepare"]
    assert flow[3:] == ["manifest", f"--out={tmp_path / 'fights'}", "--flow=tvl1", "--flow_side=128"]
    after = commands[commands.index(flow) + 1 :]
    assert len(after) == 25 and all("st_resnet" in command[-1] for command in after), "what needs no flow comes first"
    folders = {command[-1] for command in commands if "--mode=views" not in command}
    assert len(folders) == 20 + 15 + 25 + 101 + 40 + 3 + 1
    sums = [command[3:5] for command in commands if command[2] == "jax_video.fuse"]
    assert all("appearance" in one and "motion" in other for one, other in sums)

    import evidence

    flags.FLAGS(["evidence.py", *options[:3]])
    for run in (run for name in evidence.EVIDENCE for run in evidence.runs(name)):
        if not run.row.fused and not any(part.row.once for part in run.parts):  # whose config is that of its start
            run.config()
    tested = [Manifest.read(path) for path in sorted((tmp_path / "out" / "sets").glob("fights-*/manifest.jsonl"))]
    assert sorted(video.path for of in tested for _, video in of.select("test")) == sorted(
        v.path for v in tested[0].videos
    )
    assert all(
        not {v.source for _, v in of.select("test")} & {v.source for _, v in of.select("train")} for of in tested
    )


def test_a_record_is_what_the_tables_are_made_of(tmp_path):
    """What each run found, once; what was torn by a kill is to be found again. The table is of the record alone, and of
    the runs as they are now."""
    import evidence
    from evidence_record import Place, Record

    def write(groups):
        videos = [
            Video(f"{kind}/s{group}_{kind}.mp4", number, "train", 30, 25.0, 64, 48, None, source=f"s{group}")
            for group in range(groups)
            for number, kind in enumerate(("fight", "other"))
        ]
        Manifest("fights", ("fight", "other"), str(tmp_path), tuple(videos)).write(tmp_path / "fights/manifest.jsonl")
        evidence.forget()

    write(10)
    file, picture = tmp_path / "record.jsonl", tmp_path / "differences.png"
    flags.FLAGS(["", f"--data={tmp_path}", f"--out={tmp_path}", "--nolist", f"--figure={picture}"])
    record = Record(file)
    runs = [run for run in evidence.runs("stc") if run.place.row in ("none", "both")]
    for run in runs:
        groups = (run.place.fold, run.place.fold + 5)  # as `folds` gives them: about as many videos in each
        names = [f"fight/s{group}_fight.mp4" for group in groups] if run.place.row == "none" else []
        record.add(run.place, run.what, {"wrong": {}, "seconds": 1})
        record.add(run.place, run.what, {"wrong": dict.fromkeys(names, "other"), "seconds": 90})
    file.write_bytes(file.read_bytes() + b'{"claim": "stc", "row"')
    again = Record(file)
    assert [again.get(run.place, run.what)["seconds"] for run in runs] == [90] * 10
    assert again.get(runs[0].place, runs[0].what + 1) is None
    again.add(Place("stc", "tcb", 0, 0), evidence.Run(Place("stc", "tcb", 0, 0)).what, {"wrong": {}, "seconds": None})
    assert {run.place for run in evidence.to_do(evidence.runs("stc"), Record(file))} == {
        run.place
        for run in evidence.runs("stc")
        if run.place.row in ("tcb", "scb") and run.place != ("stc", "tcb", 0, 0)
    }

    table = found(evidence, file)
    assert "| none | 5 | 50.0 | 50.0 | [50.0, 50.0] | [50.0, 50.0] | 1.5 |" in table
    assert "| both | 5 | 100.0 | 100.0 | [100.0, 100.0] | [100.0, 100.0] | 1.5 |" in table
    assert "| tcb | 1 of 5 | not yet run | | | | – |" in table
    assert f"| both − none |{' +50.0 | [+50.0, +50.0] | [+50.0, +50.0] |' * 2} holds |" in table
    for drawn in (picture, tmp_path / "differences-stc.png"):  # differences, and what the best row confuses
        assert drawn.read_bytes().startswith(b"\x89PNG")
    write(11)  # another set: nothing is known of it
    flags.FLAGS["figure"].value = None
    assert "| none | 0 of 5 | not yet run | | | | – |" in found(evidence, file)

    # Of two rows that may both be guesses a difference says nothing, however sure it is.
    write(10)
    for run in runs:
        groups = (run.place.fold, run.place.fold + 5)
        wrong = [f"fight/s{group}_fight.mp4" for group in groups] if run.place.row == "both" else []
        wrong += [f"{kind}/s{group}_{kind}.mp4" for group in groups for kind in ("fight", "other")] * (not wrong)
        record.add(run.place, run.what, {"wrong": dict.fromkeys(wrong, "other"), "seconds": 90})
    said = "cannot tell: both may be at chance"
    assert f"| both − none |{' +50.0 | [+50.0, +50.0] | [+50.0, +50.0] |' * 2} {said} |" in found(evidence, file)


def found(evidence, file, *names) -> str:
    """What `--table` prints of a record."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        evidence.print_tables(names or ["stc"], evidence.Record(file))
    return printed.getvalue()


def test_the_way_there_is_told_where_there_are_validation_videos(tmp_path):
    import evidence
    from evidence_record import Record

    flags.FLAGS(["", f"--data={tmp_path}", f"--out={tmp_path}", f"--figure={tmp_path / 'a.png'}"])
    record = Record(tmp_path / "record.jsonl")
    for run in evidence.runs("stc_motions"):
        slower = 0.1 * run.place.seed * (run.place.row == "none")
        record.add(run.place, run.what, {"wrong": {}, "validation": {"20": 0.5 - slower, "100": 1.0}})
    told = found(evidence, record.path, "stc_motions")
    assert "| validation, % | step 20 | step 100 | mean over the steps |" in told
    assert "| none | 40.0 ± 10.0 | 100.0 ± 0.0 | 70.0 ± 5.0 |" in told
    assert "| both | 50.0 ± 0.0 | 100.0 ± 0.0 | 75.0 ± 0.0 |" in told
    assert "Mean over the steps, both − none: +5.0 [-7.4, +17.4]" in told  # t of 2 degrees of freedom: 4.30 * 5 / √3
    assert (tmp_path / "a-curves.png").read_bytes().startswith(b"\x89PNG")
    flags.FLAGS["figure"].value = None


def test_a_file_of_other_lines_is_no_record(tmp_path):
    from evidence_record import Record

    (tmp_path / "other.jsonl").write_bytes(documents.line({"claim": "stc", "row": 1}))
    with pytest.raises(UserError, match="other.jsonl is no record of these runs: 'row' is 1, expected"):
        Record(tmp_path / "other.jsonl")


def test_two_sets_views_are_compared(tmp_path):
    """By Welch's t, of the folds' means over the seeds: 0.05 between the means, variances of 1 and 3 (× 1e-4) of three
    numbers and five. Not before all runs are done."""
    import evidence
    from evidence_record import Record

    for name, classes in (("fights", "ab"), ("ut_interaction", "ab")):
        videos = [
            Video(f"{n}.mp4", n % 2, ("train", "test")[n % 2], 30, 25.0, 64, 48, None, source=f"s{n}")
            for n in range(10)
        ]
        Manifest(name, tuple(classes), str(tmp_path), tuple(videos)).write(tmp_path / name / "manifest.jsonl")
    evidence.forget()
    flags.FLAGS(["", f"--data={tmp_path}", f"--out={tmp_path}"])
    record = Record(tmp_path / "record.jsonl")
    fold = 0.01 * 1.2**0.5
    looks = [
        *((run, 0.35 + fold * (run.place.fold - 2) + (0.1, -0.1)[run.place.seed]) for run in evidence.runs("cost")),
        *((run, 0.30 + 0.01 * (run.place.seed - 1)) for run in evidence.runs("views")),
    ]
    for run, motion in (each for each in looks if each[0].place.row == "cost_b"):
        assert "T-W + T-H, fights" not in (said := found(evidence, record.path, "cost", "views"))
        views = {"HW": 1 - motion, "TW": motion / 2, "TH": motion / 2}
        record.add(run.place, run.what, {"wrong": {}, "views": views})
    said = found(evidence, record.path, "cost", "views")
    assert "| ut_interaction, cost_b | 3 | 0.700 | 0.150 | 0.150 |" in said
    freedom = (1 / 3 + 3 / 5) ** 2 / ((1 / 3) ** 2 / 2 + (3 / 5) ** 2 / 4)
    half = stats.t.ppf(0.975, freedom) * 0.01 * (1 / 3 + 3 / 5) ** 0.5
    ends = f"[{0.05 - half:+.3f}, {0.05 + half:+.3f}]"
    assert f"T-W + T-H, fights, cost_b − ut_interaction, cost_b: +0.050 {ends}: holds" in said


def test_seeds_that_are_done_count_before_the_others(tmp_path):
    import evidence
    from evidence_record import Record

    videos = [Video(f"{n}.mp4", n % 2, ("train", "test")[n % 2], 30, 25.0, 64, 48, None, f"s{n}") for n in range(10)]
    Manifest("fights", ("a", "b"), str(tmp_path), tuple(videos)).write(tmp_path / "fights" / "manifest.jsonl")
    evidence.forget()
    flags.FLAGS(["", f"--data={tmp_path}", f"--out={tmp_path}"])
    record = Record(tmp_path / "record.jsonl")
    for run in evidence.runs("cost"):  # all of the first seed, and some of the second, which tell nothing yet
        if run.place.seed == 0 or run.place.row == "c2d":
            part = evidence.sets().parts(run.claim)[run.place.fold]
            names = [video.name for _, video in part.select("test")] if run.place.row == "c2d" else []
            views = {"HW": 0.5, "TW": 0.25, "TH": 0.25}
            record.add(run.place, run.what, {"wrong": dict.fromkeys(names, "other"), "views": views})
    said = found(evidence, record.path, "cost")
    assert "| c2d | 5 of 10 | 0.0 |" in said and "| cost_b | 5 of 10 | 100.0 |" in said
    assert "| fights, cost_b | 5 | 0.500 | 0.250 | 0.250 |" in said


def test_runs_that_another_process_is_at_are_left_to_it(tmp_path, monkeypatch):
    import evidence
    from evidence_record import Record

    videos = [Video(f"{n}.mp4", n % 2, "train", 30, 25.0, 64, 48, None, source=f"s{n}") for n in range(10)]
    Manifest("fights", ("fight", "other"), str(tmp_path), tuple(videos)).write(tmp_path / "fights" / "manifest.jsonl")
    evidence.forget()
    flags.FLAGS(["", f"--data={tmp_path}", f"--out={tmp_path}"])
    runs, asked = evidence.runs("stc"), []

    def find(run):
        asked.append(run)
        if run == runs[1]:
            raise lock.InUse("another process")
        return {"wrong": {}}

    def wait(_):  # until it has ended there
        Record(tmp_path / "record.jsonl").add(runs[1].place, runs[1].what, {"wrong": {}})

    monkeypatch.setattr(evidence.Run, "find", find)
    monkeypatch.setattr(evidence.Run, "ready", True)
    monkeypatch.setattr(evidence.time, "sleep", wait)
    evidence.work(runs, Record(tmp_path / "record.jsonl"))
    assert sorted(asked.count(run) for run in runs) == [1] * 19 + [2]
    assert not evidence.to_do(runs, Record(tmp_path / "record.jsonl"))


def test_a_run_is_of_what_it_began_with(tmp_path, monkeypatch):
    """Its folder knows its weights by their path only: other weights there are no reason to go on with it, or to take
    it for theirs."""
    import evidence
    from evidence_record import Place

    videos = [Video(f"{n}.mp4", n % 2, ("train", "test")[n % 2], 30, 25.0, 64, 48, None, f"s{n}") for n in range(8)]
    Manifest("mine", ("a", "b"), str(tmp_path), tuple(videos)).write(tmp_path / "mine" / "manifest.jsonl")
    evidence.forget()
    weights = tmp_path / "thin.npz"
    flags.FLAGS(["", f"--data={tmp_path / 'mine'}", f"--out={tmp_path / 'out'}", f"--weights={weights}", "--best"])

    def start(content: bytes):
        weights.write_bytes(content)
        evidence._digest.cache_clear()
        return evidence.Run(Place("st_resnet", "appearance", 0, 0))  # of which nothing is tested

    def stop(*_):
        raise Stopped("stopped")

    evidence.sets().begin()
    monkeypatch.setattr(evidence, "train", stop)
    with pytest.raises(Stopped):
        start(b"some weights").find()
    with pytest.raises(UserError, match="the run there has other weights or videos"):
        start(b"other weights").find()
    monkeypatch.setattr(evidence, "train", lambda *_: True)
    assert not start(b"some weights").ready
    assert start(b"some weights").find() == {"seconds": 0} and start(b"some weights").ready
    assert not start(b"other weights").ready


def test_what_fails_does_not_stop_the_rest(tmp_path, monkeypatch):
    """A run that cannot be trained, and those that begin with it, are told; all others are done."""
    import evidence
    from evidence_record import Record

    videos = [Video(f"{n}.mp4", n % 2, "train", 30, 25.0, 64, 48, None, source=f"s{n}") for n in range(10)]
    Manifest("fights", ("fight", "other"), str(tmp_path), tuple(videos)).write(tmp_path / "fights" / "manifest.jsonl")
    evidence.forget()
    flags.FLAGS(["", f"--data={tmp_path}", f"--out={tmp_path}"])

    def find(run):
        if run.place.row == "motion" and run.place.fold == 2:
            raise UserError("its loss is not finite")
        done.add(run)
        return {"wrong": {}}

    done = set()
    monkeypatch.setattr(evidence.Run, "find", find)
    monkeypatch.setattr(evidence.Run, "ready", property(lambda run: run in done))
    failed = evidence.work(evidence.runs("st_resnet"), Record(tmp_path / "record.jsonl"))
    assert len(done) == 25 - 4 and {run.place.row for run in done if run.place.fold == 2} == {"appearance"}
    assert len(failed) == 4 and "not finite" in failed[0]
    assert all("which failed" in each for each in failed[1:])


@pytest.mark.parametrize("given", ["folder", "manifest"])
def test_the_best_row_of_each_claim_is_trained_on_any_set(given, tmp_path):
    """By its own splits, from its folder or its manifest, which stay as they are; other videos need another --out."""
    import evidence

    def write(number):
        splits = ("train", "val", "test")
        videos = [
            Video(f"{n}.mp4", n % 2, splits[n % 3], 30, 25.0, 64, 48, None, source=f"s{n}") for n in range(number)
        ]
        Manifest("mine", ("a", "b"), str(tmp_path), tuple(videos)).write(mine / "manifest.jsonl")
        evidence.forget()

    mine, out = tmp_path / "mine", tmp_path / "out"
    write(12)
    data = mine if given == "folder" else mine / "manifest.jsonl"
    (tmp_path / "thin.npz").write_bytes(b"any weights")
    flags.FLAGS(["", f"--data={data}", f"--out={out}", f"--weights={tmp_path / 'thin.npz'}", "--best", "--list"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        evidence.main([])
    commands = [shlex.split(line) for line in printed.getvalue().splitlines()]
    (flow,) = [command for command in commands if "jax_video.prepare" in command]
    others = [command for command in commands if not {"--mode=views", "jax_video.prepare"} & {*command}]
    assert commands.index(flow) == len(commands) - 2, "what needs no flow comes first"
    assert flow[3:] == ["manifest", f"--out={out / 'set'}", "--flow=dis", "--flow_side=128"]
    assert "--config.clip.flow_method=dis" in commands[-1], "as it is stored"
    assert {pathlib.Path(command[-1].split("=")[1]).parent.name for command in others} == {
        name for name, claim in evidence.EVIDENCE.items() if claim.best
    }
    assert all("--config.test.allow_partial=True" in command for command in others)
    assert all(f"data={out / 'set'}" in command[3] for command in others)
    copied = Manifest.read(out / "set" / "manifest.jsonl")
    assert copied == Manifest.read(mine / "manifest.jsonl") and [path.name for path in mine.iterdir()] == [
        "manifest.jsonl"
    ]

    places = [run for name in ("stc", "cost") for run in evidence.runs(name)]
    before = [run.what for run in places]
    (tmp_path / "thin.npz").write_bytes(b"other weights")
    evidence._digest.cache_clear()
    again = [evidence.Run(run.place).what for run in places]
    assert again[0] == before[0] and again[1] != before[1]
    write(15)
    with pytest.raises(UserError, match="has runs on other videos"):
        evidence.main([])


def test_the_copy_of_a_set_follows_it(tmp_path, capsys):
    """Where its videos are, and flow that fits; videos that cannot be read do not stop the others; a packed set has no
    flow to store."""
    import evidence

    from jax_video.data.decoding.flow import Settings
    from jax_video.data.manifest import Packed
    from jax_video.data.preparing import storing

    mine, out = tmp_path / "mine", tmp_path / "out"
    rows = [Video(f"{n}.mp4", n % 2, ("train", "test")[n % 2], 30, 25.0, 64, 48, None, f"s{n}") for n in range(8)]
    rows[2], rows[3] = rows[2].broken("truncated"), rows[3].broken("truncated")
    given = Manifest("mine", ("a", "b"), str(tmp_path), tuple(rows))

    def commands(**changes) -> str:
        dataclasses.replace(given, **changes).write(mine / "manifest.jsonl")
        evidence.forget()
        flags.FLAGS(
            ["", f"--data={mine}", f"--out={out}", "--best", "--list", "--claims=st_resnet", "--weights=thin.npz"]
        )
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            evidence.main([])
        return printed.getvalue()

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        pathlib.Path("thin.npz").write_bytes(b"any weights")
        assert "--flow=dis --flow_side=128" in commands(), "the quick one, if there is none"
        assert (
            "1 test videos of 'mine' cannot be read, 3.mp4 first: it is tested on the others."
            in capsys.readouterr().err
        )
        for name, settings in (("other", ("tvl1", 256)), ("right", ("tvl1", 128)), ("quick", ("dis", 128))):
            storing.open_folder(tmp_path / name, Settings(*settings))
        assert "--flow=dis --flow_side=128" in commands(flow=str(tmp_path / "other"))
        assert Manifest.read(out / "set" / "manifest.jsonl").flow is None
        for name, method in (("quick", "dis"), ("right", "tvl1")):
            for given_now in (name, "quick"):  # a run may have begun with the first
                listed = commands(flow=str(tmp_path / given_now), root=str(tmp_path / "moved"))
                assert "--flow=" not in listed and f"--config.clip.flow_method={method} " in listed
                copied = Manifest.read(out / "set" / "manifest.jsonl")
                assert (copied.flow, copied.root) == (str(tmp_path / name), str(tmp_path / "moved"))
            shutil.rmtree(out)
        storing.open_folder(out / "set" / "flow", Settings("tvl1", 128))  # begun, and perhaps not whole
        listed = commands()
        assert "--flow=tvl1" in listed and "--config.clip.flow_method=tvl1 " in listed, "as it was begun"
        assert Manifest.read(out / "set" / "manifest.jsonl").flow == str(out / "set/flow")
        shutil.rmtree(out)
        with pytest.raises(UserError, match="is packed, and its optical flow is not stored: give the set that it was"):
            commands(packed=Packed("frames", 64, 128, 90))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["table"], "expected only flags, got table"),
        (["--claims=stc,tsc"], "unknown claims tsc"),
        (["--table", "--best"], "--table excludes --list and --best"),
        (["--best", "--data=none/manifest.jsonl", "--claims=stc"], "cannot read the manifest"),
        (["--best", "--claims=stc,views"], "views are of sets of their own"),
        (["--claims=cost", "--weights=other.npz"], "is not the file that the record's networks start from"),
        (["--table", "--record=none.jsonl"], "--record=none.jsonl: there is no such file"),
        (["--claims=cost"], "--weights=thin_resnet50.npz: there is no such file"),
        (["--table", "--record=fights"], "--record=fights is a folder: expected a file"),
        (
            ["--table", "--record=other.npz", "--figure=x.foo"],
            r"--figure=x.foo: expected a .png, .pdf or .svg in a folder",
        ),
        (["--table", "--record=other.npz", "--figure=none/x.png"], "--figure=none/x.png: expected a .png"),
        (["--list", "--figure=x.png"], "--figure draws differences, of which --best and --list know none"),
        (["--claims=stc"], "there are none to train on"),
    ],
)
def test_what_would_fail_later_is_said_first(wrong, message, tmp_path, monkeypatch):
    import evidence

    video = Video("a/s_a.mp4", 0, "train", 30, 25.0, 64, 48, None, source="s")
    Manifest("fights", ("a",), str(tmp_path), (video,)).write(tmp_path / "fights" / "manifest.jsonl")
    evidence.forget()
    monkeypatch.chdir(tmp_path)
    pathlib.Path("other.npz").write_bytes(b"other weights")
    defaults = ["--notable", "--nolist", "--nobest", "--claims=stc", "--weights=thin_resnet50.npz", "--record="]
    given = flags.FLAGS(["", f"--data={tmp_path}", f"--out={tmp_path / 'out'}", *defaults, *wrong])
    with pytest.raises(UserError, match=message):
        evidence.main(given[1:])


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch: requirements-dev.txt")
def test_pytorch_trains_the_same_network_on_the_same_clips(tmp_path, monkeypatch, one_device, one_torch_thread):
    """Of a tiny STC-ResNet: step by step from equal weights, each from its own, and on from where it was stopped."""
    import quickstart_torch
    import torch

    monkeypatch.setattr(quickstart_torch, "WINDOW", 2)
    config = stc.get_config("frames=4")
    config.model.update(width=1 / 16, layers=(1, 1, 1, 1))
    config.clip.update(short_side=48, size=48)
    config.optimizer.weight_decay = 0.1  # or else three steps would not show it
    config.train.update(batch=8, steps=3, log_steps=1)
    config.test.batch = 8
    manifest = Manifest.read(motions.make(tmp_path, train=16, val=0, test=8, frames=8, width=64, height=48))

    found = quickstart_torch.compare([config], manifest, tmp_path / "runs")
    ((mine, my_test),), ((other, their_test),), ((own, _),) = found.values()
    assert [len(mine), len(other), len(own)] == [3, 3, 3]
    for key, tolerance in (("loss", 1e-4), ("top1", 0)):
        assert [row[key] for row in mine] == pytest.approx([row[key] for row in other], rel=tolerance)
    assert my_test == their_test
    rates = [[row["learning_rate"] for row in rows] for rows in (mine, own)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-6)
    assert abs(own[0]["loss"] / mine[0]["loss"] - 1) > 1e-3
    assert len(quickstart_torch.first_steps(found)) == 2 + 3
    lines, _, places = quickstart_torch.curves(found)
    assert (len(lines), places) == (2 + 2 + 1, 2 * 2)

    file = tmp_path / "runs" / "seed0-float32-steps3" / "own-weights" / "torch.pt"
    uninterrupted = torch.load(file)
    file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(quickstart_torch, "tested", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quickstart_torch.theirs(config, manifest, file.parent)
    assert len(torch.load(file)[0]) == 2  # what it goes on from
    assert quickstart_torch.theirs(config, manifest, file.parent) == uninterrupted[:2]


@pytest.mark.slow
def test_the_benchmark_for_gpus_runs_to_its_end_on_a_cpu(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": sys.executable, "XLA_FLAGS": ""}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--rehearse"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("correctness", "speed", "convolutions", "profile"):
        assert "|" in (tmp_path / "out" / f"{name}.md").read_text(encoding="utf-8"), name
