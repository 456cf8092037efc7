"""The convolutions of networks: which there are, what they cost, and the time of each in every formulation."""

import collections
import dataclasses
import functools
import math
import statistics
import time

import jax
import jax.numpy as jnp
from gpu_results import table

from jax_video.models import convolution_gpu
from jax_video.models.convolution_gpu import FORMULATIONS, applies, choice, shape_class
from jax_video.models.convolution_xla import conv_xla, input_gradient, kernel_gradient

PASSES = ("forward", "input gradient", "kernel gradient")
LIMIT = 1e-2  # relative error of a pass in bfloat16, against float32


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of a network: video `[B, T, H, W, C]`, kernel `[t, h, w, C / groups, N]`."""

    video: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int = 1

    def __str__(self):
        sizes = ["×".join(map(str, shape)) for shape in (self.video, self.kernel[:3])]
        strided = f", stride {'×'.join(map(str, self.strides))}" if max(self.strides) > 1 else ""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{sizes[0]}, {sizes[1]} to {self.kernel[-1]}{strided}{groups}"

    @property
    def options(self):
        return {"strides": self.strides, "padding": self.padding, "groups": self.groups}

    @property
    def output(self):
        """`[B, T', H', W', N]`"""
        places = zip(self.video[1:4], self.kernel, self.strides, self.padding, strict=False)
        return (
            self.video[0],
            *((size + sum(pad) - taps) // step + 1 for size, taps, step, pad in places),
            self.kernel[-1],
        )

    @property
    def operations(self):
        """Of the forward pass, a multiplication and an addition being two; each gradient takes as many."""
        return 2 * math.prod(self.output) * math.prod(self.kernel[:4])

    @property
    def bytes(self):
        """That the forward pass must read and write in bfloat16."""
        return 2 * (math.prod(self.video) + math.prod(self.kernel) + math.prod(self.output))


def convolutions(jaxpr):
    """How often a program has each convolution: {Convolution: times}."""
    found = collections.Counter()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv":
            shapes = [tuple(variable.aval.shape) for variable in equation.invars]
            found[Convolution(*shapes, **equation.params)] += 1
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found += convolutions(inner)
    return found


def costliest(networks, number):
    """The convolutions that take the largest shares of their networks' time, estimated: {Convolution: share}.

    Args:
      networks: {name: what `convolutions` finds}.
      number: how many; those that differ in the batch only count as one.
    """
    shares, first = collections.Counter(), {}
    for found in networks.values():
        # An H100's published peaks: 989 TFLOP/s and 3.35 TB/s.
        seconds = {each: times * max(each.operations / 989e12, each.bytes / 3.35e12) for each, times in found.items()}
        for each, value in seconds.items():
            key = dataclasses.replace(each, video=(1, *each.video[1:]))
            first.setdefault(key, each)
            shares[key] += value / sum(seconds.values())
    return {first[key]: share / len(networks) for key, share in shares.most_common(number)}


def milliseconds(function, *arrays, repeats):
    """The median time of a call, of several measurements of as many calls as take some milliseconds."""
    jax.block_until_ready(function(*arrays))
    start = time.perf_counter()
    jax.block_until_ready(function(*arrays))
    calls = max(1, min(20, round(0.01 / (time.perf_counter() - start))))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            result = function(*arrays)  # one after the other on a GPU's stream; what came before is freed
        jax.block_until_ready(result)
        times.append((time.perf_counter() - start) / calls)
    return 1e3 * statistics.median(times)


def passes(form, options):
    """{pass: function of (x, kernel, dy)} of a formulation."""
    form = functools.partial(form, **options)
    return {
        "forward": jax.jit(lambda x, kernel, dy: form(x, kernel)),
        "input gradient": jax.jit(functools.partial(input_gradient, form)),
        "kernel gradient": jax.jit(functools.partial(kernel_gradient, form)),
    }


def arrays(convolution, dtype):
    """Random x, kernel and dy, made on the device."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (convolution.video, convolution.kernel, convolution.output)
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


@jax.jit
def relative_error(found, expected):
    """The norm of the difference relative to the norm of what is expected, both in float32."""
    found, expected = (array.astype(jnp.float32) for array in (found, expected))
    return jnp.linalg.norm((found - expected).ravel()) / jnp.linalg.norm(expected.ravel())


def measure(convolution, results, *, share, repeats):
    """Time all formulations that apply to a convolution, XLA's and the table's first, and add them to the results."""
    name, chosen = str(convolution), choice(convolution.kernel, jnp.bfloat16, convolution.groups)
    results.add(
        name,
        share=share,
        operations=convolution.operations,
        shape_class=shape_class(convolution.kernel, convolution.groups),
        choice=list(chosen),
    )
    inputs = arrays(convolution, jnp.bfloat16)
    with jax.default_matmul_precision("highest"):
        wide = [array.astype(jnp.float32) for array in inputs]
        exact = {key: jax.block_until_ready(run(*wide)) for key, run in passes(conv_xla, convolution.options).items()}
        del wide
    names = [each for each in FORMULATIONS if applies(each, convolution.kernel)]
    for formulation in sorted(names, key=lambda each: (each != "xla", each not in chosen)):
        for key, run in passes(FORMULATIONS[formulation], convolution.options).items():
            try:
                error = float(relative_error(run(*inputs), exact[key]))
                spent = milliseconds(run, *inputs, repeats=repeats)
                results.add(name, "passes", key, formulation, ms=spent, error=error)
            except RuntimeError as error:  # no memory, or no algorithm
                results.add(name, "passes", key, formulation, failed=str(error).partition("\n")[0][:200])


def render(data):
    """A table of all convolutions, and what the table of choices would be by it."""
    rate, rows, fastest = data.get("matrix rate", {}).get("tflops"), [], collections.defaultdict(list)
    lines = ["## The costliest convolutions in every formulation", ""]
    lines += ["bfloat16, ms; in brackets the share of the measured matrix rate. **Fastest**, *the table's choice*.", ""]
    for name, entry in data.items():
        if "operations" not in entry:
            continue
        formulations = list(dict.fromkeys(each for results in entry.get("passes", {}).values() for each in results))
        for formulation in formulations:
            cells = [name if formulation == formulations[0] else "", f"{100 * entry['share']:.1f} %", formulation]
            for index, key in enumerate(PASSES):
                results = entry["passes"].get(key, {})
                times = {each: value["ms"] for each, value in results.items() if "ms" in value}
                cells.append(_cell(formulation, results.get(formulation, {}), times, entry, index, rate))
                if formulation == formulations[0] and times:
                    fastest[entry["shape_class"]].append((key, min(times, key=times.get)))
            rows.append(cells)
    lines += table(["convolution", "share of the convolutions", "formulation", *PASSES], rows)
    lines += ["", "Fastest by class of shape, for `CHOICES` in `jax_video/models/convolution_gpu.py`:", ""]
    for name, found in fastest.items():
        each = [f"{key} {', '.join(dict.fromkeys(best for other, best in found if other == key))}" for key in PASSES]
        lines.append(f"- {name}: {'; '.join(each)}")
    return lines


def _cell(formulation, result, times, entry, index, rate):
    if "failed" in result:
        return f"failed: {result['failed']}"
    if "ms" not in result:
        return None
    text = f"{result['ms']:.3g}"
    if rate:
        text += f" ({100 * entry['operations'] / result['ms'] / 1e9 / rate:.0f} %)"
    text = f"**{text}**" if times[formulation] == min(times.values()) else text
    text = f"*{text}*" if entry["choice"][index] == formulation else text
    return text if result["error"] <= LIMIT else f"{text} WRONG by {result['error']:.1e}"


def largest_error(convolution, dtype, parts):
    """Relative errors of the passes of a convolution of one large video, against float32 in parts of its frames.

    Some releases of cuDNN compute bfloat16 wrongly where an input is large (pytorch #163539), but not its parts. Time
    must not be padded or strided.
    """
    x, kernel, dy = arrays(convolution, dtype)
    form = functools.partial(convolution_gpu.conv_gpu, **convolution.options)
    exact = functools.partial(conv_xla, **convolution.options)
    reach, step = convolution.kernel[0] - 1, -(-dy.shape[1] // parts)

    @jax.jit
    def part(x, kernel, dy):
        with jax.default_matmul_precision("highest"):
            x, kernel, dy = (array.astype(jnp.float32) for array in (x, kernel, dy))
            return exact(x, kernel), input_gradient(exact, x, kernel, dy), kernel_gradient(exact, x, kernel, dy)

    def squares(found, expected):
        found, expected = found.astype(jnp.float32), expected.astype(jnp.float32)
        return jnp.stack([jnp.square(found - expected).sum(), jnp.square(expected).sum()])

    squares = jax.jit(squares)
    y, dx, dkernel = (run(x, kernel, dy) for run in passes(form, {}).values())
    sums, kernel_sum, overlap = {key: 0.0 for key in PASSES}, 0.0, 0.0
    for start in range(0, dy.shape[1], step):
        end = min(start + step, dy.shape[1])
        part_y, part_dx, part_dkernel = part(x[:, start : end + reach], kernel, dy[:, start:end])
        sums["forward"] += squares(y[:, start:end], part_y)
        if reach:  # frames that the part before has a share in
            part_dx = part_dx.at[:, :reach].add(overlap)
            overlap = part_dx[:, -reach:]
        last = end + reach if end == dy.shape[1] else end
        sums["input gradient"] += squares(dx[:, start:last], part_dx[:, : last - start])
        kernel_sum += part_dkernel
    sums["kernel gradient"] = squares(dkernel, kernel_sum)
    return {key: math.sqrt(float(wrong) / float(total)) for key, (wrong, total) in sums.items()}
