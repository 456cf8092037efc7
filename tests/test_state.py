"""Networks taken apart and put together, and the state before the first step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import stc
from jax_video import models, networks, optimizer
from jax_video import state as state_lib
from jax_video.errors import UserError
from jax_video.models.layers import BatchNorm, Conv, Frozen, Linear

pytestmark = pytest.mark.usefixtures("strict_dtypes")


class Network(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = Conv(3, 4, (1, 3, 3), rngs=rngs)
        self.bn1 = BatchNorm(4)
        self.fc = Linear(4, 5, rngs=rngs)

    def __call__(self, video, *, keys=None):
        return self.fc(nnx.relu(self.bn1(self.conv1(video))).mean((1, 2, 3)))


def batch(rows=4):
    return {"rgb": np.random.default_rng(0).integers(0, 256, (rows, 2, 6, 6, 3), dtype=np.uint8)}


def test_rgb_is_normalised_by_imagenets_moments():
    rgb = np.array([[0, 0, 0], [255, 255, 255], [124, 116, 104]], np.uint8).reshape(1, 1, 1, 3, 3)
    expected = (rgb / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    normal = state_lib.normalize(jnp.asarray(rgb))
    assert normal.dtype == jnp.float32
    np.testing.assert_allclose(normal, expected, rtol=1e-5, atol=1e-6)


def test_applying_the_parts_is_calling_the_network():
    network = Network(nnx.Rngs(0))
    definition, params, batch_stats = state_lib.split(network)
    assert set(state_lib.named_leaves(params)) == {
        "conv1/kernel",
        "bn1/scale",
        "bn1/bias",
        "fc/kernel",
        "fc/bias",
    }
    assert set(state_lib.named_leaves(batch_stats)) == {"bn1/mean", "bn1/var"}

    logits, updated = state_lib.apply(definition, params, batch_stats, batch(), train=True)
    np.testing.assert_array_equal(logits, network(state_lib.normalize(batch()["rgb"])))
    np.testing.assert_array_equal(updated["bn1"]["mean"], network.bn1.mean[...])
    assert abs(np.asarray(updated["bn1"]["mean"])).min() > 0

    tested, kept = state_lib.apply(definition, params, batch_stats, batch(), train=False)
    assert kept is batch_stats
    view = nnx.view(Network(nnx.Rngs(0)), use_running_average=True)
    np.testing.assert_array_equal(tested, view(state_lib.normalize(batch()["rgb"])))
    alone, _ = state_lib.apply(definition, params, batch_stats, batch(1), train=False)
    np.testing.assert_allclose(alone[0], tested[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ema", [False, True])
def test_created_state(ema):
    tx = optimizer.make(0.1)
    state = state_lib.create(Network(nnx.Rngs(0)), tx, ema=ema)
    assert int(state.step) == 0 and float(state.lr_scale) == 1
    if not ema:
        assert state.ema is None and state.averaged == (state.params, state.batch_stats)
        return
    jax.tree.map(np.testing.assert_array_equal, state.ema, {"params": state.params, "batch_stats": state.batch_stats})
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers), "a buffer that is in a state twice cannot be donated"
    changed = dataclasses.replace(state, ema=jax.tree.map(lambda leaf: leaf + 1, state.ema))
    assert changed.averaged == (changed.ema["params"], changed.ema["batch_stats"])


def test_a_configs_network_and_its_shapes():
    config = stc.get_config("frames=4")
    config.model.update(width=1 / 16, layers=(1, 1, 1, 1))
    config.dtype = "bfloat16"
    config.norm.group_size = 2
    definition, params, batch_stats = state_lib.abstract(config, 7)
    found = state_lib.named_leaves({"params": params, "batch_stats": batch_stats})
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) and leaf.dtype == jnp.float32 for leaf in found.values())
    assert found["params/fc/kernel"].shape[1] == 7
    assert "params/layer4/0/stc/scb/fc1/kernel" in found and "params/layer1/1/conv1/kernel" not in found

    network = nnx.eval_shape(lambda: state_lib.network(config, 7))
    assert network.bn1.group_size == 2 and network.bn1.dtype == jnp.bfloat16
    assert state_lib.split(network)[0] == definition


class Two(nnx.Module):
    """BatchNorm in two parts, ours or Flax's."""

    def __init__(self, *, num_classes, ours=True, norm=BatchNorm, dtype=jnp.float32, rngs):
        make = norm if ours else nnx.BatchNorm
        self.bn1, self.bn2 = make(3, dtype=dtype, rngs=rngs), make(3, dtype=dtype, rngs=rngs)
        self.fc = Linear(3, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, video, *, keys=None):
        return self.fc(self.bn2(self.bn1(video)).mean((1, 2, 3)))


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(
    ("freeze", "frozen", "moves"), [(None, False, {"bn1", "bn2"}), (("stem",), False, {"bn2"}), (None, True, set())]
)
def test_the_statistics_of_frozen_batchnorm_stay(monkeypatch, ours, freeze, frozen, moves):
    parts = {"stem": ("bn1",), "rest": ("bn2",)}
    monkeypatch.setitem(networks.NETWORKS, "two", networks.Network(Two, {"ours": True}, parts=parts))
    config = stc.get_config()
    config.model = ConfigDict({"name": "two", "ours": ours})
    config.train.freeze, config.norm.frozen = freeze, frozen
    definition, params, given = state_lib.split(state_lib.network(config, 5))
    _, updated = state_lib.apply(definition, params, given, batch(), train=True)
    same = jax.tree.map(lambda old, new: bool((old == new).all()), given, updated)
    assert {name for name, kept in same.items() if kept != {"mean": True, "var": True}} == moves


@pytest.mark.parametrize("array", [np.arange(3.0), jnp.arange(3.0), nnx.Variable(jnp.arange(3.0))])
def test_an_array_of_no_kind_is_refused(array):
    """Training would not know whether it is learnt, or where to keep it."""
    model = nnx.Module()
    model.inner = nnx.Module()
    model.inner.places = array
    with pytest.raises(UserError, match=r"inner.places of Module is an array, but neither nnx.Param nor .*Frozen"):
        state_lib.split(model)
    model.inner.places = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="of Module is a random key: dropout is jax_video.models.layers.Dropout"):
        state_lib.split(model)
    model.inner.places = Frozen(jnp.arange(3.0))
    assert list(state_lib.named_leaves(state_lib.split(model)[2])) == ["inner/places"]


def test_keys_are_those_of_flax():
    ours, theirs = models.Keys(7), nnx.Rngs(7)
    for _ in range(3):
        np.testing.assert_array_equal(jax.random.key_data(ours.params()), jax.random.key_data(theirs.params()))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"mean": (127,)}, r"normalize.mean is \(127,\): expected three numbers, of red, green and blue"),
        ({"mean": 127}, "normalize.mean is 127: expected three numbers"),
        ({"mean": (1, 2, 3, 4)}, "expected three numbers"),
        ({"mean": (1, 2, float("nan"))}, "expected three numbers"),
        ({"mean": (1, 2, "3")}, "expected three numbers"),
        ({"std": [58, 0, 57]}, r"normalize.std is \[58, 0, 57\]: expected three numbers above 0"),
    ],
)
def test_a_normalisation_that_is_none(section, message):
    with pytest.raises(UserError, match=message):
        state_lib.Normalization.of(section)
    assert state_lib.Normalization.of({"mean": [1, 2.5, 3]}) == ((1, 2.5, 3), state_lib.IMAGENET.std)
