"""Networks without values, for what does not depend on them: parameters and sizes at full size, at no cost."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from jax_video import models, state

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


@functools.cache
def abstract(name, num_classes=400, **kwargs):
    """A network with shapes in place of arrays. It is built once, so that no test may change it."""
    return nnx.eval_shape(lambda: models.build(name, num_classes=num_classes, rngs=nnx.Rngs(0), **kwargs))


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
