"""The networks compute what an independent PyTorch implementation of the papers computes, and train as it trains.

Weights, BatchNorm's scale and offset and the running moments are random and copied from PyTorch. Gradients and training
are compared in float64: in float32 ReLU and max pool flip with rounding, and PyTorch misses its own float64 gradients.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from reference import parameters
from reference import resnet as reference

from jax_video import losses, models, optimizer, state
from jax_video.models import resnet, stc
from jax_video.models.layers import BatchNorm

# Larger steps on fewer clips let rounding grow a thousandfold: BatchNorm sees only eight values in the last stage.
BATCH, CLASSES, STEPS, LEARNING_RATE = 4, 7, 5, 0.01
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # compiling takes the time here

# Units see video of 4 frames of 5×6: odd and even sizes under stride 2, and no two axes that could be exchanged.
UNIT_INPUT = (4, 5, 6)
UNITS = {
    "basic": {"kind": "basic", "stride": 2},
    "basic shortcut A": {"kind": "basic", "stride": 2, "shortcut": "A"},
    "basic preactivation": {"kind": "basic", "stride": 2, "preactivation": True},
    "bottleneck": {"kind": "bottleneck", "stride": 2},
    "bottleneck identity": {"kind": "bottleneck", "stride": 1, "in_features": 64},
    "resnext": {"kind": "resnext", "stride": 2},
    "stc basic": {"kind": "basic", "stride": 2, "stc": {}},
    "stc bottleneck": {"kind": "bottleneck", "stride": 2, "stc": {}},
    "stc bottleneck tcb preactivation": {
        "kind": "bottleneck",
        "stride": 1,
        "preactivation": True,
        "stc": {"branches": "tcb"},
    },
    "stc bottleneck scb": {"kind": "bottleneck", "stride": 1, "stc": {"branches": "scb", "reduction": 1}},
    "stc resnext": {"kind": "resnext", "stride": 2, "stc": {}},
}

# Networks see 6 frames of 40×24, which leave no two axes that could be exchanged.
NETWORK_INPUT = (6, 40, 24)
SMALL = {"width": 0.125, "layers": (1, 1, 1, 1)}
NETWORKS = {
    "resnet3d18": SMALL | {"layers": (1, 2, 1, 1)},
    "resnet3d18 shortcut A, preactivation": SMALL | {"shortcut": "A", "preactivation": True},
    "resnet3d50": SMALL | {"stem": "table1"},
    "resnext3d101": SMALL | {"width": 0.5},  # two channels in each group of the first stage
    "stc_resnet18": SMALL | {"frames": 6},
    "stc_resnet50": SMALL | {"frames": 6},
}


def unit_pair(name, dtype):
    """(ours without values, the reference, shape of an input video without its batch)."""
    options = {"in_features": 12, "shortcut": "B", "preactivation": False} | UNITS[name]
    kind, stride, in_features = options["kind"], options["stride"], options["in_features"]
    width = 16
    out_features = width if kind == "basic" else 4 * width
    shared = {"shortcut": options["shortcut"], "preactivation": options["preactivation"]}

    ours = {"norm": BatchNorm, "dtype": dtype, "stride": stride} | shared
    theirs = dict(shared)
    if "stc" in options:
        block = {"branches": "both", "reduction": 4} | options["stc"]
        frames = -(-UNIT_INPUT[0] // stride)
        ours |= {"frames": frames, **block}
        theirs["stc"] = reference.STC(out_features, width // block["reduction"], frames, block["branches"])
    if kind == "basic":
        unit = stc.STCBasic if "stc" in options else resnet.Basic
        network = reference.BasicUnit(in_features, width, stride, **theirs)
    else:
        cardinality = 8 if kind == "resnext" else 1
        middle = 2 * width if kind == "resnext" else width
        ours["cardinality"] = theirs["cardinality"] = cardinality
        unit = stc.STCBottleneck if "stc" in options else resnet.Bottleneck
        network = reference.BottleneckUnit(in_features, middle, out_features, stride, **theirs)
    model = nnx.eval_shape(lambda: unit(in_features, width, rngs=nnx.Rngs(0), **ours))
    return model, network, (*UNIT_INPUT, in_features)


def network_pair(name, dtype):
    options = NETWORKS[name]
    name, *_ = name.split()
    model = nnx.eval_shape(lambda: models.build(name, num_classes=CLASSES, rngs=nnx.Rngs(0), dtype=dtype, **options))
    return model, reference.build(name, CLASSES, **options), (*NETWORK_INPUT, 3)


PAIRS = [
    *(pytest.param(functools.partial(unit_pair, name), id=f"unit {name}") for name in UNITS),
    *(pytest.param(functools.partial(network_pair, name), id=name) for name in NETWORKS),
]


@pytest.fixture(autouse=True)
def torch_seed_and_thread():
    """The same weights in every run; one thread, because on arrays this small PyTorch's threads only stand in the way
    of ours."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomize(network):
    """Gives every bias, BatchNorm's scale and the running moments other values than their initial zeros and ones."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_var", "weight")) and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.2)


def copied(model, network):
    """(definition, params, batch_stats) of our model with the reference's weights; every leaf has a source."""
    definition, *initial = state.split(model)
    values = (parameters.parameters(network), parameters.batch_stats(network))
    assert shapes(values) == shapes(initial)
    return definition, *jax.tree.map(jnp.asarray, values)


def shapes(tree):
    return {name: (leaf.shape, np.dtype(leaf.dtype)) for name, leaf in state.named_leaves(tuple(tree)).items()}


def channels_first(video):  # [B, T, H, W, C] to [B, C, T, H, W]
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(video, -1, 1)))


def assert_leaves_close(ours, theirs, tolerance):
    """Every leaf differs by at most `tolerance` of its largest value."""
    ours, theirs = state.named_leaves(ours), state.named_leaves(theirs)
    assert ours.keys() == theirs.keys()
    wrong = {}
    for name, leaf in theirs.items():
        error, largest = np.max(np.abs(np.asarray(ours[name]) - leaf)), np.max(np.abs(leaf))
        # Some gradients are zero but for rounding: that of an offset, for example, which a later BatchNorm removes.
        if error > max(tolerance * largest, 1e-14):
            wrong[name] = f"differs by {error:.1e}, the largest value is {largest:.1e}"
    assert not wrong


def loss_of(outputs, target):
    """Softmax loss of logits [B, K]; for a unit the outputs' mean squared distance from a random target."""
    if outputs.ndim == 2:
        return jnp.mean(losses.softmax_cross_entropy(outputs, target))
    return jnp.mean(jnp.square(outputs - target))


def torch_loss_of(outputs, target):
    if outputs.ndim == 2:
        return torch.nn.functional.cross_entropy(outputs, target)
    return torch.nn.functional.mse_loss(outputs, target)


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("pair", PAIRS)
def test_test_mode_forward_in_float32(pair):
    model, network, shape = pair(jnp.float32)
    randomize(network)
    definition, params, batch_stats = copied(model, network)
    video = np.random.default_rng(0).normal(size=(BATCH, *shape)).astype(np.float32)

    @jit
    def forward(params, batch_stats, video):
        return nnx.view(nnx.merge(definition, params, batch_stats), use_running_average=True)(video)

    with torch.no_grad():
        theirs = network.eval()(channels_first(video)).numpy()
    theirs = np.moveaxis(theirs, 1, -1)
    assert_leaves_close(forward(params, batch_stats, video), theirs, 1e-5)


@pytest.mark.parametrize("pair", PAIRS)
def test_gradients_and_five_training_steps_in_float64(pair):
    with jax.enable_x64(True):
        model, network, shape = pair(jnp.float64)
        randomize(network.double())
        definition, params, batch_stats = copied(model, network)
        tx = optimizer.sgd(LEARNING_RATE)
        opt_state = tx.init(params)
        torch_tx = torch.optim.SGD(
            network.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=1e-4
        )

        @jit
        def train_step(params, batch_stats, opt_state, video, target):
            def loss(params, video):
                model = nnx.merge(definition, params, batch_stats)
                return loss_of(model(video), target), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

            grads, new_batch_stats = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, video)
            updates, opt_state = tx.update(grads[0], opt_state, params)
            return optax.apply_updates(params, updates), new_batch_stats, opt_state, grads

        for step in range(STEPS):
            rng = np.random.default_rng(step)
            video = rng.normal(size=(BATCH, *shape))
            torch_video = channels_first(video).requires_grad_()
            outputs = network(torch_video)
            target = rng.integers(CLASSES, size=BATCH) if outputs.ndim == 2 else rng.normal(size=outputs.shape)
            torch_tx.zero_grad()
            torch_loss_of(outputs, torch.from_numpy(target)).backward()
            target = np.moveaxis(target, 1, -1) if target.ndim == 5 else target
            params, batch_stats, opt_state, grads = train_step(params, batch_stats, opt_state, video, target)
            if step == 0:
                video_gradient = np.moveaxis(torch_video.grad.numpy(), 1, -1)
                assert_leaves_close(grads, (parameters.gradients(network), video_gradient), 1e-9)
            torch_tx.step()

        trained = (parameters.parameters(network), parameters.batch_stats(network))
        assert_leaves_close((params, batch_stats), trained, 1e-9)
