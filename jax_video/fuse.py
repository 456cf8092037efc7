"""Adds up the scores that several networks, or other methods, give to the same videos (late fusion).

  # two streams with equal weight, and with another method's scores, each brought to length 1 (ST-ResNet §4, + IDT)
  python -m jax_video.fuse runs/appearance runs/motion
  python -m jax_video.fuse runs/st_resnet idt.csv --l2 --out=runs/st_resnet_idt
  # one weight for each
  python -m jax_video.fuse runs/a runs/b/predictions.jsonl scores.npz --weights=1,1,0.5
  # scores as others publish them
  python -m jax_video.fuse rgb.npz flow.npz

A source is the folder of a tested run (or the predictions.jsonl in it), or scores from elsewhere:
- a CSV whose header is `video` and the names of the classes;
- an .npz of three arrays: `scores` [N, K]; `labels` [N], class numbers from 0; `names` [N] of the videos. If two
  sources number the classes differently, they are matched by the labels of the videos that they share;
- an .npz with an array [K] under the name of each video, classes in the order of the first source.
The first source has to have labels: a run, a predictions.jsonl, or an .npz of three arrays. Videos are named by their
path in the data set, or by the end of it, with or without a video's suffix.
The tests of all runs have to average the same: probabilities, or logits (--config.test.average_clips=logit).
"""

import pathlib
import sys

from absl import flags

from jax_video import command, metrics
from jax_video.data import remote
from jax_video.errors import UserError, writing
from jax_video.testing import fusion


def define_flags() -> None:
    flags.DEFINE_list("weights", None, "One for each source; by default all count alike.")
    flags.DEFINE_boolean("l2", False, "Divide every source's scores of a video by their Euclidean norm first.")
    flags.DEFINE_string(
        "out", None, "A folder of its own for predictions.jsonl, confusion.json and test.json of the fused scores."
    )


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if len(arguments) < 2:
        raise UserError(f"expected at least two sources, got {' '.join(arguments) or 'none'}; see --help")
    if given.out is not None:
        remote.check_local(given.out)
        fusion.check_out(pathlib.Path(given.out), arguments)
    if len({remote.real(argument.removesuffix("/predictions.jsonl")) for argument in arguments}) < len(arguments):
        raise UserError(f"a source is named twice: {' '.join(arguments)}; --weights=2,1 lets one count twice as much")
    sources = [fusion.read(argument) for argument in arguments]
    weights = [1.0] * len(sources)
    if given.weights is not None:
        try:
            weights = [float(weight) for weight in given.weights]
        except ValueError:
            raise UserError(f"--weights={','.join(given.weights)}: expected numbers, as in 1,0.5") from None
    first = sources[0]
    fused = fusion.fuse(sources, weights, l2=given.l2)
    print(f"CPU; scores of {len(sources)} sources; {len(first.scores):,} videos", file=sys.stderr)
    heads = {"map": "mAP", "hit1": "hit@1"}
    if not first.multilabel:
        heads = {"top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class"}
    of = f" of {first.of}" if first.of not in (None, len(first.scores)) else ""
    print(f"{len(first.scores)}{of} videos, {len(first.class_names)} classes\n{'':30} {'   '.join(heads.values())}")
    for source in (*sources, fused):
        values = fusion.measure(fusion.fuse([first, source], [0.0, 1.0]))
        print(f"{source.name[-29:]:30}" + "".join(f"{100 * values[key]:6.2f} %" for key in heads))
    if not first.multilabel and (note := metrics.note(len(first.class_names))):
        print(note, file=sys.stderr)
    if given.out is not None:
        with writing(given.out, "then fuse them again"):
            fusion.write(pathlib.Path(given.out), fused, arguments, weights, l2=given.l2)


if __name__ == "__main__":
    command.run(main, define_flags)
