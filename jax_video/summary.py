"""What a network is made of and what it costs, without values: parameters, floating-point operations, layers."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jax_video import models, networks, state


class Layer(NamedTuple):
    """A layer with weights, and its output for one clip."""

    name: str  # "layer1.0.conv1"
    output: tuple[int, ...]  # its shape without the batch, [T, H, W, C] of a convolution
    parameters: int


class Summary:
    """A network for clips of one size, without values.

    Attributes:
      name: of the network.
      clip: (frames, height, width).

    Raises:
      UserError: there is no such network, or it takes no such clips.
    """

    def __init__(self, name: str, *, num_classes: int = 400, frames: int | None = None, size: int | None = None):
        """`frames` and `size` are the paper's where they are None."""
        network = networks.find(name)
        frames, size = frames or network.frames, size or network.size
        self.name, self.clip = name, (frames, size, size)
        self.inputs = [
            jax.ShapeDtypeStruct((1, *self.clip, networks.CHANNELS[stream]), jnp.float32) for stream in network.streams
        ]
        options = network.clip_keywords(frames, size)
        model = nnx.eval_shape(lambda: models.build(name, num_classes=num_classes, rngs=models.Keys(0), **options))
        self.definition, self.params, self.batch_stats = state.split(model)

    def parameters(self) -> int:
        """How many parameters the network has."""
        return _count(self.params)

    def flops(self) -> float:
        """Floating-point operations of one clip in test mode, by XLA's cost analysis for a TPU.

        A multiplication and an addition count as two. Products with padding are left out.
        """

        def scores(params, batch_stats, *videos):
            return state.join(self.definition, params, batch_stats, train=False)(*videos)

        traced = jax.jit(scores).trace(self.params, self.batch_stats, *self.inputs)
        return traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]

    def layers(self) -> list[Layer]:
        """Every layer with weights, in the order of use."""
        layers: list[Layer] = []

        def scores(params, batch_stats, *videos):
            model = state.join(self.definition, params, batch_stats, train=False)
            with _recorded(model, layers):
                return model(*videos)

        jax.eval_shape(scores, self.params, self.batch_stats, *self.inputs)
        return layers


def _count(params: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@contextlib.contextmanager
def _recorded(model: nnx.Module, layers: list[Layer]) -> Iterator[None]:
    """Append to `layers` every call of a module of the model that holds parameters itself."""
    named: dict[int, tuple[str, int]] = {}  # name and parameters by the module's id
    originals: dict[Any, Callable] = {}  # by class
    for path, module in nnx.iter_modules(model):
        own = [value[...] for value in vars(module).values() if isinstance(value, nnx.Param)]
        if own:
            named[id(module)] = (".".join(map(str, path)), _count(own))
            originals.setdefault(type(module), type(module).__call__)

    def recording(original: Callable) -> Callable:
        def call(module, *args, **kwargs):
            output = original(module, *args, **kwargs)
            if id(module) in named:
                name, parameters = named[id(module)]
                layers.append(Layer(name, output.shape[1:], parameters))
            return output

        return call

    for kind, original in originals.items():
        kind.__call__ = recording(original)
    try:
        yield
    finally:
        for kind, original in originals.items():
            kind.__call__ = original
