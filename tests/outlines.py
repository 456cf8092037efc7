"""Networks without values: parameters and sizes at full size, at no cost. Keywords with which a network is small."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from jax_video import models, networks, state

T3D_TABLE_1 = {  # of a clip of 32 frames of 224×224
    "conv0": (16, 112, 112),
    "pool0": (16, 56, 56),
    "denseblock1": (16, 56, 56),
    "transition1": (8, 28, 28),
    "denseblock2": (8, 28, 28),
    "transition2": (4, 14, 14),
    "denseblock3": (4, 14, 14),
    "transition3": (2, 7, 7),
    "denseblock4": (2, 7, 7),
    "norm5": (2, 7, 7),
}
CLIPS = {  # [T, H, W] that a constructor's networks still take
    "DenseNet": (15, 32, 32),
    "T3D": (15, 32, 32),
    "TwoStreams": (5, 16, 16),
    "Inception3D": (9, 32, 32),
    "C3D": (16, 32, 32),
}


def small_clip(name):
    """A clip [T, H, W] that is small, and that the network still takes."""
    network = networks.find(name)
    frames, height, width = CLIPS.get(network.constructor.partition(":")[2], (4, 16, 16))
    return (2 if network.frames == 1 else frames), height, width


def small(name):
    """Keywords with which a network has a unit in every stage, four groups where it has any, and takes `small_clip`."""
    network = networks.find(name)
    kwargs = network.clip_keywords(*small_clip(name)[:2])
    if network.stages:
        kwargs["layers"] = (1,) * network.stages
    if "connections" in network.keywords:
        kwargs["layers"] = (2, 1, 1, 1)  # they are at the second unit
    if "reduction" in network.keywords:
        kwargs["reduction"] = 1  # a hidden layer too wide to be dead by chance
    if network.keywords.get("cardinality", 1) > 1:
        kwargs["cardinality"] = 4
    return kwargs


@functools.cache
def abstract(name, num_classes=400, **kwargs):
    """A network with shapes in place of arrays. It is built once, so that no test may change it."""
    return nnx.eval_shape(lambda: models.build(name, num_classes=num_classes, rngs=models.Keys(0), **kwargs))


def parameters(model):
    """How many parameters are trained."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def shapes(model, *inputs, method="stages"):
    """Shapes of what a method returns of inputs of these shapes, without computing."""
    definition, params, batch_stats = state.split(model)
    outputs = jax.eval_shape(
        lambda params, batch_stats, inputs: getattr(nnx.merge(definition, params, batch_stats), method)(*inputs),
        params,
        batch_stats,
        [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs],
    )
    return jax.tree.map(lambda leaf: leaf.shape, outputs)
