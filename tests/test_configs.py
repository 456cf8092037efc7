"""Every row of the papers' tables is a config string, and each of them makes a run."""

import dataclasses
import fnmatch
import functools
import json
import re

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

from configs import cost, finetune, st_resnet, stc, t3d, transfer
from jax_video import networks, objectives, optimizer, recipe, saved, sharding, task
from jax_video import state as state_lib
from jax_video import train as train_lib
from jax_video.data import pipeline
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError

FULL = [f"model={name}" for name in ("resnet3d101", "resnext3d101", "stc_resnet101", "stc_resnext101")]
START = "start=RUN"


def phase(name: str) -> str:
    """A phase of ST-ResNet with the runs that it starts from."""
    return {"joint": "phase=joint,appearance=A,motion=M", "star": "phase=star,start=RUN"}.get(name, f"phase={name}")


ROWS = {
    # Diba et al., ECCV 2018: Kinetics; ablations on UCF101; pretrained; transferred.
    stc: [
        *[f"{row},data=DIR" for row in FULL], "model=stc_resnext101,frames=32,data=DIR",
        *[f"model={name},frames=32,data=DIR" for name in ("resnet3d101", "stc_resnet18", "stc_resnet50")],
        *[
            f"model=stc_resnet101,frames=32{other},data=DIR"
            for other in ("", ",branches=tcb", ",branches=scb", ",stride=1", ",stride=4", ",stride=16")
        ],
        *[f"{row},data=DIR,{START}" for row in FULL], f"model=stc_resnet101,frames=64,data=DIR,{START}",
        f"model=stc_resnext101,frames=32,data=DIR,{START}",
    ],
    # Diba et al. 2017: UCF101 (DenseNet3D's ablations vary one thing each), Kinetics, pretrained, transferred.
    t3d: [
        "model=densenet3d121", "model=densenet3d169", "model=densenet3d121,frames=16", "model=densenet3d121,size=112",
        "model=densenet3d121,stride=1", "model=densenet3d121,stride=4", "model=densenet3d121,stride=16",
        "model=resnet3d50", "model=resnet3d34", "model=inception3d", "model=t3d121",
        *[f"model={name},{START}" for name in ("densenet3d121", "t3d121", "inception3d", "resnet3d34", "resnet3d50")],
        f"model=t3d121,consensus=true,{START}",
    ],
    # Li et al., CVPR 2019: Moments and Kinetics, which differ in the span of 32 frames.
    cost: [
        *[f"model={kind}_resnet50" for kind in ("c2d", "c3d_3x1x1", "cost_a", "cost_b")],
        "model=cost_b_resnet50,share_weights=false",
        *[f"model={kind}_resnet101" for kind in ("c2d", "c3d_3x1x1", "cost_b")],
        f"model=cost_b_resnet101,frames=32,{START}", f"model=cost_b_resnet101,frames=32,span=128,{START}",
    ],
    # Feichtenhofer et al., NeurIPS 2016. Two streams, and those with + IDT, are sums of runs (`fuse`).
    st_resnet: [
        "phase=motion,imagenet=r50.pth", "phase=appearance,imagenet=r50.pth",
        f"phase=motion,{START}", "phase=joint,appearance=A,motion=M", f"phase=star,{START}",
    ],
    transfer: [
        "model=resnet3d101,weights=r50.pth", "model=stc_resnet101,weights=r50.pth",
        "model=resnext3d101,teacher=resnext101", "model=stc_resnext101,teacher=resnext101",
        "model=resnet3d50,frames=32,size=224", "model=densenet3d121,teacher=densenet121,frames=32,size=224",
        "model=t3d121,teacher=densenet121,frames=32,size=224",
    ],
}  # fmt: skip
OTHERS = {
    stc: ["", "recipe=small,data=DIR", "recipe=small,data=DIR,start=RUN", "data=DIR,micro_batch=32"],
    t3d: ["", "model=c3d,frames=16,size=112", "model=densenet121", "consensus=true", "micro_batch=16"],
    cost: ["", "recipe=code", "recipe=code_moments", "imagenet=r50.pth", "model=resnet50", "micro_batch=8"],
    st_resnet: ["", "phase=motion,group=64", *[f"{phase(name)},data=motions" for name in st_resnet.PHASES]],
    transfer: ["", "data=motions", "data=motions,clips=4", "micro_batch=4"],
    finetune: [
        *[
            "",
            "weights=torchvision:resnet50",
            "weights=torchvision:densenet121,size=112",
            "weights=torchvision:resnet18",
        ],
        *[
            "weights=pytorch-i3d:rgb_imagenet",
            "weights=w.npz,layout=torchvision,model=cost_b_resnet50,frames=8,span=64",
        ],
    ],
}
STRINGS = [(module, string) for strings in (ROWS, OTHERS) for module, found in strings.items() for string in found]


def shrink(config: ConfigDict) -> ConfigDict:
    """The same run, resolved, with small networks and frames; what is trained how, and with what, stays."""
    config = recipe.resolve(config)
    config.clip.update(size=32, short_side=40, jitter=(32, 48) if config.clip.jitter else ())
    for network in [config.model, *([config.teacher] if "teacher" in config else [])]:
        network.width = 1 / 16
        if stages := networks.find(network.name).stages:
            network.layers = (2, *(1,) * (stages - 1))  # CoST and ST-ResNet change every second unit
        if "size" in network:
            network.size = config.clip.size
    return config


def make_step(config: ConfigDict, classes: int = 7):
    """(the jitted step, how its state is made, a batch's shapes) of a run on one device."""
    options, mesh = config.train, jax.make_mesh((1,), ("batch",), devices=jax.devices()[:1])
    clips, accumulate = max(1, config.clip.get("segments", 0)), recipe.micro_batches(config)
    sharding.check_batch(options.batch, devices=1, accumulate=accumulate, clips=clips, **config.norm)
    schedule = optimizer.schedule(**config.schedule, steps=100, steps_per_epoch=10)
    definition, _, batch_stats = state_lib.abstract(config, classes)
    tx = optimizer.of(config, schedule, batch_stats)
    step = train_lib.make_train_step(
        definition,
        tx,
        mesh,
        accumulate=accumulate,
        ema=options.ema,
        objective=objectives.of(config),
    )
    sampling = pipeline.Sampling(**config.clip)
    clips = (sampling.segments,) if sampling.segments else ()
    clip = (options.batch, *clips, sampling.frames, sampling.size, sampling.size)
    row = {name: (clip[:1], jnp.int32) for name in ("label", "video", "failed")} | {"mask": (clip[:1], jnp.float32)}
    row |= {name: ((*clip, pipeline.CHANNELS[name]), jnp.uint8) for name in sampling.streams}
    return step, lambda: state_lib.create(state_lib.network(config, classes), tx, ema=options.ema > 0), row


def check(config: ConfigDict) -> None:
    """That every section fits what reads it, and that the network can be built."""
    state = jax.eval_shape(make_step(config)[1])
    assert state.params
    entry = Video("video.mp4", 0, "test", 300, 25.0, 340, 256, None, "video")
    task.check(config, Manifest("x", ("a",), "", (entry,)))
    optimizer.Plateau(**config.plateau)
    assert json.loads(json.dumps(config.to_dict())), "a checkpoint carries it as JSON"


def shallow(name: str) -> str:
    """The network with 50 layers in place of 101, if there is one; else itself."""
    network = networks.find(name)
    like = dataclasses.replace(network, arguments={**network.arguments, "depth": 50})
    deep = network.arguments.get("depth") == 101
    return next((other for other, found in networks.NETWORKS.items() if deep and found == like), name)


@functools.cache
def check_once(text: str) -> None:
    """What differs in depth alone is the same once it is small."""
    check(ConfigDict(json.loads(text)))


@pytest.mark.parametrize(("module", "string"), STRINGS)
def test_every_string_makes_a_run(module, string):
    config = shrink(module.get_config(string)).to_dict()
    config["init_from"] = {"path": None}
    config["model"]["name"] = shallow(config["model"]["name"])
    check_once(json.dumps(config, sort_keys=True))


@pytest.mark.slow
@pytest.mark.parametrize(("module", "string"), STRINGS)
def test_every_string_trains_a_step(module, string):
    """Really, with as few videos as its groups allow; tests/test_recipes.py does it for one string of each config."""
    config = shrink(module.get_config(string))
    count, rows = recipe.micro_batches(config), max(2, config.norm.group_size or 0)
    config.train.update(batch=count * rows, micro_batch=rows if count > 1 else None)
    step, create, row = make_step(config)
    rng = np.random.default_rng(0)
    batch = {
        name: jnp.asarray(rng.integers(0, 256 if dtype == jnp.uint8 else 7, shape), dtype)
        for name, (shape, dtype) in row.items()
    }
    batch |= {"mask": jnp.ones_like(batch["mask"]), "video": jnp.arange(len(batch["video"]), dtype=jnp.int32)}
    state, sums = step(create(), batch, jax.random.key(0))
    assert state.step == 1 and np.isfinite(float(sums["loss"])) and np.isfinite(float(sums["gradient_norm"]))


@pytest.mark.parametrize("module", ROWS)
def test_the_docstring_has_the_papers_rows(module):
    """Every value of every row stands in its table, and every string in the docstring can be built."""
    text = module.__doc__
    table = text[text.index("Paper, ") :]
    for string in ROWS[module]:
        for item in string.split(","):
            key, _, value = item.partition("=")
            assert key in ("data", "start", "weights", "imagenet", "appearance", "motion") or re.search(
                rf"{key}=(\w+ / )*{value}\b", table
            ), item
    for string in re.findall(r"(?<![\w,.:])(?:model|phase)=[\w=,./]*\w", text):
        module.get_config(phase(string.removeprefix("phase=")) if module is st_resnet else string)
    assert "not yet run" in text


def settings(config: ConfigDict, section: str, *keys: str) -> tuple:
    return tuple(config[section][key] for key in keys)


@pytest.mark.parametrize("string", [string for string in ROWS[stc] if START not in string])
def test_the_settings_of_stc(string):
    """STC §4 and its implementation details."""
    given = dict(item.split("=") for item in string.split(","))
    config = stc.get_config(string)
    assert config.clip.to_dict() == {
        "frames": int(given.get("frames", 16)),
        "stride": int(given.get("stride", 2)),
        "short_side": 122,
        "jitter": (),
        "size": 112,
        "crop": "corners",
        "flip": None,
        "fps": None,
    }
    assert settings(config, "train", "batch", "epochs", "steps", "micro_batch") == (128, 200, None, None)
    assert settings(config, "optimizer", "momentum", "nesterov", "weight_decay", "decay_norm") == (
        0.9,
        True,
        1e-4,
        True,
    )
    assert settings(config, "schedule", "kind", "learning_rate") == ("plateau", 0.1)
    assert config.plateau.to_dict() == {"patience": 10, "threshold": 1e-3, "drops": 3}
    assert settings(config, "test", "clips", "crop", "average_clips", "allow_partial") == (
        "nonoverlap",
        "center",
        "probability",
        False,
    )
    assert config.norm.to_dict() == {"group_size": None, "frozen": False}
    expected = {"name": given["model"], "width": 1.0, "stem": "hara", "shortcut": "B", "preactivation": False}
    expected["remat"] = False
    if networks.find(given["model"]).bound:
        expected |= {"frames": config.clip.frames, "branches": given.get("branches", "both"), "reduction": 4}
    assert config.model.to_dict() == expected


@pytest.mark.parametrize("module", [stc, t3d])
def test_fine_tuning(module):
    config = module.get_config("data=DIR,start=runs/before")
    assert settings(config, "init_from", "path", "layout", "new_head") == ("runs/before", None, True)
    assert (config.optimizer.head_rate, config.train.epochs) == (10.0, 60)
    assert settings(config, "schedule", "kind", "learning_rate") == ("plateau", 0.01)


def test_the_settings_of_fine_tuning_follow_the_weights():
    """A layout's clips and RGB; the lower half of the network is frozen, and with it all BatchNorm."""
    video = finetune.get_config("data=DIR")
    assert (video.model.name, video.init_from.layout, video.init_from.inflate) == (
        "r2plus1d_18",
        "torchvision-video",
        None,
    )
    assert settings(video, "clip", "frames", "stride", "fps", "short_side", "size") == (16, 1, 15, 128, 112)
    assert video.normalize.mean == (110.2008, 100.63983, 95.99475)
    assert (video.train.freeze, video.norm.frozen) == (("stem", "layer1", "layer2"), True)
    picture = finetune.get_config("weights=torchvision:resnet50,frames=16,span=64,size=112")
    assert (picture.model.name, picture.model.dropout, picture.init_from.inflate) == ("c2d_resnet50", 0.0, "mean")
    assert settings(picture, "clip", "frames", "stride", "short_side", "size") == (16, 4, 128, 112)
    other = finetune.get_config("weights=torchvision:resnet50,model=cost_b_resnet50")
    assert other.init_from.skip == networks.find("cost_b_resnet50").own
    for string, said in (
        ("weights=mine.pth", "there is no such file or folder here; of a file say model=NAME.* and layout=NAME"),
        ("weights=w.npz,model=resnet50", "of a file say model=NAME, the network it is for, and layout=NAME"),
        ("weights=", "weights=: there is no such file"),
        ("frames=0", "frames=0: expected at least 1"),
        ("weights=torchvision:resnet51", "did you mean torchvision:resnet50"),
        ("weights=w.npz,model=resnet50,layout=nosuch", "there is no layout 'nosuch'"),
    ):
        with pytest.raises((ValueError, UserError), match=said):
            finetune.get_config(string)


@pytest.mark.parametrize("module", [stc, transfer])
def test_branches_are_of_networks_that_have_them(module):
    for branches in ("tcb", "both"):
        assert module.get_config(f"model=stc_resnet50,branches={branches}").model.branches == branches
    module.get_config("model=resnet3d50,branches=both")
    with pytest.raises(ValueError, match="branches=scb: resnet3d50 has no STC blocks"):
        module.get_config("model=resnet3d50,branches=scb")


def test_a_stem_for_other_clips_is_spoken_of(capsys):
    config = shrink(cost.get_config())
    check(config)
    assert "stem" not in capsys.readouterr().err
    config.clip.frames = 32
    check(config)
    assert "model.frames=8 is the stem for clips of so many frames, and clip.frames is 32" in capsys.readouterr().err


def test_fine_tuning_for_one_epoch_is_not_all_warm_up():
    assert [finetune.get_config(f"epochs={count}").schedule.warmup_epochs for count in (1, 2, 20)] == [0, 1, 1]


OWN = sorted({shallow(name) for name, network in networks.NETWORKS.items() if network.own})


@pytest.mark.parametrize("name", OWN)
def test_fine_tuning_trains_what_the_weights_do_not_have(name):
    config = finetune.get_config(f"weights=w.npz,layout=torchvision,model={name}")
    _, *shapes = state_lib.abstract(shrink(config), 7)
    arrays = [key.split("/") for key in state_lib.named_leaves(shapes[0])]
    fresh = [path for path in arrays if any(fnmatch.fnmatchcase("/".join(path), own) for own in config.init_from.skip)]
    frozen = {module for part in config.train.freeze for module in networks.find(name).parts[part]}
    assert fresh and frozen and not [path for path in fresh if path[0] in frozen]


def test_fine_tuning_of_a_runs_clips_and_test(tmp_path):
    """A run's settings are resolved: mirrored where its own set allowed it, and with strides of its own span."""

    def of(run: ConfigDict, argument: str = "", flip: bool = True) -> ConfigDict:
        (tmp_path / "config.json").write_text(json.dumps(recipe.resolve(run, flip=flip).to_dict()))
        return finetune.get_config(f"weights={tmp_path}{argument}")

    joint = st_resnet.get_config(phase("joint"))
    assert settings(of(joint), "clip", "stride", "strides") == (10, (5, 15))
    assert settings(of(joint, ",span=20"), "clip", "frames", "stride", "strides") == (5, 4, ())
    assert [of(joint, flip=flip).test.flip for flip in (True, False)] == [None, False]
    assert of(stc.get_config("data=DIR")).test.flip is False, "asked for, not left to the set"
    for clips in (1, 4):  # a knowledge transfer's are for its pairs
        found = of(transfer.get_config(f"model=resnet3d50,clips={clips}"))
        assert settings(found, "test", "clips", "number") == ("uniform", 4) and not found.clip.get("segments")


def test_fine_tuning_of_a_run_in_a_store(tmp_path, monkeypatch):
    """Its config is fetched, as the weights are when training starts."""
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    run = stc.get_config("model=resnet3d18,frames=4")
    run.clip.update(stride=3, fps=12.5)
    run.normalize.mean = (1.0, 2.0, 3.0)
    memory = fsspec.filesystem("memory")
    memory.pipe("/finetuned/run/config.json", json.dumps(recipe.resolve(run, flip=True).to_dict()).encode())
    config = finetune.get_config("weights=memory://finetuned/run")
    assert config.model.to_dict() == run.model.to_dict() and config.normalize.mean == (1.0, 2.0, 3.0)
    assert settings(config, "clip", "frames", "stride", "fps") == (4, 3, 12.5)
    for argument in ("", ",model=resnet3d18,layout=3d-resnets"):
        with pytest.raises(ValueError, match="memory://finetuned/none is not the folder .* has no config.json"):
            finetune.get_config(f"weights=memory://finetuned/none{argument}")


def test_the_settings_of_t3d():
    config = t3d.get_config()
    clip = {"frames": 32, "stride": 2, "short_side": 256, "jitter": (), "size": 224, "crop": "corners", "flip": None}
    assert config.clip.to_dict() == clip | {"fps": None}
    assert (config.train.batch, config.schedule.kind) == (64, "plateau")
    consensus = t3d.get_config("consensus=true")
    assert (consensus.clip.segments, consensus.test.clips, consensus.model.consensus) == (5, "segments", True)


def test_the_settings_of_cost():
    config = cost.get_config()
    clip = {"frames": 8, "stride": 8, "short_side": 256, "jitter": (256, 320), "size": 224, "crop": "random"}
    assert config.clip.to_dict() == clip | {"flip": None, "fps": None}
    assert (config.train.batch, config.train.steps, config.norm.group_size) == (32, 600_000, 8)
    assert settings(config, "optimizer", "momentum", "nesterov", "weight_decay") == (0.9, False, 1e-4)
    assert settings(config, "schedule", "learning_rate", "drop_steps") == (0.005, (300_000, 450_000))
    assert settings(config, "test", "clips", "number", "average_clips") == ("uniform", 10, "probability")
    assert settings(config, "test", "crop", "flip") == ("full", False)
    code = cost.get_config("recipe=code")
    assert (code.train.batch, code.train.steps, code.train.epochs, code.schedule.learning_rate) == (64, None, 160, 0.01)
    assert (code.schedule.drop_epochs, code.optimizer.clip_norm, code.model.pool) == ((80, 120), 40.0, "code")
    moments = cost.get_config("recipe=code_moments")
    assert (moments.train.epochs, moments.schedule.drop_epochs, moments.model.pool) == (48, (24, 36), "code")

    longer = cost.get_config("model=cost_b_resnet101,frames=32,span=128,start=runs/8")
    assert (longer.clip.frames, longer.clip.stride, longer.model.frames) == (32, 4, 32)
    assert longer.norm.to_dict() == {"group_size": None, "frozen": True}
    assert settings(longer, "init_from", "path", "inflate", "new_head") == ("runs/8", "mean", False)
    assert longer.init_from.expects == "cost_b_resnet101"
    assert (longer.train.steps, longer.schedule.learning_rate, longer.schedule.drop_steps) == (100_000, 0.0005, ())


def test_the_settings_of_st_resnet():
    """ST-ResNet §4 and Table 2."""
    phases = {name: st_resnet.get_config(phase(name)) for name in st_resnet.PHASES}
    found = {
        name: (config.train.batch, config.norm.group_size, config.clip.frames, config.clip.strides)
        for name, config in phases.items()
    }
    assert found == {
        "motion": (258, 86, 1, ()),
        "appearance": (256, 8, 1, ()),
        "joint": (128, 4, 5, (5, 15)),
        "star": (128, 4, 11, (1, 15)),
    }
    for name, config in phases.items():
        schedule = optimizer.schedule(**config.schedule, steps=config.train.steps, steps_per_epoch=10)
        changes = [0, *config.schedule.drop_steps]
        rates = [float(schedule(step)) for step in changes]
        lengths = np.diff([*changes, config.train.steps]).tolist()
        expected = {
            "motion": ([1e-2, 1e-3], [30_000, 10_000]),
            "appearance": ([1e-2, 1e-3], [10_000, 10_000]),
            "joint": ([1e-3, 1e-4, 1e-5], [30_000, 30_000, 20_000]),
            "star": ([1e-4, 1e-5], [2_000, 2_000]),
        }[name]
        assert (pytest.approx(rates), lengths) == expected
        keys = ("momentum", "nesterov", "weight_decay", "decay_norm")
        assert settings(config, "optimizer", *keys) == (0.9, False, 5e-4, False)
        assert settings(config, "test", "clips", "number", "crop", "flip", "average_clips") == (
            "spread",
            25,
            "full",
            None,
            "logit",
        )
        assert (config.clip.short_side, config.clip.size, config.train.loss_reduction) == (256, 224, "sum")
    assert [config.clip.crop for config in phases.values()] == ["scales", "sizes", "sizes", "sizes"]


def test_the_settings_of_transfer():
    config = transfer.get_config("weights=r50.pth")
    assert (config.train.batch, config.train.epochs, config.schedule.learning_rate) == (16, 150, 0.1)
    assert settings(config, "schedule", "kind", "drop_epochs") == ("step", (30, 60, 90, 120))
    assert settings(config, "optimizer", "momentum", "nesterov", "weight_decay") == (0.9, True, 1e-4)
    assert settings(config, "init_from", "path", "layout", "into") == ("r50.pth", "torchvision", "teacher")
    assert (config.optimizer.head_rate, transfer.get_config("").optimizer.head_rate) == (0.1, 1.0)
    assert transfer.get_config("epochs=30").schedule.drop_epochs == (6, 12, 18, 24)
    of_t3d = transfer.get_config("frames=32,size=224")
    assert settings(of_t3d, "clip", "frames", "short_side", "size", "segments") == (32, 256, 224, 0)
    assert transfer.get_config("clips=4").clip.segments == 4


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        ("", (112, 122, 2)),
        ("size=224,stride=4", (224, 256, 4)),
        ("data=motions", (56, 62, 1)),
        ("data=motions,stride=3", (56, 62, 3)),
        ("data=motions,size=112", (112, 122, 1)),
        ("recipe=small,size=70,stride=2", (70, 80, 2)),
    ],
)
def test_the_frames_of_transfer_are_the_users_choice(string, expected):
    assert settings(transfer.get_config(string), "clip", "size", "short_side", "stride") == expected


@pytest.mark.parametrize("weights", ["r50.pth", "r50.th", "r50.pth.tar", "torchvision:resnet50", "RUN", "gs://runs/2d"])
def test_a_teachers_weights_are_a_run_or_a_whole_network(weights, tmp_path):
    is_run = weights in ("RUN", "gs://runs/2d")
    config = transfer.get_config(f"recipe=small,weights={tmp_path if weights == 'RUN' else weights}")
    assert config.init_from.layout == (None if is_run else "torchvision")
    assert config.teacher.width == (0.25 if is_run else 1.0)


@pytest.mark.parametrize(
    ("module", "string"),
    [
        *((cost, text) for text in ("recipe=paper", "recipe=code", "recipe=code_moments", "frames=32,start=RUN")),
        *((st_resnet, phase(name)) for name in st_resnet.PHASES),
        (st_resnet, "data=motions"),
    ],
)
def test_the_rate_of_a_run_in_epochs_drops_where_the_papers_does(module, string):
    def rates(config: ConfigDict, steps_per_epoch: int) -> list[float]:
        total = config.train.steps or config.train.epochs * steps_per_epoch
        schedule = optimizer.schedule(**config.schedule, steps=total, steps_per_epoch=steps_per_epoch)
        return [float(schedule(round(share * total))) for share in np.arange(0.05, 1, 0.1)]

    paper, own = module.get_config(string), module.get_config(f"{string},epochs=6")
    assert (own.train.epochs, own.train.steps, own.schedule.drop_steps) == (6, None, ())
    paper.schedule.warmup_epochs = own.schedule.warmup_epochs = 0  # which is not a share of the run
    assert rates(own, 40) == pytest.approx(rates(paper, 40), rel=1e-2)


def micro(config: ConfigDict) -> tuple[int, int | None, int | None]:
    """Micro-batches of a batch, the videos in one, and BatchNorm's groups."""
    resolved = recipe.resolve(config)
    assert recipe.resolve(resolved) == resolved, "as it is once it is resolved"
    return recipe.micro_batches(resolved), resolved.train.micro_batch, resolved.norm.group_size


def test_micro_batches_divide_the_batch_and_leave_groups_whole():
    found = {
        string: micro(stc.get_config(f"data=DIR,{string}"))
        for string in ("micro_batch=32", "micro_batch=50", "micro_batch=1", "micro_batch=200", "")
    }
    assert found == {
        "micro_batch=32": (4, 32, 32),
        "micro_batch=50": (4, 32, 32),
        "micro_batch=1": (128, 1, 1),
        "micro_batch=200": (1, None, 128),
        "": (1, None, None),
    }
    assert micro(cost.get_config("micro_batch=8")) == (4, 8, 8)
    assert micro(cost.get_config("micro_batch=4")) == (4, 8, 8), "groups of 8 stay whole"
    assert micro(cost.get_config("frames=32,start=RUN,micro_batch=8")) == (4, 8, None), "frozen, which has no groups"
    phases = {name: micro(st_resnet.get_config(phase(name)))[0] for name in st_resnet.PHASES}
    assert phases == {"motion": 3, "appearance": 4, "joint": 8, "star": 16}
    by_64 = st_resnet.get_config("phase=motion,group=64")
    assert (by_64.train.batch, *micro(by_64)) == (256, 4, 64, 64), "for 4 or 8 devices"
    small = st_resnet.get_config("data=motions,group=4,micro_batch=8,epochs=3")
    assert (*micro(small), small.train.epochs, small.train.steps) == (2, 8, 4, 3, None)
    assert micro(t3d.get_config("consensus=true,micro_batch=16")) == (4, 16, 16 * 5), "groups count clips"


def test_a_micro_batch_that_is_set_later_is_the_same():
    """As by --config.train.micro_batch, and for the batch that there is then."""
    given, later = (stc.get_config(f"data=DIR{argument}") for argument in (",micro_batch=32", ""))
    later.train.micro_batch = 32
    assert recipe.resolve(later) == recipe.resolve(given)
    later.train.update(batch=64, micro_batch=33)
    assert micro(later) == (2, 32, 32)
    later.train.micro_batch = 0
    with pytest.raises(ValueError, match="train.micro_batch is 0: expected at least 1"):
        recipe.resolve(later)


def test_nothing_is_mirrored_where_the_set_must_not_be():
    """As motions, where one to the left would be one to the right; but by who asks for it."""
    assert settings(st_resnet.get_config("data=motions"), "clip", "flip") == (None,)
    asked = stc.get_config()
    asked.clip.flip = True
    assert recipe.resolve(asked, flip=False).clip.flip is True
    for config in (stc.get_config(), st_resnet.get_config("data=motions")):
        resolved = recipe.resolve(config, flip=False)
        assert (resolved.clip.flip, resolved.test.flip) == (False, False)
    never = st_resnet.get_config("data=DIR")
    assert recipe.resolve(never, flip=True).test.flip is True
    never.clip.flip = False  # training sees no mirrored clip, so neither does a test that is not told to
    assert recipe.resolve(never, flip=True).test.flip is False
    never.test.flip = True
    assert recipe.resolve(never, flip=True).test.flip is True


def test_steps_stand_in_place_of_epochs():
    assert (stc.get_config().train.epochs, cost.get_config().train.epochs) == (10, None)
    assert settings(cost.get_config("epochs=3"), "train", "epochs", "steps") == (3, None)
    config = stc.get_config()
    config.train.steps = 7
    assert settings(recipe.resolve(config), "train", "epochs", "steps") == (None, 7)
    config.train.update(epochs=None, steps=None)
    with pytest.raises(ValueError, match="neither train.epochs nor train.steps is given"):
        recipe.resolve(config)


def test_epochs_that_do_not_count_are_spoken_of(capsys):
    """In Python; on the command line the one that is given stands in place of the other."""
    recipe.note.cache_clear()
    config = cost.get_config()
    config.train.epochs = 5
    assert settings(recipe.resolve(config), "train", "epochs", "steps") == (None, 600_000)
    assert capsys.readouterr().err == (
        "train.steps=600,000 counts, and not train.epochs=5: for that set train.steps=None.\n"
    )
    recipe.resolve(cost.get_config("frames=32,start=RUN,recipe=code"))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "key", "said"),
    [
        ("train", "epoch", "unknown keys train.epoch: .* Did you mean train.epochs?"),
        ("train", "erasng", "unknown keys train.erasng: .* Did you mean train.erasing?"),
        ("clip", "strid", "unknown keys clip.strid: .* Did you mean clip.stride?"),
        (None, "learning_rate", "unknown keys learning_rate: .* Did you mean schedule.learning_rate?"),
    ],
)
def test_keys_that_nobody_reads_are_refused(section, key, said):
    """As on the command line; there are others that one could have meant."""
    config = stc.get_config()
    with config.unlocked():
        (config[section] if section else config)[key] = 1
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        recipe.resolve(config)


@pytest.mark.parametrize(("batch", "asked", "got"), [(34, 16, 2), (22, 8, 2), (32, 16, 16), (32, 64, None)])
def test_a_micro_batch_that_does_not_divide_is_spoken_of(capsys, batch, asked, got):
    recipe.note.cache_clear()
    config = stc.get_config()
    config.train.update(batch=batch, micro_batch=asked)
    assert recipe.resolve(config).train.micro_batch == got
    said = f"train.micro_batch={asked}: it does not divide train.batch={batch}. {got} videos at once, over which Batch"
    assert capsys.readouterr().err.startswith(said) == (got == 2)


def test_groups_that_make_micro_batches_smaller_are_spoken_of(capsys):
    recipe.note.cache_clear()
    config = stc.get_config()
    config.train.update(batch=24, micro_batch=8)
    config.norm.group_size = 6
    assert recipe.resolve(config).train.micro_batch == 6
    said = "train.micro_batch=8: groups of BatchNorm have 6 clips. 6 videos at once.\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("argument", ["", "transfer", "phase=motion", phase("star")])
def test_a_test_config_makes_a_run(argument):
    check(tiny.get_config(argument))


def test_the_first_command_is_small():
    config = stc.get_config()
    assert (config.data.manifest, config.model.name, config.model.width) == ("motions", "stc_resnet18", 0.25)
    assert (config.test.clips, config.test.average_clips) == ("nonoverlap", "probability"), (
        "tested by the paper's protocol"
    )


def test_recipe_is_the_users_choice():
    assert stc.get_config("data=mine").train.batch == 128
    own = stc.get_config("data=mine,recipe=small,stride=4,epochs=7")
    assert own.model.width == 0.25 and own.clip.flip is None
    assert (own.clip.stride, own.train.epochs, own.data.manifest) == (4, 7, "mine")
    assert stc.get_config("recipe=paper").data.manifest == "motions"


@pytest.mark.parametrize(
    ("module", "argument", "message"),
    [
        (stc, "nosuch=1", "unknown config argument 'nosuch=1': expected key=value with one of model, data, frames"),
        (stc, "frames", "unknown config argument 'frames': expected key=value"),
        (stc, "frames=many", "config argument 'frames=many': expected a value like 16"),
        (stc, "recipe=large", "unknown recipe 'large': expected small or paper"),
        (cost, "recipe=papers", "unknown recipe 'papers': expected paper, code or code_moments"),
        (cost, "model=c2d_resnet50,share_weights=false", "share_weights is of CoST's three views"),
        (cost, "start=RUN", "start=RUN is for frames=32, from the run of an 8-frame network"),
        (st_resnet, "phase=both", "unknown phase 'both': expected motion, appearance, joint, star"),
        (st_resnet, "phase=joint,motion=M", "phase=joint starts from two runs: appearance=RUN,motion=RUN"),
        (st_resnet, "phase=joint,start=RUN", "phase=joint starts from two runs"),
        (st_resnet, "phase=joint", "phase=joint starts from two runs"),
        (st_resnet, "phase=star", "phase=star starts from a run of phase=joint: start=RUN"),
        (st_resnet, "phase=star,motion=M", "phase=star starts from a run of phase=joint: start=RUN"),
        (st_resnet, "phase=star,imagenet=r50.pth", "starts from the runs of the phases before it, not from ImageNet"),
        (st_resnet, "phase=motion,appearance=A", "phase=motion starts from imagenet=FILE, or from start=RUN"),
        (transfer, "recipe=tiny", "unknown recipe 'tiny': expected small or paper"),
        (stc, "epochs=0", "config argument epochs=0: expected at least 1"),
        (stc, "stride=0,data=DIR", "config argument stride=0: expected at least 1"),
        (st_resnet, "group=-1", "config argument group=-1: expected at least 1"),
        (finetune, "batch=0,weights=r50.pth,model=c2d_resnet50,layout=torchvision", "batch=0: expected at least 1"),
    ],
)
def test_unknown_arguments(module, argument, message):
    with pytest.raises(ValueError, match=message):
        module.get_config(argument)


def test_arguments_take_the_type_of_their_default():
    found = vars(
        recipe.arguments(
            "count=2,rate=1,name=3,flag=False,other=TRUE", count=1, rate=0.5, name="", flag=True, other=False
        )
    )
    assert found == {"count": 2, "rate": 1.0, "name": "3", "flag": False, "other": True}
    assert [type(value) for value in found.values()] == [int, float, str, bool, bool]
    assert vars(recipe.arguments("", count=1)) == {"count": 1}
    with pytest.raises(ValueError, match="config argument 'flag=yes': expected a value like True"):
        recipe.arguments("flag=yes", flag=True)


def test_arguments_without_a_default():
    assert vars(recipe.arguments("start=a,stride=3", start=str, stride=int, rest=int)) == {
        **{"start": "a", "stride": 3, "rest": None}
    }
    assert vars(recipe.arguments("start=", start=str)) == {"start": None}
    with pytest.raises(ValueError, match="config argument 'stride=a': expected a whole number"):
        recipe.arguments("stride=a", stride=int)


def test_arguments_of_earlier_versions(capsys):
    found = recipe.arguments("hold=32", micro_batch=int)
    assert found.micro_batch == 32 and recipe.arguments("hold=0", micro_batch=int).micro_batch is None
    assert recipe.arguments("hold=3", hold=0).hold == 3, "of a recipe of that time"
    recipe.note.cache_clear()
    recipe.arguments("hold=2", micro_batch=int), recipe.arguments("hold=2", micro_batch=int)
    assert capsys.readouterr().err.endswith("The argument hold is called micro_batch now.\n")
    for text in ("hold=32", "hold=200"):
        old, new = (stc.get_config(f"data=DIR,{given}") for given in (text, text.replace("hold", "micro_batch")))
        assert old == new


def test_a_recipe_says_all_that_papers_decide():
    sections = {"model": {"name": "c3d"}, "data": {"manifest": "a"}, "clip": dict.fromkeys(saved.KEYS["clip"])}
    with pytest.raises(
        ValueError, match="a recipe says what train.batch, .*schedule.learning_rate, .*test.average_clips is"
    ):
        recipe.config(**sections, test={"flip": False})
    with pytest.raises(ValueError, match="unknown keys train.batches, lab"):
        recipe.config(**sections, train={"batches": 3}, lab={"note": 1})


def test_values_that_start_as_none_can_be_set():
    config = stc.get_config()
    config.lock()
    config.norm.group_size = 4
    assert config.norm.to_dict() == {"group_size": 4, "frozen": False}
    with pytest.raises(TypeError):
        config.norm.group_size = "four"
