"""`python -m jax_video.convert`: PyTorch's weights in, to a folder like any run's, and out again; or one message."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from commands import check_user_error, run
from conftest import ROOT
from reference import cost, resnet

from jax_video import config_flag
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions
from jax_video.errors import UserError
from jax_video.run import load
from jax_video.weights import conversion, files, names, public

pytestmark = pytest.mark.usefixtures("one_device")

CONVERT = "jax_video.convert"
CONFIG = f"--config={ROOT}/tests/tiny.py"  # a 3D-ResNet-18 of four channels
LAYOUT = "--layout=3d-resnets"
SIZES = {"width": 1 / 16, "layers": (1, 1, 1, 1)}
CLIPS = ("--config.clip.frames=4", "--config.clip.short_side=32", "--config.clip.size=32")  # the config's own


class Payload:
    """Makes a file where it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


def build(classes=8):
    return resnet.build("resnet3d18", classes, **SIZES)


@dataclasses.dataclass(frozen=True)
class Theirs:
    """What a PyTorch user has: weights, an input and the logits that they give there."""

    folder: pathlib.Path
    weights: dict[str, torch.Tensor]

    def save(self, path, weights, **beside):
        """As 3D-ResNets-PyTorch does since 2018-11."""
        file = {"epoch": 200, "arch": "resnet", "state_dict": weights, "optimizer": {}, "scheduler": {}}
        torch.save(file | beside, path)
        return path


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Theirs:
    folder = tmp_path_factory.mktemp("theirs")
    torch.manual_seed(0)
    network = build()
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_var", "weight")) and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(1234)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.2)
    user = Theirs(folder, network.state_dict())
    torch.nn.init.normal_(network.fc.weight)
    user.save(folder / "r3d.pth", user.weights)
    torch.save({f"module.{name}": tensor for name, tensor in user.weights.items()}, folder / "parallel.pth")
    video = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        logits = network.eval()(video).numpy()
    for name, values in (("outputs", logits), ("wrong", logits * 1.001), ("three", logits[:, :3])):
        np.savez(folder / f"{name}.npz", input=video.numpy(), logits=values)
    # As we take it, and with logits in every frame, as I3D gives them.
    np.savez(
        folder / "ours.npz", input=np.moveaxis(video.numpy(), 1, -1), logits=np.stack([logits - 1, logits + 1], -1)
    )
    np.savez(folder / "nothing.npz", input=video.numpy())
    return user


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("data")
    return motions.make(folder, train=16, val=8, test=8, frames=8, width=40, height=32).parent


@pytest.fixture(scope="module")
def converted(theirs, data) -> pathlib.Path:
    """A folder that the command has written."""
    out = theirs.folder / "run"
    arguments = (theirs.folder / "r3d.pth", LAYOUT, CONFIG, f"--config.data.manifest={data}", f"--out={out}")
    finished = run(CONVERT, *arguments, *CLIPS, f"--check={theirs.folder / 'outputs.npz'}")
    assert finished.code == 0, finished.stderr
    assert "Warning" not in finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[0] == f"{theirs.folder / 'r3d.pth'}, layout 3d-resnets, is resnet3d18 of 8 classes:"
    arrays = sum(not name.endswith("num_batches_tracked") for name in theirs.weights)
    assert lines[1].startswith(f"  loaded   {arrays:5} arrays ")
    assert "  the layout sets stem=hara" in lines and "  the file sets shortcut=B, preactivation=False" in lines
    assert "  clip: stride=1 as there; frames=4, short_side=32, size=32 as given" in lines
    assert any("code of 2020, by " in line for line in lines)
    assert any(line.startswith("  classes: left, right, up, … of motions") for line in lines)
    assert any("the largest difference from the logits in" in line for line in lines)
    assert lines[-3:] == [
        f"Wrote {out}.",
        "Try it on a video:",
        f"  python -m jax_video.predict VIDEO --checkpoint={out}",
    ]
    return out


# In.


def test_fine_tuning_takes_it(converted):
    config = config_flag.read_recipe(f"finetune:weights={converted},data=x")
    assert (config.model.name, config.clip.frames, config.clip.size) == ("resnet3d18", 4, 32)
    assert json.dumps(config.model.to_dict()) == json.dumps(load(converted).config.model.to_dict())


def test_predict_and_main_take_it(converted, data, tmp_path):
    """Each says the same of a video, and has the classes of the config's data set."""
    shutil.copytree(converted, tmp_path / "run")
    finished = run("jax_video.predict", data / "test", f"--checkpoint={tmp_path / 'run'}", "--json", "--top=8")
    assert finished.code == 0, finished.stderr
    rows = [json.loads(line) for line in finished.stdout.splitlines()]
    predicted = {pathlib.Path(row["video"]).name: row["classes"] for row in rows}
    assert len(predicted) == 8

    arguments = (CONFIG, f"--config.data.manifest={data}", f"--workdir={tmp_path / 'run'}", "--mode=test")
    finished = run("jax_video.main", *arguments)  # which normalises as the checkpoint says, not as the config
    assert finished.code == 0, finished.stderr
    assert "Other clips" not in finished.stderr
    for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        scores = {entry["name"]: entry["score"] for entry in predicted[pathlib.Path(row["video"]).name]}
        assert [scores[name] for name in motions.CLASSES] == pytest.approx(row["scores"], abs=1e-6)


def test_a_run_starts_from_it(theirs, converted, data, tmp_path):
    """At a learning rate of zero it ends with the file's weights, which go out as they came in."""
    still = ("--config.schedule.learning_rate=0.0", "--config.train.epochs=1", "--config.train.ema=0.0")
    arguments = (CONFIG, f"--config.data.manifest={data}", *still, f"--config.init_from.path={converted}")
    finished = run("jax_video.main", *arguments, f"--workdir={tmp_path / 'run'}")
    assert finished.code == 0, finished.stderr
    assert f"Weights from {converted}:\n" in finished.stderr and "  fresh" not in finished.stderr
    exported = run(CONVERT, tmp_path / "run", LAYOUT, f"--export={tmp_path / 'out.pth'}")
    assert f"the weights of {tmp_path / 'run'} after 2 steps, in layout 3d-resnets.\n" in exported.stdout
    weights = torch.load(tmp_path / "out.pth", weights_only=True)
    for name, tensor in theirs.weights.items():
        if name.endswith("num_batches_tracked"):
            assert weights[name] == 2, "its own steps"
        elif "running" not in name:
            assert torch.equal(weights[name], tensor), name


def test_checks_and_classes_of_other_forms(theirs, tmp_path):
    """Also where the run itself will compute in half precision."""
    (tmp_path / "classes.txt").write_text("\n".join(map(str, range(100, 108))) + "\n\n")
    (tmp_path / "seven.txt").write_text("\n".join(map(str, range(100, 107))))
    check, half = f"--check={theirs.folder / 'ours.npz'}", "--config.dtype=bfloat16"
    arguments = (theirs.folder / "r3d.pth", LAYOUT, CONFIG, f"--out={tmp_path / 'run'}", check, half)
    finished = run(CONVERT, *arguments, f"--classes={tmp_path / 'seven.txt'}")
    check_user_error(finished, "seven.txt: names 7 classes, the network has 8")
    finished = run(CONVERT, *arguments, f"--classes={tmp_path / 'classes.txt'}")
    assert finished.code == 0, finished.stderr
    assert f"  classes: those of {tmp_path / 'classes.txt'}\n" in finished.stdout


def test_a_2d_network_is_checked_on_images(tmp_path):
    """From Python; `[B, C, H, W]` is a video of one frame, and logits a thousandth off are too far."""
    torch.manual_seed(0)
    network = cost.build("resnet18", 5, **SIZES).eval()
    torch.nn.init.normal_(network.fc.weight)
    weights = {
        name.replace("downsample.conv", "downsample.0").replace("downsample.bn", "downsample.1"): tensor[:, :, 0]
        if tensor.ndim == 5
        else tensor
        for name, tensor in network.state_dict().items()
    }
    torch.save(weights, tmp_path / "r18.pth")
    images = torch.randn(3, 3, 32, 40)
    with torch.no_grad():
        logits = network(images[:, :, None]).numpy()

    def convert_with(logits):
        np.savez(tmp_path / "outputs.npz", input=images.numpy(), logits=logits)
        config = tiny.get_config()
        config.model = {"name": "resnet18", **SIZES}
        out = tmp_path / "run"
        return conversion.convert(tmp_path / "r18.pth", "torchvision", config, out, check=tmp_path / "outputs.npz")

    for wrong in (logits + 1e-3 * np.abs(logits).max(), logits[:0]):
        with pytest.raises(UserError, match="outputs.npz: (the logits differ|has logits of shape)"):
            convert_with(wrong)
        assert not (tmp_path / "run").exists()
    assert "is resnet18 of 5 classes" in (report := convert_with(logits))
    assert "classes: 0 to 4; --classes=FILE gives them names" in report
    assert (tmp_path / "run" / "checkpoints" / "0").is_dir()


@pytest.mark.parametrize(
    "data",
    [
        "jump\nrun\nwalk\n",
        "\ufeffjump\r\nrun\r\n\r\nwalk",
        "1 jump\n2 run\n3 walk\n",
        "walk,2\njump,0\nrun,1\n",
        "jump\nrun\nwalk\n".encode("utf-16"),
    ],
)
def test_classes_as_prepare_reads_them(tmp_path, data):
    path = tmp_path / "classes.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    found = conversion._classes(path, tiny.get_config(), 3)
    assert found == (["jump", "run", "walk"], "", f"those of {path}", False)
    with pytest.raises(UserError, match="classes.txt: names 3 classes, the network has 4"):
        conversion._classes(path, tiny.get_config(), 4)


def test_only_a_set_that_the_user_has_named_names_the_classes(data, tmp_path):
    """Recipes have the embedded set by themselves, and eight classes may be any; the order is said to be assumed."""
    config, manifest = tiny.get_config(), Manifest.read(data / "manifest.jsonl")
    assert config.data.manifest == "motions"
    numbers = (list("01234567"), "", "0 to 7; --classes=FILE gives them names", False)
    assert conversion._classes(None, config, 8, ("clip", "test")) == numbers
    config.data.manifest = str(data)
    assert conversion._classes(None, config, 8) == numbers, "such as `data`, which other recipes have"
    names, of, said, several = conversion._classes(None, config, 8, ("data",))
    assert (tuple(names), of, several) == (motions.CLASSES, manifest.hash, False)
    assert said.startswith("left, right, up, … of motions") and "have them in this order is assumed" in said
    *found, said, _ = conversion._classes(None, config, 7, ("data",))
    assert found == [list("0123456"), ""]
    assert said == "0 to 6, as motions has 8 classes and the network 7; --classes=FILE gives them names"
    config.data.manifest = str(tmp_path / "typo")
    said = f"0 to 7, as there is no {tmp_path / 'typo'} here; --classes=FILE gives them names"
    assert conversion._classes(None, config, 8, ("data",))[2] == said, "it may be on another machine"
    (tmp_path / "classes.txt").write_text("\n".join("abcdefgh"))
    assert conversion._classes(tmp_path / "classes.txt", config, 8, ("data",))[0] == list("abcdefgh")


@pytest.mark.parametrize("given", ["data.manifest", "data"])
def test_the_embedded_set_may_be_named(given, data, monkeypatch):
    monkeypatch.setattr(motions, "read", lambda: Manifest.read(data / "manifest.jsonl"))
    assert conversion._classes(None, tiny.get_config(), 8, (given,))[0] == list(motions.CLASSES)


def test_a_set_of_several_labels_says_so_also_where_the_classes_have_names_of_their_own(data, tmp_path):
    """As `convert pytorch-i3d:rgb_charades --classes=FILE`, whose own record says it, too."""
    config, manifest = tiny.get_config(), Manifest.read(data / "manifest.jsonl")
    config.data.manifest = str(tmp_path / "manifest.jsonl")
    videos = tuple(dataclasses.replace(video, label=(video.label,)) for video in manifest.videos)
    dataclasses.replace(manifest, videos=videos).write(tmp_path / "manifest.jsonl")
    (tmp_path / "classes.txt").write_text("\n".join("abcdefgh"))
    assert conversion._classes(tmp_path / "classes.txt", config, 8, ("data",))[::3] == (list("abcdefgh"), True)
    assert public.find("pytorch-i3d:rgb_charades").multilabel and not public.find("pytorch-i3d:rgb_imagenet").multilabel


def test_a_class_that_is_named_twice(tmp_path):
    (tmp_path / "classes.txt").write_text("jump\njump\nwalk\n")
    with pytest.raises(UserError, match="classes.txt:2: the class 'jump' is named twice"):
        conversion._classes(tmp_path / "classes.txt", tiny.get_config(), 3)


def test_what_the_command_line_says_of_clips_stays(theirs, tmp_path):
    """As an argument of the config, or as a flag; the rest is their own test's."""
    config = f"--config={ROOT}/configs/stc.py:model=resnet3d10,recipe=paper,data=none,frames=8"
    flags = ("--config.model.width=0.0625", "--config.clip.stride=4", "--config.test.crop=three")
    finished = run(CONVERT, theirs.folder / "r3d.pth", LAYOUT, config, *flags, f"--out={tmp_path / 'run'}")
    assert finished.code == 0, finished.stderr
    assert "  clip: short_side=112, size=112 as there; frames=8, stride=4 as given\n" in finished.stdout
    assert (
        "  test: clips=nonoverlap, flip=False, average_clips=probability as there; crop=three as given\n"
        in finished.stdout
    )
    shortcut = (*flags, "--config.model.shortcut=A", f"--out={tmp_path / 'other'}")
    finished = run(CONVERT, theirs.folder / "r3d.pth", LAYOUT, config, *shortcut)
    check_user_error(finished, "model.shortcut is 'A', but", "r3d.pth has 'B'")


# Out.


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_came_in_goes_out_to_the_bit(theirs, converted, tmp_path, suffix):
    finished = run(CONVERT, converted, LAYOUT, f"--export={tmp_path / 'out'}{suffix}")
    assert finished.code == 0, finished.stderr
    path = tmp_path / f"out{suffix}"
    assert finished.stdout == f"Wrote {path}: the weights of {converted} after 0 steps, in layout 3d-resnets.\n"
    weights = torch.load(path, weights_only=True) if suffix == ".pth" else safetensors.torch.load_file(path)
    assert weights.keys() == theirs.weights.keys()
    for name, tensor in theirs.weights.items():
        assert (weights[name].dtype, weights[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(weights[name], tensor), name
    build().load_state_dict(weights, strict=True)


def test_a_conversion_that_was_stopped_can_be_done_again(theirs, data, tmp_path):
    """By a kill while it saves, which leaves a folder without a checkpoint."""
    (tmp_path / "run" / "checkpoints" / "0.orbax-checkpoint-tmp-1").mkdir(parents=True)
    arguments = (theirs.folder / "r3d.pth", LAYOUT, CONFIG, f"--out={tmp_path / 'run'}")
    finished = run(CONVERT, *arguments, f"--config.data.manifest={data}", "--config.normalize.mean=(1.0,2.0,3.0)")
    assert finished.code == 0, finished.stderr
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.is_dir()] == ["0"]
    assert "  RGB is normalised by mean 1.0, 2.0, 3.0 and std 58.395, " in finished.stdout, "as the user says"
    check_user_error(run(CONVERT, *arguments), "run already holds a run; choose another --out")


@pytest.mark.parametrize("content", ['{"architecture": "mine", "label2id": {}}', "not JSON"])
def test_a_config_of_others_is_not_written_over(theirs, tmp_path, content):
    """As of a model in a folder of Hugging Face; nor is one of an export."""
    (tmp_path / "config.json").write_text(content)
    config = tiny.get_config()
    with pytest.raises(UserError, match="already holds a config.json that is no run's; choose another --out"):
        conversion.convert(theirs.folder / "r3d.pth", "3d-resnets", config, tmp_path)
    assert (tmp_path / "config.json").read_text() == content and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="gs://bucket/run"):
        conversion.convert(theirs.folder / "r3d.pth", "3d-resnets", config, "gs://bucket/run")


def test_a_full_disk(converted, tmp_path):
    """One message, and nothing of the file."""
    out = tmp_path / "out.pth"
    finished = run(CONVERT, converted, LAYOUT, f"--export={out}", largest_file=50_000)
    check_user_error(finished, f"{out}: cannot be written (", "Make room there")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("largest", [5_000, 20_000])
def test_a_full_disk_for_the_run(theirs, data, tmp_path, largest):
    """One line, where Orbax, TensorStore and asyncio have logged the same error a dozen times."""
    arguments = (theirs.folder / "r3d.pth", LAYOUT, CONFIG, f"--out={tmp_path / 'run'}")
    finished = run(CONVERT, *arguments, f"--config.data.manifest={data}", largest_file=largest)
    check_user_error(finished, f"cannot write a checkpoint into {tmp_path / 'run'}/checkpoints (File too large). ")
    assert finished.stderr.count("\n") == 2, finished.stderr  # with what it runs on


def test_no_file_is_replaced(converted, tmp_path):
    (tmp_path / "theirs.pth").write_bytes(b"months of work")
    with pytest.raises(UserError, match="theirs.pth is there already: choose another --export, or remove it first"):
        conversion.export(load(converted), "3d-resnets", tmp_path / "theirs.pth")
    assert (tmp_path / "theirs.pth").read_bytes() == b"months of work"


def test_out_in_another_layout(converted, tmp_path):
    finished = run(CONVERT, converted, "--layout=i3d", f"--export={tmp_path / 'out.pth'}")
    check_user_error(finished, "layout i3d (", "has no resnet3d18")
    finished = run(CONVERT, converted, "--layout=jax_video", f"--export={tmp_path / 'ours.npz'}")
    assert finished.code == 0, finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["ours.npz"]
    with np.load(tmp_path / "ours.npz") as arrays:
        assert arrays["params/conv1/kernel"].shape == (7, 7, 7, 3, 4)


# Mistakes.


def damaged(theirs, how, path):
    """The user's file, spoilt."""
    weights = dict(theirs.weights)
    if how == "missing":
        del weights["layer1.0.conv2.weight"]
    elif how == "no classifier":
        del weights["fc.weight"], weights["fc.bias"]
    elif how == "extra":
        weights["layer1.0.conv3.weight"] = torch.ones(4, 4, 1, 1, 1)
    elif how == "unknown":
        weights["projection.weight"] = torch.ones(4, 4)
    elif how == "shape":
        weights["layer2.0.conv1.weight"] = torch.ones(8, 4, 3, 3, 1)
    elif how == "2D":
        weights |= {name: tensor[:, :, 0] for name, tensor in weights.items() if tensor.ndim == 5}
    theirs.save(path, weights, **{"code": Payload(path.with_name("pwned"))} if how == "payload" else {})
    if how == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "page":
        path.write_text("<!DOCTYPE html><html>")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("missing", ["1 problem. ", "missing  params/layer1/0/conv2/kernel 3×3×3×4×4, there layer1.0.conv2.weight"]),
        ("no classifier", ["has no classifier"]),
        ("extra", ["1 problem. ", "extra    params/layer1/0/conv3/kernel 1×1×1×4×4"]),
        ("unknown", ["1 problem. ", "extra    projection.weight 4×4"]),
        ("shape", ["1 problem. ", "params/layer2/0/conv1/kernel: found 3×3×1×4×8, expected 3×3×3×4×8"]),
        ("2D", ["not weights in layout 3d-resnets", "layout torchvision has a place for"]),
        ("cut", ["w.pth: damaged or cut short", "fetch it again"]),
        ("payload", ["w.pth: refused, because loading it could run code"]),
        ("page", ["w.pth: not a weight file"]),
    ],
)
def test_files_that_are_not_converted(theirs, tmp_path, how, expected):
    """One message, exit code 2, nothing written, nothing run."""
    damaged(theirs, how, tmp_path / "w.pth")
    finished = run(CONVERT, tmp_path / "w.pth", LAYOUT, CONFIG, f"--out={tmp_path / 'run'}")
    check_user_error(finished, *expected)
    assert finished.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["expected one weight file or run's folder, got none"]),
        (["r3d.pth", "b.pth", LAYOUT, "--out=out"], ["expected one weight file or run's folder, got r3d.pth b.pth"]),
        (["r3d.pth", LAYOUT, CONFIG], ["expected --layout=NAME", "--out=DIR"]),
        (["r3d.pth", "--out=out", CONFIG], ["expected --layout=NAME", "--out=DIR"]),
        (["r3d.pth", LAYOUT, "--out=out"], ["--config is missing"]),
        (["r3d.pth", "--layout=hara", CONFIG, "--out=out"], ["there is no layout 'hara'", "torchvision: ResNet"]),
        (["r3d.pth", LAYOUT, CONFIG, "--out=run"], ["run already holds a run; choose another --out"]),
        (
            ["parallel.pth", LAYOUT, CONFIG, "--out=out"],
            ["parallel.pth does not tell which RGB its network expects", "--normalize=2018: mean 114.7748, "],
        ),
        (["r3d.pth", LAYOUT, CONFIG, "--out=out", "--normalize=2018"], ["--normalize=2018, but r3d.pth is of 2020"]),
        (["r3d.pth", LAYOUT, CONFIG, "--out=out", "--normalize=x"], ["--normalize=x: choose 2018 or 2020"]),
        (
            ["r3d.pth", LAYOUT, CONFIG, "--out=out", "--config.model.stem=table1"],
            ["model.stem is 'table1', but layout 3d-resnets has 'hara'"],
        ),
        (["nosuch.pth", LAYOUT, CONFIG, "--out=out"], ["nosuch.pth: there is no such weight file or run's folder"]),
        (["run", LAYOUT, CONFIG, "--out=out"], ["run is a folder, so a run's"]),
        (
            ["r3d.pth", "--layout=cost", CONFIG, "--out=out"],
            ["resnet3d18 is not a network of layout cost, which has c2d_resnet50", "--config.init_from.path"],
        ),
        (
            ["r3d.pth", LAYOUT, CONFIG, "--out=out", "--config.model.name=resnet3d"],
            ["there is no network 'resnet3d'", "resnet3d18"],
        ),
        (
            ["r3d.pth", LAYOUT, CONFIG, "--out=out", "--check=wrong.npz"],
            ["wrong.npz: the logits differ by 1.0e-03 of the largest, more than 1e-04", "in test mode"],
        ),
        (
            ["r3d.pth", LAYOUT, CONFIG, "--out=out", "--check=three.npz"],
            ["three.npz: has logits of shape (2, 3); ours, for its input, are of (2, 8)"],
        ),
        (
            ["r3d.pth", LAYOUT, CONFIG, "--out=out", "--check=nothing.npz"],
            ["nothing.npz: expected the arrays logits and video or input; it has input"],
        ),
        (["r3d.pth", LAYOUT, CONFIG, "--out=out", "--check=nosuch.npz"], ["nosuch.npz: there is no such file"]),
        (["r3d.pth", LAYOUT, CONFIG, "--out=out", "--classes=nosuch"], ["cannot read nosuch (No such file"]),
        (["r3d.pth", LAYOUT, CONFIG, "--out=out", "--classes=r3d.pth"], ["r3d.pth is no text"]),
        (["run", "--export=out.pth"], ["--layout is missing: one of torchvision, torchvision-video, 3d-resnets"]),
        (["run", LAYOUT, "--export=out.h5"], ["out.h5: expected a name that ends in one of .pth"]),
        (["run", LAYOUT, "--export=r3d.pth"], ["r3d.pth is there already: choose another --export, or remove it"]),
        (["run", "--layout=hara", "--export=out.pth"], ["there is no layout 'hara'"]),
        (["run", LAYOUT, "--export=out.pth", "--check=x.npz"], ["--check: of weights that come in; --export"]),
        (["nosuch", LAYOUT, "--export=out.pth"], ["there is no checkpoint in"]),
        (["r3d.pth", LAYOUT, "--export=out.pth"], ["r3d.pth is a file; expected the folder of a run"]),
    ],
)  # fmt: skip
def test_mistakes(theirs, converted, arguments, expected):
    before = sorted(theirs.folder.rglob("*"))
    check_user_error(run(CONVERT, *arguments, cwd=theirs.folder), *expected)
    assert sorted(theirs.folder.rglob("*")) == before


def test_a_network_that_computes_something_else_is_not_exported(theirs, data, tmp_path):
    """The names would fit, but Hara's code strides its stem otherwise."""
    table1 = ("--config.model.stem=table1", "--config.train.epochs=1", f"--config.data.manifest={data}")
    ours = theirs.folder / "ours"
    run(CONVERT, theirs.folder / "run", "--layout=jax_video", f"--export={tmp_path / 'ours.npz'}")
    np.savez(tmp_path / "ours.npz", **files.read(tmp_path / "ours.npz"))  # without the note that names the stem
    arguments = (tmp_path / "ours.npz", "--layout=jax_video", CONFIG, *table1, f"--out={ours}")
    assert run(CONVERT, *arguments).code == 0
    finished = run(CONVERT, ours, LAYOUT, f"--export={tmp_path / 'out.pth'}")
    check_user_error(finished, "weights in layout 3d-resnets are of networks with stem='hara'", "has stem='table1'")
    assert not (tmp_path / "out.pth").exists()
    shutil.rmtree(ours)


def test_help_names_every_layout():
    finished = run(CONVERT, "--help")
    assert (finished.code, finished.stderr) == (0, "")
    text = " ".join(finished.stdout.split())
    assert ", ".join(names.LAYOUTS) in text and "--check" in text and "--export" in text
