"""Every registered network: shapes, finite numbers, a gradient for every parameter; and `build`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import outlines
import pytest
from flax import nnx

from jax_video import models, networks, state
from jax_video.errors import UserError
from jax_video.models.layers import BatchNorm

pytestmark = pytest.mark.usefixtures("strict_dtypes")

BATCH = 4
# That these reach every parameter is seen where their gradients are compared with PyTorch's: test_cost.py,
# test_st_resnet.py, test_inception.py, test_densenet.py, test_t3d.py, test_c3d.py, test_resnet3d_parity.py,
# test_video_resnet.py.
COMPARED = """
    resnet3d18 resnet3d34 resnet34 cost_b_resnet50 cost_b_resnet101 st_resnet inception3d densenet3d121 densenet3d169
    t3d121 t3d169 mc3_18 r2plus1d_18 c3d
""".split()
# Others hold all that these hold, and what takes long is to compile.
ALIKE = """
    resnet3d10 resnet3d50 resnet3d101 resnet3d152 resnet3d200 stc_resnet50 stc_resnet101 stc_resnext101 densenet121
    densenet169 resnet18 resnet50 resnet101 resnet152 resnext50 resnext101 c2d_resnet50 c3d_3x1x1_resnet50
    c3d_3x3x3_resnet50 cost_a_resnet50 c2d_resnet101 c3d_3x1x1_resnet101 c3d_3x3x3_resnet101 cost_a_resnet101
    appearance_stream motion_stream two_streams st_resnet_star r3d_18
""".split()
FAMILIES = ["resnet3d18", "t3d121", "cost_b_resnet50", "st_resnet", "inception3d", "c3d"]


def small(name, **kwargs):
    """(graph definition, params, batch_stats) of the network with one unit per stage and small widths."""
    kwargs = outlines.small(name) | kwargs

    def build():
        return models.build(name, num_classes=5, rngs=models.Keys(0), width=0.125, **kwargs)

    graphdef, *trees = state.split(nnx.eval_shape(build))
    rng = np.random.default_rng(0)  # initialising as the networks do compiles a function for every shape

    def draw(leaf):
        if leaf.ndim == 1:  # scales, offsets and statistics
            return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        return (rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(leaf.dtype)

    return graphdef, *jax.tree.map(draw, trees)


def videos(name):
    """What the network takes: RGB, flow or both."""
    rng = np.random.default_rng(0)
    shape = (BATCH, *outlines.small_clip(name))
    channels = [networks.CHANNELS[stream] for stream in networks.find(name).streams]
    return [rng.normal(size=(*shape, count)).astype(np.float32) for count in channels]


def gradients_of(graphdef, params, batch_stats, *videos):
    """Logits, new running statistics and gradients of a cross-entropy, as a train step computes them."""

    def loss(params):
        model = nnx.merge(graphdef, params, batch_stats)
        outputs = model(*videos, keys=jax.random.split(jax.random.key(0), len(videos[0])))
        total = 0.0
        for logits in jax.tree.leaves(outputs):  # [B, K], or [B, T, h, w, K] of each stream
            labels = jnp.arange(logits.shape[0]) % logits.shape[-1]
            by_class = jnp.moveaxis(jax.nn.log_softmax(logits), -1, 1)
            total -= by_class[jnp.arange(logits.shape[0]), labels].mean()
        return total, (outputs, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    gradients, (outputs, statistics) = jax.grad(loss, has_aux=True)(params)
    return outputs, statistics, gradients


train = jax.jit(gradients_of, static_argnames="graphdef")  # networks that differ in depth alone compile once


@functools.partial(jax.jit, static_argnames="graphdef")
def in_test_mode(graphdef, params, batch_stats, *videos):
    """Outputs in test mode."""
    return state.join(graphdef, params, batch_stats, train=False)(*videos)


def features(graphdef, params, batch_stats, *videos):
    return nnx.merge(graphdef, params, batch_stats).features(*videos)


def names_where(predicate, tree, *rest):
    """Names of the leaves for which the predicate holds."""
    marks = jax.tree.map(lambda *leaves: bool(predicate(*leaves)), tree, *rest)
    return [jax.tree_util.keystr(path) for path, mark in jax.tree_util.tree_leaves_with_path(marks) if mark]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE + COMPARED)) for name in networks.NETWORKS],
)
def test_every_network_is_finite_and_reaches_every_parameter(name):
    graphdef, params, batch_stats = small(name)
    outputs, statistics, gradients = train(graphdef, params, batch_stats, *videos(name))
    for logits in jax.tree.leaves(outputs):
        assert logits.shape[0] == BATCH and logits.shape[-1] == 5
        assert np.all(np.isfinite(logits)) and np.ptp(logits) > 0
    assert names_where(lambda leaf: not np.all(np.isfinite(leaf)), gradients) == []
    assert names_where(lambda leaf: not np.any(leaf), gradients) == []
    assert names_where(lambda old, new: np.any(old == new), batch_stats, statistics) == []


@pytest.mark.parametrize("name", ["resnet3d18", "stc_resnet18", "densenet3d121", "t3d121", "inception3d", "c3d"])
def test_3d_networks_see_the_order_of_frames(name):
    """Which C2D with the authors' pools does not: tests/models/test_cost.py."""
    parts, (video,) = small(name), videos(name)
    there, back = in_test_mode(*parts, video), in_test_mode(*parts, video[:, ::-1])
    assert np.abs(there - back).max() > 1e-3 * np.abs(there).max()


def test_variants_reach_every_parameter():
    graphdef, params, batch_stats = small("stc_resnet18", preactivation=True, shortcut="A", branches="scb")
    logits, _, gradients = train(graphdef, params, batch_stats, *videos("stc_resnet18"))
    assert np.all(np.isfinite(logits))
    assert names_where(lambda leaf: not np.any(leaf), gradients) == []


def rematerialises(jaxpr):
    return any(equation.primitive.name.startswith("remat") for equation in jaxpr.eqns)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_the_type_of_activations_only(name):
    """And nothing is rematerialised where that is not asked for."""
    graphdef, *trees = small(name, dtype=jnp.bfloat16)
    outputs, statistics, gradients = jax.eval_shape(functools.partial(gradients_of, graphdef), *trees, *videos(name))
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, statistics, gradients, trees))} == {jnp.dtype("float32")}
    jaxpr, activations = jax.make_jaxpr(features, static_argnums=0, return_shape=True)(graphdef, *trees, *videos(name))
    assert not rematerialises(jaxpr)
    assert {leaf.dtype for leaf in jax.tree.leaves(activations)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("name", ["t3d121", "cost_b_resnet50", "st_resnet", "inception3d"])
def test_bfloat16_is_close_to_float32(name):
    def scores(dtype):
        outputs = in_test_mode(*small(name, dtype=dtype), *videos(name))
        return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(outputs)])

    exact = scores(jnp.float32)
    assert 0 < np.abs(scores(jnp.bfloat16) - exact).max() < 0.1 * np.abs(exact).max()


def test_bfloat16_trains():
    exact, *_ = train(*small("stc_resnet18"), *videos("stc_resnet18"))
    graphdef, params, batch_stats = small("stc_resnet18", dtype=jnp.bfloat16)
    logits, _, gradients = train(graphdef, params, batch_stats, *videos("stc_resnet18"))
    assert names_where(lambda leaf: not np.any(leaf), gradients) == []
    assert 0 < np.abs(logits - exact).max() < 0.25 * np.abs(exact).max()


@pytest.mark.parametrize("name", FAMILIES)
def test_rematerialisation_is_a_keyword_of_every_family(name):
    """Also of a network that is no argument of what is traced: `jax.jit(network)` of one in test mode."""
    parts = small(name, remat=True)
    assert rematerialises(jax.make_jaxpr(features, static_argnums=0)(*parts, *videos(name)))
    again, kept = (nnx.view(nnx.merge(*each), use_running_average=True) for each in (parts, small(name)))
    shapes = [jax.eval_shape(network, *videos(name)) for network in (again, again, kept)]
    assert shapes[0] == shapes[1] == shapes[2]


def test_test_mode_gives_a_video_the_same_scores_in_any_batch():
    parts, (video,) = small("resnet3d18"), videos("resnet3d18")
    np.testing.assert_allclose(in_test_mode(*parts, video[1:3]), in_test_mode(*parts, video)[1:3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("depth", ["a unit per stage", pytest.param("full", marks=pytest.mark.slow)])
def test_networks_hold_parameters_and_statistics_only_and_take_another_norm(name, depth):
    options = {} if depth == "full" else outlines.small(name)
    norm = functools.partial(BatchNorm, group_size=2, momentum=0.5)
    model = nnx.eval_shape(
        lambda: models.build(name, num_classes=400, rngs=models.Keys(0), dtype=jnp.bfloat16, norm=norm, **options)
    )
    _, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)  # raises where anything else is left
    assert len(jax.tree.leaves(params)) > 2 and len(jax.tree.leaves(batch_stats)) > 2
    assert {leaf.dtype for leaf in jax.tree.leaves((params, batch_stats))} == {jnp.dtype("float32")}
    layers = [module for _, module in nnx.iter_modules(model) if isinstance(module, BatchNorm)]
    assert {(layer.group_size, layer.momentum) for layer in layers} == {(2, 0.5)}
    if name == "stc_resnext101":
        assert len(layers) == 1 + 3 * (33 if depth == "full" else 4) + 4  # stem, three per bottleneck, four projections


def test_full_size_network_runs():
    model = nnx.eval_shape(lambda: models.build("stc_resnet18", num_classes=400, rngs=models.Keys(0)))
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    clips = jax.ShapeDtypeStruct((2, 16, 112, 112, 3), jnp.float32)
    logits, statistics, gradients = jax.eval_shape(
        functools.partial(gradients_of, graphdef), nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats), clips
    )
    assert logits.shape == (2, 400)
    assert [leaf.shape for leaf in jax.tree.leaves(gradients)] == [leaf.shape for leaf in jax.tree.leaves(params)]
    assert [leaf.shape for leaf in jax.tree.leaves(statistics)] == [leaf.shape for leaf in jax.tree.leaves(batch_stats)]


def test_an_unknown_name_is_answered_with_the_names():
    with pytest.raises(UserError, match="no network 'resnet19'.*resnet3d18.*stc_resnext101"):
        models.build("resnet19", num_classes=5, rngs=nnx.Rngs(0))


def test_an_unknown_keyword_is_answered_with_the_networks_keywords():
    with pytest.raises(UserError, match="resnet3d18 has no keyword frames; it has .*layers.*shortcut.*consensus"):
        models.build("resnet3d18", num_classes=5, rngs=nnx.Rngs(0), frames=16)
    with pytest.raises(UserError, match="stc_resnet18 has no keyword reduktion; it has .*frames.*branches.*reduction"):
        models.build("stc_resnet18", num_classes=5, rngs=nnx.Rngs(0), reduktion=1)
