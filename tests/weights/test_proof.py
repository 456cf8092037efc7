"""`--check`: raw RGB and normalised input, in either order of axes, against the logits that PyTorch gave."""

import jax
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

from jax_video import optimizer
from jax_video import state as state_lib
from jax_video.errors import UserError
from jax_video.weights import names, proof

CLASSES = 5
NORMALIZE = names.ACTIVITYNET
VIDEO = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 40, 3), np.uint8)
NORMAL = ((VIDEO - np.array(NORMALIZE["mean"])) / np.array(NORMALIZE["std"])).astype(np.float32)


def config_of(dtype: str = "float32", **normalize) -> ConfigDict:
    config = tiny.get_config()
    config.dtype = dtype
    config.normalize.update(NORMALIZE | normalize)
    return config


@pytest.fixture(scope="module")
def state() -> state_lib.TrainState:
    return jax.jit(lambda: state_lib.create(state_lib.network(config_of(), CLASSES), optimizer.make(0.1)))()


@pytest.fixture(scope="module")
def logits(state) -> np.ndarray:
    """Of the normalised video."""
    definition, _, _ = state_lib.abstract(config_of(), CLASSES)
    return np.asarray(proof.forward(definition, state.params, state.batch_stats, NORMAL))


def first(video: np.ndarray) -> np.ndarray:  # [B, T, H, W, 3] to [B, 3, T, H, W]
    return np.moveaxis(video, -1, 1)


@pytest.fixture
def compare(state, logits, tmp_path):
    def run(config: ConfigDict, **arrays) -> list[str]:
        np.savez(tmp_path / "o.npz", **{"logits": logits} | arrays)
        return proof.compare(config, CLASSES, state, tmp_path / "o.npz")

    return run


@pytest.mark.parametrize("order", [first, lambda video: video])
def test_video_input_or_both_in_either_order(compare, order):
    for arrays in ({"video": order(VIDEO)}, {"input": order(NORMAL)}, {"video": order(VIDEO), "input": first(NORMAL)}):
        line, *rest = compare(config_of(), **arrays)
        assert "the largest difference from the logits in " in line
        assert [note[:31] for note in rest] == ([] if "video" in arrays else ["normalisation is not compared: "])


def test_images_are_videos_of_one_frame():
    for images in (np.zeros((2, 3, 8, 9)), np.zeros((2, 8, 9, 3))):
        assert proof._channels_last("o.npz", "input", images).shape == (2, 1, 8, 9, 3)
    three_frames = np.zeros((2, 3, 8, 9, 3))
    assert proof._channels_last("o.npz", "input", three_frames) is three_frames
    for strange in (np.zeros((2, 4, 8, 9)), np.zeros((2, 4, 3, 8, 9)), np.zeros((2, 3))):
        with pytest.raises(UserError, match=r"o.npz: input is of shape \(2, .*expected \[B, 3, T, H, W\]"):
            proof._channels_last("o.npz", "input", strange)


def test_another_normalisation_is_found_out(compare):
    """By the logits of raw RGB; and where both are there, with the numbers that would be right."""
    other = config_of(**names.KINETICS)
    assert compare(other, input=NORMAL), "which cannot tell"
    with pytest.raises(
        UserError, match=r"the logits differ by \S+ of the largest.* Has it seen mean 110.7975, 103.3005"
    ):
        compare(other, video=VIDEO)
    with pytest.raises(
        UserError, match="o.npz: input is not video as this run normalises it, by mean 110.7975"
    ) as error:
        compare(other, video=VIDEO, input=NORMAL)
    flags = " ".join(f"'--config.normalize.{key}={numbers}'" for key, numbers in NORMALIZE.items())
    assert str(error.value).endswith(f"It has {flags}.")
    bgr = ((VIDEO[..., ::-1] - np.array((1.0, 2.0, 3.0))) / 2).astype(np.float32)
    with pytest.raises(UserError, match=r"mean=\(1.0, 2.0, 3.0\)' .*, and the order of channels BGR"):
        compare(other, video=VIDEO, input=bgr)
    for video in (VIDEO[::-1], np.full_like(VIDEO, 7)):
        with pytest.raises(UserError, match="No mean and std leads from one to the other"):
            compare(other, video=video, input=NORMAL)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({}, "expected the arrays logits and video or input; it has logits"),
        ({"video": VIDEO / 255}, "expected video in uint8, raw RGB; its values are float64"),
        (
            {"video": VIDEO[:1], "input": NORMAL},
            r"video is of shape \(1, 4, 32, 40, 3\) and input of \(2, 4, 32, 40, 3\)",
        ),
        ({"video": VIDEO[..., :1]}, r"video is of shape \(2, 4, 32, 40, 1\)"),
    ],
)
def test_files_that_prove_nothing(compare, arrays, expected):
    with pytest.raises(UserError, match=f"o.npz: {expected}"):
        compare(config_of(), **arrays)


def test_the_type_in_which_the_run_computes(compare):
    """Its error is told; it is no reason to refuse."""
    *_, line = compare(config_of("bfloat16"), video=VIDEO)
    assert line.startswith("as the run computes, in bfloat16 on a CPU, it is ")
    assert float(line.split()[-1]) > proof.TOLERANCE


def test_weights_are_not_compiled_in(state):
    """As constants they would take their size again, and minutes of compilation in large networks."""
    definition, _, _ = state_lib.abstract(config_of(), CLASSES)
    traced = proof.forward.trace(definition, state.params, state.batch_stats, NORMAL)
    assert sum(np.size(constant) for constant in traced.jaxpr.consts) < 100
    assert len(jax.tree.leaves(traced.in_avals)) == 1 + len(jax.tree.leaves((state.params, state.batch_stats)))
