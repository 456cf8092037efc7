"""How long PyTorch weights take to load into 3D-ResNet-101 and to be checked there, and how much memory.

    python benchmarks/load_weights.py
    python benchmarks/load_weights.py --suffix=.safetensors

Memory is what the process holds at its peak beyond what it held with everything imported, in copies of the weights.
Linux only.
"""

import multiprocessing
import pathlib
import re
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
import torch  # noqa: E402
from reference import resnet  # noqa: E402

from configs import stc  # noqa: E402
from jax_video import optimizer, sharding, state  # noqa: E402
from jax_video.weights import files, names, proof, start  # noqa: E402

SUFFIX = flags.DEFINE_enum("suffix", ".pth", files.SUFFIXES, "Format of the file.")


def memory(which: str) -> int:
    """VmRSS (now) or VmHWM (the peak) in bytes."""
    return 1024 * int(re.search(rf"{which}:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])


def reset_peak() -> None:
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def make(path: pathlib.Path) -> None:
    """Write the file, in a process of its own, which takes what it used with it."""
    torch.manual_seed(0)
    network = resnet.build("resnet3d101", 400).eval()
    files.write(path, {name: tensor.numpy() for name, tensor in network.state_dict().items()})
    video = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 112, 112), np.uint8)
    mean, std = (torch.tensor(values)[:, None, None, None] for values in names.KINETICS.values())
    with torch.inference_mode():
        logits = network((torch.from_numpy(video) - mean) / std).numpy()
    np.savez(path.with_name("outputs.npz"), video=video, logits=logits)


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"weights{SUFFIX.value}"
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(make, (path,))
        size = path.stat().st_size
        torch.zeros(1), jax.numpy.zeros(1).block_until_ready()

        config = stc.get_config("model=resnet3d101,recipe=paper")
        config.init_from.update(path=str(path), layout="3d-resnets", keep_head=True)
        tx, mesh = optimizer.make(0.1), sharding.make_mesh()
        before = memory("VmRSS")
        reset_peak()
        begun = time.perf_counter()
        weights = start.read(path, "3d-resnets", config, mesh)
        seconds, peak = time.perf_counter() - begun, memory("VmHWM") - before
        print(f"{size / 2**20:.0f} MiB of weights, {path.suffix}")
        print(f"read and matched: {seconds:.1f} s, peak {peak / size:.2f} copies")
        del weights

        before = memory("VmRSS")
        reset_peak()
        begun = time.perf_counter()
        classes = [str(index) for index in range(400)]
        first = start.initial_state(config, classes, mesh, lambda: state.create(state.network(config, 400), tx))
        first = jax.block_until_ready(sharding.place_state(first, mesh))
        seconds, peak = time.perf_counter() - begun, memory("VmHWM") - before
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(first))
        optimizer_state = sum(np.prod(leaf.shape) * 4 for leaf in jax.tree.leaves(first.opt_state))
        print(
            f"a run's first state, on the device: {seconds:.1f} s, peak {(peak - optimizer_state) / size:.2f} copies "
            f"beside the optimizer's {optimizer_state / size:.2f}"
        )

        config.normalize.update(names.KINETICS)
        before = memory("VmRSS")
        reset_peak()
        begun = time.perf_counter()
        lines = proof.compare(config, 400, first, path.with_name("outputs.npz"))
        seconds, peak = time.perf_counter() - begun, memory("VmHWM") - before
        print(f"checked, in float32 and in {config.dtype}: {seconds:.1f} s, peak {peak / size:.2f} copies")
        print("\n".join(f"  {line}" for line in lines))


if __name__ == "__main__":
    app.run(main)
