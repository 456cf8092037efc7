"""What the views of CoST(b) count, before and after training on motion, and after training on videos that stand still.

    python benchmarks/cost_views.py --out=runs/cost-views

The still videos are those of `motions` with their first frame repeated: the classes cannot be told from them, and time
tells T-W and T-H nothing. A run that is done is not repeated.
"""

import dataclasses
import pathlib
import sys

import numpy as np
from absl import app, flags
from tqdm import tqdm

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from configs import cost  # noqa: E402
from jax_video import recipe, sharding, state  # noqa: E402
from jax_video.data.decoding import video  # noqa: E402
from jax_video.data.sources import motions  # noqa: E402
from jax_video.meta import Meta  # noqa: E402
from jax_video.run import Run, load  # noqa: E402
from jax_video.testing import coefficients  # noqa: E402
from jax_video.train import train  # noqa: E402

OUT = flags.DEFINE_string("out", None, "Folder of the runs.", required=True)
EPOCHS = flags.DEFINE_integer("epochs", 15, "Of 320 videos each.", lower_bound=1)


def config_of():
    """CoST(b) as in configs/cost.py, but narrow, and trained for so many epochs."""
    config = cost.get_config("model=cost_b_resnet50,data=motions,span=16,recipe=code")
    config.update(recipe.SMALL)
    config.model.update(layers=(2, 2, 2, 2), dropout=0.0)
    config.clip.jitter = ()
    config.norm.group_size = None
    config.optimizer.clip_norm = 0.0
    config.train.epochs = config.train.validate_epochs = EPOCHS.value
    config.schedule.learning_rate = 0.02
    return config


def stand_still(manifest, folder):
    """The same videos, each with its first frame repeated."""
    for entry in tqdm(manifest.videos, "videos that stand still"):
        path = folder / entry.path
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            frame = video.decode(pathlib.Path(manifest.root, entry.path), [0])
            motions.encode(path, np.repeat(frame, entry.frames, axis=0))
    return dataclasses.replace(manifest, name="still", root=str(folder.absolute()))


def main(_):
    out, config = pathlib.Path(OUT.value), config_of()
    moving = motions.read()
    still = stand_still(moving, out / "videos")
    rows = {
        "at initialisation": coefficients.measure(untrained(config), moving, "val"),
    }
    for name, manifest in {"motions": moving, "still": still}.items():
        train(config, manifest, out / name)
        result = coefficients.analyse(load(out / name, config=config), manifest)
        rows[f"trained on {name}"] = result
        print(coefficients.report(result, out / name))
    print("\n| CoST(b) | H-W | T-W | T-H | T-W + T-H |\n|---|---|---|---|---|")
    for name, row in rows.items():
        alpha = list(row["overall"].values())
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in [*alpha, sum(alpha[1:])]) + " |")


def untrained(config):
    definition, params, batch_stats = state.split(state.network(config, len(motions.CLASSES)))
    weights = {"params": params, "batch_stats": batch_stats}
    return Run("", config, Meta(config.to_dict(), motions.CLASSES), 0, definition, weights, sharding.make_mesh())


if __name__ == "__main__":
    app.run(main)
