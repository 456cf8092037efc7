"""What fine-tuning is worth on a small set, and each ingredient of its recipe.

    python benchmarks/finetune.py --data=data/ut --weights=thin_resnet50.npz --out=runs/finetune-ut --ablation \\
        --keywords=width=.5,stem_width=64,stride_on=1x1

trains on a prepared set: from scratch (the small recipe of stc.py, 40 epochs), from weights for pictures as papers do
(SGD, everything trained, BatchNorm over the batch, dropout), and by configs/finetune.py; with --ablation also by the
latter without each of its ingredients. A row is the mean over the seeds, and Wilson's 95 % interval for as many test
videos as the set has. A run that is done is not repeated.
"""

import pathlib
import statistics
import sys

from absl import app, flags
from ml_collections import ConfigDict

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from configs import finetune, stc  # noqa: E402
from jax_video import compilation_cache  # noqa: E402
from jax_video import run as run_lib  # noqa: E402
from jax_video.data.sources import prepared  # noqa: E402
from jax_video.reporting.classes import wilson  # noqa: E402
from jax_video.testing import results  # noqa: E402
from jax_video.train import train  # noqa: E402

DATA = flags.DEFINE_string("data", None, "Folder of a prepared set.", required=True)
WEIGHTS = flags.DEFINE_string("weights", "torchvision:resnet50", "A network for pictures in torchvision's layout.")
MODEL = flags.DEFINE_string("model", "c2d_resnet50", "The network for videos that starts from it.")
KEYWORDS = flags.DEFINE_list("keywords", [], "Of that network, as in width=.5,stem_width=64.")
OUT = flags.DEFINE_string("out", None, "Folder of the runs.", required=True)
SIZE = flags.DEFINE_integer("size", 112, "Of the crop, in pixels.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each row.", lower_bound=2)
EPOCHS = flags.DEFINE_integer("epochs", 20, "Of all but those from scratch.", lower_bound=1)
ABLATION = flags.DEFINE_bool("ablation", False, "Also without each ingredient.")
ROWS = flags.DEFINE_list("rows", None, "Only those rows whose names hold one of these.")


def recipe() -> ConfigDict:
    """The recipe's config for these weights."""
    text = f"weights={WEIGHTS.value},layout=torchvision,model={MODEL.value},data={DATA.value},size={SIZE.value}"
    config = finetune.get_config(f"{text},epochs={EPOCHS.value}")
    config.data.workers = 0  # the sets are packed and small: decoding costs less than processes
    for word in KEYWORDS.value:
        key, _, value = word.partition("=")
        config.model[key] = float(value) if "." in value else int(value) if value.isdecimal() else value
    return config


def from_scratch() -> ConfigDict:
    return stc.get_config(f"recipe=small,data={DATA.value},frames=16,stride=3,epochs=40")


def plainly() -> ConfigDict:
    config = with_hard_labels(without_freezing(with_sgd(recipe())))
    config.model.dropout = 0.5
    return config


def with_sgd(config: ConfigDict) -> ConfigDict:
    """SGD at the rate that serves best here; the classifier's of AdamW would be too large."""
    config.optimizer.update(kind="sgd", nesterov=True, weight_decay=1e-4, head_rate=1.0)
    config.schedule.learning_rate = 1e-3
    return config


def without_freezing(config: ConfigDict) -> ConfigDict:
    config.train.freeze, config.norm.frozen = None, False
    return config


def with_one_rate(config: ConfigDict) -> ConfigDict:
    config.optimizer.head_rate = 1.0
    return config


def with_hard_labels(config: ConfigDict) -> ConfigDict:
    config.train.label_smoothing = 0.0
    return config


STARTS = {
    "from scratch": from_scratch,
    "from weights, as papers do": plainly,
    "configs/finetune.py": recipe,
}
WITHOUT = {
    "SGD in place of AdamW": lambda: with_sgd(recipe()),
    "nothing frozen": lambda: without_freezing(recipe()),
    "one rate": lambda: with_one_rate(recipe()),
    "hard labels": lambda: with_hard_labels(recipe()),
}


def accuracy(make, name: str, seed: int) -> tuple[float, int]:
    """(top-1, test videos) of a run, trained and tested where that is not done."""
    config, manifest = make(), prepared.read(DATA.value)
    config.seed = seed
    folder = pathlib.Path(OUT.value, f"{name.replace(' ', '-').replace('/', '-')}-seed{seed}")
    train(config, manifest, folder)
    run = run_lib.load(folder, config=config)
    result = results.read_result(run, manifest) or results.test(run, manifest)
    return result["top1"], result["videos"]


def main(_):
    compilation_cache.enable_compilation_cache()
    for name, make in (STARTS | (WITHOUT if ABLATION.value else {})).items():
        if ROWS.value and not any(word in name for word in ROWS.value):
            continue
        found, videos = zip(*(accuracy(make, name, seed) for seed in range(SEEDS.value)), strict=True)
        mean, deviation = statistics.mean(found), statistics.stdev(found)
        low, high = wilson(mean * videos[0], videos[0])
        each = ", ".join(f"{100 * value:.1f}" for value in found)
        interval = f"[{100 * low:.0f}, {100 * high:.0f}]"
        print(f"{name:28} {100 * mean:5.1f} ± {100 * deviation:.1f} %  {interval}  ({each})", flush=True)


if __name__ == "__main__":
    app.run(main)
