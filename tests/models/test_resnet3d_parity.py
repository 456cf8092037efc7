"""3D-ResNet, 3D-ResNeXt and STC-Net compute what a PyTorch implementation computes, and train as it does."""

import functools

import jax
import jax.numpy as jnp
import parity
import pytest
from flax import nnx
from reference import resnet as reference

from jax_video import models
from jax_video.models import resnet3d, stc
from jax_video.models.layers import BatchNorm

pytestmark = pytest.mark.usefixtures("one_torch_thread")

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
    "resnet3d10 shortcut A, preactivation": {"width": 0.125, "shortcut": "A", "preactivation": True},
    "resnet3d50": SMALL | {"stem": "table1"},
    "resnext3d101": SMALL | {"width": 0.5},  # two channels in each group of the first stage
    "stc_resnet18": SMALL | {"frames": 6},
    "stc_resnet50": SMALL | {"frames": 6, "stem": "table1"},
}
# Their units are trained on their own, and in the other networks.
TRAINED_ALIKE = ("resnet3d50", "resnext3d101", "stc_resnet18", "stc_resnet50")


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
        unit = stc.STCBasic if "stc" in options else resnet3d.Basic
        network = reference.BasicUnit(in_features, width, stride, **theirs)
    else:
        cardinality = 8 if kind == "resnext" else 1
        middle = 2 * width if kind == "resnext" else width
        ours["cardinality"] = theirs["cardinality"] = cardinality
        unit = stc.STCBottleneck if "stc" in options else resnet3d.Bottleneck
        network = reference.BottleneckUnit(in_features, middle, out_features, stride, **theirs)
    model = nnx.eval_shape(lambda: unit(in_features, width, rngs=models.Keys(0), **ours))
    return model, network, (*UNIT_INPUT, in_features)


def network_pair(name, dtype):
    options = NETWORKS[name]
    name, *_ = name.split()
    model = nnx.eval_shape(
        lambda: models.build(name, num_classes=parity.CLASSES, rngs=models.Keys(0), dtype=dtype, **options)
    )
    return model, reference.build(name, parity.CLASSES, **options), (*NETWORK_INPUT, 3)


PAIRS = [
    *(pytest.param(functools.partial(unit_pair, name), id=f"unit {name}") for name in UNITS),
    *(pytest.param(functools.partial(network_pair, name), id=name) for name in NETWORKS),
]


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("pair", PAIRS)
def test_test_mode_forward_in_float32(pair):
    parity.check_test_mode_forward(*pair(jnp.float32))


@pytest.mark.parametrize(
    "pair",
    [pytest.param(*pair.values, id=pair.id, marks=[pytest.mark.slow] * (pair.id in TRAINED_ALIKE)) for pair in PAIRS],
)
def test_gradients_and_five_training_steps_in_float64(pair):
    with jax.enable_x64(True):
        parity.check_training(*pair(jnp.float64), steps=5)
