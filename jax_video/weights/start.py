"""What a run starts from: weights of a run or a file, fitted to its network; the rest begins at random."""

import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Callable, Collection, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import networks
from jax_video import state as state_lib
from jax_video.data import copies
from jax_video.errors import UserError, listed
from jax_video.models.cost import CoST
from jax_video.weights import names
from jax_video.weights.merge import Merged, merge
from jax_video.weights.source import Source, layout_of, print_differences, read_source


@dataclasses.dataclass
class Weights:
    """Weights for the network of a config."""

    merged: Merged
    shapes: dict  # {"params", "batch_stats"}, nested, of the network
    sources: list[Source]  # where from, without their arrays
    num_classes: int
    head: list[str]  # names of the classifier's arrays in the network


def read(
    path: str | pathlib.Path | Sequence[str],
    layout: str,
    config: ConfigDict,
    mesh: Mesh,
    *,
    num_classes: int | None = None,
    into: str | Sequence[str] | None = None,
    expects: str | Sequence[str] | None = None,
    new_head: bool = False,
    skip: Sequence[str] = (),
    partial: bool = False,
    method: str = "",
) -> Weights:
    """Weights for the network of a config: from a run's folder, or from a file in a layout.

    A run of knowledge transfer gives its 3D network, without a classifier.

    Args:
      path, expects: a run's folder, or a file; and the network that the run must be of.
      into: the part of the network that takes them, as "network" under segment consensus; the rest starts afresh.
        Several parts, as in ("appearance", "motion"), have as many paths, and networks, in the same order.
      num_classes: K; None takes the source's.
      new_head: leaves out the classifier, or those of several parts, which start afresh.
      skip, partial, method: see `merge`.

    Raises:
      UserError: what `files.read`, `names.to_ours` and `merge` raise, a folder is of no run or of another network, or
        there is no classifier to leave out.
    """
    parts, paths = _several(into or ""), _several(path)
    expected = _several(expects) if expects else [""] * len(parts)
    if not len(parts) == len(paths) == len(expected):
        raise UserError(
            f"init_from.path={','.join(paths)}: expected {len(parts)} path{'s' * (len(parts) > 1)}"
            + (f", for {','.join(parts)}, with commas between them" if parts != [""] else "; a comma separates paths")
        )
    sources = [
        read_source(path, network, layout, config, mesh, into=part)
        for path, network, part in zip(paths, expected, parts, strict=True)
    ]
    return fit(
        sources,
        config,
        parts=parts,
        num_classes=num_classes,
        new_head=new_head,
        skip=skip,
        partial=partial,
        method=method,
    )


def fit(
    sources: Sequence[Source],
    config: ConfigDict,
    *,
    parts: Sequence[str] = ("",),
    num_classes: int | None = None,
    new_head: bool = False,
    skip: Sequence[str] = (),
    partial: bool = False,
    method: str = "",
) -> Weights:
    """The weights of a config's network, from sources that have been read; see `read`. Empties the sources' arrays."""
    path, layout = ",".join(source.path for source in sources), sources[0].layout
    num_classes = sources[0].num_classes if num_classes is None else num_classes  # 0: of a set without labels
    if num_classes is None:
        raise UserError(
            f"{path}: has no classifier ({', '.join(networks.heads())}), so the number of classes is unknown"
        )

    model = nnx.eval_shape(lambda: state_lib.network(config, num_classes))
    _, params, batch_stats = state_lib.split(model)
    shapes = {"params": params, "batch_stats": batch_stats}
    leaves = state_lib.named_leaves(shapes)
    target = {name: leaf for name, leaf in leaves.items() if _without(name, parts) is not None}
    if missing := [part for part in parts if not any(_without(name, [part]) is not None for name in leaves)]:
        raise UserError(f"into={missing[0]!r}: the network has no such part; it has {', '.join(params)}")
    arrays = {
        _with(name, part, leaves): source.arrays.pop(name)
        for source, part in zip(sources, parts, strict=True)
        for name in list(source.arrays)
    }
    section = "teacher" if config.get("teacher") and "teacher" in parts else "model"
    network = config[section].name
    head = [name for name in target if _is_of(name, parts, [networks.find(network).head])]
    if new_head and not head:
        raise UserError(f"init_from.new_head: there is no classifier in {', '.join(parts)}: leave it out")
    headless = any(source.headless for source in sources)
    if new_head or headless:
        theirs = [name for name in arrays if name not in target and _is_of(name, parts, networks.heads())]
        after = [name for name in target if headless and _is_of(name, parts, networks.find(network).after)]
        skip = (*skip, *sorted({f"{name.partition('/')[2].rpartition('/')[0]}/*" for name in (*head, *theirs, *after)}))
    merged = merge(
        arrays,
        target,
        skip=skip,
        partial=partial,
        method=method,
        views=_view_kernels(model),
        problems=[problem for source in sources for problem in source.problems],
        source=f"the weights in {path}",
        their_name=lambda name: (names.their_name(layout or "jax_video", _without(name, parts) or name) or (name,))[0],
        network=network,
        section=section,
    )
    merged.fresh += [name for name in leaves if name not in target]
    return Weights(merged, shapes, list(sources), num_classes, head)


def initial_state(
    config: ConfigDict, classes: Sequence[str], mesh: Mesh, create: Callable[[], state_lib.TrainState]
) -> state_lib.TrainState:
    """The state that a run begins with, with the weights that section `init_from` of its config names.

    Prints a table of what was loaded, inflated, left fresh and skipped.

    Args:
      classes: names of the run's classes.
      create: makes the state with random values.

    Raises:
      UserError: the weights cannot be read, do not fit, are of a network that computes something else, have a
        classifier that may be of other classes, or lack arrays that are never trained.
    """
    options = config.init_from
    if not options.path:
        raise UserError(f"init_from.layout is {options.layout!r}, but init_from.path, the weight file, is not given")
    layout = options.layout or ""
    for path in _several(options.path):
        layout = layout_of(path, layout)
    if layout:
        check_keywords(layout, config.teacher if options.into == "teacher" else config.model)
    weights = read(
        options.path,
        layout,
        config,
        mesh,
        num_classes=len(classes),
        into=options.into,
        expects=options.expects,
        new_head=options.new_head,
        skip=options.skip,
        partial=options.get("partial", False),
        method=options.inflate or "",
    )
    _check_classifier(options, weights, tuple(classes))
    _check_fresh(config, weights)
    if jax.process_index() == 0:
        path = ",".join(map(copies.without_password, _several(options.path)))
        print(f"Weights from {path}:\n{weights.merged.table()}", file=sys.stderr)
        if options.get("partial", False) and weights.merged.fresh:
            print(f"Not in them, and therefore as initialised:\n{listed(weights.merged.fresh, 100)}", file=sys.stderr)
        for line in dict.fromkeys(_other_rate(source, config.clip.get("fps")) for source in weights.sources):
            print(line, end="", file=sys.stderr)
        for source, part in zip(weights.sources, _several(options.into or ""), strict=True):
            if source.model is not None:  # it is a file; of a run's folder that is said where it is read
                whose = f"The run that {source.path} was exported from"
                print_differences(whose, {"model": source.model}, config, part)
    for source in weights.sources if layout else ():
        _check_normalization(source, state_lib.Normalization.of(config.normalize))
    return fill(weights, create)


def _check_classifier(options: ConfigDict, weights: Weights, classes: tuple[str, ...]) -> None:
    """Raise UserError where a classifier was loaded that may be of other classes, and the user has not chosen."""
    keeps = options.get("keep_head", False)
    if keeps and options.new_head:
        raise UserError("init_from.keep_head and init_from.new_head are both True: choose one")
    if keeps or not set(weights.head) & set(weights.merged.loaded):
        return
    for source in weights.sources:
        if source.headless or source.classes == classes:
            continue
        if source.classes is None:
            what = "does not name the classes of its classifier"
        elif sorted(source.classes) == sorted(classes):
            what = "has the classes of this run in another order"
        else:
            unknown = [name for name in source.classes if name not in classes]
            what = f"has a classifier of other classes, {', '.join(map(repr, unknown[:3]))} among them"
        raise UserError(
            f"{source.path} {what}; those of this run are {', '.join(map(repr, classes[:3]))}, …. Say which it is: "
            "--config.init_from.new_head=True starts a classifier afresh, --config.init_from.keep_head=True keeps this "
            "one, class for class in its order"
        )


def _check_fresh(config: ConfigDict, weights: Weights) -> None:
    """Raise UserError where arrays that start afresh would stay so: of frozen parts, or of frozen BatchNorm."""
    freeze, parts = config.train.get("freeze") or (), networks.find(config.model.name).parts
    fresh = weights.merged.fresh
    module = {name: networks.top_module(name.split("/")[1:]) for name in fresh}
    frozen = {part: [name for name in fresh if module[name] in parts.get(part, ())] for part in freeze}
    layers = {name.rpartition("/")[0] for name in state_lib.named_leaves(weights.shapes["batch_stats"])}
    norms = [name for name in fresh if config.norm.frozen and name.partition("/")[2].rpartition("/")[0] in layers]
    causes = {}
    if any(frozen.values()):
        others = ",".join(part for part in freeze if not frozen[part]) or None
        causes[f"train.freeze is {','.join(freeze)}"] = f"--config.train.freeze={others}"
    if norms:
        causes["norm.frozen is True"] = "--config.norm.frozen=False"
    if causes:
        found = sorted({*norms, *(name for names in frozen.values() for name in names)})
        raise UserError(
            f"{' and '.join(causes)}, but the weights lack {len(found)} arrays that are frozen so: they would stay at "
            f"their initial values. Give weights that have them, or let them be trained: {' '.join(causes.values())}\n"
            + listed(found)
        )


def _check_normalization(source: Source, given: state_lib.Normalization) -> None:
    """Print a note where weights were trained on RGB that was normalised differently from this run's.

    Raises UserError where the run's is that of another version of the layout's code.
    """
    found = names.layout(source.layout)
    versions: list[dict | None] = [found.versions[source.version]] if source.version else [*found.versions.values()]
    usual = [source.normalize] if source.normalize else versions or [found.normalize]
    others = [values for name, values in found.versions.items() if source.version and name != source.version]
    if not source.normalize and any(given == state_lib.Normalization.of(values) for values in others):
        values = found.versions[source.version].items()
        right = " ".join(shlex.quote(f"--config.normalize.{key}={value}") for key, value in values)
        raise UserError(
            f"{source.path} has {source.signs}: its network has seen other RGB than the config's, which is of another "
            f"version of the layout's code. Give it {right}"
        )
    if not source.normalize and len(versions) > 1 and jax.process_index() == 0:
        print(
            f"  warning: {source.path} does not tell which of these its network has seen: RGB of "
            f"{' or '.join(map(str, versions))}; --config.normalize says it.",
            file=sys.stderr,
        )
    if any(values is None or given == state_lib.Normalization.of(values) for values in usual):
        return
    seen = " or, by the version of the code, ".join(map(str, usual))
    if jax.process_index() == 0:
        print(f"  These weights have seen RGB of {seen}; normalize in the config is another.", file=sys.stderr)


def _other_rate(source: Source, given: float | None) -> str:
    """A note where weights were trained on clips of another frame rate than this run's; else empty."""
    usual = (names.layout(source.layout).clip if source.clip is None else source.clip).get("fps")
    if usual is None or usual == given:
        return ""
    here = "clips here take frames as they are stored" if given is None else f"here they have {given:g}"
    return (
        f"  These weights have seen clips of {usual:g} frames a second; {here}. --config.clip.fps={usual:g} gives "
        "them what they know.\n"
    )


def fill(weights: Weights, create: Callable[[], state_lib.TrainState]) -> state_lib.TrainState:
    """The state that `create` makes, but with these weights; their moving averages, if there are any, are the same.

    Empties `weights` on its way.
    """

    def rest() -> tuple[state_lib.TrainState, dict]:
        state = create()
        leaves = state_lib.named_leaves({"params": state.params, "batch_stats": state.batch_stats})
        fresh = {name: leaves[name] for name in weights.merged.fresh}
        return dataclasses.replace(state, params={}, batch_stats={}, ema=None if state.ema is None else {}), fresh

    # Arrays that were found are not drawn at random: XLA leaves out what is not used, which would be a second copy of
    # the network. And each array leaves the host as it goes to the device.
    state, fresh = jax.jit(rest)()
    arrays = weights.merged.arrays
    arrays |= fresh
    network = jax.tree_util.tree_map_with_path(
        lambda path, _: jax.device_put(arrays.pop(jax.tree_util.keystr(path, simple=True, separator="/"))),
        weights.shapes,
    )
    averages = None if state.ema is None else jax.tree.map(jnp.copy, network)
    return dataclasses.replace(state, **network, ema=averages)


def check_keywords(layout: str, model: ConfigDict) -> None:
    """Raise UserError where a config's network takes the layout's weights but computes something else with them."""
    if model.name not in networks.NETWORKS:
        return
    wanted = names.keywords(layout, model.name) or {}
    if layout == "torchvision" and "stride_on" in networks.find(model.name).keywords:
        # Also for networks that start from torchvision's. It has each in one width; a file of another width is somebody
        # else's, and its names do not tell the strides: the config does.
        thin = model.get("width", 1.0) != 1.0 or model.get("stem_width") is not None
        wanted = {} if thin else {"stride_on": "3x3"}
    elif layout == "3d-resnets" and networks.find(model.name).keywords.get("stem") == "hara":
        wanted = {"stem": "hara"}  # also for STC-Nets, which start from such networks
    given = {key: model.get(key, networks.find(model.name).keywords[key]) for key in wanted}
    wrong = {key: value for key, value in wanted.items() if given[key] != value}
    if wrong:
        raise UserError(
            f"weights in layout {layout} are of networks with {_options(wrong)}; {model.name} here has "
            f"{_options({key: given[key] for key in wrong})}. Give it "
            + " ".join(f"--config.model.{key}={value}" for key, value in wrong.items())
        )


def _with(name: str, part: str, leaves: dict) -> str:
    """("params/fc/bias", "network") -> "params/network/fc/bias"; what is constant here is in "batch_stats"."""
    collection, slash, path = name.partition("/")
    placed = f"{collection}/{part}/{path}" if part and slash else name
    constant = placed.replace("params/", "batch_stats/", 1)
    return constant if placed not in leaves and constant in leaves else placed


def _without(name: str, parts: Sequence[str]) -> str | None:
    """("params/network/fc/bias", ["network"]) -> "params/fc/bias"; None where the name is of no such part."""
    collection, _, path = name.partition("/")
    for part in parts:
        if not part or path.startswith(f"{part}/"):
            return f"{collection}/{path.removeprefix(f'{part}/' if part else '')}"
    return None


def _is_of(name: str, parts: Sequence[str], modules: Collection[str]) -> bool:
    """Whether an array is of one of these top-level modules, below the parts that take the weights and all wrappers."""
    path = (_without(name, parts) or name).split("/")[1:]
    return len(path) > 1 and networks.top_module(path) in modules


def _several(value: str | pathlib.Path | Sequence[str]) -> list[str]:
    """One value or several, as a list."""
    return [str(value)] if isinstance(value, str | pathlib.Path) else list(value)


def _options(values: dict) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())


def _view_kernels(model: nnx.Module) -> set[str]:
    """Names of the kernels whose first axis is CoST's views."""
    modules = ((path, module) for path, module in nnx.iter_modules(model) if isinstance(module, CoST))
    return {"/".join(map(str, ("params", *path, "kernel"))) for path, module in modules}
