"""STC's ablation at a small size: branches, frames and stride, on a prepared set, with several seeds.

    python benchmarks/ablation.py --data=data/weizmann --out=runs/ablation

Networks are narrow, with one unit in every stage, and batches are of 8; but for that the config is `recipe=small` of
configs/stc.py. A run that is done is not repeated.
"""

import pathlib
import statistics
import sys

from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from configs import stc  # noqa: E402
from jax_video.data.manifest import Manifest  # noqa: E402
from jax_video.workflow import train_and_test  # noqa: E402

STRINGS = {
    "no STC": "model=resnet3d18,frames=16,stride=2",
    "TCB": "frames=16,stride=2,branches=tcb",
    "SCB": "frames=16,stride=2,branches=scb",
    "both": "frames=16,stride=2",
    "both, 8 frames": "frames=8,stride=2",
    "both, stride 1": "frames=16,stride=1",
    "both, stride 4": "frames=16,stride=4",
}

DATA = flags.DEFINE_string("data", None, "Folder of a prepared set.", required=True)
OUT = flags.DEFINE_string("out", None, "Folder of the runs.", required=True)
EPOCHS = flags.DEFINE_integer("epochs", 48, "Of every run.", lower_bound=1)
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of every row.", lower_bound=2)


def main(_):
    manifest = Manifest.read(pathlib.Path(DATA.value, "manifest.jsonl"))
    print("| | video top-1, % | single clips, % | seeds |\n|---|---|---|---|")
    for name, string in STRINGS.items():
        results = []
        for seed in range(SEEDS.value):
            config = stc.get_config(f"recipe=small,data={DATA.value},epochs={EPOCHS.value},{string}")
            config.seed = seed
            config.model.layers = (1, 1, 1, 1)
            config.train.update(batch=8, validate_epochs=EPOCHS.value, log_steps=100)
            config.schedule.learning_rate = 0.05
            workdir = pathlib.Path(OUT.value, f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}")
            results.append(train_and_test(config, manifest, workdir)[0])
        cells = []
        for key in ("top1", "clip_top1"):
            values = [100 * result[key] for result in results]
            cells.append(f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}")
        seeds = ", ".join(f"{100 * result['top1']:.1f}" for result in results)
        print(f"| {name} | {' | '.join(cells)} | {seeds} |", flush=True)


if __name__ == "__main__":
    app.run(main)
