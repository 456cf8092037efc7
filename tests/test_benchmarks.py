"""What the benchmark for GPUs finds in networks and writes down; and, by hand, that all of it runs."""

import importlib.util
import itertools
import os
import shlex
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
from jax_video import config_flag
from jax_video.data.manifest import Manifest, Video
from jax_video.data.sources import motions
from jax_video.models.convolution import conv


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    before = set(flags.FLAGS)
    yield
    for added in set(flags.FLAGS) - before:  # a benchmark is a script: its import defines its flags
        delattr(flags.FLAGS, added)
    sys.path.remove(str(ROOT / "benchmarks"))


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
    from evidence_differences import Difference, Outcomes, balanced, difference

    random = np.random.default_rng(0)
    groups, labels = [f"g{number // 6}" for number in range(60)], ["fight", "other", "other"] * 20
    some = Outcomes(random.random((3, 60)) < 0.6, groups, labels, [0] * 60)
    assert difference(some, some) == (0, (0, 0), (0, 0)) and difference(some, some).verdict == "cannot tell (±0)"
    none, all_ = (some._replace(right=np.full((2, 60), value)) for value in (False, True))
    found = difference(all_, none)
    assert found.gain == 1 and np.allclose([found.videos, found.networks], 1) and found.verdict == "holds"
    assert difference(none, all_).verdict == "does not"

    # One that is right in half of the groups: the t interval of the mean of ten numbers.
    half = some._replace(right=np.repeat([True, False] * 5, 6)[None])
    found = difference(half, none)
    expected = stats.t.interval(0.95, 9, 0.5, stats.sem([1, 0] * 5))
    assert found.gain == 0.5 and found.videos == pytest.approx(expected, abs=0.01)
    single = half._replace(groups=[str(number) for number in range(60)])  # as sixty: narrower, and wrong
    low, high = difference(single, none._replace(groups=single.groups)).videos
    assert 0.35 < low < high < 0.65

    of_class = some._replace(right=np.array([label == "other" for label in labels])[None])
    assert (of_class.right.mean(), balanced(of_class)) == pytest.approx((2 / 3, 1 / 2))
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
    assert Difference(0.1, (0.05, 0.15), (-0.02, 0.22)).verdict == "cannot tell (±12)"
    assert Difference(0.1, (0.05, 0.15), (0.02, 0.18)).verdict == "holds"


def test_all_runs_of_the_evidence_can_be_given_as_commands(tmp_path):
    """Every row's config is one that a run can have: the command that `--list` prints shows it."""
    sets = {"fights": ("fight", "other"), "ut_interaction": ("hug", "push")}
    for name, classes in sets.items():
        videos = [
            Video(f"{kind}/{group}.mp4", number, "train", 30, 25.0, 64, 48, None, source=f"s{group}")
            for group in range(6)
            for number, kind in enumerate(classes)
        ]
        Manifest(name, classes, str(tmp_path), tuple(videos)).write(tmp_path / name / "manifest.jsonl")
    options = [f"--data={tmp_path}", f"--out={tmp_path / 'out'}", "--weights=thin.npz", "--list"]
    claims = "--claims=stc,t3d,st_resnet,transfer,cost,views"
    script = [sys.executable, str(ROOT / "benchmarks" / "evidence.py")]
    listed = subprocess.run([*script, *options, claims], capture_output=True, text=True, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    commands = [shlex.split(line) for line in listed.stdout.splitlines()]
    assert len(commands) == len({command[-1] for command in commands}) == 20 + 15 + 25 + 31 + 40 + 3
    configs = [command[3].removeprefix("--config=") for command in commands if command[2] == "jax_video.main"]
    for text in {text for text in configs if "taught-fold0" not in text}:
        config_flag.load(text)
    sums = [command[3:] for command in commands if command[2] == "jax_video.fuse"]
    assert len(sums) == 5 and all("appearance" in one and "motion" in other for one, other in sums)
    tested = [Manifest.read(path) for path in sorted((tmp_path / "out" / "sets").glob("fights-*/manifest.jsonl"))]
    assert sorted(video.path for of in tested for _, video in of.select("test")) == sorted(
        v.path for v in tested[0].videos
    )
    assert all(
        not {v.source for _, v in of.select("test")} & {v.source for _, v in of.select("train")} for of in tested
    )


def test_a_record_is_what_the_tables_are_made_of(tmp_path):
    """What each run found, once; what was torn by a kill is to be found again. The table is of the record alone."""
    from evidence_record import Place, Record

    videos = [
        Video(f"{kind}/s{group}_{kind}.mp4", number, "train", 30, 25.0, 64, 48, None, source=f"s{group}")
        for group in range(10)
        for number, kind in enumerate(("fight", "other"))
    ]
    Manifest("fights", ("fight", "other"), str(tmp_path), tuple(videos)).write(tmp_path / "fights" / "manifest.jsonl")
    record = Record(tmp_path / "record.jsonl")
    for fold, row in itertools.product(range(5), ("none", "both")):
        groups = (fold, fold + 5)  # as `folds` gives them: about as many videos in each
        names = [f"fight/s{group}_fight.mp4" for group in groups] if row == "none" else []
        record.add(Place("stc", row, fold, 0), {"wrong": {}, "seconds": 1})
        record.add(Place("stc", row, fold, 0), {"wrong": dict.fromkeys(names, "other"), "seconds": 90})
    file = tmp_path / "record.jsonl"
    file.write_bytes(file.read_bytes() + b'{"claim": "stc", "row"')
    again = Record(file)
    assert [found["seconds"] for found in again.of("stc", "both")] == [90] * 5
    again.add(Place("stc", "tcb", 0, 0), {"wrong": {}, "seconds": 90})
    assert Place("stc", "tcb", 0, 0) in Record(file) and Place("stc", "tcb", 1, 0) not in Record(file)

    script = [sys.executable, str(ROOT / "benchmarks" / "evidence.py"), "--table", "--claims=stc"]
    picture = tmp_path / "differences.png"
    options = [f"--data={tmp_path}", f"--record={file}", f"--figure={picture}"]
    table = subprocess.run([*script, *options], capture_output=True, text=True)
    assert table.returncode == 0, table.stderr
    assert "| none | 50.0 | 50.0 | 1.5 |" in table.stdout and "| both | 100.0 | 100.0 | 1.5 |" in table.stdout
    assert "| tcb | not yet run | | |" in table.stdout
    assert "| both − none | +50.0 | [+50.0, +50.0] | [+50.0, +50.0] | holds |" in table.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    again.add(Place("stc", "both", 0, 0), {"wrong": {"fight/elsewhere": "other"}, "seconds": 90})
    table = subprocess.run([*script, f"--data={tmp_path}", f"--record={file}"], capture_output=True, text=True)
    assert table.returncode != 0 and "test videos of another set: fight/elsewhere" in table.stderr


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
