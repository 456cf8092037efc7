"""Weights of another network: the message begins with why."""

import numpy as np
import outlines
import pytest

from jax_video import state
from jax_video.errors import UserError
from jax_video.weights import merge, mismatch


def shapes(name: str, classes: int = 5, **options):
    _, params, batch_stats = state.split(outlines.abstract(name, classes, **options))
    return {
        name: leaf.shape for name, leaf in state.named_leaves({"params": params, "batch_stats": batch_stats}).items()
    }


@pytest.mark.parametrize(
    ("found", "wanted", "first"),
    [
        (("resnet3d50",), ("resnet3d101",), "these are weights of ResNet-50; resnet3d101 is ResNet-101"),
        (("resnet3d34",), ("resnet3d50",), "these are weights of ResNet-34; resnet3d50 is ResNet-50"),
        (("resnet3d101",), ("resnext3d101",), "these are weights of ResNet-101; resnext3d101 is ResNeXt-101"),
        (("densenet3d121",), ("resnet3d50",), "these are weights of DenseNet-121; resnet3d50 is ResNet-50"),
        (("densenet3d121",), ("densenet3d169",), "these are weights of DenseNet-121; densenet3d169 is DenseNet-169"),
        (("r3d_18",), ("r2plus1d_18",), "these are weights of R3D or MC3; r2plus1d_18 is R(2+1)D"),
        (("r2plus1d_18",), ("resnet3d18",), "these are weights of R(2+1)D; resnet3d18 is ResNet-18"),
        (("inception3d",), ("c3d",), "these are weights of Inception-V1; c3d is C3D"),
        (("resnet3d18", 5, {"width": 0.5}), ("resnet3d18",), "other widths, conv1 has 32, here 64"),
        (("resnet50",), ("resnet3d50",), "these are weights of a 2D network; this one is 3D"),
        (("densenet121",), ("densenet3d121",), "these are weights of a 2D network; this one is 3D"),
        (("resnet3d50",), ("resnet50",), "these are weights of a 3D network; this one is 2D"),
        (
            ("resnet3d18", 5, {"shortcut": "A"}),
            ("resnet3d18",),
            "these are weights with shortcut=A, the network has sh",
        ),
        (
            ("resnet3d18",),
            ("resnet3d18", 5, {"shortcut": "A"}),
            "these are weights with shortcut=B, the network has sh",
        ),
        (("resnet3d50", 5, {"preactivation": True}), ("resnet3d50",), "these are weights with preactivation=True"),
        (
            ("resnet3d18", 7),
            ("resnet3d18",),
            "the classifier is of other classes, fc has 7, here 5: init_from.new_head",
        ),
        (("densenet3d121", 7), ("densenet3d121",), "the classifier is of other classes, classifier has 7"),
        (
            ("resnet3d18",),
            ("stc_resnet18", 5, {"frames": 16}),
            "the weights have no STC blocks: init_from.skip=('*/stc/*",
        ),
        (("stc_resnet18", 5, {"frames": 16}), ("resnet3d18",), "the weights have STC blocks, the network has not"),
        (
            ("stc_resnet18", 5, {"frames": 16}),
            ("stc_resnet18", 5, {"frames": 32}),
            "STC blocks are bound to the clip: model.frames",
        ),
        (("c2d_resnet50",), ("cost_a_resnet50",), "the weights have no CoST(a)'s α: init_from.skip=('*/alpha',)"),
        (("resnet50",), ("cost_b_resnet50",), "the weights have no CoST(b)'s α: init_from.skip=('*/conv2/fc?/*',)"),
        (("resnet3d18",), ("resnet3d18", 5, {"consensus": True}), "the network has these arrays in its part network"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[0],
)
def test_the_likely_cause_comes_first(found, wanted, first):
    def of(name, classes=5, options=None):
        return shapes(name, classes, **options or {})

    causes = mismatch.causes(of(*found), of(*wanted), network=wanted[0])
    assert causes[0].startswith(first), causes


def test_several_causes():
    causes = mismatch.causes(shapes("resnet50", 1000), shapes("resnet3d101", 400), network="resnet3d101")
    assert [cause[:28] for cause in causes] == [
        "these are weights of ResNet-",
        "these are weights of a 2D ne",
        "the classifier is of other c",
    ]
    assert not mismatch.causes(shapes("resnet50"), shapes("resnet3d50"), inflates=True)


def test_what_fits_has_no_cause():
    for name in ("resnet3d18", "cost_a_resnet50", "inception3d", "t3d121", "st_resnet"):
        assert not mismatch.causes(shapes(name), shapes(name))


def test_ten_lines_and_no_more():
    """The message of a whole network that is another."""
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes("resnet3d50", width=1 / 16).items()}
    _, params, batch_stats = state.split(outlines.abstract("resnet3d101", 5, width=1 / 16))
    target = state.named_leaves({"params": params, "batch_stats": batch_stats})
    with pytest.raises(UserError) as error:
        merge.merge(arrays, target, network="resnet3d101")
    first, *lines = str(error.value).splitlines()
    missing = len(target) - len(shapes("resnet3d50"))
    assert f"{missing} problems. Likely: these are weights of ResNet-50; resnet3d101 is ResNet-101" in first
    assert len(lines) == 11 and lines[-1] == f"  and {missing - 10} more"
