"""The page of networks, its figures, and the pages of weights: from the table of networks and what they compute."""

import collections

import drawing
from markdown import code, page, table

from jax_video import networks as known
from jax_video.summary import Layer, Summary
from jax_video.weights import names, public

# {heading: (the network of its figure, a text, how names begin)}; the first family that a name fits is its own.
FAMILIES = {
    "3D-ResNet, 3D-ResNeXt": (
        "resnet3d50",
        "Hara et al. 2018; what STC-Net extends.",
        ("resnet3d", "resnext3d"),
    ),
    "STC-Net": (
        "stc_resnet50",
        "Diba et al. 2018: channel correlation in every unit. [Explained](../../explanation/stc.md).",
        ("stc_",),
    ),
    "DenseNet3D, T3D": (
        "t3d121",
        "Diba et al. 2017: temporal transition layers. [Explained](../../explanation/t3d.md).",
        ("densenet3d", "t3d"),
    ),
    "2D networks": (
        "resnet50",
        "Frame by frame: teachers of knowledge transfer, and where ImageNet's weights go.",
        ("resnet", "resnext", "densenet"),
    ),
    "C2D, C3D, CoST": (
        "cost_b_resnet50",
        "Li et al. 2019. [Explained](../../explanation/cost.md).",
        ("c2d", "c3d_", "cost"),
    ),
    "Two streams, ST-ResNet": (
        "st_resnet",
        "Feichtenhofer et al. 2016. [Explained](../../explanation/st_resnet.md).",
        ("appearance", "motion", "two", "st_resnet"),
    ),
    "Others": (
        "r2plus1d_18",
        "What papers compare with, and networks with public weights for videos.",
        ("",),
    ),
}
HEADER = ("network", "parameters", "GFLOPs", "clip", "layouts of weights")


def pages() -> dict[str, str]:
    """{path below docs: text}."""
    summaries = {name: Summary(name) for name in known.NETWORKS}
    found: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for name in known.NETWORKS:
        found[next(family for family, (*_, starts) in FAMILIES.items() if name.startswith(starts))].append(name)
    parts = [
        f"{len(known.NETWORKS)} networks: parameters with 400 classes, and what a clip of the paper's size costs in "
        "test mode, a multiplication and an addition counted as two, products with padding left out. `python -m "
        "jax_video.models` prints the same, and `--name=NAME --layers` the layers of one.\n",
        "In the figures a box is the output of a part: its height is the frames' height, its width their number. Below "
        "it are frames × height × width × channels, and the parameters of the part.\n",
    ]
    figures = {}
    for family, members in found.items():
        shown, text, _ = FAMILIES[family]
        rows = [_row(summaries[name]) for name in members]
        parts += [f"## {family}\n", f"{text}\n", table(HEADER, rows)]
        parts += [f"![The parts of {shown} and the sizes of their outputs](../../figures/{shown}.svg)\n"]
        figures[f"figures/{shown}.svg"] = _figure(summaries[shown])
    pages = {"reference/generated/networks.md": page("Networks", *parts)}
    return pages | figures | {"reference/generated/weights.md": _weights()}


def _row(summary: Summary) -> tuple[str, ...]:
    record = known.NETWORKS[summary.name]
    return (
        code(summary.name),
        f"{summary.parameters():,}",
        f"{summary.flops() / 1e9:.1f}",
        "×".join(map(str, summary.clip)),
        ", ".join(map(code, record.layouts)),
    )


def _figure(summary: Summary) -> str:
    """The outputs of a network's parts, from left to right; of two streams the one above the other."""
    record = known.NETWORKS[summary.name]
    modules = {module: part for part, made_of in record.parts.items() for module in made_of}
    streams = collections.defaultdict(list)
    for layer in summary.layers():
        path = layer.name.split(".")
        stream = path.pop(0) if path[0] in known.WRAPPERS else ""
        streams[stream].append((modules.get(path[0], "classifier"), layer))
    rows = []
    for stream, layers in streams.items():
        channels = known.CHANNELS["flow" if stream == "motion" or record.streams == ("flow",) else "rgb"]
        rows.append((stream, [("clip", (*summary.clip, channels), None), *_outputs(layers)]))
    return drawing.parts(rows, f"{summary.name}: the outputs of its parts")


def _outputs(layers: list[tuple[str, Layer]]) -> list[tuple[str, tuple[int, ...], int]]:
    """[(part, shape of its last output of five axes, parameters)]."""
    shapes: dict[str, tuple[int, ...]] = {}
    counts: collections.Counter[str] = collections.Counter()
    seen = set()
    for part, layer in layers:
        if len(layer.output) == 4 or part == "classifier":
            shapes[part] = layer.output
        if layer.name not in seen:
            counts[part] += layer.parameters
            seen.add(layer.name)
    return [(part, shape, counts[part]) for part, shape in shapes.items()]


def _weights() -> str:
    header = ("name", "network", "layout", "top-1, %", "trained on", "clips", "licence")
    rows = [
        (f"[`{name}`]({it.url})", code(it.network), code(it.layout), it.top1 or "–", it.data, it.clips, it.licence)
        for name, it in public.PUBLIC.items()
    ]
    layouts = [
        (code(name), ", ".join(code(network) for network, it in known.NETWORKS.items() if name in it.layouts) or "all")
        for name in names.LAYOUTS
    ]
    return page(
        "Weights",
        "Public weights go by their names, wherever weights can be given: `weights=` and `imagenet=` of recipes, "
        "`--config.init_from.path`, `convert`. They are fetched once into the cache folder (`JAX_VIDEO_CACHE`, by "
        "default `~/.cache/jax_video`) and checked by the digits of the SHA-256 in their file's name, if it has any. "
        "Top-1 is what their makers say. `python -m jax_video.models --weights` prints the same.\n",
        table(header, rows),
        "## Layouts\n",
        "A layout says which array of somebody else's file is which of ours, and how that network sees videos.\n",
        table(("layout", "networks"), layouts),
    )
