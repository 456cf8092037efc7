"""The table of commands, which `python -m jax_video COMMAND ...` and an installed `jax-video COMMAND ...` run."""

import difflib
import runpy
import sys
from typing import NoReturn

from jax_video import ctrl_c

COMMANDS = {  # the modules of this package that are commands: what they do, and their main arguments
    "main": ("train and test a network", "--config=stc"),
    "prepare": ("index videos for training", "folder --videos=DIR --out=DIR"),
    "predict": ("classify videos", "VIDEO... --checkpoint=WORKDIR"),
    "convert": ("PyTorch weights in and out", "WEIGHTS --layout=NAME --config=RECIPE --out=DIR"),
    "report": ("show a run, or two, as a page", "RUN [RUN] [--out=FILE]"),
    "export": ("write a network for others", "RUN --out=DIR [--format=stablehlo,safetensors,onnx]"),
    "fuse": ("add up the scores of networks", "RUN RUN-OR-FILE... [--weights=1,1] [--l2]"),
    "average": ("mean and std of several tests", "RUN RUN..."),
    "plan": ("what a recipe asks of TPUs", "--config=stc --topology=v5e:2x4"),
    "models": ("print the networks", "--name=NAME --layers"),
}
MEANT = {  # other words that users may try, and modules that are no commands: the command that is meant
    "train": "main",
    "test": "main --mode=test",
    "testing": "main --mode=test",
    "evaluate": "main --mode=test",
    "features": "main --mode=features",
    "views": "main --mode=views",
    "reporting": "report",
    "compare": "report",
    "data": "prepare",
    "run": "predict",
    "classify": "predict",
    "live": "predict --live=SOURCE",
    "watch": "predict --live=SOURCE",
    "weights": "convert",
    "onnx": "export",
    "share": "export",
    "networks": "models",
}


def main() -> None:
    """Run the command that the first argument names, exactly as `python -m jax_video.COMMAND` does."""
    ctrl_c.end_at_once()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "-help", "--helpshort"):
        print(_listed())
    elif name in COMMANDS:
        sys.argv = [sys.argv[0], *arguments]
        runpy.run_module(f"jax_video.{name}", run_name="__main__", alter_sys=True)
    else:
        _exit(f"there is no command {name!r}", name)


def check_module(module: str) -> None:
    """End a `python -m MODULE` with an error if this module of the package is no command: it would do nothing."""
    name = module.removeprefix("jax_video.").removesuffix(".__main__")
    if name not in COMMANDS:
        _exit(f"{module} is no command", name)


def _listed() -> str:
    column = max(len(name) for name in COMMANDS)
    middle = max(len(what) for what, _ in COMMANDS.values()) + 1
    lines = [
        f"  python -m jax_video {name:{column}}  {what + ':':{middle}}  {arguments}"
        for name, (what, arguments) in COMMANDS.items()
    ]
    return "\n".join(
        [
            "jax_video: video action recognition with spatio-temporal ConvNets in JAX",
            "",
            *lines,
            "",
            "Each has a --help with examples. jax-video COMMAND, where it is installed, is the same.",
        ]
    )


def _exit(message: str, name: str) -> NoReturn:
    """Exit with a message that names the command nearest to `name`, which is a word or a module's dotted name."""
    known = dict.fromkeys(COMMANDS) | MEANT
    nearest = [match for part in name.split(".")[::-1] for match in difflib.get_close_matches(part, known, 1)]
    meant = (known[nearest[0]] or nearest[0]) if nearest else ""
    hint = f": did you mean python -m jax_video {meant}?" if meant else "."
    print(f"error: {message}{hint} Commands: {', '.join(COMMANDS)}; see python -m jax_video --help.", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
