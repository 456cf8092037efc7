"""Why weights do not fit a network: the likely causes, from the names and shapes of both."""

import fnmatch
import re
from collections.abc import Collection, Iterable

from jax_video import networks
from jax_video.models import densenet, resnet3d
from jax_video.weights import provenance

PARTS = {  # patterns of init_from.skip: what they match
    "*/stc/*": "STC blocks",
    "*/alpha": "CoST(a)'s α",
    "*/conv2/fc?/*": "CoST(b)'s α",
}
Shapes = dict[str, tuple[int, ...]]  # by our names, "params/layer1/0/conv1/kernel"


def causes(
    found: Shapes, wanted: Shapes, *, network: str = "", section: str = "model", inflates: bool = False
) -> list[str]:
    """The likely causes, the likeliest first; none where names and shapes do not tell.

    Args:
      found, wanted: names and shapes of the weights and of the network.
      network, section: its name, and the section of the config that describes it.
      inflates: whether 2D kernels are inflated.
    """
    if part := _part(found, wanted):
        return [f"the network has these arrays in its part {part}: init_from.into={part}"]
    theirs, ours = _title(found), _title(wanted)
    lines = []
    has_stem = {"conv0", "conv1"} & _widths(found).keys()  # the classifier may be left out
    if not has_stem and theirs != ours and all(wanted.get(name) == shape for name, shape in found.items()):
        return ["the file has a part of the network, which it fits: one of several files (shards)? Save all in one"]
    if theirs and ours and theirs != ours:
        subject = network or "the network"
        lines.append(f"these are weights of {theirs}; {subject} is {ours}: give the config of their network")
        if re.split("[ -]", theirs)[0] != re.split("[ -]", ours)[0]:
            return lines
    elif theirs and (different := _different(_widths(found), _widths(wanted))):
        lines.append(
            f"other widths, {different}: {section}.width, or a wide ResNet, which is not one of the networks here"
        )
    flat, solid = _taps(found) == 1, _taps(wanted) > 1
    if flat and solid and not inflates:
        lines.append(
            "these are weights of a 2D network; this one is 3D: a training run inflates them, init_from.inflate"
        )
    if _taps(found) > 1 and _taps(wanted) == 1:
        lines.append("these are weights of a 3D network; this one is 2D")
    for key, rule in (("shortcut", provenance.shortcut), ("preactivation", provenance.preactivation)):
        values = rule(found), rule(wanted)
        if theirs == ours and values[0] != values[1] and None not in values:
            lines.append(
                f"these are weights with {key}={values[0]}, the network has {key}={values[1]}: {section}.{key}"
            )
    for pattern, what in PARTS.items():
        there, here = _of(pattern, found), _of(pattern, wanted)
        if here and not there:
            lines.append(f"the weights have no {what}: init_from.skip=('{pattern}',) starts the network's afresh")
        elif there and not here:
            lines.append(f"the weights have {what}, the network has not")
        elif there != here and theirs == ours and what == "STC blocks":
            lines.append(f"STC blocks are bound to the clip: {section}.frames, or {section}.reduction, is another")
    if different := _different(_heads(found), _heads(wanted)):
        lines.append(f"the classifier is of other classes, {different}: init_from.new_head starts it afresh")
    return lines


def _part(found: Shapes, wanted: Shapes) -> str:
    """The part of the network, as in "params/PART/conv1/kernel", that the weights fit; "" where there is none."""
    if set(found) & set(wanted):
        return ""
    for part in dict.fromkeys(name.split("/")[1] for name in wanted):
        inner = {name.replace(f"/{part}/", "/", 1) for name in wanted if name.split("/")[1] == part}
        if len(inner & set(found)) > len(found) / 2:
            return part
    return ""


def _title(shapes: Shapes) -> str:
    """What network it is: "ResNet-50", or "ResNet of 1, 1, 1 and 1 bottlenecks"; "" where it is not known."""
    if any("/stem/conv1/" in name for name in shapes):
        return "R(2+1)D" if any("/stem/conv2/" in name for name in shapes) else "R3D or MC3"
    units = _counts(r"/layer([1-4])/(\d+)/", shapes)
    blocks = _counts(r"/denseblock(\d)/(\d+)/", shapes)
    if blocks:
        depth = next((depth for depth, layers in densenet.LAYERS.items() if layers == blocks), None)
        return f"DenseNet-{depth}" if depth else f"DenseNet of {_and(blocks)} layers"
    if not units:
        known = {"/Mixed_3b/": "Inception-V1", "/conv1a/": "C3D"}
        return next((title for part, title in known.items() if any(part in name for name in shapes)), "")
    bottlenecks = 2 * sum(bool(re.search(r"/layer[1-4]/\d+/conv3/kernel", name)) for name in shapes) > sum(units)
    groups = _groups(shapes) if bottlenecks else 1
    kind = "ResNeXt" if groups > 1 else "ResNet"
    depths = (depth for depth, layers in resnet3d.LAYERS.items() if layers == units and (depth >= 50) == bottlenecks)
    depth = next(depths, None)
    return f"{kind}-{depth}" if depth else f"{kind} of {_and(units)} {'bottlenecks' if bottlenecks else 'basic units'}"


def _counts(pattern: str, shapes: Shapes) -> tuple[int, ...]:
    """How many units each stage has."""
    units = {match.groups() for name in shapes if (match := re.search(pattern, name))}
    stages = sorted({stage for stage, _ in units})
    return tuple(sum(stage == other for other, _ in units) for stage in stages)


def _groups(shapes: Shapes) -> int:
    """Groups of the bottlenecks' middle convolutions."""
    middle = (shape for name, shape in shapes.items() if re.search(r"/layer[1-4]/\d+/conv2/kernel$", name))
    return max((shape[-1] // max(1, shape[-2]) for shape in middle if len(shape) == 5), default=1)


def _taps(shapes: Shapes) -> int:
    """The largest extent in time of any kernel, except CoST's, whose first axis is views."""
    views = view_kernels(shapes)
    return max((shape[0] for name, shape in shapes.items() if len(shape) == 5 and name not in views), default=0)


def view_kernels(names: Collection[str]) -> set[str]:
    """The names of CoST's kernels, whose first axis is views: α, or what it is computed by, is beside them."""
    parts = ("alpha", "fc1/kernel")
    return {
        name
        for name in names
        if name.endswith("/kernel") and any(name.removesuffix("kernel") + part in names for part in parts)
    }


def _widths(shapes: Shapes) -> dict[str, int]:
    """Channels of the stem, and inside the first unit of every stage."""
    pattern = r"(?<!\d)/(conv[01]|layer[1-4]/0/conv1)/kernel$"
    return {match[1]: shape[-1] for name, shape in shapes.items() if (match := re.search(pattern, name))}


def _heads(shapes: Shapes) -> dict[str, int]:
    return {
        name.split("/", 1)[1].removesuffix("/kernel"): shape[-1]
        for name, shape in shapes.items()
        if name.endswith("/kernel") and name.split("/")[-2] in networks.heads()
    }


def _different(found: dict[str, int], wanted: dict[str, int]) -> str:
    """The first size in which the two differ, in words; "" where there is none."""
    for name, size in wanted.items():
        if found.get(name, size) != size:
            return f"{name} has {found[name]}, here {size}"
    return ""


def _of(pattern: str, shapes: Shapes) -> Shapes:
    """The shapes whose names a pattern of init_from.skip matches."""
    return {name: shape for name, shape in shapes.items() if matches(name, pattern)}


def matches(name: str, pattern: str) -> bool:
    """Whether a name, without `params/` and `batch_stats/`, matches a pattern of init_from.skip."""
    return fnmatch.fnmatchcase(name.removeprefix("params/").removeprefix("batch_stats/"), pattern)


def _and(numbers: Iterable[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
