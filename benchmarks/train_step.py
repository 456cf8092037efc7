"""The time of a train step and of inference, ours against PyTorch, side by side in one process.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --networks=resnet3d18,quickstart --repeats=20

A train step is forward with BatchNorm in training mode, softmax cross-entropy, backward and an SGD Nesterov update
with weight decay; inference is the test-mode forward. PyTorch runs `tests/reference/resnet.py` with the same weights,
and the logits of both are compared before anything is timed. Times are medians of interleaved repetitions.

On a CPU both compute in float32 on all cores. On a GPU ours computes in bfloat16, and PyTorch under bfloat16 autocast
with channels last, eagerly and compiled; `--batch` gives it enough work, and the table ends with the train step's peak
memory.
"""

import dataclasses
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both frameworks share one GPU

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import torch  # noqa: E402
from absl import app, flags  # noqa: E402
from flax import nnx  # noqa: E402

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from reference import parameters  # noqa: E402
from reference import resnet as reference  # noqa: E402

from jax_video import losses, models, optimizer  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Case:
    model: str
    options: dict = dataclasses.field(default_factory=dict)
    batch: int = 2
    frames: int = 16
    size: int = 64
    num_classes: int = 400


CASES = {
    "resnet3d18": Case("resnet3d18"),
    "resnet3d50": Case("resnet3d50"),
    "resnet3d101": Case("resnet3d101"),
    "resnext3d101": Case("resnext3d101"),
    "stc_resnet101": Case("stc_resnet101", {"frames": 16}),
    # What configs/stc.py trains on the embedded data set when it is given nothing else.
    "quickstart": Case("stc_resnet18", {"width": 0.25, "frames": 16}, batch=16, size=56, num_classes=8),
}
LEARNING_RATE = 1e-3

NETWORKS = flags.DEFINE_list("networks", list(CASES), f"Which to time, of {', '.join(CASES)}.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Timed repetitions of each; the median is printed.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", None, "Clips in a batch, in place of the networks' own.", lower_bound=1)


class Ours:
    """Our network: compiled train step, with the state donated, and compiled inference."""

    def __init__(self, case, network, video, label, dtype):
        model = nnx.eval_shape(
            lambda: models.build(
                case.model, num_classes=case.num_classes, rngs=nnx.Rngs(0), dtype=dtype, **case.options
            )
        )
        definition = nnx.graphdef(model)
        tx = optimizer.sgd(LEARNING_RATE)

        def loss(params, batch_stats, video, label):
            model = nnx.merge(definition, params, batch_stats)
            loss = jnp.mean(losses.softmax_cross_entropy(model(video), label))
            return loss, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

        def train_step(state, video, label):
            params, batch_stats, opt_state = state
            grads, batch_stats = jax.grad(loss, has_aux=True)(params, batch_stats, video, label)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), batch_stats, opt_state

        def inference(params, batch_stats, video):
            return nnx.view(nnx.merge(definition, params, batch_stats), use_running_average=True)(video)

        self.batch = jax.device_put((video, label))
        params, batch_stats = jax.device_put((parameters.parameters(network), parameters.batch_stats(network)))
        self.state = (params, batch_stats, tx.init(params))
        start = time.perf_counter()
        self.compiled_train = jax.jit(train_step, donate_argnums=0).lower(self.state, *self.batch).compile()
        self.compiled_inference = jax.jit(inference).lower(params, batch_stats, self.batch[0]).compile()
        self.compile_seconds = time.perf_counter() - start

    def train(self):
        self.state = jax.block_until_ready(self.compiled_train(self.state, *self.batch))

    def inference(self):
        return jax.block_until_ready(self.compiled_inference(*self.state[:2], self.batch[0]))

    def peak_bytes(self):
        memory = self.compiled_train.memory_analysis()
        arguments_and_results = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        return arguments_and_results + memory.temp_size_in_bytes


class PyTorch:
    """The reference network: eager, or with `torch.compile`; on a GPU in bfloat16 autocast, channels last."""

    def __init__(self, network, video, label, *, compiled=False):
        self.device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        memory_format = torch.channels_last_3d if self.device == "cuda" else torch.contiguous_format
        self.network = network.to(self.device, memory_format=memory_format)
        video = torch.from_numpy(np.ascontiguousarray(np.moveaxis(video, -1, 1)))  # [B, C, T, H, W]
        self.video = video.to(self.device, memory_format=memory_format)
        self.label = torch.from_numpy(label).long().to(self.device)
        self.forward = torch.compile(self.network) if compiled else self.network
        self.tx = torch.optim.SGD(
            self.network.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=1e-4
        )

    def logits(self):
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            return self.forward(self.video)

    def train(self):
        self.network.train()
        self.tx.zero_grad()
        torch.nn.functional.cross_entropy(self.logits().float(), self.label).backward()
        self.tx.step()
        self.wait()

    def inference(self):
        self.network.eval()
        with torch.no_grad():
            logits = self.logits()
        self.wait()
        return logits.float().cpu().numpy()

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak_bytes(self):
        torch.cuda.reset_peak_memory_stats()
        self.train()
        return torch.cuda.max_memory_allocated()


def median_milliseconds(contestants, repeats):
    """{name: function} -> {name: median time in ms}; the functions take turns after two calls to warm up."""
    times = {name: [] for name in contestants}
    for repeat in range(repeats + 2):
        for name, function in contestants.items():
            time.sleep(0.02)  # the other framework's threads stop spinning
            start = time.perf_counter()
            function()
            if repeat >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(name, case, on_gpu):
    """One row of the table as a list of strings."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    batch = BATCH.value or case.batch
    video = rng.normal(size=(batch, case.frames, case.size, case.size, 3)).astype(np.float32)
    label = rng.integers(case.num_classes, size=batch).astype(np.int32)
    network = reference.build(case.model, case.num_classes, **case.options)
    with torch.no_grad():  # running moments other than 0 and 1
        network(torch.from_numpy(np.ascontiguousarray(np.moveaxis(video[:2], -1, 1))))

    ours = Ours(case, network, video, label, jnp.bfloat16 if on_gpu else jnp.float32)
    torches = {"torch": PyTorch(network, video, label)}
    if on_gpu:
        torches["torch.compile"] = PyTorch(network, video, label, compiled=True)
    for other in torches.values():
        theirs = other.inference()
        error = np.max(np.abs(np.asarray(ours.inference(), np.float32) - theirs)) / np.max(np.abs(theirs))
        tolerance = 5e-2 if on_gpu else 1e-4
        assert error <= tolerance, f"{name}: the logits differ by {error:.1e} of the largest, expected {tolerance:.0e}"

    contestants = {"ours": ours, **torches}
    train = median_milliseconds({key: value.train for key, value in contestants.items()}, REPEATS.value)
    inference = median_milliseconds({key: value.inference for key, value in contestants.items()}, REPEATS.value)
    row = [name, f"{batch}×{case.frames}×{case.size}×{case.size}", f"{sum(p.numel() for p in network.parameters()):,}"]
    for times in (train, inference):
        row += [f"{times[key]:.0f}" for key in contestants]
        row += [f"{times['ours'] / times[key]:.2f}" for key in torches]
    row.append(f"{ours.compile_seconds:.0f}")
    if on_gpu:
        row += [f"{value.peak_bytes() / 2**30:.2f}" for value in contestants.values()]
    return row


def main(_):
    if unknown := sorted(set(NETWORKS.value) - set(CASES)):
        raise app.UsageError(f"unknown networks {', '.join(unknown)}; choose from {', '.join(CASES)}")
    torch.set_num_threads(os.cpu_count())
    on_gpu = jax.default_backend() == "gpu"
    torches = ["torch", "torch.compile"] if on_gpu else ["torch"]
    columns = ["network", "input", "parameters"]
    for kind in ("train", "inference"):
        columns += [f"{kind} ours, ms"] + [f"{kind} {other}, ms" for other in torches]
        columns += [f"{kind} ours / {other}" for other in torches]
    columns.append("compile, s")
    if on_gpu:
        columns += [f"peak {key}, GiB" for key in ("ours", *torches)]

    device = jax.devices()[0].device_kind if on_gpu else f"{os.cpu_count()} CPU cores"
    print(f"jax {jax.__version__}, torch {torch.__version__}, {device}, median of {REPEATS.value}\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in NETWORKS.value:
        print(f"| {' | '.join(measure(name, CASES[name], on_gpu))} |", flush=True)


if __name__ == "__main__":
    app.run(main)
