"""Does a network of ours compute what a PyTorch network computes? Forward, gradients, running statistics and training.

Weights, BatchNorm's scale and offset and the running statistics are random and copied from PyTorch. Gradients and
training are compared in float64: in float32 ReLU and max pool flip with rounding, and PyTorch misses its own float64
gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from reference import parameters

from jax_video import losses, optimizer, state

# Larger steps on fewer clips let rounding grow a thousandfold: BatchNorm sees only eight values in the last stage.
BATCH, CLASSES, LEARNING_RATE = 4, 7, 0.01


def randomize(network):
    """Gives every bias, BatchNorm's scale and the running statistics other values than their initial zeros and ones."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_var", "weight")) and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.2)


def copied(model, network):
    """(definition, params, batch_stats) of our model with the reference's weights; every leaf has a source."""
    definition, *initial = state.split(model)
    values = (parameters.parameters(network), parameters.batch_stats(network))
    assert shapes(values) == shapes(initial)
    return definition, *jax.tree.map(jnp.asarray, values)


def shapes(tree):
    return {name: (leaf.shape, np.dtype(leaf.dtype)) for name, leaf in state.named_leaves(tuple(tree)).items()}


def channels_first(video):  # [B, T, H, W, C] to [B, C, T, H, W]
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(video, -1, 1)))


def channels_last(array):  # [B, C, ...] to [B, ..., C]
    return np.moveaxis(np.asarray(array), 1, -1)


def assert_leaves_close(ours, theirs, tolerance):
    """Every leaf differs by at most `tolerance` of its largest value."""
    ours, theirs = state.named_leaves(ours), state.named_leaves(theirs)
    assert ours.keys() == theirs.keys()
    wrong = {}
    for name, leaf in theirs.items():
        error, largest = np.max(np.abs(np.asarray(ours[name]) - leaf)), np.max(np.abs(leaf))
        # Some gradients are zero but for rounding: that of an offset, for example, which a later BatchNorm removes.
        if not error <= max(tolerance * largest, 1e-14):
            wrong[name] = f"differs by {error:.1e}, the largest value is {largest:.1e}"
    assert not wrong


def loss_of(outputs, targets):
    """Softmax loss of logits [B, K]; of other outputs the mean squared distance from random targets, summed."""
    total = 0.0
    for output, target in zip(jax.tree.leaves(outputs), targets, strict=True):
        if output.ndim == 2:
            total += jnp.mean(losses.softmax_cross_entropy(output, target))
        else:
            total += jnp.mean(jnp.square(output - target))
    return total


def torch_loss_of(outputs, targets):
    total = 0.0
    for output, target in zip(outputs, targets, strict=True):
        if output.ndim == 2:
            total += torch.nn.functional.cross_entropy(output, torch.from_numpy(target))
        else:
            total += torch.nn.functional.mse_loss(output, torch.from_numpy(target))
    return total


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def check_test_mode_forward(model, network, *input_shapes, batch=BATCH):
    """float32, random statistics: every output within 1e-5 of its largest value.

    Args:
      model: ours, abstract (`nnx.eval_shape`), built with float32; takes and gives channels last.
      network: the reference, with the same weights by `reference.parameters`; channels first, float32.
      input_shapes: of each input `[T, H, W, C]`, without the batch.
    """
    randomize(network)
    definition, params, batch_stats = copied(model, network)
    rng = np.random.default_rng(0)
    videos = [rng.normal(size=(batch, *shape)).astype(np.float32) for shape in input_shapes]

    @jax.jit
    def forward(params, batch_stats, videos):
        return nnx.view(nnx.merge(definition, params, batch_stats), use_running_average=True)(*videos)

    with torch.no_grad():
        theirs = as_tuple(network.eval()(*map(channels_first, videos)))
    ours = as_tuple(forward(params, batch_stats, videos))
    assert_leaves_close(ours, tuple(map(channels_last, theirs)), 1e-5)


def check_training(model, network, *input_shapes, steps=1, batch=BATCH):
    """float64, training mode: outputs, every gradient and the input's at the first step, weights and running statistics
    after `steps` steps of SGD, within 1e-9 of each leaf's largest value. Call under `jax.enable_x64(True)`."""
    randomize(network.double().train())
    definition, params, batch_stats = copied(model, network)
    tx = optimizer.make(LEARNING_RATE)
    opt_state = tx.init(params)
    torch_tx = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=1e-4)

    @jax.jit
    def train_step(params, batch_stats, opt_state, videos, targets):
        def loss(params, videos):
            model = nnx.merge(definition, params, batch_stats)
            outputs = model(*videos)
            return loss_of(outputs, targets), (nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)), outputs)

        grads, (new_batch_stats, outputs) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, videos)
        updates, opt_state = tx.update(grads[0], opt_state, params)
        return optax.apply_updates(params, updates), new_batch_stats, opt_state, grads, outputs

    for step in range(steps):
        rng = np.random.default_rng(step)
        videos = [rng.normal(size=(batch, *shape)) for shape in input_shapes]
        torch_videos = [channels_first(video).requires_grad_() for video in videos]
        theirs = as_tuple(network(*torch_videos))
        targets = [
            rng.integers(output.shape[1], size=batch) if output.ndim == 2 else rng.normal(size=output.shape)
            for output in theirs
        ]
        torch_tx.zero_grad()
        torch_loss_of(theirs, targets).backward()
        targets = [channels_last(target) if target.ndim > 2 else target for target in targets]
        params, batch_stats, opt_state, grads, ours = train_step(params, batch_stats, opt_state, videos, targets)
        if step == 0:
            assert_leaves_close(as_tuple(ours), tuple(channels_last(output.detach()) for output in theirs), 1e-9)
            video_gradients = [channels_last(video.grad) for video in torch_videos]
            assert_leaves_close(grads, (parameters.gradients(network), video_gradients), 1e-9)
        torch_tx.step()

    trained = (parameters.parameters(network), parameters.batch_stats(network))
    assert_leaves_close((params, batch_stats), trained, 1e-9)
