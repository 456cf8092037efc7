"""Whether a GPU computes what the CPU computes: logits and gradients of every family, convolutions, a large video.

The CPU's values are computed beside the GPU's, in the same process: networks are small, and no file of values of an
earlier version can be mistaken for those of this one. The CPU's form of a convolution is another than the GPU's, and is
tested against PyTorch in float64.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
from contestants import training_loss
from flax import nnx
from gpu_convolutions import LIMIT, PASSES, Convolution, largest_error
from gpu_results import table

from jax_video import losses, models, networks
from jax_video.models import convolution, convolution_gpu
from jax_video.models.correspondence import Correspondence

BATCH, NUM_CLASSES, WIDTH = 4, 16, 0.25
FAMILIES = {  # network, frames, height and width, keywords
    "3D-ResNet": ("resnet3d18", 8, 64, {}),
    "STC-ResNet": ("stc_resnet18", 8, 64, {}),
    "STC-ResNeXt": ("stc_resnext101", 8, 64, {}),
    "T3D": ("t3d121", 16, 64, {}),
    "DenseNet3D": ("densenet3d121", 16, 64, {}),
    "DenseNet": ("densenet121", 2, 64, {}),
    "Inception3D": ("inception3d", 16, 64, {}),
    "C3D": ("c3d", 16, 32, {}),
    "C2D": ("c2d_resnet50", 8, 64, {"dropout": 0.0}),
    "C3D 3×1×1": ("c3d_3x1x1_resnet50", 8, 64, {"dropout": 0.0}),
    "C3D 3×3×3": ("c3d_3x3x3_resnet50", 8, 64, {"dropout": 0.0}),
    "CoST(a)": ("cost_a_resnet50", 8, 64, {"dropout": 0.0}),
    "CoST(a), three views": ("cost_a_resnet50", 8, 64, {"dropout": 0.0, "fuse_views": False}),
    "CoST(b)": ("cost_b_resnet50", 8, 64, {"dropout": 0.0}),
    "ST-ResNet": ("st_resnet", 5, 64, {"layers": (2, 1, 1, 1)}),
    "ST-ResNet*": ("st_resnet_star", 11, 64, {"layers": (2, 1, 1, 1)}),
    "transfer": (None, 8, 64, {}),  # a 3D-ResNet as the student, a 2D one as the teacher
}
# Of the largest logit, and of the norm of all gradients. Roundings grow where BatchNorm sees few values, and where a
# ReLU or a max pool falls the other way: bfloat16 on a CPU reaches 0.08 and, in C3D and Inception3D, 0.60. A gradient
# of zeros would be at 1, any other at 1.4; the limit of single convolutions is sharper.
LIMITS = {"float32": {"logits": 1e-4, "gradient": 1e-2}, "bfloat16": {"logits": 0.2, "gradient": 0.8}}
# Of rehearsals: CPUs add up products in bfloat16.
REHEARSED_LIMIT = 5e-2
ONE = ((1, 1), (1, 1), (1, 1))
CONVOLUTIONS = {
    "1×1×1, stride 2": Convolution((4, 8, 28, 28, 64), (1, 1, 1, 64, 128), (2, 2, 2), ((0, 0),) * 3),
    "1×3×3": Convolution((4, 8, 28, 28, 64), (1, 3, 3, 64, 64), (1, 1, 1), ((0, 0), *ONE[1:])),
    "3×1×3": Convolution((4, 8, 28, 28, 64), (3, 1, 3, 64, 64), (1, 1, 1), ((1, 1), (0, 0), (1, 1))),
    "3×3×1": Convolution((4, 8, 28, 28, 64), (3, 3, 1, 64, 64), (1, 2, 2), (*ONE[:2], (0, 0))),
    "3×1×1": Convolution((4, 8, 28, 28, 64), (3, 1, 1, 64, 64), (1, 1, 1), ((1, 1), (0, 0), (0, 0))),
    "3×3×3": Convolution((4, 8, 28, 28, 64), (3, 3, 3, 64, 64), (1, 1, 1), ONE),
    "3×3×3, stride 2": Convolution((4, 8, 28, 28, 64), (3, 3, 3, 64, 128), (2, 2, 2), ONE),
    "3×3×3, 32 groups": Convolution((4, 8, 28, 28, 64), (3, 3, 3, 2, 64), (1, 1, 1), ONE, 32),
    "7×7×7": Convolution((4, 8, 56, 56, 3), (7, 7, 7, 3, 64), (1, 2, 2), ((3, 3),) * 3),
}
LARGE = {  # 3.7 GB of bfloat16 each: the size of pytorch #163539
    "large video, 1×3×3": Convolution((1, 124, 1282, 722, 16), (1, 3, 3, 16, 16), (1, 1, 1), ((0, 0),) * 3),
    "large video, 3×3×3": Convolution((1, 124, 1282, 722, 16), (3, 3, 3, 16, 16), (1, 1, 1), ((0, 0),) * 3),
}


def run(results, *, rehearse, only=None):
    """Add every comparison to the results; return whether all are within their limits.

    Args:
      rehearse: take the CPU for a GPU.
      only: a family, to compare no other.
    """
    device = jax.devices("cpu" if rehearse else "gpu")[0]
    results.add("device", kind=device.device_kind, jax=jax.__version__)
    families = [only] if only else list(FAMILIES)[:: 16 if rehearse else 1]
    # Most of the time compilers run, beside each other; but a rehearsal exchanges the convolution's forms for all.
    with concurrent.futures.ThreadPoolExecutor(1 if rehearse else 8) as pool:
        for name, future in {name: pool.submit(compare_family, name, device, rehearse) for name in families}.items():
            for dtype, errors in future.result().items():
                results.add("families", f"{name}, {dtype}", **errors)
    if not only:
        for name, each in list(CONVOLUTIONS.items())[:: 4 if rehearse else 1]:
            if rehearse:
                each = dataclasses.replace(each, video=(1, 4, 14, 14, each.video[-1]))
            results.add("convolutions", name, **compare_convolution(each, device, rehearse))
        for name, each in LARGE.items():
            if rehearse:
                each = dataclasses.replace(each, video=(1, 12, 20, 18, 4), kernel=(*each.kernel[:3], 4, 4))
            measure = functools.partial(largest_error, each, jnp.bfloat16, parts=4)
            results.add("convolutions", name, **guarded(measure, limits_of_passes(rehearse)))
    return all(entry["ok"] for kind in ("families", "convolutions") for entry in results.data.get(kind, {}).values())


def guarded(measure, limits):
    """The errors that a function measures, and whether they are within the limits; or why it could not."""
    try:
        errors = measure()
    except Exception as error:  # the other rows are wanted all the same
        return {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}", "ok": False}
    return {**errors, "ok": all(errors[name] <= limit for name, limit in limits.items())}  # NaN is not


def family(name):
    """A small network of a family: (loss of params, statistics and inputs; params, statistics, inputs) from NumPy."""
    model, frames, size, keywords = FAMILIES[name]
    rng = np.random.default_rng(0)
    label = rng.integers(NUM_CLASSES, size=BATCH).astype(np.int32)
    records = [networks.find(each) for each in ([model] if model else ["resnet3d18", "resnet18"])]
    channels = [networks.CHANNELS[stream] for stream in records[0].streams]
    videos = [rng.standard_normal((BATCH, frames, size, size, each), np.float32) for each in channels]

    def build(dtype):
        def one(model, record):
            small = {"width": WIDTH, **record.clip_keywords(frames, size)}
            if record.stages:
                small["layers"] = (1,) * record.stages
            return models.build(model, num_classes=NUM_CLASSES, rngs=models.Keys(0), dtype=dtype, **small | keywords)

        if model:
            return one(model, records[0])
        student, teacher = one("resnet3d18", records[0]), one("resnet18", records[1])
        return Correspondence(student, teacher, clip=(frames, size, size), dtype=dtype, rngs=models.Keys(0))

    def loss(dtype, params, batch_stats, videos, label):
        definition = nnx.graphdef(nnx.eval_shape(lambda: build(dtype)))
        if model:
            value, (outputs, _) = training_loss(definition, params, batch_stats, videos, label)
            return value, outputs
        network = nnx.merge(definition, params, batch_stats)
        logits, label, weight = network(*videos, ids=jnp.arange(BATCH), key=jax.random.key(0))
        return jnp.mean(weight * losses.softmax_cross_entropy(logits, label)), logits

    def draw(leaf):
        if leaf.ndim == 1:  # scales, offsets and statistics
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (rng.standard_normal(leaf.shape) * math.sqrt(2 / math.prod(leaf.shape[:-1]))).astype(np.float32)

    shapes = nnx.state(nnx.eval_shape(lambda: build(jnp.float32)), (nnx.Param, nnx.BatchStat))
    params, batch_stats = (nnx.to_pure_dict(shapes.filter(kind)) for kind in (nnx.Param, nnx.BatchStat))
    return loss, jax.tree.map(draw, params), jax.tree.map(draw, batch_stats), videos, label


def compare_family(name, device, rehearse):
    """{"float32": errors, "bfloat16": errors}"""

    @functools.cache
    def inputs():
        return family(name)

    @functools.cache
    def expected():
        return outputs_and_gradients(jnp.float32, jax.devices("cpu")[0], contextlib.nullcontext())

    def outputs_and_gradients(dtype, device, forms):
        loss, *arrays = inputs()
        # Run once, a program for the CPU takes less time where it is compiled in half of the time.
        options = {"xla_backend_optimization_level": 0} if device.platform == "cpu" else None
        step = jax.jit(jax.value_and_grad(functools.partial(loss, dtype), has_aux=True), compiler_options=options)
        with forms, jax.default_matmul_precision("highest" if dtype == jnp.float32 else "default"):
            (_, outputs), gradients = step(*jax.device_put(arrays, device))
        return flat(outputs), flat(gradients)

    def errors(dtype):
        logits, gradient = outputs_and_gradients(dtype, device, for_gpu(rehearse))
        expected_logits, expected_gradient = expected()
        return {
            "logits": float(np.abs(logits - expected_logits).max() / np.abs(expected_logits).max()),
            "gradient": relative_error(gradient, expected_gradient),
        }

    return {dtype: guarded(functools.partial(errors, jnp.dtype(dtype)), limits) for dtype, limits in LIMITS.items()}


def flat(tree):
    """All leaves in one vector of float64."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def relative_error(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def compare_convolution(each, device, rehearse):
    """The errors of a convolution's passes in bfloat16, in the formulations that the table has for a GPU."""
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal(shape, np.float32) for shape in (each.video, each.kernel, each.output)]
    drawn = [jnp.asarray(array, jnp.bfloat16) for array in drawn]

    def measure():
        def passes(x, kernel, dy):
            y, pull = jax.vjp(lambda x, kernel: convolution.conv(x, kernel, **each.options), x, kernel)
            return y, *pull(dy)

        wide = [np.asarray(array, np.float32) for array in drawn]
        expected = jax.jit(lambda *arrays: passes(*arrays))(*jax.device_put(wide, jax.devices("cpu")[0]))
        with for_gpu(rehearse):
            found = jax.jit(lambda *arrays: passes(*arrays))(*jax.device_put(drawn, device))
        return {key: relative_error(flat(a), flat(b)) for key, a, b in zip(PASSES, found, expected, strict=True)}

    return guarded(measure, limits_of_passes(rehearse))


def limits_of_passes(rehearse):
    return dict.fromkeys(PASSES, REHEARSED_LIMIT if rehearse else LIMIT)


def for_gpu(rehearse):
    """In a rehearsal, programs that are traced meanwhile have the GPU's convolution, although they run on a CPU."""
    if not rehearse:
        return contextlib.nullcontext()
    return unittest.mock.patch.multiple(
        convolution,
        _conv_form=lambda *arrays, **options: (convolution_gpu.conv_gpu(*arrays, **options),),
        _conv_gradients_form=convolution_gpu.conv_gradients_gpu,
    )


def render(data):
    """Tables of the families and of the convolutions."""
    limits = [f"{dtype} {each['logits']:g} and {each['gradient']:g}" for dtype, each in LIMITS.items()]
    lines = [
        "## Correctness",
        "",
        f"{data['device']['kind']}, jax {data['device']['jax']}. Errors against float32 on the CPU. Families: of the",
        f"largest logit, and of the gradient's norm; limits: {'; '.join(limits)}. Convolutions: in bfloat16, of the",
        f"result's norm; limit {LIMIT:g}.",
        "",
    ]
    for kind, columns in (("families", ("logits", "gradient")), ("convolutions", PASSES)):
        rows = [
            [name, *map(entry.get, columns), entry.get("failed", "yes" if entry["ok"] else "**NO**")]
            for name, entry in data.get(kind, {}).items()
        ]
        lines += [*table([kind, *columns, "within limits"], rows), ""]
    return lines
