"""What a user of the installed package writes: run beside a folder `run` that it has trained, with a folder of videos.

Passes mypy, which sees the package's types.
"""

import pathlib
import sys
from typing import assert_type

import jax_video

assert not {"jax", "flax"} & set(sys.modules), "importing the package loads neither"
assert pathlib.Path(jax_video.__file__).is_relative_to(sys.prefix), "the source is out of reach"

run = jax_video.load("run")
assert_type(run.classes, tuple[str, ...])
videos = sorted(pathlib.Path(sys.argv[1]).rglob("*.mp4"))[:2]
found = run.classify(videos)
assert isinstance(found, list) and [set(scores) for scores in found] == [set(run.classes)] * 2
assert run.features(videos[0]).ndim == 1
