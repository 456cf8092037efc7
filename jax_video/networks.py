"""The table of networks: one record each, with everything that the library looks up by a network's name.

A new network is a class in jax_video/models and a record here. The table is data and loads neither jax nor flax, so
recipes can read it.

A network of your own needs no change of this package: put its record into the table, in a script, in a notebook or at
the top of a recipe, before the name is used.

  from jax_video import NETWORKS, Network

  NETWORKS["mine"] = Network(Mine, {"width": 8}, frames=8, size=56)
  config.model = ConfigDict({"name": "mine", "width": 16})

Then it is trained, tested and used like any other. A run saves the name, and no code: put the record there before
`jax_video.load`, too. The class, a `flax.nnx.Module`, is built and called like this:

  model = Mine(num_classes=K, rngs=rngs, dtype=dtype, norm=norm, width=8)
  model(video, keys=keys)     # normalised [B, T, H, W, 3], and random keys [B] in training alone -> logits [B, K]
  model.features(video)       # [B, T', H', W', D], for `Run.features`

`rngs.params()` gives keys of initial values. `norm(channels, dtype=dtype, rngs=rngs)` makes a normalisation layer, as
section `norm` of a config says. Every array of the network is an `nnx.Param`, an `nnx.BatchStat` or, if it is constant,
`jax_video.models.layers.Frozen`. Dropout is `jax_video.models.layers.Dropout`, which takes `keys`. Stages that are
marked, `x = layers.output("layer1", x)`, can be explained (`Run.explain`). The classifier is a module, `fc` or what the
record's `head` says. You may use the layers and units of `jax_video.models`, but need not.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax_video.errors import UserError

KINDS: dict[str, type] = {"layers": tuple, "stem_width": int, "fuse_views": bool}  # of keywords whose default is None
WRAPPERS = ("network", "student", "appearance", "motion")  # attributes by which a network contains another
CHANNELS = {"rgb": 3, "flow": 20}  # of each stream; flow is x and y of ten consecutive fields


@dataclasses.dataclass(frozen=True)
class Network:
    """The record of a network, or what the networks of a family share.

    Attributes:
      constructor: its class, or "module:name" of it, which is imported when the network is built.
      keywords: what section `model` of a config may set, with the defaults. The class describes them.
      arguments: further arguments of the class, which a config cannot set.
      recipe: the file of configs/ that trains it.
      streams: what it takes, in this order: "rgb", "flow" or both.
      frames, size: length, and height and width, of the paper's clip.
      bound: those of the keywords `frames` and `size` that have to be the clip's, because layers depend on them.
      stems: lengths of clips that have a stem of their own, chosen by the keyword `frames`; the others share one.
      stages: how many numbers the keyword `layers` takes; 0 where there is no such keyword.
      head: what its classifier is called among its modules.
      parts: {part that `train.freeze` may name: its modules}, from the input on; all of the network but the head.
      layouts: {layout of weights (`weights.names`) that has this network: the keywords with which it computes the same
        as there}.
      after: its modules between `features` and the classifier: a knowledge transfer, which is about features, does not
        train them.
      own: patterns of the arrays that it adds to the network that it extends; `init_from.skip`, to start from that one.
      weighs_views: whether it looks at a clip from CoST's three views, and weighs them.
    """

    constructor: str | Callable[..., Any]
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recipe: str = ""
    streams: tuple[str, ...] = ("rgb",)
    frames: int = 1
    size: int = 224
    bound: tuple[str, ...] = ()
    stems: tuple[int, ...] = ()
    stages: int = 4
    head: str = "fc"
    parts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    after: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    weighs_views: bool = False

    def but(self, **changes: Any) -> "Network":
        """A copy with some fields changed. `keywords` are added to the present ones."""
        changes["keywords"] = {**self.keywords, **changes.get("keywords", {})}
        return dataclasses.replace(self, **changes)

    def at(self, depth: int, **keywords: Any) -> "Network":
        """The family's network of that depth, with other defaults for some keywords."""
        return self.but(arguments={**self.arguments, "depth": depth}, keywords=keywords)

    def clip_keywords(self, frames: int, size: int) -> dict[str, Any]:
        """The keywords that tell the network which clips it is for."""
        clip = {"frames": frames, "size": size}
        keywords = {key: clip[key] for key in self.bound}
        return keywords | {"frames": frames} if frames in self.stems else keywords


def _parts(*lines: str) -> dict[str, tuple[str, ...]]:
    """{"stem": ("conv1", "bn1"), "layer1": ("layer1",)} of "stem conv1 bn1" and "layer1"."""
    return {words[0]: tuple(words[1:] or words) for words in map(str.split, lines)}


STAGES = ("layer1", "layer2", "layer3", "layer4")
RESNET_PARTS = _parts("stem conv1 bn1", *STAGES)

# Families

RESNET3D = Network(  # 3D-ResNet, 3D-ResNeXt: Hara et al. 2018
    "jax_video.models.resnet3d:ResNet3D",
    dict(layers=None, width=1.0, cardinality=1, stem="hara", shortcut="B", preactivation=False, remat=False),
    recipe="stc",
    frames=16,
    size=112,
    parts=RESNET_PARTS,
    layouts={"3d-resnets": {"stem": "hara"}},
)
STC = dataclasses.replace(  # STC-Net: Diba et al. 2018
    RESNET3D,
    constructor="jax_video.models.stc:STCResNet3D",
    keywords=dict(frames=16, branches="both", reduction=4, **RESNET3D.keywords),
    bound=("frames",),
    layouts={},
    own=("*/stc/*",),
)
DENSENET3D = Network(  # Diba et al. 2017
    "jax_video.models.densenet:DenseNet",
    dict(layers=None, width=1.0, temporal=True, stem="t3d", remat=False),
    recipe="t3d",
    frames=32,
    head="classifier",
    parts=_parts(
        "stem conv0 norm0",
        *(f"{part}{number}" for number in (1, 2, 3) for part in ("denseblock", "transition")),
        "denseblock4 denseblock4 norm5",
    ),
    layouts={"3d-resnets": {"stem": "hara"}},
)
T3D = dataclasses.replace(  # the same with temporal transition layers
    DENSENET3D,
    constructor="jax_video.models.t3d:T3D",
    keywords=dict(ttl_channels=48, layers=None, width=1.0, stem="t3d", remat=False),
    layouts={},
)
DENSENET = DENSENET3D.but(  # in 2D, frame by frame: Huang et al. 2017
    frames=1, keywords={"temporal": False}, layouts={"torchvision": {}}
)
RESNET = Network(  # in 2D, frame by frame: He et al. 2016, Xie et al. 2017
    "jax_video.models.resnet2d:ResNet2D",
    dict(
        channels=3,
        layers=None,
        width=1.0,
        stem_width=None,
        cardinality=1,
        group_width=64,
        stride_on="3x3",
        dropout=0.0,
        remat=False,
    ),
    recipe="cost",
    parts=RESNET_PARTS,
    layouts={"torchvision": {"stride_on": "3x3"}},
)
C2D = Network(  # CoST and what it is compared with: Li et al. 2019
    "jax_video.models.cost:C2D",
    dict(
        frames=8,
        stem="5x7x7",
        pool="paper",
        kernel_size=3,
        share_weights=True,
        fuse_views=None,
        layers=None,
        width=1.0,
        stem_width=None,
        stride_on="3x3",
        dropout=0.5,
        remat=False,
    ),
    {"kind": "c2d"},
    recipe="cost",
    frames=8,
    stems=(8, 32),
    parts=RESNET_PARTS,
    layouts={"cost": dict(pool="code", stem="5x7x7", kernel_size=3, share_weights=True, stride_on="3x3")},
)
C3D_3X1X1 = C2D.but(arguments={"kind": "c3d_3x1x1"})
C3D_3X3X3 = C2D.but(arguments={"kind": "c3d_3x3x3"})
COST_A = C2D.but(arguments={"kind": "cost_a"}, own=("*/alpha",), weighs_views=True)
COST_B = C2D.but(arguments={"kind": "cost_b"}, own=("*/conv2/fc1/*", "*/conv2/fc2/*"), weighs_views=True)
STREAM = Network(  # one of two streams: Feichtenhofer et al. 2016
    "jax_video.models.st_resnet:Stream",
    dict(
        channels=3,
        temporal=False,
        temporal_pool="none",
        layers=None,
        width=1.0,
        stem_width=None,
        stride_on="3x3",
        remat=False,
    ),
    {"depth": 50},
    recipe="st_resnet",
    parts=RESNET_PARTS,
)
ST_RESNET = Network(  # both streams
    "jax_video.models.st_resnet:TwoStreams",
    dict(
        connections=True,
        temporal=True,
        temporal_pool="none",
        flow_channels=CHANNELS["flow"],
        layers=None,
        width=1.0,
        stem_width=None,
        stride_on="3x3",
        remat=False,
    ),
    {"depth": 50},
    recipe="st_resnet",
    streams=("rgb", "flow"),
    frames=5,
    parts=RESNET_PARTS,
)
VIDEO_RESNET = Network(  # Tran et al. 2018, as torchvision has them
    "jax_video.models.video_resnet:VideoResNet",
    dict(layers=None, width=1.0, remat=False),
    recipe="t3d",
    frames=16,
    size=112,
    parts=_parts("stem", *STAGES),
    layouts={"torchvision-video": {}},
)

NETWORKS: dict[str, Network] = {
    "resnet3d10": RESNET3D.at(10),
    "resnet3d18": RESNET3D.at(18),
    "resnet3d34": RESNET3D.at(34),
    "resnet3d50": RESNET3D.at(50),
    "resnet3d101": RESNET3D.at(101),
    "resnet3d152": RESNET3D.at(152),
    "resnet3d200": RESNET3D.at(200),
    "resnext3d101": RESNET3D.at(101, cardinality=32),
    "stc_resnet18": STC.at(18),
    "stc_resnet50": STC.at(50),
    "stc_resnet101": STC.at(101),
    "stc_resnext101": STC.at(101, cardinality=32),
    "densenet3d121": DENSENET3D.at(121),
    "densenet3d169": DENSENET3D.at(169),
    "t3d121": T3D.at(121),
    "t3d169": T3D.at(169),
    "densenet121": DENSENET.at(121),
    "densenet169": DENSENET.at(169),
    "resnet18": RESNET.at(18),
    "resnet34": RESNET.at(34),
    "resnet50": RESNET.at(50),
    "resnet101": RESNET.at(101),
    "resnet152": RESNET.at(152),
    "resnext50": RESNET.at(50, cardinality=32, group_width=4),
    "resnext101": RESNET.at(101, cardinality=32, group_width=8),
    "c2d_resnet50": C2D.at(50),
    "c3d_3x1x1_resnet50": C3D_3X1X1.at(50),
    "c3d_3x3x3_resnet50": C3D_3X3X3.at(50),
    "cost_a_resnet50": COST_A.at(50),
    "cost_b_resnet50": COST_B.at(50),
    "c2d_resnet101": C2D.at(101),
    "c3d_3x1x1_resnet101": C3D_3X1X1.at(101),
    "c3d_3x3x3_resnet101": C3D_3X3X3.at(101),
    "cost_a_resnet101": COST_A.at(101),
    "cost_b_resnet101": COST_B.at(101),
    "appearance_stream": STREAM.but(layouts={"torchvision": {"stride_on": "3x3"}}),
    "motion_stream": STREAM.but(streams=("flow",), keywords={"channels": CHANNELS["flow"]}),
    "two_streams": ST_RESNET.but(frames=1, keywords={"connections": False, "temporal": False}),
    "st_resnet": ST_RESNET,
    "st_resnet_star": ST_RESNET.but(frames=11, keywords={"temporal_pool": "after"}),
    "inception3d": Network(  # I3D: Carreira and Zisserman 2017
        "jax_video.models.inception:Inception3D",
        dict(layers=None, dropout=0.0, width=1.0, remat=False),
        recipe="t3d",
        frames=32,
        stages=3,
        head="logits",
        parts=_parts(
            "stem Conv3d_1a_7x7 Conv3d_2b_1x1 Conv3d_2c_3x3",
            *(f"Mixed_{block}" for block in "3b 3c 4b 4c 4d 4e 4f 5b 5c".split()),
        ),
        layouts={"i3d": {}},
    ),
    "r3d_18": VIDEO_RESNET.but(arguments={"kind": "r3d"}),
    "mc3_18": VIDEO_RESNET.but(arguments={"kind": "mc3"}),
    "r2plus1d_18": VIDEO_RESNET.but(arguments={"kind": "r2plus1d"}),
    "c3d": Network(  # with batch normalisation: Tran et al. 2015
        "jax_video.models.c3d:C3D",
        dict(frames=16, size=112, width=1.0, remat=False),
        recipe="t3d",
        frames=16,
        size=112,
        bound=("frames", "size"),
        stages=0,
        head="fc8",
        after=("fc6", "fc7"),
        parts=_parts(*"conv1a conv2a conv3a conv3b conv4a conv4b conv5a conv5b fc6 fc7".split()),
    ),
}


BUILT_IN = frozenset(NETWORKS)  # every command knows these; one's own are known where one's code has put them there


def find(name: str) -> Network:
    """The network of that name. Raises UserError, which lists the names, if there is none."""
    if name not in NETWORKS:
        raise UserError(
            f"there is no network {name!r}; choose one of {', '.join(NETWORKS)}; one of your own has to be put into "
            "jax_video.NETWORKS first"
        )
    if not isinstance(found := NETWORKS[name], Network):
        raise UserError(f"jax_video.NETWORKS[{name!r}] is {found!r}: expected a jax_video.Network of it")
    return found


def top_module(path: Sequence[Any]) -> Any:
    """The top-level module on a path of names within a network, below wrappers such as `student`."""
    return next(itertools.dropwhile(WRAPPERS.__contains__, path[:-1]), path[-1])


def heads() -> tuple[str, ...]:
    """The names that the networks give their classifiers."""
    return tuple(dict.fromkeys(network.head for network in NETWORKS.values()))
