"""Checkpoints: what is kept, what comes back, and that nothing damaged or foreign is ever taken for sound."""

import contextlib
import dataclasses
import errno
import gc
import json
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from jax_video import checkpoint, optimizer, sharding
from jax_video import state as state_lib
from jax_video.checkpoint import Checkpoints
from jax_video.data import documents
from jax_video.data.manifest import Manifest
from jax_video.errors import CheckpointError, UserError
from jax_video.meta import Meta, check_same_run
from jax_video.models.layers import BatchNorm, Conv, Linear

# Where one of Orbax's reads fails, it forgets those beside it, of which Python warns when they are collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]

META = Meta({"seed": 0}, ("left", "right"), "abc", {"validated": 4})

tx = optimizer.make(lambda step: 0.1)


@pytest.fixture
def collected():
    yield
    gc.collect()


class Network(nnx.Module):
    def __init__(self, features=128, head="fc"):
        rngs = nnx.Rngs(0)
        self.conv1 = Conv(3, features, (1, 3, 3), rngs=rngs)
        self.bn1 = BatchNorm(features)
        setattr(self, head, Linear(features, 5, rngs=rngs))


def state(step: int = 1, *, ema: bool = True, **kwargs) -> state_lib.TrainState:
    """A state with other numbers at every step."""
    state = state_lib.create(Network(**kwargs), tx, ema=ema)
    rng = np.random.default_rng(step)
    state = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), state)
    return sharding.place_state(dataclasses.replace(state, step=np.int32(step)), sharding.make_mesh())


def target(*, ema: bool = True, **kwargs) -> state_lib.TrainState:
    """What a run that starts again asks for: shapes."""
    return jax.eval_shape(lambda: state_lib.create(Network(**kwargs), tx, ema=ema))


def network(like: state_lib.TrainState) -> dict:
    return {"params": like.params, "batch_stats": like.batch_stats}


@contextlib.contextmanager
def opened(workdir: pathlib.Path, **kwargs):
    with contextlib.closing(Checkpoints(workdir, sharding.make_mesh(), **kwargs)) as checkpoints:
        yield checkpoints


def write(workdir: pathlib.Path, *steps: int, top1: dict | None = None, ema: bool = True) -> None:
    with opened(workdir) as checkpoints:
        for step in steps:
            validation = {"top1": top1[step]} if top1 else None
            checkpoints.save(state(step, ema=ema), dataclasses.replace(META, progress={"validated": step}), validation)


def assert_same(found, expected) -> None:
    found, expected = state_lib.named_leaves(found), state_lib.named_leaves(expected)
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        assert found[name].dtype == leaf.dtype and found[name].sharding == leaf.sharding
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)


@pytest.mark.parametrize("ema", [False, True])
def test_what_is_saved_comes_back(tmp_path, ema):
    write(tmp_path, 3, ema=ema)
    with opened(tmp_path) as checkpoints:
        restored, meta = checkpoints.restore(target(ema=ema))
        assert_same(restored, state(3, ema=ema))
        machines = {"processes": 1, "devices": 8}
        expected = dataclasses.replace(META, progress={"validated": 3}, ema=ema, machines=machines)
        assert meta == expected == checkpoints.best_meta()

        weights, meta, step = checkpoints.read_best(network(target()))
        assert step == 3 and meta.classes == META.classes
        assert_same(weights, state(3).ema if ema else network(state(3, ema=False)))


@pytest.mark.parametrize(
    ("found", "expected"), [("float64", "set JAX_ENABLE_X64=1"), ("float32", "use the dtype that")]
)
def test_arrays_of_another_type_are_no_damage(found, expected, tmp_path):
    """As of a run in float64 that is opened without x64, or the other way round: nothing is put aside."""
    other = {"float32": np.float64, "float64": np.float32}[found]
    cast = lambda tree, kind: jax.tree.map(  # noqa: E731
        lambda leaf: leaf.astype(kind) if isinstance(leaf, jax.Array) and leaf.dtype == np.float32 else leaf, tree
    )
    with jax.enable_x64(True):
        with opened(tmp_path) as checkpoints:
            checkpoints.save(cast(state(3), found), META)
        wanted = jax.eval_shape(lambda: cast(state_lib.create(Network(), tx, ema=True), other))
    with jax.enable_x64(found == "float32"):
        with opened(tmp_path) as checkpoints:
            for read in (checkpoints.restore, lambda like: checkpoints.read_best(network(like))):
                with pytest.raises(CheckpointError, match=f"holds {found}, and .* is expected, .* first: {expected}"):
                    read(wanted)
            assert checkpoints.steps == [3]
    assert not (tmp_path / "corrupted").exists()


def test_a_run_that_has_not_begun(tmp_path):
    with opened(tmp_path) as checkpoints:
        assert checkpoints.restore(target()) is None and checkpoints.steps == []
        with pytest.raises(CheckpointError, match="there is no checkpoint in .*: is this a run's folder?"):
            checkpoints.best_meta()


def test_the_last_two_and_the_best_are_kept_also_over_a_restart(tmp_path):
    write(tmp_path, 1, 2, 3, 4, top1={1: 0.1, 2: 0.9, 3: 0.3, 4: 0.2})
    with opened(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 3, 4]
    write(tmp_path, 5, 6, top1={5: 0.5, 6: 0.6})
    write(tmp_path, 7)
    with opened(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps == [2, 6, 7]
        assert checkpoints.read_best(network(target()))[2] == 2
    write(tmp_path, 8, top1={8: 0.95})
    with opened(tmp_path) as checkpoints:
        assert checkpoints.steps == [7, 8]
        assert checkpoints.read_best(network(target()))[2] == 8


def test_saving_a_step_again_replaces_it(tmp_path):
    write(tmp_path, 1, 2)
    with opened(tmp_path) as checkpoints:
        again = dataclasses.replace(state(9), step=state(2).step)
        checkpoints.save(again, dataclasses.replace(META, origin={"again": True}), {"top1": 0.5})
        checkpoints.wait()
        assert checkpoints.steps == [1, 2]
        restored, meta = checkpoints.restore(target())
        assert_same(restored, again)
        assert meta.origin


def test_a_state_may_change_while_it_is_saved(tmp_path):
    """The next step is given the saved state's memory, before the files are written."""
    expected = jax.device_get(jax.tree.map(jnp.copy, state(1)))
    overwrite = jax.jit(lambda old: jax.tree.map(lambda leaf: leaf * 0 - 1, old), donate_argnums=0)
    with opened(tmp_path) as checkpoints:
        saved = state(1)
        checkpoints.save(saved, META)
        jax.block_until_ready(overwrite(saved))
        checkpoints.wait()
        restored, _ = checkpoints.restore(target())
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


# Damage


def flip(path: pathlib.Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> pathlib.Path:
    """A run's folder with checkpoints 1 and 2."""
    workdir = tmp_path_factory.mktemp("sound")
    write(workdir, 1, 2, top1={1: 0.2, 2: 0.3})
    return workdir


@pytest.fixture
def damaged(sound, tmp_path) -> pathlib.Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(sound, tmp_path / "run")


def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_is_used(damaged, caplog):
    largest = max(files(damaged / "checkpoints" / "2" / "network"), key=lambda path: path.stat().st_size)
    flip(largest, 4 * largest.stat().st_size)
    with caplog.at_level(logging.ERROR, logger="absl"), opened(damaged) as checkpoints:
        restored, meta = checkpoints.restore(target())
        assert checkpoints.steps == [1]
    assert_same(restored, state(1))
    assert meta.progress["validated"] == 1
    assert "checkpoint 2 is damaged" in caplog.text and "moved to" in caplog.text
    assert [path.name.split("-")[0] for path in (damaged / "corrupted").iterdir()] == ["2"]
    write(damaged, 2, top1={2: 0.3})  # the run gets there again
    with opened(damaged) as checkpoints:
        assert_same(checkpoints.restore(target())[0], state(2))


FAULTS = [
    OSError(errno.EIO, "Input/output error"),
    ValueError("PERMISSION_DENIED: Error opening \"/disk/d/1\" [os_error_code='13']"),
    ValueError("UNAVAILABLE: the store does not answer"),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes"),
]


def failing(fault: Exception):
    def fail(*_, **__):
        raise fault

    return fail


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault)[:20])
def test_what_cannot_be_read_just_now_is_not_damaged(damaged, monkeypatch, fault):
    """A sound checkpoint is not put aside as a disk, a store or memory fails, and no earlier one takes its place."""
    with opened(damaged) as checkpoints:
        with monkeypatch.context() as patched:
            patched.setattr(ocp.CheckpointManager, "restore", failing(fault))
            with pytest.raises(CheckpointError, match="cannot read checkpoint 2 in"):
                checkpoints.restore(target())
            with pytest.raises(CheckpointError, match="cannot read checkpoint 2 in"):
                checkpoints.read_best(network(target()))
        assert_same(checkpoints.restore(target())[0], state(2))
    assert not (damaged / "corrupted").exists()


def test_a_run_is_not_gone_on_with_while_its_validations_cannot_be_read(damaged, monkeypatch):
    """Its best checkpoint would be removed as one that was not validated."""
    monkeypatch.setattr(ocp.JsonCheckpointHandler, "restore", failing(FAULTS[0]))
    with pytest.raises(CheckpointError, match="cannot read checkpoint . in .*Input/output error"), opened(damaged):
        pass


def test_the_best_checkpoint_is_not_used_where_it_is_damaged(damaged, caplog):
    for path in files(damaged / "checkpoints" / "2" / "ema"):
        flip(path, 4 * path.stat().st_size)
    with opened(damaged, read_only=True) as checkpoints:
        weights, meta, step = checkpoints.read_best(network(target()))
    assert step == 1 and meta.progress["validated"] == 1
    assert_same(weights, state(1).ema)
    assert "checkpoint 2 of" in caplog.text and "trying the one before" in caplog.text
    assert (damaged / "checkpoints" / "2").is_dir(), "who only reads moves nothing"


@pytest.mark.parametrize("name", ["metrics/metrics", "_CHECKPOINT_METADATA"])
@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"top1": 0.0}'])
def test_damaged_files_beside_the_arrays_do_not_hide_the_best(tmp_path, name, content):
    write(tmp_path, 1, 2, 3, top1={1: 0.5, 2: 0.9, 3: 0.1})
    (tmp_path / "checkpoints" / "2" / name).write_text(content)
    with opened(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best_step() == 2
    write(tmp_path, 4, top1={4: 0.3})
    with opened(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 3, 4]


def test_validations_of_earlier_versions_are_read_from_where_they_are(tmp_path, caplog):
    write(tmp_path, 1, 2, 3, top1={1: 0.5, 2: 0.9, 3: 0.1})
    for path in (tmp_path / "checkpoints").glob("*/meta/metadata"):
        record = json.loads(path.read_text())
        del record["content"]["validation"]
        path.write_text(json.dumps(record | {"crc32": documents.checksum(record["content"])}))
    with opened(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best_step() == 2
    (tmp_path / "checkpoints" / "2" / "metrics" / "metrics").write_text("")
    with opened(tmp_path, read_only=True) as checkpoints, caplog.at_level(logging.ERROR):
        assert checkpoints.best_step() != 2
    with opened(tmp_path, read_only=True):
        assert "the validation of checkpoint 2 in" in caplog.text


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_from_nothing(damaged):
    for path in files(damaged / "checkpoints"):
        if "network" in path.parts:
            flip(path, 4 * path.stat().st_size)
    for _ in range(2):
        with opened(damaged) as checkpoints, pytest.raises(CheckpointError, match="every checkpoint of .* is damaged"):
            checkpoints.restore(target())


@pytest.mark.parametrize("places", [5, pytest.param(400, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_taken_for_sound(sound, tmp_path, places):
    """Anywhere in any file of the newest checkpoint: either it is noticed, or it made no difference."""
    rng = np.random.default_rng(0)
    parts = {"data": [], "rest": []}
    for path in files(sound / "checkpoints" / "2"):
        parts["data" if path.parent.name == "d" else "rest"].append(path)
    noticed = {part: 0 for part in parts}
    for place in range(places):
        part = ("data", "rest")[place % 2]
        sizes = np.array([path.stat().st_size for path in parts[part]])
        path = parts[part][rng.choice(len(sizes), p=sizes / sizes.sum())]
        name, bit = path.relative_to(sound), int(rng.integers(8 * path.stat().st_size))
        workdir = shutil.copytree(sound, tmp_path / str(place))
        flip(workdir / name, bit)
        with opened(workdir) as checkpoints:
            restored, meta = checkpoints.restore(target())
        aside = (workdir / "corrupted").exists()
        assert meta.progress["validated"] == (1 if aside else 2), f"bit {bit} of {name}"
        assert_same(restored, state(meta.progress["validated"]))
        noticed[part] += aside
        shutil.rmtree(workdir)
        gc.collect()
    print(f"noticed of {places // 2} flipped bits each: in data files {noticed['data']}, in others {noticed['rest']}")
    assert noticed["data"] >= places // 8  # many a byte is an older index of the same arrays


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32, ml_dtypes.bfloat16])
def test_every_bit_counts_in_a_checksum(dtype):
    array = np.random.default_rng(0).normal(100, 50, (3, 5)).astype(dtype)
    others = np.ones(2, np.float32)
    rows = []
    for bit in range(-1, 8 * array.nbytes):  # the first row is the array as it is
        data = bytearray(array.tobytes())
        if bit >= 0:
            data[bit // 8] ^= 1 << bit % 8
        rows.append(np.frombuffer(bytes(data), dtype).reshape(array.shape))
    sums = np.array([checkpoint._checksums({"a": row, "b": others}) for row in rows])  # [bits + 1, 2]
    assert (sums[1:, 0] != sums[0, 0]).all()
    assert (sums[:, 1] == sums[0, 1]).all()


def test_order_counts_in_a_checksum():
    array = np.arange(6, dtype=np.float32)
    assert checkpoint._checksums({"a": array}) != checkpoint._checksums({"a": array[::-1].copy()})


# Checkpoints of something else


def test_another_network_is_one_error_with_every_difference(damaged):
    with opened(damaged) as checkpoints:
        with pytest.raises(CheckpointError) as error:
            checkpoints.restore(target(features=6, head="head"))
        lines = [line.split() for line in str(error.value).splitlines()]
        assert ["missing", "params/head/kernel", "(6,", "5)"] in lines
        assert ["extra", "params/fc/bias", "(5,)"] in lines
        assert "shape    params/conv1/kernel: found (1, 3, 3, 3, 128), expected (1, 3, 3, 3, 6)" in str(error.value)
        assert "checkpoint 2 of" in str(error.value) and "Use the config" in str(error.value)
        assert checkpoints.steps == [1, 2], "a sound checkpoint stays where it is"
        with pytest.raises(CheckpointError, match="missing  params/head/bias"):
            checkpoints.read_best(network(target(head="head")))


def test_averages_that_were_not_saved_are_no_damage(tmp_path):
    write(tmp_path, 1, ema=False)
    with opened(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="saved without moving averages: use the train.ema"):
            checkpoints.restore(target(ema=True))
        assert checkpoints.steps == [1] and not (tmp_path / "corrupted").exists()


def test_a_store_that_cannot_be_reached_or_written_to(store):
    with pytest.raises(UserError, match="cannot reach gs://unreachable/run: RuntimeError: no route to the store"):
        Checkpoints("gs://unreachable/run", sharding.make_mesh())
    with pytest.raises(UserError, match="s3://bucket/run: a run is written to a local folder or to gs:// only. Mount"):
        Checkpoints("s3://bucket/run", sharding.make_mesh())


MANIFEST = Manifest("people", ("run", "walk"), "/videos", ())
CONFIG = {
    "seed": 0,
    "model": {"name": "resnet3d18"},
    "train": {"batch": 8, "micro_batch": None, "log_steps": 1, "checkpoint_steps": 2},
    "data": {"manifest": "a", "workers": 1},
    "test": {"clips": "uniform"},
    "schedule": {"drop_epochs": (3, 6)},
}
SAVED = Meta(CONFIG, ("run", "walk"), MANIFEST.hash)


def changed(**sections) -> dict:
    return CONFIG | {name: CONFIG[name] | values for name, values in sections.items()}


def check(meta=SAVED, config=CONFIG, manifest=MANIFEST) -> None:
    check_same_run(meta, config, manifest, pathlib.Path("runs/first"), devices=8)


def test_the_same_run_goes_on():
    check()
    check(dataclasses.replace(SAVED, config=changed(schedule={"drop_epochs": [3, 6]})))  # as JSON gives it back
    check(config=changed(data={"workers": 4}, test={"clips": "nonoverlap"}, train={"log_steps": 5}))
    check(config=changed(train={"checkpoint_steps": 5}))
    check(manifest=dataclasses.replace(MANIFEST, root="/moved"))


def test_it_goes_on_elsewhere_and_says_what_that_means(capsys):
    accumulating = changed(train={"micro_batch": 4})
    here = {"processes": 1, "devices": 8}
    check(dataclasses.replace(SAVED, machines=here))
    check(dataclasses.replace(SAVED, machines=here, config=accumulating), accumulating)
    assert capsys.readouterr().err == ""
    check(dataclasses.replace(SAVED, machines={"processes": 2, "devices": 8}, config=accumulating), accumulating)
    check(dataclasses.replace(SAVED, machines={"processes": 2, "devices": 4}))
    check(dataclasses.replace(SAVED, machines={"processes": 1, "devices": 4}, config=accumulating), accumulating)
    assert capsys.readouterr().err.splitlines() == [
        "processes: 2 before, 1 now; devices: 8 before, 8 now. The same clips in the same batches; results equal to "
        "rounding.",
        "processes: 2 before, 1 now; devices: 4 before, 8 now. The same clips in the same batches; results equal to "
        "rounding.",
        "processes: 1 before, 1 now; devices: 4 before, 8 now. The same clips in the same batches; with "
        "train.micro_batch=4 in other micro-batches, so that results differ.",
    ]


def test_another_config_is_one_error_with_every_change():
    config = changed(train={"batch": 16, "log_steps": 3}, model={"name": "resnet3d34", "width": 0.5})
    with pytest.raises(CheckpointError) as error:
        check(config=config)
    assert str(error.value).splitlines() == [
        "the run in runs/first was made with another config; it cannot go on with this one:",
        "  model.name: resnet3d18 -> resnet3d34",
        "  model.width: None -> 0.5",
        "  train.batch: 8 -> 16",
        "Give the old values, or another --workdir.",
    ]


def test_other_classes_or_their_order():
    with pytest.raises(CheckpointError, match=r"trained on 2 classes \(run, walk …\), 'people' has 2 \(walk, run …\)"):
        check(manifest=Manifest("people", ("walk", "run"), "/videos", ()))
    with pytest.raises(CheckpointError, match=r"5 classes \(… c, d, e …\), 'people' has 5 \(… c, e, d …\)"):
        check(dataclasses.replace(SAVED, classes=tuple("abcde")), manifest=Manifest("people", tuple("abced"), "", ()))


def test_another_manifest():
    with pytest.raises(CheckpointError, match="runs/first was trained on another manifest than 'others' is now"):
        check(manifest=dataclasses.replace(MANIFEST, name="others"))


def test_flow_that_was_computed_is_not_gone_on_with_from_a_store():
    stored = dataclasses.replace(MANIFEST, flow="/flow")
    check(dataclasses.replace(SAVED, stored_flow=True), manifest=stored)
    check(dataclasses.replace(SAVED, stored_flow=None), manifest=stored)  # a run that looks at none
    with pytest.raises(CheckpointError, match="begun with flow computed on the way; now it is stored by prepare"):
        check(dataclasses.replace(SAVED, stored_flow=False), manifest=stored)
    with pytest.raises(CheckpointError, match="begun with flow stored by prepare; now it is computed on the way"):
        check(dataclasses.replace(SAVED, stored_flow=True))


@pytest.mark.parametrize("seen", [True, False])
def test_processes_write_into_one_folder(seen, tmp_path, monkeypatch):
    """Of two, of which this is the first, and the other has a folder of its own, or not."""
    monkeypatch.setattr(checkpoint, "_BEHIND", 0.0)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(checkpoint.sharding, "on_first", lambda action: action())
    monkeypatch.setattr(checkpoint.multihost_utils, "broadcast_one_to_all", lambda value: value)
    monkeypatch.setattr(checkpoint.multihost_utils, "process_allgather", lambda value: np.array([value, value & seen]))
    said = "process 1 does not see what process 0 writes into .*two: all write into one folder"
    with contextlib.nullcontext() if seen else pytest.raises(UserError, match=said):
        checkpoint._check_shared(tmp_path / "two")
    assert [*(tmp_path / "two").iterdir()] == []
