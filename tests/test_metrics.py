"""Metrics against their definitions, written out in plain NumPy and Python."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jax_video import losses, metrics

SCORES = st.sampled_from([-1.0, -0.25, 0.0, 0.5, 2.0, np.inf, -np.inf])  # so few that ties are common


@st.composite
def scores_and_labels(draw, elements=SCORES):
    """scores [N, K] with ties, label [N]; fewer than five classes among them."""
    videos, classes = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    scores = draw(arrays.arrays(np.float64, (videos, classes), elements=elements))
    label = draw(arrays.arrays(np.int64, videos, elements=st.integers(0, classes - 1)))
    return scores, label


def best(scores: np.ndarray) -> list[int]:
    """Classes from the best to the worst; of equal ones the first class comes first."""
    return sorted(range(len(scores)), key=lambda k: (-scores[k], k))


@given(scores_and_labels())
@settings(max_examples=300)
def test_rank_is_the_place_in_the_order(example):
    scores, label = example
    expected = [best(row).index(k) for row, k in zip(scores, label, strict=True)]
    assert metrics.rank(scores, label).tolist() == expected


@given(scores_and_labels(SCORES | st.just(np.nan)))
@settings(max_examples=100)
def test_what_is_not_a_number_never_helps(example):
    scores, label = example
    ranks = metrics.rank(scores, label)
    for row, k, rank in zip(scores, label, ranks, strict=True):
        if np.isnan(row[k]):
            assert rank == len(row)
        else:
            others = np.where(np.isnan(row), np.inf, row)
            others[k] = row[k]
            assert rank == sum(np.isnan(row)) + sum(not np.isnan(row[j]) for j in best(others)[: best(others).index(k)])


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("classes", [2, 7])
def test_jax_and_numpy_agree(classes):
    rng = np.random.default_rng(0)
    scores = rng.choice(np.array([-1, 0, 0.5, np.inf, np.nan], np.float32), (200, classes))
    label = rng.integers(0, classes, 200, np.int32)
    assert metrics.rank(jnp.asarray(scores), jnp.asarray(label)).tolist() == metrics.rank(scores, label).tolist()


@given(scores_and_labels(), st.integers(0, 3))
@settings(max_examples=300)
def test_video_metrics(example, absent):
    """`absent` further classes that no video has, the last ones."""
    scores, label = example
    scores = np.concatenate([scores, np.full((len(scores), absent), -np.inf)], axis=1)
    classes = scores.shape[1]
    found = metrics.video_metrics(scores, label, classes)

    order = [best(row) for row in scores]
    confusion = [
        [
            sum(k == true and o[0] == predicted for k, o in zip(label, order, strict=True))
            for predicted in range(classes)
        ]
        for true in range(classes)
    ]
    accuracy = [confusion[k][k] / sum(confusion[k]) if sum(confusion[k]) else None for k in range(classes)]
    top1 = sum(k == o[0] for k, o in zip(label, order, strict=True)) / len(label)
    top5 = sum(k in o[:5] for k, o in zip(label, order, strict=True)) / len(label)
    occurring = [a for a in accuracy if a is not None]

    assert found["confusion"] == confusion
    assert found["class_accuracy"] == pytest.approx(accuracy, abs=1e-15)
    assert found["top1"] == pytest.approx(top1, abs=1e-15)
    assert found["top5"] == pytest.approx(top5, abs=1e-15)
    assert found["mean_top1_top5"] == pytest.approx((top1 + top5) / 2, abs=1e-15)
    assert found["mean_class_accuracy"] == pytest.approx(sum(occurring) / len(occurring), abs=1e-15)
    if classes <= 5:
        assert found["top5"] == 1


def test_constant_scores_are_right_for_the_first_class_only():
    found = metrics.video_metrics(np.zeros((8, 8)), np.arange(8), 8)
    assert (found["top1"], found["top5"]) == (1 / 8, 5 / 8)


def test_scores_that_are_not_numbers_are_never_right():
    label = np.arange(6)
    found = metrics.video_metrics(np.full((6, 6), np.nan), label, 6)
    assert (found["top1"], found["top5"], found["mean_class_accuracy"]) == (0, 0, 0)


@pytest.mark.usefixtures("strict_dtypes")
def test_train_sums():
    rng = np.random.default_rng(0)
    logits = rng.integers(-3, 3, (32, 7)).astype(np.float32)
    label = rng.integers(0, 7, 32).astype(np.int32)
    loss = rng.random(32).astype(np.float32)
    sums = metrics.train_sums(jnp.asarray(loss), jnp.asarray(logits), {"label": jnp.asarray(label)})
    ranks = np.array([best(row).index(k) for row, k in zip(logits, label, strict=True)])
    expected = {"loss": loss.sum(), "top1": sum(ranks < 1), "top5": sum(ranks < 5), "count": 32}
    assert {name: float(value) for name, value in sums.items()} == pytest.approx(expected, rel=1e-6)
    assert {value.dtype for value in sums.values()} == {jnp.dtype("float32")}


def test_meter_divides_once_at_the_end():
    meter = metrics.Meter()
    meter.add({"loss": 6.0, "top1": jnp.float32(2), "failed": 1.0, "count": 4.0})
    meter.add({"loss": 1.0, "top1": jnp.float32(1), "failed": 2.0, "count": 1.0})  # not the mean of the steps' means
    resumed = metrics.Meter(meter.totals)
    resumed.add({"loss": 3.0, "top1": 0.0, "failed": 0.0, "count": 5.0})
    assert meter.means() == {"loss": 7 / 5, "top1": 3 / 5, "failed": 3}
    assert resumed.means() == {"loss": 1.0, "top1": 0.3, "failed": 3}
    meter.add({"loss": 2.0, "top1": 0.0, "failed": 0.0, "count": 2.0})
    assert meter.means() == {"loss": 1.0, "top1": 0.0, "failed": 0}


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_softmax_cross_entropy(dtype):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(0, 4, (16, 9)), dtype)
    label = rng.integers(0, 9, 16).astype(np.int32)
    loss = losses.softmax_cross_entropy(logits, jnp.asarray(label))
    wide = np.asarray(logits, np.float64)
    expected = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(16), label]
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)


def test_softmax_cross_entropy_of_large_logits():
    loss = losses.softmax_cross_entropy(jnp.asarray([[1e4, 0.0], [0.0, 1e4]]), jnp.asarray([0, 0]))
    assert loss.tolist() == [0, 1e4]
