"""Prints the networks: parameters, GFLOPs of a clip, input; or the layers of one.

Examples:
  python -m jax_video.models
  python -m jax_video.models --name=t3d121 --layers
  python -m jax_video.models --name=cost_b_resnet101 --frames=32 --layers

GFLOPs are of one clip in test mode, a multiplication and an addition counted as two, from XLA's cost analysis of what
it makes for a TPU. It leaves out products with padding: papers, which count them, have larger numbers. Parameters are
with 400 classes unless --classes says otherwise.
"""

import contextlib
import math

import jax
import jax.numpy as jnp
from absl import flags
from flax import nnx
from tqdm import tqdm

from jax_video import command, models, networks, state
from jax_video.errors import UserError

NAME = flags.DEFINE_string("name", None, "Only this network.")
LAYERS = flags.DEFINE_bool("layers", False, "Its layers: name, output [T, H, W, C], parameters.")
CLASSES = flags.DEFINE_integer("classes", 400, "Number of classes.", lower_bound=1)
FRAMES = flags.DEFINE_integer("frames", None, "Frames of a clip, in place of the paper's.", lower_bound=1)
SIZE = flags.DEFINE_integer("size", None, "Height and width of a frame, in place of the paper's.", lower_bound=1)


class Network:
    """A network without values, and the shapes of what it takes."""

    def __init__(self, name):
        record = networks.find(name)
        frames, size = FRAMES.value or record.frames, SIZE.value or record.size
        self.name, self.clip = name, f"{frames}×{size}×{size}"
        self.inputs = [
            jax.ShapeDtypeStruct((1, frames, size, size, networks.CHANNELS[stream]), jnp.float32)
            for stream in record.streams
        ]
        kwargs = record.clip_keywords(frames, size)
        model = nnx.eval_shape(lambda: models.build(name, num_classes=CLASSES.value, rngs=nnx.Rngs(0), **kwargs))
        self.definition, self.params, self.batch_stats = state.split(model)

    def parameters(self):
        return count(self.params)

    def flops(self):
        def scores(params, batch_stats, *videos):
            return state.join(self.definition, params, batch_stats, train=False)(*videos)

        traced = jax.jit(scores).trace(self.params, self.batch_stats, *self.inputs)
        return traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]

    def layers(self):
        """(name, output's shape without the batch, parameters) of every layer with weights, in the order of use."""
        rows = []

        def scores(params, batch_stats, *videos):
            model = state.join(self.definition, params, batch_stats, train=False)
            with recorded(model, rows):
                return model(*videos)

        jax.eval_shape(scores, self.params, self.batch_stats, *self.inputs)
        return rows


def count(params):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@contextlib.contextmanager
def recorded(model, rows):
    """Appends a row to `rows` for every call of a module of the model that holds parameters itself."""
    names, originals = {}, {}
    for path, module in nnx.iter_modules(model):
        own = [value[...] for value in vars(module).values() if isinstance(value, nnx.Param)]
        if own:
            names[id(module)] = (".".join(map(str, path)), count(own))
            originals.setdefault(type(module), type(module).__call__)

    def record(original):
        def call(module, *args, **kwargs):
            output = original(module, *args, **kwargs)
            if id(module) in names:
                name, parameters = names[id(module)]
                rows.append((name, output.shape[1:], parameters))
            return output

        return call

    for kind, original in originals.items():
        kind.__call__ = record(original)
    try:
        yield
    finally:
        for kind, original in originals.items():
            kind.__call__ = original


def table(header, rows):
    """A Markdown table; numbers to the right."""
    rows = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for index, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("| " + " | ".join(cells) + " |", flush=True)
        if index == 0:
            print("|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|")


def main(arguments: list[str]) -> None:
    if arguments:
        raise UserError(f"unexpected arguments {' '.join(arguments)}: choose a network with --name=NAME.")
    if NAME.value is not None:
        networks.find(NAME.value)
    if LAYERS.value:
        if NAME.value is None:
            raise UserError("--layers is of one network: choose it with --name=NAME.")
        network = Network(NAME.value)
        rows = [(name, "×".join(map(str, shape)), f"{parameters:,}") for name, shape, parameters in network.layers()]
        table(("layer", "output", "parameters"), [*rows, ("total", "", f"{network.parameters():,}")])
        return
    rows = []
    for name in tqdm([NAME.value] if NAME.value else list(networks.NETWORKS), leave=False):
        network = Network(name)
        rows.append((name, f"{network.parameters():,}", f"{network.flops() / 1e9:.1f}", network.clip))
    table(("network", "parameters", "GFLOPs", "clip"), rows)


if __name__ == "__main__":
    command.run(main)
