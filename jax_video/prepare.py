"""Indexes videos for training: python -m jax_video.prepare SOURCE --videos=DIR --out=DIR

Looks at every video once and writes OUT/manifest.jsonl: labels, splits, frame counts, what is missing, what is broken
(OUT/broken.csv). Stopped, it goes on where it was; later, it looks only at files that are new or have changed. SOURCE:

{sources}

  python -m jax_video.prepare folder --videos=clips --fraction=.1 --out=data/mine

--flow stores optical flow for motion streams too, below OUT/flow: tvl1 as in the papers, or dis, which is far quicker.
--pack stores all frames as JPEGs, below OUT/packed, a set that loads many times as fast. Two sources need no --videos:

  python -m jax_video.prepare motions --out=data/motions --flow=dis --flow_side=62    # the embedded set
  # the set that OUT/manifest.jsonl describes: look at its files again, say where they are now, or add its flow
  python -m jax_video.prepare manifest --out=data/ucf101-1 --videos=/elsewhere/UCF-101 --flow=tvl1 --pack
  python -m jax_video.prepare --benchmark data/ucf101-1 --clip=16,2,122,112  # how fast it loads, and what to change
"""

import math
import os
import pathlib
import shlex
from collections.abc import Callable
from typing import Any

from absl import flags

from jax_video import command, lock
from jax_video.data import sources
from jax_video.data.decoding import flow, packed
from jax_video.data.manifest import Packed
from jax_video.data.preparing import checks
from jax_video.data.preparing.machines import Machines
from jax_video.data.preparing.preparation import Preparation, Prepared, prepare
from jax_video.data.sources import prepared
from jax_video.errors import UserError

__doc__ = (__doc__ or "").replace("{sources}", sources.describe())  # it is the help; python -OO has none

FLAGS = flags.FLAGS
_FEW = 5000  # training videos; with fewer the papers fine-tune
_SMALL_SIDE = 128  # of flow, above which its clips are too much for a CPU
_SMALL_STEPS = 400  # of 16 videos: what a small network needs to learn something from scratch
_DEFINE: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    pathlib.Path: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
    list: flags.DEFINE_list,
}
_OF_STEPS = {  # flags that mean nothing without these
    "flow": ("flow_side",),
    "pack": ("pack_side", "pack_quality"),
    "benchmark": ("clip", "batch", "benchmark_seconds"),
}
_OF_PREPARING = (  # flags that mean nothing with --benchmark, beside those of sources
    *("videos", "out", "check", "recheck", "min_frames", "fps", "max_damage", "accept", "timeout"),
    *("flow", "flow_side", "pack", "pack_side", "pack_quality", "beam"),
)


def define_flags() -> None:
    """Define the command's own flags, and one for each parameter of a source."""
    flags.DEFINE_string("videos", None, "Folder of the videos, also in a store (gs://, s3://).")
    flags.DEFINE_string("out", None, "Folder to write manifest.jsonl and broken.csv into.")
    for parameter in sources.parameters():
        _DEFINE[parameter.kind](parameter.name, None, parameter.help)
    flags.DEFINE_enum("check", None, list(checks.LEVELS), "Containers only, or (default) every frame.")
    flags.DEFINE_boolean("recheck", False, "Look at every file again; so does another decoder.")
    flags.DEFINE_integer("min_frames", None, "A video of fewer frames is broken.", lower_bound=1)
    flags.DEFINE_float("fps", None, "Frames per second of videos that do not say it, such as pictures (for clip.fps).")
    flags.DEFINE_integer("workers", os.cpu_count(), "Processes that decode.", lower_bound=1)
    flags.DEFINE_float(
        "max_damage", None, "Part of a video's frames that may be lost (default .05).", lower_bound=0, upper_bound=1
    )
    flags.DEFINE_list("accept", [], "Use what these broken videos give: paths, folders, patterns.")
    flags.DEFINE_float(
        "timeout", 300.0, "Seconds without progress; --flow: for 50 frames, --pack: 1000.", lower_bound=0
    )
    flags.DEFINE_enum("flow", None, list(flow.METHODS), "Store optical flow, computed by this method.")
    flags.DEFINE_integer("flow_side", 256, "Short side of the frames it is computed from.", lower_bound=flow.LEAST_SIDE)
    flags.DEFINE_boolean("pack", False, "Store all frames as JPEGs, in a set of its own below OUT/packed.")
    flags.DEFINE_integer("pack_side", 256, "Their short side at most; none is enlarged.", lower_bound=1)
    flags.DEFINE_integer("pack_quality", 90, "Of these JPEGs.", lower_bound=1, upper_bound=100)
    flags.DEFINE_string("beam", None, "Run --flow and --pack on Apache Beam, with these options.")
    flags.DEFINE_string("benchmark", None, "A prepared set whose loading is timed.")
    flags.DEFINE_list("clip", ["16", "2", "122", "112"], "benchmark: frames, stride, short side, crop.")
    flags.DEFINE_integer("batch", 32, "benchmark: clips in a batch.", lower_bound=1)
    flags.DEFINE_float("benchmark_seconds", 6.0, "How long each of its measurements takes.", lower_bound=0.1)
    command.define_takeover()


def main(arguments: list[str]) -> None:
    if FLAGS.benchmark is not None:
        print(_benchmark(arguments))
        return
    for step, names in _OF_STEPS.items():
        idle = [f"--{name}" for name in names if FLAGS[name].present and not FLAGS[step].value]
        if idle:
            raise UserError(f"{' '.join(idle)}: nothing to do without --{step}")
    task = Preparation(
        source=" ".join(arguments),
        out=FLAGS.out or "",
        videos=FLAGS.videos,
        parameters=_parameters(),
        check=FLAGS.check,
        recheck=FLAGS.recheck,
        min_frames=FLAGS.min_frames,
        max_damage=FLAGS.max_damage,
        accept=FLAGS.accept,
        flow=flow.Settings(FLAGS.flow, FLAGS.flow_side) if FLAGS.flow else None,
        pack=Packed("frames", packed.RECORD_FRAMES, FLAGS.pack_side, FLAGS.pack_quality) if FLAGS.pack else None,
        machines=Machines(FLAGS.workers, FLAGS.timeout, FLAGS.beam),
        fps=FLAGS.fps,
    )
    result = prepare(task, say=print, takeover=FLAGS.takeover, lost=lock.end_process)
    print(_next_commands(result, task))


def _parameters() -> dict[str, Any]:
    """The parameters of the source that the command line sets."""
    given = {parameter.name: FLAGS[parameter.name].value for parameter in sources.parameters()}
    return {name: value for name, value in given.items() if value is not None}


def _next_commands(result: Prepared, task: Preparation) -> str:
    """The commands that train on the set."""
    manifest = result.manifest
    if not manifest.select("train"):
        return "There is no readable training video: nothing can be trained on this part of the set."
    if result.is_in_store:
        return (
            "Videos in a store are not trained on; their frames, packed, are:\n"
            f"  python -m jax_video.prepare manifest --out={shlex.quote(os.fspath(task.out))} --pack"
        )
    partial = any(row.split == "test" and row.error for row in manifest.videos)
    accept = " --config.test.allow_partial=True" if partial else ""
    small = "Or small, for a CPU"
    epochs = max(10, math.ceil(_SMALL_STEPS * 16 / len(manifest.select("train"))))
    timed = all(row.fps for _, row in manifest.select("train"))  # r2plus1d_18 needs it: it takes 15 frames a second
    tune = f"finetune.py:weights=torchvision:{'r2plus1d_18' if timed else 'resnet50'},"
    if not manifest.classes:
        uses = {"Train on it": "transfer.py:weights=torchvision:resnet50,", small: "transfer.py:recipe=small,"}
    elif task.flow:
        recipe = "st_resnet.py:phase=motion,"
        uses = {"Train on it": f"{recipe}imagenet=torchvision:resnet50,"}
        side = task.flow.short_side
        size = 8 * round(side * 7 / 64)  # of a crop: 224 of 256, 56 of 62
        uses |= {small: f"{recipe}recipe=small,"} if side <= _SMALL_SIDE else {}
        clip = {"flow_method": task.flow.method, "short_side": side, "size": size}
        accept += "".join(f" --config.clip.{key}={value}" for key, value in clip.items())
    elif len(manifest.select("train")) < _FEW:
        uses = {
            "Train on it, from public weights": tune,
            "Or from scratch, and small, for a CPU": f"stc.py:recipe=small,epochs={epochs},",
        }
    else:
        uses = {"Train on it": "stc.py:", "Or from public weights": tune, small: "stc.py:recipe=small,"}
    lines = []
    for use, recipe in uses.items():
        config = shlex.quote(f"--config=configs/{recipe}data={result.folder}")
        lines += [f"{use}:", f"  python -m jax_video.main {config}{accept}"]
    return "\n".join(lines)


def _benchmark(arguments: list[str]) -> str:
    """A report on how fast a prepared set loads."""
    if arguments:
        raise UserError(f"--benchmark takes a prepared set, and no source besides: got {' '.join(arguments)}")
    names = (*_OF_PREPARING, *(parameter.name for parameter in sources.parameters()))
    if idle := [f"--{name}" for name in names if FLAGS[name].present]:
        raise UserError(f"{' '.join(idle)}: nothing to do with --benchmark, which times a set as it is prepared")
    found = prepared.read(FLAGS.benchmark)
    if len(FLAGS.clip) != 4 or not all(number.isdecimal() for number in FLAGS.clip):
        raise UserError(f"--clip={','.join(FLAGS.clip)}: expected frames, stride, short side and crop: 16,2,122,112")
    import jax  # to time transfers to the device; nothing else here needs it

    from jax_video import sharding
    from jax_video.data import pipeline, reader
    from jax_video.data.preparing import speed

    reader.check(found)
    sharding.announce(sharding.make_mesh(), found.describe())

    frames, stride, short_side, size = map(int, FLAGS.clip)
    sampling = pipeline.Sampling(frames=frames, stride=stride, short_side=short_side, size=size)
    measured = speed.measure(
        found,
        sampling,
        batch=FLAGS.batch,
        transfer=lambda batch: jax.block_until_ready(jax.device_put(batch)),
        workers=tuple(sorted({0, 1, max(1, FLAGS.workers // 2), FLAGS.workers})),
        seconds=FLAGS.benchmark_seconds,
    )
    return speed.report(found, sampling, measured)


if __name__ == "__main__":
    command.run(main, define_flags)
