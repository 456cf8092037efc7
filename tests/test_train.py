"""The training step: any number of devices and micro-batches gives the same run; and the loop around it."""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
import tiny
from flax import nnx
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from jax_video import beginning, lock, models, networks, optimizer, pictures, runlog, sharding, task
from jax_video import state as state_lib
from jax_video import train as train_lib
from jax_video.checkpoint import Checkpoints
from jax_video.data.manifest import Manifest, Packed, Video
from jax_video.data.sources import motions
from jax_video.errors import CheckpointError, UserError
from jax_video.failures import Failures
from jax_video.meta import Meta, check_same_run
from jax_video.models.convolution import max_pool
from jax_video.models.layers import BatchNorm, Conv, Dropout, Linear
from jax_video.models.stc import STCBasic
from jax_video.run import load
from jax_video.testing import results

STEPS, BATCH, CLASSES = 10, 32, 5
KEY = jax.random.key(0)


class Network(nnx.Module):
    """What networks are made of, once: stem, pool, an STC unit, dropout, head."""

    def __init__(self, *, num_classes=CLASSES, norm=BatchNorm, dtype=jnp.float32, rngs):
        layer = {"norm": norm, "dtype": dtype, "rngs": rngs}
        self.conv1 = Conv(3, 4, (1, 3, 3), strides=(1, 2, 2), padding=((0, 0), (1, 1), (1, 1)), dtype=dtype, rngs=rngs)
        self.bn1 = norm(4, dtype=dtype, rngs=rngs)
        stc = {"frames": 2, "branches": "both", "reduction": 2}
        self.layer1 = nnx.List([STCBasic(4, 4, stride=1, shortcut="B", preactivation=False, **stc, **layer)])
        self.dropout = Dropout(0.25)
        self.fc = Linear(4, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, video, *, keys=None):
        x = nnx.relu(self.bn1(self.conv1(video)))
        x = max_pool(x, (3, 3, 3), strides=(2, 2, 2), padding=((1, 1),) * 3)
        return self.fc(self.dropout(self.layer1[0](x).mean((1, 2, 3)), keys))


def small(**kwargs) -> nnx.Module:
    return Network(rngs=nnx.Rngs(0), **kwargs)


def stc_resnet18(**kwargs) -> nnx.Module:
    smallest = {"frames": 4, "width": 1 / 16, "layers": (1, 1, 1, 1)}
    return models.build("stc_resnet18", num_classes=CLASSES, rngs=nnx.Rngs(0), **smallest, **kwargs)


# Frames must leave BatchNorm more than a few values per channel, also in the last stage: it turns two values into -1
# and 1 however near to each other they are, and the order of float32 additions then decides which is which.
SIZES = {small: 16, stc_resnet18: 48}


def first_devices(count: int) -> Mesh:
    return jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def batches(size: int, steps: int = STEPS, rows: int = BATCH) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "rgb": rng.integers(0, 256, (rows, 4, size, size, 3), dtype=np.uint8),
            "label": rng.integers(0, CLASSES, rows).astype(np.int32),
            "video": np.arange(rows, dtype=np.int32),
            "mask": np.ones(rows, np.float32),
            "failed": np.zeros(rows, np.int32),
        }
        for _ in range(steps)
    ]


@functools.cache
def ten_steps(build, devices: int, group_size: int | None, accumulate: int):
    """(losses [STEPS], the state after them, compiled code) of one and the same run on so many devices.

    In float64: these are different programs, whose roundings in float32 every step of training magnifies.
    """
    mesh = first_devices(devices)
    tx = optimizer.make(1e-2)
    sharding.check_batch(BATCH, devices=devices, accumulate=accumulate, group_size=group_size)
    with jax.enable_x64(True):
        network = build(norm=functools.partial(BatchNorm, group_size=group_size), dtype=jnp.float64)
        step = train_lib.make_train_step(state_lib.split(network)[0], tx, mesh, accumulate=accumulate)
        state = sharding.place_state(state_lib.create(network, tx), mesh)
        placed = [sharding.place_batch(rows, mesh) for rows in batches(SIZES[build])]
        compiled = step.lower(state, placed[0], KEY).compile()
        losses = []
        for rows in placed:
            state, sums = compiled(state, rows, KEY)
            assert float(sums["count"]) == BATCH
            losses.append(float(sums["loss"]) / BATCH)
        return np.array(losses), jax.device_get(state), compiled.as_text()


slow = pytest.mark.slow
GROUPS = [None, BATCH // 8, BATCH // 16]  # the global batch, one group per device, two groups per device


@pytest.mark.parametrize(
    "build, group_size",
    [*((small, size) for size in GROUPS), *(pytest.param(stc_resnet18, size, marks=slow) for size in GROUPS)],
)
def test_one_device_is_eight(build, group_size):
    one, eight = (ten_steps(build, devices, group_size, 1) for devices in (1, 8))
    np.testing.assert_allclose(eight[0], one[0], rtol=1e-10)
    assert one[0].std() > 1e-3, "a run that stands still proves nothing"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), eight[1], one[1])


def test_norm_groups_make_a_difference():
    losses = [ten_steps(small, 1, group_size, 1)[0] for group_size in GROUPS]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert abs(losses[a] / losses[b] - 1).max() > 1e-4


@pytest.mark.parametrize("devices, accumulate, group_size", [(1, 4, 4), (8, 2, 2)])
def test_micro_batches_are_the_whole_batch(devices, accumulate, group_size):
    whole = ten_steps(small, devices, group_size, 1)
    accumulated = ten_steps(small, devices, group_size, accumulate)
    np.testing.assert_allclose(accumulated[0], whole[0], rtol=1e-10)
    # The running statistics too: they move once a step, by the mean over the micro-batches.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), accumulated[1], whole[1])


@pytest.mark.parametrize(
    "build, group_size, accumulate",
    [
        (small, None, 1),
        (small, 4, 1),
        (small, 2, 1),
        (small, 2, 2),
        *(pytest.param(stc_resnet18, s, 1, marks=slow) for s in GROUPS),
    ],
)
def test_no_device_gathers_what_others_hold(build, group_size, accumulate):
    code = ten_steps(build, 8, group_size, accumulate)[2]
    assert "all-reduce" in code and "num_partitions=8" in code
    assert not re.findall("all-to-all|collective-permute|collective-broadcast", code)
    gathered = re.findall(r"= \(?(\w+\[[\d,]*\]).* all-gather(?:-start)?\(", code)
    assert set(gathered) <= {f"s32[{BATCH}]"}  # of the batch's `failed`, and of nothing else


def test_a_micro_batch_has_rows_of_every_device():
    rows = jnp.arange(24).reshape(12, 2) // 2  # 2 devices of 6 rows, 3 micro-batches
    micro = sharding.split_micro_batches(rows, 2, 3)
    np.testing.assert_array_equal(micro[..., 0], [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]])


def test_one_step_after_the_other():
    mesh = first_devices(1)
    tx = optimizer.make(0.1, momentum=0.0, nesterov=False, weight_decay=0.0)
    network = small()
    step = train_lib.make_train_step(state_lib.split(network)[0], tx, mesh, ema=0.2)
    state = dataclasses.replace(state_lib.create(network, tx, ema=True), lr_scale=np.float32(0.1))
    old = state = sharding.place_state(state, mesh)
    before = copied(state)
    for number, batch in enumerate(batches(16, steps=3, rows=8), start=1):
        batch["failed"][:number] = 7
        state, sums = step(state, sharding.place_batch(batch, mesh), KEY)
        after = copied(state)
        assert int(after.step) == number
        np.testing.assert_array_equal(sums["failed"], batch["failed"])

        moved = jax.tree.map(np.subtract, before.params, after.params)
        norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(moved)))
        np.testing.assert_allclose(float(sums["gradient_norm"]) / 8, norm / (0.1 * 0.1), rtol=1e-3)

        decay = {1: 1 / 10, 2: 2 / 11, 3: 2 / 10}[number]  # a short memory at first, up to the config's
        new = {"params": after.params, "batch_stats": after.batch_stats}
        expected = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, before.ema, new)  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.ema, expected)
        before = after
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old)), "the old state's memory serves the new one"


def copied(state: state_lib.TrainState) -> state_lib.TrainState:
    """In NumPy. A view of an array, which is what CPU devices give away, would keep it from being donated."""
    return jax.device_get(jax.tree.map(jnp.copy, state))


# The loop


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    folder = tmp_path_factory.getbasetemp()
    return Manifest.read(motions.make(folder, train=32, val=8, test=8, frames=8, width=40, height=32))


class Classifier(nnx.Module):
    """A network that compiles at once."""

    def __init__(self, *, num_classes, norm=BatchNorm, dtype=jnp.float32, rngs):
        self.bn1 = norm(3, dtype=dtype, rngs=rngs)
        self.fc = Linear(3, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, video, *, keys=None):
        return self.fc(nnx.relu(self.bn1(video)).mean((1, 2, 3)))


@pytest.fixture
def config(monkeypatch):
    """A run of 6 epochs of 4 steps."""
    monkeypatch.setitem(networks.NETWORKS, "classifier", networks.Network(f"{__name__}:Classifier"))
    config = tiny.get_config()
    config.model = ConfigDict({"name": "classifier"})
    config.clip.update(short_side=16, size=16)
    config.train.update(log_steps=4, checkpoint_steps=7)  # each costs as much as all steps
    config.schedule.update(kind="step", learning_rate=0.01, warmup_epochs=0)
    return config


def rows(workdir: pathlib.Path, split: str) -> dict[int, dict]:
    return {row["step"]: row for row in runlog.read(workdir / "metrics.jsonl") if row["split"] == split}


def initial(config: ConfigDict) -> state_lib.TrainState:
    """What a run of these begins with."""
    _, _, batch_stats = state_lib.abstract(config, 8)
    tx = optimizer.of(config, lambda step: 0.0, batch_stats)
    return jax.jit(lambda: state_lib.create(state_lib.network(config, 8), tx, ema=config.train.ema > 0))()


def weights(workdir: pathlib.Path, step: int, config: ConfigDict | None = None) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint, which must be that of `step`."""
    tx = optimizer.make(lambda step: 0.0)
    target = jax.eval_shape(lambda: state_lib.create(Classifier(num_classes=8, rngs=nnx.Rngs(0)), tx, ema=True))
    target = target if config is None else jax.eval_shape(functools.partial(initial, config))
    with contextlib.closing(Checkpoints(workdir, first_devices(1), read_only=True)) as checkpoints:
        assert checkpoints.steps[-1] == step
        restored, _ = checkpoints.restore(target)
    return jax.device_get(state_lib.named_leaves(restored))


def test_loop_logs_validates_saves_and_ends(tmp_path, config, manifest, monkeypatch):
    mesh, drawn = first_devices(2), []
    draw = pictures.confusion
    monkeypatch.setattr(pictures, "confusion", lambda names, matrix: drawn.append((names, matrix)) or draw(*drawn[-1]))
    assert train_lib.train(config, manifest, tmp_path, mesh)
    assert list(rows(tmp_path, "train")) == [4, 8, 12, 16, 20, 24]
    assert list(rows(tmp_path, "val")) == [8, 16, 24]
    assert {"loss", "top1", "top5", "gradient_norm", "failed", "learning_rate", "examples_per_second"} <= set(
        rows(tmp_path, "train")[4]
    )
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(json.dumps(config.to_dict()))
    found = weights(tmp_path, 24)
    assert int(found["step"]) == 24
    for (names, matrix), row in zip(drawn, rows(tmp_path, "val").values(), strict=True):
        assert names == manifest.classes and matrix.sum() == len(manifest.select("val"))
        assert np.trace(matrix) / matrix.sum() == row["top1"]
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert events.read_bytes().count(b"val/confusion") == 3
    assert events.read_bytes().count(b"train/batch") == 3  # of steps 1, 9 and 17

    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert not train_lib.train(config, manifest, tmp_path, mesh), "the run is finished"
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_steps_are_traced_and_computed_as_ever(tmp_path, config, manifest, capsys):
    config.train.update(steps=6, validate_epochs=100)
    for name, profile in (("plain", 0), ("traced", 2)):
        assert train_lib.train(config, manifest, tmp_path / name, first_devices(1), profile=profile)
    (traced,) = (tmp_path / "traced" / "tensorboard").rglob("*.xplane.pb")
    assert traced.parents[2].name == "plugins" and not list((tmp_path / "plain").rglob("*.xplane.pb"))
    assert b"train" in traced.read_bytes()
    found, expected = (rows(tmp_path / name, "train") for name in ("traced", "plain"))
    assert [row["loss"] for row in found.values()] == [row["loss"] for row in expected.values()]
    config.train.steps = 2
    assert train_lib.train(config, manifest, tmp_path / "short", first_devices(1), profile=2)
    assert "--profile: no step was traced; 3 go before" in capsys.readouterr().err


def test_a_run_goes_on_where_its_last_checkpoint_is(tmp_path, config, manifest):
    mesh = first_devices(2)
    train_lib.train(config, manifest, tmp_path, mesh)
    log = processes.rows(tmp_path)
    arrays = weights(tmp_path, 24)
    shutil.rmtree(tmp_path / "checkpoints" / "24")  # the one before is of step 21, in the middle of a row of the log
    assert train_lib.train(config, manifest, tmp_path, mesh)
    assert processes.rows(tmp_path) == log
    for name, leaf in weights(tmp_path, 24).items():
        assert leaf.tobytes() == arrays[name].tobytes(), name


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_checkpoint(tmp_path, config, manifest):
    mesh = first_devices(2)
    config.schedule.update(drop_epochs=(2,), drop_factor=1e30)  # from the ninth step on
    config.train.update(checkpoint_steps=4, epochs=2)
    train_lib.train(config, manifest, tmp_path / "good", mesh)
    config.train.epochs = 4
    refused = r"step (9|10|11) is not finite.*learning_rate.*, in another --workdir: .*bad goes on only as it was begun"
    with pytest.raises(UserError, match=refused):
        train_lib.train(config, manifest, tmp_path / "bad", mesh)
    good, kept = weights(tmp_path / "good", 8), weights(tmp_path / "bad", 8)
    assert good.keys() == kept.keys()
    for name, leaf in good.items():
        np.testing.assert_array_equal(kept[name], leaf, err_msg=name)
        assert np.isfinite(leaf).all()
    assert all(np.isfinite(row["loss"]) for row in runlog.read(tmp_path / "bad" / "metrics.jsonl"))


def test_a_validation_that_is_not_finite_says_what_a_loss_says(tmp_path, config, manifest, monkeypatch):
    """The checkpoint before it has diverged, too, and is named."""
    mean_over_clips = train_lib.scoring.mean_over_clips

    def diverged(*arguments, **given):
        found = mean_over_clips(*arguments, **given)
        return dataclasses.replace(found, values=found.values * np.inf)

    monkeypatch.setattr(train_lib.scoring, "mean_over_clips", diverged)
    refused = (
        r"validation videos of step 8 is not finite.*Remove .*/checkpoints/8, .*Lower --config.schedule.learning_rate"
    )
    with pytest.raises(UserError, match=refused):
        train_lib.train(config, manifest, tmp_path, first_devices(1))


def test_a_worker_that_the_system_ends_costs_no_step(tmp_path, config, manifest, monkeypatch):
    """As where memory is short."""
    train_lib.train(config, manifest, tmp_path / "whole", first_devices(1))
    whole = train_lib.pipeline.train_batches

    def short(*arguments, **given):
        yield from itertools.islice(whole(*arguments, **given), 5)
        raise RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search the logs above")

    with monkeypatch.context() as patched:
        patched.setattr(train_lib.pipeline, "train_batches", short)
        with pytest.raises(UserError, match="ended by the system .*-9.*Fewer --config.data.workers .* Saved is step 5"):
            train_lib.train(config, manifest, tmp_path / "ended", first_devices(1))
    assert train_lib.train(config, manifest, tmp_path / "ended", first_devices(1))
    assert processes.rows(tmp_path / "ended") == processes.rows(tmp_path / "whole")


def test_a_run_goes_on_with_the_pixels_that_it_began_with(tmp_path, config, manifest):
    """Packed anew with another side or quality, a set has the same hash."""
    meta = Meta(config.to_dict(), manifest.classes, manifest.hash, packed=[128, 90])
    for side, quality, refused in ((128, 90, False), (128, 30, True), (32, 90, True), (0, 0, True)):
        packed = Packed("frames", 32, side, quality) if side else None
        now = dataclasses.replace(manifest, packed=packed)
        now.__dict__["hash"] = manifest.hash
        with pytest.raises(UserError, match=r"packed as \[128, 90\]") if refused else contextlib.nullcontext():
            check_same_run(meta, config.to_dict(), now, tmp_path, 1)
        check_same_run(dataclasses.replace(meta, packed=None), config.to_dict(), now, tmp_path, 1)


def test_the_plateau_rule_lowers_the_rate_and_ends_the_run(tmp_path, config, manifest, capsys):
    mesh = first_devices(2)
    config.train.update(validate_epochs=1, epochs=20)
    config.schedule.kind = "plateau"
    config.plateau.update(patience=1, drops=1, threshold=0.999)  # no loss is better than the first by nearly all of it
    assert train_lib.train(config, manifest, tmp_path, mesh)
    rates = {step: row["learning_rate"] for step, row in rows(tmp_path, "train").items()}
    assert rates == pytest.approx({4: 0.01, 8: 0.01, 12: 0.001})
    assert list(rows(tmp_path, "val")) == [4, 8, 12]
    assert float(weights(tmp_path, 12)["lr_scale"]) == pytest.approx(0.01 / 0.1)
    said = capsys.readouterr().err
    assert "The learning rate is divided by 10: 1 validations were no lower in loss (step 8 of 80)." in said
    assert "Stopped: 1 validations were no lower in loss, and the rate has had its 1 drops (step 12 of 80)." in said
    assert not train_lib.train(config, manifest, tmp_path, mesh)


def test_a_run_without_a_better_validation_ends_early(tmp_path, config, manifest, capsys):
    mesh = first_devices(2)
    config.train.update(validate_epochs=1, epochs=9, patience=2, keep=1, checkpoint_steps=1)
    config.schedule.learning_rate = 0.0  # so that nothing becomes better; running statistics are as good at once
    config.train.ema = 0.0
    assert train_lib.train(config, manifest, tmp_path / "whole", mesh)
    ended = list(rows(tmp_path / "whole", "val"))[-1]
    assert (
        ended < 36 and f"Stopped early: 2 validations were no better (step {ended} of 36)." in capsys.readouterr().err
    )
    assert not train_lib.train(config, manifest, tmp_path / "whole", mesh), "it is finished"
    kept = sorted(int(path.name) for path in (tmp_path / "whole" / "checkpoints").iterdir() if path.name.isdigit())
    assert kept[-1] == ended and len(kept) <= 2, "the last one and the best"

    config.train.update(steps=ended - 2, epochs=None, patience=None)
    with pytest.raises(CheckpointError, match="train.patience: 2 -> None"):
        train_lib.train(config, manifest, tmp_path / "whole", mesh)


def test_a_finished_run_is_extended_by_a_schedule_of_its_own(tmp_path, config, manifest, capsys):
    mesh = first_devices(2)
    config.train.update(epochs=2, checkpoint_steps=4, keep=5)
    config.schedule.update(kind="cosine", learning_rate=0.01)
    whole = tmp_path / "whole"
    with pytest.raises(CheckpointError, match="there is no run in .* to extend: leave --extend out"):
        train_lib.train(config, manifest, whole, mesh, extend=True)
    train_lib.train(config, manifest, whole, mesh)
    with pytest.raises(CheckpointError, match=r"finished after step 8, and this config asks for 8 in all: --extend"):
        train_lib.train(config, manifest, whole, mesh, extend=True)
    before = rows(whole, "train")
    config.train.epochs, config.schedule.learning_rate = 5, 0.004
    with pytest.raises(CheckpointError, match=r"train.epochs: 2 -> 5\n.*trained for longer with --extend"):
        train_lib.train(config, manifest, whole, mesh)

    capsys.readouterr()
    assert train_lib.train(config, manifest, whole, mesh, extend=True)
    assert (
        "Extended from step 8 to 20: schedule cosine from its beginning, learning rate 0.004."
        in capsys.readouterr().err
    )
    after = rows(whole, "train")
    assert list(after) == [4, 8, 12, 16, 20] and {step: after[step] for step in before} == before
    cosine = [0.004 * (1 + math.cos(math.pi * (step - 9) / 12)) / 2 for step in (12, 16, 20)]  # of the step before each
    assert [after[step]["learning_rate"] for step in (12, 16, 20)] == pytest.approx(cosine, rel=1e-5)

    log, arrays = processes.rows(whole), weights(whole, 20)
    shutil.rmtree(whole / "checkpoints" / "20")  # stopped within what was added: both commands go on
    for extend, stopped in ((True, "16"), (False, "12")):
        for step in range(int(stopped) + 4, 21, 4):
            shutil.rmtree(whole / "checkpoints" / str(step), ignore_errors=True)
        assert train_lib.train(config, manifest, whole, mesh, extend=extend)
        assert processes.rows(whole) == log
        for name, leaf in weights(whole, 20).items():
            assert leaf.tobytes() == arrays[name].tobytes(), name
    assert not train_lib.train(config, manifest, whole, mesh), "it is finished"
    assert not train_lib.train(config, manifest, whole, mesh, extend=True), "the same command once more"
    assert processes.rows(whole) == log


@pytest.mark.parametrize(
    ("section", "values", "begin", "said"),
    [
        ("schedule", {"drop_epochs": (1,)}, 0, ""),
        ("schedule", {"drop_epochs": (3, 4)}, 0, "schedule.drop_epochs=3, is after the last of 12 steps."),
        (
            "schedule",
            {"drop_epochs": (), "drop_steps": (12,)},
            0,
            "schedule.drop_steps=12, is after the last of 12 steps.",
        ),
        ("schedule", {"drop_epochs": (1,)}, 8, "schedule.drop_epochs=1, is after the last of 4 steps that are added."),
        ("schedule", {"drop_steps": (2,)}, 8, ""),
        ("schedule", {"kind": "cosine"}, 0, "drop_epochs=1 has no effect with schedule.kind=cosine: it is"),
        ("schedule", {"kind": "cosine", "drop_epochs": ()}, 0, ""),
        ("schedule", {"drop_epochs": ()}, 0, ""),
        ("schedule", {"warmup_epochs": 3}, 0, "its warm-up, schedule.warmup_epochs=3, takes 12 steps of 12"),
        (
            "schedule",
            {"kind": "cosine", "drop_epochs": (), "warmup_epochs": 1},
            8,
            "its warm-up, schedule.warmup_epochs=1, takes 4 steps of 4",
        ),
        ("schedule", {"warmup_epochs": 2}, 0, ""),
        (
            "clip",
            {"jitter": (64, 80)},
            0,
            "Training scales the short side of clips to clip.jitter=(64, 80), validation",
        ),
        ("normalize", {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 1)}, 0, "normalize is as of RGB from 0 to 1, and"),
        ("norm", {"frozen": True}, 0, "norm.frozen: with no weights to start from, BatchNorm normalises nothing"),
        ("optimizer", {"kind": "adamw"}, 0, "adamw at a learning rate of 0.1, which is usual for SGD"),
    ],
)
def test_settings_that_train_badly_are_spoken_of(config, manifest, section, values, begin, said):
    """Drops of the rate are counted from the first step that is added."""
    config.train.update(epochs=3)
    config.schedule.update(kind="step", drop_epochs=(1,), drop_steps=(), learning_rate=0.1)
    assert beginning.doubts(config, manifest) == []
    config[section].update(values)
    found = beginning.doubts(config, manifest, begin)
    assert len(found) == bool(said) and all(said in line for line in found)


def test_a_run_that_is_not_finished_cannot_be_extended(tmp_path, config, manifest):
    mesh = first_devices(2)
    config.train.update(epochs=2, checkpoint_steps=4)
    train_lib.train(config, manifest, tmp_path, mesh)
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    config.train.epochs = 5
    with pytest.raises(CheckpointError, match="is at step 4 of 8, and not finished: go on with it first"):
        train_lib.train(config, manifest, tmp_path, mesh, extend=True)
    config.train.epochs, config.schedule.learning_rate = 2, 0.5  # no longer, but otherwise
    with pytest.raises(CheckpointError, match="is at step 4 of 8, and not finished: go on with it first"):
        train_lib.train(config, manifest, tmp_path, mesh, extend=True)


def test_a_run_that_ended_early_is_extended_with_its_rate_and_patience_anew(tmp_path, config, manifest):
    mesh = first_devices(2)
    config.train.update(validate_epochs=1, epochs=20)
    config.schedule.kind = "plateau"
    config.plateau.update(patience=1, drops=1, threshold=0.999)
    train_lib.train(config, manifest, tmp_path, mesh)
    assert list(rows(tmp_path, "val")) == [4, 8, 12]
    assert train_lib.train(config, manifest, tmp_path, mesh, extend=True), "it ended before its epochs"
    rates = {step: row["learning_rate"] for step, row in rows(tmp_path, "train").items()}
    assert rates == pytest.approx({4: 0.01, 8: 0.01, 12: 0.001, 16: 0.01, 20: 0.01, 24: 0.001})
    assert not train_lib.train(config, manifest, tmp_path, mesh, extend=True), "the same command once more"


def test_frozen_parts_stay_to_the_bit_and_have_no_momentum(tmp_path, config, manifest, monkeypatch, capsys):
    parts = {"norm": ("bn1",)}
    monkeypatch.setitem(networks.NETWORKS, "classifier", networks.Network(f"{__name__}:Classifier", parts=parts))
    config.train.update(epochs=1, freeze=("nothing",), validate_epochs=100)
    with pytest.raises(UserError, match="train.freeze names 'nothing', which classifier does not have: choose of norm"):
        task.check(config, manifest)
    assert not capsys.readouterr().err
    config.train.freeze = ("norm",)
    task.check(config, manifest)
    assert "norm: frozen as drawn at random. Give weights, init_from.path." in capsys.readouterr().err
    train_lib.train(config, manifest, tmp_path, first_devices(2))
    found, begun = weights(tmp_path, 4, config), state_lib.named_leaves(initial(config))
    changed = {name for name, leaf in begun.items() if not np.array_equal(found[name], leaf)}
    heads = {"params/fc/bias", "params/fc/kernel"}
    assert {name for name in changed if name.startswith(("params/", "batch_stats/"))} == heads
    assert not [name for name in found if name.startswith("opt_state") and "bn1" in name]


def test_what_is_frozen_needs_no_memory_for_its_activations(monkeypatch):
    """Nor for gradients: the step of a network of which only the head is trained takes less."""
    parts = {"stem": ("conv1", "bn1"), "layer1": ("layer1",)}
    monkeypatch.setitem(networks.NETWORKS, "small", networks.Network(f"{__name__}:Network", parts=parts))
    mesh, rows = first_devices(1), batches(32, steps=1)[0]

    def step(freeze):
        config = ConfigDict({"train": {"freeze": freeze}, "norm": {"frozen": False}, "model": {"name": "small"}})
        network = state_lib.freeze_norm(small(), config)
        options = {"freeze": freeze, "network": "small"}
        tx = optimizer.make(1e-2, **options)
        made = train_lib.make_train_step(state_lib.split(network)[0], tx, mesh, **options)
        return made.lower(state_lib.create(network, tx), rows, KEY).compile()

    whole, head = (step(freeze).memory_analysis() for freeze in ((), ("stem", "layer1")))
    assert head.temp_size_in_bytes < 0.7 * whole.temp_size_in_bytes
    assert head.argument_size_in_bytes < whole.argument_size_in_bytes


def test_consensus_trains_and_is_tested_on_clips_of_every_part_of_a_video(tmp_path, config, manifest):
    """T3D+TSN: a sample is a video, in training, validation and test."""
    config.model.consensus = True
    config.train.epochs = 2
    config.clip.update(frames=2, segments=3)
    config.test.clips = "segments"
    mesh = first_devices(1)
    task.check(config, manifest)
    train_lib.train(config, manifest, str(tmp_path), mesh)
    assert np.isfinite(rows(tmp_path, "val")[8]["loss"])
    result = results.test(load(tmp_path, config=config, mesh=mesh), manifest)
    assert result["videos"] == 8 and result["clip_top1"] == result["top1"], "one view of a video"
    config.clip.segments = 0
    with pytest.raises(UserError, match="test.clips is 'segments' and clip.segments 0"):
        task.check(config, manifest)
    config.test.clips = "uniform"
    with pytest.raises(UserError, match="clip.segments is 0 and model.consensus True"):
        task.check(config, manifest)


@pytest.mark.parametrize("plateau", [False, True])
def test_the_last_steps_are_logged_too(tmp_path, config, manifest, plateau):
    config.train.update(log_steps=50, epochs=2, validate_epochs=1)
    if plateau:
        config.train.epochs, config.schedule.kind = 9, "plateau"
        config.plateau.update(patience=1, drops=0, threshold=0.999)
    assert train_lib.train(config, manifest, tmp_path, first_devices(2))
    whole = rows(tmp_path, "train")
    assert list(whole) == [8]
    config.train.log_steps = 1
    train_lib.train(config, manifest, tmp_path / "each", first_devices(2))
    losses = [row["loss"] for row in rows(tmp_path / "each", "train").values()]
    assert whole[8]["loss"] == pytest.approx(np.mean(losses))


def test_a_network_without_batchnorm_and_dropout_is_trained_and_validated(tmp_path, config, manifest, monkeypatch):
    class Plain(nnx.Module):
        def __init__(self, *, num_classes, dtype, norm, rngs):
            self.norm, self.fc = nnx.LayerNorm(3, rngs=rngs), nnx.Linear(3, num_classes, rngs=rngs)

        def features(self, video):
            return self.norm(video)

        def __call__(self, video, *, keys=None):
            return self.fc(self.features(video).mean((1, 2, 3)))

    monkeypatch.setitem(networks.NETWORKS, "plain", networks.Network(Plain))
    config.model = ConfigDict({"name": "plain"})
    config.train.update(epochs=1, validate_epochs=1)
    assert train_lib.train(config, manifest, tmp_path, first_devices(1))
    assert list(rows(tmp_path, "val")) == [4]


def test_a_test_that_the_network_refuses_is_refused_before_training(tmp_path, config, manifest):
    config.model = ConfigDict({"name": "c3d", "width": 1 / 16, "frames": 16, "size": 32})
    config.clip.update(frames=16, size=32, short_side=32)
    config.test.update(clips="spread", number=5)
    with pytest.raises(UserError, match="the test's clips are 5 × 32 × 32, and the network refuses them: "):
        train_lib.train(config, manifest, tmp_path / "run", first_devices(1))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_epochs_that_are_no_passes_are_spoken_of(config, manifest):
    config.train.update(batch=23, epochs=3)
    config.schedule.kind = "cosine"
    assert len(manifest.select("train")) == 32
    (said,) = beginning.doubts(config, manifest)
    assert said == "An epoch is 1 step of 23 videos, 72% of the 32 there are: 3 epochs are 2.156 passes over them."


def test_a_run_without_validation_videos_goes_on_to_its_end(tmp_path, config, manifest):
    videos = tuple(video for video in manifest.videos if video.split != "val")
    without = dataclasses.replace(manifest, videos=videos)
    config.train.epochs = 2
    assert train_lib.train(config, without, tmp_path, first_devices(2))
    assert not rows(tmp_path, "val") and int(weights(tmp_path, 8)["step"]) == 8
    assert not train_lib.train(config, without, tmp_path, first_devices(2))


def test_a_batch_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, config, manifest):
    config.train.batch = 12
    with pytest.raises(UserError, match="a batch of 12 does not divide into 8 devices"):
        train_lib.train(config, manifest, tmp_path / "run", sharding.make_mesh())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_video_without_label_is_refused_before_anything_is_written(tmp_path, config, manifest, split):
    videos = list(manifest.videos)
    index, video = manifest.select(split)[3]
    videos[index] = dataclasses.replace(video, label=None)
    with pytest.raises(UserError, match=f"1 of the 48 videos of 'motions' have no label, {video.path} first"):
        train_lib.train(config, dataclasses.replace(manifest, videos=tuple(videos)), tmp_path / "run", first_devices(1))
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_taken_over_writes_nothing_more(tmp_path, config, manifest, monkeypatch):
    """Called from Python it raises; a command ends."""
    config.train.checkpoint_steps = 3
    stepped, done = runlog.RunLog.stepped, []

    def take_over(log):
        stepped(log)
        done.append(log)
        if len(done) == 6:
            (tmp_path / lock.NAME).write_text("another's")

    monkeypatch.setattr(runlog.RunLog, "stepped", take_over)
    with pytest.raises(lock.Lost, match="was taken over from this process"):
        train_lib.train(config, manifest, tmp_path, first_devices(1))
    assert list(rows(tmp_path, "train")) == [4]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert (tmp_path / lock.NAME).read_text() == "another's"


def test_many_unreadable_videos_stop_the_run(capsys):
    videos = tuple(Video(f"{n}.mp4", 0, "train", 8, 25.0, 40, 32, None, str(n)) for n in range(250))
    failures = Failures(Manifest("set", ("a",), "/videos", videos))
    failures.note(np.array([0, 0, 8]))
    failures.note(np.array([8, 0, 0]))  # the same one again
    failures.note(np.array([0, 1, 0]))
    shown = capsys.readouterr().err
    for name in ("0.mp4", "7.mp4"):
        assert shown.count(f"cannot read {name} any more: no such file") == 1
    with pytest.raises(UserError, match=r"3 videos, more than 1 %(.|\n)*  0.mp4\n  7.mp4\n  99.mp4\n.*/videos"):
        failures.note(np.array([100, 0, 0]))


def test_videos_whose_flow_prepare_could_not_compute_stop_no_run(tmp_path, capsys):
    """They were named at the start; the flow of others that cannot be read is, and counts."""
    videos = tuple(Video(f"{n}.mp4", 0, "train", 8, 25.0, 40, 32, None, str(n)) for n in range(100))
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "flow.json").write_text('{"method": "dis", "short_side": 32}')
    (tmp_path / "broken_flow.csv").write_text("split,path,reason\n" + "".join(f"train,{n}.mp4,x\n" for n in range(9)))
    manifest = Manifest("set", ("a",), "/videos", videos, str(tmp_path / "flow"))
    failures = Failures(manifest, ("flow",))
    failures.note(np.arange(11))
    assert capsys.readouterr().err.startswith("cannot read 9.mp4 any more: there is no flow of it")
    with pytest.raises(UserError, match=r"2 videos, more than 1 %(.|\n)*  9.mp4\n  11.mp4\n"):
        failures.note(np.array([12, 10]))


def test_a_number_of_steps_below_one_is_refused(tmp_path, config, manifest):
    config.train.log_steps = 0
    with pytest.raises(UserError, match="train.log_steps is 0: expected at least 1"):
        train_lib.train(config, manifest, tmp_path / "run", first_devices(1))


@pytest.mark.parametrize(("key", "value"), [("seed", -1), ("seed", 2**32), ("train.ema", -0.9), ("train.ema", 1.0)])
def test_seeds_and_averages_out_of_range_are_refused(tmp_path, config, manifest, key, value):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=f"{key} is {value}: expected a number from 0 on, below"):
        train_lib.train(config, manifest, tmp_path / "run", first_devices(1))
    assert not (tmp_path / "run").exists()


def test_a_config_of_others_is_not_written_over(tmp_path, config, manifest):
    (tmp_path / "config.json").write_text('{"architectures": ["mine"]}')
    with pytest.raises(UserError, match="holds a config.json that is no run's: choose another --workdir"):
        train_lib.train(config, manifest, tmp_path, first_devices(1))
    assert (tmp_path / "config.json").read_text() == '{"architectures": ["mine"]}'


def test_the_plateau_schedule_needs_validation_videos(tmp_path, config, manifest):
    videos = tuple(video for video in manifest.videos if video.split != "val")
    config.schedule.kind = "plateau"
    with pytest.raises(UserError, match="'motions' has no readable validation video"):
        train_lib.train(config, dataclasses.replace(manifest, videos=videos), tmp_path / "run", first_devices(1))
