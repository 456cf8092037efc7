"""What small networks of every family learn of the embedded data set `motions`, all with the same training budget.

    python benchmarks/motions.py --out=runs/motions-comparison
    python benchmarks/motions.py --out=runs/motions-comparison --networks="cost_a;cost_b" --seeds=0
    python benchmarks/motions.py --out=runs/motions-comparison --seeds=0 --dtype=bfloat16

No single frame tells a class from its reverse: a network that only pools over time stays near 50 % within a pair, which
is the share of test videos whose true class scores higher than its reverse. Networks are narrow and shallow; but for
the model section and the learning rate, with which all of them train, the config is that of `configs/stc.py`. A run
that is done is not repeated.
"""

import json
import pathlib
import statistics
import sys

from absl import app, flags
from tqdm import tqdm

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from configs import stc  # noqa: E402
from jax_video import state  # noqa: E402
from jax_video.data.sources import motions  # noqa: E402
from jax_video.workflow import train_and_test  # noqa: E402

UNITS = {"width": 0.25, "layers": (1, 1, 1, 1)}
COST = {"width": 0.25, "layers": (1, 1, 1, 1), "pool": "code", "dropout": 0.0}
DENSE = {"width": 0.375, "layers": (1, 1, 1, 1)}
NETWORKS = {
    "c2d, pool code": {"name": "c2d_resnet50", **COST},
    "c2d, pool paper": {"name": "c2d_resnet50", **COST, "pool": "paper"},
    "c3d_3x1x1": {"name": "c3d_3x1x1_resnet50", **COST},
    "c3d_3x3x3": {"name": "c3d_3x3x3_resnet50", **COST},
    "cost_a": {"name": "cost_a_resnet50", **COST},
    "cost_b": {"name": "cost_b_resnet50", **COST},
    "densenet3d": {"name": "densenet3d121", **DENSE},
    "t3d": {"name": "t3d121", **DENSE},
    "stc_resnet": {"name": "stc_resnet18", "frames": 16, **UNITS},
    "inception3d": {"name": "inception3d", "width": 0.25, "layers": (1, 1, 1)},
}
REVERSE = {
    **{"left": "right", "up": "down", "clockwise": "counterclockwise", "growing": "shrinking"},
    **{"right": "left", "down": "up", "counterclockwise": "clockwise", "shrinking": "growing"},
}

NAMES = flags.DEFINE_string("networks", ";".join(NETWORKS), "Which, separated by semicolons.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "A run for each.")
EPOCHS = flags.DEFINE_integer("epochs", 15, "Of 320 videos each, for every network.", lower_bound=1)
RATE = flags.DEFINE_float("learning_rate", 0.02, "Of every network; a half cosine after an epoch of warm-up.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What the networks compute in.")
OUT = flags.DEFINE_string("out", None, "Folder of the runs.", required=True)


def within_pair(workdir, classes):
    """Share of the test videos whose true class scores higher than the same motion backwards."""
    lines = [json.loads(line) for line in (workdir / "predictions.jsonl").read_text().splitlines()]
    better = [
        line["scores"][classes.index(line["label"])] > line["scores"][classes.index(REVERSE[line["label"]])]
        for line in lines
    ]
    return statistics.mean(better)


def config_of(name, seed=0):
    """The recipe of configs/stc.py with another network."""
    config = stc.get_config(f"epochs={EPOCHS.value}")
    config.seed, config.dtype = seed, DTYPE.value
    config.train.validate_epochs = EPOCHS.value
    config.schedule.learning_rate = RATE.value
    if "pool" in NETWORKS[name]:  # CoST and its baselines take 8 frames, of the same stretch of time
        config.clip.update(frames=8, stride=2)
    del config.model
    config.model = NETWORKS[name]
    return config


def run(name, seed, manifest):
    """(top-1, accuracy within a pair) of the run's best checkpoint on the test videos."""
    config = config_of(name, seed)
    workdir = (
        pathlib.Path(OUT.value)
        / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}-epochs{EPOCHS.value}-lr{RATE.value}-{DTYPE.value}"
    )
    result, _ = train_and_test(config, manifest, workdir)
    return result["top1"], within_pair(workdir, manifest.classes)


def main(_):
    names = NAMES.value.split(";")
    if unknown := sorted(set(names) - set(NETWORKS)):
        raise app.UsageError(f"unknown networks {'; '.join(unknown)}; choose from {'; '.join(NETWORKS)}")
    manifest = motions.read()
    rows = []
    for name in names:
        results = [run(name, int(seed), manifest) for seed in tqdm(SEEDS.value, name)]
        top1, pair = ([f"{100 * value:.1f}" for value in values] for values in zip(*results, strict=True))
        _, params, _ = state.abstract(config_of(name), len(manifest.classes))
        count = sum(leaf.size for leaf in state.named_leaves(params).values())
        rows.append(f"| {name} | {count:,} | {', '.join(top1)} | {', '.join(pair)} |")
        print(rows[-1], flush=True)
    print("\n| network | parameters | top-1, % | within a pair, % |\n|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    app.run(main)
