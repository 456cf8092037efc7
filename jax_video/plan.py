"""Says what a recipe needs on TPUs, without having one: it is compiled for them, which takes minutes and is remembered.

  python -m jax_video.plan --config=stc:model=stc_resnext101,data=DIR --topology=v5e:2x4
      memory of a chip, the largest micro-batch, operations, traffic, a bound of the clips per second, and what 8 to 256
      chips exchange
  python -m jax_video.plan --config=cost:model=cost_b_resnet50,data=DIR --topology=v6e:2x4 --mode=test --batch=64
      the same of a test step

It needs TPUs' compiler: pip install "jax[tpu]<0.13". The data set need not be there.
"""

from absl import flags

from jax_video import command, config_flag, planning
from jax_video.errors import UserError


def define_flags() -> None:
    config_flag.define("What to train and how: RECIPE[:key=value,...], by name or as a file.")
    flags.DEFINE_string("topology", "v5e:2x4", f"A slice of TPUs: {', '.join(planning.CHIPS)}, and its shape in chips.")
    flags.DEFINE_enum("mode", "train", ["train", "test"], "Which step.")
    flags.DEFINE_integer("batch", None, "Videos of a step, in place of the recipe's.", lower_bound=1)
    flags.DEFINE_integer("classes", 400, "Number of classes.", lower_bound=1)
    flags.DEFINE_integer("videos", 240_000, "Videos of an epoch.", lower_bound=1)
    flags.DEFINE_float("decoding", 3000.0, "Frames per second that a core decodes.", lower_bound=1.0)


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if arguments:
        raise UserError(f"unexpected arguments {' '.join(arguments)!r}: everything is a --flag=value; see --help.")
    if given.mode == "test" and given["videos"].present:
        raise UserError("--videos are those of an epoch, and --mode=test plans none: leave it out.")
    config, _ = config_flag.read(resolve=False)
    plan = planning.plan(config, given.topology, mode=given.mode, batch=given.batch, classes=given.classes)
    print(planning.report(plan, videos=given.videos, decoding=given.decoding))


if __name__ == "__main__":
    command.run(main, define_flags, cache=False)  # JAX could not read back what it compiles for devices elsewhere
