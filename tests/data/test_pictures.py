import os
import pathlib

import cv2
import numpy as np
import pytest

from jax_video.data import transforms
from jax_video.data.decoding import pictures
from jax_video.errors import VideoError

IMAGES = np.random.default_rng(0).integers(0, 255, (12, 40, 60, 3), np.uint8)


def store(folder: pathlib.Path, pattern: str = "image_{:05d}.png", first: int = 1, images=IMAGES) -> pathlib.Path:
    """A video of pictures; OpenCV writes BGR."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images, first):
        name = pattern.format(number)
        (folder / name).write_bytes(cv2.imencode(os.path.splitext(name)[1], image[..., ::-1])[1])
    return folder


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("pattern", ["image_{:05d}.png", "img_{:05d}.PNG", "frame{:06d}.png", "{}.png", "v_2 é_{}.png"])
def test_frames_are_in_the_order_of_their_numbers(pattern, first, tmp_path):
    path = store(tmp_path / "video", pattern, first)
    assert pictures.is_video(os.listdir(path))
    assert pictures.probe(path) == pictures.probe(path, full=False) == (12, 0.0, 60, 40)
    indices = [11, 0, 5, 5, 9]
    np.testing.assert_array_equal(pictures.decode(path, indices), IMAGES[indices])
    np.testing.assert_array_equal(list(pictures.frames_in_order(path)), IMAGES)


def test_frames_are_resized_as_they_are_read(tmp_path):
    path = store(tmp_path)
    small = transforms.resize_short(IMAGES, 16)
    np.testing.assert_array_equal(pictures.decode(path, range(12), short_side=16), small)
    np.testing.assert_array_equal(list(pictures.frames_in_order(path, short_side=16)), small)


def test_jpegs_are_decoded_as_opencv_does_and_flow_is_left_out(tmp_path):
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 5) for image in IMAGES[:3]])
    path = store(tmp_path, "frame{:06d}.jpg", images=smooth)
    for axis in "xy":
        store(path, f"flow_{axis}_{{:05d}}.jpg", images=smooth[:2, :8])
    (path / ".hidden_1.jpg").touch()
    (path / "cover.jpg").touch()
    assert pictures.is_video(os.listdir(path))
    assert pictures.probe(path) == (3, 0.0, 60, 40)
    assert np.abs(pictures.decode(path, range(3)).astype(int) - smooth).mean() < 3


def test_gray_and_deep_pictures_become_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "a1.png"), np.full((4, 6), 7, np.uint8))
    cv2.imwrite(str(tmp_path / "a2.png"), np.full((4, 6, 4), 9 * 257, np.uint16))
    np.testing.assert_array_equal(pictures.decode(tmp_path, [0, 1])[:, 0, 0], [[7, 7, 7], [9, 9, 9]])


@pytest.mark.parametrize(
    "names, expected",
    [
        (["a1.jpg", "a2.JPEG", "notes.txt"], True),
        (["1.png", "0.png"], True),
        (["a1.jpg"], False),
        (["a1.jpg", "b1.jpg"], False),
        (["a.jpg", "b.jpg"], False),
        (["flow_x_1.jpg", "flow_x_2.jpg", "x_1.jpg", "y_1.jpg"], False),
        ([".a1.jpg", ".a2.jpg"], False),
        ([], False),
    ],
)
def test_which_folders_are_videos(names, expected):
    assert pictures.is_video(names) == expected


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def garble(path: pathlib.Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:50] + bytes(100) + data[150:])


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda path: (path / "image_00003.png").unlink(), r"gap in the numbering: picture image_00003 is missing"),
        (lambda path: (path / "image_00001.png").unlink(), r"gap in the numbering: picture image_00001 is missing"),
        (lambda path: (path / "image_3.png").touch(), r"pictures with the same number: image_"),
        (lambda path: (path / "other_1.png").touch(), r"pictures of several videos: image_\* and other_\*"),
        (
            lambda path: (path / "image_00003.png").write_bytes(b""),
            r"unreadable picture: image_00003.png \(empty file\)",
        ),
        (
            lambda path: (path / "image_00003.png").write_text("text"),
            r"unreadable picture: image_00003.png \(not a JPEG",
        ),
        (lambda path: truncate(path / "image_00003.png"), r"unreadable picture: image_00003.png \(truncated\)"),
        (lambda path: garble(path / "image_00003.png"), r"unreadable picture: image_00003.png \(it does not decode\)"),
        (
            lambda path: store(path, first=3, images=IMAGES[:1, :20]),
            r"frames change size: from 60x40 to 60x20 at picture image_00003.png",
        ),
        (lambda path: [file.unlink() for file in path.iterdir()], r"no frames: the folder has no numbered pictures"),
        (lambda path: path.rename(path.parent / "moved"), "no such file"),
    ],
)
def test_what_is_wrong_with_a_folder(change, reason, tmp_path):
    path = store(tmp_path / "video", images=IMAGES[:6])
    change(path)
    for read in (
        pictures.probe,
        lambda path: pictures.decode(path, [0, 2]),
        lambda path: list(pictures.frames_in_order(path)),
    ):
        with pytest.raises(VideoError, match=reason) as error:
            read(path)
        assert error.value.path == str(path)


def test_frames_that_are_not_there(tmp_path):
    path = store(tmp_path, images=IMAGES[:4])
    with pytest.raises(VideoError, match="no frame 4: there are only 4 pictures"):
        pictures.decode(path, [1, 7, 4])
    for indices in ([], [-1]):
        with pytest.raises(ValueError, match="at least one and not negative"):
            pictures.decode(path, indices)


def test_a_truncated_jpeg_is_not_made_up(tmp_path):
    path = store(tmp_path, "{}.jpg", images=IMAGES[:2])
    truncate(path / "2.jpg")
    with pytest.raises(VideoError, match=r"unreadable picture: 2.jpg \(truncated\)"):
        pictures.probe(path)
    assert pictures.decode(path, [0]).shape == (1, 40, 60, 3)


@pytest.mark.parametrize("extension, place, size", [(".png", 16, 4), (".jpg", None, 2)])
def test_a_picture_of_no_possible_size_is_not_decoded(extension, place, size, tmp_path):
    path = store(tmp_path, "{}" + extension, images=IMAGES[:2])
    data = bytearray((path / f"1{extension}").read_bytes())
    place = place or data.index(b"\xff\xc0") + 5
    data[place : place + 2 * size] = (60000).to_bytes(size) * 2
    (path / f"1{extension}").write_bytes(data)
    with pytest.raises(VideoError, match="strange size: frames of 60000x60000; expected at most"):
        pictures.probe(path, full=False)


def test_what_cameras_write_behind_a_jpeg_does_not_make_it_cut(tmp_path):
    """Such as a phone's own data; but the end of the small picture within one is not that of the picture."""
    path = store(tmp_path, "{}.jpg", images=IMAGES[:2])
    whole = (path / "1.jpg").read_bytes()
    (path / "1.jpg").write_bytes(whole + bytes(5000))
    assert pictures.decode(path, [0, 1]).shape == (2, 40, 60, 3)
    small = b"\xff\xe1" + (104).to_bytes(2) + whole[:100] + b"\xff\xd9"
    (path / "2.jpg").write_bytes(whole[:2] + small + whole[2:-20] + bytes(3000))
    with pytest.raises(VideoError, match=r"2.jpg \(truncated\)"):
        pictures.decode(path, [1])
