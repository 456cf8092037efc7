"""Where every tensor of the PyTorch reference is found in our networks, and in which layout."""

import numpy as np
from torch import nn

# Torch's tensor: (ours, torch's axes in our order).
CONVOLUTION = {"weight": ("kernel", (2, 3, 4, 1, 0))}  # [out, in, t, h, w] -> [t, h, w, in, out]
LINEAR = {"weight": ("kernel", (1, 0)), "bias": ("bias", (0,))}  # [out, in] -> [in, out]
BATCH_NORM = {"weight": ("scale", (0,)), "bias": ("bias", (0,))}
MOMENTS = {"running_mean": ("mean", (0,)), "running_var": ("var", (0,))}

PARAMETERS = {nn.Conv3d: CONVOLUTION, nn.Linear: LINEAR, nn.BatchNorm3d: BATCH_NORM}
BATCH_STATS = {nn.BatchNorm3d: MOMENTS}

# Modules with another name in ours: those that torch numbers inside a unit.
RENAMED = {"downsample.0": "downsample.conv", "downsample.1": "downsample.bn"}


def parameters(network):
    """A torch network's weights as ours: nested dicts of numpy arrays."""
    return _nest(network, PARAMETERS, lambda tensor: tensor)


def gradients(network):
    """The gradients of a torch network's weights, in the layout of `parameters`."""
    return _nest(network, PARAMETERS, lambda tensor: tensor.grad)


def batch_stats(network):
    """A torch network's running moments as ours."""
    return _nest(network, BATCH_STATS, lambda tensor: tensor)


def _nest(network, table, value):
    nested = {}
    for name, module in network.named_modules():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        for theirs, (ours, axes) in table.get(type(module), {}).items():
            node = nested
            for part in filter(None, name.split(".")):
                node = node.setdefault(int(part) if part.isdigit() else part, {})
            tensor = value(getattr(module, theirs)).detach().cpu().numpy()
            node[ours] = np.ascontiguousarray(tensor.transpose(axes))
    return nested
