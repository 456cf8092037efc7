"""Knowledge transfer: which pairs are made, what is trained and what rests; and it computes what PyTorch computes."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from reference import correspondence as reference
from reference import resnet as reference_resnet

from configs import transfer
from jax_video import models, objectives, optimizer, sharding
from jax_video import state as state_lib
from jax_video import train as train_lib
from jax_video.errors import UserError
from jax_video.models.correspondence import Correspondence, derangement
from jax_video.models.layers import BatchNorm, Conv, Frozen, Linear

BATCH = 6
NETWORK_INPUT = (4, 16, 16, 3)
HEAD = {"fc", "fc1", "fc2", "classifier"}

derange = jax.jit(derangement)


class Network(nnx.Module):
    """A network that compiles at once; its classifier takes no part."""

    def __init__(self, *, rngs):
        self.conv = Conv(3, 8, (1, 3, 3), strides=(1, 4, 4), rngs=rngs)
        self.bn = BatchNorm(8, rngs=rngs)
        self.fc = Linear(8, 3, rngs=rngs)

    def features(self, video):
        return nnx.relu(self.bn(self.conv(video)))


def abstract(dtype=jnp.float32, make=Correspondence):
    """A small pair of networks. What matters of the teacher is that it has weights and running statistics."""
    common = {"num_classes": 3, "layers": (1, 1, 1, 1), "width": 0.0625, "dtype": dtype}

    def build():
        student = models.build("resnet3d18", rngs=models.Keys(0), **common)
        teacher = models.build("resnet3d50", rngs=models.Keys(0), **common)
        return make(student, teacher, clip=NETWORK_INPUT[:3], dtype=dtype, rngs=models.Keys(0))

    return nnx.eval_shape(build)


def quick():
    """Two networks that compile at once."""

    def build():
        student, teacher = Network(rngs=models.Keys(0)), Network(rngs=models.Keys(0))
        return Correspondence(student, teacher, clip=NETWORK_INPUT[:3], rngs=models.Keys(0))

    return nnx.eval_shape(build)


def filled(model):
    """(definition, params, batch_stats) with random values, which takes no compilation."""
    definition, *shapes = state_lib.split(model)
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        deviation = np.sqrt(2 / np.prod(leaf.shape[:-1])) if name == "kernel" else 0.2
        return rng.normal(0, deviation, leaf.shape).astype(leaf.dtype)

    return definition, *jax.tree.map(jnp.asarray, jax.tree_util.tree_map_with_path(fill, shapes))


def clips(batch=BATCH, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, *NETWORK_INPUT)).astype(np.float32)


class Pairs(Correspondence):
    """Logits [B, 2] of the positive pairs and of the negative ones, of clips of as many videos."""

    def __call__(self, video):
        logits, _, _ = super().__call__(video, ids=jnp.arange(len(video)), key=jax.random.key(3))
        return tuple(jnp.split(logits, 2))


# The pairs


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 13])
def test_derangements_pair_no_two_clips_of_a_video(batch):
    @settings(max_examples=60)
    @given(st.lists(st.integers(0, batch), min_size=batch, max_size=batch), st.integers(0, 2**31 - 1))
    def check(ids, seed):
        ids = np.array(ids, np.int32)
        source, valid = derange(jax.random.key(seed), ids)
        assert sorted(np.asarray(source)) == list(range(batch))
        np.testing.assert_array_equal(valid, ids[source] != ids)
        longest = collections.Counter(ids.tolist()).most_common(1)[0][1]
        # With more than half of the clips of one video, the others can be partners of as many of them only.
        assert np.count_nonzero(~np.asarray(valid)) == max(0, 2 * longest - batch)

    check()


@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4], [7, 7, 7, 1, 2, 2, 4], [5, 9, 5, 9]])
def test_derangements_reach_every_pair_alike(ids):
    """Each clip meets every clip of another video; where no two are of one video, all of them equally often."""
    ids, draws = np.array(ids), 4000
    sources, _ = jax.jit(jax.vmap(derangement, (0, None)))(jax.random.split(jax.random.key(0), draws), ids)
    counts = np.zeros((len(ids), len(ids)), int)
    for clip in range(len(ids)):
        np.add.at(counts[clip], np.asarray(sources)[:, clip], 1)
    allowed = ids[:, None] != ids[None, :]
    assert not counts[~allowed].any() and counts[allowed].min() > 0.02 * draws
    if len(set(ids)) == len(ids):
        expected = draws / (len(ids) - 1)
        assert abs(counts[allowed] - expected).max() < 5 * np.sqrt(expected)


def test_derangements_of_four_videos_are_all_alike():
    draws = 3000
    sources, _ = jax.jit(jax.vmap(derangement, (0, None)))(jax.random.split(jax.random.key(0), draws), jnp.arange(4))
    counts = np.unique(np.asarray(sources), axis=0, return_counts=True)[1]
    assert len(counts) == 9 and abs(counts - draws / 9).max() < 5 * np.sqrt(draws / 9)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 16])
def test_rows_that_fill_a_batch_up_are_left_out(count):
    """All others meet another video, however few they are."""
    present = np.random.default_rng(count).permutation(np.arange(16) < count)
    ids = jnp.where(present, jnp.arange(16) + 1, 0)
    source, valid = jax.jit(derangement)(jax.random.key(count), ids, jnp.asarray(present))
    assert sorted(source.tolist()) == list(range(16))
    np.testing.assert_array_equal(valid, present & (count > 1))
    assert present[source[valid]].all()


def test_derangements_differ_between_keys_and_not_otherwise():
    ids = jnp.arange(8)
    drawn = [tuple(derange(jax.random.key(seed), ids)[0].tolist()) for seed in (*range(20), 0)]
    assert drawn[0] == drawn[-1] and len(set(drawn)) > 15


def test_both_sides_make_positive_and_negative_pairs():
    definition, params, batch_stats = filled(quick())
    ids = jnp.array([0, 0, 1, 1, 1, 1])  # two of video 1 must meet their own

    @jax.jit
    def forward(batch_stats, ids, key):
        model = nnx.merge(definition, params, batch_stats)
        return nnx.view(model, use_running_average=True)(clips(), ids=ids, key=key)

    key = jax.random.key(0)
    logits, label, weight = forward(batch_stats, ids, key)
    source, valid = derange(key, ids)
    assert logits.shape == (12, 2) and logits.dtype == jnp.float32
    np.testing.assert_array_equal(label, [1] * 6 + [0] * 6)
    np.testing.assert_array_equal(weight, [1.0] * 6 + valid.astype(np.float32).tolist())
    assert weight.sum() == 10 and weight.dtype == jnp.float32

    # Other ids change the negative pairs only; and a pair without a partner is a positive one.
    other, _, _ = forward(batch_stats, jnp.arange(6), key)
    np.testing.assert_array_equal(other[:6], logits[:6])
    assert abs(other[6:] - logits[6:]).max() > 1e-3 < abs(logits[6:] - logits[:6]).max()

    # To a teacher that sees nothing both pairs are the same.
    blind, _, _ = forward(batch_stats | {"teacher": jax.tree.map(jnp.zeros_like, batch_stats["teacher"])}, ids, key)
    np.testing.assert_array_equal(blind[6:], blind[:6])


def test_widths_are_those_of_the_papers():
    def build(*names, **kwargs):
        networks = (models.build(name, num_classes=400, rngs=models.Keys(0), **kwargs) for name in names)
        return Correspondence(*networks, clip=(16, 112, 112), rngs=models.Keys(0))

    model = nnx.eval_shape(lambda: build("resnet3d50", "resnet50", layers=(1, 1, 1, 1)))
    assert model.fc.kernel.shape == (2048, 1024)
    assert model.fc1.kernel.shape == (1024 + 2048, 512)
    assert model.fc2.kernel.shape == (512, 128) and model.classifier.kernel.shape == (128, 2)
    model = nnx.eval_shape(lambda: build("c3d", "inception3d"))  # as wide as DenseNet-121, the T3D paper's teacher
    assert model.fc.kernel.shape == (512, 1024) and model.fc1.kernel.shape == (1024 + 1024, 512)


def test_ids_must_be_one_for_each_clip():
    definition, params, batch_stats = state_lib.split(abstract())
    with pytest.raises(UserError, match=r"ids of shape \(3,\) for 6 clips"):
        jax.eval_shape(
            lambda *values: nnx.merge(definition, *values)(clips(), ids=jnp.arange(3), key=jax.random.key(0)),
            params,
            batch_stats,
        )


# Student and teacher


def test_the_teachers_weights_are_constants_among_the_statistics():
    model = abstract()
    definition, params, batch_stats = state_lib.split(model)
    assert set(params) == {"student"} | HEAD and set(batch_stats) == {"student", "teacher"}
    student = nnx.eval_shape(
        lambda: models.build("resnet3d18", num_classes=3, layers=(1, 1, 1, 1), width=0.0625, rngs=models.Keys(0))
    )
    _, *kept = state_lib.split(student)
    assert parity.shapes((params["student"], batch_stats["student"])) == parity.shapes(kept)
    teacher = batch_stats["teacher"]["layer1"][0]
    assert set(teacher["bn1"]) == {"scale", "bias", "mean", "var"} and set(teacher["conv1"]) == {"kernel"}
    variables = [leaf for _, leaf in nnx.iter_graph(model.teacher) if isinstance(leaf, nnx.Variable)]
    assert not any(isinstance(leaf, nnx.Param) for leaf in variables)
    assert any(isinstance(leaf, Frozen) for leaf in variables)


def test_gradients_reach_all_of_student_and_head_but_the_students_classifier():
    definition, params, batch_stats = filled(quick())

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params):
        model = nnx.merge(definition, params, batch_stats)
        logits, label, weight = model(clips(), ids=jnp.arange(BATCH), key=jax.random.key(0))
        loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]
        return (weight * loss).mean(), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    gradients, statistics = gradient(params)
    dead = {name for name, leaf in state_lib.named_leaves(gradients).items() if not np.any(leaf)}
    assert dead == {"student/fc/kernel", "student/fc/bias"}
    before, after = state_lib.named_leaves(batch_stats), state_lib.named_leaves(statistics)
    moved = {name for name in before if np.any(before[name] != after[name])}
    assert moved == {name for name in before if name.startswith("student/")}


@pytest.mark.parametrize(("accumulate", "ema"), [(1, 0.0), (3, 0.3)])
def test_training_moves_the_student_and_leaves_the_teacher_to_the_bit(accumulate, ema):
    definition, params, batch_stats = filled(quick())
    batch_stats["teacher"]["conv"]["kernel"] = batch_stats["teacher"]["conv"]["kernel"].at[0].set(-0.0)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    tx = optimizer.make(0.1, weight_decay=0.1)
    step = train_lib.make_train_step(
        definition, tx, mesh, accumulate=accumulate, ema=ema, objective=objectives.Correspondence()
    )
    start = jax.device_get((params, batch_stats))
    state = sharding.place_state(state_lib.create(nnx.merge(definition, params, batch_stats), tx, ema=ema > 0), mesh)
    rng = np.random.default_rng(0)
    for _ in range(3):
        batch = {
            "rgb": rng.integers(0, 256, (BATCH, *NETWORK_INPUT), dtype=np.uint8),
            "label": np.full(BATCH, -1, np.int32),
            "video": np.arange(BATCH, dtype=np.int32),
            "mask": np.ones(BATCH, np.float32),
            "failed": np.zeros(BATCH, np.int32),
        }
        state, _ = step(state, sharding.place_batch(batch, mesh), jax.random.key(0))
        for trained in ((state.params, state.batch_stats), state.averaged):
            before, after = state_lib.named_leaves(start), state_lib.named_leaves(trained)
            assert before.keys() == after.keys()
            for name, leaf in before.items():
                same = leaf.tobytes() == np.asarray(after[name]).tobytes()
                assert same == name.startswith("1/teacher/"), name


class Trained(nnx.Module):
    """Features [B, 1, 1, 1, 1024] of the size of a trained ResNet's, of clips of noise [B, 1, 1, 4, 3]."""

    def __init__(self, *, seed):
        self.projection = Frozen(jax.random.normal(jax.random.key(seed), (12, 1024)))
        self.fc = Linear(1024, 3, rngs=models.Keys(0))  # its own classifier, which takes no part

    def set_view(self, use_running_average=None):
        """Is the same in training and in test mode."""

    def features(self, video):
        found = nnx.relu(video.reshape(len(video), -1) @ self.projection[...])
        return 30 * (found / jnp.linalg.norm(found, axis=1, keepdims=True))[:, None, None, None]


def test_the_recipe_of_a_trained_teacher_does_not_diverge():
    """Pooled features of a ResNet trained on ImageNet have a norm of about 25 to 40; .1 is the papers' rate."""
    config = transfer.get_config("weights=resnet50.pth")
    model = Correspondence(Trained(seed=0), Trained(seed=1), clip=(1, 1, 4), rngs=models.Keys(0))
    definition, params, batch_stats = state_lib.split(model)

    def losses():
        tx = optimizer.of(config, config.schedule.learning_rate, batch_stats)

        @jax.jit
        def step(params, opt_state, key):
            def loss(params):
                video, ids = jax.random.normal(key, (16, 1, 1, 4, 3)), jnp.arange(16)
                logits, label, _ = nnx.merge(definition, params, batch_stats)(video, ids=ids, key=key)
                return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

            value, gradients = jax.value_and_grad(loss)(params)
            updates, opt_state = tx.update(gradients, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        state = (params, tx.init(params))
        for key in jax.random.split(jax.random.key(0), 120):
            state, value = step(*state, key)
            yield float(value)

    assert np.mean([*losses()][-20:]) < 0.3
    config.optimizer.head_rate = 1.0
    assert not np.all(np.isfinite([*losses()]))


# Parity


def network_pair(dtype):
    options = {"layers": (1, 1, 1, 1), "width": 0.0625}
    student, teacher = (reference_resnet.build(name, 3, **options) for name in ("resnet3d18", "resnet3d50"))
    source, _ = derangement(jax.random.key(3), jnp.arange(BATCH))
    return abstract(dtype, make=Pairs), reference.build(student, teacher, source.tolist()), NETWORK_INPUT


@pytest.mark.usefixtures("strict_dtypes", "one_torch_thread")
def test_test_mode_forward_in_float32():
    parity.check_test_mode_forward(*network_pair(jnp.float32), batch=BATCH)


@pytest.mark.usefixtures("one_torch_thread")
def test_gradients_and_two_training_steps_in_float64():
    with jax.enable_x64(True):
        parity.check_training(*network_pair(jnp.float64), steps=2, batch=BATCH)
