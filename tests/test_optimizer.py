"""The optimizer against PyTorch's, the schedules step by step, and the plateau rule."""

import dataclasses
import functools
import json
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import outlines
import pytest
import torch
from flax import nnx
from rounding import roundings

from jax_video import networks, optimizer, state
from jax_video.errors import UserError
from jax_video.models.layers import BatchNorm

SHAPES = {
    "conv1": {"kernel": (3, 3, 3, 2, 4)},
    "bn1": {"scale": (4,), "bias": (4,)},
    "fc": {"kernel": (4, 5), "bias": (5,)},
}
RATES = [0.1, 0.1, 0.05, 0.05, 0.01, 0.01]


def trees(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    return [
        jax.tree.map(lambda shape: rng.normal(size=shape).astype(np.float32), SHAPES, is_leaf=is_shape)
        for _ in range(count)
    ]


def ours(tx: optax.GradientTransformation, params: dict, gradients: list[dict]) -> dict:
    opt_state = tx.init(params)
    for gradient in gradients:
        updates, opt_state = tx.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    return params


def pytorchs(params: dict, gradients: list[dict], groups: list[dict], kind=torch.optim.SGD, **kwargs) -> dict:
    """The same with torch.optim; `groups` name their modules and their own options."""
    leaves = jax.tree.map(lambda leaf: torch.nn.Parameter(torch.tensor(leaf)), params)
    groups = [{**group, "params": jax.tree.leaves([leaves[module] for module in group["modules"]])} for group in groups]
    tx = kind([{k: v for k, v in group.items() if k != "modules"} for group in groups], lr=1.0, **kwargs)
    for rate, gradient in zip(RATES, gradients, strict=True):
        for leaf, value in zip(jax.tree.leaves(leaves), jax.tree.leaves(gradient), strict=True):
            leaf.grad = torch.tensor(value)
        for group in tx.param_groups:
            group["lr"] = rate
        tx.step()
    return jax.tree.map(lambda leaf: leaf.detach().numpy(), leaves)


def assert_close(found: dict, expected: dict) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay_norm", [True, False])
@pytest.mark.parametrize("frozen_norm", [True, False])
def test_sgd_is_pytorchs(nesterov, decay_norm, frozen_norm):
    params, *gradients = trees(1 + len(RATES))
    tx = optimizer.make(
        lambda step: jnp.asarray(RATES)[step],
        momentum=0.9,
        nesterov=nesterov,
        weight_decay=0.1,
        decay_norm=decay_norm,
        frozen_norm=frozen_norm,
        statistics={"bn1": {"mean": 0, "var": 0}},
    )
    groups = [{"modules": ["conv1", "fc"], "weight_decay": 0.1}]
    if not frozen_norm:
        groups.append({"modules": ["bn1"], "weight_decay": 0.1 if decay_norm else 0.0})
    expected = pytorchs(params, gradients, groups, momentum=0.9, nesterov=nesterov)
    assert_close(ours(tx, params, gradients), expected)
    if frozen_norm:
        np.testing.assert_array_equal(expected["bn1"]["scale"], params["bn1"]["scale"])


def rated(factor: float = 1.0, **kwargs) -> optax.GradientTransformation:
    return optimizer.make(lambda step: factor * jnp.asarray(RATES)[step], weight_decay=0.1, **kwargs)


@pytest.mark.parametrize(("network", "head"), [("", "fc"), ("resnet3d18", "fc"), ("headed", "conv1")])
def test_the_head_can_learn_faster(monkeypatch, network, head):
    """Whatever the network's record calls it; not a module that others call so, nor one within another."""
    if network == "headed":
        monkeypatch.setitem(networks.NETWORKS, network, networks.Network("", head=head))
    params, *gradients = [tree | {"unit": dict(tree)} for tree in trees(1 + len(RATES))]
    found = ours(rated(head_rate=10.0, network=network), params, gradients)
    assert_close(found, ours(rated(), params, gradients) | {head: ours(rated(10.0), params, gradients)[head]})


def test_the_head_of_a_transfer_is_all_but_the_student():
    first, *gradients = trees(1 + len(RATES))

    def wrapped(tree):
        return {"student": {"network": tree}, "fc": tree["fc"], "fc1": tree["conv1"], "classifier": tree["fc"]}

    params, *gradients = map(wrapped, (first, *gradients))
    found = ours(rated(head_rate=10.0, network="resnet3d18", transfers=True), params, gradients)
    expected = ours(rated(10.0), params, gradients) | {"student": ours(rated(), params, gradients)["student"]}
    assert_close(found, expected)


def test_the_gradient_is_clipped_as_pytorch_does():
    params, *gradients = trees(1 + len(RATES))
    groups = [{"modules": ["conv1", "bn1", "fc"], "weight_decay": 0.1}]
    clipped = []
    for gradient in gradients:
        leaves = jax.tree.map(lambda leaf: torch.nn.Parameter(torch.tensor(leaf)), gradient)
        for leaf in jax.tree.leaves(leaves):
            leaf.grad = leaf.detach().clone()
        assert torch.nn.utils.clip_grad_norm_(jax.tree.leaves(leaves), 4.0) > 4
        clipped.append(jax.tree.map(lambda leaf: leaf.grad.numpy(), leaves))
    expected = pytorchs(params, clipped, groups, momentum=0.9, nesterov=True)
    assert_close(ours(rated(clip_norm=4.0), params, gradients), expected)


PARTS = {
    "stem": ("conv1", "bn1"),
    "layer1": ("layer1",),
    "layer2": ("layer2",),
}


@pytest.fixture
def network(monkeypatch):
    """The name of a network of three parts and a head, and trees of its parameters."""
    monkeypatch.setitem(networks.NETWORKS, "parted", networks.Network("", parts=PARTS))
    return "parted", [tree | {"layer1": {0: tree["conv1"]}, "layer2": {0: tree["fc"]}} for tree in trees(7)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("layer_decay", value) for value in (0, -1.0, 1.5, float("nan"))],
        *[
            ("momentum", 1.0),
            ("momentum", -0.1),
            ("head_rate", -1.0),
            ("weight_decay", -1.0),
            ("clip_norm", float("inf")),
        ],
    ],
)
def test_values_that_cannot_be_are_refused(name, value):
    with pytest.raises(UserError, match=f"optimizer.{name} is {value!r}: expected"):
        optimizer.make(0.1, network="resnet3d18", **{name: value})


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay_norm", [True, False])
@pytest.mark.parametrize("frozen_norm", [True, False])
def test_adamw_is_pytorchs(decay_norm, frozen_norm, nesterov):
    """Whatever is said of SGD's momentum."""
    params, *gradients = trees(1 + len(RATES))
    of_bn1 = {"bn1": {"mean": 0, "var": 0}}
    tx = rated(kind="adamw", decay_norm=decay_norm, frozen_norm=frozen_norm, statistics=of_bn1, nesterov=nesterov)
    groups = [{"modules": ["conv1", "fc"], "weight_decay": 0.1}]
    if not frozen_norm:
        groups.append({"modules": ["bn1"], "weight_decay": 0.1 if decay_norm else 0.0})
    expected = pytorchs(params, gradients, groups, kind=torch.optim.AdamW, betas=(0.9, 0.999))
    found = ours(tx, params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)  # β₂ rounded to float32


def test_only_two_arrays_side_by_side_are_batchnorms():
    """Other arrays, and modules, may be called scale, too: they are trained and decayed."""

    def around(tree):
        conv1, fc = tree["conv1"], tree["fc"]
        return {"scale": conv1, "mixer": {"scale": fc["kernel"]}, "both": {"scale": conv1, "bias": tree}}

    params, *gradients = map(around, trees(1 + len(RATES)))
    of_bn1 = {"both": {"bias": {"bn1": {"mean": 0, "var": 0}}}}
    for option in ({"decay_norm": False}, {"frozen_norm": True, "statistics": of_bn1}):
        found, usual = ours(rated(**option), params, gradients), ours(rated(), params, gradients)
        norm, expected = found["both"]["bias"].pop("bn1"), usual["both"]["bias"].pop("bn1")
        assert_close(found, usual)
        assert not np.allclose(norm["scale"], expected["scale"]) and not np.allclose(norm["bias"], expected["bias"])


def test_frozen_layers_of_batchnorm_are_those_with_running_statistics():
    """Flax's too, with or without scale and offset; LayerNorm and GroupNorm have none, and are trained."""

    class Mine(nnx.Module):
        def __init__(self, rngs):
            self.whole, self.without = nnx.BatchNorm(2, rngs=rngs), nnx.BatchNorm(2, use_bias=False, rngs=rngs)
            self.layer, self.group = nnx.LayerNorm(2, rngs=rngs), nnx.GroupNorm(2, num_groups=1, rngs=rngs)
            self.ours = BatchNorm(2)

    _, params, batch_stats = state.split(Mine(nnx.Rngs(0)))
    tx = optimizer.make(0.1, weight_decay=0.0, frozen_norm=True, statistics=batch_stats)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    moved = {name: bool(np.all(update["scale"])) for name, update in updates.items()}
    assert moved == {"whole": False, "without": False, "ours": False, "layer": True, "group": True}


def test_layers_that_lack_scale_or_offset_are_not_decayed_either():
    class Mine(nnx.Module):
        def __init__(self, rngs):
            self.rms, self.layer = nnx.RMSNorm(2, rngs=rngs), nnx.LayerNorm(2, use_bias=False, rngs=rngs)
            self.offset, self.scale = (nnx.BatchNorm(2, rngs=rngs, **{key: False}) for key in ("use_scale", "use_bias"))
            self.group = nnx.GroupNorm(2, num_groups=1, use_scale=False, rngs=rngs)
            self.linear = nnx.Linear(2, 2, rngs=rngs)

    _, params, batch_stats = state.split(Mine(nnx.Rngs(0)))
    tx = optimizer.make(0.1, weight_decay=0.1, decay_norm=False, statistics=batch_stats)
    params = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    decayed = {name for name, update in updates.items() if any(np.any(leaf) for leaf in jax.tree.leaves(update))}
    assert decayed == {"linear"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": -0.05},
        {"learning_rate": float("nan")},
        {"warmup_epochs": -1},
        {"drop_factor": -0.1},
        {"drop_epochs": (-1,)},
        {"drop_steps": (3, float("inf"))},
        {"drop_epochs": ("3",)},
        {"drop_epochs": None},
        {"warmup_epochs": None},
    ],
)
@pytest.mark.parametrize("begin", [0, 5])
def test_schedules_of_impossible_numbers_are_refused(wrong, begin):
    given = {"kind": "step", "learning_rate": 0.1, "steps": 40, "steps_per_epoch": 1} | wrong
    with pytest.raises(UserError, match=f"schedule.{next(iter(wrong))} is .*: expected a finite number, 0 or more"):
        optimizer.schedule(**given, begin=begin)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_parts_rate_follows_from_its_depth(kind, network):
    name, (params, *gradients) = network
    found = ours(rated(kind=kind, layer_decay=0.5, network=name), params, gradients)
    depths = {"conv1": 3, "bn1": 3, "layer1": 2, "layer2": 1, "fc": 0}
    expected = {
        module: ours(rated(0.5**depth, kind=kind), params, gradients)[module] for module, depth in depths.items()
    }
    assert_close(found, expected)


@pytest.mark.parametrize("wrappers", [(), ("network",), ("network", "motion")])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_frozen_parts_stay_and_have_no_momentum(kind, wrappers, network):
    """Also within segment consensus, and in a stream within it. The norm that is clipped is that of what is trained."""
    name, given = network

    def wrap(tree):
        return functools.reduce(lambda inner, wrapper: {wrapper: inner}, reversed(wrappers), tree)

    def unwrap(tree):
        return functools.reduce(operator.getitem, wrappers, tree)

    params, *gradients = map(wrap, given)
    tx = rated(kind=kind, freeze=("stem", "layer2"), network=name, clip_norm=1.0)
    found = ours(tx, params, gradients)

    def trained(tree):
        return {module: unwrap(tree)[module] for module in ("layer1", "fc")}

    expected = ours(rated(kind=kind, clip_norm=1.0), trained(params), [trained(gradient) for gradient in gradients])
    assert_close(trained(found), expected)
    for module in ("conv1", "bn1", "layer2"):
        jax.tree.map(np.testing.assert_array_equal, unwrap(found)[module], given[0][module])
    momentum = sum(leaf.size for leaf in jax.tree.leaves(tx.init(params)) if leaf.ndim)
    sizes = sum(leaf.size for leaf in jax.tree.leaves(trained(params)))
    assert momentum == sizes * (2 if kind == "adamw" else 1)


def test_what_is_no_part_and_no_kind(network):
    name, (params, *_) = network
    with pytest.raises(UserError, match=r"train.freeze names 'layer9', which parted does not have: choose of stem"):
        optimizer.make(0.1, freeze=("stem", "layer9"), network=name).init(params)
    with pytest.raises(UserError, match="unknown optimizer kind 'adam': choose sgd or adamw"):
        optimizer.make(0.1, kind="adam")


def test_rates_by_part_need_parts(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "whole", networks.Network(""))
    optimizer.make(0.1, network="whole", layer_decay=1.0)
    with pytest.raises(UserError, match="optimizer.layer_decay is 0.7, but the record of whole names no parts"):
        optimizer.make(0.1, network="whole", layer_decay=0.7)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_module_of_a_network_but_its_head_is_in_one_part(name):
    options = {} if name == "inception3d" else outlines.small(name)  # of which that leaves blocks out
    _, params, _ = state.split(outlines.abstract(name, 5, **options))
    record = networks.find(name)
    modules = [module for part in record.parts.values() for module in part]
    for stream in params.values() if set(params) <= set(networks.WRAPPERS) else [params]:
        assert sorted([*modules, record.head]) == sorted(stream)


def test_an_early_stop_waits_for_either_to_be_better():
    rule = optimizer.EarlyStop(patience=2)
    seen = []
    for loss, metric in [(1.0, 0.5), (0.9, 0.5), (1.1, 0.4), (1.2, 0.6), (0.9, 0.6), (0.95, 0.6), (0.8, 0.6)]:
        rule.update(loss, metric)
        seen.append((rule.stale, rule.finished))
    assert seen == [(0, False), (0, False), (1, False), (0, False), (1, False), (2, True), (0, False)]
    assert optimizer.EarlyStop(**json.loads(json.dumps(dataclasses.asdict(rule)))) == rule


def rates(number: int, **kwargs) -> np.ndarray:
    schedule = optimizer.schedule(learning_rate=1.0, steps_per_epoch=5, **kwargs)
    return np.array([schedule(jnp.int32(step)) for step in range(number)])


def test_plateau_schedule_is_constant_and_warm_up_rises_to_it():
    np.testing.assert_allclose(rates(40, kind="plateau", steps=40), 1)
    warm = rates(40, kind="plateau", steps=40, warmup_epochs=2)
    # Never zero, and no step is flat.
    np.testing.assert_allclose(warm[:11], np.arange(1, 12) / 11, rtol=roundings(20))
    np.testing.assert_allclose(warm[10:], 1)


@pytest.mark.parametrize("warmup_epochs", [0, 1])
def test_step_schedule_drops_with_the_first_step_of_an_epoch(warmup_epochs):
    values = rates(40, kind="step", steps=40, drop_epochs=(3, 6), drop_factor=0.5, warmup_epochs=warmup_epochs)
    np.testing.assert_allclose(values[5 * warmup_epochs : 15], 1)
    np.testing.assert_allclose(values[15:30], 0.5)
    np.testing.assert_allclose(values[30:], 0.25)


@pytest.mark.parametrize("drops", [{"drop_epochs": (2, 2.1)}, {"drop_epochs": (2,), "drop_steps": (10,)}])
def test_drops_that_fall_on_one_step_all_count(drops):
    np.testing.assert_allclose(rates(12, kind="step", steps=12, **drops), [1.0] * 10 + [0.01] * 2, rtol=1e-6)


def test_step_schedule_drops_at_steps_too():
    values = rates(40, kind="step", steps=40, drop_steps=(7, 31), warmup_epochs=1)
    np.testing.assert_allclose(values[5:], np.repeat([1, 0.1, 0.01], [2, 24, 9]), rtol=1e-6)


@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_cosine_schedule_falls_to_zero_at_the_end(warmup_epochs):
    warmup = 5 * warmup_epochs
    values = rates(41, kind="cosine", steps=40, warmup_epochs=warmup_epochs)
    expected = (1 + np.cos(np.pi * np.arange(41 - warmup) / (40 - warmup))) / 2
    np.testing.assert_allclose(values[warmup:], expected, atol=1e-6)
    assert values[39] > 0 and values[40] == pytest.approx(0, abs=1e-7)


def test_unknown_schedule_names_the_known_ones():
    with pytest.raises(UserError, match="'linear': choose plateau, step or cosine"):
        optimizer.schedule(kind="linear", learning_rate=0.1, steps_per_epoch=5, steps=40)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 2, float("nan")])
def test_a_threshold_by_which_nothing_is_better_is_refused(threshold):
    with pytest.raises(UserError, match="plateau.threshold is .*: expected a fraction from 0 on, below 1"):
        optimizer.Plateau(threshold=threshold)


def test_plateau_divides_three_times_and_then_ends():
    plateau = optimizer.Plateau()
    plateau.update(1.0)
    scales = []
    while not plateau.finished:
        scales.append(plateau.lr_scale)
        plateau.update(0.9995)  # better, but not by a thousandth
    np.testing.assert_allclose(scales, np.repeat([1, 0.1, 0.01, 0.001], 10), rtol=1e-12)


@pytest.mark.parametrize(("name", "value", "least"), [("patience", 0, 1), ("patience", -1, 1), ("drops", -1, 0)])
def test_a_plateau_rule_that_would_never_act_is_refused(name, value, least):
    optimizer.Plateau(**{name: least})
    with pytest.raises(UserError, match=f"plateau.{name} is {value}: expected at least {least}"):
        optimizer.Plateau(**{name: value})


def test_a_better_loss_starts_the_patience_again():
    plateau = optimizer.Plateau()
    for loss in np.arange(30, 10, -1):
        for _ in range(10):  # the first of ten is better than all before, nine are not
            plateau.update(float(loss))
    assert (plateau.best, plateau.stale, plateau.dropped) == (11.0, 9, 0)
    plateau.update(11.0 * (1 - 0.9e-3))
    assert plateau.lr_scale == pytest.approx(0.1)
    plateau.update(11.0 * (1 - 1.1e-3))
    assert (plateau.stale, plateau.dropped) == (0, 1)


def test_a_loss_that_is_not_a_number_is_no_better():
    plateau = optimizer.Plateau(best=1.0)
    plateau.update(float("nan"))
    assert (plateau.best, plateau.stale) == (1.0, 1)


def test_plateau_survives_json():
    plateau = optimizer.Plateau(patience=3)
    for loss in (2.0, 1.9, 1.9, 1.9, 1.9, 1.9):
        plateau.update(loss)
    again = optimizer.Plateau(**json.loads(json.dumps(dataclasses.asdict(plateau))))
    assert again == plateau and again.dropped == 1 and again.stale == 1
