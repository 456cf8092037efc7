"""The papers' relations that evidence.py looks at: what is trained for each, and what is compared with what."""

import dataclasses
from collections.abc import Mapping
from typing import Any

FOLDS = 5
QUICK_FLOW = "dis"  # what --best stores in the place of STREAM's flow, which takes 15 to 50 times as long
WEIGHTS = "e47a6a8070b9729cf9502bb9a5564f362cc15316c9ea8e70f4202eaaa8f659e0"  # SHA-256 of the file of --weights
UNLABELLED = "{unlabelled}"  # in a row's config: it sees the videos of two sets without labels
Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """Networks that are trained alike, one for each fold and seed.

    Attributes:
      config: as --config takes it. {set} is the prepared set, {unlabelled} all that may be seen without labels,
        {weights} the file; {another row} the run of that one in the same fold and with the same seed.
      changes: values of its config.
      fused: nothing is trained: the scores of these rows are added up.
      once: trained once; the runs of all folds and seeds start from it.
      views: a network of CoST, whose α is of interest.
    """

    config: str = ""
    changes: Values = dataclasses.field(default_factory=dict)
    fused: tuple[str, ...] = ()
    once: bool = False
    views: bool = False


@dataclasses.dataclass(frozen=True)
class Claim:
    """A relation of a paper: each pair's first row beats the second.

    Attributes:
      says: in words, with its source.
      data: the set.
      best: the row that --best trains: the most accurate here of those that two cores train in 40 minutes, optical
        flow included; None: the claim is of its own set alone.
      folds: the parts of the set of which each is tested once; 1: the set's own splits.
    """

    says: str
    data: str
    rows: dict[str, Row]
    pairs: tuple[tuple[str, str], ...]
    best: str | None = None
    folds: int = FOLDS
    seeds: int = 1

    @property
    def sees_flow(self) -> bool:
        """Whether some of its networks see optical flow, which takes long to store."""
        return any("clip.flow_method" in row.changes for row in self.rows.values())

    def parts(self, row: str) -> list[str]:
        """The rows that this one begins with, or whose scores it adds up."""
        found = self.rows[row]
        return [other for other in self.rows if f"{{{other}}}" in found.config or other in found.fused]


# A quarter of the width, clips of 16 × 56², for networks that learn from scratch.
SCRATCH = {"data.workers": 0, "train.log_steps": 50}
DENSE = SCRATCH | {
    "dtype": "float32",
    "model.width": 0.25,
    "clip.short_side": 62,
    "clip.crop": "random",
    "train.batch": 16,
    "schedule.kind": "cosine",
    "schedule.warmup_epochs": 1,
    "schedule.learning_rate": 0.02,
    "test.batch": 16,
}
# Half the width except in the stem, as the weights for pictures have it, clips of 8 × 112². BatchNorm over the batch,
# because its statistics come from pictures, and T-W and T-H planes differ.
THIN = {"model.width": 0.5, "model.stem_width": 64, "model.stride_on": "1x1"}
WIDE = THIN | {"model.dropout": 0.0, "train.freeze": None, "norm.frozen": False, "data.workers": 0}
PICTURES = "finetune:weights={weights},layout=torchvision,size=112,frames=8,span=48,data={set}"
# The streams of ST-ResNet, from the same weights, on frames and stored flow of 112² of a short side of 128.
STREAM = THIN | {
    **{"dtype": "float32", "data.workers": 0, "clip.size": 112, "clip.short_side": 128, "clip.flow_method": "tvl1"},
    **{"train.batch": 16, "train.micro_batch": None, "schedule.kind": "cosine", "schedule.warmup_epochs": 1},
}


def stc(branches: str, epochs: int, changes: Values = SCRATCH, **clip: int) -> Row:
    name = "resnet3d18" if branches == "none" else f"stc_resnet18,branches={branches}"
    clips = "".join(f",{key}={value}" for key, value in clip.items())
    return Row(f"stc:recipe=small,model={name}{clips},epochs={epochs},data={{set}}", changes)


def dense(model: str, width: float, epochs: int, stride: int, validate: int = 5) -> Row:
    config = f"t3d:model={model},frames=16,stride={stride},size=56,epochs={epochs},data={{set}}"
    return Row(config, DENSE | {"model.width": width, "train.validate_epochs": validate})


def stream(phase: str, epochs: int, rate: float, starts: str) -> Row:
    config = f"st_resnet:recipe=paper,phase={phase},group=8,epochs={epochs},{starts},data={{set}}"
    return Row(config, STREAM | {"schedule.learning_rate": rate})


def labelled(start: str, changes: Values) -> Row:
    weights, others = STARTS[start]
    config = f"finetune:model=c3d_3x1x1_resnet50,size=112,frames=8,span=48,data={{set}},weights={weights}"
    return Row(config, LABELLED | others | changes)


BRANCHES = ("none", "tcb", "scb", "both")
# DenseNet3D as wide as T3D, to which its transitions add parameters (by the paper's ratio, 1.3), and with nearly as
# many: 4 % fewer, as widths are rounded.
DENSENETS = {
    "densenet3d": ("densenet3d121", 0.25),
    "densenet3d, wider": ("densenet3d121", 0.28),
    "t3d": ("t3d121", 0.25),
}
VIEWS = ("c2d", "c3d_3x1x1", "cost_a", "cost_b")
LABELS = {"10 %": 0.1, "25 %": 0.25, "all": 1.0}
LABELLED = {  # alike from every start, but for the rate; as many steps with few labels, which would be few otherwise
    **{"train.steps": 100, "train.log_steps": 20, "train.freeze": None, "norm.frozen": False, "data.workers": 0},
    **{"model.dropout": 0.0, "clip.stride": 6, "clip.short_side": 128, "test.clips": "uniform", "test.number": 4},
}
STARTS = {
    "scratch": (
        "{weights},layout=torchvision",
        THIN | {"init_from.path": None, "init_from.layout": None, "schedule.learning_rate": 1e-3},
    ),
    "inflation": ("{weights},layout=torchvision", THIN),
    "transfer": ("{taught}", {}),
}

EVIDENCE = {
    "stc": Claim(
        "channel correlation helps, and both branches most (STC-Net, Tables 3 and 5)",
        "fights",
        {name: stc(name, 60, frames=16, stride=2) for name in BRANCHES},
        (("both", "none"), ("tcb", "none"), ("scb", "none"), ("both", "tcb"), ("both", "scb")),
        best="both",
    ),
    "t3d": Claim(
        "several temporal depths beat one (T3D, Table 4)",
        "fights",
        {name: dense(*of, 60, 2) for name, of in DENSENETS.items()},
        (("t3d", "densenet3d"), ("t3d", "densenet3d, wider")),
        best="densenet3d, wider",  # of three that may all be no better than a guess
    ),
    "st_resnet": Claim(
        "two streams with residuals beat two streams, and these one (ST-ResNet, Table 3)",
        "fights",
        {
            "appearance": stream("appearance", 30, 2e-3, "imagenet={weights}"),
            "motion": stream("motion", 60, 2e-3, "imagenet={weights}"),
            "late fusion": Row(fused=("appearance", "motion")),
            "st_resnet": stream("joint", 15, 1e-3, "appearance={appearance},motion={motion}"),
            "st_resnet_star": stream("star", 2, 1e-4, "start={st_resnet}"),
        },
        (
            *(("late fusion", "appearance"), ("late fusion", "motion"), ("st_resnet", "late fusion")),
            *(("st_resnet", "motion"), ("st_resnet_star", "st_resnet"), ("st_resnet_star", "motion")),
        ),
        best="motion",  # ST-ResNet and ST-ResNet* are up to 4 points better, of which these runs are not sure
    ),
    "transfer": Claim(
        "knowledge of a network for pictures beats scratch (STC-Net §3.2, T3D §3.2), and plain inflation",
        "ut_interaction",
        {
            "taught": Row(
                "transfer:recipe=small,model=c3d_3x1x1_resnet50,teacher=resnet50,weights={weights},frames=8,"
                "data={unlabelled},epochs=30",
                {
                    key.replace("model", section): value
                    for section in ("model", "teacher")
                    for key, value in THIN.items()
                }
                | {"clip.size": 112, "clip.short_side": 128, "clip.stride": 6},
                once=True,
            ),
            **{
                f"{start}, {name} of the labels": labelled(start, {"data.fraction": fraction})
                for name, fraction in LABELS.items()
                for start in STARTS
            },
            "scratch for longer, all of the labels": labelled("scratch", {"train.steps": 500}),
        },
        (
            *(
                (f"{start}, {name} of the labels", f"{other}, {name} of the labels")
                for start, other in (("transfer", "scratch"), ("transfer", "inflation"), ("inflation", "scratch"))
                for name in LABELS
            ),
            *(
                (f"{start}, all of the labels", "scratch for longer, all of the labels")
                for start in ("transfer", "inflation")
            ),
        ),
        best="inflation, all of the labels",
        seeds=2,
    ),
    "cost": Claim(
        "three views beat one, and 3D (CoST, Tables 4 and 5)",
        "fights",
        {name: Row(f"{PICTURES},model={name}_resnet50", WIDE, views="cost" in name) for name in VIEWS},
        tuple((cost, other) for cost in ("cost_a", "cost_b") for other in ("c2d", "c3d_3x1x1")),
        best="c3d_3x1x1",  # by .3 points before C2D and 2.0 before CoST(b), of which these runs are not sure
        seeds=2,
    ),
    "stc_motions": Claim(
        "channel correlation helps, where motion is all there is",
        "motions",
        {name: stc(name, 6, SCRATCH | {"train.validate_epochs": 1}, frames=16) for name in BRANCHES},
        (("both", "none"), ("tcb", "none"), ("scb", "none")),
        folds=1,
        seeds=3,
    ),
    "t3d_motions": Claim(
        "several temporal depths beat one, where motion is all there is",
        "motions",
        {name: dense(*of, 10, 1, validate=2) for name, of in DENSENETS.items()},
        (("t3d", "densenet3d"), ("t3d", "densenet3d, wider")),
        folds=1,
        seeds=3,
    ),
    "views": Claim(
        "a set that needs motion looks more at T-W and T-H (CoST §4.5)",
        "ut_interaction",
        {"cost_b": Row(f"{PICTURES},model=cost_b_resnet50", WIDE | {"train.steps": 350}, views=True)},  # as on fights
        (),
        folds=1,
        seeds=3,
    ),
}

# Networks of the first look more at T-W and T-H than those of the second, as their set needs motion (CoST §4.5).
LOOKS_MORE = (("cost", "cost_b"), ("views", "cost_b"))
