"""Weights meet a network: strictly, with every mistake in one message; and a run that starts from others' weights."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
import tiny
import torch
from flax import nnx
from ml_collections import ConfigDict
from reference import resnet

from jax_video import models, networks, optimizer, sharding
from jax_video import state as state_lib
from jax_video.checkpoint import Checkpoints
from jax_video.errors import UserError
from jax_video.meta import Meta
from jax_video.models.layers import Linear
from jax_video.weights import files, merge, names, source, start

pytestmark = pytest.mark.usefixtures("one_device")

CLASSES = 5
LAYERS = (1, 1, 1, 1)


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


TARGET = {
    "params/conv1/kernel": struct(3, 3, 3, 2, 4),
    "params/bn1/scale": struct(4),
    "batch_stats/bn1/mean": struct(4),
    "params/fc/kernel": struct(4, 5),
    "params/fc/bias": struct(5),
}


def arrays(**changed):
    return {name: np.full(leaf.shape, 2.0, leaf.dtype) for name, leaf in TARGET.items()} | changed


# Matching.


def test_everything_fits():
    given = arrays()
    expected = dict(given)
    merged = merge.merge(given, TARGET)
    assert merged.loaded == list(TARGET) and not (merged.inflated or merged.fresh or merged.skipped)
    assert merged.arrays.keys() == TARGET.keys() and not given, "emptied on the way"
    assert all(np.array_equal(merged.arrays[name], expected[name]) for name in TARGET)
    assert merged.table() == "  loaded       5 arrays            249 values"


def test_arrays_take_the_networks_type():
    merged = merge.merge(arrays(**{"params/fc/bias": np.full(5, 0.1)}), TARGET)
    assert merged.arrays["params/fc/bias"].dtype == np.float32


def test_every_mistake_is_in_one_message():
    given = arrays(
        **{
            "params/fc/kernel": np.zeros((4, 7)),
            "params/fc/bias": np.zeros(7),
            "params/fc2/kernel": np.zeros((4, 7)),
            "batch_stats/bn2/mean": np.zeros(4),
        }
    )
    del given["params/bn1/scale"], given["params/conv1/kernel"]
    with pytest.raises(UserError) as error:
        merge.merge(
            given,
            TARGET,
            skip=["fc3/*", "bn?/var"],
            problems=["twice    bn1.weight 4"],
            source="the weights in x.pth",
            their_name=lambda name: "bn1.weight" if name == "params/bn1/scale" else name,
        )
    message = str(error.value)
    cause = "the classifier is of other classes, fc has 7, here 5: init_from.new_head starts it afresh"
    assert message.startswith(f"the weights in x.pth do not fit the network: 9 problems. Likely: {cause}.\n")
    assert [line.strip() for line in message.splitlines()[1:10]] == [
        "twice    bn1.weight 4",
        "pattern  'fc3/*' of skip matches no name",
        "pattern  'bn?/var' of skip matches no name",
        "missing  params/conv1/kernel 3×3×3×2×4",
        "missing  params/bn1/scale 4, there bn1.weight",
        "shape    params/fc/kernel: found 4×7, expected 4×5",
        "shape    params/fc/bias: found 7, expected 5",
        "extra    params/fc2/kernel 4×7",
        "extra    batch_stats/bn2/mean 4",
    ]


@pytest.mark.parametrize("into_views", [True, False])
def test_taps_in_time_are_no_views(into_views):
    """CoST's kernels and those of 3x3x3 have the same names and shapes."""
    target = TARGET | {"params/conv1/alpha": struct(3, 4)} if into_views else TARGET
    given = arrays() if into_views else arrays(**{"params/conv1/alpha": np.ones((3, 4), np.float32)})
    views = {"params/conv1/kernel"} if into_views else set()
    there, here = ("frames", "views") if into_views else ("views", "frames")
    with pytest.raises(UserError, match=f"kernel: the first axis is of {there}, expected one of {here}"):
        merge.merge(given, target, skip=("*/alpha",), views=views)
    same = arrays(**{"params/conv1/alpha": np.ones((3, 4), np.float32)})
    merged = merge.merge(same, TARGET | {"params/conv1/alpha": struct(3, 4)}, views={"params/conv1/kernel"})
    assert len(merged.loaded) == len(TARGET) + 1


def test_a_part_of_the_files_is_called_one():
    """As of a model in several files of safetensors."""
    some = {name: array for name, array in arrays().items() if "fc" in name} | {
        f"params/layer1/{unit}/conv1/kernel": np.ones((1, 1, 1, 4, 4), np.float32) for unit in range(2)
    }
    whole = TARGET | {f"params/layer1/{unit}/conv1/kernel": struct(1, 1, 1, 4, 4) for unit in range(4)}
    with pytest.raises(UserError, match=r"Likely: the file has a part of the network, which it fits"):
        merge.merge(some, whole)


def test_what_is_skipped_is_reported():
    """On both sides, by names without the collection; the rest must fit."""
    given = arrays(
        **{"params/fc/kernel": np.zeros((4, 7)), "params/fc/bias": np.zeros(7), "params/aux/bias": np.ones(3)}
    )
    merged = merge.merge(given, TARGET, skip=["fc/*", "aux/bias"])
    assert merged.fresh == ["params/fc/kernel", "params/fc/bias"]
    assert merged.skipped == ["params/fc/kernel", "params/fc/bias", "params/aux/bias"]
    assert merged.loaded == [name for name in TARGET if "fc" not in name] == list(merged.arrays)
    table = merged.table().splitlines()
    assert table[1] == "  fresh        2 arrays  params/fc/kernel, params/fc/bias"
    assert table[2] == "  skipped      3 arrays  params/fc/kernel, params/fc/bias, params/aux/bias"
    merged = merge.merge(arrays(), TARGET, skip=["*"])
    assert merged.table().splitlines()[0].endswith("batch_stats/bn1/mean, params/fc/kernel, …"), "four names, then more"
    with pytest.raises(UserError, match="4 problems"):  # in capitals it is another name
        merge.merge(
            arrays(**{"params/fc/kernel": np.zeros((4, 7)), "params/Aux/bias": np.ones(3)}),
            TARGET,
            skip=["FC/*", "aux/*"],
        )


def test_what_the_layout_does_not_know_can_be_left_out():
    given = arrays(**{"aux.fc.weight": np.ones(3), "aux.fc.bias": np.ones(3)})
    assert merge.merge(dict(given), TARGET, skip=["aux.*"]).skipped == ["aux.fc.weight", "aux.fc.bias"]
    with pytest.raises(UserError, match=r"1 problem\.(.|\n)*extra    aux\.fc\.bias 3"):
        merge.merge(given, TARGET, skip=["*.weight"])


def test_an_unknown_way_to_inflate():
    with pytest.raises(UserError, match="inflate='median' is unknown; choose one of 'mean', 'centre'"):
        merge.merge(arrays(), TARGET, method="median")


def test_kernels_are_inflated_where_it_is_asked_for():
    flat = {"params/conv1/kernel": np.full((1, 3, 3, 2, 4), 3.0, np.float32)}
    with pytest.raises(UserError, match=r"shape    params/conv1/kernel: found 1×3×3×2×4, expected 3×3×3×2×4"):
        merge.merge(arrays(**flat), TARGET)
    merged = merge.merge(arrays(**flat), TARGET, method="mean")
    assert merged.inflated == ["params/conv1/kernel"] and len(merged.loaded) == len(TARGET) - 1
    np.testing.assert_array_equal(merged.arrays["params/conv1/kernel"], np.ones((3, 3, 3, 2, 4), np.float32))
    assert merged.table().splitlines()[1] == "  inflated     1 arrays            216 values"
    merged = merge.merge(arrays(**flat), TARGET, method="mean", views=["params/conv1/kernel"])
    assert (merged.arrays["params/conv1/kernel"] == 3).all(), "each view has the whole kernel"
    with pytest.raises(UserError, match="inflate=.*median.*mean.*centre"):
        merge.merge(arrays(**flat), TARGET, method="median")


def test_partial_weights_leave_the_rest_as_initialised():
    some = {"params/conv1/kernel": TARGET["params/conv1/kernel"]}
    given = {name: np.ones(leaf.shape, np.float32) for name, leaf in some.items()}
    with pytest.raises(UserError, match="missing  "):
        merge.merge(dict(given), TARGET)
    merged = merge.merge(dict(given), TARGET, partial=True)
    assert merged.loaded == list(given) == list(merged.arrays)
    assert merged.fresh == [name for name in TARGET if name not in given]
    for wrong, problem in (
        ({"params/conv1/kernel": np.ones((2, 2), np.float32)}, "shape    params/conv1/kernel"),
        (given | {"params/conv9/kernel": np.ones(2, np.float32)}, "extra    params/conv9/kernel"),
        ({}, "nothing  of them is in the network"),
    ):
        with pytest.raises(UserError, match=problem):
            merge.merge(dict(wrong), TARGET, partial=True)


# Into a config's network.


def config_of(path="", layout="", **model) -> ConfigDict:
    """The smallest run, of a 3D-ResNet-18, from these weights."""
    config = tiny.get_config()
    config.init_from.update(path=str(path), layout=layout, keep_head=True)
    with config.unlocked():
        config.model.update(model)
    return config


def creator(config, classes=CLASSES):
    """What makes a run's random state."""
    schedule = optimizer.schedule(**config.schedule, steps=1, steps_per_epoch=1)
    tx = optimizer.make(schedule, **config.optimizer)
    return lambda: state_lib.create(state_lib.network(config, classes), tx, ema=config.train.ema > 0)


def initial_state(config, classes=CLASSES):
    return start.initial_state(config, list("abcdefgh")[:classes], sharding.make_mesh(), creator(config, classes))


def leaves(state):
    return state_lib.named_leaves({"params": state.params, "batch_stats": state.batch_stats})


def theirs(classes=CLASSES, **options) -> dict[str, torch.Tensor]:
    """A small 3D-ResNet-18 of PyTorch, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = resnet.build("resnet3d18", classes, width=1 / 16, layers=LAYERS, **options)
    weights = network.state_dict()
    for name, tensor in weights.items():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
        if name.endswith("num_batches_tracked"):
            tensor.fill_(77)
    return weights


@pytest.fixture
def file(tmp_path):
    torch.save({"state_dict": theirs(), "optimizer": {}, "scheduler": {}}, tmp_path / "r3d.pth")
    return tmp_path / "r3d.pth"


def test_a_run_starts_from_a_file(file, capsys):
    config = config_of(file, "3d-resnets")
    assert config.train.ema > 0
    state = initial_state(config)
    found, given = leaves(state), theirs()
    assert len(found) == len([name for name in given if not name.endswith("tracked")])
    np.testing.assert_array_equal(
        found["params/layer2/0/downsample/conv/kernel"], given["layer2.0.downsample.0.weight"].permute(2, 3, 4, 1, 0)
    )
    np.testing.assert_array_equal(found["batch_stats/layer4/0/bn2/var"], given["layer4.0.bn2.running_var"])
    np.testing.assert_array_equal(found["params/fc/kernel"], given["fc.weight"].T)
    # Everything is as a run's state is, with the moving averages at the same values and the optimizer at its start.
    expected = jax.eval_shape(creator(config))
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert isinstance(leaf, jax.Array) and (leaf.shape, leaf.dtype) == (wanted.shape, wanted.dtype)
    averaged = state_lib.named_leaves(state.ema)
    assert all(np.array_equal(averaged[name], leaf) and averaged[name] is not leaf for name, leaf in found.items())
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.opt_state)) and state.step == 0

    table = capsys.readouterr().err
    assert table.startswith(f"Weights from {file}:\n  loaded   {len(found):5} arrays ")
    assert not re.search("inflated|fresh|skipped", table)
    assert "These weights have seen RGB of {'mean': (110.7975, 103.3005, 96.2625)" in table
    config.normalize.update(names.LAYOUTS["3d-resnets"].normalize)
    initial_state(config)
    assert "have seen RGB" not in capsys.readouterr().err


def test_a_run_with_consensus_starts_from_one_without(file):
    config = config_of(file, "3d-resnets")
    alone = leaves(initial_state(config))
    config.model.consensus = True
    with pytest.raises(UserError, match="Likely: the network has these arrays in its part network: init_from.into=net"):
        initial_state(config)
    config.init_from.into = "network"
    together = leaves(initial_state(config))
    assert together.keys() == {name.replace("/", "/network/", 1) for name in alone}
    assert all(np.array_equal(together[name.replace("/", "/network/", 1)], leaf) for name, leaf in alone.items())
    config.init_from.into = "student"
    with pytest.raises(UserError, match="into='student': the network has no such part; it has network"):
        initial_state(config)
    config.init_from.update(into="network", skip=("fc/*",))
    with pytest.raises(UserError, match="pattern  'fc/.' of skip matches no name"):  # its name here is network/fc
        initial_state(config, 8)
    config.init_from.skip = ("network/fc/*",)
    assert leaves(initial_state(config, 8))["params/network/fc/bias"].shape == (8,)


def test_another_classifier_starts_afresh(file, capsys):
    """It has the very values that it has in a run of the same seed without weights; all else is the file's."""
    config = config_of(file, "3d-resnets")
    with pytest.raises(UserError) as error:
        initial_state(config, 8)
    assert "2 problems" in str(error.value) and f"the weights in {file} do not fit" in str(error.value)
    assert "shape    params/fc/kernel: found 32×5, expected 32×8" in str(error.value)
    config.init_from.skip = ("fc/*",)
    state = initial_state(config, 8)
    expected = leaves(jax.jit(creator(config, 8))())
    found, given = leaves(state), theirs()
    for name in ("params/fc/kernel", "params/fc/bias"):
        np.testing.assert_array_equal(found[name], expected[name])
        np.testing.assert_array_equal(state_lib.named_leaves(state.ema)[name], expected[name])
    np.testing.assert_array_equal(found["params/bn1/scale"], given["bn1.weight"])
    assert "  fresh        2 arrays  params/fc/bias, params/fc/kernel\n" in capsys.readouterr().err


def test_a_run_starts_from_another_runs_folder(tmp_path, capsys):
    """From its moving averages, as a test would use them; the network may have other classes."""
    mesh, config = sharding.make_mesh(), config_of()
    source = jax.jit(creator(config))()
    source = dataclasses.replace(source, ema=jax.tree.map(lambda leaf: leaf + 1, source.ema))
    checkpoints = Checkpoints(tmp_path / "run", mesh)
    checkpoints.save(
        sharding.place_state(source, mesh),
        Meta(config.to_dict(), tuple("abcde")),
    )
    checkpoints.close()

    initial_state(config_of(tmp_path / "run"))
    assert "has another config" not in capsys.readouterr().err
    other = config_of(tmp_path / "run", stem="table1")
    other.normalize.mean = (127.5,) * 3
    initial_state(other)
    said = f"The run in {tmp_path / 'run'} has another config: model.stem: there hara, here table1; normalize.mean: "
    assert said in capsys.readouterr().err

    config, expected = config_of(tmp_path / "run"), state_lib.named_leaves(source.ema)
    config.init_from.skip = ("fc/*",)
    found = leaves(initial_state(config, 8))
    assert found["params/fc/kernel"].shape == (32, 8)
    assert [name for name in found if not np.array_equal(found[name], expected[name])] == [
        "params/fc/bias",
        "params/fc/kernel",
    ]
    assert f"Weights from {tmp_path / 'run'}:\n" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"missing  params/layer1/0/stc/\S+ \S+\n") as error:
        initial_state(config_of(tmp_path / "run", name="stc_resnet18", frames=4))
    assert ", there" not in str(error.value), "names are ours on both sides"
    with pytest.raises(UserError, match=r"is a folder, so a run's; a layout \(jax_video\) is for weight files"):
        initial_state(config_of(tmp_path / "run", "jax_video"))


@pytest.mark.parametrize(
    ("section", "theirs", "ours", "said"),
    [
        ("model", {}, {"stem": "table1"}, "there hara, here table1"),
        ("model", {"stem": "table1"}, {}, "there table1, here hara"),
        ("model", {}, {"stem": "hara", "remat": True}, None),
        ("teacher", {}, {"stem": "table1"}, "there hara, here table1"),
        ("teacher", {"stem": "hara"}, {}, None),
    ],
)
def test_a_keyword_that_a_config_leaves_out_has_its_default(
    random_state, tmp_path, capsys, section, theirs, ours, said
):
    """In the run and here, also where the run's network becomes the teacher of another."""
    run, config = config_of(), config_of()
    with config.unlocked():
        for each, given in ((run, theirs), (config, ours)):
            del each.model.stem
            each.model.update(given)
        if section == "teacher":
            config.teacher, config.model = config.model, ConfigDict({"name": "resnet3d34"})
    make_run(random_state, "abcde", tmp_path / "run", config=run)
    source.read_source(tmp_path / "run", "", "", config, sharding.make_mesh(), into=section.replace("model", ""))
    expected = f"The run in {tmp_path / 'run'} has another config: {section}.stem: {said}.\n" if said else ""
    assert capsys.readouterr().err == expected


def test_a_run_starts_from_a_file_of_our_own(tmp_path):
    config = config_of(tmp_path / "ours.npz", "jax_video")
    source = {name: np.asarray(leaf) + 1 for name, leaf in leaves(jax.jit(creator(config))()).items()}
    files.write(tmp_path / "ours.npz", source)
    assert all(np.array_equal(leaf, source[name]) for name, leaf in leaves(initial_state(config)).items())


def test_a_file_of_our_own_tells_of_another_network_as_a_run_does(tmp_path, capsys):
    config = config_of(tmp_path / "ours.npz", "jax_video")
    arrays = {name: np.asarray(leaf) for name, leaf in leaves(jax.jit(creator(config))()).items()}
    run = models.defaults("resnet3d18") | config.model.to_dict()
    for stem, said in (("hara", False), ("table1", True)):
        files.write(tmp_path / "ours.npz", arrays, {"model": json.dumps(run | {"stem": stem})})
        initial_state(config)
        note = f"The run that {tmp_path / 'ours.npz'} was exported from has another config: model.stem: there {stem}, "
        assert (note in capsys.readouterr().err) == said
    files.write(tmp_path / "ours.npz", arrays, {"model": "{}"})
    with pytest.raises(UserError, match="does not tell its network's keywords .'name' is missing.: export the weights"):
        initial_state(config)


def test_averages_that_are_passed_over_are_named(file, capsys):
    torch.save({"model": theirs(), "model_ema": theirs(), "optimizer": {}, "lr_scheduler": {}}, file)
    initial_state(config_of(file, "3d-resnets"))
    assert f"{file}: its weights ['model'] are taken, not ['model_ema'], which may be moving" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "value"), [("share_weights", False), ("kernel_size", 5), ("pool", "paper")])
def test_what_the_authors_of_cost_do_not_have(key, value):
    theirs = {"name": "cost_a_resnet50", "pool": "code"}
    start.check_keywords("cost", ConfigDict(theirs))
    with pytest.raises(UserError, match=f"weights in layout cost are of networks with {key}="):
        start.check_keywords("cost", ConfigDict(theirs | {key: value}))


def test_a_run_starts_from_a_part_of_a_network(tmp_path, capsys):
    """What is not in the file is that of the seed, and listed."""
    given = {name: tensor for name, tensor in theirs().items() if not name.startswith(("layer4.0.conv2", "fc."))}
    torch.save(given, tmp_path / "part.pth")
    config = config_of(tmp_path / "part.pth", "3d-resnets")
    with pytest.raises(UserError, match="missing  params/layer4/0/conv2/kernel"):
        initial_state(config)
    config.init_from.partial = True
    found, drawn = leaves(initial_state(config)), leaves(jax.jit(creator(config))())
    fresh = ["params/fc/bias", "params/fc/kernel", "params/layer4/0/conv2/kernel"]
    assert [name for name in found if np.array_equal(found[name], drawn[name])] == fresh
    listed = capsys.readouterr().err.split("Not in them, and therefore as initialised:\n")[1]
    assert listed.split()[:3] == fresh


def test_mistakes(file, tmp_path):
    for path, layout, expected in (
        (
            file,
            "",
            "r3d.pth: a weight file needs a layout: one of torchvision, torchvision-video, 3d-resnets, cost, i3d, jax",
        ),
        (file, "hara", "there is no layout 'hara'"),
        (file, "torchvision", "not weights in layout torchvision"),
        (tmp_path / "nosuch", "3d-resnets", "nosuch: there is no such weight file or run.s folder"),
        ("", "3d-resnets", "init_from.layout is '3d-resnets', but init_from.path, the weight file, is not given"),
        (tmp_path, "", "there is no checkpoint in .*: is this a run's folder"),
    ):
        with pytest.raises(UserError, match=expected):
            initial_state(config_of(path, layout))
    weights = theirs()
    for name in ("layer3.0.conv1.weight", "bn1.running_var"):
        del weights[name]
    torch.save(weights | {"layer5.0.bn1.weight": torch.ones(3)}, file)
    with pytest.raises(UserError) as error:
        initial_state(config_of(file, "3d-resnets"))
    message = str(error.value)
    assert "3 problems" in message and "missing  batch_stats/bn1/var 4, there bn1.running_var" in message
    assert "missing  params/layer3/0/conv1/kernel 3×3×3×8×16, there layer3.0.conv1.weight" in message
    assert "extra    params/layer5/0/bn1/scale 3" in message


def test_the_number_of_classes_is_the_classifiers(file):
    config = config_of()
    assert start.read(file, "3d-resnets", config, sharding.make_mesh()).num_classes == CLASSES
    torch.save({name: tensor for name, tensor in theirs().items() if "fc" not in name}, file)
    with pytest.raises(UserError, match="has no classifier .*fc.*, so the number of classes is unknown"):
        start.read(file, "3d-resnets", config, sharding.make_mesh())
    with pytest.raises(UserError, match="missing  params/fc/bias 5, there fc.bias"):
        start.read(file, "3d-resnets", config, sharding.make_mesh(), num_classes=5)
    weights = start.read(file, "3d-resnets", config, sharding.make_mesh(), num_classes=5, skip=["fc/*"])
    assert len(weights.merged.fresh) == 2


@pytest.mark.parametrize(
    ("layout", "model", "expected"),
    [
        ("3d-resnets", {"name": "resnet3d18", "stem": "table1"}, "stem='hara'; resnet3d18 here has stem='table1'"),
        ("3d-resnets", {"name": "resnet3d18", "preactivation": True}, None),  # its arrays tell
        (
            "3d-resnets",
            {"name": "densenet3d121"},
            "densenet3d121 here has stem='t3d'. Give it --config.model.stem=hara",
        ),
        ("3d-resnets", {"name": "densenet3d121", "stem": "hara"}, None),
        ("3d-resnets", {"name": "stc_resnet18", "stem": "table1"}, "--config.model.stem=hara"),  # starts from these
        ("3d-resnets", {"name": "stc_resnet18"}, None),
        ("3d-resnets", {"name": "t3d121"}, None),  # whose arrays are others
        ("torchvision", {"name": "resnet50", "stride_on": "1x1"}, "stride_on='3x3'"),
        ("torchvision", {"name": "resnet50"}, None),
        ("torchvision", {"name": "resnet50", "width": 0.5, "stem_width": 64, "stride_on": "1x1"}, None),  # not its own
        ("torchvision", {"name": "cost_b_resnet50", "stride_on": "1x1"}, "stride_on='3x3'"),  # starts from its resnet50
        ("torchvision", {"name": "motion_stream", "stride_on": "1x1"}, "stride_on='3x3'"),
        ("torchvision", {"name": "motion_stream", "width": 0.5, "stride_on": "1x1"}, None),
        ("torchvision", {"name": "densenet121"}, None),
        ("cost", {"name": "cost_a_resnet50"}, "pool='code'; cost_a_resnet50 here has pool='paper'"),
        ("cost", {"name": "c2d_resnet50", "pool": "code", "stem": "1x7x7"}, "--config.model.stem=5x7x7"),
        ("cost", {"name": "c2d_resnet50", "pool": "code"}, None),
        ("i3d", {"name": "inception3d"}, None),
        ("jax_video", {"name": "resnet3d18", "stem": "table1"}, None),
    ],
)
def test_keywords_of_a_network_that_computes_something_else(layout, model, expected):
    if expected is None:
        start.check_keywords(layout, ConfigDict(model))
        return
    with pytest.raises(UserError, match=f"weights in layout {layout} are of networks with") as error:
        start.check_keywords(layout, ConfigDict(model))
    assert expected in str(error.value)


def test_a_run_does_not_start_with_another_stem(file):
    with pytest.raises(UserError, match="stem='hara'.*stem='table1'. Give it --config.model.stem=hara"):
        initial_state(config_of(file, "3d-resnets", stem="table1"))


# Whose classes a classifier is of.


@pytest.fixture(scope="module")
def random_state():
    return jax.jit(creator(config_of()))()


def make_run(state, classes, folder, manifest="", config=None):
    """The folder of a run of five classes."""
    mesh, checkpoints = sharding.make_mesh(), Checkpoints(folder, sharding.make_mesh())
    meta = Meta((config or config_of()).to_dict(), tuple(classes), manifest)
    checkpoints.save(sharding.place_state(state, mesh), meta)
    checkpoints.close()
    return folder


def begin(path, classes, layout="", **options):
    """Starts a run of these classes from these weights; returns its classifier's bias."""
    config = config_of(path, layout)
    config.init_from.update({"keep_head": False} | options)
    state = start.initial_state(config, classes, sharding.make_mesh(), creator(config, len(classes)))
    return leaves(state)["params/fc/kernel"]


@pytest.mark.parametrize(
    ("classes", "manifest", "ours", "expected"),
    [
        ("abcde", "", "abcde", None),
        (
            "abcde",
            "",
            "abcdx",
            "has a classifier of other classes, 'e' among them; those of this run are 'a', 'b', 'c'",
        ),
        ("abcde", "", "edcba", "has the classes of this run in another order"),
        ("01234", "", "abcde", "does not name the classes of its classifier"),
        ("01234", "", "01234", "does not name the classes of its classifier"),  # numbered by convert
        ("01234", "of a set", "01234", None),  # so called in the data set
        ("abcde", "", "abcdef", "the classifier is of other classes, fc has 5, here 6: init_from.new_head starts it"),
    ],
)
def test_a_classifier_is_kept_for_its_own_classes_only(random_state, tmp_path, classes, manifest, ours, expected):
    run = make_run(random_state, classes, tmp_path / "run", manifest)
    if expected is None:
        begin(run, list(ours))
        return
    with pytest.raises(UserError, match=f"run.*{re.escape(expected)}") as error:
        begin(run, list(ours))
    assert "init_from.new_head" in str(error.value)
    assert len(ours) != 5 or "--config.init_from.keep_head=True keeps this one" in str(error.value)


def test_the_ways_out(random_state, tmp_path):
    run = make_run(random_state, "abcde", tmp_path / "run")
    trained = np.asarray(random_state.params["fc"]["kernel"])
    np.testing.assert_array_equal(begin(run, list("edcba"), keep_head=True), trained)
    for options in ({"new_head": True}, {"skip": ("fc/*",)}):
        assert begin(run, list("edcba12"), **options).shape == (32, 7)


class Hidden(nnx.Module):
    """A network whose classifier is not what others call theirs."""

    def __init__(self, *, num_classes, norm, dtype, rngs):
        self.fc, self.last = (Linear(3, size, dtype=dtype, rngs=rngs) for size in (3, num_classes))


@pytest.mark.parametrize(
    ("model", "heads"),
    [
        ({"name": "two_streams"}, ["appearance/fc", "motion/fc"]),
        ({"name": "two_streams", "consensus": True}, ["network/appearance/fc", "network/motion/fc"]),
        ({"name": "densenet121", "consensus": True}, ["network/classifier"]),
        ({"name": "hidden"}, ["last"]),
    ],
)
def test_a_new_classifier_is_new_in_whatever_contains_it(tmp_path, monkeypatch, model, heads):
    monkeypatch.setitem(networks.NETWORKS, "hidden", networks.Network(Hidden, head="last"))
    config = config_of()
    small = {"width": 1 / 16, "layers": LAYERS} if model["name"] != "hidden" else {}
    config.model = ConfigDict(model | small)
    _, params, batch_stats = state_lib.abstract(config, CLASSES)
    shapes = state_lib.named_leaves({"params": params, "batch_stats": batch_stats})
    files.write(tmp_path / "w.npz", {name: np.ones(leaf.shape, leaf.dtype) for name, leaf in shapes.items()})
    given = (tmp_path / "w.npz", "jax_video", config, sharding.make_mesh())
    assert start.read(*given).num_classes == CLASSES
    found = start.read(*given, num_classes=CLASSES, new_head=True).merged
    expected = [f"params/{head}/{leaf}" for head in heads for leaf in ("bias", "kernel")]
    assert sorted(found.fresh) == sorted(found.skipped) == expected and len(found.loaded) == len(shapes) - len(expected)


@pytest.mark.parametrize("url", ["https://host/r3d.pth", "hf://me/weights", "gs://bucket/r3d.npz"])
def test_a_weight_file_is_read_from_a_disk(url):
    with pytest.raises(
        UserError, match=rf"{url}: a weight file, as those of a layout \(3d-resnets\) are, .*: fetch it"
    ):
        start.read(url, "3d-resnets", config_of(), sharding.make_mesh())


def test_a_part_without_a_classifier_has_none_to_start_afresh(file):
    given = (file, "3d-resnets", config_of(), sharding.make_mesh())
    with pytest.raises(UserError, match="new_head: there is no classifier in layer1: leave it out"):
        start.read(*given, num_classes=CLASSES, into="layer1", new_head=True)


@pytest.mark.parametrize(
    ("skip", "freeze", "frozen", "expected"),
    [
        (["layer1/*"], ("stem", "layer1"), False, r"freeze is stem,layer1, .* trained: --config.train.freeze=stem\n"),
        (["bn1/*"], ("stem",), True, "is stem and norm.frozen is True, .*freeze=None --config.norm.frozen=False"),
        (["layer2/0/bn1/*"], (), True, "norm.frozen is True, but the weights lack 4 arrays .*: --config.norm.fro"),
        (["*/bn1/scale"], None, True, "norm.frozen is True, but the weights lack 4 arrays"),
        (["layer1/*", "fc/*"], ("stem",), False, None),
        (["layer2/*/conv*/*", "fc/*"], ("stem",), True, None),
    ],
)
def test_what_is_frozen_is_in_the_weights(file, skip, freeze, frozen, expected):
    """Or it would be random for ever; what is trained may start afresh."""
    config = config_of(file, "3d-resnets")
    config.init_from.skip, config.train.freeze, config.norm.frozen = tuple(skip), freeze, frozen
    if expected is None:
        initial_state(config)
        return
    with pytest.raises(UserError, match=expected):
        initial_state(config)


def test_a_file_does_not_name_its_classes(file):
    names_of_ours = ["walk", "run", "jump", "sit", "lie"]
    with pytest.raises(
        UserError, match="r3d.pth does not name the classes of its classifier; those of this run are 'wa"
    ):
        begin(file, names_of_ours, "3d-resnets")
    kept = begin(file, names_of_ours, "3d-resnets", keep_head=True)
    np.testing.assert_array_equal(kept, theirs()["fc.weight"].T)
    assert not np.array_equal(begin(file, names_of_ours, "3d-resnets", new_head=True), kept)
    with pytest.raises(UserError, match="keep_head and init_from.new_head are both True: choose one"):
        begin(file, names_of_ours, "3d-resnets", new_head=True, keep_head=True)


def test_a_config_from_before_there_was_keep_head(file):
    config = config_of(file, "3d-resnets")
    del config.init_from.keep_head
    with pytest.raises(UserError, match="does not name the classes"):
        initial_state(config)


# Values that no network computes with.


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "layer2.0.conv1.weight",
            np.nan,
            "params/layer2/0/conv1/kernel: 1 of 864 values are NaN or infinite (float32)",
        ),
        ("fc.bias", -np.inf, "params/fc/bias: 1 of 5 values are NaN or infinite (float32)"),
        ("bn1.running_mean", np.nan, "batch_stats/bn1/mean: 1 of 4 values are NaN or infinite (float32)"),
        ("bn1.running_var", np.inf, "batch_stats/bn1/var: 1 of 4 values are NaN or infinite (float32)"),
        ("bn1.running_var", -0.01, "batch_stats/bn1/var: a variance of -0.01"),
        ("bn1.weight", 1e300, "params/bn1/scale: 1 of 4 values are NaN or infinite (float32)"),  # of float64
    ],
)
def test_values_that_no_network_computes_with(tmp_path, name, value, expected):
    """By name; what is skipped may be anything."""
    weights = theirs()
    weights[name] = weights[name].double() if np.isfinite(value) else weights[name].half()
    weights[name].view(-1)[1] = value
    torch.save(weights, tmp_path / "w.pth")
    config = config_of(tmp_path / "w.pth", "3d-resnets")
    with pytest.raises(
        UserError, match=r"w.pth are no values that a network computes with, in 1 of 62 arrays"
    ) as error:
        initial_state(config)
    assert str(error.value).splitlines()[1] == f"  {expected}"
    if name.startswith("fc"):
        config.init_from.update(skip=("fc/*",))
        initial_state(config)


def test_a_small_or_zero_variance_is_one(file):
    weights = theirs()
    weights["bn1.running_var"][:] = torch.tensor([0.0, -0.0, 1e-40, 3e38])
    torch.save({"state_dict": weights, "scheduler": {}}, file)
    initial_state(config_of(file, "3d-resnets"))
