"""Every config string of the docstrings and of the paper's tables makes a network that takes its own clips."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import pytest
import tiny
from ml_collections import ConfigDict

from configs import common, cost, stc, t3d
from jax_video import evaluate, optimizer, sharding
from jax_video import state as state_lib
from jax_video.data import pipeline
from jax_video.data.manifest import Manifest, Video

DATA = "data=folder"

# The rows of the tables of Diba et al., ECCV 2018.
KINETICS = [
    "model=resnet3d101", "model=resnext3d101", "model=stc_resnet101", "model=stc_resnext101",
    "model=stc_resnext101,frames=32",
]  # fmt: skip
ABLATIONS = [
    "model=resnet3d101,frames=32", "model=stc_resnet18,frames=32", "model=stc_resnet50,frames=32",
    "model=stc_resnet101,frames=32", "model=stc_resnet101,frames=32,branches=tcb",
    "model=stc_resnet101,frames=32,branches=scb", "model=stc_resnet101,frames=16",
    "model=stc_resnet101,frames=32,stride=1", "model=stc_resnet101,frames=32,stride=4",
    "model=stc_resnet101,frames=32,stride=16",
]  # fmt: skip
PRETRAINED = ["model=stc_resnet101,frames=64"]


def documented() -> list[str]:
    """The strings of STC's docstring, table cells spelt out: `…,` stands for the model before it."""
    text = stc.__doc__.replace("data=DIR", DATA)
    commands = re.findall(r"configs/stc\.py(?::(\S+))?", text) + re.findall(r"`(\w+=[^`]+)`", text)
    found = []
    kinetics, ucf101 = text[text.index("Paper, top-1") :].split("UCF101", 1)
    found += re.findall(r"model=\S+", kinetics)
    for cell in re.findall(r"model=\S+|…,\w+=\w+(?: / \d+)*", ucf101):
        if not cell.startswith("…"):
            model = f"{cell},frames=32"
            found.append(model)
            continue
        key, _, values = cell.removeprefix("…,").partition("=")
        found += [f"{model},{key}={value}" for value in values.split(" / ")]
    return commands + [f"{string},{DATA}" for string in found]


@functools.cache
def check_network(model: str, frames: int, size: int) -> None:
    """Builds a network, given as JSON, and runs it on the config's clips: shapes alone."""
    config = ConfigDict(json.loads(model))
    definition, params, batch_stats = state_lib.abstract(config, 400)
    clips = (5,) if config.model.get("consensus") else ()
    batch = {"rgb": jax.ShapeDtypeStruct((2, *clips, frames, size, size, 3), jnp.uint8)}
    logits, _ = jax.eval_shape(functools.partial(state_lib.apply, definition, train=False), params, batch_stats, batch)
    assert (logits.shape, logits.dtype) == ((2, 400), jnp.float32)


def check(config: ConfigDict) -> None:
    """That every section fits what reads it."""
    network = {key: config[key].to_dict() for key in ("model", "norm")} | {"dtype": config.dtype, "seed": config.seed}
    sampling = pipeline.Sampling(**config.clip)
    check_network(json.dumps(network, sort_keys=True), sampling.frames, sampling.size)
    assert sampling.size <= sampling.short_side
    video = Video("video.mp4", 0, "test", 300, 25.0, 340, 256, None, "video")
    pipeline.views(Manifest("x", ("a",), "", (video,)), "test", sampling, evaluate.protocol_of(config))
    sharding.check_batch(config.train.batch, devices=8, accumulate=config.train.accumulate, **config.norm)
    schedule = optimizer.schedule(**config.schedule, steps=100, steps_per_epoch=10)
    optimizer.sgd(schedule, **config.optimizer)
    optimizer.Plateau(**config.plateau)
    assert json.loads(json.dumps(config.to_dict())), "a checkpoint carries it as JSON"


def test_the_docstring_has_the_papers_rows():
    strings = [string.replace("frames=32,frames=16", "frames=16") for string in documented()]
    assert strings[:3] == ["", f"model=stc_resnext101,{DATA},frames=32", f"recipe=small,{DATA}"]
    assert sorted(strings[3:]) == sorted(f"{row},{DATA}" for row in KINETICS + ABLATIONS)


@pytest.mark.parametrize("string", documented() + [f"{row},{DATA}" for row in PRETRAINED])
def test_every_string_makes_a_run(string):
    check(stc.get_config(string))


# The tables of the T3D paper (DenseNet3D's ablations vary one thing each) and of the CoST paper.
T3D = [
    "model=densenet3d121", "model=densenet3d169", "model=densenet3d121,frames=16", "model=densenet3d121,size=112",
    "model=densenet3d121,stride=1", "model=densenet3d121,stride=4", "model=densenet3d121,stride=16",
    "model=resnet3d50", "model=inception3d", "model=t3d121",
]  # fmt: skip
COST = [
    f"model={kind}_resnet{depth}"
    for depth, kinds in ((50, ("c2d", "c3d_3x1x1", "cost_a", "cost_b")), (101, ("c2d", "c3d_3x1x1", "cost_b")))
    for kind in kinds
] + ["model=cost_b_resnet50,share_weights=false"]


def table(module) -> set[str]:
    """The strings of a docstring's table; `…,` stands for the table's first model."""
    text = module.__doc__[module.__doc__.index("Paper, top-1") :]
    first, found = re.search(r"model=\S+", text)[0], set()
    for cell in re.findall(r"(?:model=|…,)\S+(?: / \d+)*", text):
        key, _, values = cell.replace("…", first).rpartition("=")
        found |= {f"{key}={value}" for value in values.split(" / ")}
    return found


@pytest.mark.parametrize(("module", "rows"), [(t3d, T3D), (cost, COST)])
def test_other_docstrings_have_the_papers_rows(module, rows):
    assert table(module) == set(rows)


@pytest.mark.parametrize(
    ("module", "string"),
    [
        *((t3d, row) for row in [*T3D, "", "model=c3d,frames=16,size=112", "model=densenet121", "consensus=true"]),
        *((cost, row) for row in [*COST, "", "model=cost_b_resnet101,frames=32", "recipe=code", "model=resnet50"]),
    ],
)
def test_every_string_of_other_configs_makes_a_run(module, string):
    check(module.get_config(string))


def test_the_settings_of_t3d_and_cost():
    config = t3d.get_config()
    clip = {"frames": 32, "stride": 2, "short_side": 256, "jitter": (), "size": 224, "crop": "corners", "flip": True}
    assert config.clip.to_dict() == clip and (config.train.batch, config.schedule.kind) == (64, "plateau")
    config = cost.get_config()
    clip = {"frames": 8, "stride": 8, "short_side": 256, "jitter": (256, 320), "size": 224, "crop": "random"}
    assert config.clip.to_dict() == clip | {"flip": True}
    assert (config.train.batch, config.train.steps, config.norm.group_size) == (32, 600_000, 8)
    assert (config.optimizer.momentum, config.optimizer.nesterov, config.optimizer.weight_decay) == (0.9, False, 1e-4)
    assert (config.schedule.learning_rate, config.schedule.drop_steps) == (0.005, (300_000, 450_000))
    assert (config.test.clips, config.test.number, config.test.average) == ("uniform", 10, "probability")
    assert (config.test.crop, config.test.flip) == ("full", False)
    code = cost.get_config("recipe=code")
    assert (code.train.batch, code.train.steps, code.train.epochs, code.schedule.learning_rate) == (64, 0, 160, 0.01)
    assert (code.schedule.drop_epochs, code.optimizer.clip_norm, code.model.pool) == ((80, 120), 40.0, "code")
    with pytest.raises(ValueError, match="unknown recipe 'papers': expected paper or code"):
        cost.get_config("recipe=papers")


def test_a_test_config_makes_a_run():
    check(tiny.get_config())


@pytest.mark.parametrize("string", KINETICS + ABLATIONS + PRETRAINED)
def test_the_papers_settings(string):
    """STC §4 and its implementation details."""
    given = dict(item.split("=") for item in string.split(","))
    config = stc.get_config(f"{string},{DATA}")
    assert config.clip.to_dict() == {
        "frames": int(given.get("frames", 16)),
        "stride": int(given.get("stride", 2)),
        "short_side": 122,
        "jitter": (),
        "size": 112,
        "crop": "corners",
        "flip": True,
    }
    assert (config.train.batch, config.train.epochs) == (128, 200)
    assert config.optimizer.to_dict() == {
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "decay_norm": True,
        "clip_norm": 0.0,
        "head_rate": 1.0,
    }
    assert (config.schedule.kind, config.schedule.learning_rate) == ("plateau", 0.1)
    assert config.plateau.to_dict() == {"patience": 10, "threshold": 1e-3, "drops": 3}
    assert (config.test.clips, config.test.average) == ("nonoverlap", "probability")
    assert config.test.allow_partial is False
    assert config.norm.to_dict() == {"group_size": None, "frozen": False}
    expected = {"name": given["model"], "width": 1.0, "stem": "hara", "shortcut": "B", "preactivation": False}
    if given["model"].startswith("stc_"):
        expected |= {"frames": config.clip.frames, "branches": given.get("branches", "both"), "reduction": 4}
    assert config.model.to_dict() == expected


def test_the_first_command_is_small():
    config = stc.get_config()
    assert (config.data.manifest, config.model.name, config.model.width) == ("motions", "stc_resnet18", 0.25)
    assert config.clip.flip is False, "a mirrored motion to the left is one to the right"
    assert (config.test.clips, config.test.average) == ("nonoverlap", "probability"), "tested by the paper's protocol"


def test_recipe_is_the_users_choice():
    assert stc.get_config("data=mine").train.batch == 128
    own = stc.get_config("data=mine,recipe=small,stride=4,epochs=7")
    assert own.model.width == 0.25 and own.clip.flip is True
    assert (own.clip.stride, own.train.epochs, own.data.manifest) == (4, 7, "mine")
    assert stc.get_config("recipe=paper").data.manifest == "motions"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nosuch=1", "unknown config argument 'nosuch=1': expected key=value with one of model, data, frames"),
        ("frames", "unknown config argument 'frames': expected key=value"),
        ("frames=many", "config argument 'frames=many': expected a value like 16"),
        ("recipe=large", "unknown recipe 'large': expected small or paper"),
    ],
)
def test_unknown_arguments(argument, message):
    with pytest.raises(ValueError, match=message):
        stc.get_config(argument)


def test_arguments_take_the_type_of_their_default():
    found = common.arguments(
        "count=2,rate=1,name=3,flag=False,other=TRUE", count=1, rate=0.5, name="", flag=True, other=False
    )
    assert found == {"count": 2, "rate": 1.0, "name": "3", "flag": False, "other": True}
    assert [type(value) for value in found.values()] == [int, float, str, bool, bool]
    assert common.arguments("", count=1) == {"count": 1}
    with pytest.raises(ValueError, match="config argument 'flag=yes': expected a value like True"):
        common.arguments("flag=yes", flag=True)


def test_values_that_start_as_none_can_be_set():
    config = stc.get_config()
    config.lock()
    config.norm.group_size = 4
    assert config.norm.to_dict() == {"group_size": 4, "frozen": False}
    with pytest.raises(TypeError):
        config.norm.group_size = "four"
