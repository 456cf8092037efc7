"""Knowledge transfer at a small size: pairs told right on held-out videos, and what it is worth with few labels.

    python benchmarks/transfer.py --out=runs/transfer
    python benchmarks/transfer.py --out=runs/transfer-weizmann --data=data/weizmann

A narrow STC-ResNet learns from a frozen 2D ResNet-18 of random weights (or of `--teacher`, a run's folder) which frames
and clips belong together, on videos whose labels are not read: 1,600 of the embedded data set `motions`, or the set in
`--data`. Then it is trained on a tenth of the labels, five times with other seeds, and as often from scratch. A run
that is done is not repeated.
"""

import pathlib
import statistics
import sys

from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from configs import stc, transfer  # noqa: E402
from jax_video.data.sources import motions, prepared  # noqa: E402
from jax_video.workflow import train_and_test  # noqa: E402

OUT = flags.DEFINE_string("out", None, "Folder of the runs.", required=True)
DATA = flags.DEFINE_string("data", None, "Folder of a prepared set with labels; by default motions.")
TEACHER = flags.DEFINE_string("teacher", None, "Folder of a run of a 2D network, to be the teacher.")
STEPS = flags.DEFINE_integer("steps", 2000, "Of the transfer.", lower_bound=1)
CLIPS = flags.DEFINE_integer("clips", 1, "Of each video in a batch of the transfer.", lower_bound=1)
TUNING_STEPS = flags.DEFINE_integer("tuning_steps", 100, "On a tenth of the labels.", lower_bound=1)
SEEDS = flags.DEFINE_integer("seeds", 5, "Runs on a tenth of the labels.", lower_bound=2)
RATE = flags.DEFINE_float("learning_rate", 0.05, "Of the transfer; a half cosine.")
TUNING_RATE = flags.DEFINE_float("tuning_rate", 0.02, "On a tenth of the labels, from the transfer and from scratch.")

LAYERS = (1, 1, 1, 1)


def narrow(config, steps):
    """Short clips, few units, no mirror image (motions tell left from right), and so many steps."""
    config.model.layers = LAYERS
    config.clip.update(stride=2, flip=False)
    config.train.update(steps=steps, validate_epochs=max(1, steps // 4), log_steps=max(1, steps // 20))
    return config


def result_of(config, manifest, name):
    """What the test of a run gives, trained and tested where that is not done."""
    workdir = pathlib.Path(OUT.value, name)
    result, _ = train_and_test(config, manifest, workdir)
    return result


def main(_):
    labelled = prepared.read(DATA.value or "motions")
    unlabelled = motions.read(train=1600) if DATA.value is None else labelled

    weights = f",weights={TEACHER.value}" if TEACHER.value else ""
    argument = f"recipe=small,data=x,model=stc_resnet18,teacher=resnet18,frames=8,clips={CLIPS.value}{weights}"
    config = narrow(transfer.get_config(argument), STEPS.value)
    config.teacher.layers = LAYERS
    config.schedule.learning_rate = RATE.value
    pairs = result_of(config, unlabelled, "transfer")
    shown = ", ".join(f"{key} {100 * pairs[key]:.1f} %" for key in pairs if key.endswith("_accuracy"))
    print(f"{pairs['videos']} held-out videos: {shown}")

    few = labelled.keep(0.1)
    print(f"{len(few.select('train'))} labelled videos, {TUNING_STEPS.value} steps")
    for name, start in {"from the transfer": f",start={OUT.value}/transfer", "from scratch": ""}.items():
        found = []
        for seed in range(SEEDS.value):
            config = stc.get_config(f"recipe=small,data=x,model=stc_resnet18,frames=8{start}")
            config = narrow(config, TUNING_STEPS.value)
            config.seed = seed
            config.optimizer.head_rate = 1.0
            config.schedule.learning_rate = TUNING_RATE.value
            found.append(result_of(config, few, f"{name.replace(' ', '-')}-seed{seed}")["top1"])
        accuracies = ", ".join(f"{100 * value:.1f}" for value in found)
        mean, std = statistics.mean(found), statistics.stdev(found)
        print(f"{name}: {100 * mean:.1f} ± {100 * std:.1f} % (of {accuracies})", flush=True)


if __name__ == "__main__":
    app.run(main)
