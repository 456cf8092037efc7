"""Colour jitter, RandAugment and random erasing: against Pillow, the same in all frames, on any number of devices."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import matplotlib.colors
import numpy as np
import processes
import pytest
import test_train
from flax import nnx
from PIL import Image, ImageEnhance, ImageOps

from jax_video import augmentation, networks, objectives, optimizer, pictures, sharding, task
from jax_video import state as state_lib
from jax_video import train as train_lib
from jax_video.augmentation import Augmentation
from jax_video.data import pipeline
from jax_video.errors import UserError
from jax_video.mixing import Mixing
from jax_video.models.layers import BatchNorm

FRAMES, HEIGHT, WIDTH = 3, 45, 62
EVERYTHING = Augmentation((0.4, 0.4, 0.4, 0.1), (2, 9), 0.5)
config, manifest = test_train.config, test_train.manifest  # fixtures


def keys(rows: int) -> jax.Array:
    return jax.random.split(jax.random.key(7), rows)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """uint8 [T, H, W, 3] of waves and noise, which use a part of the values only, and a gray corner."""
    rng = np.random.default_rng(0)
    y, x, time, channel = np.ogrid[:HEIGHT, :WIDTH, :FRAMES, :3]
    waves = 60 * np.sin(x / 9 + time + 2 * channel) + 2 * y + 30 * channel + rng.normal(0, 20, (HEIGHT, WIDTH, 3, 3))
    clip = np.clip(waves + 40, 10, 240).astype(np.uint8).transpose(2, 0, 1, 3)
    clip[:, :5, :5] = 77
    return np.ascontiguousarray(clip)


def by_pillow(name: str, magnitude: int, sign: int, clip: np.ndarray) -> np.ndarray:
    """What Pillow makes of a clip, whose frames lie below each other where all colours count."""
    part, frame = magnitude / 30, (WIDTH, HEIGHT)
    across, down = (sign * int(150 / 331 * side * part) for side in frame)
    matrices = {
        "ShearX": (1, sign * 0.3 * part, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, sign * 0.3 * part, 1, 0),
        "TranslateX": (1, 0, -across, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -down),
    }
    enhanced = {
        "Brightness": ImageEnhance.Brightness,
        "Color": ImageEnhance.Color,
        "Contrast": ImageEnhance.Contrast,
        "Sharpness": ImageEnhance.Sharpness,
    }

    def change(image):
        if name in matrices:
            return image.transform(frame, Image.Transform.AFFINE, matrices[name], Image.Resampling.NEAREST)
        if name in enhanced:
            return enhanced[name](image).enhance(1 + sign * 0.9 * part)
        return {
            "Identity": lambda: image,
            "Rotate": lambda: image.rotate(sign * 30 * part, Image.Resampling.NEAREST),
            "Posterize": lambda: ImageOps.posterize(image, 8 - round(4 * part)),
            "Solarize": lambda: ImageOps.solarize(image, 255 * (1 - part)),
            "AutoContrast": lambda: ImageOps.autocontrast(image),
            "Equalize": lambda: ImageOps.equalize(image),
        }[name]()

    if name in ("Contrast", "AutoContrast", "Equalize"):
        return np.asarray(change(Image.fromarray(clip.reshape(-1, WIDTH, 3)))).reshape(clip.shape)
    return np.stack([change(Image.fromarray(frame)) for frame in clip])


@pytest.mark.parametrize("name", augmentation.operations(0, 1, 1))
def test_operations_are_pillows(name, clip):
    """But for how Pillow rounds grey, and for pixels exactly between two others."""
    for magnitude in (9, 30):
        operation = jax.jit(augmentation.operations(magnitude, HEIGHT, WIDTH)[name])
        for sign in (1, -1):
            found = np.asarray(operation({"rgb": clip}, jnp.float32(sign))["rgb"]).astype(int)
            expected = by_pillow(name, magnitude, sign, clip)
            assert name == "Identity" or (expected != clip).mean() > 0.1
            assert (np.abs(found - expected) > 2).mean() < 0.005, (magnitude, sign)


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.3])
def test_hue_is_turned_as_in_hsv(shift, clip):
    hsv = matplotlib.colors.rgb_to_hsv(clip / 255)
    hsv[..., 0] = (hsv[..., 0] + shift) % 1
    expected = matplotlib.colors.hsv_to_rgb(hsv) * 255
    found = np.asarray(augmentation.hue(jnp.asarray(clip), jnp.float32(shift)))
    assert np.abs(found - expected).max() <= 1
    assert (found[:, :5, :5] == 77).all(), "grey has no hue"


@pytest.mark.slow
@pytest.mark.parametrize("magnitude", [1, 9, 17, 30])
def test_operations_are_torchvisions(magnitude, clip):
    """To the bit; but what is scaled differs by one level where a fraction falls on a whole, and a turn takes the
    other of two pixels that are as near."""
    torch = pytest.importorskip("torch")
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment", exc_type=ImportError)
    nearest = autoaugment.InterpolationMode.NEAREST
    space = autoaugment.RandAugment(2, magnitude)._augmentation_space(31, (HEIGHT, WIDTH))
    operations = augmentation.operations(magnitude, HEIGHT, WIDTH)
    assert list(operations) == list(space)
    tall = clip.reshape(1, -1, WIDTH, 3)
    for name, (magnitudes, signed) in space.items():
        for sign in (1, -1) if signed else (1,):
            value = sign * float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
            frames = tall if name in ("Contrast", "AutoContrast", "Equalize") else clip
            given = torch.from_numpy(frames.transpose(0, 3, 1, 2).copy())
            expected = autoaugment._apply_op(given, name, value, nearest, None).numpy().transpose(0, 2, 3, 1)
            found = operations[name]({"rgb": jnp.asarray(clip)}, jnp.float32(sign))["rgb"]
            difference = np.abs(np.asarray(found).astype(int) - expected.reshape(clip.shape))
            if name == "Rotate":
                assert (difference > 0).mean() < 0.001, sign
            else:
                scaled = name in ("Brightness", "Color", "Contrast", "Sharpness", "AutoContrast")
                assert difference.max() <= scaled and (difference > 0).mean() < 0.05, (name, sign)


def test_the_draws_are_a_videos_own_and_the_same_in_all_frames():
    rows, frame = 24, np.random.default_rng(0).integers(0, 256, (1, 1, 1, 16, 20, 3), dtype=np.uint8)
    still = np.broadcast_to(frame, (rows, 2, 3, 16, 20, 3))  # two clips of every video
    found = np.asarray(jax.jit(EVERYTHING)({"rgb": still}, keys(rows))["rgb"])
    assert found.dtype == np.uint8 and (found == found[:, :1, :1]).all()
    assert len(np.unique(found.reshape(rows, -1), axis=0)) == rows
    swapped = np.asarray(jax.jit(EVERYTHING)({"rgb": still}, keys(rows)[::-1])["rgb"])
    assert np.array_equal(swapped[::-1], found), "a row's key decides"


def test_rand_augment_draws_any_operation_of_either_sign(clip):
    rows, small = 300, clip[:1, 10:26, 10:30]
    video = np.broadcast_to(small, (rows, *small.shape))
    found = np.asarray(jax.jit(Augmentation(rand_augment=(1, 20)))({"rgb": video}, keys(rows))["rgb"])
    made = {
        (name, sign): np.asarray(operation({"rgb": small}, jnp.float32(sign))["rgb"])
        for name, operation in augmentation.operations(20, *small.shape[1:3]).items()
        for sign in (1, -1)
    }
    counts = dict.fromkeys(made, 0)
    for row in found:
        names = [name for name, expected in made.items() if np.abs(row - expected.astype(int)).max() <= 1]
        assert names, "one of the operations, at the magnitude that was asked for"
        for name in names:
            counts[name] += 1
    assert min(counts.values()) >= 2 and max(counts.values()) < 60
    twice = np.asarray(jax.jit(Augmentation(rand_augment=(2, 20)))({"rgb": video}, keys(rows))["rgb"])
    assert len(np.unique(twice.reshape(rows, -1), axis=0)) > 2 * len(made)


def test_jitter_draws_factors_evenly():
    rows = 600
    video = np.full((rows, 1, 2, 2, 3), 100, np.uint8)
    found = np.asarray(jax.jit(Augmentation((0.4, 0, 0, 0)))({"rgb": video}, keys(rows))["rgb"])[:, 0, 0, 0, 0]
    assert found.min() in (59, 60, 61) and found.max() in (138, 139, 140)
    assert found.mean() == pytest.approx(99.5, abs=2.5) and found.std() == pytest.approx(80 / 12**0.5, abs=2)
    video[..., 1:] = 0
    turned = np.asarray(jax.jit(Augmentation((0, 0, 0, 0.25)))({"rgb": video}, keys(rows))["rgb"])[:, 0, 0, 0]
    shifts = (matplotlib.colors.rgb_to_hsv(turned / 255)[:, 0] + 0.5) % 1 - 0.5
    assert shifts.min() == pytest.approx(-0.25, abs=0.02) and shifts.max() == pytest.approx(0.25, abs=0.02)
    assert shifts.mean() == pytest.approx(0, abs=0.03)


def test_the_order_of_jitter_is_drawn():
    """More contrast after less light makes the brightest pixel more than twice as bright as the middle one; before it,
    the brightest one has been cut off at 255."""
    rows, pixels = 400, np.repeat(np.array([0, 127, 255], np.uint8), 3).reshape(1, 1, 3, 3)
    video = np.broadcast_to(pixels, (rows, *pixels.shape))
    found = np.asarray(jax.jit(Augmentation((1, 1, 0, 0)))({"rgb": video}, keys(rows))["rgb"])[:, 0, 0, :, 0]
    dark, middle, bright = found.T.astype(int)
    told = (bright / middle.clip(1))[(dark == 0) & (middle > 30) & (middle < 100) & (bright < 250)]
    assert len(told) > 30
    assert np.mean(told < 2.08) > 0.2 and np.mean(told > 2.15) > 0.2


def test_erasing_is_one_box_in_all_frames_and_streams():
    rows = 1000
    rgb, flow = (np.full((rows, 2, 24, 30, channels), 7, np.uint8) for channels in (3, 20))
    erasing = Augmentation(erasing=0.6, fill=(1, 2, 3))
    found = jax.device_get(jax.jit(erasing)({"rgb": rgb, "flow": flow}, keys(rows)))
    erased = found["rgb"][..., 0] == 1  # [B, T, H, W]
    assert np.array_equal(found["rgb"], np.where(erased[..., None], np.array([1, 2, 3]), 7))
    assert np.array_equal(found["flow"], np.where(erased[..., None], 128, 7) * np.ones(20, int))
    assert (erased == erased[:, :1]).all()
    boxes = erased[:, 0][erased.any(axis=(1, 2, 3))]
    assert len(boxes) / rows == pytest.approx(0.6, abs=0.04)
    heights, widths = boxes.any(axis=2).sum(axis=1), boxes.any(axis=1).sum(axis=1)
    assert np.array_equal(boxes.sum(axis=(1, 2)), heights * widths)
    assert (heights < 24).all() and (widths < 30).all()
    areas, ratios = heights * widths / (24 * 30), heights / widths
    assert areas.min() >= 0.01 and areas.max() < 0.37 and areas.mean() == pytest.approx(0.17, abs=0.015)
    assert 0.2 < ratios.min() < 0.4 and 2.5 < ratios.max() < 4.5
    assert boxes.any(axis=0).all(), "anywhere"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"])
def test_flow_is_moved_as_what_it_is_of(name, sign):
    """A square that goes on by (9, -6) pixels, and flow that says so, through one operation."""
    step, place = np.array([9, -6]), np.array([30, 34])
    video = np.zeros((2, 64, 64, 3), np.uint8)
    for frame, (x, y) in enumerate((place, place + step)):
        video[frame, y - 4 : y + 5, x - 4 : x + 5] = 200
    flow = np.full((2, 64, 64, 20), 128, np.uint8) + np.tile(np.round(step * 127 / 20), 10).astype(np.int8)
    operation = jax.jit(augmentation.operations(30 if name[0] != "T" else 9, 64, 64)[name])
    found = jax.device_get(operation({"rgb": video, "flow": flow.astype(np.uint8)}, jnp.float32(sign)))
    begin, end = (np.argwhere(frame[..., 0]).mean(axis=0)[::-1] for frame in found["rgb"])  # x and y
    assert np.abs(begin - place).max() > 1, "it was moved"
    x, y = begin.round().astype(int)
    told = (found["flow"][0, y, x].astype(float).reshape(10, 2) - 128) * 20 / 127
    np.testing.assert_allclose(told, np.tile(end - begin, (10, 1)), atol=0.35)
    outside = (found["flow"] == 128).all(axis=-1)
    assert outside.any() and not found["rgb"][outside].any(), "at rest where nothing is"


def test_flow_has_no_colours(clip):
    flow = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8, 20), dtype=np.uint8)
    rgb = np.broadcast_to(clip[None, :, :8, :8], (4, 3, 8, 8, 3))
    found = jax.device_get(jax.jit(Augmentation((0.4, 0.4, 0.4, 0.1)))({"rgb": rgb, "flow": flow}, keys(4)))
    assert np.array_equal(found["flow"], flow) and not np.array_equal(found["rgb"], rgb)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"color_jitter": (0.4,)}, r"train.color_jitter is \(0.4,\): expected .* such as 0.4,0.4,0.4,0.1"),
        ({"color_jitter": (0.4, 0.4, 0.4, 0.6)}, "hue .0.5 at most"),
        ({"color_jitter": (float("nan"), 0, 0, 0)}, "train.color_jitter is"),
        ({"color_jitter": ("a", 0, 0, 0)}, "train.color_jitter is"),
        ({"rand_augment": (2,)}, r"train.rand_augment is \(2,\): expected how many"),
        ({"rand_augment": (0, 9)}, "train.rand_augment is"),
        ({"rand_augment": (2, 31)}, "magnitude, 0 to 30"),
        ({"rand_augment": (2, 9.5)}, "train.rand_augment is"),
        ({"erasing": 1.5}, "train.erasing is 1.5: expected a probability"),
        ({"erasing": -0.1}, "train.erasing is"),
    ],
)
def test_what_cannot_be(values, message):
    with pytest.raises(UserError, match=message):
        Augmentation(**values)


def test_colours_of_flow_alone_are_refused(config):
    config.clip.update(streams=("flow",), short_side=64)
    config.train.color_jitter = (0.4, 0.4, 0.4, 0.1)
    with pytest.raises(UserError, match="train.color_jitter is of RGB, and clip.streams has optical flow alone"):
        augmentation.of(config)


# In training

PARTS = {"norm": ("bn1",), "head": ("fc",)}


@pytest.fixture
def fine_tuning(monkeypatch):
    """(optimizer, options of the step) with every other ingredient of training."""
    monkeypatch.setitem(networks.NETWORKS, "classifier", networks.Network("test_train:Classifier", parts=PARTS))
    kind = {"freeze": ("norm",), "network": "classifier"}
    weights = (0.3, 0.5, 1.0, 2.0, 3.0)
    objective = objectives.Classification(smoothing=0.1, mixing=Mixing(mixup=0.4, cutmix=1.0), class_weights=weights)
    return optimizer.make(1e-2, kind="adamw", layer_decay=0.7, **kind), kind | {"objective": objective}


def two_steps(tx, options, *, devices: int, accumulate: int, augmentation: Augmentation) -> tuple[list[float], dict]:
    """Losses and parameters of two steps, in float64."""
    mesh, found = test_train.first_devices(devices), []
    with jax.enable_x64(True):
        norm = functools.partial(BatchNorm, group_size=2)
        network = test_train.Classifier(num_classes=5, norm=norm, dtype=jnp.float64, rngs=nnx.Rngs(0))
        definition = state_lib.split(network)[0]
        options = options | {"accumulate": accumulate, "augmentation": augmentation}
        step = train_lib.make_train_step(definition, tx, mesh, **options)
        state = sharding.place_state(state_lib.create(network, tx), mesh)
        for rows in test_train.batches(16, steps=2):
            state, sums = step(state, sharding.place_batch(rows, mesh), test_train.KEY)
            found.append(float(sums["loss"]))
        return found, jax.device_get(state.params)


def test_one_device_is_eight_with_everything_on(fine_tuning):
    """In micro-batches, too."""
    found, params = two_steps(*fine_tuning, devices=1, accumulate=1, augmentation=EVERYTHING)
    others, their_params = two_steps(*fine_tuning, devices=8, accumulate=2, augmentation=EVERYTHING)
    np.testing.assert_allclose(others, found, rtol=1e-9)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-10), their_params, params)
    plain, _ = two_steps(*fine_tuning, devices=1, accumulate=1, augmentation=Augmentation())
    assert abs(plain[0] / found[0] - 1) > 1e-4, "it is part of the step"


def everything_on(config, monkeypatch) -> None:
    monkeypatch.setitem(networks.NETWORKS, "classifier", networks.Network("test_train:Classifier", parts=PARTS))
    config.optimizer.update(kind="adamw", layer_decay=0.7)
    config.train.update(
        epochs=2,
        freeze=("norm",),
        label_smoothing=0.1,
        mixup=0.2,
        cutmix=1.0,
        color_jitter=EVERYTHING.color_jitter,
        rand_augment=EVERYTHING.rand_augment,
        erasing=EVERYTHING.erasing,
        class_balance="sampling",
    )


def test_a_run_with_everything_on_goes_on_to_the_bit(tmp_path, config, manifest, monkeypatch):
    everything_on(config, monkeypatch)
    train = [index for index, video in enumerate(manifest.videos) if video.split == "train"]
    uneven = [video for index, video in enumerate(manifest.videos) if index not in train[:6]]
    manifest = dataclasses.replace(manifest, videos=tuple(uneven))
    config.train.checkpoint_steps, config.train.steps = 3, 8
    mesh, shown, strip = test_train.first_devices(2), [], pictures.strip
    monkeypatch.setattr(pictures, "strip", lambda rows, names: shown.append(rows["rgb"]) or strip(rows, names))
    make, made = train_lib.step_of, []  # compiled once for both runs
    monkeypatch.setattr(train_lib, "step_of", lambda *given: (made or made.append(make(*given)) or made)[0])
    train_lib.train(config, manifest, tmp_path, mesh)
    sampling = task.Task.of(config).sampling
    batches = pipeline.train_batches(manifest, sampling, batch=8, seed=config.seed, balanced=True)
    loaded = next(batches)["rgb"][:4]
    batches.close()
    assert shown[0].shape == loaded.shape and not np.array_equal(shown[0], loaded), "what is trained on"
    log, arrays = processes.rows(tmp_path), test_train.weights(tmp_path, 8, config)
    shutil.rmtree(tmp_path / "checkpoints" / "8")  # the one before is of step 6
    assert train_lib.train(config, manifest, tmp_path, mesh)
    assert processes.rows(tmp_path) == log
    for name, leaf in test_train.weights(tmp_path, 8, config).items():
        assert leaf.tobytes() == arrays[name].tobytes(), name
