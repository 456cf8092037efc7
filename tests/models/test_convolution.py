"""The convolution and the max pool: all forms and PyTorch's agree, and each stays where it belongs."""

import functools
import itertools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from jax_video.errors import UserError
from jax_video.models import convolution, convolution_cpu, convolution_gpu, convolution_xla

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# video [B, T, H, W, C], kernel [t, h, w], features, strides, padding, groups
CASES = {
    "3x3x3": ((2, 4, 5, 6, 3), (3, 3, 3), 5, (1, 1, 1), ((1, 1), (1, 1), (1, 1)), 1),
    "3x3x3 stride 2": ((2, 4, 5, 6, 3), (3, 3, 3), 5, (2, 2, 2), ((1, 1), (1, 1), (1, 1)), 1),
    "stem": ((2, 4, 11, 12, 3), (7, 7, 7), 4, (1, 2, 2), ((3, 3), (3, 3), (3, 3)), 1),
    "stem with temporal stride": ((2, 5, 11, 12, 3), (7, 7, 7), 4, (2, 2, 2), ((3, 3), (3, 3), (3, 3)), 1),
    "5 taps, temporal stride, even": ((2, 8, 6, 7, 3), (5, 3, 3), 4, (2, 2, 2), ((2, 2), (1, 1), (1, 1)), 1),
    "7 taps, temporal stride 3": ((2, 9, 6, 7, 3), (7, 3, 3), 4, (3, 1, 1), ((3, 2), (1, 1), (1, 1)), 1),
    "1x1x1": ((2, 3, 4, 5, 6), (1, 1, 1), 7, (1, 1, 1), ((0, 0), (0, 0), (0, 0)), 1),
    "1x1x1 stride 2": ((2, 3, 4, 5, 6), (1, 1, 1), 7, (2, 2, 2), ((0, 0), (0, 0), (0, 0)), 1),
    "1x3x3": ((2, 3, 4, 5, 3), (1, 3, 3), 4, (1, 1, 1), ((0, 0), (1, 1), (1, 1)), 1),
    "3x1x3": ((2, 3, 4, 5, 3), (3, 1, 3), 4, (1, 2, 2), ((1, 1), (0, 0), (1, 1)), 1),
    "1x5x5 stride 2": ((2, 3, 7, 8, 3), (1, 5, 5), 4, (1, 2, 2), ((0, 0), (2, 2), (2, 2)), 1),
    "5x1x5 stride 2": ((2, 5, 7, 8, 3), (5, 1, 5), 4, (1, 2, 2), ((2, 2), (0, 0), (2, 2)), 1),
    "3x3x1": ((2, 3, 4, 5, 3), (3, 3, 1), 4, (1, 1, 1), ((1, 1), (1, 1), (0, 0)), 1),
    "3x1x1 temporal stride": ((2, 6, 4, 5, 3), (3, 1, 1), 4, (2, 1, 1), ((1, 1), (0, 0), (0, 0)), 1),
    "even depth": ((2, 5, 4, 5, 3), (6, 3, 3), 4, (1, 1, 1), ((2, 3), (1, 1), (1, 1)), 1),
    "one frame": ((2, 1, 2, 2, 4), (3, 3, 3), 5, (1, 1, 1), ((1, 1), (1, 1), (1, 1)), 1),
    "stride beyond the kernel": ((2, 5, 7, 7, 3), (1, 2, 3), 4, (3, 5, 4), ((0, 0), (0, 1), (1, 0)), 1),
    "padding beyond the kernel": ((1, 2, 3, 3, 2), (2, 3, 3), 3, (1, 1, 2), ((3, 2), (4, 3), (2, 5)), 1),
    "large frames": ((2, 3, 9, 8, 5), (3, 3, 3), 4, (1, 1, 1), ((1, 1), (1, 1), (1, 1)), 1),
    "32 groups of 1": ((2, 3, 4, 4, 32), (3, 3, 3), 64, (1, 1, 1), ((1, 1), (1, 1), (1, 1)), 32),
    "8 groups of 4, stride 2": ((2, 4, 5, 5, 32), (3, 3, 3), 32, (2, 2, 2), ((1, 1), (1, 1), (1, 1)), 8),
    "3 groups": ((2, 3, 4, 4, 6), (3, 3, 3), 9, (1, 1, 1), ((1, 1), (1, 1), (1, 1)), 3),
    "2 wide groups": ((1, 2, 3, 3, 64), (3, 3, 3), 32, (1, 1, 1), ((1, 1), (1, 1), (1, 1)), 2),
}
FORMS = {
    "cpu": (convolution_cpu.conv_cpu, convolution_cpu.conv_gradients_cpu),
    "xla": (convolution_xla.conv_xla, convolution_xla.conv_gradients_xla),
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def draw(video, kernel, features, groups, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=video).astype(dtype)
    return x, rng.normal(size=(*kernel, video[-1] // groups, features)).astype(dtype)


def test_outside_of_jit_it_is_compiled_once(monkeypatch):
    x, kernel = draw((2, 3, 5, 6, 3), (3, 3, 3), 4, 1, np.float32)
    expected = jax.jit(convolution.conv)(x, kernel)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **kwargs: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        for _ in range(3):
            np.testing.assert_allclose(convolution.conv(x, kernel), expected, rtol=1e-6)
    finally:
        jax.monitoring.clear_event_listeners()
    assert len(compiled) <= 1
    with jax.disable_jit():
        np.testing.assert_allclose(convolution.conv(x, kernel), expected, rtol=1e-6)


def torch_conv(x, kernel, strides, padding, groups):
    """y, and a function from dy to the gradients, by PyTorch in float64, all channels last."""
    x = torch.tensor(x, requires_grad=True)
    kernel = torch.tensor(kernel, requires_grad=True)
    margin = [size for pair in reversed(padding) for size in pair]
    padded = torch.nn.functional.pad(x.permute(0, 4, 1, 2, 3), margin)
    y = torch.nn.functional.conv3d(padded, kernel.permute(4, 3, 0, 1, 2), stride=strides, groups=groups)
    y = y.permute(0, 2, 3, 4, 1)

    def gradients(dy):
        return [gradient.numpy() for gradient in torch.autograd.grad(y, (x, kernel), torch.tensor(dy))]

    return y.detach().numpy(), gradients


def assert_close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def check_conv(form, video, kernel, features, strides, padding, groups):
    x, kernel = draw(video, kernel, features, groups)
    expected, expected_gradients = torch_conv(x, kernel, strides, padding, groups)
    forward, gradients = FORMS[form]
    options = {"strides": strides, "padding": padding, "groups": groups}
    y = jax.jit(functools.partial(forward, **options))(x, kernel)
    dy = np.random.default_rng(1).normal(size=expected.shape)
    assert_close(y, expected, 1e-12)
    found = jax.jit(functools.partial(gradients, **options))(x, kernel, dy)
    for ours, theirs in zip(found, expected_gradients(dy), strict=True):
        assert_close(ours, theirs, 1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_conv_matches_pytorch(form, case):
    check_conv(form, *CASES[case])


@st.composite
def geometries(draw):
    axes = []
    for _ in range(3):
        taps = draw(st.integers(1, 4))
        padding = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
        size = draw(st.integers(max(1, taps - sum(padding)), 6))
        axes.append((size, taps, draw(st.integers(1, 3)), padding))
    sizes, taps, strides, padding = zip(*axes, strict=True)
    groups = draw(st.sampled_from([1, 1, 2, 3, 4]))
    channels, features = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    return (draw(st.integers(1, 2)), *sizes, channels), taps, features, strides, padding, groups


@settings(max_examples=20)
@given(geometry=geometries())
def test_conv_matches_pytorch_at_any_geometry(geometry):
    with jax.enable_x64(True):
        check_conv("cpu", *geometry)


def check_formulations(video, kernel, features, strides, padding, groups):
    """All formulations for GPU that apply, and their gradients, against XLA's convolution, in one program."""
    x, kernel = draw(video, kernel, features, groups)
    options = {"strides": strides, "padding": padding, "groups": groups}
    names = [name for name in convolution_gpu.FORMULATIONS if convolution_gpu.applies(name, kernel.shape)]
    shape = jax.eval_shape(functools.partial(convolution_xla.conv_xla, **options), x, kernel).shape
    dy = np.random.default_rng(1).normal(size=shape)

    def all_passes(x, kernel, dy):
        def passes(form):
            y, pull = jax.vjp(functools.partial(form, **options), x, kernel)
            return y, *pull(dy)

        return {name: passes(convolution_gpu.FORMULATIONS[name]) for name in names}

    results = jax.jit(all_passes)(x, kernel, dy)
    for name in names:
        for ours, expected in zip(results[name], results["xla"], strict=True):
            assert_close(ours, np.asarray(expected), 1e-12)
    return names


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "case",
    [
        "3x3x3 stride 2",
        "stem with temporal stride",
        "even depth",
        "1x1x1 stride 2",
        "1x5x5 stride 2",
        "5x1x5 stride 2",
        "3x3x1",
        "3x1x1 temporal stride",
        "one frame",
        "stride beyond the kernel",
        "padding beyond the kernel",
        "3 groups",
    ],
)
def test_formulations_for_gpu_are_exact(case):
    assert len(check_formulations(*CASES[case])) > 1


@settings(max_examples=5)
@given(geometry=geometries())
def test_formulations_for_gpu_are_exact_at_any_geometry(geometry):
    with jax.enable_x64(True):
        check_formulations(*geometry)


def test_every_pass_has_the_formulation_that_the_table_says(monkeypatch):
    called = []

    def spy(name, form):
        def call(*arrays, **options):
            called.append(name)
            return form(*arrays, **options)

        return call

    for name, form in convolution_gpu.FORMULATIONS.items():
        monkeypatch.setitem(convolution_gpu.FORMULATIONS, name, spy(name, form))
    key, three = ("k×k×k", "bfloat16"), ("taps as inputs", "taps as outputs", "sum over taps")
    monkeypatch.setitem(convolution_gpu.CHOICES, key, convolution_gpu.Choice(*three))

    def loss(x, kernel):
        return convolution.conv(x, kernel, padding=((1, 1),) * 3).sum()

    for dtype, expected in ((jnp.bfloat16, three), (jnp.float32, ("xla",) * 3)):
        called.clear()
        arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((1, 3, 4, 4, 8), (3, 3, 3, 8, 8))]
        jax.jit(jax.value_and_grad(loss, (0, 1))).trace(*arrays).lower(lowering_platforms=("cuda",))
        assert sorted(called) == sorted(expected), dtype


def test_the_table_for_gpu_names_what_applies():
    """For every class of shapes, with and without groups; and every class is found for some shape."""
    found = set()
    for extent in itertools.product((1, 3), repeat=3):
        for channels, groups in ((3, 1), (16, 1), (2, 8)):
            kernel = (*extent, channels, 16)
            found.add(convolution_gpu.shape_class(kernel, groups))
            for name in convolution_gpu.choice(kernel, jnp.bfloat16, groups):
                assert convolution_gpu.applies(name, kernel)
    assert found == {name for name, _ in convolution_gpu.CHOICES}


@pytest.mark.parametrize(
    ("kernel", "operation", "rank"),
    [((1, 1, 1), "dot_general", 2), ((1, 3, 3), "convolution", 4), ((3, 1, 1), "convolution", 4)],
)
def test_gpu_gets_matrix_products_and_2d_convolutions(kernel, operation, rank):
    x, kernel = draw((2, 4, 6, 6, 4), kernel, 4, 1, np.float32)

    def loss(x, kernel):
        return jnp.square(convolution.conv(x, kernel)).sum()

    gradient = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel)
    for platform in ("cuda", "rocm"):
        lowered = gradient.lower(lowering_platforms=(platform,)).as_text()
        found = re.findall(r"stablehlo\.(dot_general|convolution)\b.*: \(.*, tensor<((?:\d+x)+)f32>\) ->", lowered)
        assert [name for name, _ in found] == [operation] * 3
        assert operation == "dot_general" or {shape.count("x") for _, shape in found} == {rank}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", ["3x3x3", "stem", "stem with temporal stride", "even depth", "32 groups of 1"])
def test_frames_in_turns_give_the_same(monkeypatch, case):
    monkeypatch.setattr(convolution_cpu, "_PATCH_BYTES", 0)
    check_conv("cpu", *CASES[case])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", ["stem", "5 taps, temporal stride, even", "even depth", "padding beyond the kernel"])
def test_frames_as_images_give_the_same(monkeypatch, case):
    monkeypatch.setattr(convolution_cpu, "_FEW_PLACES", 1)
    check_conv("cpu", *CASES[case])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["3x3x3", "3x3x3 stride 2", "32 groups of 1"])
def test_conv_in_bfloat16(form, case):
    video, kernel, features, strides, padding, groups = CASES[case]
    x, kernel = (jnp.asarray(array, jnp.bfloat16) for array in draw(video, kernel, features, groups))
    exact = (np.asarray(array.astype(jnp.float32), np.float64) for array in (x, kernel))
    expected, expected_gradients = torch_conv(*exact, strides, padding, groups)
    forward, gradients = FORMS[form]
    options = {"strides": strides, "padding": padding, "groups": groups}
    y = jax.jit(functools.partial(forward, **options))(x, kernel)
    found = (y, *jax.jit(functools.partial(gradients, **options))(x, kernel, jnp.ones_like(y)))
    assert {array.dtype for array in found} == {jnp.dtype(jnp.bfloat16)}
    for ours, theirs in zip(found, (expected, *expected_gradients(np.ones(y.shape))), strict=True):
        assert_close(ours.astype(jnp.float32), theirs, 2e-2)


def loss(x, kernel):
    """Convs under scan and remat, a max pool, and a strided conv."""
    ones = ((1, 1), (1, 1), (1, 1))

    def layer(x, _):
        return jnp.tanh(convolution.conv(x, kernel, padding=ones)), None

    x, _ = jax.lax.scan(jax.checkpoint(layer), x, length=2)
    x = convolution.max_pool(x, (3, 3, 3), strides=(2, 2, 2), padding=ones)
    return jnp.square(convolution.conv(x, kernel, strides=(2, 2, 2), padding=ones)).sum()


@pytest.mark.usefixtures("float64")
def test_gradients_under_jit_scan_and_remat():
    x, kernel = map(jnp.asarray, draw((1, 3, 4, 4, 2), (3, 3, 3), 2, 1))
    check_grads(jax.jit(loss), (x, kernel), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_gradients_of_gradients_and_vmap():
    """Which no network needs: of a penalty on the gradient, by differences; and of two kernels at once."""
    x, kernel = map(jnp.asarray, draw((1, 2, 3, 3, 2), (2, 2, 2), 2, 1))
    pad = ((1, 0), (0, 1), (1, 1))

    def penalty(x, kernel):
        def through(x):
            y = jnp.tanh(convolution.conv(x, kernel, padding=pad))
            return jnp.square(convolution.max_pool(y, (2, 2, 2), strides=(1, 1, 1), padding=((0, 0),) * 3)).sum()

        return jnp.square(jax.grad(through)(x)).sum()

    check_grads(jax.jit(penalty), (x, kernel), order=1, modes=["rev"], rtol=1e-5)
    both = jnp.stack([kernel, 2 * kernel])
    found = jax.vmap(lambda kernel: convolution.conv(x, kernel, padding=pad))(both)
    np.testing.assert_allclose(found[1], 2 * convolution.conv(x, kernel, padding=pad), rtol=1e-12)


def test_kernel_is_cast_to_the_video():
    x, kernel = draw((1, 2, 3, 3, 2), (3, 3, 3), 4, 1, np.float32)
    x = jnp.asarray(x, jnp.bfloat16)

    def output_and_gradients(x, kernel):
        y, gradients = jax.vjp(lambda x, kernel: convolution.conv(x, kernel), x, kernel)
        return y, *gradients(y)

    found = jax.eval_shape(output_and_gradients, x, jnp.asarray(kernel)[:2])
    assert [leaf.dtype for leaf in found] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]


def test_tpu_gets_plain_convolutions_and_pools():
    x, kernel = draw((2, 8, 8, 8, 4), (3, 3, 3), 4, 1, np.float32)

    def network(x, kernel):
        x = convolution.conv(x, kernel, strides=(2, 2, 2), padding=((1, 1),) * 3)
        return convolution.max_pool(x, (3, 3, 3), strides=(1, 1, 1), padding=((0, 0),) * 3).sum()

    lowered = jax.jit(jax.grad(network, (0, 1))).trace(x, kernel).lower(lowering_platforms=("tpu",)).as_text()
    assert lowered.count("stablehlo.convolution") == 3  # forward, and the two gradients
    assert lowered.count("stablehlo.select_and_scatter") == 1
    for operation in ("dot_general", "concatenate", "stablehlo.slice", "optimization_barrier", "while"):
        assert operation not in lowered


def test_cpu_gets_no_3d_convolution():
    x, kernel = draw((2, 8, 8, 8, 4), (3, 3, 3), 4, 1, np.float32)
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile().as_text()
    for operation in ("reduce-window(", "select-and-scatter(", "conditional("):
        assert operation not in compiled
    windows = re.findall(r"convolution\(.*window={size=([0-9x]+)", compiled)
    assert set(windows) == {"3x3"}  # of frames, which are convolved as images


@pytest.mark.parametrize("limit", ["", "_PATCH_BYTES", "_FEW_PLACES"])
def test_sharded_batch_stays_where_it_is(monkeypatch, limit):
    if limit:
        monkeypatch.setattr(convolution_cpu, limit, 0)
    x, kernel = draw((8, 4, 6, 6, 4), (3, 3, 3), 4, 1, np.float32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
    # A new function each time: jit must not remember what it traced with another limit.
    step = jax.jit(jax.value_and_grad(lambda x, kernel: loss(x, kernel), (0, 1)))
    compiled = step.lower(sharded, replicated).compile()
    assert not re.findall(r"all-gather|all-to-all|collective-permute", compiled.as_text())
    value, gradients = compiled(sharded, replicated)
    expected, expected_gradients = step(x, kernel)
    assert_close(value, np.asarray(expected), 1e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert_close(ours, np.asarray(theirs), 1e-5)
    assert gradients[0].sharding.is_equivalent_to(sharded.sharding, 5)


@pytest.mark.parametrize("size", [4, 8])  # small frames, and frames that are convolved as images
def test_a_program_for_batches_of_any_size_can_be_exported(size):
    _, kernel = draw((2, 8, size, size, 4), (3, 3, 3), 4, 1, np.float32)
    (batch,) = jax.export.symbolic_shape("batch")
    video = jax.ShapeDtypeStruct((batch, 8, size, size, 4), jnp.float32)
    exported = jax.export.export(jax.jit(loss), platforms=("cpu", "cuda", "tpu"))(video, kernel)
    for videos in (1, 3):
        x, _ = draw((videos, 8, size, size, 4), (3, 3, 3), 4, 1, np.float32)
        assert_close(exported.call(x, kernel), np.asarray(loss(x, kernel)), 1e-5)


def test_memory_is_bounded_by_the_turns():
    """The stem's patches would be 147 times the video of one frame each; only some frames' exist at a time."""
    x = jax.ShapeDtypeStruct((16, 16, 56, 56, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((7, 7, 7, 3, 16), jnp.float32)
    stem = functools.partial(convolution.conv, strides=(1, 2, 2), padding=((3, 3),) * 3)

    def gradient(x, kernel):
        return jax.grad(lambda kernel: stem(x, kernel).sum())(kernel)

    for function in (stem, gradient):
        memory = jax.jit(function).lower(x, kernel).compile().memory_analysis().temp_size_in_bytes
        assert memory < 120e6  # patches of all frames alone: 118 MB, products another 90


POOLS = {
    "stem": ((2, 5, 8, 7, 3), (3, 3, 3), (2, 2, 2), ((1, 1), (1, 1), (1, 1))),
    "1x3x3": ((2, 3, 8, 7, 3), (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
    "3x1x1": ((2, 6, 3, 3, 3), (3, 1, 1), (2, 1, 1), ((1, 1), (0, 0), (0, 0))),
    "2x2x2": ((2, 5, 6, 7, 3), (2, 2, 2), (2, 2, 2), ((0, 0), (0, 0), (0, 0))),
    "inception": ((2, 3, 5, 5, 3), (3, 3, 3), (1, 1, 1), ((1, 1), (1, 1), (1, 1))),
    "window 5": ((2, 11, 1, 1, 3), (5, 1, 1), (2, 1, 1), ((0, 0), (0, 0), (0, 0))),
    "stride beyond the window": ((1, 5, 7, 7, 2), (1, 2, 3), (3, 3, 4), ((0, 0), (1, 0), (0, 1))),
}
POOL_FORMS = {
    "cpu": (convolution_cpu.max_pool_cpu, convolution_cpu.max_pool_gradient_cpu),
    "xla": (convolution_xla.max_pool_xla, convolution_xla.max_pool_gradient_xla),
}


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("form", POOL_FORMS)
@pytest.mark.parametrize("case", POOLS)
def test_max_pool_matches_pytorch(form, case, ties):
    """Also which of equal maxima gets the gradient. Exactly: whole numbers are all that is added."""
    video, window, strides, padding = POOLS[case]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, size=video) if ties else rng.permutation(np.prod(video)).reshape(video)
    x = x.astype(np.float32)
    forward, gradient = POOL_FORMS[form]
    options = {"window": window, "strides": strides, "padding": padding}

    theirs = torch.tensor(x, requires_grad=True)
    margin = [size for pair in reversed(padding) for size in pair]
    padded = torch.nn.functional.pad(theirs.permute(0, 4, 1, 2, 3), margin, value=-torch.inf)
    expected = torch.nn.functional.max_pool3d(padded, window, strides).permute(0, 2, 3, 4, 1)
    dy = rng.integers(-9, 9, size=expected.shape).astype(np.float32)
    (expected_gradient,) = torch.autograd.grad(expected, theirs, torch.tensor(dy))

    np.testing.assert_array_equal(forward(x, **options), expected.detach().numpy())
    np.testing.assert_array_equal(jax.jit(functools.partial(gradient, **options))(x, dy), expected_gradient.numpy())


AVERAGES = {
    "2x2x2": ((2, 5, 6, 7, 3), (2, 2, 2), (2, 2, 2)),
    "1x2x2": ((2, 3, 6, 7, 3), (1, 2, 2), (1, 2, 2)),
    "1x7x7": ((2, 3, 8, 9, 3), (1, 7, 7), (1, 1, 1)),
    "whole": ((2, 2, 4, 4, 3), (2, 4, 4), (1, 1, 1)),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", AVERAGES)
def test_avg_pool_matches_pytorch(case):
    video, window, strides = AVERAGES[case]
    rng = np.random.default_rng(0)
    x = rng.normal(size=video)
    theirs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.avg_pool3d(theirs.permute(0, 4, 1, 2, 3), window, strides).permute(0, 2, 3, 4, 1)
    dy = rng.normal(size=expected.shape)
    (expected_gradient,) = torch.autograd.grad(expected, theirs, torch.tensor(dy))

    y, pull = jax.vjp(jax.jit(functools.partial(convolution.avg_pool, window=window, strides=strides)), x)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-14)
    np.testing.assert_allclose(pull(dy)[0], expected_gradient.numpy(), atol=1e-14)


def test_avg_pool_errors():
    with pytest.raises(UserError, match=r"avg_pool got shape \(2, 4, 4, 3\); expected \[B, T, H, W, C\]"):
        convolution.avg_pool(jnp.zeros((2, 4, 4, 3)), (1, 2, 2), strides=(1, 2, 2))
    with pytest.raises(UserError, match=r"a window of \(2, 2, 2\) does not fit into a video of \(1, 4, 4\)"):
        convolution.avg_pool(jnp.zeros((2, 1, 4, 4, 3)), (2, 2, 2), strides=(2, 2, 2))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_max_pool_forms_agree_in_other_types(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x = jnp.asarray(np.random.default_rng(0).integers(-3, 3, size=(2, 4, 5, 5, 3)), dtype)
        options = {"window": (3, 3, 3), "strides": (2, 2, 2), "padding": ((4, 1), (1, 1), (1, 2))}

        def jitted(form):
            return jax.jit(functools.partial(form, **options))

        pooled, expected = jitted(convolution_cpu.max_pool_cpu)(x), jitted(convolution_xla.max_pool_xla)(x)
        assert pooled.dtype == expected.dtype == dtype
        np.testing.assert_array_equal(pooled, expected)  # -inf where a window holds padding only
        ours, theirs = (
            jitted(form)(x, jnp.ones_like(pooled))
            for form in (convolution_cpu.max_pool_gradient_cpu, convolution_xla.max_pool_gradient_xla)
        )
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("video", "kernel", "groups", "message"),
    [
        ((4, 5, 5, 3), (3, 3, 3, 3, 8), 1, r"\[B, T, H, W, C\]"),
        ((2, 4, 5, 5, 3), (3, 3, 3, 8), 1, r"\[t, h, w, C / groups, C_out\]"),
        ((2, 4, 5, 5, 3), (3, 3, 3, 4, 8), 1, "got 3 channels in 1 groups"),
        ((2, 4, 5, 5, 4), (3, 3, 3, 2, 7), 2, "C_out divisible by groups"),
        ((2, 2, 5, 5, 3), (3, 3, 3, 3, 8), 1, r"window of \(3, 3, 3\) does not fit into a video of \(2, 5, 5\)"),
    ],
)
def test_conv_errors(video, kernel, groups, message):
    with pytest.raises(UserError, match=message):
        convolution.conv(jnp.zeros(video), jnp.zeros(kernel), groups=groups)


def test_max_pool_errors():
    options = {"strides": (2, 2, 2), "padding": ((0, 0),) * 3}
    with pytest.raises(UserError, match=r"expected \[B, T, H, W, C\]"):
        convolution.max_pool(jnp.zeros((4, 5, 5, 3)), (3, 3, 3), **options)
    with pytest.raises(UserError, match="does not fit"):
        convolution.max_pool(jnp.zeros((1, 2, 5, 5, 3)), (3, 3, 3), **options)
