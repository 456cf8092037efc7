"""The time of a train step and of inference, ours against PyTorch, side by side in one process.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --networks="resnet3d18;quickstart" --repeats=20

`contestants.py` says what is computed. The outputs of both are compared before anything is timed. Times are medians of
interleaved repetitions.

On a CPU both compute in float32 on all cores, and PyTorch's inference is also timed with every BatchNorm folded that
follows a convolution layer: all of a ResNet, half of a DenseNet, all but those behind the views of a CoST. On a GPU
ours computes in bfloat16, and PyTorch under bfloat16 autocast with channels last, eagerly and compiled; `--batch` gives
it enough work, and the table ends with the train step's peak memory. `gpu.sh` measures more of a GPU, in
minutes.
"""

import dataclasses
import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both frameworks share one GPU

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from absl import app, flags  # noqa: E402
from contestants import CASES, Ours, PyTorch, drawn, fold_norm, median_milliseconds  # noqa: E402

NETWORKS = flags.DEFINE_string("networks", ";".join(CASES), "Which to time, separated by semicolons.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Timed repetitions of each; the median is printed.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", None, "Clips in a batch, in place of the networks' own.", lower_bound=1)


def measure(name, case, on_gpu):
    """One row of the table as a list of strings."""
    network, videos, label = drawn(case)
    ours = Ours(case, network, videos, label, jnp.bfloat16 if on_gpu else jnp.float32)
    torches = {"torch": PyTorch(network, videos, label)}
    if on_gpu:
        torches["torch.compile"] = PyTorch(network, videos, label, backend="inductor")
    folded = {} if on_gpu else {"torch folded": PyTorch(fold_norm(network, videos), videos, label)}
    for other in (torches | folded).values():
        for mine, theirs in zip(jax.tree.leaves(ours.inference()), other.inference(), strict=True):
            error = np.max(np.abs(np.asarray(mine, np.float32) - theirs)) / np.max(np.abs(theirs))
            tolerance = 5e-2 if on_gpu else 1e-4
            assert error <= tolerance, f"{name}: the logits differ by {error:.1e} of the largest, not {tolerance:.0e}"

    contestants = {"ours": ours, **torches}
    train = median_milliseconds({key: value.train for key, value in contestants.items()}, REPEATS.value)
    inferring = {key: value.inference for key, value in (contestants | folded).items()}
    inference = median_milliseconds(inferring, REPEATS.value)
    row = [
        name,
        f"{case.batch}×{case.frames}×{case.size}×{case.size}",
        f"{sum(p.numel() for p in network.parameters()):,}",
    ]
    for times in (train, inference):
        row += [f"{milliseconds:.0f}" for milliseconds in times.values()]
        row += [f"{times['ours'] / milliseconds:.2f}" for key, milliseconds in times.items() if key != "ours"]
    row.append(f"{ours.compile_seconds:.0f}")
    if on_gpu:
        row += [f"{value.peak_bytes() / 2**30:.2f}" for value in contestants.values()]
    return row


def main(_):
    names = NETWORKS.value.split(";")
    if unknown := sorted(set(names) - set(CASES)):
        raise app.UsageError(f"unknown networks {'; '.join(unknown)}; choose from {'; '.join(CASES)}")
    torch.set_num_threads(os.cpu_count())
    on_gpu = jax.default_backend() == "gpu"
    torches = ["torch", "torch.compile"] if on_gpu else ["torch"]
    columns = ["network", "input", "parameters"]
    for kind in ("train", "inference"):
        others = torches if kind == "train" or on_gpu else [*torches, "torch folded"]
        columns += [f"{kind} ours, ms"] + [f"{kind} {other}, ms" for other in others]
        columns += [f"{kind} ours / {other}" for other in others]
    columns.append("compile, s")
    if on_gpu:
        columns += [f"peak {key}, GiB" for key in ("ours", *torches)]

    device = jax.devices()[0].device_kind if on_gpu else f"{os.cpu_count()} CPU cores"
    print(f"jax {jax.__version__}, torch {torch.__version__}, {device}, median of {REPEATS.value}\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in names:
        case = dataclasses.replace(CASES[name], batch=BATCH.value or CASES[name].batch)
        print(f"| {' | '.join(measure(name, case, on_gpu))} |", flush=True)


if __name__ == "__main__":
    app.run(main)
