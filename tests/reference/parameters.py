"""Where every tensor of the PyTorch reference is found in our networks, and in which layout."""

import numpy as np
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


def _nest(network, value, *, trained):
    nested = {}
    for name, module in network.named_modules():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        # A module with parameters of its own says where they go, in `OURS`.
        for theirs, (ours, axes) in TENSORS.get(type(module), getattr(module, "OURS", {})).items():
            tensor = getattr(module, theirs)
            if tensor is None or tensor.requires_grad != trained:  # None: a layer without bias
                continue
            node = nested
            for part in filter(None, name.split(".")):
                node = node.setdefault(int(part) if part.isdigit() else part, {})
            node[ours] = np.ascontiguousarray(_arranged(value(tensor).detach().cpu().numpy(), axes))
    return nested


def _arranged(tensor, axes):
    """Transposed, with a new axis of one where `axes` has None."""
    tensor = tensor.transpose([axis for axis in axes if axis is not None])
    return np.expand_dims(tensor, [place for place, axis in enumerate(axes) if axis is None])
