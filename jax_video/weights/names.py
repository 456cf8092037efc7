"""Which array of a source's weights is which of ours.

A layout is a table: one row for a module of the source, with our module and its kind. A kind says what the module's
arrays are called on both sides, and how their axes are ordered. A field in braces is the same word on both sides;
`{layer+1}` is a number that the source counts from one and we count from zero.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_video import networks, saved
from jax_video.errors import UserError, listed

# Axes: O and I are channels out and in, t h w time and space, v views; 1 is an axis of one that the other side lacks.
CONV_3D = {"weight": ("kernel", "OIthw", "thwIO"), "alpha": ("alpha", "vO", "vO")}  # alpha: of CoST(a)
CONV_2D = {"weight": ("kernel", "OIhw", "1hwIO")}
LINEAR = {"weight": ("kernel", "OI", "IO"), "bias": ("bias", "O", "O")}
POINTWISE = {"weight": ("kernel", "OI111", "IO"), "bias": ("bias", "O", "O")}  # a classifier written as convolution
BATCH_NORM = {
    "weight": ("scale", "O", "O"),
    "bias": ("bias", "O", "O"),
    "running_mean": ("mean", "O", "O"),
    "running_var": ("var", "O", "O"),
}
COUNTER = "num_batches_tracked"  # the steps that a BatchNorm of PyTorch has trained for; ours does not count them
STATISTICS = ("mean", "var")


def _resnet(conv):
    return {
        "conv1": ("conv1", conv),
        "bn1": ("bn1", BATCH_NORM),
        "layer{stage}.{unit}.conv{number}": ("layer{stage}/{unit}/conv{number}", conv),
        "layer{stage}.{unit}.bn{number}": ("layer{stage}/{unit}/bn{number}", BATCH_NORM),
        "layer{stage}.{unit}.downsample.0": ("layer{stage}/{unit}/downsample/conv", conv),
        "layer{stage}.{unit}.downsample.1": ("layer{stage}/{unit}/downsample/bn", BATCH_NORM),
        "fc": ("fc", LINEAR),
    }


def _densenet(conv, stem):
    layer = "features.denseblock{block}.denselayer{layer+1}.", "denseblock{block}/{layer}/"
    return {
        f"features.conv{stem}": ("conv0", conv),
        f"features.norm{stem}": ("norm0", BATCH_NORM),
        f"{layer[0]}conv{{number}}": (f"{layer[1]}conv{{number}}", conv),
        f"{layer[0]}norm{{number}}": (f"{layer[1]}norm{{number}}", BATCH_NORM),
        "features.transition{block}.conv": ("transition{block}/conv", conv),
        "features.transition{block}.norm": ("transition{block}/norm", BATCH_NORM),
        "features.norm5": ("norm5", BATCH_NORM),
        "classifier": ("classifier", LINEAR),
    }


COST = {
    "backbone.conv1.conv": ("conv1", CONV_3D),
    "backbone.conv1.bn": ("bn1", BATCH_NORM),
    "backbone.layer{stage}.{unit}.conv{number}.conv": ("layer{stage}/{unit}/conv{number}", CONV_3D),
    "backbone.layer{stage}.{unit}.conv{number}.conv.fc{part}": ("layer{stage}/{unit}/conv{number}/fc{part}", LINEAR),
    "backbone.layer{stage}.{unit}.conv{number}.bn": ("layer{stage}/{unit}/bn{number}", BATCH_NORM),
    "backbone.layer{stage}.{unit}.downsample.conv": ("layer{stage}/{unit}/downsample/conv", CONV_3D),
    "backbone.layer{stage}.{unit}.downsample.bn": ("layer{stage}/{unit}/downsample/bn", BATCH_NORM),
    "cls_head.fc_cls": ("fc", LINEAR),
}
I3D = {
    "logits.conv3d": ("logits", POINTWISE),
    "{layer}.conv3d": ("{layer}/conv3d", CONV_3D),
    "{layer}.bn": ("{layer}/bn", BATCH_NORM),
    "{block}.{branch}.conv3d": ("{block}/{branch}/conv3d", CONV_3D),
    "{block}.{branch}.bn": ("{block}/{branch}/bn", BATCH_NORM),
}
VIDEO_RESNET = {  # a convolution is one, or the pair of R(2+1)D
    "stem.0": ("stem/conv1", CONV_3D),
    "stem.1": ("stem/bn1", BATCH_NORM),
    "stem.3": ("stem/conv2", CONV_3D),
    "stem.4": ("stem/bn2", BATCH_NORM),
    "layer{stage}.{unit}.conv{number}.0": ("layer{stage}/{unit}/conv{number}", CONV_3D),
    "layer{stage}.{unit}.conv{number}.0.0": ("layer{stage}/{unit}/conv{number}/spatial", CONV_3D),
    "layer{stage}.{unit}.conv{number}.0.1": ("layer{stage}/{unit}/conv{number}/bn", BATCH_NORM),
    "layer{stage}.{unit}.conv{number}.0.3": ("layer{stage}/{unit}/conv{number}/temporal", CONV_3D),
    "layer{stage}.{unit}.conv{number}.1": ("layer{stage}/{unit}/bn{number}", BATCH_NORM),
    "layer{stage}.{unit}.downsample.0": ("layer{stage}/{unit}/downsample/conv", CONV_3D),
    "layer{stage}.{unit}.downsample.1": ("layer{stage}/{unit}/downsample/bn", BATCH_NORM),
    "fc": ("fc", LINEAR),
}
IMAGENET = {key: row.before for key, row in saved.KEYS["normalize"].items()}  # what earlier versions always used
KINETICS = {"mean": (110.7975, 103.3005, 96.2625), "std": (70.584, 69.1815, 69.7935)}
ACTIVITYNET = {"mean": (114.7748, 107.7354, 99.475), "std": (1.0, 1.0, 1.0)}
# Before torch 0.4 a dense layer's modules were called norm.1 and so on.
_OLD_DENSE_LAYER = (r"(denselayer\d+)\.(conv|norm)\.(\d)", r"\1.\2\3")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the weights of one code base go.

    Attributes:
      source: whose they are.
      table: {their module: (our module, kind)}.
      normalize: how their networks normalise RGB from 0 to 255: section `normalize` of a config; None: not known.
      renamed: (pattern, replacement) pairs that turn the names of older files into today's.
      versions: {version of their code: its `normalize`}, where that has changed; the last is `normalize`.
      clip, test: how their own test samples a video, as far as it is known: keys of these sections of a config.
    """

    source: str
    table: dict
    normalize: dict | None
    renamed: tuple = ()
    versions: dict[str, dict] = dataclasses.field(default_factory=dict)
    clip: dict = dataclasses.field(default_factory=dict)
    test: dict = dataclasses.field(default_factory=dict)


LAYOUTS = {
    "torchvision": Layout(
        "torchvision: ResNet, ResNeXt and DenseNet, 2D",
        _resnet(CONV_2D) | _densenet(CONV_2D, 0),
        IMAGENET,
        (_OLD_DENSE_LAYER,),
        clip={"short_side": 256, "size": 224},
        test={"crop": "center"},
    ),
    "torchvision-video": Layout(
        "torchvision: R3D, MC3 and R(2+1)D",
        VIDEO_RESNET,
        {"mean": (110.2008, 100.63983, 95.99475), "std": (58.14765, 56.46975, 55.332195)},
        clip={"frames": 16, "stride": 1, "short_side": 128, "size": 112, "fps": 15.0},
        test={"clips": "uniform", "number": 5, "crop": "center", "flip": False, "average_clips": "probability"},
    ),
    "3d-resnets": Layout(
        "3D-ResNets-PyTorch (Hara et al.): 3D ResNet, ResNeXt and DenseNet",
        _resnet(CONV_3D) | _densenet(CONV_3D, 1),
        KINETICS,
        (_OLD_DENSE_LAYER, (r"features\.(conv|norm)0", r"features.\g<1>1")),
        versions={"2018": ACTIVITYNET, "2020": KINETICS},
        clip={"frames": 16, "stride": 1, "short_side": 112, "size": 112},
        test={"clips": "nonoverlap", "crop": "center", "flip": False, "average_clips": "probability"},
    ),
    "cost": Layout(
        "CoST's authors' PyTorch code: C2D, C3D and CoST",
        COST,
        IMAGENET,
        clip={"frames": 8, "stride": 8, "short_side": 256, "size": 224},
        test={"clips": "uniform", "number": 10, "crop": "three", "flip": False, "average_clips": "probability"},
    ),
    "i3d": Layout(
        "pytorch-i3d: Inception3D (its epsilon and padding are ours)",
        I3D,
        {"mean": (127.5,) * 3, "std": (127.5,) * 3},
        clip={"frames": 64, "stride": 1, "short_side": 256, "size": 224, "fps": 25.0},
        test={"crop": "center"},
    ),
    "jax_video": Layout("this library: any of its networks, arrays as they are", {}, None),
}


def layout(name: str) -> Layout:
    """The layout of that name. Raises UserError, with the known names, where there is none."""
    if name not in LAYOUTS:
        known = "\n  ".join(f"{key:12} {value.source}" for key, value in LAYOUTS.items())
        raise UserError(f"there is no layout {name!r}; choose one of\n  {known}")
    return LAYOUTS[name]


def keywords(name: str, network: str) -> Mapping[str, Any] | None:
    """Keywords that make our network compute what the layout's does; None where the layout has no such network."""
    layout(name)  # raises where there is none
    return {} if name == "jax_video" else networks.find(network).layouts.get(name)


@dataclasses.dataclass
class Translation:
    """Weights under our names and in our axes."""

    arrays: dict[str, np.ndarray]  # by "params/…" and "batch_stats/…"; those unknown to the layout by their own names
    origin: dict | None  # what `to_theirs` needs to restore the file: {"layout", "counters", "dtypes", "renamed"}
    problems: list[str]  # arrays that contradict the layout, one line each


def to_ours(name: str, weights: dict[str, np.ndarray]) -> Translation:
    """A source's weights under our names, float32 at least. Empties `weights`, so that no array is in memory twice.

    Raises:
      UserError: an unknown layout, or one that fits fewer of the arrays than another does.
    """
    found = layout(name)
    _check_layout(name, weights)
    counters: dict[str, int] = {}
    dtypes: dict[str, str] = {}
    renamed: dict[str, str] = {}
    result = Translation({}, {"layout": name, "counters": counters, "dtypes": dtypes, "renamed": renamed}, [])
    while weights:
        theirs = next(iter(weights))
        array, current = weights.pop(theirs), _current(found, theirs)
        if current != theirs:
            renamed[current] = theirs
        module, _, leaf = current.rpartition(".")
        counter = leaf == COUNTER and array.size == 1
        if (place := _place(name, f"{module}.running_var" if counter else current)) is None:
            result.arrays[theirs] = array
        elif counter:
            steps = array.item()
            counters[current] = int(steps) if np.isfinite(steps) else 0  # half precision ends at 65,504
        elif place[0] in result.arrays:
            result.problems.append(f"twice    {theirs} {shape_text(array.shape)}, under another name too")
        elif (arranged := arrange(array, *place[1:])) is None:
            result.problems.append(f"shape    {theirs}: found {shape_text(array.shape)}, expected {_axes(place[1])}")
        elif array.dtype.kind in "biu":
            result.problems.append(f"type     {theirs}: whole numbers ({array.dtype}): are the weights quantised?")
        else:
            result.arrays[place[0]] = _wide(arranged)
            if array.dtype != np.float32:
                dtypes[current] = array.dtype.name
    return result


def to_theirs(name: str, arrays: dict[str, np.ndarray], *, origin: dict | None, steps: int) -> dict[str, np.ndarray]:
    """Our weights under a source's names, in its axes and types.

    Args:
      origin: what `to_ours` returned if the weights came from this layout: then a file with older names, or without
        counters, is written as it was.
      steps: of training since then.

    Raises:
      UserError: weights that the layout has no name for, in one message.
    """
    if known := origin is not None and origin["layout"] == name:
        counters, dtypes, renamed = origin["counters"], origin["dtypes"], origin["renamed"]
    else:
        counters, dtypes, renamed = {}, {}, {}
    counts = name != "jax_video" and not (known and not counters)
    weights, problems = {}, []
    for ours, array in arrays.items():
        theirs, their_axes, our_axes = their_name(name, ours) or ("", "", "")
        if not theirs or (arranged := arrange(array, our_axes, their_axes)) is None:
            problems.append(f"{ours} {shape_text(array.shape)}")
            continue
        weights[theirs] = np.ascontiguousarray(arranged.astype(dtypes.get(theirs, array.dtype), copy=False))
        if counts and ours.endswith("/var"):
            counter = theirs.rpartition(".")[0] + "." + COUNTER
            weights[counter] = np.array(counters.get(counter, 0) + steps, np.int64)
    if problems:
        raise UserError(
            f"layout {name} ({layout(name).source}) has no place for {len(problems)} arrays of this network:\n"
            + listed(problems)
        )
    return {renamed.get(theirs, theirs): array for theirs, array in weights.items()}


def their_name(name: str, ours: str) -> tuple[str, str, str] | None:
    """(their name, their axes, our axes) of our array, or None where the layout has none."""
    if name == "jax_video":
        return ours, "…", "…"
    collection, _, path = ours.partition("/")
    module, _, leaf = path.rpartition("/")
    for source, (target, kind) in layout(name).table.items():
        for theirs, (our_leaf, axes, our_axes) in kind.items():
            right = our_leaf == leaf and (collection == "batch_stats") == (leaf in STATISTICS)
            if right and (fields := _match(target, module)) is not None:
                return f"{_fill(source, fields)}.{theirs}", axes, our_axes
    return None


def arrange(array: np.ndarray, axes: str, wanted: str) -> np.ndarray | None:
    """An array with its axes in another order, as a view; None where it does not have these axes.

    `arrange(kernel, "OIhw", "1hwIO")` is `[O, I, h, w]` as `[1, h, w, I, O]`; "…" are any axes.
    """
    if axes == wanted:
        return array if axes == "…" or array.ndim == len(axes) else None
    if array.ndim != len(axes) or any(size != 1 for size, axis in zip(array.shape, axes, strict=True) if axis == "1"):
        return None
    array = array.squeeze(tuple(place for place, axis in enumerate(axes) if axis == "1"))
    axes = axes.replace("1", "")
    array = array.transpose([axes.index(axis) for axis in wanted if axis != "1"])
    return np.expand_dims(array, [place for place, axis in enumerate(wanted) if axis == "1"])


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as text: (64, 3, 7, 7) as "64×3×7×7"."""
    return "×".join(map(str, shape)) or "scalar"


def _axes(axes: str) -> str:
    return f"{len(axes)} axes [{', '.join(axes)}]"


def _wide(array: np.ndarray) -> np.ndarray:
    """A contiguous copy, in float32 at least."""
    narrow = array.dtype.kind == "V" or array.dtype.itemsize < 4  # bfloat16 is a void to NumPy
    return np.array(array, np.float32 if narrow else None, order="C")


def _current(found: Layout, theirs: str) -> str:
    for pattern, replacement in found.renamed:
        theirs = re.sub(pattern, replacement, theirs)
    return theirs


def _place(name: str, theirs: str) -> tuple[str, str, str] | None:
    """(our name, their axes, our axes) of their array, or None where the layout has none."""
    if name == "jax_video":
        return (theirs, "…", "…") if theirs.startswith(("params/", "batch_stats/")) else None
    module, _, leaf = theirs.rpartition(".")
    for source, (target, kind) in layout(name).table.items():
        if leaf in kind and (fields := _match(source, module)) is not None:
            our_leaf, axes, our_axes = kind[leaf]
            collection = "batch_stats" if our_leaf in STATISTICS else "params"
            return f"{collection}/{_fill(target, fields)}/{our_leaf}", axes, our_axes
    return None


_FIELD = re.compile(r"\{(\w+)(\+1)?\}")


def _match(template: str, name: str) -> dict[str, str] | None:
    """{"stage": "1", "unit": "0"} for "layer1.0" and "layer{stage}.{unit}"; None where they do not match."""
    literals = _FIELD.sub("\0", template).split("\0")
    fields = list(_FIELD.finditer(template))
    pattern = re.escape(literals[0])
    for field, literal in zip(fields, literals[1:], strict=True):
        pattern += (r"(\d+)" if field[2] else r"(\w+)") + re.escape(literal)
    if (match := re.fullmatch(pattern, name)) is None:
        return None
    values = zip(fields, match.groups(), strict=True)
    return {field[1]: str(int(value) - 1) if field[2] else value for field, value in values}


def _fill(template: str, fields: dict[str, str]) -> str:
    return _FIELD.sub(lambda field: str(int(fields[field[1]]) + 1) if field[2] else fields[field[1]], template)


def _fitting(name: str, weights: dict[str, np.ndarray]) -> int:
    """How many arrays have a place in a layout, and its axes."""
    places = ((_place(name, _current(LAYOUTS[name], theirs)), array) for theirs, array in weights.items())
    return sum(place is not None and arrange(array, *place[1:]) is not None for place, array in places)


def _check_layout(name: str, weights: dict[str, np.ndarray]) -> None:
    """Raise UserError where the arrays are of another layout, or of none."""
    weights = {theirs: array for theirs, array in weights.items() if not theirs.endswith(COUNTER)}
    fitting = {other: _fitting(other, weights) for other in LAYOUTS}
    best = max(fitting, key=lambda other: fitting[other])
    if fitting[best] > fitting[name] or not fitting[best]:
        advice = f"layout {best} has a place for {fitting[best]}" if fitting[best] else "no layout here has such names"
        first = {theirs.partition(".")[0] for theirs in weights}
        if not fitting[best] and len(first) == 1:
            bare = {theirs.partition(".")[2]: array for theirs, array in weights.items()}
            inner = {other: _fitting(other, bare) for other in LAYOUTS}
            if inner[likely := max(inner, key=lambda other: inner[other])]:
                prefix = f"{first.pop()}."
                advice = (
                    f"without {prefix!r} before all of them, layout {likely} has a place for {inner[likely]}: "
                    f"{{name.removeprefix({prefix!r}): value for name, value in weights.items()}} in PyTorch removes it"
                )
        raise UserError(
            f"these are not weights in layout {name}, which has a place for {fitting[name]} of {len(weights)} arrays "
            f"({', '.join(list(weights)[:3])}, …); {advice}"
        )
