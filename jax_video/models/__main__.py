"""Prints the networks: parameters, GFLOPs of a clip, input; or the layers of one.

Examples:
  python -m jax_video.models
  python -m jax_video.models --name=t3d121 --layers
  python -m jax_video.models --name=cost_b_resnet101 --frames=32 --layers
  python -m jax_video.models --weights     # public ones, for init_from.path, imagenet= and convert

GFLOPs are of one clip in test mode, from XLA's cost analysis of the program that it makes for a TPU; a multiplication
and an addition count as two. Products with padding are left out; papers count them, so their numbers are larger.
Parameters are for 400 classes, or for --classes.
"""

from collections.abc import Sequence

from absl import flags
from tqdm import tqdm

from jax_video import command, networks
from jax_video.errors import UserError
from jax_video.summary import Summary
from jax_video.weights import public


def define_flags() -> None:
    """Define the flags, only where this module is the command that runs."""
    flags.DEFINE_string("name", None, "Only this network.")
    flags.DEFINE_bool("layers", False, "Its layers: name, output [T, H, W, C], parameters.")
    flags.DEFINE_bool("weights", False, "Public weights in place of the networks: name, layout, network, data.")
    flags.DEFINE_integer("classes", 400, "Number of classes.", lower_bound=1)
    flags.DEFINE_integer("frames", None, "Frames of a clip, in place of the paper's.", lower_bound=1)
    flags.DEFINE_integer("size", None, "Height and width of a frame, in place of the paper's.", lower_bound=1)


def main(arguments: list[str]) -> None:
    options = flags.FLAGS
    if arguments:
        raise UserError(f"unexpected arguments {' '.join(arguments)}: choose a network with --name=NAME.")
    if options.weights:
        if idle := [f"--{name}" for name in ("layers", "classes", "frames", "size") if options[name].present]:
            raise UserError(f"{' '.join(idle)}: nothing to do with --weights, which lists public weights")
        header = ("weights", "network", "layout", "top-1, %", "trained on", "clips", "licence", "address")
        listed = [
            (name, found.network, found.layout, found.top1 or "–", found.data, found.clips, found.licence, found.url)
            for name, found in public.PUBLIC.items()
            if options.name in (None, found.network)
        ]
        if not listed:
            raise UserError(f"there are no public weights of {options.name!r} here; leave --name out for all")
        return print_table(header, listed)
    if options.name is not None:
        networks.find(options.name)
    elif options.layers:
        raise UserError("--layers is of one network: choose it with --name=NAME.")
    names = [options.name] if options.name else list(networks.NETWORKS)
    summaries = (
        Summary(name, num_classes=options.classes, frames=options.frames, size=options.size)
        for name in tqdm(names, leave=False, disable=options.layers)
    )
    if options.layers:
        (network,) = summaries
        layers = [(layer.name, _times(layer.output), f"{layer.parameters:,}") for layer in network.layers()]
        print_table(("layer", "output", "parameters"), [*layers, ("total", "", f"{network.parameters():,}")])
    else:
        rows = [
            (network.name, f"{network.parameters():,}", f"{network.flops() / 1e9:.1f}", _times(network.clip))
            for network in summaries
        ]
        print_table(("network", "parameters", "GFLOPs", "clip"), rows)


def print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a Markdown table; all columns but the first are aligned to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for index, (first, *others) in enumerate(lines):
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print("| " + " | ".join(cells) + " |", flush=True)
        if index == 0:
            print("|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|")


def _times(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))


if __name__ == "__main__":
    command.run(main, define_flags)
