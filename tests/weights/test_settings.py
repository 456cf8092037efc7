"""A file and its layout decide how RGB is normalised and how a video is cut into clips; what the user says stays."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
import tiny
import torch
from ml_collections import ConfigDict
from reference import resnet

from configs import cost as cost_config
from configs import stc, t3d
from jax_video import networks, state
from jax_video.errors import UserError
from jax_video.run import load
from jax_video.weights import conversion, files, names, settings
from jax_video.weights import source as sources
from jax_video.weights.source import Source

SIZES = {"width": 1 / 16, "layers": (1, 1, 1, 1)}
OLD, NEW = names.ACTIVITYNET, names.KINETICS
CLASSES = 5

pytestmark = pytest.mark.usefixtures("one_device", "one_torch_thread")


def network_of(name: str = "resnet3d18", **options) -> torch.nn.Module:
    """A small network of PyTorch in test mode; its statistics are of some training."""
    torch.manual_seed(0)
    network = resnet.build(name, CLASSES, **SIZES, **options)
    for key, tensor in network.state_dict().items():
        if key.endswith(("running_var", "weight")) and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1:
            tensor.normal_(0, 0.2)
        elif key.endswith("num_batches_tracked"):
            tensor.fill_(1234)
    torch.nn.init.normal_(network.fc.weight)
    return network.eval()


def save_2018(network: torch.nn.Module, path: pathlib.Path) -> pathlib.Path:
    """As 3D-ResNets-PyTorch did until 2018-10."""
    weights = {f"module.{key}": t for key, t in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save({"epoch": 200, "arch": "resnet-18", "state_dict": weights, "optimizer": {}}, path)
    return path


def save_2020(network: torch.nn.Module, path: pathlib.Path) -> pathlib.Path:
    """As it does since."""
    torch.save({"arch": "resnet", "state_dict": network.state_dict(), "optimizer": {}, "scheduler": {}}, path)
    return path


def save_again(network: torch.nn.Module, path: pathlib.Path) -> pathlib.Path:
    """As somebody does who has read the first into a newer PyTorch."""
    weights = network.state_dict()
    for key in weights:
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.zeros_like(weights[key])
    torch.save(weights, path)
    return path


def outputs(network: torch.nn.Module, normalize: dict, path: pathlib.Path, *which: str) -> pathlib.Path:
    """What the network gives of a raw video, normalised so."""
    video = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 32, 40), np.uint8)
    mean, std = (np.array(normalize[key], np.float32)[:, None, None, None] for key in ("mean", "std"))
    normal = ((video - mean) / std).astype(np.float32)
    with torch.no_grad():
        logits = network(torch.from_numpy(normal)).numpy()
    arrays = {"video": video, "input": normal, "logits": logits}
    np.savez(path, **{name: arrays[name] for name in (*which, "logits")})
    return path


def config_of(**model) -> ConfigDict:
    """Clips of a recipe, and the smallest network."""
    config = stc.get_config("model=resnet3d18,recipe=paper,data=nowhere")
    config.model.update(SIZES)
    config.model.update(model)
    return config


def converted(out: pathlib.Path) -> ConfigDict:
    """The config that a run's folder has."""
    return load(out).config


@pytest.mark.parametrize(
    ("save", "normalize", "told"),
    [(save_2018, OLD, 'code of 2018, by names with "module."'), (save_2020, NEW, "code of 2020, by names without")],
)
def test_files_of_both_times(tmp_path, save, normalize, told):
    """Shortcut A, which has no arrays; the proof begins with raw RGB. The run's folder knows it all."""
    network = network_of(shortcut="A")
    file, check = save(network, tmp_path / "w.pth"), outputs(network, normalize, tmp_path / "o.npz", "video")
    report = conversion.convert(file, "3d-resnets", config_of(), tmp_path / "run", check=check)
    assert told in report and "the file sets shortcut=A, preactivation=False" in report
    assert "as the run computes, in bfloat16 on a CPU, it is " in report
    config = converted(tmp_path / "run")
    assert {key: tuple(values) for key, values in config.normalize.items()} == normalize
    assert (config.clip.frames, config.clip.stride, config.clip.short_side, config.clip.size) == (16, 1, 112, 112)
    assert (config.test.clips, config.test.crop, config.test.flip) == ("nonoverlap", "center", False)
    assert (config.model.shortcut, config.model.stem) == ("A", "hara")


def test_a_file_that_has_lost_its_signs(tmp_path):
    """It is asked for; the answer is proved by raw RGB; nothing is written on the way."""
    network = network_of()
    file, check = save_again(network, tmp_path / "w.pth"), outputs(network, OLD, tmp_path / "o.npz", "video")
    arguments, out = (file, "3d-resnets", config_of(), tmp_path / "run"), tmp_path / "run"
    with pytest.raises(
        UserError, match="does not tell which RGB its network expects; it has .* of 0 everywhere"
    ) as error:
        conversion.convert(*arguments, check=check)
    assert "--normalize=2018: mean 114.7748" in str(error.value) and "--normalize=2020: mean 110.7975" in str(
        error.value
    )
    with pytest.raises(UserError, match=r"o.npz: the logits differ by .* Has it seen mean 110.7975, "):
        conversion.convert(*arguments, check=check, normalize="2020")
    assert not out.exists()
    assert "code of 2018, by --normalize" in conversion.convert(*arguments, check=check, normalize="2018")
    assert tuple(converted(out).normalize.mean) == OLD["mean"]


def test_numbers_that_are_given_answer_as_well(tmp_path):
    config = config_of()
    config.normalize.mean = (1.0, 2.0, 3.0)
    report = conversion.convert(save_again(network_of(), tmp_path / "w.pth"), "3d-resnets", config, tmp_path / "run")
    assert "RGB is normalised by mean 1.0, 2.0, 3.0 and std 58.395, 57.12, 57.375, as given; the layout's" in report
    assert tuple(converted(tmp_path / "run").normalize.mean) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("suffix", [".pth", ".npz", pytest.param(".safetensors", marks=pytest.mark.slow)])
def test_what_a_run_has_seen_goes_out_and_in_with_its_weights(suffix, tmp_path):
    """Counters and bare names look like those of the layout's code of 2020, which normalises otherwise."""
    config = config_of()
    config.normalize.update({"mean": (1.0, 2.0, 3.0), "std": (4.0, 5.0, 6.0)})
    path = save_2020(network_of(), tmp_path / "theirs.pth")
    conversion.convert(path, "3d-resnets", config, tmp_path / "run")
    exported = tmp_path / f"back{suffix}"
    said = conversion.export(load(tmp_path / "run"), "3d-resnets", exported)
    assert [line.partition(";")[0] for line in said] == [
        "The run has seen RGB normalised by mean 1.0, 2.0, 3.0 and std 4.0, 5.0, 6.0"
    ]
    report = conversion.convert(exported, "3d-resnets", config_of(), tmp_path / "again")
    assert "std 4.0, 5.0, 6.0, as in the run that it was exported from" in report
    assert converted(tmp_path / "again").normalize == converted(tmp_path / "run").normalize
    [read] = [sources._normalize(exported, files.read_file(exported).notes)]
    assert state.Normalization.of(read) == state.Normalization.of(json.loads(config.normalize.to_json()))
    if suffix == ".pth":
        network_of().load_state_dict(torch.load(exported, weights_only=True), strict=True)


@pytest.mark.parametrize("layout", ["3d-resnets", "jax_video"])
def test_a_file_tells_the_clips_and_the_test_of_its_run(layout, tmp_path):
    """They go before the layout's; what is given stays. Without notes it is the layout's, or the recipe's, as ever."""
    config, given = config_of(), ("clip.stride", "clip.frames", "test.clips", "test.number")
    config.clip.update(stride=3, frames=8, fps=12.5)
    config.test.update(clips="uniform", number=3)
    conversion.convert(save_2020(network_of(), tmp_path / "w.pth"), "3d-resnets", config, tmp_path / "run", given=given)
    conversion.export(load(tmp_path / "run"), layout, tmp_path / "back.npz")
    report = conversion.convert(tmp_path / "back.npz", layout, config_of(), tmp_path / "again", given=("clip.size",))
    ours, theirs = (json.loads(converted(tmp_path / run).to_json()) for run in ("again", "run"))
    assert ours["clip"] == theirs["clip"] and ours["test"] == theirs["test"]
    assert ours["clip"]["stride"] == 3 and ours["test"]["number"] == 3
    said = next(line for line in report.splitlines() if "clip: " in line)
    assert "frames=8" in said and "as in the run that it was exported from; size=112 as given" in said
    said = next(line for line in report.splitlines() if "test: " in line)
    assert "number=3" in said and said.endswith("as in the run that it was exported from")
    files.write(tmp_path / "bare.npz", files.read(tmp_path / "back.npz"))
    normalize = {"normalize": "2020"} if layout == "3d-resnets" else {}
    report = conversion.convert(tmp_path / "bare.npz", layout, config_of(), tmp_path / "bare", **normalize)
    assert ("clip: frames=16, stride=1, short_side=112, size=112 as there" in report) == (layout == "3d-resnets")
    assert converted(tmp_path / "bare").clip.stride == (1 if layout == "3d-resnets" else config_of().clip.stride)


@pytest.mark.parametrize(
    "notes",
    [{"clip": "{}"}, {"clip": '{"frames": "8"}'}, {"test": "{}"}, {"test": "no"}],
)
def test_notes_that_tell_no_clips(notes, tmp_path):
    with pytest.raises(UserError, match=r"w.npz does not tell the clips of its run \(.*\): export the weights again"):
        sources._sampling(tmp_path / "w.npz", notes)


def test_keywords_that_follow_the_clips_are_those_of_the_run():
    """As layers depend on them; where the user gives the clip's frames, the keyword is the user's, too."""
    run = dict(networks.find("stc_resnet18").keywords) | {"name": "stc_resnet18", "frames": 32}
    config = stc.get_config("model=stc_resnet18,frames=8,data=nowhere")
    clip = config.clip.to_dict() | {"frames": 32}
    found = dataclasses.replace(source("jax_video"), model=run, clip=clip)
    for given, frames in ((("clip.frames",), 8), ((), 32)):
        with config.unlocked():
            settings.set_keywords(config, found, given)
            settings.set_sampling(config, found, 400, given)
        assert config.model.frames == config.clip.frames == frames


@pytest.mark.parametrize(
    ("layout", "normalize", "told"),
    [
        ("3d-resnets", NEW, False),
        ("3d-resnets", OLD, True),
        ("torchvision", names.IMAGENET, False),
        ("torchvision", NEW, True),
        ("jax_video", NEW, False),
    ],
)
def test_who_takes_weights_elsewhere_is_told_of_other_rgb(layout, normalize, told):
    found = settings.compare_normalization(layout, {key: list(values) for key, values in normalize.items()})
    assert len(found) == told and all("Give the network what it knows." in line for line in found)


def test_preactivation_of_2018(tmp_path):
    """preresnet-200, in small: loaded where the config says so, and where it says nothing; an error where it is not."""
    file = save_2018(network_of("resnet3d50", preactivation=True), tmp_path / "pre.pth")
    for preactivation in (True, False):
        out = tmp_path / f"run{preactivation}"
        given = config_of(name="resnet3d50", preactivation=preactivation)
        assert "the file sets shortcut=B, preactivation=True" in conversion.convert(file, "3d-resnets", given, out)
        assert converted(out).model.preactivation is True
    file = save_2018(network_of("resnet3d50"), tmp_path / "post.pth")
    given = config_of(name="resnet3d50", preactivation=True)
    with pytest.raises(UserError, match=r"model.preactivation is True, but \S+post.pth has False"):
        conversion.convert(file, "3d-resnets", given, tmp_path / "run")


# What is known of each source, without weights.


def source(layout: str, **arrays: tuple[int, ...]) -> Source:
    return Source(
        "w.pth", layout, {key: np.zeros(shape) for key, shape in arrays.items()}, None, [], 400, version="2020"
    )


def settle(layout: str, config: ConfigDict, given=(), **arrays) -> list[str]:
    found = source(layout, **arrays)
    with config.unlocked():
        lines = settings.set_keywords(config, found, given)
        lines += settings.set_normalization(config, dataclasses.replace(found, version=""), "", given)
        return lines + settings.set_sampling(config, found, 400, given)


def test_each_sources_own_test():
    config = t3d.get_config("model=inception3d")
    lines = settle("i3d", config)
    assert tuple(config.normalize.mean) == tuple(config.normalize.std) == (127.5,) * 3
    clip = config.clip
    assert (clip.frames, clip.stride, clip.short_side, clip.size) == (64, 1, 256, 224)
    assert config.clip.fps == 25 and any("fps=25.0 as there" in line for line in lines)

    config = cost_config.get_config("model=cost_b_resnet50,span=32")
    settle("cost", config)
    clip = config.clip
    assert (clip.frames, clip.stride, clip.short_side, clip.size) == (8, 8, 256, 224)
    assert (config.test.clips, config.test.number, config.test.crop) == ("uniform", 10, "three")
    assert tuple(config.normalize.mean) == names.IMAGENET["mean"] and config.model.pool == "code"
    settle("cost", config, **{"params/conv1/kernel": (5, 7, 7, 3, 64)})  # which has seen 32 frames
    assert (config.model.frames, config.clip.frames, config.clip.stride) == (32, 32, 4)

    config = t3d.get_config("model=densenet121,size=112")
    settle("torchvision", config)
    assert (config.clip.frames, config.clip.short_side, config.clip.size) == (32, 256, 224), "it sees single frames"

    config = tiny.get_config()
    before = config.to_dict()
    assert settle("jax_video", config)[0].startswith("RGB is normalised by mean 123.675, 116.28, 103.53 and std")
    assert config.to_dict() == before


def test_what_is_given_stays():
    config = cost_config.get_config("model=c2d_resnet50")
    config.clip.update(short_side=300, jitter=(200, 320))
    config.test.crop = "full"
    lines = settle("cost", config, ("clip.short_side", "test"))
    assert (config.clip.short_side, config.clip.size, config.test.crop) == (300, 224, "full")
    assert config.clip.jitter == (), "or training could not crop"
    assert "clip: frames=8, stride=8, size=224 as there; short_side=300 as given" in lines
    config.clip.update(short_side=128, size=112, jitter=(256, 320))
    settle("cost", config, ("clip.short_side", "clip.size"))
    assert config.clip.jitter == (), "or training would see other clips than a test"
    config.clip.update(short_side=100, size=224)
    with pytest.raises(UserError, match="a crop of 224 from a short side of 100"):
        settle("cost", config, ("clip.short_side",))


@pytest.mark.parametrize(
    ("layout", "name", "key", "value"),
    [
        ("3d-resnets", "resnet3d18", "stem", "table1"),
        ("3d-resnets", "densenet3d121", "stem", "t3d"),
        ("torchvision", "resnet50", "stride_on", "1x1"),
        ("cost", "cost_a_resnet50", "share_weights", False),
        ("cost", "cost_b_resnet50", "kernel_size", 5),
        ("cost", "c2d_resnet50", "stem", "1x7x7"),
        ("cost", "c2d_resnet50", "pool", "paper"),
    ],
)
def test_a_keyword_that_contradicts_the_layout(layout, name, key, value):
    """Where it is not the network's default, or is given: otherwise the layout fills it in."""
    config = tiny.get_config()
    config.model = {"name": name, key: value}
    found, key = source(layout), f"model.{key}"
    with pytest.raises(
        UserError, match=rf"{key} is {value!r}, but layout {layout} has .*\. Leave it out of the config"
    ):
        settings.set_keywords(config, found, (key,))
    if value in ("t3d", "paper"):
        settings.set_keywords(config, found, ())
        assert config.model[key.removeprefix("model.")] == names.keywords(layout, name)[key.removeprefix("model.")]
    else:
        with pytest.raises(UserError, match=f"{key} is {value!r}, but layout {layout}"):
            settings.set_keywords(config, found, ())


OURS = [
    ("resnet3d18", "stem", "table1"),
    ("c2d_resnet50", "pool", "code"),
    ("cost_a_resnet50", "stem", "1x7x7"),
    ("resnet50", "stride_on", "1x1"),
    ("st_resnet", "temporal_pool", "after"),
    ("t3d121", "layers", (1, 2, 3, 4)),
]


@pytest.mark.parametrize(("name", "key", "value"), OURS)
def test_keywords_of_a_run_come_back_with_its_weights(name, key, value):
    """Those that leave shapes alone, too: a config that says nothing takes them, another one is refused."""
    run = dict(networks.find(name).keywords) | {"name": name, key: value, "dropout": 0.7, "remat": True, "frames": 99}
    found = dataclasses.replace(source("jax_video"), model=json.loads(json.dumps(run)))
    config = tiny.get_config()
    config.model = {"name": name, **networks.find(name).keywords}
    same = config.copy_and_resolve_references()
    same.model = json.loads(json.dumps(run))  # with lists, as a config that was read
    with same.unlocked():
        assert settings.set_keywords(same, found, (f"model.{key}",)) == [] and key in same.model
    other = config.copy_and_resolve_references()
    with config.unlocked():
        assert settings.set_keywords(config, found, ()) == [f"the file sets {key}={value}"]
        assert config.model.to_dict() == other.model.to_dict() | {key: value}, "and nothing else"
    with other.unlocked():
        with pytest.raises(UserError, match=rf"model.{key} is .*, but w.pth has {re.escape(repr(value))}\. Leave"):
            settings.set_keywords(other, found, (f"model.{key}",))
        other.model = {"name": "resnet18"}
        with pytest.raises(UserError, match=f"w.pth was exported from a run of {name}, and model.name is resnet18: gi"):
            settings.set_keywords(other, found, ())


def test_the_note_of_a_thin_network_is_for_its_layout_too():
    """A file of torchvision's names, but of no width that torchvision has, may have its strides elsewhere."""
    run = dict(networks.find("resnet50").keywords) | {"name": "resnet50", "width": 0.5, "stride_on": "1x1"}
    found, config = dataclasses.replace(source("torchvision"), model=run), tiny.get_config()
    config.model = {"name": "resnet50", "width": 0.5, "stride_on": "1x1"}
    settings.set_keywords(config, found, ("model.stride_on",))
    assert config.model.stride_on == "1x1"


def test_a_shortcut_that_contradicts_the_file():
    """B is the default; where it is given, the message says so before anything about arrays that are missing."""
    arrays = {"params/layer1/0/conv1/kernel": (3, 3, 3, 64, 64), "params/layer2/0/conv1/kernel": (3, 3, 3, 64, 128)}
    config = config_of()
    with pytest.raises(UserError, match="model.shortcut is 'B', but w.pth has 'A'"):
        settings.set_keywords(config, source("3d-resnets", **arrays), ("model.shortcut",))
    settings.set_keywords(config, source("3d-resnets", **arrays), ())
    assert config.model.shortcut == "A"
    config.model.shortcut = "A"
    with pytest.raises(UserError, match="model.shortcut is 'A', but w.pth has 'B'"):
        arrays["params/layer2/0/downsample/conv/kernel"] = (1, 1, 1, 64, 128)
        settings.set_keywords(config, source("3d-resnets", **arrays), ())


def test_every_layout_fits_the_sections_of_a_config():
    """Keys that no config has would be set in silence."""
    config = tiny.get_config()
    for layout in names.LAYOUTS.values():
        assert set(layout.clip) <= set(config.clip) and set(layout.test) <= set(config.test)
        assert not layout.versions or list(layout.versions.values())[-1] == layout.normalize
    assert {name for name in networks.NETWORKS if names.keywords("3d-resnets", name)} >= {"resnet3d200", "resnext3d101"}
