"""A source of data is one file and one record: every record is true, and a new one is all that prepare needs."""

import functools
import inspect
import pathlib
import re

import numpy as np
import pytest
from preparing import run_beside

from jax_video.data.manifest import Manifest
from jax_video.data.sources import SOURCES, motions

CAMERAS = '''"""Videos whose names begin with a camera's, which is their class."""

import pathlib

from jax_video.data.manifest import Manifest
from jax_video.data.sources import finding, listing


def find(videos: pathlib.Path, *, cameras: list[str]) -> listing.Listing:
    found = finding.find_videos(videos)
    rows = [
        listing.unopened(path, cameras.index(camera), "train", finding.stem(path))
        for path in found.videos
        if (camera := path.partition("_")[0]) in cameras
    ]
    return listing.Listing("my cameras", tuple(cameras), videos, tuple(rows), ("by camera",))
'''
RECORD = """
import runpy
import cameras
from jax_video.data import sources

names = sources.Parameter("cameras", list, "cameras: their names.")
sources.SOURCES["cameras"] = sources.Source(cameras.find, "<camera>_<video>: --cameras=left,right", (names,))
runpy.run_module("jax_video.prepare", run_name="__main__", alter_sys=True)
"""


def test_a_new_source_is_one_file_and_one_record(tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "cameras.py").write_text(CAMERAS)
    (tmp_path / "modules" / "with_cameras.py").write_text(RECORD)
    (tmp_path / "videos").mkdir()
    for name in ("right_1.mp4", "left_1.mp4", "back_1.mp4"):
        motions.encode(tmp_path / "videos" / name, np.zeros((3, 32, 48, 3), np.uint8))
    run = functools.partial(run_beside, tmp_path / "modules", module="with_cameras")
    arguments = (f"--videos={tmp_path / 'videos'}", f"--out={tmp_path / 'out'}")
    done = run("cameras", *arguments, "--cameras=right,left")
    assert "my cameras: 2 classes" in done.stdout and "\nby camera\n" in done.stdout
    found = Manifest.read(tmp_path / "out" / "manifest.jsonl")
    assert [(row.path, row.label, row.frames) for row in found.videos] == [("left_1.mp4", 1, 3), ("right_1.mp4", 0, 3)]

    shown = run("--help").stdout
    assert re.search(r"^  cameras +<camera>_<video>: --cameras=left,right$", shown, re.MULTILINE)
    assert re.search(r"--cameras: cameras: their names.", shown)
    refused = run("cameras", *arguments, "--split=1", expected=2).stderr
    assert "error: --split: not for cameras, which knows --cameras" in refused
    refused = run("ucf101", *arguments, "--cameras=left", expected=2).stderr
    assert "error: --cameras: not for ucf101, which knows --annotations --split --seed" in refused


@pytest.mark.parametrize("name", SOURCES)
def test_a_record_says_what_its_function_takes(name):
    source = SOURCES[name]
    signature = inspect.signature(source.find).parameters.values()
    keywords = {parameter.name: parameter for parameter in signature if parameter.kind is parameter.KEYWORD_ONLY}
    kinds = {pathlib.Path: "Path", str: "str", int: "int", float: "float", bool: "bool", list: "Sequence[str"}
    assert set(keywords) == {parameter.name for parameter in source.parameters}
    for parameter in source.parameters:
        annotation = inspect.formatannotation(keywords[parameter.name].annotation)
        name = re.sub(r"^(pathlib\._local|pathlib|collections\.abc)\.", "", annotation)
        assert name.startswith(kinds[parameter.kind]), parameter
    assert all(len(line) <= 105 for line in source.help.splitlines()), "prepare's --help has 120 columns"
