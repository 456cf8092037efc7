"""Where every tensor of the PyTorch reference is found in our networks, and in which layout."""

import functools
import operator

import numpy as np
import torch
from torch import nn

# Torch's tensor: (ours, torch's axes in our order, None for one that torch lacks).
CONVOLUTION = {
    "weight": ("kernel", (2, 3, 4, 1, 0)),
    "bias": ("bias", (0,)),
}  # [out, in, t, h, w] -> [t, h, w, in, out]
FRAME_CONVOLUTION = {"weight": ("kernel", (None, 2, 3, 1, 0))}  # [out, in, h, w] -> [1, h, w, in, out]
LINEAR = {"weight": ("kernel", (1, 0)), "bias": ("bias", (0,))}  # [out, in] -> [in, out]
BATCH_NORM = {
    "weight": ("scale", (0,)),
    "bias": ("bias", (0,)),
    "running_mean": ("mean", (0,)),
    "running_var": ("var", (0,)),
}

TENSORS = {
    nn.Conv3d: CONVOLUTION,
    nn.Conv2d: FRAME_CONVOLUTION,
    nn.Linear: LINEAR,
    nn.BatchNorm3d: BATCH_NORM,
    nn.BatchNorm2d: BATCH_NORM,
    nn.BatchNorm1d: BATCH_NORM,
}

# Modules with another name in ours: those that torch numbers inside a unit.
RENAMED = {"downsample.0": "downsample.conv", "downsample.1": "downsample.bn"}


def parameters(network):
    """A torch network's weights as ours: nested dicts of numpy arrays."""
    return _nest(network, lambda tensor: tensor, trained=True)


def gradients(network):
    """The gradients of a torch network's weights, in the layout of `parameters`."""
    return _nest(network, lambda tensor: tensor.grad, trained=True)


def batch_stats(network):
    """A torch network's running statistics as ours, and with them the weights that require no gradient."""
    return _nest(network, lambda tensor: tensor, trained=False)


def load(network, params, stats):
    """Gives a torch network our weights and running statistics, as `parameters` and `batch_stats` would tell them."""
    with torch.no_grad():
        for path, tensor, axes in _tensors(network):
            leaf = functools.reduce(operator.getitem, path, params if tensor.requires_grad else stats)
            leaf = np.squeeze(leaf, tuple(place for place, axis in enumerate(axes) if axis is None))
            order = np.argsort([axis for axis in axes if axis is not None])
            tensor.copy_(torch.tensor(np.transpose(leaf, order)))


def _nest(network, value, *, trained):
    nested = {}
    for path, tensor, axes in _tensors(network):
        if tensor.requires_grad == trained:
            node = functools.reduce(lambda node, part: node.setdefault(part, {}), path[:-1], nested)
            node[path[-1]] = np.ascontiguousarray(_arranged(value(tensor).detach().cpu().numpy(), axes))
    return nested


def _tensors(network):
    """(its path in our nested dicts, the tensor, its axes in our order) of all that is learnt or counted."""
    for name, module in network.named_modules():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        parts = [int(part) if part.isdigit() else part for part in filter(None, name.split("."))]
        # A module with parameters of its own says where they go, in `OURS`.
        for theirs, (ours, axes) in TENSORS.get(type(module), getattr(module, "OURS", {})).items():
            if (tensor := getattr(module, theirs)) is not None:  # None: a layer without bias
                yield (*parts, ours), tensor, axes


def _arranged(tensor, axes):
    """Transposed, with a new axis of one where `axes` has None."""
    tensor = tensor.transpose([axis for axis in axes if axis is not None])
    return np.expand_dims(tensor, [place for place, axis in enumerate(axes) if axis is None])
