"""Shows a run, or two side by side, as one HTML file: how it was trained, how well it does, and where it errs.

  python -m jax_video.report runs/stc                               # writes runs/stc/report.html
  python -m jax_video.report runs/stc --mistakes=20 --out=stc.html
  python -m jax_video.report exported/stc --out=stc.html          # writes nothing into a folder to share
  python -m jax_video.report https://host/runs/stc --out=stc.html  # or s3://…, hf://…
  python -m jax_video.report runs/first runs/second --out=both.html

The page needs no network and no other file, so it can be sent to anybody. Every test writes it; while a run is
trained, the command shows how far it is. It uses the CPU only, and takes no device from a run.
"""

import os

import jax
from absl import flags

from jax_video import command
from jax_video.errors import UserError
from jax_video.reporting import writing


def define_flags() -> None:
    flags.DEFINE_string("out", None, "The file to write; by default report.html in the (first) run's folder.")
    flags.DEFINE_integer("mistakes", 8, "How many of the surest mistakes to show.", lower_bound=0)
    flags.DEFINE_boolean("explain", True, "Show what the network looked at in these; takes some seconds.")
    flags.DEFINE_string("data", None, "The set that was tested, where it is not where the config says.")


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if not 1 <= len(arguments) <= 2:
        raise UserError(f"expected the folder of a run, or of two, got {' '.join(arguments) or 'none'}; see --help")
    if len(arguments) == 2 and given.out is None:
        raise UserError("two runs side by side: say where to write, for example --out=both.html")
    if len(arguments) == 2 and (given["mistakes"].present or given["explain"].present):
        raise UserError("--mistakes and --explain are of the report of one run; two are compared without pictures")
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    path = writing.write_report(
        *arguments, out=given.out, mistakes=given.mistakes, explain=given.explain, data=given.data
    )
    print(f"Wrote {path}.")


if __name__ == "__main__":
    command.run(main, define_flags)
