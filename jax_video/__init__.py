"""Video action recognition with spatio-temporal ConvNets in JAX.

A trained run, opened once and used:

  import jax_video

  run = jax_video.load("runs/stc")              # a run's folder, an export; also gs://, s3://, hf://, https://
  run.classify("video.mp4")                     # also a list of files, or an array uint8 [T, H, W, 3] with fps=
  run.iter_scores(paths)                        # yields (index, scores [K]) of each video as soon as it is known
  run.features("video.mp4")                     # [D]
  run.timeline("long.mp4", window=2.0, hop=0.5) # labels with times
  run.explain("video.mp4")                      # what the network looks at, and when: Grad-CAM
  run.watch("rtsp://host/stream")               # labels of a stream as they change: an iterator
  run.network, run.classes, run.config

A network by itself:

  from flax import nnx

  model = jax_video.build("stc_resnet18", num_classes=400, rngs=nnx.Rngs(0))
  jax_video.NETWORKS["stc_resnet18"]            # its record: its clips, its keywords and more
  jax_video.NETWORKS["mine"] = jax_video.Network(Mine, {"width": 8})    # one of your own: see jax_video.networks

Train and test a recipe from Python, as `python -m jax_video.main` does:

  config = jax_video.read_recipe("stc:recipe=small,data=data/mine")
  manifest = jax_video.read_manifest(config.data.manifest)
  jax_video.train_and_test(config, manifest, "runs/mine")
  jax_video.write_report("runs/mine")           # an HTML page; with a second run and out="both.html": the two compared

To keep compiled programs for the next start, as the commands do:

  jax_video.enable_compilation_cache()

The commands are listed by `python -m jax_video`. Names are loaded when they are first used: `import jax_video` loads
neither jax nor flax.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax_video.compilation_cache import enable_compilation_cache
    from jax_video.config_flag import read_recipe
    from jax_video.data.manifest import Manifest
    from jax_video.data.sources.prepared import read as read_manifest
    from jax_video.errors import UserError, VideoError
    from jax_video.models import build
    from jax_video.networks import NETWORKS, Network
    from jax_video.reporting.writing import write_report
    from jax_video.run import Run, load
    from jax_video.workflow import test, train_and_test

__version__ = "0.1.0"
__all__ = [
    "NETWORKS",
    "Manifest",
    "Network",
    "Run",
    "UserError",
    "VideoError",
    "__version__",
    "build",
    "enable_compilation_cache",
    "load",
    "read_manifest",
    "read_recipe",
    "test",
    "train_and_test",
    "write_report",
]

_PLACES = {  # public name: "module:name"
    "NETWORKS": "jax_video.networks:NETWORKS",
    "Manifest": "jax_video.data.manifest:Manifest",
    "Network": "jax_video.networks:Network",
    "Run": "jax_video.run:Run",
    "UserError": "jax_video.errors:UserError",
    "VideoError": "jax_video.errors:VideoError",
    "build": "jax_video.models:build",
    "enable_compilation_cache": "jax_video.compilation_cache:enable_compilation_cache",
    "load": "jax_video.run:load",
    "read_manifest": "jax_video.data.sources.prepared:read",
    "read_recipe": "jax_video.config_flag:read_recipe",
    "test": "jax_video.workflow:test",
    "train_and_test": "jax_video.workflow:train_and_test",
    "write_report": "jax_video.reporting.writing:write_report",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _module_to_run() -> str:
    """The module that `python -m` is about to run, while it still looks for it (sys.argv[0] is "-m"); else ""."""
    if sys.argv[:1] != ["-m"]:
        return ""
    option, *_ = sys.orig_argv[-len(sys.argv) :] or [""]  # before the module's own arguments: NAME, -mNAME or -BmNAME
    return option.partition("m")[2] if option.startswith("-") else option


if (_module := _module_to_run()).partition(".")[0] == "jax_video":
    from jax_video import ctrl_c

    ctrl_c.end_at_once()
    if _module not in ("jax_video", "jax_video.__main__"):
        from jax_video.__main__ import check_module

        check_module(_module)
