"""The time of a train step and of inference, ours against PyTorch, side by side in one process.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --networks="resnet3d18;quickstart" --repeats=20

A train step is forward with BatchNorm in training mode, softmax cross-entropy, backward and an SGD Nesterov update
with weight decay; inference is the test-mode forward. PyTorch runs the networks of `tests/reference` with the same
weights, and the outputs of both are compared before anything is timed. Times are medians of interleaved repetitions.

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
import types

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

from reference import cost, densenet, parameters, resnet, st_resnet  # noqa: E402

from jax_video import losses, models, optimizer  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, its PyTorch reference and its input."""

    model: str
    reference: types.ModuleType
    options: dict = dataclasses.field(default_factory=dict)  # of both
    ours: dict = dataclasses.field(default_factory=dict)  # of ours alone
    batch: int = 2
    frames: int = 16
    size: int = 64
    channels: tuple[int, ...] = (3,)  # of each video that the network takes
    num_classes: int = 400


FRAMES_8 = {"frames": 8, "size": 112, "ours": {"dropout": 0.0}}
CASES = {
    "resnet3d18": Case("resnet3d18", resnet),
    "resnet3d50": Case("resnet3d50", resnet),
    "resnet3d101": Case("resnet3d101", resnet),
    "resnext3d101": Case("resnext3d101", resnet),
    "stc_resnet101": Case("stc_resnet101", resnet, {"frames": 16}),
    "t3d121": Case("t3d121", densenet, size=112),
    "c2d_resnet50": Case("c2d_resnet50", cost, **FRAMES_8),
    "cost_a_resnet50": Case("cost_a_resnet50", cost, **FRAMES_8),
    "cost_a_resnet50, three views": Case(
        "cost_a_resnet50", cost, **(FRAMES_8 | {"ours": {"dropout": 0.0, "fuse_views": False}})
    ),
    "cost_b_resnet50": Case("cost_b_resnet50", cost, **FRAMES_8),
    "st_resnet, small": Case(
        "st_resnet", st_resnet, {"width": 0.5, "layers": (2, 2, 2, 2)}, frames=5, size=112, channels=(3, 20)
    ),
    # What configs/stc.py trains on the embedded data set when it is given nothing else.
    "quickstart": Case("stc_resnet18", resnet, {"width": 0.25, "frames": 16}, batch=16, size=56, num_classes=8),
}
LEARNING_RATE = 1e-3

NETWORKS = flags.DEFINE_string("networks", ";".join(CASES), "Which to time, separated by semicolons.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Timed repetitions of each; the median is printed.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", None, "Clips in a batch, in place of the networks' own.", lower_bound=1)


class Ours:
    """Our network: compiled train step, with the state donated, and compiled inference."""

    def __init__(self, case, network, videos, label, dtype):
        options = {"num_classes": case.num_classes, "dtype": dtype, **case.options, **case.ours}
        model = nnx.eval_shape(lambda: models.build(case.model, rngs=nnx.Rngs(0), **options))
        definition = nnx.graphdef(model)
        tx = optimizer.sgd(LEARNING_RATE)

        def loss(params, batch_stats, videos, label):
            model = nnx.merge(definition, params, batch_stats)
            outputs = model(*videos)
            if isinstance(outputs, tuple):
                loss = losses.video_cross_entropy(outputs, label)
            else:
                loss = losses.softmax_cross_entropy(outputs, label)
            return jnp.mean(loss), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

        def train_step(state, videos, label):
            params, batch_stats, opt_state = state
            grads, batch_stats = jax.grad(loss, has_aux=True)(params, batch_stats, videos, label)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), batch_stats, opt_state

        def inference(params, batch_stats, videos):
            return nnx.view(nnx.merge(definition, params, batch_stats), use_running_average=True)(*videos)

        self.batch = jax.device_put((videos, label))
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

    def __init__(self, network, videos, label, *, compiled=False):
        self.device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        memory_format = torch.channels_last_3d if self.device == "cuda" else torch.contiguous_format
        self.network = network.to(self.device, memory_format=memory_format)
        self.videos = [channels_first(video).to(self.device, memory_format=memory_format) for video in videos]
        self.label = torch.from_numpy(label).long().to(self.device)
        self.forward = torch.compile(self.network) if compiled else self.network
        self.tx = torch.optim.SGD(
            self.network.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=1e-4
        )

    def outputs(self):
        """Logits [B, K], or [B, K, T, h, w] of each stream."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            outputs = self.forward(*self.videos)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def train(self):
        self.network.train()
        self.tx.zero_grad()
        loss = 0.0
        for logits in self.outputs():  # summed over streams and frames, averaged over videos and places
            frames, places = (logits.shape[2], logits.shape[3:].numel()) if logits.ndim == 5 else (1, 1)
            label = self.label.repeat_interleave(frames * places)
            logits = logits.movedim(1, -1).flatten(0, -2)
            loss = loss + frames * torch.nn.functional.cross_entropy(logits.float(), label)
        loss.backward()
        self.tx.step()
        self.wait()

    def inference(self):
        self.network.eval()
        with torch.no_grad():
            outputs = self.outputs()
        self.wait()
        return [np.moveaxis(logits.float().cpu().numpy(), 1, -1) for logits in outputs]

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak_bytes(self):
        torch.cuda.reset_peak_memory_stats()
        self.train()
        return torch.cuda.max_memory_allocated()


def channels_first(video):  # [B, T, H, W, C] to [B, C, T, H, W]
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(video, -1, 1)))


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
    shape = (batch, case.frames, case.size, case.size)
    videos = [rng.normal(size=(*shape, channels)).astype(np.float32) for channels in case.channels]
    label = rng.integers(case.num_classes, size=batch).astype(np.int32)
    network = case.reference.build(case.model, case.num_classes, **case.options)
    with torch.no_grad():  # running statistics other than 0 and 1
        network(*(channels_first(video[:2]) for video in videos))

    ours = Ours(case, network, videos, label, jnp.bfloat16 if on_gpu else jnp.float32)
    torches = {"torch": PyTorch(network, videos, label)}
    if on_gpu:
        torches["torch.compile"] = PyTorch(network, videos, label, compiled=True)
    for other in torches.values():
        for mine, theirs in zip(jax.tree.leaves(ours.inference()), other.inference(), strict=True):
            error = np.max(np.abs(np.asarray(mine, np.float32) - theirs)) / np.max(np.abs(theirs))
            tolerance = 5e-2 if on_gpu else 1e-4
            assert error <= tolerance, f"{name}: the logits differ by {error:.1e} of the largest, not {tolerance:.0e}"

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
    names = NETWORKS.value.split(";")
    if unknown := sorted(set(names) - set(CASES)):
        raise app.UsageError(f"unknown networks {'; '.join(unknown)}; choose from {'; '.join(CASES)}")
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
    for name in names:
        print(f"| {' | '.join(measure(name, CASES[name], on_gpu))} |", flush=True)


if __name__ == "__main__":
    app.run(main)
