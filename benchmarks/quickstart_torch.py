"""Does the quickstart learn as an independent PyTorch network does? The same clips, several seeds, on the CPU.

    python benchmarks/quickstart_torch.py --out=runs/quickstart-torch
    python benchmarks/quickstart_torch.py --out=runs/first-steps --steps=20 --seeds=0
    python benchmarks/quickstart_torch.py --out=runs/first-steps --steps=20 --seeds=0 --dtype=float64

For every seed the recipe of configs/stc.py is trained and tested as its command does, and the network of
tests/reference/resnet.py by torch's autograd and SGD: once from our initial weights at our learning rates, once from
its own at those of torch's schedulers. Batches are those of our pipeline. A run that is done is not repeated, one that
was stopped goes on. The tables are for RESULTS.md. From equal weights the losses differ by rounding, which training
amplifies: that it is nothing else, float64 shows.
"""

import contextlib
import math
import pathlib
import statistics
import sys

import jax
import numpy as np
import torch
from absl import app, flags, logging
from gpu_results import table
from tqdm import tqdm

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from reference import parameters, resnet  # noqa: E402

from configs import stc  # noqa: E402
from jax_video import beginning, optimizer, state  # noqa: E402
from jax_video import run as run_lib  # noqa: E402
from jax_video.data import documents, pipeline  # noqa: E402
from jax_video.data.sources import motions  # noqa: E402
from jax_video.task import Task  # noqa: E402
from jax_video.testing import results  # noqa: E402
from jax_video.train import train  # noqa: E402

OURS, SAME, OWN = "ours", "PyTorch from our weights", "PyTorch from its own"
WINDOW = 20  # steps that a row of the table tells the means of: an epoch of `motions`
SHOWN = (1, 2, 3, 5, 10, 15, 20)  # steps

OUT = flags.DEFINE_string("out", None, "Folder of the runs.", required=True)
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Three runs for each.")
STEPS = flags.DEFINE_integer("steps", None, "Of every run; by default the recipe's.", lower_bound=1)
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float64"], "What all networks compute in.")


def config_of(seed):
    """The quickstart's, which tells of every step and is tested as its last step leaves it."""
    config = stc.get_config()
    config.seed, config.dtype, config.train.steps = seed, DTYPE.value, STEPS.value
    config.train.update(log_steps=1, checkpoint_steps=WINDOW, validate_epochs=config.train.epochs)
    return config


def ours(config, manifest, folder):
    """({"loss", "top1", "learning_rate"} of every step, share of the test videos that are told right)."""
    train(config, manifest, folder)
    run = run_lib.load(folder)
    result = results.read_result(run, manifest) or results.test(run, manifest)
    rows = [row for _, row in documents.read_lines(folder / "metrics.jsonl")]
    return [row for row in rows if row["split"] == "train"], result["top1"]


def theirs(config, manifest, folder, weights=None, rates=None):
    """The same of the PyTorch network, from our weights at our learning rates, or from its own at its scheduler's."""
    torch.manual_seed(config.seed)
    epoch = round(len(manifest.select("train")) / config.train.batch)
    steps = config.train.steps or config.train.epochs * epoch
    options = {key: value for key, value in config.model.items() if key not in ("name", "remat")}
    network = resnet.build(config.model.name, len(manifest.classes), **options).to(getattr(torch, config.dtype))
    if weights is not None:
        parameters.load(network, *weights)
    assert config.schedule.kind == "cosine" and config.optimizer.decay_norm  # what follows is all that it asks for
    settings = {key: config.optimizer[key] for key in ("momentum", "nesterov", "weight_decay")}
    sgd = torch.optim.SGD(network.parameters(), lr=config.schedule.learning_rate, **settings)
    warmup = round(config.schedule.warmup_epochs * epoch)
    rise = torch.optim.lr_scheduler.LinearLR(sgd, 1 / (warmup + 1), total_iters=warmup)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, max(1, steps - warmup))
    schedule = torch.optim.lr_scheduler.SequentialLR(sgd, [rise, fall], [warmup])

    parts, rows, file = (network, sgd, schedule), [], folder / "torch.pt"
    if file.exists():
        rows, test, *states = torch.load(file)
        for part, saved in zip(parts, states, strict=True):
            part.load_state_dict(saved)
        if test is not None:
            return rows, test
    folder.mkdir(parents=True, exist_ok=True)

    def save(test=None):
        torch.save((rows, test, *(part.state_dict() for part in parts)), file.with_suffix(".partial"))
        file.with_suffix(".partial").replace(file)

    order = {"batch": config.train.batch, "seed": config.seed, "first_step": len(rows)}
    with contextlib.closing(pipeline.train_batches(manifest, Task.of(config).sampling, **order)) as batches:
        for _ in tqdm(range(len(rows), steps), folder.name, leave=False, disable=None):
            batch = next(batches)
            label = torch.from_numpy(batch["label"]).long()
            scores = network.train()(video(config, batch))
            loss = torch.nn.functional.cross_entropy(scores, label)
            right = (scores.argmax(1) == label).double().mean()
            rows.append({"loss": loss.item(), "top1": right.item(), "learning_rate": schedule.get_last_lr()[0]})
            if rates is not None:
                sgd.param_groups[0]["lr"] = rates[len(rows) - 1]
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            schedule.step()
            if len(rows) % WINDOW == 0:
                save()
    test = tested(network, config, manifest)
    save(test)
    return rows, test


def video(config, batch):
    """A batch's clips as the PyTorch network takes them: normalised, [B, 3, T, H, W]."""
    mean, std = (torch.tensor(config.normalize[name]) for name in ("mean", "std"))
    rgb = (torch.from_numpy(batch["rgb"]) - mean) * (1 / std)  # to the bit what XLA makes of a division by a constant
    return rgb.to(getattr(torch, config.dtype)).movedim(-1, 1).contiguous()


@torch.no_grad()
def tested(network, config, manifest):
    """Share of the test videos whose class is the most probable in the mean over the clips of the recipe's test."""
    task = Task.of(config)
    clips = pipeline.cropped_clips(manifest, "test", task.sampling, task.protocol)
    sums = torch.zeros(len(manifest.videos), len(manifest.classes), dtype=torch.float64)
    with contextlib.closing(pipeline.test_batches(manifest, task.sampling, clips, batch=config.test.batch)) as batches:
        for batch in batches:
            probabilities = network.eval()(video(config, batch)).double().softmax(1)
            counted = probabilities * torch.from_numpy(batch["mask"])[:, None]
            sums.index_add_(0, torch.from_numpy(batch["video"]).long(), counted)
    return statistics.mean(int(sums[index].argmax()) == entry.label for index, entry in manifest.select("test"))


def compare(configs, manifest, out):
    """{name: [(rows, test) of every config]} of ours and of both PyTorch networks."""
    found = {OURS: [], SAME: [], OWN: []}
    for config in configs:
        # Compiled, as training does it: other programs may round what they draw otherwise.
        weights = jax.jit(lambda config=config: state.split(state.network(config, len(manifest.classes)))[1:])()
        epoch, steps = beginning.steps_per_epoch(config, manifest), beginning.total_steps(config, manifest)
        rate = jax.jit(optimizer.schedule(**config.schedule, steps=steps, steps_per_epoch=epoch))
        rates = [float(rate(np.int32(step))) for step in range(steps)]  # float32, also of networks in float64
        folder = pathlib.Path(out, f"seed{config.seed}-{config.dtype}-steps{config.train.steps or 'all'}")
        found[OURS].append(ours(config, manifest, folder / "ours"))
        found[SAME].append(theirs(config, manifest, folder / "same-weights", weights, rates))
        found[OWN].append(theirs(config, manifest, folder / "own-weights"))
    return found


def first_steps(found):
    """The table of losses from equal weights, of the first seed, with the largest difference of all seeds."""
    pairs = zip(*([rows for rows, _ in found[name]] for name in (OURS, SAME)), strict=True)
    seeds = [[(a["loss"], b["loss"]) for a, b in zip(*pair, strict=True)] for pair in pairs]
    rows = [
        [step, *(f"{loss:.10f}" for loss in losses[0]), f"{max(abs(a / b - 1) for a, b in losses):.1e}"]
        for step, losses in enumerate(zip(*seeds, strict=True), 1)
        if step in SHOWN
    ]
    return table(["step", "loss, ours", f"loss, {SAME}", "relative difference, the largest of all seeds"], rows)


def curves(found):
    """(the table of learning curves, in how many windows our range and PyTorch's own meet, of how many)."""
    windows = {
        (metric, name): [
            [statistics.mean(row[metric] for row in rows[start : start + WINDOW]) for rows, _ in found[name]]
            for start in range(0, len(found[name][0][0]), WINDOW)
        ]
        for metric in ("loss", "top1")
        for name in found
    }
    rows = [
        [f"{number * WINDOW + 1} to {(number + 1) * WINDOW}", *map(spread, each)]
        for number, each in enumerate(zip(*windows.values(), strict=True))
    ]
    rows.append(["test", *[""] * len(found), *(spread([test for _, test in found[name]]) for name in found)])
    pairs = [pair for key in ("loss", "top1") for pair in zip(windows[key, OURS], windows[key, OWN], strict=True)]
    meet = sum(max(map(min, pair)) <= min(map(max, pair)) for pair in pairs)
    return table(["steps", *map(", ".join, windows)], rows), meet, len(pairs)


def spread(values):
    """Mean and range over the seeds."""
    return f"{statistics.mean(values):.4f} [{min(values):.4f}, {max(values):.4f}]"


def main(_):
    logging.set_verbosity(logging.ERROR)  # Orbax tells of every file
    jax.config.update("jax_enable_x64", DTYPE.value == "float64")
    found = compare([config_of(int(seed)) for seed in SEEDS.value], motions.read(), OUT.value)
    lines, meet, of = curves(found)
    print(*first_steps(found), "", *lines, sep="\n")
    equals = 1 - 2 / math.comb(2 * len(SEEDS.value), len(SEEDS.value))
    print(f"\nThe ranges over seeds, ours and PyTorch's from its own weights, meet in {meet} of {of} windows;")
    print(f"of curves that differ by their seeds alone, {equals:.0%} of the windows are expected to.")


if __name__ == "__main__":
    app.run(main)
