"""Every layout: its names and shapes go into our network and come back, and the network computes what theirs does."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import outlines
import parity
import pytest
import torch
from conftest import ROOT
from reference import layouts
from reference.layouts import SOURCES

from jax_video import networks, state
from jax_video.errors import UserError
from jax_video.weights import files, merge, names

SHAPES = ROOT / ".." / "shared" / "layouts"  # a .tsv for each source: its names and shapes

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def weights_of(name: str) -> dict[str, np.ndarray]:
    """A random state dict of a source's names and shapes."""
    path = SHAPES / f"{name}.tsv"
    if not path.exists():
        pytest.skip(f"no names and shapes of {name} in {SHAPES.resolve()}")
    return layouts.random(layouts.read(path))


def classes_of(weights: dict[str, np.ndarray]) -> int:
    heads = ("fc.weight", "cls_head.fc_cls.weight", "classifier.weight", "logits.conv3d.weight")
    return next(len(weights[head]) for head in heads if head in weights)


@functools.cache
def network_of(name: str, num_classes: int):
    """(definition, {"params", "batch_stats"}) of our network, abstract."""
    source = SOURCES[name]
    model = outlines.abstract(source.network, num_classes, **names.keywords(source.layout, source.network))
    definition, params, batch_stats = state.split(model)
    return definition, {"params": params, "batch_stats": batch_stats}


def read_in(name: str, weights: dict[str, np.ndarray]) -> tuple[merge.Merged, dict]:
    """A state dict in our network, strictly, and its origin; the dict itself is left as it is."""
    translation = names.to_ours(SOURCES[name].layout, dict(weights))
    _, network = network_of(name, classes_of(weights))
    merged = merge.merge(translation.arrays, state.named_leaves(network), problems=translation.problems)
    assert sorted(merged.loaded) == sorted(state.named_leaves(network))
    return merged, translation.origin


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]):
    """Bit by bit: names, shapes, types and values."""
    assert found.keys() == expected.keys()
    wrong = [name for name, array in expected.items() if not same(found[name], array)]
    assert not wrong, wrong


def same(found, array):
    described = (found.dtype, found.shape) == (array.dtype, array.shape)
    return described and np.array_equal(found.reshape(-1).view(np.uint8), array.reshape(-1).view(np.uint8))


def test_every_list_of_names_is_of_a_known_source():
    if not SHAPES.is_dir():
        pytest.skip(f"no names and shapes in {SHAPES}")
    assert {path.stem for path in SHAPES.glob("*.tsv")} == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_a_state_dict_fits_and_comes_back_to_the_bit(name):
    weights = weights_of(name)
    merged, origin = read_in(name, weights)
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in merged.arrays.values())
    returned = names.to_theirs(SOURCES[name].layout, merged.arrays, origin=origin, steps=0)
    assert_same(returned, weights)


@pytest.mark.parametrize(
    "name",
    [name if source.cheap else pytest.param(name, marks=pytest.mark.slow) for name, source in SOURCES.items()],
)
def test_logits_are_those_of_pytorch(name):
    """float32, full size, the same state dict in both: within 1e-5 of the largest logit."""
    weights, source = weights_of(name), SOURCES[name]
    video = np.random.default_rng(1).normal(size=source.video).astype(np.float32)
    with torch.no_grad():
        theirs = layouts.load(source, weights, classes_of(weights))(parity.channels_first(video)).numpy()
    merged, _ = read_in(name, weights)
    definition, network = network_of(name, classes_of(weights))

    @jax.jit
    def forward(network, video):
        return state.join(definition, network["params"], network["batch_stats"], train=False)(video)

    ours = np.asarray(forward(nested(network, merged.arrays), video))
    assert ours.shape == theirs.shape and theirs.std() > 0.1
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"{name}: {error:.1e}")  # shown with -s
    assert error < 1e-5


def nested(network, arrays):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: arrays[jax.tree_util.keystr(path, simple=True, separator="/")], network
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_comes_back_as_it_was(dtype, tmp_path):
    """Through files, under a wrapper and DataParallel's prefix; in between it is float32."""
    weights = weights_of("torchvision_resnet18")
    given = {name: torch.from_numpy(array) for name, array in weights.items()}
    given = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in given.items()}
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in given.items()}}
    torch.save(wrapped, tmp_path / "half.pth.tar")
    weights = files.read(tmp_path / "half.pth.tar")
    assert list(weights) == list(given)
    merged, origin = read_in("torchvision_resnet18", weights)
    assert all(array.dtype == np.float32 for array in merged.arrays.values())
    kernel = given["layer2.0.conv1.weight"].float().permute(2, 3, 1, 0).numpy()
    np.testing.assert_array_equal(merged.arrays["params/layer2/0/conv1/kernel"][0], kernel)

    returned = names.to_theirs("torchvision", merged.arrays, origin=origin, steps=0)
    files.write(tmp_path / "back.pth", returned)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == given.keys()
    assert all(back[name].dtype == given[name].dtype and torch.equal(back[name], given[name]) for name in given)


@pytest.mark.parametrize("name", ["torchvision_densenet121", "3d-resnets_densenet121"])
def test_names_of_old_densenets(name):
    """Until torch 0.4 a dense layer's parts were called norm.1, relu.1, conv.1; counters came with 0.4.1."""
    weights = weights_of(name)
    old = {
        theirs.replace(".norm1", ".norm.1").replace(".norm2", ".norm.2").replace(".conv1.", ".conv.1.")
        if "denselayer" in theirs
        else theirs: array
        for theirs, array in weights.items()
        if not theirs.endswith("num_batches_tracked")
    }
    old = {theirs.replace(".conv2.", ".conv.2."): array for theirs, array in old.items()}
    assert "features.denseblock4.denselayer16.conv.2.weight" in old
    merged, _ = read_in(name, old)
    expected, _ = read_in(name, weights)
    assert_same(merged.arrays, expected.arrays)
    returned = names.to_theirs(SOURCES[name].layout, merged.arrays, origin=None, steps=7)
    assert returned.keys() == weights.keys(), "under the names of today, and with counters"
    assert returned["features.norm5.num_batches_tracked"] == 7


def test_training_adds_to_the_counters():
    weights = weights_of("torchvision_resnet18")
    merged, origin = read_in("torchvision_resnet18", weights)
    returned = names.to_theirs("torchvision", merged.arrays, origin=origin, steps=1000)
    counters = {name for name in weights if name.endswith("num_batches_tracked")}
    assert counters and all(returned[name] == weights[name] + 1000 for name in counters)
    assert all(returned[name].shape == () and returned[name].dtype == np.int64 for name in counters)
    # An origin in another layout says nothing about this one.
    elsewhere = names.to_theirs("torchvision", merged.arrays, origin=origin | {"layout": "i3d"}, steps=5)
    assert all(elsewhere[name] == 5 for name in counters)


@pytest.mark.parametrize("layout", names.LAYOUTS)
def test_every_name_of_ours_leads_back(layout):
    """Of each network that the layout has; no two arrays share a name."""
    for network in networks.NETWORKS:
        wanted = names.keywords(layout, network)
        if wanted is None or (layout == "jax_video" and network not in ("t3d121", "st_resnet", "stc_resnet18")):
            continue
        units = {"layers": (2, 1, 1, 1)} if networks.find(network).stages == 4 else {}
        _, params, batch_stats = state.split(outlines.abstract(network, 5, width=1 / 8, **units, **wanted))
        leaves = state.named_leaves({"params": params, "batch_stats": batch_stats})
        arrays = {name: np.full(leaf.shape, place, leaf.dtype) for place, (name, leaf) in enumerate(leaves.items())}
        theirs = names.to_theirs(layout, arrays, origin=None, steps=0)
        assert len([name for name in theirs if not name.endswith("num_batches_tracked")]) == len(arrays)
        translation = names.to_ours(layout, theirs)
        assert not translation.problems and not theirs, "emptied on its way"
        assert_same(translation.arrays, arrays)


SMALL = {  # a torchvision network's beginning and end
    "conv1.weight": np.zeros((8, 3, 7, 7), np.float32),
    "bn1.weight": np.ones(8, np.float32),
    "bn1.running_var": np.ones(8, np.float32),
    "bn1.num_batches_tracked": np.array(3, np.int64),
    "layer1.0.conv1.weight": np.zeros((8, 8, 3, 3), np.float32),
    "fc.weight": np.zeros((5, 8), np.float32),
}


@pytest.mark.parametrize(
    ("theirs", "array", "problem"),
    [
        ("layer2.0.conv1.weight", np.zeros((8, 8, 3)), "shape    layer2.0.conv1.weight: found 8×8×3, expected 4 axes"),
        ("fc.bias", np.zeros((5, 1)), "shape    fc.bias: found 5×1, expected 1 axes [O]"),
        ("fc.bias", np.zeros(5, np.uint8), "type     fc.bias: whole numbers (uint8): are the weights quantised?"),
    ],
)
def test_what_has_other_axes_is_a_problem(theirs, array, problem):
    translation = names.to_ours("torchvision", SMALL | {theirs: array})
    assert len(translation.problems) == 1 and translation.problems[0].startswith(problem)
    assert len(translation.arrays) == len(SMALL) - 1, "all but the counter"


def test_a_prefix_of_all_names_is_told():
    """As Lightning puts it before them."""
    weights = {f"network.{name}": array for name, array in SMALL.items()}
    with pytest.raises(UserError, match="without 'network.' before all of them, layout torchvision has a place for"):
        names.to_ours("torchvision", weights)


@pytest.mark.parametrize(
    ("theirs", "array"),
    [
        ("conv2.weight", np.zeros((8, 3, 7, 7))),
        ("layer1.0.conv1.bias", np.zeros(8)),
        ("bn1.scale", np.zeros(8)),
        ("bn7.num_batches_tracked", np.array(3)),
        ("layer1.0.bn1.num_batches_tracked", np.zeros(8, int)),
    ],
)
def test_what_has_no_place_keeps_its_name(theirs, array):
    """By which it can be left out, or is extra to every network."""
    translation = names.to_ours("torchvision", SMALL | {theirs: array})
    assert not translation.problems and len(translation.arrays) == len(SMALL)
    assert translation.arrays[theirs] is array


def test_older_names_come_back():
    """And where nothing was counted, nothing is."""
    old = {
        "features.conv0.weight": np.ones((8, 3, 7, 7, 7), np.float32),
        "features.denseblock1.denselayer2.norm.1.running_var": np.ones(8, np.float32),
    }
    translation = names.to_ours("3d-resnets", dict(old))
    assert set(translation.arrays) == {"params/conv0/kernel", "batch_stats/denseblock1/1/norm1/var"}
    assert_same(names.to_theirs("3d-resnets", translation.arrays, origin=translation.origin, steps=3), old)
    today = names.to_theirs("3d-resnets", translation.arrays, origin=None, steps=3)
    layer = "features.denseblock1.denselayer2.norm1"
    assert set(today) == {"features.conv1.weight", f"{layer}.running_var", f"{layer}.num_batches_tracked"}


def test_two_names_of_one_array_are_a_problem():
    both = {f"features.denseblock1.denselayer1.{name}.weight": np.ones(8, np.float32) for name in ("norm1", "norm.1")}
    translation = names.to_ours("torchvision", both)
    assert [problem.split()[:2] for problem in translation.problems] == [
        ["twice", "features.denseblock1.denselayer1.norm.1.weight"]
    ]


def test_counters_that_half_precision_cannot_hold():
    """`{name: tensor.half() …}` makes infinity of the steps, which are no part of the network."""
    given = SMALL | {"bn1.num_batches_tracked": np.array(np.inf, np.float16)}
    assert names.to_ours("torchvision", given).origin["counters"] == {"bn1.num_batches_tracked": 0}


@pytest.mark.parametrize(
    ("given", "layout", "advice"),
    [
        ("torchvision_resnet18", "3d-resnets", "layout torchvision has a place for 102"),
        ("3d-resnets_resnet18", "torchvision", "layout 3d-resnets has a place for 102"),
        ("cost_r50_costa", "i3d", "layout cost has a place for 275"),
        ("i3d_rgb", "cost", "layout i3d has a place for 287"),
        ("i3d_rgb", "jax_video", "layout i3d has a place for 287"),
    ],
)
def test_another_layout(given, layout, advice):
    with pytest.raises(UserError, match=f"not weights in layout {layout}, which has a place for") as error:
        names.to_ours(layout, weights_of(given))
    assert advice in str(error.value)


def test_no_layout():
    with pytest.raises(UserError, match="has a place for 0 of 2 arrays.*; no layout here has such names"):
        names.to_ours("torchvision", {"encoder.0.weight": np.zeros((3, 3)), "encoder.0.bias": np.zeros(3)})
    for call in (lambda: names.to_ours("pytorch", dict(SMALL)), lambda: names.keywords("pytorch", "resnet18")):
        with pytest.raises(UserError, match="there is no layout 'pytorch'; choose one of") as error:
            call()
        assert all(layout in str(error.value) for layout in names.LAYOUTS)


def test_networks_that_a_layout_does_not_have():
    _, params, batch_stats = state.split(outlines.abstract("stc_resnet18", 5, width=1 / 16, layers=(1, 1, 1, 1)))
    leaves = state.named_leaves({"params": params, "batch_stats": batch_stats})
    arrays = {name: np.zeros(leaf.shape) for name, leaf in leaves.items()}
    stc = [name for name in arrays if "/stc/" in name]
    with pytest.raises(UserError) as error:
        names.to_theirs("3d-resnets", arrays, origin=None, steps=0)
    message = str(error.value)
    assert (
        f"3d-resnets (3D-ResNets-PyTorch (Hara et al.): 3D ResNet, ResNeXt and DenseNet) has no place for {len(stc)}"
        in message
    )
    assert all(name in message for name in stc[:10]) and message.splitlines()[11:] == [f"  and {len(stc) - 10} more"]
    # A kernel over time is none of a 2D network's.
    arrays = {name: array for name, array in arrays.items() if name not in stc}
    with pytest.raises(UserError, match=r"no place for (\d+) arrays of this network:\n  params/conv1/kernel 7×7×7×3×4"):
        names.to_theirs("torchvision", arrays, origin=None, steps=0)
    assert names.keywords("torchvision", "stc_resnet18") is None and names.keywords("i3d", "c3d") is None


def test_arrange():
    rng = np.random.default_rng(0)
    for theirs, ours, shape in (
        ("OIthw", "thwIO", (2, 3, 4, 5, 6)),
        ("OIhw", "1hwIO", (2, 3, 4, 5)),
        ("OI", "IO", (2, 3)),
        ("OI111", "IO", (2, 3, 1, 1, 1)),
        ("vO", "vO", (3, 4)),
        ("O", "O", (4,)),
    ):
        array = rng.normal(size=shape)
        arranged = names.arrange(array, theirs, ours)
        sizes = dict(zip(theirs, shape, strict=True)) | {"1": 1}
        assert arranged.shape == tuple(sizes[axis] for axis in ours) and np.shares_memory(arranged, array)
        np.testing.assert_array_equal(names.arrange(arranged, ours, theirs), array)
    kernel = rng.normal(size=(2, 3, 4, 5))
    assert names.arrange(kernel, "OIhw", "1hwIO")[0, 1, 2, 0, 1] == kernel[1, 0, 1, 2]
    assert names.arrange(kernel, "OIthw", "thwIO") is None, "another number of axes"
    assert names.arrange(kernel[:, :, None], "OI111", "IO") is None, "an axis that is not one"
    assert names.arrange(kernel[None], "thwIO", "OIthw").shape == (5, 4, 1, 2, 3)
    assert names.arrange(np.zeros((3, 7, 7, 3, 8)), "1hwIO", "OIhw") is None


def test_our_own_layout_keeps_everything(tmp_path):
    """Any network, to the bit: float32, bfloat16, in .npz and .safetensors."""
    weights = {
        "params/appearance/layer1/0/conv1/kernel": np.random.default_rng(0).normal(size=(1, 3, 3, 4, 4)),
        "params/fc/bias": np.ones(3, np.float32),
        "batch_stats/bn/var": np.ones(3, jnp.bfloat16),
    }
    for suffix in (".npz", ".safetensors", ".pth"):
        path = pathlib.Path(tmp_path, f"weights{suffix}")
        files.write(path, weights)
        translation = names.to_ours("jax_video", files.read(path))
        assert translation.arrays["batch_stats/bn/var"].dtype == np.float32
        assert_same(names.to_theirs("jax_video", translation.arrays, origin=translation.origin, steps=3), weights)
