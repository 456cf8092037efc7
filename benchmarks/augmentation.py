"""What augmentation costs: the train step with and without, each ingredient, and the loader with classes balanced.

    python benchmarks/augmentation.py
    python benchmarks/augmentation.py --manifest=data/ut/manifest.jsonl  # of video files, for the loader

Steps are those of a quarter-width STC-ResNet-18 on 16 clips of 16 frames of 112². Times are medians of interleaved
repetitions, and every step draws anew.
"""

import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from jax_video import models, objectives, optimizer, sharding  # noqa: E402
from jax_video import state as state_lib  # noqa: E402
from jax_video import train as train_lib  # noqa: E402
from jax_video.augmentation import Augmentation  # noqa: E402
from jax_video.data import pipeline  # noqa: E402
from jax_video.data.manifest import Manifest  # noqa: E402
from jax_video.mixing import Mixing  # noqa: E402

MANIFEST = flags.DEFINE_string("manifest", None, "Videos whose training clips are loaded; none: only steps are timed.")
STEPS = flags.DEFINE_list("steps", ["none", "all"], "Which steps to time whole: none, all.")
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed steps of each kind.", lower_bound=1)
CLIPS = flags.DEFINE_integer("clips", 64, "Clips in a turn of the loader, of three.", lower_bound=16)

FRAMES, SIZE, BATCH, CLASSES = 16, 112, 16, 8
JITTER, DRAWN = (0.4, 0.4, 0.4, 0.1), (2, 9)
WEIGHTS = tuple(np.linspace(0.5, 1.5, CLASSES).tolist())
AUGMENTATIONS = {
    "color_jitter": Augmentation(JITTER),
    "rand_augment": Augmentation(rand_augment=DRAWN),
    "erasing": Augmentation(erasing=0.5),
    "all three": Augmentation(JITTER, DRAWN, 0.5),
}
KINDS = {  # of steps: (what is done to clips, what is learnt)
    "none": (Augmentation(), objectives.Classification()),
    "all": (
        AUGMENTATIONS["all three"],
        objectives.Classification(smoothing=0.1, mixing=Mixing(0.2, 1.0), class_weights=WEIGHTS),
    ),
}


class Steps:
    """Train steps of one kind, one after the other."""

    def __init__(self, augmentation: Augmentation, objective: objectives.Objective):
        mesh, tx = sharding.make_mesh(), optimizer.make(1e-2)
        network = models.build("stc_resnet18", num_classes=CLASSES, frames=FRAMES, width=0.25, rngs=models.Keys(0))
        rng = np.random.default_rng(0)
        batch = {
            "rgb": rng.integers(0, 256, (BATCH, FRAMES, SIZE, SIZE, 3), dtype=np.uint8),
            "label": np.arange(BATCH, dtype=np.int32) % CLASSES,
            "video": np.arange(BATCH, dtype=np.int32),
            "mask": np.ones(BATCH, np.float32),
            "failed": np.zeros(BATCH, np.int32),
        }
        self.batch = sharding.place_batch(batch, mesh)
        self._key = jax.random.key(0)
        self._state = sharding.place_state(state_lib.create(network, tx), mesh)
        options = {"objective": objective, "augmentation": augmentation}
        step = train_lib.make_train_step(state_lib.split(network)[0], tx, mesh, **options)
        start = time.perf_counter()
        self._step = step.lower(self._state, self.batch, self._key).compile()
        self.compile_seconds = time.perf_counter() - start

    def seconds(self) -> float:
        """The time of one more step."""
        start = time.perf_counter()
        self._state, sums = self._step(self._state, self.batch, self._key)
        assert jnp.isfinite(sums["loss"])
        return time.perf_counter() - start


class Alone:
    """An augmentation of the same clips by itself."""

    def __init__(self, augmentation: Augmentation, batch: dict[str, jax.Array]):
        self._clips, self._draws = {"rgb": batch["rgb"]}, 0
        change = sharding.by_rows(augmentation, sharding.make_mesh())
        start = time.perf_counter()
        self._change = jax.jit(change).lower(self._clips, jax.random.split(jax.random.key(0), BATCH)).compile()
        self.compile_seconds = time.perf_counter() - start

    def seconds(self) -> float:
        """The time of changing them once more."""
        self._draws += 1
        keys = jax.block_until_ready(jax.random.split(jax.random.key(self._draws), BATCH))
        start = time.perf_counter()
        jax.block_until_ready(self._change(self._clips, keys))
        return time.perf_counter() - start


def time_steps() -> None:
    """Print a row for each kind of step, and for each augmentation by itself."""
    timed = {f"step, {name}": Steps(*KINDS[name]) for name in STEPS.value}
    first = next(iter(timed.values()))
    timed |= {f"{name}, by itself": Alone(change, first.batch) for name, change in AUGMENTATIONS.items()}
    for each in timed.values():
        each.seconds()
    times = {name: [] for name in timed}
    for _ in range(REPEATS.value):
        for name, each in timed.items():
            times[name].append(each.seconds())
    plain = statistics.median(next(iter(times.values())))
    print("| | ms | of the first | compilation, s |\n|---|---|---|---|")
    for name, found in times.items():
        middle = statistics.median(found)
        print(f"| {name} | {middle * 1e3:.0f} | {middle / plain:.3f} | {timed[name].compile_seconds:.1f} |")


def time_loader(manifest: Manifest) -> None:
    """Print clips per second of training batches, in the order of all videos and with classes balanced."""
    sampling = pipeline.Sampling(FRAMES, 2, 122, SIZE)
    rates: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(3):
        for balanced in rates:
            start = time.perf_counter()
            options = {"batch": BATCH, "seed": turn, "balanced": balanced}
            batches = pipeline.train_batches(manifest, sampling, **options)
            for _ in range(CLIPS.value // BATCH):
                next(batches)
            batches.close()
            rates[balanced].append(CLIPS.value // BATCH * BATCH / (time.perf_counter() - start))
    plain, balanced = (statistics.median(found) for found in rates.values())
    print(f"clips/s of {manifest.name}: {plain:.1f}, balanced {balanced:.1f}, {balanced / plain:.2f} of it")


def main(_):
    if MANIFEST.value:
        time_loader(Manifest.read(MANIFEST.value))
    time_steps()


if __name__ == "__main__":
    app.run(main)
