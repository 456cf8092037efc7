"""What a GPU must show, in four parts, each into a table; `gpu.sh` runs them within eight minutes.

    python benchmarks/gpu.py a                        # correctness: gpu_correctness.py
    python benchmarks/gpu.py b --contestants=ours     # speed of train step and inference, bfloat16, a batch that fills
    python benchmarks/gpu.py b --contestants=torch    # the card; and of PyTorch, in a process of its own
    python benchmarks/gpu.py c                        # the costliest convolutions: gpu_convolutions.py
    python benchmarks/gpu.py d                        # a profile of the two networks that compare worst

`--network=NAME` does a part for one network only (part `a`: for one family). `--rehearse` takes the CPU for a
GPU, and tiny sizes.
"""

import collections
import dataclasses
import os
import pathlib
import sys
import types

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import gpu_convolutions  # noqa: E402
import gpu_correctness  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from absl import app, flags  # noqa: E402
from contestants import (  # noqa: E402
    CASES,
    Case,
    Ours,
    PyTorch,
    abstract,
    drawn,
    inference,
    median_milliseconds,
)
from flax import nnx  # noqa: E402
from gpu_convolutions import convolutions, costliest, measure, milliseconds  # noqa: E402
from gpu_results import Results, table  # noqa: E402
from reference import c3d, densenet, inception  # noqa: E402

from jax_video import networks  # noqa: E402


def nameless(reference):
    """A reference of one network, with the `build` of those that have several."""
    return types.SimpleNamespace(build=lambda name, *args, **options: reference.build(*args, **options))


NETWORKS = {  # clips in a batch, of the paper's size, for 80 GB; the first six are measured unless one is asked for
    "resnet3d50": 256,
    "c2d_resnet50": 128,
    "t3d121": 32,
    "cost_b_resnet50": 64,
    "stc_resnet101": 256,
    "st_resnet": 64,
    "resnet3d18": 512,
    "resnet3d101": 256,
    "resnext3d101": 128,
    "cost_a_resnet50": 64,
    "densenet3d121": 32,
    "inception3d": 64,
    "c3d": 128,
}
MEASURED = list(NETWORKS)[:6]
COMPILED = ("resnet3d50", "c2d_resnet50")  # which torch.compile is given, too: it takes a minute for each
CONTESTANTS = ("ours", "torch", "torch.compile")
MORE = {
    "st_resnet": dataclasses.replace(CASES["st_resnet, small"], options={}),
    "densenet3d121": Case("densenet3d121", densenet),
    "inception3d": Case("inception3d", nameless(inception)),
    "c3d": Case("c3d", nameless(c3d)),
}
AIM, AIM_RATE = 1.3, 50  # of the better PyTorch's clips/s; of the matrix rate, %

NETWORK = flags.DEFINE_string("network", None, "A network, or of part a a family, to do no other.")
WHO = flags.DEFINE_list("contestants", list(CONTESTANTS), "Of part b: which of them to measure.")
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed repetitions; the median counts.", lower_bound=1)
NUMBER = flags.DEFINE_integer("convolutions", 12, "Of part c: how many.", lower_bound=1)
REHEARSE = flags.DEFINE_bool("rehearse", False, "Tiny sizes, on a CPU.")
OUT = flags.DEFINE_string("out", os.environ.get("OUT") or str(HERE / "gpu-results"), "Folder of the tables.")


def case_of(name):
    """The case of a network: the paper's clip, and the batch of the table; tiny in a rehearsal."""
    case, record = CASES.get(name) or MORE[name], networks.find(name)
    frames, size = record.frames, record.size
    options = dict(case.options)
    if REHEARSE.value:
        frames, size = min(frames, 16), 32
        options["width"] = 0.125
        if record.stages:
            options["layers"] = (2 if len(record.streams) == 2 else 1, *(1,) * (record.stages - 1))
    options |= record.clip_keywords(frames, size)
    batch = 2 if REHEARSE.value else NETWORKS[name]
    return dataclasses.replace(case, batch=batch, frames=frames, size=size, options=options)


# b: speed -------------------------------------------------------------------------------------------------------------


def speed(names):
    results = Results(OUT.value, "speed", render_speed)
    if "ours" in WHO.value:
        device = jax.devices()[0]
        results.add("device", kind=device.device_kind, jax=jax.__version__)
        results.add("matrix rate", tflops=matrix_rate())
    else:
        results.add("device", torch=torch.__version__, cudnn=torch.backends.cudnn.version())
    for who in [each for each in CONTESTANTS if each in WHO.value]:  # what takes longest comes last
        for name in COMPILED if who == "torch.compile" and names == MEASURED else names:
            results.add("networks", name, who, **contest(name, who, results))
    return all("failed" not in row for entry in results.data["networks"].values() for row in entry.values())


def matrix_rate():
    """The rate of a product of two large matrices in bfloat16, in TFLOP/s."""
    size = 256 if REHEARSE.value else 8192
    matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    return 2 * size**3 / milliseconds(jax.jit(jnp.matmul), matrix, matrix, repeats=REPEATS.value) / 1e9


def contest(name, who, results):
    """What a contestant needs for a network, with half of the batch while memory is short; or why it failed."""
    case = case_of(name)
    while True:
        try:
            return measure_ours(name, case, results) if who == "ours" else measure_torch(case, who)
        except Exception as error:  # the next network is wanted all the same
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
            memory = any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "out of memory"))
        if not memory or case.batch == 1:
            return {"failed": reason}
        print(f"{name}, {who}: {case.batch} clips do not fit", flush=True)
        case = dataclasses.replace(case, batch=case.batch // 2)
        torch.cuda.empty_cache()


def measure_ours(name, case, results):
    network, videos, label = drawn(case)
    ours = Ours(case, network, videos, label, jnp.bfloat16)
    results.add("convolutions", name, found=to_json(convolutions(ours.jaxpr)))
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", float("inf"))
    if ours.peak_bytes() > limit:
        raise MemoryError(f"out of memory: the train step needs {ours.peak_bytes() / 2**30:.1f} GiB")
    return timed(case, ours, compile_s=ours.compile_seconds, logits=first_logits(jax.tree.leaves(ours.inference())))


def measure_torch(case, who):
    backend = None if who == "torch" else "eager" if REHEARSE.value else "inductor"
    contestant = PyTorch(*drawn(case), backend=backend)
    return timed(case, contestant, logits=first_logits(contestant.inference()))


def timed(case, contestant, **values):
    times = {}
    for kind in ("train", "inference"):
        times[f"{kind}_ms"] = median_milliseconds({kind: getattr(contestant, kind)}, REPEATS.value)[kind]
        times[f"{kind}_clips_per_s"] = 1e3 * case.batch / times[f"{kind}_ms"]
    on_cpu = isinstance(contestant, PyTorch) and contestant.device == "cpu"
    return {"batch": case.batch, **times, "peak_bytes": 0 if on_cpu else contestant.peak_bytes(), **values}


def first_logits(outputs):
    """Some logits of the first clip, which is the same in every batch."""
    return np.asarray(outputs[0], np.float32)[0].ravel()[:400].tolist()


def render_speed(data):
    device, rate = data.get("device", {}), data.get("matrix rate", {}).get("tflops")
    lines = ["## Train step and inference against PyTorch", ""]
    lines += [", ".join(f"{key} {value}" for key, value in device.items())]
    if rate:
        lines.append(f"Matrix rate: {rate:.0f} TFLOP/s, bfloat16. Shares are of the convolutions' operations.")
    lines.append(
        f"Aims: {AIM} times the better PyTorch's clips/s; {AIM_RATE} % of the matrix rate for networks like C2D."
    )
    columns = ["network", "clips ours / torch"]
    for kind in ("train", "inference"):
        columns += [f"{kind}, clips/s ours", "torch", "torch.compile", "ours / better", "ours, % of matrix rate"]
    columns += ["peak ours / torch, GiB", "logits differ", "compile, s"]
    return [*lines, "", *table(columns, [speed_row(data, name, rate) for name in data.get("networks", {})])]


def speed_row(data, name, rate):
    entry = data["networks"][name]
    row = [name, pair(entry, "batch", str)]
    for kind in ("train", "inference"):
        each = {who: entry[who].get(f"{kind}_clips_per_s") for who in CONTESTANTS if who in entry}
        row += [each.get(who) or entry.get(who, {}).get("failed") for who in CONTESTANTS]
        row += [ratio(entry, kind), None]
        if rate and each.get("ours"):
            found = from_json(data["convolutions"][name]["found"])
            channels = case_of(name).channels  # of the videos, for which no gradient is computed
            operations = sum(
                times * one.operations / one.video[0] * (1 if kind == "inference" else 3 - (one.video[-1] in channels))
                for one, times in found.items()
            )
            row[-1] = 100 * operations * each["ours"] / rate / 1e12
    logits = [np.array(entry[who]["logits"]) for who in ("ours", "torch") if "logits" in entry.get(who, {})]
    row.append(pair(entry, "peak_bytes", lambda size: f"{size / 2**30:.1f}"))
    row.append(float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[1]).max()) if len(logits) == 2 else None)
    return [*row, entry.get("ours", {}).get("compile_s")]


def pair(entry, key, text):
    return " / ".join(text(entry[who][key]) if key in entry.get(who, {}) else "–" for who in ("ours", "torch"))


def ratio(entry, kind):
    """Our clips/s, of the better PyTorch's; None where either is not measured."""
    ours, *others = (entry.get(who, {}).get(f"{kind}_clips_per_s") for who in CONTESTANTS)
    return ours / max(filter(None, others)) if ours and any(others) else None


def to_json(found):
    return [[dataclasses.asdict(one), times] for one, times in found.items()]


def from_json(found):
    def tuples(value):
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return collections.Counter(
        {
            gpu_convolutions.Convolution(**{key: tuples(value) for key, value in one.items()}): times
            for one, times in found
        }
    )


# c: convolutions ------------------------------------------------------------------------------------------------------


def convolutions_in_every_formulation(names):
    measured = Results(OUT.value, "speed", render_speed).data
    results = Results(OUT.value, "convolutions", gpu_convolutions.render)
    results.add("matrix rate", tflops=measured.get("matrix rate", {}).get("tflops") or matrix_rate())
    known = measured.get("convolutions", {})
    found = {name: from_json(known[name]["found"]) if name in known else traced(name) for name in names}
    for one, share in costliest(found, NUMBER.value).items():
        measure(one, results, share=share, repeats=REPEATS.value)
    return True


def traced(name):
    """The convolutions of a network's inference, without compiling it."""
    case = case_of(name)
    definition, params, batch_stats = nnx.split(abstract(case, jnp.bfloat16), nnx.Param, nnx.BatchStat)
    shape = (case.batch, case.frames, case.size, case.size)
    videos = [jax.ShapeDtypeStruct((*shape, channels), jnp.float32) for channels in case.channels]
    trees = map(nnx.to_pure_dict, (params, batch_stats))
    return convolutions(jax.make_jaxpr(lambda *arrays: inference(definition, *arrays))(*trees, videos).jaxpr)


# d: profile -----------------------------------------------------------------------------------------------------------


def profile(names):
    entries = Results(OUT.value, "speed", render_speed).data.get("networks", {})
    ratios = {name: found for name in names if (found := ratio(entries.get(name, {}), "train"))}
    results = Results(OUT.value, "profile", render_profile)
    for name in sorted(ratios, key=ratios.get)[:2] or names[:2]:
        batch = entries.get(name, {}).get("ours", {}).get("batch") or case_of(name).batch
        case = dataclasses.replace(case_of(name), batch=batch)
        ours = Ours(case, *drawn(case), jnp.bfloat16)
        for _ in range(2):
            ours.train()
        folder = pathlib.Path(OUT.value, "profile", name)
        steps = 2
        with jax.profiler.trace(str(folder)):
            for _ in range(steps):
                ours.train()
        file = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
        results.add(name, steps=steps, batch=batch, operations=operations(file))
    return True


def operations(file):
    """The time that each operation took on the device, longest first: [[name, milliseconds, calls, where from], …]."""
    trace = jax.profiler.ProfileData.from_file(str(file))  # its planes are read while it lives
    lines = [line for plane in trace.planes for line in plane.lines]
    streams = [line for line in lines if line.name.startswith("Stream")]  # a GPU's; other lines sum up what they do
    spent, calls, origin = collections.Counter(), collections.Counter(), {}
    for line in streams or lines:
        for event in line.events:
            stats = dict(event.stats)
            if streams or "hlo_op" in stats:  # what a CUDA graph launches has none
                spent[event.name] += event.duration_ns / 1e6
                calls[event.name] += 1
                origin.setdefault(event.name, str(stats.get("name") or stats.get("tf_op") or stats.get("hlo_op", "")))
    return [[name, value, calls[name], origin[name]] for name, value in spent.most_common(40)]


def render_profile(data):
    lines = ["## Where the time of a train step goes", ""]
    for name, entry in data.items():
        found, steps = entry["operations"], entry["steps"]
        total = sum(value for _, value, _, _ in found)
        lines += [
            f"{name}, {entry['batch']} clips; the operations that take longest, {total / steps:.1f} ms in all:",
            "",
        ]
        rows = [
            [value / steps, f"{100 * value / total:.1f} %", calls // steps, kernel[:80], source[-100:]]
            for kernel, value, calls, source in found[:25]
        ]
        lines += [*table(["ms a step", "share", "calls", "kernel", "operation"], rows), ""]
    return lines


def correctness(names):
    results = Results(OUT.value, "correctness", gpu_correctness.render)
    return gpu_correctness.run(results, rehearse=REHEARSE.value, only=NETWORK.value)


PARTS = {"a": correctness, "b": speed, "c": convolutions_in_every_formulation, "d": profile}


def main(argv):
    if len(argv) != 2 or argv[1] not in PARTS:
        raise app.UsageError(f"expected one part: {', '.join(PARTS)}")
    known = gpu_correctness.FAMILIES if argv[1] == "a" else NETWORKS
    if NETWORK.value and NETWORK.value not in known:
        raise app.UsageError(f"unknown network {NETWORK.value!r}; choose one of {', '.join(known)}")
    by_jax = argv[1] != "b" or "ours" in WHO.value
    if not REHEARSE.value and not (jax.default_backend() == "gpu" if by_jax else torch.cuda.is_available()):
        raise app.UsageError(f"{'JAX' if by_jax else 'PyTorch'} finds no GPU; --rehearse runs tiny sizes on a CPU")
    torch.set_num_threads(os.cpu_count())
    if REHEARSE.value:
        flags.FLAGS.repeats, flags.FLAGS.convolutions = 1, 2
    done = PARTS[argv[1]]([NETWORK.value] if NETWORK.value else MEASURED)
    sys.exit(0 if done else 1)


if __name__ == "__main__":
    app.run(main)
