"""What is drawn into videos and pictures, whatever their size and whatever names classes have."""

import dataclasses
import warnings

import numpy as np
import pytest
from fontTools import fontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from jax_video import pictures, recipe
from jax_video.explanation import Explanation
from jax_video.testing import heatmaps, overlay
from jax_video.timeline import Timeline

GREY = 90


def all_hold(count: int, several: bool = True) -> Timeline:
    """Of two windows, in which all of so many classes hold; or else the first one."""
    names = tuple(f"class {number}" for number in range(count))
    thresholds = np.full(count, 0.5) if several else None
    return Timeline(names, np.array([0.0, 1.0]), np.array([2.0, 3.0]), np.full((2, count), 0.9), thresholds=thresholds)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("high", [*range(1, 9), 48, 240])
def test_the_bar_leaves_most_of_the_picture(high, several):
    for count in (1, 3, 157):
        frames = [(second, np.full((high, 32, 3), GREY, np.uint8)) for second in (0.5, 2.5)]
        drawn = [image for _, image in overlay.drawn(frames, all_hold(count, several))]
        for image in drawn:
            assert image.shape == (high, 32, 3)
            below_label = max(1, round(high / 12))
            assert (image[below_label : high - max(1, high // 5)] == GREY).all()
            assert (image[-1] != GREY).any()


def test_no_lane_is_left_out_where_lanes_are_more_than_rows():
    """Each class holds at a time of its own, so that each is to be seen in a place of its own."""
    count = 64
    rows = np.eye(count)
    starts = np.arange(count, dtype=float)
    names = tuple(f"class {number}" for number in range(count))
    timeline = Timeline(names, starts, starts + 1, rows, thresholds=np.full(count, 0.5))
    [(_, image)] = overlay.drawn([(0.0, np.zeros((100, 4 * count, 3), np.uint8))], timeline)
    assert not image[10:80].any() and (image[80:, 4:].max(axis=(0, 2)) > 20).all()


def test_a_looped_clip_is_of_all_of_its_seconds():
    """Its last frame is one of the first."""
    maps, indices = np.zeros((8, 4, 4), np.float32), np.arange(8) % 6
    given = {"frames": np.zeros((8, 4, 4, 3), np.uint8), "maps": maps, "indices": indices, "seconds": indices / 10}
    found = Explanation(**given, label="up", probability=0.5, layer="layer2", places=(4, 7, 7))
    assert "from 0.00 to 0.50 s" in heatmaps.describe(found)
    assert "from frames 0 to 5" in heatmaps.describe(dataclasses.replace(found, seconds=None))


@pytest.fixture
def fonts(monkeypatch):
    """Matplotlib's list of fonts, which this test may change; what is looked up in it is forgotten afterwards."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    caches = [pictures._fonts, pictures._letters, recipe.note]
    for cache in caches:
        cache.cache_clear()
    yield monkeypatch
    for cache in caches:
        cache.cache_clear()


def write_font(path, letters: str) -> None:
    """A font in which each of these letters is a filled square."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"letter{place}" for place in range(len(letters)))]
    font = fontBuilder.FontBuilder(1000)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Squares CJK", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWeightClass=400)
    font.setupPost()
    font.save(path)


def test_letters_are_drawn_by_a_font_that_has_them(fonts, tmp_path, capsys):
    write_font(tmp_path / "squares.ttf", "跑步")
    (tmp_path / "broken.ttf").write_text("no font")
    files = [str(tmp_path / name) for name in ("squares.ttf", "broken.ttf")]
    fonts.setattr(font_manager, "findSystemFonts", lambda: files)
    two, one = pictures.text("跑步", 40), pictures.text("跑", 40)
    assert two.shape[1] - one.shape[1] == pytest.approx(24, abs=1), "a square each"
    assert one[14:26, 20:36].all(), "which is filled"
    assert pictures.confusion(("跑步", "b"), np.eye(2, dtype=int)).size and not capsys.readouterr().err


def test_letters_that_no_font_has_are_shown_by_number_and_that_is_said_once(fonts, capsys):
    fonts.setattr(font_manager, "findSystemFonts", lambda: [])
    keep = [font for font in font_manager.fontManager.ttflist if "DejaVu" in font.name]
    fonts.setattr(font_manager.fontManager, "ttflist", keep)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(pictures.text("跑 é", 24), pictures.text(r"\u8dd1 é", 24))
        pictures.confusion(("跑步", "달리기"), np.eye(2, dtype=int))
        pictures.strip({"rgb": np.zeros((1, 2, 32, 32, 3), np.uint8)}, ["走る"])
    assert capsys.readouterr().err.count("where no installed font has them") == 1
