"""What is compared: networks with their inputs, and ours and PyTorch's training and inference of each.

A train step is forward with BatchNorm in training mode, softmax cross-entropy, backward and an SGD Nesterov update with
weight decay; inference is the test-mode forward. PyTorch runs the networks of `tests/reference` with the same weights.
"""

import copy
import dataclasses
import functools
import pathlib
import statistics
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch.nn.utils.fusion import fuse_conv_bn_weights

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


def abstract(case, dtype):
    """Our network with shapes in place of arrays, in training mode."""
    options = {"num_classes": case.num_classes, "dtype": dtype, **case.options, **case.ours}
    return nnx.eval_shape(lambda: models.build(case.model, rngs=models.Keys(0), **options))


def training_loss(definition, params, batch_stats, videos, label):
    """The mean loss of a network in training mode; with it the logits and the new running statistics."""
    model = nnx.merge(definition, params, batch_stats)
    outputs = model(*videos)
    if isinstance(outputs, tuple):
        loss = losses.video_cross_entropy(outputs, label)
    else:
        loss = losses.softmax_cross_entropy(outputs, label)
    return jnp.mean(loss), (outputs, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))


def inference(definition, params, batch_stats, videos):
    """The logits of a network in test mode: [B, K], or [B, T, h, w, K] of each of two streams."""
    return nnx.view(nnx.merge(definition, params, batch_stats), use_running_average=True)(*videos)


def drawn(case):
    """PyTorch's network with random weights and statistics, videos [B, T, H, W, C] and labels [B]; always the same."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shape = (case.batch, case.frames, case.size, case.size)
    videos = [rng.standard_normal((*shape, channels), np.float32) for channels in case.channels]
    label = rng.integers(case.num_classes, size=case.batch).astype(np.int32)
    network = case.reference.build(case.model, case.num_classes, **case.options)
    with torch.no_grad():  # running statistics other than 0 and 1
        network(*(channels_first(video[:2]) for video in videos))
    return network, videos, label


class Ours:
    """Our network: compiled train step, with the state donated, and compiled inference."""

    def __init__(self, case, network, videos, label, dtype):
        definition = nnx.graphdef(abstract(case, dtype))
        tx = optimizer.make(LEARNING_RATE)

        def train_step(state, videos, label):
            params, batch_stats, opt_state = state
            loss = functools.partial(training_loss, definition)
            grads, (_, batch_stats) = jax.grad(loss, has_aux=True)(params, batch_stats, videos, label)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), batch_stats, opt_state

        self.batch = jax.device_put((videos, label))
        params, batch_stats = jax.device_put((parameters.parameters(network), parameters.batch_stats(network)))
        self.state = (params, batch_stats, tx.init(params))
        start = time.perf_counter()
        self.compiled_train = jax.jit(train_step, donate_argnums=0).lower(self.state, *self.batch).compile()
        test = jax.jit(functools.partial(inference, definition)).trace(params, batch_stats, self.batch[0])
        self.jaxpr = test.jaxpr  # of inference
        self.compiled_inference = test.lower().compile()
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
    """The reference network: eager, or compiled by a backend; on a GPU in bfloat16 autocast, channels last."""

    def __init__(self, network, videos, label, *, backend=None):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.benchmark = True  # measures cuDNN's algorithms and takes the fastest, as XLA does
        memory_format = torch.channels_last_3d if self.device == "cuda" else torch.contiguous_format
        self.network = network.to(self.device, memory_format=memory_format)
        self.videos = [channels_first(video).to(self.device, memory_format=memory_format) for video in videos]
        self.label = torch.from_numpy(label).long().to(self.device)
        self.forward = torch.compile(self.network, backend=backend) if backend else self.network
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


def fold_norm(network, videos):
    """A copy of a PyTorch network for inference: each BatchNorm that follows a convolution is folded into it."""
    network = copy.deepcopy(network).eval()
    outputs, pairs = [], []  # (output, the convolution that made it); (convolution, BatchNorm)

    def note(module, inputs, output):
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            outputs.append((output, module))
        else:
            pairs.extend((conv, module) for made, conv in outputs if made is inputs[0])

    kinds = (torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    modules = {name: module for name, module in network.named_modules() if isinstance(module, kinds)}
    hooks = [module.register_forward_hook(note) for module in modules.values()]
    with torch.no_grad():
        network(*(channels_first(video[:1]) for video in videos))
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in modules.items()}
    for conv, norm in pairs:
        statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
        network.set_submodule(names[norm], torch.nn.Identity())
    return network


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
