"""Videos whose frames are in memory: they give what the same frames in files give."""

import pickle

import cv2
import numpy as np
import pytest

from jax_video.data import pipeline, reader
from jax_video.data.decoding import probing
from jax_video.data.manifest import Manifest, Video, in_memory
from jax_video.errors import UserError, VideoError


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Smooth enough for flow to be found in it."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (60, 100, 3), np.uint8), (0, 0), 2)
    return np.stack([texture[i : i + 40, 2 * i : 2 * i + 64] for i in range(14)])  # [14, 40, 64, 3]


@pytest.fixture(scope="module")
def stored(frames, tmp_path_factory) -> Manifest:
    """The same frames in PNGs, which lose nothing."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{number:05d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    entry = Video(str(folder), None, "test", error=None, source="", **vars(probing.probe(folder)))
    return Manifest("pictures", (), "", (entry,))


@pytest.mark.parametrize("short_side", [None, 40, 24])
def test_frames_are_those_of_files(frames, stored, short_side):
    memory = in_memory([frames], fps=25)
    entry = memory.videos[0]
    assert (entry.path, entry.split, entry.label, entry.frames, entry.fps) == ("array 0", "test", None, 14, 25.0)
    wanted = np.array([13, 0, 5, 5])
    read = reader.decode(memory, entry, wanted, short_side=short_side)
    np.testing.assert_array_equal(read, reader.decode(stored, stored.videos[0], wanted, short_side=short_side))
    assert reader.fault(memory, entry) == ""
    with pytest.raises(VideoError, match="array 0: no frame 14: there are only 14"):
        reader.decode(memory, entry, np.array([2, 14]), short_side=short_side)


def test_flow_and_batches_are_those_of_files(frames, stored):
    """In worker processes too, to which the frames are sent."""
    memory = in_memory({"name": frames})
    indices = np.array([5, 8])
    wanted = reader.flow_stacks(stored, stored.videos[0], indices, short_side=32, method="dis")
    np.testing.assert_array_equal(
        reader.flow_stacks(memory, memory.videos[0], indices, short_side=32, method="dis"), wanted, strict=True
    )
    sampling = pipeline.Sampling(frames=4, stride=2, short_side=32, size=24)
    batches = []
    for manifest, workers in ((memory, 0), (memory, 1), (stored, 0)):
        cropped = pipeline.cropped_clips(manifest, "test", sampling, pipeline.Protocol("uniform", 3))
        batches.append(list(pipeline.test_batches(manifest, sampling, cropped, batch=3, workers=workers)))
    for (batch,) in batches:
        assert batch["mask"].tolist() == [1, 1, 1]
        np.testing.assert_array_equal(batch["rgb"], batches[0][0]["rgb"])


def test_what_it_is_shows_in_its_hash_and_survives_pickling(frames):
    one, other = in_memory([frames], classes=("a", "b")), in_memory([frames[::-1]], classes=("a", "b"))
    again = pickle.loads(pickle.dumps(one))
    assert again == one and again.classes == ("a", "b") and again.hash == one.hash != other.hash
    np.testing.assert_array_equal(again.memory["array 0"], frames)


def test_no_manifest_is_written_of_it(frames, tmp_path):
    with pytest.raises(ValueError, match="are in memory: write the videos to files"):
        in_memory([frames]).write(tmp_path / "manifest.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "no video given"),
        ({}, "no video given"),
        ([np.zeros((2, 4, 4, 3))], r"array 0 is float64 \[2, 4, 4, 3\]: expected frames as a NumPy array uint8"),
        ({"x": np.zeros((4, 4, 3), np.uint8)}, r"x is uint8 \[4, 4, 3\]: expected"),
        ([np.zeros((2, 4, 4, 4), np.uint8)], r"array 0 is uint8 \[2, 4, 4, 4\]: expected"),
        ([np.zeros((0, 4, 4, 3), np.uint8)], "at least one frame"),
        (["video.mp4"], "array 0 is str: expected frames as a NumPy array"),
    ],
)
def test_other_things_are_refused(videos, message):
    with pytest.raises(UserError, match=message):
        in_memory(videos)
