"""What a weight file tells of itself: the version of its code, the shortcut and the order of its units."""

import numpy as np
import outlines
import pytest
import torch
from conftest import ROOT
from reference import resnet

from jax_video import state
from jax_video.errors import UserError
from jax_video.weights import files, names, provenance

NETWORK = ("conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.running_var", "fc.weight")
DENSE = ("features.conv{0}.weight", "features.norm{0}.running_mean", "features.denseblock1.denselayer1.{1}.weight")
COUNTER = "bn1.num_batches_tracked"


def saved(tmp_path, *keys: str, prefix: str = "", counter: int | None = None, beside=(), trained: bool = True):
    """A file of a network with these names, as PyTorch saves it."""
    weights = {f"{prefix}{key}": torch.full((4,), float(trained)) for key in keys or NETWORK}
    if counter is not None:
        weights[f"{prefix}{COUNTER}"] = torch.tensor(counter)
    torch.save({"state_dict": weights, "epoch": 200} | dict.fromkeys(beside, {}), tmp_path / "w.pth")
    return files.read_file(tmp_path / "w.pth")


OLD_DENSE = [name.format(0, "norm.1") for name in DENSE]
NEW_DENSE = [name.format(1, "norm1") for name in DENSE]


@pytest.mark.parametrize(
    ("keys", "given", "expected"),
    [
        ((), {"prefix": "module."}, "2018"),
        ((), {"prefix": "module.", "beside": ("optimizer",)}, "2018"),
        ((), {"beside": ("optimizer",)}, "2018"),  # the prefix was taken away, and all else left
        (OLD_DENSE, {}, "2018"),
        (OLD_DENSE, {"counter": 0}, "2018"),
        ((), {"counter": 5}, "2020"),
        ((), {"counter": 5, "beside": ("optimizer",)}, "2020"),
        ((), {"counter": 0, "beside": ("optimizer", "scheduler")}, "2020"),
        ((), {"counter": 0, "trained": False}, "2020"),  # a network that has not been trained yet
        (NEW_DENSE, {}, "2020"),
        # What was saved again has lost the signs, or has some of each.
        ((), {}, ""),
        ((), {"counter": 0}, ""),  # PyTorch fills in zeros where an older file has no counters
        (
            (),
            {"counter": 5, "prefix": "module."},
            "",
        ),  # PyTorch 0.4.1 counted before 2018-11, DataParallel is used today
        ((), {"prefix": "module.", "beside": ("scheduler",)}, ""),
        (OLD_DENSE, {"counter": 5, "beside": ("scheduler",)}, ""),
        (NEW_DENSE, {"prefix": "module."}, ""),
    ],
)
def test_the_version_of_a_3d_resnet(tmp_path, keys, given, expected):
    found, signs = provenance.version("3d-resnets", saved(tmp_path, *keys, **given))
    assert found == expected and ("module." in signs)


def test_other_layouts_have_one_version(tmp_path):
    file = saved(tmp_path, prefix="module.")
    for layout in names.LAYOUTS.keys() - {"3d-resnets"}:
        assert provenance.version(layout, file) == ("", "")
        assert provenance.check_version(layout, "", "", "w.pth") == ""
        with pytest.raises(UserError, match=f"--normalize=2018: layout {layout} has only one, leave it out"):
            provenance.check_version(layout, "2018", "", "w.pth")


def test_the_version_that_is_given():
    assert provenance.check_version("3d-resnets", "2018", "", "w.pth") == "2018"
    assert provenance.check_version("3d-resnets", "2018", "2018", "w.pth") == "2018"
    assert provenance.check_version("3d-resnets", "", "2020", "w.pth") == "2020"
    with pytest.raises(UserError, match="--normalize=2018, but w.pth is of 2020"):
        provenance.check_version("3d-resnets", "2018", "2020", "w.pth")
    with pytest.raises(UserError, match="--normalize=2019: choose 2018 or 2020"):
        provenance.check_version("3d-resnets", "2019", "", "w.pth")


def test_the_numbers_are_those_of_the_note():
    """Beside the cases that showed the fault."""
    path = ROOT / ".." / "shared" / "cases" / "text" / "old_normalisation.txt"
    if not path.exists():
        pytest.skip(f"there is no {path.resolve()}")
    text = path.read_text(encoding="utf-8")
    old, new = names.LAYOUTS["3d-resnets"].versions.values()
    assert "(114.7748, 107.7354, 99.4750), divided by 1;" in text and old["std"] == (1.0, 1.0, 1.0)
    assert old["mean"] == (114.7748, 107.7354, 99.475)
    assert "minus (.4345, .4051, .3775), divided by (.2768, .2713, .2737)" in text
    np.testing.assert_allclose(new["mean"], np.array([0.4345, 0.4051, 0.3775]) * 255, rtol=1e-12)
    np.testing.assert_allclose(new["std"], np.array([0.2768, 0.2713, 0.2737]) * 255, rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["resnet3d10", "resnet3d18", "resnet3d34", "resnet3d50", "resnet3d200", "resnext3d101"]
)
@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("preactivation", [False, True])
def test_how_a_3d_resnet_is_built(name, shortcut, preactivation):
    given = {"shortcut": shortcut, "preactivation": preactivation}
    _, params, batch_stats = state.split(outlines.abstract(name, 5, layers=(1, 1, 2, 1), width=1 / 4, **given))
    leaves = state.named_leaves({"params": params, "batch_stats": batch_stats})
    assert provenance.keywords("3d-resnets", name, leaves) == given


def test_what_has_no_units_tells_nothing():
    assert provenance.keywords("3d-resnets", "resnet3d18", {"params/fc/kernel": np.zeros((4, 5))}) == {}
    assert provenance.keywords("3d-resnets", "densenet3d121", {}) == {}
    assert provenance.keywords("torchvision", "resnet18", {}) == {}


def test_a_2018_file_of_pytorch_tells(tmp_path):
    """The whole way from PyTorch's names."""
    network = resnet.build("resnet3d18", 5, width=1 / 16, shortcut="A", preactivation=True)
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, tmp_path / "w.pth")
    arrays = names.to_ours("3d-resnets", files.read(tmp_path / "w.pth")).arrays
    found = provenance.keywords("3d-resnets", "resnet3d18", arrays)
    assert found == {"shortcut": "A", "preactivation": True}


@pytest.mark.parametrize(("frames", "classes", "stride"), [(8, 400, 8), (32, 400, 4), (32, 339, 2), (32, 101, None)])
def test_clips_of_cost(frames, classes, stride):
    """8 of 64 frames; 32 of 128 on Kinetics and of 64 on Moments in Time; of other sets nobody has said."""
    found = provenance.clip("cost", frames, classes)
    assert (found["frames"], found.get("stride")) == (frames, stride) and found["size"] == 224
