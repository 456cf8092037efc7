"""Several labels for each video: losses and metrics against independent ones, and a run from a table to its export."""

import csv
import dataclasses
import functools
import itertools
import json
import pathlib
import re
import shutil
import types

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_train
import tiny
import torch
from commands import ROOT, check_user_error
from flax import nnx

from jax_video import losses, metrics, objectives, optimizer, published, recipe, sharding, task
from jax_video import state as state_lib
from jax_video import train as train_lib
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions
from jax_video.errors import CheckpointError, UserError
from jax_video.mixing import Mixing
from jax_video.multilabel import MultiLabel
from jax_video.reporting import labels as labels_page
from jax_video.reporting import record
from jax_video.reporting.writing import write_report
from jax_video.run import load
from jax_video.testing import fusion, overlay, predictions
from jax_video.timeline import Timeline
from jax_video.watching import Moment
from jax_video.weights import conversion, files

bce = functools.partial(torch.nn.functional.binary_cross_entropy_with_logits, reduction="none")


def average_precision(scores, label) -> float:
    """By its definition: at every score as a threshold, by counting."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [bool(of) for score, of in zip(scores, label, strict=True) if score >= threshold]
        recall = sum(taken) / sum(label)
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


def f1(taken, label) -> float:
    right = sum(bool(t and of) for t, of in zip(taken, label, strict=True))
    return 2 * right / max(1, sum(map(bool, taken)) + sum(map(bool, label)))


def test_average_precision_is_what_its_definition_says_also_of_equal_scores():
    rng = np.random.default_rng(0)
    for number in range(100):
        scores = rng.integers(0, [3, 10, 10**6][number % 3], 30) / 7.0
        label = rng.random(30) < 0.4
        label[number % 30] = True
        assert metrics.curve(scores, label).average_precision == pytest.approx(average_precision(scores, label))
    # Of scikit-learn's documentation.
    assert metrics.curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])).average_precision == pytest.approx(
        0.8333333, abs=1e-6
    )
    assert metrics.curve(np.arange(3.0), np.zeros(3)) is None


def test_map_is_over_the_classes_that_a_video_has():
    scores = np.array([[0.9, 0.2, 0.5], [0.8, 0.7, 0.1], [0.1, 0.6, 0.3]])
    label = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0]])
    found = metrics.label_metrics(scores, label)
    assert found["class_ap"] == [pytest.approx((1 + 2 / 3) / 2), pytest.approx(0.5), None]
    assert found["map"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert found["hit1"] == 1, "of the first and the third: the second has no label, and cannot be right"
    assert metrics.label_metrics(scores[:, ::-1], label)["hit1"] == 0.5


def test_thresholds_have_the_best_f1_and_lie_between_two_scores():
    rng = np.random.default_rng(1)
    for number in range(50):
        scores = rng.integers(0, 4 + 100 * (number % 2), (20, 3)) / 103
        label = rng.random((20, 3)) < 0.4
        label[:, 2] = False
        found = metrics.best_thresholds(scores, label)
        assert found[2] == 0.5
        for column, of, threshold in zip(scores.T[:2], label.T[:2], found[:2], strict=True):
            best = max(f1(column >= each, of) for each in set(column)) if of.any() else 0
            assert f1(column >= threshold, of) == pytest.approx(best)
            assert threshold not in column or 0 in column
    close = np.array([[0.5], [np.nextafter(0.5, 0)]])
    assert metrics.best_thresholds(close, np.array([[1], [0]])) == 0.5


def test_f1_counts_decisions():
    rng = np.random.default_rng(2)
    scores, label, least = rng.random((40, 3)), rng.random((40, 3)) < 0.3, np.array([0.2, 0.5, 0.8])
    label[:, 1] = False
    taken = scores >= least
    found = metrics.f1_scores(metrics.tables(scores, label, least))
    assert found["micro_f1"] == pytest.approx(f1(taken.ravel(), label.ravel()))
    assert found["macro_f1"] == pytest.approx(np.mean([f1(taken[:, k], label[:, k]) for k in (0, 2)]))
    edge = metrics.tables(np.array([[0.5]]), np.array([[1]]), np.array([0.5]))
    assert edge.tolist() == [[[0, 0], [0, 1]]], "at the threshold it holds"


def test_the_loss_is_pytorchs_with_smoothing_and_for_every_frame():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(6, 5)).astype(np.float32) * 9, (rng.random((6, 5)) < 0.4).astype(np.float32)
    target = torch.from_numpy(label) * 0.7 + 0.15
    found = losses.sigmoid_cross_entropy(jnp.asarray(logits), jnp.asarray(label), 0.3)
    np.testing.assert_allclose(found, bce(torch.from_numpy(logits), target).mean(1), rtol=1e-5)
    frames = rng.normal(size=(6, 3, 2, 2, 5)).astype(np.float32)
    target = torch.from_numpy(label)[:, None, None, None]
    expected = bce(torch.from_numpy(frames), target.expand(6, 3, 2, 2, 5)).mean((2, 3, 4)).sum(1)
    two = losses.video_sigmoid_cross_entropy((jnp.asarray(frames), jnp.asarray(frames)), jnp.asarray(label))
    np.testing.assert_allclose(two, 2 * expected, rtol=1e-5)
    one = losses.video_sigmoid_cross_entropy(jnp.asarray(frames), jnp.asarray(label), reduction="mean")
    np.testing.assert_allclose(one, expected / 3, rtol=1e-5)


def several(rows: dict, *, seed: int = 0) -> dict:
    label = np.random.default_rng(seed).random((len(rows["label"]), test_train.CLASSES)) < 0.3
    return rows | {"label": label.astype(np.float32)}


class Mean(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(jnp.arange(15.0).reshape(3, 5) / 7)

    def __call__(self, video, *, keys=None):
        return video.mean((1, 2, 3)) @ self.scale[...]


def test_the_target_is_mixed_as_the_video_is():
    objective, rows = MultiLabel(smoothing=0.2, mixing=Mixing(mixup=1.0)), 8
    keys = jax.random.split(jax.random.key(7), rows)
    batch = several(test_train.batches(8, steps=1, rows=rows)[0]) | {"keys": keys}
    definition, params, batch_stats = state_lib.split(Mean())
    loss, (_, sums) = objective.train(definition, params, batch_stats, batch)
    streams, share = objective.mixing(state_lib.inputs(batch), jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys))
    logits = np.asarray(streams[0]).mean((1, 2, 3)) @ np.asarray(params["scale"])
    share, label = np.asarray(share)[:, None], batch["label"]
    target = 0.8 * (share * label + (1 - share) * label[[row ^ 1 for row in range(rows)]]) + 0.1
    expected = bce(torch.from_numpy(logits), torch.from_numpy(target)).mean()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    right = sum(label[row, logits[row].argmax()] for row in range(rows))
    assert (float(sums["hit1"]), float(sums["labelled"])) == (right, label.any(axis=1).sum())


def test_hits_are_counted_once_however_a_batch_is_divided():
    """Into micro-batches, some of which hardly have a label."""
    rng = np.random.default_rng(4)
    logits, label = rng.normal(size=(16, 5)), (rng.random((16, 5)) < 0.3).astype(np.float32)
    label[:8] *= np.arange(8)[:, None] == 3
    for size in (16, 8, 4, 1):
        meter = metrics.Meter()
        for start in range(0, 16, size):
            rows = slice(start, start + size)
            meter.add(MultiLabel().train_sums(jnp.zeros(size), jnp.asarray(logits[rows]), {"label": label[rows]}))
        assert meter.means() == {"loss": 0, "hit1": pytest.approx(metrics.label_metrics(logits, label)["hit1"])}
    meter.add(MultiLabel().train_sums(jnp.zeros(2), jnp.asarray(logits[:2]), {"label": 0 * label[:2]}))
    assert meter.means()["hit1"] == 0, "of none"


def two_steps(devices: int, accumulate: int) -> tuple[list[float], dict]:
    mesh, tx = test_train.first_devices(devices), optimizer.make(1e-2)
    with jax.enable_x64(True):
        network, objective = Mean(), MultiLabel(smoothing=0.1, mixing=Mixing(mixup=0.4, cutmix=1.0))
        definition = state_lib.split(network)[0]
        step = train_lib.make_train_step(definition, tx, mesh, accumulate=accumulate, objective=objective)
        state, found = sharding.place_state(state_lib.create(network, tx), mesh), []
        for rows in test_train.batches(16, steps=2):
            state, sums = step(state, sharding.place_batch(several(rows), mesh), test_train.KEY)
            found.append(float(sums["loss"]))
        return found, jax.device_get(state.params)


def test_one_device_is_eight_with_micro_batches():
    found, params = two_steps(1, 1)
    others, their_params = two_steps(8, 2)
    np.testing.assert_allclose(others, found, rtol=1e-9)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-7), their_params, params)


@pytest.mark.parametrize("average", ["probability", "logit"])
def test_the_metrics_of_videos(average):
    rng = np.random.default_rng(3)
    logits, label = rng.normal(size=(30, 4)), rng.random((30, 4)) < 0.4
    probabilities = 1 / (1 + np.exp(-logits))
    objective = MultiLabel(average=average)
    scores = logits if average == "logit" else probabilities
    found = objective.metrics(scores, label)
    expected = bce(torch.from_numpy(logits), torch.from_numpy(label.astype(float))).mean().item()
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    assert found["map"] == pytest.approx(np.mean([average_precision(logits[:, k], label[:, k]) for k in range(4)]))
    at_half = objective.metrics(scores, label, np.full(4, 0.5))
    assert at_half["micro_f1"] == pytest.approx(f1((logits >= 0).ravel(), label.ravel()))
    assert found["macro_f1"] >= at_half["macro_f1"], "at its own thresholds it is flattered"
    assert metrics.headline(found) == ("map", found["map"])


def test_a_probability_that_is_rounded_to_one_is_no_infinite_loss():
    found = MultiLabel().metrics(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert found["loss"] == pytest.approx((25 * np.log(2) - np.log(np.finfo(np.float32).tiny)) / 2)
    with pytest.raises(UserError, match="NaN or infinite"):
        MultiLabel().metrics(np.array([[np.nan, 0.0]]), np.array([[0.0, 1.0]]))


def test_a_config_without_a_word_on_it_learns_one_label():
    config = tiny.get_config()
    assert type(task.Task.of(config).objective) is objectives.Classification
    config.train.loss = "sigmoid"
    config.train.label_smoothing = 0.1
    assert task.Task.of(config).objective == MultiLabel("probability", smoothing=0.1)
    config.train.loss = "hinge"
    with pytest.raises(UserError, match="train.loss is 'hinge': choose softmax, .* or sigmoid"):
        task.Task.of(config)


# What is said of videos.


def timeline(thresholds=(0.5, 0.3, 0.9)) -> Timeline:
    starts = np.arange(5.0)
    rows = np.array([[0.6, 0.1, 0.1], [0.7, 0.4, 0.1], [0.2, 0.4, 0.1], [0.1, 0.1, 0.2], [0.6, 0.1, 0.8]])
    return Timeline(("walk", "wave", "fall"), starts, starts + 2, rows, "", np.array(thresholds))


def test_segments_of_several_classes_may_overlap_and_leave_gaps():
    found = timeline()
    assert [(part.start, part.end, part.name) for part in found.segments] == [
        (0.0, 2.5, "walk"),
        (1.5, 3.5, "wave"),
        (4.5, 6.0, "walk"),
    ]
    assert [part.probability for part in found.segments] == pytest.approx([0.65, 0.4, 0.6])
    rows = list(csv.reader(found.csv().splitlines()))
    assert rows[0][:3] == ["start", "end", "labels"]
    assert [row[2] for row in rows[1:]] == ["walk", "walk;wave", "wave", "", "walk"]
    assert found.json()["thresholds"] == [0.5, 0.3, 0.9] and "2\n" in found.srt()
    assert timeline((2, 2, 2)).segments == () and timeline((2, 2, 2)).table() == timeline((2, 2, 2)).srt() == ""


def test_a_video_is_drawn_with_a_lane_for_each_class_that_holds():
    frames = [(second, np.full((60, 80, 3), 90, np.uint8)) for second in (0.5, 2.0, 4.0)]
    drawn = [image for _, image in overlay.drawn(iter(frames), timeline())]
    upper, lower = ({tuple(pixel) for pixel in drawn[2][row].tolist()} - {(255, 255, 255)} for row in (-4, -1))
    assert len(upper) == len(lower) == 2 and upper & lower == {(0, 0, 0)}, "a colour, and nothing"
    none = [image for _, image in overlay.drawn(iter(frames), timeline((2, 2, 2)))]
    assert (none[0][:40] == 90).all(), "no label"
    assert not (drawn[0][:20] == 90).all() and (drawn[2][:20] == 90).all()


def test_a_moment_has_all_labels_that_hold():
    probabilities = {"walk": 0.7, "wave": 0.4, "fall": 0.1}
    common = (0.0, 2.0, probabilities, None, 0.1, 9, 0, 0, 0)
    assert Moment(*common).label == "walk" and Moment(*common).labels == ("walk",)
    assert Moment(*common, ("walk", "wave")).label == "walk, wave"
    assert Moment(*common, ()).label == "–" and Moment(*common, ()).labels == ()


def test_all_classes_that_hold_are_told_however_few_are_asked_for():
    scores, thresholds = np.array([0.2, 0.9, 0.3, 0.6]), np.array([0.1, 0.5, 0.4, 0.7])
    found = predictions.of("a.mp4", scores, tuple("abcd"), 2, thresholds)
    assert [(row["name"], row["holds"]) for row in found["classes"]] == [("b", True), ("d", False), ("a", True)]
    assert [row["name"] for row in predictions.of("a.mp4", scores, tuple("abcd"), 2)["classes"]] == ["b", "d"]


# A run, from a table to its export.

CLASSES = ("blue bar", "flicker", "red square")


def draw(path: pathlib.Path, labels: set[str], rng: np.random.Generator) -> None:
    frames = rng.integers(60, 90, (6, 32, 40, 3), np.uint8)
    row, column = rng.integers(0, 16), rng.integers(0, 24)
    if "blue bar" in labels:
        frames[:, row : row + 6] = (30, 30, 240)
    if "red square" in labels:
        frames[:, row : row + 14, column : column + 14] = (240, 30, 30)
    if "flicker" in labels:
        frames[::2] += 90
    motions.encode(path, frames)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """A folder with videos, their table, the prepared set `data`, and the run `run`."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "videos").mkdir()
    rng, rows = np.random.default_rng(0), []
    combinations = [set(some) for size in range(4) for some in itertools.combinations(CLASSES, size)]
    for number in range(48):
        labels = combinations[number % 8]
        draw(folder / "videos" / f"{number}.mp4", labels, rng)
        split = "train" if number < 24 else "val" if number < 36 else "test"
        rows.append((f"{number}.mp4", "|".join(sorted(labels)), split))
    with open(folder / "videos.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "labels", "split"), *rows])
    config = f"--config={ROOT}/tests/tiny.py"
    train = ("--config.data.manifest=data", "--workdir=run", "--config.train.epochs=10", "--config.train.ema=0")
    done = commands.run_each(
        [
            (
                "jax_video.prepare",
                ("table", "--videos=videos", "--table=videos.csv", "--label_separator=|", "--out=data"),
            ),
            ("jax_video.main", (config, *train, "--config.schedule.learning_rate=0.1")),
            ("jax_video.predict", ("videos/47.mp4", "videos/40.mp4", "--checkpoint=run", "--top=1")),
            ("jax_video.predict", ("videos/47.mp4", "--checkpoint=run", "--json")),
            ("jax_video.export", ("run", "--out=exported")),
        ],
        cwd=folder,
        timeout=900,
    )
    assert [each.code for each in done] == [0] * len(done), "\n".join(each.stderr for each in done if each.code)
    (folder / "said.json").write_text(json.dumps([(each.stdout, each.stderr) for each in done]))
    return folder


def said(folder: pathlib.Path, number: int) -> tuple[str, str]:
    return json.loads((folder / "said.json").read_text())[number]


def test_a_tiny_network_learns_several_labels_from_a_table(finished):
    prepared, _ = said(finished, 0)
    assert "videos: 3 classes; labels of a video: 1.5 on average, 3 at most, 6 have none" in prepared
    told, log = said(finished, 1)
    assert re.search(r"step \d+/30  train  loss [\d.]+  hit@1 [\d.]+%", log)
    assert re.search(r"step 30/30  val    loss [\d.]+  mAP [\d.]+%", log)
    result = json.loads((finished / "run" / "test.json").read_text())
    assert result["map"] > 0.7, "three times what chance gives, and more"
    assert re.search(rf"  mAP +{100 * result['map']:.2f} %\n", told) and "top-1" not in told
    rows = [json.loads(line) for line in (finished / "run" / "predictions.jsonl").read_text().splitlines()]
    assert [row["labels"] for row in rows][:3] == [
        ["blue bar", "flicker"],
        ["blue bar", "red square"],
        ["flicker", "red square"],
    ]
    scores = np.array([row["scores"] for row in rows])
    label = np.array([[name in row["labels"] for name in CLASSES] for row in rows])
    assert result["class_ap"] == pytest.approx(
        {name: average_precision(scores[:, k], label[:, k]) for k, name in enumerate(CLASSES)}
    )
    taken = scores >= [result["thresholds"][name] for name in CLASSES]
    assert result["micro_f1"] == pytest.approx(f1(taken.ravel(), label.ravel()))


def test_the_thresholds_are_those_of_the_best_checkpoints_validation(finished):
    run = load(finished / "run")
    rows = [json.loads(line) for line in (finished / "run" / "metrics.jsonl").read_text().splitlines()]
    maps = {row["step"]: row["map"] for row in rows if row["split"] == "val"}
    assert maps[run.step] == run.meta.validation["map"] == max(maps.values())
    means = run.mean_over_clips(
        run.score_clips, Manifest.read(finished / "data" / "manifest.jsonl"), "val", protocol=run.task.validation
    )
    np.testing.assert_allclose(run.thresholds, metrics.best_thresholds(means.values, means.label), rtol=1e-5)
    assert run.meta.to_json()["version"] == 3, "which earlier versions refuse"
    half = dataclasses.replace(run.meta, thresholds=None)
    other = type(run)(run.folder, run.config, half, run.step, run.definition, run.weights, run.mesh)
    assert other.thresholds.tolist() == [0.5] * 3


def test_a_checkpoint_without_thresholds_says_so_once(finished, tmp_path, capsys):
    """As one that was saved between two validations."""
    recipe.note.cache_clear()
    whole = load(finished / "run")
    assert not capsys.readouterr().err
    (tmp_path / "run").mkdir()
    published.write(tmp_path / "run", dataclasses.replace(whole.meta, thresholds=None), whole.step, whole.weights)
    for _ in range(2):
        assert load(tmp_path / "run").thresholds.tolist() == [0.5] * 3
    assert capsys.readouterr().err == (
        f"Checkpoint {whole.step} of {tmp_path / 'run'} has no thresholds, as none were chosen by a validation: each "
        "class holds from a probability of 0.5 on.\n"
    )


def test_predict_marks_what_holds(finished):
    run = load(finished / "run")
    found = run.classify([finished / "videos" / "47.mp4", finished / "videos" / "40.mp4"], timeout=None)
    least = dict(zip(CLASSES, run.thresholds, strict=True))
    stdout, stderr = said(finished, 2)
    assert "* holds: at or above the threshold of its class" in stderr
    blocks = re.findall(r"^(\S+\.mp4)\n((?:    .*\n)+)", stdout, re.MULTILINE)
    assert len(blocks) == 2
    for (_, lines), probabilities in zip(blocks, found, strict=True):
        marked = {name for name in CLASSES if re.search(rf"^    \d\.\d{{4}} \* {name}$", lines, re.MULTILINE)}
        assert marked == {name for name, probability in probabilities.items() if probability >= least[name]}
        shown = {name for name in CLASSES if name in lines}
        assert shown == marked | {next(iter(probabilities))}, "--top=1, and all that hold"
    line = json.loads(said(finished, 3)[0])
    assert {row["name"]: row["score"] for row in line["classes"]} == pytest.approx(found[0], abs=1e-5)
    assert {row["name"] for row in line["classes"] if row["holds"]} == {n for n in found[0] if found[0][n] >= least[n]}


def test_what_is_explained_has_the_probability_of_its_class_alone(finished):
    run = load(finished / "run")
    video = finished / "videos" / "47.mp4"
    found = run.explain(video, label="flicker", timeout=None)
    assert found.probability == pytest.approx(run.classify(video, timeout=None)["flicker"], abs=0.2)
    parts = [run.explain(video, label=name, timeout=None).probability for name in CLASSES]
    assert sum(parts) != pytest.approx(1, abs=1e-3)


def test_the_export_says_the_same_without_this_library(finished, monkeypatch):
    from jax_video.exporting import classify

    card = json.loads((finished / "exported" / "model.json").read_text())
    run = load(finished / "run")
    assert card["thresholds"] == run.thresholds.tolist()
    program = jax.export.deserialize(bytearray((finished / "exported" / "model.stablehlo").read_bytes()))
    video = finished / "videos" / "47.mp4"
    expected = run.classify(video, timeout=None)
    assert classify.classify(video, program, card) == pytest.approx(expected, abs=1e-5)
    logit = classify.classify(video, program, card | {"average": "logit"})
    assert logit == pytest.approx(expected, abs=0.1), "clips of so short a video hardly differ"
    two = card | {"clips": "uniform", "number": 2, "crop": "center", "flip": False}
    for average, means in (("probability", (0.74, 0.5, 0.06)), ("logit", (7 / 8, 1 / 2, 1 / 22))):
        differing = iter([np.array([[0.98, 0.5, 0.1]]), np.array([[0.5, 0.5, 0.02]])])  # odds of 49 and 1, and so on
        stand_in = types.SimpleNamespace(call=lambda clip, differing=differing: next(differing))
        found = classify.classify(video, stand_in, two | {"average": average})
        assert found == pytest.approx(dict(zip(CLASSES, means, strict=True)), abs=1e-6)
    page = (finished / "exported" / "README.md").read_text()
    assert "| mean average precision (mAP) |" in page and "| red square |" in page and "top-1" not in page
    assert "says which of 3 classes hold of a video, none or several" in page
    assert load(finished / "exported").thresholds.tolist() == run.thresholds.tolist()


@pytest.mark.parametrize("kind", ["set", "file"])
def test_weights_that_go_out_to_pytorch_and_back_are_of_several_labels(finished, tmp_path, kind):
    """By the set that is named, whose classes they have; or as the file says, where none is."""
    recipe.note.cache_clear()
    run, config = load(finished / "run"), tiny.get_config()
    path = tmp_path / ("out.npz" if kind == "set" else "out.pth")
    conversion.export(run, "3d-resnets", path)
    if kind == "set":
        np.savez(path, **files.read(path))  # as a file that tells nothing but arrays
    config.data.manifest = str(finished / "data") if kind == "set" else "motions"
    options = {"normalize": "2020"} if kind == "set" else {}
    report = conversion.convert(
        path, "3d-resnets", config, tmp_path / "back", given=("clip", "test", "data"), **options
    )
    assert "several may hold of a video, each from a probability of 0.5 on, as no thresholds are known" in report
    back, video = load(tmp_path / "back"), finished / "videos" / "47.mp4"
    assert back.classes == (CLASSES if kind == "set" else ("0", "1", "2"))
    assert back.thresholds.tolist() == [0.5] * 3
    if kind == "file":
        expected = dict(zip(CLASSES, back.classes, strict=True))
        expected = {expected[name]: value for name, value in run.classify(video, timeout=None).items()}
        assert back.classify(video, timeout=None) == pytest.approx(expected, abs=1e-6)
    else:
        assert isinstance(back.objective, MultiLabel)


def test_the_report_shows_every_class_and_the_surest_mistakes(finished, tmp_path):
    page = write_report(finished / "run", out=tmp_path / "report.html", explain=False).read_text()
    result = json.loads((finished / "run" / "test.json").read_text())
    for text in ("mAP", "hit@1", "Every class of the test", "Threshold", "Precision and recall"):
        assert text in page
    for name, ap in result["class_ap"].items():
        assert f"{100 * ap:.1f}\u202f%" in page and f"<bdi>{name}</bdi>" in page
    assert "Confusion" not in page and "top-5" not in page.lower()
    found = labels_page.surest(record.read(finished / "run"))
    counts = json.loads((finished / "run" / "confusion.json").read_text())["tables"]
    assert len(found) == sum(table[0][1] + table[1][0] for table in counts)
    assert [each.sure for each in found] == sorted((each.sure for each in found), reverse=True)
    for each in found:
        assert each.missed == (each.answer in each.label) == (each.probability < each.threshold)
    shutil.copytree(finished / "run", tmp_path / "other")
    both = write_report(finished / "run", tmp_path / "other", out=tmp_path / "both.html").read_text()
    assert "AP of A" in both and "Recall of A" not in both


def test_tested_runs_are_fused_and_averaged(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "other")
    done = commands.run_each(
        [
            ("jax_video.fuse", (finished / "run", tmp_path / "other", f"--out={tmp_path / 'fused'}")),
            ("jax_video.average", (finished / "run", tmp_path / "other")),
            ("jax_video.report", (tmp_path / "fused",)),
            ("jax_video.average", (finished / "run", tmp_path / "fused")),
        ],
        timeout=900,
    )
    assert [each.code for each in done] == [0] * 4, done
    result = json.loads((finished / "run" / "test.json").read_text())
    fused = json.loads((tmp_path / "fused" / "test.json").read_text())
    assert fused["map"] == pytest.approx(result["map"]) and "mAP   hit@1" in done[0].stdout
    assert f"{100 * result['macro_f1']:.2f} ± 0.00 %" in done[1].stdout and "macro F1" not in done[3].stdout
    assert "Fused scores have no thresholds" in (tmp_path / "fused" / "report.html").read_text()


def test_scores_of_one_label_are_not_added_to_those_of_several():
    one = fusion.Predictions("one", ("a", "b"), {"v": np.array([0.4, 0.6])}, {"v": "a"})
    two = dataclasses.replace(one, name="two", labels={"v": ("a", "b")})
    with pytest.raises(UserError, match="one is of one label for each video, two of several labels: their scores mean"):
        fusion.fuse([one, two], [1.0, 1.0])
    elsewhere = dataclasses.replace(one, labels={})
    assert fusion.measure(fusion.fuse([two, elsewhere], [1.0, 1.0]))["map"] == 1


def test_a_killed_run_goes_on_to_the_same_weights_and_thresholds(finished, tmp_path):
    """As the run was killed after step 12: what came later is not there."""
    shutil.copytree(finished / "run", tmp_path / "run")
    steps = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert len(steps) > 1
    for step in steps[1:]:
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    for name in ("test.json", "predictions.jsonl", "confusion.json", "report.html"):
        (tmp_path / "run" / name).unlink()
    done = commands.run(
        "jax_video.main",
        f"--config={ROOT}/tests/tiny.py",
        f"--config.data.manifest={finished / 'data'}",
        f"--workdir={tmp_path / 'run'}",
        *("--config.train.epochs=10", "--config.train.ema=0", "--config.schedule.learning_rate=0.1"),
        timeout=900,
    )
    assert done.code == 0, done.stderr
    assert f"Going on from step {steps[0]} " in done.stderr
    before, after = load(finished / "run"), load(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, before.weights, after.weights)
    assert before.meta.thresholds == after.meta.thresholds
    rows = [
        [
            {key: value for key, value in json.loads(line).items() if key != "examples_per_second"}
            for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (finished, tmp_path)
    ]
    assert rows[0] == rows[1]
    assert (finished / "run" / "predictions.jsonl").read_bytes() == (
        tmp_path / "run" / "predictions.jsonl"
    ).read_bytes()


def test_wrong_use_is_one_message(finished, tmp_path):
    tiny_config = f"--config={ROOT}/tests/tiny.py"
    data = f"--config.data.manifest={finished / 'data'}"
    single = motions.make(tmp_path, train=8, val=8, test=8, frames=6, width=40, height=32).parent
    done = commands.run_each(
        [
            ("jax_video.main", (tiny_config, data, "--config.train.loss=softmax", f"--workdir={tmp_path / 'a'}")),
            (
                "jax_video.main",
                (
                    tiny_config,
                    f"--config.data.manifest={single}",
                    "--config.train.loss=sigmoid",
                    f"--workdir={tmp_path / 'b'}",
                ),
            ),
            ("jax_video.main", (tiny_config, data, "--config.train.loss=hinge", f"--workdir={tmp_path / 'c'}")),
        ],
        timeout=900,
    )
    check_user_error(done[0], "train.loss is softmax, of one label for each video; the videos of 'videos' have several")
    check_user_error(done[1], "train.loss is sigmoid, of several labels; the videos of 'motions' have one label each")
    check_user_error(done[2], "train.loss is 'hinge': choose softmax")
    manifest = Manifest.read(finished / "data" / "manifest.jsonl")
    bare = tuple(dataclasses.replace(row, label=()) if row.split == "val" else row for row in manifest.videos)
    config = tiny.get_config()
    config.train.loss = "sigmoid"
    with pytest.raises(UserError, match="none of the 12 videos of the split 'val' of 'videos' has a label"):
        task.check(config, dataclasses.replace(manifest, videos=bare))
    run = load(finished / "run")
    one = dataclasses.replace(manifest, videos=tuple(dataclasses.replace(row, label=0) for row in manifest.videos))
    from jax_video.testing import results

    with pytest.raises(
        UserError, match="was trained for several labels, or none, and .* have one label for each video"
    ):
        results.test(run, one)
    with pytest.raises(CheckpointError, match="later version"):
        type(run.meta).from_json(run.meta.to_json() | {"version": 4}, run.folder)
