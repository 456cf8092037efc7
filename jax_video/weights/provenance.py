"""What a weight file tells about the code that wrote it: its version, and how its network is built."""

import re

import numpy as np

from jax_video import networks, recipe
from jax_video.errors import UserError
from jax_video.weights import names
from jax_video.weights.files import WeightFile

_OLD_NAMES = r"features\.(conv|norm)0\.|\.denselayer\d+\.(conv|norm)\.\d\."  # of 3D-ResNets-PyTorch's first DenseNets
_NEW_NAMES = r"features\.(conv|norm)1\."
# Keywords with which a network in test mode computes the same, and those that follow the config's clips.
_FREE = {"remat", "dropout", "fuse_views", "frames", "size"}


def version(layout: str, file: WeightFile) -> tuple[str, str]:
    """The version of a layout's code that has saved a file, and the signs of it.

    Before 2018-11 3D-ResNets-PyTorch saved a network inside DataParallel, PyTorch did not yet count the batches of
    BatchNorm, and DenseNet had torchvision's names. Since then it saves the network itself, with counters, and a
    scheduler beside the optimizer. An older file that a newer PyTorch has loaded and saved again has counters of zero.

    Returns:
      (one of the layout's versions, the signs of it), or ("", the signs that there are) where the file does not tell.
    """
    if not names.layout(layout).versions:
        return "", ""
    counters = [array for name, array in file.weights.items() if name.endswith(names.COUNTER)]
    trained = any(array.any() for name, array in file.weights.items() if name.endswith(".running_mean"))
    counted = any(map(np.any, counters)) or bool(counters) and not trained
    old_names = any(re.search(_OLD_NAMES, name) for name in file.weights)
    new_names = any(re.match(_NEW_NAMES, name) for name in file.weights) and not old_names
    prefixed, scheduler = "module." in file.prefixes, "scheduler" in file.beside
    optimizer = "optimizer" in file.beside and not scheduler
    signs = {
        'names with "module."': prefixed,
        'names without "module."': not prefixed,
        names.COUNTER: counted,
        f"{names.COUNTER} of 0 everywhere": bool(counters) and not counted,
        f"no {names.COUNTER}": not counters,
        "a scheduler": scheduler,
        "an optimizer, but no scheduler": optimizer,
        "features.conv0": old_names,
        "features.conv1": new_names,
    }
    found = ", ".join(sign for sign, there in signs.items() if there)
    older = not scheduler and not new_names and (old_names or not counters and (prefixed or optimizer))
    newer = not prefixed and not old_names and (counted or scheduler or new_names)
    first, *_, last = names.layout(layout).versions
    return first if older else last if newer else "", found


def check_version(layout: str, given: str, found: str, source: str) -> str:
    """The version that the user has given, or else the one that the file tells; "" where neither is known.

    Raises:
      UserError: the layout has no such version, or the file tells another one.
    """
    known = names.layout(layout).versions
    if given and given not in known:
        expected = f"choose {' or '.join(known)}" if known else f"layout {layout} has only one, leave it out"
        raise UserError(f"--normalize={given}: {expected}")
    if given and found and given != found:
        raise UserError(
            f"--normalize={given}, but {source} is of {found}, when its code expected other RGB. Leave it out, or "
            "give the numbers: --config.normalize.mean=(…) --config.normalize.std=(…)"
        )
    return given or found


def keywords(layout: str, network: str, arrays: dict[str, np.ndarray]) -> dict:
    """Keywords of our network that vary within a layout, as the arrays of a file, by our names, decide them."""
    if layout == "cost" and (kernel := arrays.get("params/conv1/kernel")) is not None:
        return {"frames": 32 if kernel.shape[0] == 5 else 8}
    if layout != "3d-resnets" or "shortcut" not in networks.find(network).keywords:
        return {}
    shapes = {name: array.shape for name, array in arrays.items()}
    found = {"shortcut": shortcut(shapes), "preactivation": preactivation(shapes)}
    return {key: value for key, value in found.items() if value is not None}


def run_keywords(network: str, model: dict) -> dict:
    """Keywords of our network that change what it computes, as section `model` of the run that a file was exported from
    has them; {} where that is of another network, or not known."""
    known = networks.find(network).keywords.keys() - _FREE if model.get("name") == network else set()
    return recipe.with_tuples({key: value for key, value in model.items() if key in known})


def shortcut(shapes: dict[str, tuple[int, ...]]) -> str | None:
    """The type: "B" where units have projections, "A" where several stages have none; None where it is no ResNet."""
    if any("/downsample/" in name for name in shapes):
        return "B"
    return "A" if any("/layer2/" in name for name in shapes) else None


def preactivation(shapes: dict[str, tuple[int, ...]]) -> bool | None:
    """Whether units begin with BatchNorm, as it has their input's width; None where no unit changes the width."""
    votes = 0
    for name, shape in shapes.items():
        if re.search(r"/layer\d/\d+/conv1/kernel$", name) and len(shape) == 5 and shape[-2] != shape[-1]:
            norm = shapes.get(name.replace("conv1/kernel", "bn1/scale"))
            votes += 0 if norm is None else 1 if norm[0] == shape[-2] else -1
    return votes > 0 if votes else None


def clip(layout: str, frames: int, num_classes: int) -> dict:
    """How the source's own test takes clips from a video: the keys of section `clip` that are known.

    CoST takes 32 frames out of 64 on Moments in Time, which has 339 classes, and out of 128 on Kinetics-400.
    """
    found = dict(names.layout(layout).clip)
    if layout == "cost" and frames == 32:
        found = {**found, "frames": 32, "stride": {339: 2, 400: 4}.get(num_classes)}
    return {key: value for key, value in found.items() if value is not None}
