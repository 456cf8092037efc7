"""Where the commands run: what they say of it, and what they do beside a PyTorch or TensorFlow that is broken."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import outlines
import processes
import pytest
import tiny
from commands import TinyRun, run, tiny_run
from conftest import ROOT
from flax import nnx
from ml_collections import ConfigDict

from jax_video import sharding, state
from jax_video.__main__ import COMMANDS
from jax_video.weights import files

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "jax_video").rglob("*.py"))
}
LAYOUT = "--layout=jax_video"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TinyRun:
    return tiny_run(tmp_path_factory.getbasetemp())


def parameters(config: ConfigDict) -> str:
    return f"{outlines.parameters(nnx.eval_shape(lambda: state.network(config, 8))):,} parameters"


HARDWARE_AND_NETWORK = rf"CPU, \d+ cores?; resnet3d18, {parameters(tiny.get_config())}"


def python(code: str, *arguments: str, packages: pathlib.Path | None = None) -> subprocess.CompletedProcess:
    """Runs code in a fresh process, which finds these packages before the installed ones."""
    path = os.pathsep.join(map(str, filter(None, (packages, ROOT))))
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=240,
    )


FRAMEWORKS = ("torch", "tensorflow")
OF_SOME_COMMANDS = ("tensorflow_datasets", "apache_beam")  # of prepare, and of sets that it has packed


def frameworks(folder: pathlib.Path, body: str, names: tuple[str, ...] = FRAMEWORKS) -> pathlib.Path:
    """A folder with packages of these names that note their import in the file `imported`, and do `body` then."""
    for name in names:
        (folder / name).mkdir(parents=True)
        note = f"open({str(folder / 'imported')!r}, 'a').write({name!r})"
        (folder / name / "__init__.py").write_text(f"{note}\n{body}\n")
    return folder


# PyTorch and TensorFlow.


def test_the_library_loads_neither_pytorch_nor_tensorflow(tmp_path):
    """Nor, before they are used, TFDS, Beam and tensorboardX; packing builds on TFDS, and is itself loaded for that."""
    packages = frameworks(tmp_path, "class Tensor: pass")
    code = (
        "import importlib, sys\n"
        "def check(*names):\n"
        "    print(sorted(set(names) & {name.split('.')[0] for name in sys.modules}))\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "check('torch', 'tensorflow', 'tensorflow_datasets', 'apache_beam', 'tensorboardX')\n"
        "import jax_video.data.preparing.packing\n"
        "check('torch', 'tensorflow', 'tensorflow_datasets')\n"
        "import torch; print(torch.Tensor)"
    )
    packing = "jax_video.data.preparing.packing"
    done = python(code, *(name for name in SOURCES if name != packing), packages=packages)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "['tensorflow_datasets']", "<class 'torch.Tensor'>"]


@pytest.mark.parametrize("error", [pytest.param("ImportError", marks=pytest.mark.slow), "OSError"])
def test_help_beside_frameworks_that_are_broken(tmp_path, error):
    broken = f"raise {error}('libcudart.so.13: cannot open shared object file')"
    packages = frameworks(tmp_path, broken, FRAMEWORKS + OF_SOME_COMMANDS)
    code = (
        "import os, runpy, sys\n"
        "import jax_video.scoring, jax_video.train, jax_video.weights.merge  # once for all commands\n"
        "for name in sys.argv[1:]:\n"
        "    if os.fork() == 0:\n"
        "        sys.argv = [name, '--help']\n"
        "        runpy.run_module(name, run_name='__main__', alter_sys=True)\n"
        "    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0, name\n"
    )
    done = python(code, *(f"jax_video.{name}" for name in COMMANDS), packages=packages)
    assert done.returncode == 0, done.stderr
    assert len(re.findall("^  python -m jax_video", done.stdout, re.MULTILINE)) >= len(COMMANDS)


BROKEN_LIBRARY = "raise OSError('libcudart.so.13: cannot open shared object file')"


def test_a_log_beside_frameworks_that_are_broken(tmp_path):
    """What of a run may look for them: its events for TensorBoard."""
    packages = frameworks(tmp_path / "packages", BROKEN_LIBRARY, FRAMEWORKS + OF_SOME_COMMANDS)
    code = (
        "import pathlib, sys\n"
        "import jax_video.workflow\n"
        "from jax_video.runlog import RunLog\n"
        "log = RunLog(pathlib.Path(sys.argv[1]), step=0, validated=0, total=1, batch=1)\n"
        "log.row(1, 'train', loss=1.0, top1=0.5)\n"
        "log.close()\n"
    )
    (tmp_path / "run").mkdir()
    done = python(code, str(tmp_path / "run"), packages=packages)
    assert done.returncode == 0, done.stderr
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()
    assert not (packages / "imported").exists()


@pytest.mark.slow  # the test above, from a run's start to its end
def test_a_run_beside_frameworks_that_are_broken(tmp_path, trained, monkeypatch):
    packages = frameworks(tmp_path / "packages", BROKEN_LIBRARY, FRAMEWORKS + OF_SOME_COMMANDS)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    workdir = tmp_path / "run"
    process = processes.start(workdir, trained.data / "manifest.jsonl", "--config.train.epochs=1")
    assert processes.finish([process]) == [0], processes.output(workdir)
    (events,) = (workdir / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()
    assert not (packages / "imported").exists()


# What a command says of itself.


def device(kind: str, platform: str = "tpu", process: int = 0) -> types.SimpleNamespace:
    return types.SimpleNamespace(device_kind=kind, platform=platform, process_index=process)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([device("TPU v5 lite")] * 8, "8 × TPU v5 lite"),
        ([device("NVIDIA H100 80GB HBM3", "gpu")], "1 × NVIDIA H100 80GB HBM3"),
        ([device("NVIDIA L4", "gpu")] * 2 + [device("Tesla T4", "gpu")], "2 × NVIDIA L4, 1 × Tesla T4"),
        ([device("TPU v4", process=n // 4) for n in range(8)], "8 × TPU v4 in 2 processes"),
        ([device("cpu", "cpu")], "CPU, 3 cores"),
        ([device("cpu", "cpu")] * 8, "CPU, 3 cores as 8 devices"),
        ([device("cpu", "cpu", process=n) for n in range(2)], "CPU, 3 cores in 2 processes"),
    ],
)
def test_devices_in_words(devices, expected, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 4, 5}, raising=False)
    mesh = types.SimpleNamespace(devices=np.array(devices), size=len(devices))
    assert sharding.describe(mesh) == expected


def test_one_core_is_no_plural(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    mesh = types.SimpleNamespace(devices=np.array([device("cpu", "cpu")]), size=1)
    assert sharding.describe(mesh) == "CPU, 1 core"


def said(finished, expected: str) -> None:
    """The line stands once on stderr, and nothing of it on stdout."""
    assert finished.code == 0, finished.stderr
    assert len(re.findall(f"^{expected}$", finished.stderr, re.MULTILINE)) == 1, finished.stderr
    assert " parameters;" not in finished.stdout and "CPU, " not in finished.stdout


def test_training_says_what_it_runs_on(trained):
    said(trained.finished, HARDWARE_AND_NETWORK + "; motions: 16 train, 8 val, 8 test videos; batches of 8")
    said(trained.finished, "Steps 1 to 4, 2 an epoch; compiling the first …")


def test_features_say_the_runs_network(trained, tmp_path):
    """Of videos with other classes, here none, so that the classifier is not as large as the set's would be."""
    videos, out, workdir = trained.data / "test", tmp_path / "set", tmp_path / "run"
    finished = run("jax_video.prepare", "unlabelled", f"--videos={videos}", f"--out={out}", "--workers=1")
    said(finished, "1 process; test: 8 videos")
    shutil.copytree(trained.workdir, workdir)
    arguments = (*trained.arguments, f"--config.data.manifest={out}", f"--workdir={workdir}", "--mode=features")
    said(run("jax_video.main", *arguments), HARDWARE_AND_NETWORK + "; test: 6 train, 1 val, 1 test videos")


def test_predict_says_what_it_runs_on_and_json_stays_json(trained):
    video = trained.data / "test" / "left"
    finished = run("jax_video.predict", video, f"--checkpoint={trained.workdir}", "--json")
    said(finished, HARDWARE_AND_NETWORK + "; 1 video")
    assert [len(json.loads(line)["classes"]) for line in finished.stdout.splitlines()] == [5]


def test_a_teacher_is_named_and_counted():
    config = tiny.get_config("transfer")
    _, params, _ = state.abstract(config, 8)
    assert state.describe(config, params) == f"resnet3d18 taught by resnet18, {parameters(config)}"


@pytest.mark.parametrize("suffix", [pytest.param(".npz", marks=pytest.mark.slow), ".safetensors"])
def test_weights_go_out_and_come_in_without_pytorch(trained, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    said(run("jax_video.convert", trained.workdir, LAYOUT, f"--export={path}"), HARDWARE_AND_NETWORK)
    arguments = (path, LAYOUT, trained.arguments[0], f"--config.data.manifest={trained.data}")
    said(run("jax_video.convert", *arguments, f"--out={tmp_path / 'run'}"), HARDWARE_AND_NETWORK)
    again = run("jax_video.convert", tmp_path / "run", LAYOUT, f"--export={tmp_path / 'again'}{suffix}")
    assert again.code == 0, again.stderr
    found, expected = files.read(tmp_path / f"again{suffix}"), files.read(path)
    assert found.keys() == expected.keys() and len(found) > 20
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


# Warnings.


def warned(body: str) -> str:
    """What a command prints on stderr whose main is `body`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    done = python(f"from jax_video import command\ndef main(arguments):\n{lines}\ncommand.run(main)")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("search", "found", "what"),
    [
        ("has_visible_nvidia_gpu", True, "An NVIDIA GPU"),
        ("num_available_tpu_chips_and_device_id", (4, "0x0063"), "A Google TPU"),
    ],
)
def test_jax_may_warn_of_hardware_that_it_does_not_use(search, found, what):
    """Which it looks for itself, when it starts; here it finds some."""
    fake = f"from jax._src import hardware_utils\nhardware_utils.{search} = lambda: {found!r}"
    shown = warned(f"{fake}\nimport jax\njax.devices()")
    assert re.search(f"{what} may be present on this machine, but .* Falling back to cpu", shown.replace("\n", " "))


def test_all_warnings_of_jax_are_shown_and_no_chatter():
    shown = warned(
        "import logging\n"
        "from absl import logging as absl\n"  # by which Orbax and Grain speak
        "absl.info('absl'), absl.warning('absl'), absl.error('absl is in need')\n"
        "for name in ('jax._src.any', 'jaxlib', 'orbax', 'grain'):\n"
        "    for level in ('INFO', 'WARNING'):\n"
        "        logging.getLogger(name).log(getattr(logging, level), f'{name} says {level}')\n"
    )
    said = [line.partition("] ")[2] for line in shown.splitlines()]
    assert said == ["absl is in need", "jax._src.any says WARNING", "jaxlib says WARNING"]
