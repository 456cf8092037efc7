"""Copies that were encoded anew are found among the test's videos, and other videos are not taken for them."""

import json
import pathlib
import types

import av
import cv2
import numpy as np
import pytest

from jax_video.data.decoding import probing, workers
from jax_video.data.manifest import Manifest, Video
from jax_video.data.preparing import checks, likeness
from jax_video.data.sources import motions

# Keys of a line of checked.jsonl in the first version.
FIRST = ("path", "size", "modified", "span", "level", "decoder", "digest", "reason", "video")


def scene(seed: int, motion: str = "left") -> np.ndarray:
    """A moving texture: uint8 [32, 64, 80, 3]."""
    return motions.render(motions.draw(np.random.default_rng(seed)), motion, frames=32, width=80, height=64)


def encode(
    path: pathlib.Path, frames: np.ndarray, codec: str = "mpeg4", pixels: str = "yuv420p", rate: int = 25
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        _, stream.height, stream.width, _ = frames.shape
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def resize(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def words(path: pathlib.Path) -> str | None:
    sampler = likeness.Sampler()
    probing.examine(path, watcher=sampler)
    return sampler.words()


def check(folder: pathlib.Path, tested: str, **options) -> dict[str, str]:
    """What is said of the videos of a folder, of which one is for test."""
    paths = sorted(path.name for path in folder.iterdir() if path.name != "out")
    rows = [Video(name, 0, "test" if name == tested else "train", 0, 0.0, 0, 0, None, name) for name in paths]
    (folder / "out").mkdir(exist_ok=True)
    prepared = Manifest("mine", ("a",), str(folder), tuple(rows))
    found, doubles = checks.check(prepared, folder / "out", processes=1, **options)
    assert all(row.error is None for row in found.videos)
    return doubles


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> pathlib.Path:
    """A video for test, copies of it, and videos that are none."""
    folder = tmp_path_factory.mktemp("copies")
    frames = scene(0)
    motions.encode(folder / "test.mp4", frames)
    encode(folder / "copy_coarse.avi", resize(frames, 48, 40))
    encode(folder / "copy_large.mp4", resize(frames, 160, 128), "libx264")
    encode(folder / "copy_slow.mkv", frames[::2], "ffv1", "yuv420p10le", rate=12)
    encode(folder / "copy_bright.webm", np.clip(frames.astype(int) + 20, 0, 255).astype(np.uint8), "libvpx")
    encode(folder / "copy_rgb.avi", frames[:, 2:-2, 2:-2], "ffv1", "bgr0")
    (folder / "copy_pictures").mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / "copy_pictures" / f"{number:05d}.jpg"), frame[..., ::-1])

    still = np.repeat(scene(2)[:1], 32, axis=0)
    noise = np.random.default_rng(0).normal(0, 2, still.shape)
    encode(folder / "other_scene.avi", scene(1))
    encode(folder / "other_reversed.avi", frames[::-1])
    encode(folder / "other_mirrored.avi", frames[:, :, ::-1])
    encode(folder / "other_first_half.avi", frames[:16])
    encode(folder / "other_short.avi", frames[:: 32 // 4])
    encode(folder / "other_still.avi", np.clip(still + noise, 0, 255).astype(np.uint8))
    encode(folder / "other_black.avi", np.zeros_like(frames))
    return folder


def test_copies_are_warned_of_and_nothing_else_is(copies):
    said = check(copies, "test.mp4")
    names = {path.name for path in copies.iterdir() if path.name.startswith("copy")}
    assert said == dict.fromkeys(names, "looks like a test video: test.mp4") and len(names) == 6
    assert not any(check(copies, "other_black.avi"))
    assert not any(check(copies, "other_still.avi"))


def test_lines_of_earlier_versions_are_read_and_not_looked_at_again(copies):
    check(copies, "test.mp4")
    memory = copies / "out" / "checked.jsonl"
    lines = [json.loads(line) for line in memory.read_text().splitlines()]
    assert all(line["print"] for line in lines if line["path"].startswith("copy"))
    earlier = "".join(json.dumps({key: line[key] for key in FIRST}) + "\n" for line in lines)
    memory.write_text(earlier)
    assert check(copies, "test.mp4") == {} and memory.read_text() == earlier
    assert len(check(copies, "test.mp4", recheck=True)) == 6


def test_a_time_limit_of_earlier_versions_which_counted_the_whole_file_is_tried_again(tmp_path):
    motions.encode(tmp_path / "long.mp4", scene(0))
    check(tmp_path, "long.mp4")
    memory = tmp_path / "out" / "checked.jsonl"
    line = json.loads(memory.read_text()) | {"reason": "not done after 300 s", "digest": None, "video": None}
    memory.write_text(json.dumps({key: line[key] for key in FIRST}) + "\n")
    check(tmp_path, "long.mp4")  # which sees that it has no error


def test_a_print_that_is_none_says_nothing(copies):
    check(copies, "test.mp4")
    memory = copies / "out" / "checked.jsonl"
    whole = memory.read_text()
    for broken in ("", "00", "not hexadecimal", None):
        lines = [json.loads(line) | {"print": broken} for line in whole.splitlines()]
        for line in lines:
            del line["crc32"]
        memory.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert check(copies, "test.mp4") == {}
    memory.write_text(whole)


def test_a_file_that_promises_another_number_of_frames_has_no_print(copies):
    assert words(copies / "test.mp4") is not None

    class Misled(likeness.Sampler):
        def begin(self, frames: int) -> None:
            super().begin(promised)

    for promised, has_one in ((32, True), (31, True), (24, False), (40, False), (0, False), (10**15, False)):
        sampler = Misled()
        probing.examine(copies / "test.mp4", watcher=sampler)
        assert (sampler.words() is not None) == has_one, promised


def test_the_check_of_a_long_file_says_that_it_goes_on(copies, monkeypatch):
    told = []
    monkeypatch.setattr(workers, "_owner", types.SimpleNamespace(send=told.append))
    monkeypatch.setattr(workers, "_SILENT", -1.0)
    for name in ("test.mp4", "copy_pictures"):
        told.clear()
        words(copies / name)
        assert len(told) >= 32, "packets or pictures"


def test_the_embedded_set_has_no_copies():
    """Whose videos show the same frames in two classes, and are all made alike."""
    prints = []
    for seed in range(6):
        for motion in motions.CLASSES[::2]:
            frames = scene(seed, motion)
            for order in (frames, frames[::-1]):
                sampler = likeness.Sampler()
                sampler.begin(len(order))
                for frame in order:
                    sampler.see(frame)
                prints.append(likeness.read(sampler.words()))
    prints = np.stack(prints)
    for number in range(len(prints)):
        assert likeness.find(prints[number : number + 1], np.delete(prints, number, axis=0)) == {}


def test_the_nearest_is_found_among_many_as_by_comparing_all():
    rng = np.random.default_rng(0)
    others = rng.integers(1, 2**63, (3000, likeness.PICTURES), np.uint64)
    others[:1000, 0] = 7  # a picture that many have, as of a title
    others[::50] = 0  # no print
    prints = others[rng.permutation(3000)[:600]]
    flips = rng.random((600, likeness.PICTURES, likeness.WORD)) < rng.choice([0.01, 0.05, 0.3], 600)[:, None, None]
    prints ^= (flips * (np.uint64(1) << np.arange(likeness.WORD, dtype=np.uint64))).sum(axis=2, dtype=np.uint64)
    expected = {}
    for place, row in enumerate(prints):
        both = (row != 0) & (others != 0)
        distance = (
            np.bitwise_count(row ^ others).sum(axis=1, where=both) / np.maximum(both.sum(axis=1), 1) / likeness.WORD
        )
        distance[both.sum(axis=1) < 6] = 1
        if distance.min() <= likeness.NEAREST:
            expected[place] = int(distance.argmin())
    assert likeness.find(prints, others) == expected and 300 < len(expected) < 500
    assert likeness.find(prints, others[:0]) == likeness.find(prints[:0], others) == {}


def test_the_table_and_a_line_name_them(copies):
    rows = [Video(name, 0, split, 9, 25.0, 8, 8, None, name) for name, split in (("a", "train"), ("b", "test"))]
    prepared = Manifest("mine", ("x",), "/x", tuple(rows))
    text = checks.table(prepared, {"a": "looks like a test video: b"})
    assert text.splitlines()[3].split() == ["looks", "like", "a", "test", "video", "1", "0", "0", "1"]
    assert text.splitlines()[3].startswith("  looks")
