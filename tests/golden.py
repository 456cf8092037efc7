"""Whether a change of the code has changed what the code does: the golden run.

    python tests/golden.py record FOLDER      # by the code before the change
    python tests/golden.py compare FOLDER     # by the code after it; exit code 1, and names, where anything differs

It trains the tiny runs listed below, of every family and objective, and uses the library only through its command
lines and the files it writes, so that it works on both sides of a change however large. Compared to the bit: the
arrays of the last checkpoint, metrics.jsonl without times, the results and scores of the test, features, predictions,
the analysis of CoST's views, fusion and averages of runs, exported weights. One run is killed and started again.
`compare` also goes on with the killed run of the older code, and tests, predicts and extracts features with one that
it finished.

The configs are complete and in the spelling of keys of the version that this script was written for: later versions
have to read them as old runs and old recipes. It is a recipe itself, `--config=tests/golden.py:NAME`.

Numbers are the same to the bit on one machine with one set of packages only; `compare` says where those differ.
"""

import argparse
import concurrent.futures
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict


def merged(*configs: dict) -> dict:
    """Sections of sections, of which the later ones count."""
    result = {}
    for config in configs:
        for section, value in config.items():
            result[section] = {**result.get(section, {}), **value} if isinstance(value, dict) else value
    return result


ROOT = pathlib.Path(__file__).resolve().parents[1]
VIDEOS = {"train": 2, "val": 1, "test": 1}  # of each of the eight classes
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")
PACKAGES += ("opencv-contrib-python-headless",)
# One device and one thread, so that nothing depends on what else runs; compiled in seconds.
XLA_FLAGS = "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false"
XLA_FLAGS += " --xla_backend_optimization_level=0"

TINY = {"width": 1 / 16, "layers": (1, 1, 1, 1)}
# Every key that this version knows; the runs below say what is different in them.
BASE = {
    "seed": 0,
    "dtype": "float32",
    "model": {},
    "init_from": {
        "path": "",
        "layout": "",
        "into": "",
        "expects": "",
        "inflate": "",
        "new_head": False,
        "keep_head": False,
        "skip": (),
    },
    "norm": {"group_size": None, "frozen": False},
    "data": {"manifest": "", "workers": 0, "fraction": 1.0},
    "normalize": {"mean": (123.675, 116.28, 103.53), "deviation": (58.395, 57.12, 57.375)},
    "clip": {
        "frames": 4,
        "stride": 2,
        "short_side": 36,
        "size": 32,
        "crop": "corners",
        "flip": True,
        "jitter": (),
        "segments": 0,
        "streams": ("rgb",),
        "strides": (),
        "flow_method": "tvl1",
    },
    "train": {
        "batch": 8,
        "accumulate": 1,
        "epochs": 3,
        "steps": 0,
        "ema": 0.0,
        "validate_epochs": 2,
        "checkpoint_steps": 4,
        "log_steps": 1,
        "loss_reduction": "sum",
    },
    "optimizer": {
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "decay_norm": True,
        "clip_norm": 0.0,
        "head_rate": 1.0,
    },
    "schedule": {
        "kind": "cosine",
        "learning_rate": 0.01,
        "warmup_epochs": 1,
        "drop_epochs": (),
        "drop_steps": (),
        "drop_factor": 0.1,
    },
    "plateau": {"patience": 10, "threshold": 1e-3, "drops": 3},
    "test": {
        "clips": "nonoverlap",
        "number": 10,
        "crop": "center",
        "flip": False,
        "average": "probability",
        "batch": 8,
        "allow_partial": False,
    },
}
# Two streams, by configs/st_resnet.py.
STREAMS = {
    "model": TINY | {"stride_on": "3x3", "layers": (2, 1, 1, 1)},
    "clip": {"frames": 1, "short_side": 32, "crop": "random", "flow_method": "dis"},
    "norm": {"group_size": 4},
    "optimizer": {"nesterov": False, "weight_decay": 5e-4, "decay_norm": False},
    "test": {"clips": "spread", "number": 5, "crop": "full", "flip": True, "average": "logit", "batch": 4},
}
BOTH = {"streams": ("rgb", "flow"), "frames": 5, "stride": 2, "strides": (1, 3)}
RUNS = {
    "resnet3d": {"model": TINY | {"name": "resnet3d18"}, "train": {"ema": 0.9}},
    "resnext3d": {
        "model": TINY | {"name": "resnext3d101", "shortcut": "A", "preactivation": True},
        "optimizer": {"clip_norm": 1.0, "head_rate": 10.0},
    },
    "stc": {
        "model": TINY | {"name": "stc_resnet18", "frames": 8, "branches": "both"},
        "clip": {"frames": 8, "crop": "random"},
    },
    "densenet3d": {
        "model": TINY | {"name": "densenet3d121"},
        "dtype": "bfloat16",
        "clip": {"frames": 16, "stride": 1},
        "schedule": {"kind": "step", "drop_steps": (2, 4)},
    },
    "t3d": {
        "model": TINY | {"name": "t3d121"},
        "clip": {"frames": 16},
        "schedule": {"kind": "step", "drop_epochs": (1, 2), "drop_factor": 0.5, "warmup_epochs": 0},
    },
    "t3d_consensus": {
        "model": TINY | {"name": "t3d121", "consensus": True},
        "clip": {"frames": 16, "stride": 1, "segments": 2},
        "test": {"clips": "segments"},
    },
    "c2d": {
        "model": TINY | {"name": "c2d_resnet50", "frames": 8, "pool": "paper", "dropout": 0.5},
        "clip": {"frames": 8, "jitter": (34, 40), "crop": "random"},
        "test": {"clips": "uniform", "number": 2, "crop": "three"},
    },
    "cost_a": {
        "model": TINY | {"name": "cost_a_resnet50", "frames": 8, "pool": "code"},
        "clip": {"frames": 8},
        "test": {"clips": "uniform", "number": 1, "crop": "full"},
    },
    "cost_b": {
        "model": TINY | {"name": "cost_b_resnet50", "frames": 8, "share_weights": False},
        "clip": {"frames": 8},
        "test": {"clips": "uniform", "number": 1},
    },
    "c3d": {"model": {"name": "c3d", "width": 1 / 16, "frames": 4, "size": 32}},
    "inception3d": {
        "model": TINY | {"name": "inception3d", "layers": (1, 1, 1), "dropout": 0.5},
        "clip": {"frames": 8},
    },
    "resnet2d": {"model": TINY | {"name": "resnet18"}, "train": {"steps": 5}},
    "fine_tuned": {  # from resnet3d
        "model": TINY | {"name": "resnet3d18"},
        "init_from": {"new_head": True},
        "norm": {"frozen": True},
        "optimizer": {"head_rate": 10.0},
        "data": {"fraction": 0.5},
    },
    "transfer": {  # of resnet2d
        "model": TINY | {"name": "resnet3d18"},
        "teacher": TINY | {"name": "resnet18"},
        "init_from": {"into": "teacher", "new_head": True},
        "test": {"clips": "uniform", "number": 1},
    },
    "micro_batches": {
        "model": TINY | {"name": "resnet3d18"},
        "norm": {"group_size": 2},
        "train": {"accumulate": 2, "ema": 0.9, "validate_epochs": 1, "epochs": 4},
        "schedule": {"kind": "plateau", "warmup_epochs": 0},
        "plateau": {"patience": 1, "threshold": 0.5, "drops": 3},
        "test": {"flip": True},
    },
    "motion": merged(STREAMS, {"model": {"name": "motion_stream"}, "clip": {"streams": ("flow",)}}),
    "appearance": merged(STREAMS, {"model": {"name": "appearance_stream"}, "clip": {"crop": "sizes"}}),
    "joint": merged(  # from appearance and motion
        STREAMS,
        {
            "model": {"name": "st_resnet"},
            "clip": BOTH,
            "init_from": {
                "into": "appearance,motion",
                "expects": "appearance_stream,motion_stream",
                "inflate": "mean",
            },
        },
    ),
    "star": merged(  # from joint
        STREAMS,
        {
            "model": {"name": "st_resnet_star"},
            "clip": BOTH | {"frames": 11, "stride": 1},
            "init_from": {"expects": "st_resnet"},
            "train": {"accumulate": 2, "loss_reduction": "mean"},
        },
    ),
    "killed": {
        "model": TINY | {"name": "resnet3d10"},
        "clip": {"flip": False},  # which tells left from right
        "data": {"manifest": "motions", "workers": 2, "fraction": 0.1},
        "train": {"epochs": 20, "validate_epochs": 10, "checkpoint_steps": 5, "ema": 0.9},
        "test": {"clips": "uniform", "number": 1, "batch": 16},
    },
}
STARTS = {  # runs that others start from
    "fine_tuned": ("resnet3d",),
    "transfer": ("resnet2d",),
    "joint": ("appearance", "motion"),
    "star": ("joint",),
}


def get_config(name: str) -> ConfigDict:
    """The recipe of a run."""
    return ConfigDict(merged(BASE, RUNS[name]))


class Failed(Exception):
    """A command that did not do what it should; the message is what it said."""


class Runs:
    """The runs in one folder, by the code of this working tree.

    Args:
      folder: for the runs.
      shared: where the videos, the data set and what JAX has compiled are: the folder of the record.
    """

    def __init__(self, folder: pathlib.Path, shared: pathlib.Path):
        self.folder, self.shared = folder, shared

    def __getitem__(self, name: str) -> pathlib.Path:
        return self.folder / name

    def command(self, name: str, *arguments: str | pathlib.Path) -> str:
        """`python -m jax_video.NAME ARGUMENTS`; returns what it prints."""
        process = self._start(name, *arguments)
        output, errors = process.communicate()
        if process.returncode:
            raise Failed(f"{' '.join(process.args)}\nended with {process.returncode}:\n{errors}")
        return output

    def _start(self, name: str, *arguments: str | pathlib.Path) -> subprocess.Popen:
        environment = os.environ | {
            "XLA_FLAGS": XLA_FLAGS,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.shared / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_VIDEO_CACHE": str(self.shared / "cache"),
        }
        return subprocess.Popen(
            [sys.executable, "-m", f"jax_video.{name}", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def make_data(self) -> None:
        """A few of the embedded videos as files in folders, and the data set that prepare makes of them."""
        self.command("prepare", "motions", f"--out={self.shared / 'motions'}")  # the first use renders them
        for split, count in VIDEOS.items():
            for path in self.shared.glob(f"cache/motions*/{split}/*/*.mp4"):
                if int(path.stem.rpartition("_")[2]) < count:
                    target = self.shared / "videos" / split / path.parent.name / path.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)
        self.command("prepare", "folder", f"--videos={self.shared / 'videos'}", f"--out={self.shared / 'data'}")

    def arguments(self, name: str, workdir: pathlib.Path | None = None) -> list[str]:
        """Of jax_video.main."""
        given = [f"--config={__file__}:{name}", f"--workdir={workdir or self[name]}"]
        if name != "killed":
            given.append(f"--config.data.manifest={self.shared / 'data'}")
        if name in STARTS:
            given.append(f"--config.init_from.path={','.join(str(self[start]) for start in STARTS[name])}")
        return given

    def train(self, name: str) -> dict[str, Any]:
        """From the start to the test; one of them by way of a kill -9, which leaves a copy of its folder then."""
        if name == "killed":
            process = self._start("main", *self.arguments(name))
            while not list(self[name].glob("checkpoints/[12]?")):  # of 80 steps
                if process.poll() is not None:
                    raise Failed(f"{name} ended before it was killed:\n{process.stderr.read()}")
                time.sleep(0.001)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if (self[name] / "test.json").exists():
                raise Failed(f"{name} was killed too late")
            shutil.copytree(self[name], self["left by the kill"])
        self.command("main", *self.arguments(name))
        return outcome(self[name])

    def test(self, name: str) -> dict[str, Any]:
        """A finished run, again."""
        (self[name] / "test.json").unlink()
        self.command("main", *self.arguments(name), "--mode=test")
        return outcome(self[name])

    def go_on(self, name: str) -> dict[str, Any]:
        self.command("main", *self.arguments("killed", self[name]))
        return outcome(self[name])

    def views(self, name: str) -> dict[str, Any]:
        self.command("main", *self.arguments(name), "--mode=views")
        return json.loads((self[name] / "views.json").read_text())

    def features(self, name: str) -> dict[str, Any]:
        self.command("main", *self.arguments(name), "--mode=features")
        return digests(np.load(self[name] / "features.npz"))

    def predict(self, name: str) -> dict[str, Any]:
        videos = sorted(self.shared.glob("videos/test/*/*.mp4"))[:2]
        printed = self.command("predict", *videos, f"--checkpoint={self[name]}", "--json", "--top=8")
        rows = map(json.loads, printed.splitlines())
        return {pathlib.Path(row["video"]).name: {one["name"]: one["score"] for one in row["classes"]} for row in rows}

    def fuse(self, *names: str) -> dict[str, Any]:
        out = self["fused"]
        self.command("fuse", *(self[name] for name in names), f"--out={out}")
        return {"test": scores_of_test(out), "predictions": predictions(out)}

    def average(self, *names: str) -> dict[str, Any]:
        out = self["average.json"]
        self.command("average", *(self[name] for name in names), f"--out={out}")
        return {key: value for key, value in json.loads(out.read_text()).items() if key != "runs"}

    def convert(self, name: str) -> dict[str, Any]:
        """Out into a file for PyTorch, and in again."""
        file, back = self[f"{name}.npz"], self[f"{name} again"]
        self.command("convert", self[name], f"--export={file}", "--layout=3d-resnets")
        config, data = f"--config={__file__}:{name}", f"--config.data.manifest={self.shared / 'data'}"
        self.command("convert", file, "--layout=3d-resnets", config, data, f"--out={back}")
        return {"file": digests(np.load(file)), "arrays": arrays(back)}


# What else is done with runs: {name: (method of Runs, names of runs)}.
USES = {
    "views of cost_b": (Runs.views, ["cost_b"]),
    "features of stc": (Runs.features, ["stc"]),
    "features of joint": (Runs.features, ["joint"]),
    "features of transfer": (Runs.features, ["transfer"]),
    "prediction by stc": (Runs.predict, ["stc"]),
    "prediction by joint": (Runs.predict, ["joint"]),
    "fusion": (Runs.fuse, ["appearance", "motion"]),
    "average": (Runs.average, ["resnet3d", "resnext3d"]),
    "conversion of resnet3d": (Runs.convert, ["resnet3d"]),
}


# What a later version does with folders that this one has left: the same, {name: (method, run, whose results)}.
OLDER = {
    "the older killed run, gone on with": (Runs.go_on, "left by the kill", "killed"),
    "the older stc, tested": (Runs.test, "stc", "stc"),
    "features of the older stc": (Runs.features, "stc", "features of stc"),
    "prediction by the older stc": (Runs.predict, "stc", "prediction by stc"),
    "the older joint, tested": (Runs.test, "joint", "joint"),
}


def all_results(runs: Runs, names: Sequence[str] = ()) -> dict[str, Any]:
    """{name: what came of it} of all runs and uses, or of these and what they need; two at a time."""
    needs = {name: STARTS.get(name, ()) for name in RUNS} | {name: needed for name, (_, needed) in USES.items()}
    wanted = set(names or needs)
    for name in reversed(needs):
        wanted |= set(needs[name]) if name in wanted else set()
    running: dict[str, concurrent.futures.Future] = {}

    def work(name: str) -> dict[str, Any]:
        concurrent.futures.wait([running[needed] for needed in needs[name]])  # submitted before, so they do run
        return (
            attempt(name, Runs.train, runs, name) if name in RUNS else attempt(name, USES[name][0], runs, *needs[name])
        )

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name in filter(wanted.__contains__, needs):
            running[name] = pool.submit(work, name)
        return {name: future.result() for name, future in running.items()}


def attempt(name: str, use: Callable[..., dict[str, Any]], runs: Runs, *names: str) -> dict[str, Any]:
    """What it returns, or {"failed": why}; says what it was and how long it took."""
    begun = time.monotonic()
    try:
        result = use(runs, *names)
    except (Failed, OSError, KeyError, ValueError) as error:
        result = {"failed": f"{type(error).__name__}: {error}"}
    print(f"{'FAILED ' if 'failed' in result else ''}{name}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return result


def outcome(folder: pathlib.Path) -> dict[str, Any]:
    """What a run's folder holds after its test, without times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("examples_per_second", None)
    return {
        "arrays": arrays(folder),
        "metrics": {f"{row['split']} {row['step']}": row for row in rows},
        "test": scores_of_test(folder),
        "predictions": predictions(folder),
    }


def arrays(folder: pathlib.Path) -> dict[str, str]:
    """Of the last checkpoint: {"network/params/conv1/kernel": digest, …}."""
    step = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    found = {"step": str(step)}
    for item in ("network", "ema", "training"):
        path = folder / "checkpoints" / str(step) / item
        if path.exists():
            with ocp.PyTreeCheckpointer() as checkpointer:
                tree = checkpointer.metadata(path).item_metadata.tree
                plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
                tree = checkpointer.restore(path, restore_args=plain)
            leaves = jax.tree_util.tree_leaves_with_path(tree)
            named = {jax.tree_util.keystr(name, simple=True, separator="/"): leaf for name, leaf in leaves}
            found |= {f"{item}/{name}": digest for name, digest in digests(named).items()}
    return found


def scores_of_test(folder: pathlib.Path) -> dict[str, Any]:
    """The numbers in test.json; not what it says of the config."""
    result = json.loads((folder / "test.json").read_text())
    return {key: value for key, value in result.items() if isinstance(value, int | float) or key == "class_accuracy"}


def predictions(folder: pathlib.Path) -> dict[str, Any]:
    """{video: scores of the classes}; a run of knowledge transfer has none."""
    path = folder / "predictions.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["video"]: row["scores"] for row in map(json.loads, lines)}


def digests(named: Mapping[str, np.ndarray]) -> dict[str, str]:
    """{name: "float32 (4, 3) sha256"}."""
    return {
        name: f"{array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"
        for name, array in ((name, np.asarray(named[name])) for name in named)
    }


def machine() -> dict[str, str]:
    """What numbers depend on, besides the code."""
    processor = pathlib.Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    lines = dict(re.findall(r"^(model name|flags)\s*: (.*)$", processor, re.MULTILINE))
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "cpus": str(os.cpu_count()), **lines, **versions}


def differences(found: Any, expected: Any, name: str = "") -> Iterator[str]:
    """The names of what differs, with the values where they are short."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in expected | found:
            if key not in found or key not in expected:
                yield f"{name}/{key}: only {'before' if key in expected else 'now'}"
            else:
                yield from differences(found[key], expected[key], f"{name}/{key}" if name else key)
    elif found != expected:
        yield f"{name}: {expected} before, {found} now" if len(f"{expected}{found}") < 200 else f"{name} differs"


def record(folder: pathlib.Path) -> int:
    folder.mkdir(parents=True)
    runs = Runs(folder / "runs", folder)
    runs.make_data()
    results = all_results(runs)
    failed = [f"{name}: {result['failed']}" for name, result in results.items() if "failed" in result]
    if failed:
        print("\n".join(failed))
        return 1
    written = {"machine": machine(), "results": results}
    (folder / "golden.json").write_text(json.dumps(written, indent=1))
    print(f"{len(results)} results, {sum(len(result) for result in results.values())} parts, in {folder}/golden.json")
    return 0


def compare(folder: pathlib.Path, names: Sequence[str]) -> int:
    golden = json.loads((folder / "golden.json").read_text())
    for name, value in machine().items():
        if value != golden["machine"].get(name):
            print(f"another machine: {name} is {value}, it was {golden['machine'].get(name)}")
    temporary = pathlib.Path(tempfile.mkdtemp(prefix="golden-"))
    found = all_results(Runs(temporary / "new", folder), names)
    expected = {name: golden["results"][name] for name in found}
    if not names:
        older = Runs(temporary / "older", folder)
        for name in {name for _, name, _ in OLDER.values()}:
            shutil.copytree(folder / "runs" / name, older[name])
        for name, (use, argument, same) in OLDER.items():
            found[name], expected[name] = attempt(name, use, older, argument), golden["results"][same]
    different = list(differences(json.loads(json.dumps(found)), expected))
    print("\n".join(different))
    if different:
        print(f"{len({line.partition('/')[0] for line in different})} of {len(found)} results differ: see {temporary}")
        return 1
    shutil.rmtree(temporary)
    print(f"{len(found)} results are the same to the bit")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["record", "compare"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help=f"compare these only: {', '.join([*RUNS, *USES])}", metavar="NAME")
    given = parser.parse_args()
    logging.set_verbosity(logging.ERROR)  # of orbax, which warns of what it does not need
    folder = given.folder.resolve()
    return record(folder) if given.mode == "record" else compare(folder, given.names)


if __name__ == "__main__":
    sys.exit(main())
