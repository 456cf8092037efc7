"""What the benchmark for GPUs finds in networks and writes down; and, by hand, that all of it runs."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT

from jax_video.models.convolution import conv


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


def test_convolutions_of_a_network_are_found_and_weighed():
    from gpu_convolutions import Convolution, convolutions, costliest

    def network(x, kernel, last):
        def layer(x, _):
            return jnp.tanh(conv(x, kernel, padding=((1, 1),) * 3)), None

        x, _ = jax.lax.scan(jax.checkpoint(layer), x, length=3)
        return conv(jax.jit(jnp.tanh)(x), last, strides=(1, 2, 2))

    shapes = ((2, 4, 6, 6, 8), (3, 3, 3, 8, 8), (1, 1, 1, 8, 16))
    found = convolutions(jax.make_jaxpr(network)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)
    cube = Convolution(shapes[0], shapes[1], (1, 1, 1), ((1, 1),) * 3)
    last = Convolution(shapes[0], shapes[2], (1, 2, 2), ((0, 0),) * 3)
    assert found == {cube: 1, last: 1}  # a loop's body counts once
    assert (cube.output, last.output) == ((2, 4, 6, 6, 8), (2, 4, 3, 3, 16))
    assert (cube.operations, last.operations) == (2 * 2 * 4 * 36 * 8 * 8 * 27, 2 * 2 * 4 * 9 * 8 * 16)

    batch_of_3 = Convolution((3, *shapes[0][1:]), *list(vars(cube).values())[1:])
    shares = costliest({"a": found, "b": {batch_of_3: 5}}, number=2)
    assert list(shares) == [cube, last]
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
def test_a_large_video_is_compared_in_parts(kernel):
    from gpu_convolutions import Convolution, largest_error

    convolution = Convolution((1, 9, 5, 5, 2), (*kernel, 2, 2), (1, 1, 1), ((0, 0),) * 3)
    assert max(largest_error(convolution, jnp.float32, parts=3).values()) < 1e-6


def test_results_are_whole_after_every_row(tmp_path):
    from gpu_results import Results, table

    def render(data):
        return table(["network", "ms"], [[name, entry["ours"].get("ms")] for name, entry in data["networks"].items()])

    Results(tmp_path / "out", "speed", render).add("networks", "first", "ours", ms=1.25)
    Results(tmp_path / "out", "speed", render).add("networks", "second", "ours", failed="no memory")
    lines = (tmp_path / "out" / "speed.md").read_text().splitlines()
    assert lines == ["| network | ms |", "| --- | --- |", "| first | 1.25 |", "| second |  |"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"speed.json", "speed.md"}


@pytest.mark.slow
def test_the_benchmark_for_gpus_runs_to_its_end_on_a_cpu(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": sys.executable, "XLA_FLAGS": ""}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--rehearse"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("correctness", "speed", "convolutions", "profile"):
        assert "|" in (tmp_path / "out" / f"{name}.md").read_text(encoding="utf-8"), name
