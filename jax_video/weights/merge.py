"""Puts weights into a network, strictly: every array that does not fit is named, in one error."""

import dataclasses
import fnmatch
import json
import pathlib
import sys
from collections.abc import Callable, Collection, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import networks, run, saved
from jax_video import state as state_lib
from jax_video.errors import UserError, listed
from jax_video.models.cost import CoST
from jax_video.models.layers import check_choice
from jax_video.weights import files, mismatch, names, provenance
from jax_video.weights.inflate import METHODS, inflate
from jax_video.weights.names import shape_text


@dataclasses.dataclass
class Merged:
    """What came of a merge: the arrays, and the name of each under what happened to it."""

    arrays: dict[str, np.ndarray]  # those that were found, by our names
    loaded: list[str]
    inflated: list[str]
    fresh: list[str]  # of the network, left out by a pattern: to be initialised
    skipped: list[str]  # of the source, left out by a pattern

    def table(self) -> str:
        """A line for what was loaded, inflated, left fresh and skipped, and some names of what was left out."""
        sizes = {name: array.size for name, array in self.arrays.items()}
        lines = []
        for what in ("loaded", "inflated", "fresh", "skipped"):
            found = getattr(self, what)
            if not found:
                continue
            values = sum(sizes.get(name, 0) for name in found)
            named = ", ".join(found[:4]) + ", …" * (len(found) > 4)
            detail = f"{values:13,} values" if what in ("loaded", "inflated") else named
            lines.append(f"  {what:9}{len(found):5} arrays  {detail}".rstrip())
        return "\n".join(lines)


def merge(
    arrays: dict[str, np.ndarray],
    target: dict[str, jax.ShapeDtypeStruct],
    *,
    skip: Sequence[str] = (),
    method: str = "",
    views: Collection[str] = (),
    problems: Sequence[str] = (),
    source: str = "the weights",
    their_name: Callable[[str], str] = str,
    network: str = "",
) -> Merged:
    """Matches weights with the arrays of a network.

    Args:
      arrays: by our names, `params/…` and `batch_stats/…`, or by others, which the network does not have. Emptied on
        the way.
      target: what the network has, by the same names.
      skip: patterns as in a shell, of names without `params/` and `batch_stats/`: what they match is not loaded, and
        what the network has of it starts afresh.
      method: "mean" or "centre": kernels may be inflated (`inflate.inflate`). Empty: they must fit.
      views: names of CoST's kernels.
      problems: lines of what has gone wrong before, for the same message.
      source: where the weights are from, for the message.
      their_name: what the source calls an array of ours, for the message.
      network: its name, for the message.

    Raises:
      UserError: arrays missing, left over or of another shape, or patterns that match nothing: in one message, which
        names the likely causes first; or values that no network computes with.
    """
    if method:
        check_choice("inflate", method, METHODS)
    problems, merged = list(problems), Merged({}, [], [], [], [])

    def skips(name: str) -> bool:
        return any(_matching(pattern)(name) for pattern in skip)

    for pattern in skip:
        if not any(map(_matching(pattern), (*arrays, *target))):
            problems.append(f"pattern  {pattern!r} of skip matches no name")
    merged.skipped = [name for name in arrays if skips(name)]
    merged.fresh = [name for name in target if skips(name)]
    for name in merged.skipped:
        del arrays[name]
    found = {name: array.shape for name, array in arrays.items()}
    for name, wanted in target.items():
        if name in merged.fresh:
            continue
        if name not in arrays:
            called = f", there {their_name(name)}" if their_name(name) != name else ""
            problems.append(f"missing  {name} {shape_text(wanted.shape)}{called}")
            continue
        array = arrays.pop(name)
        fitting: np.ndarray | None = array
        if array.shape == wanted.shape:
            merged.loaded.append(name)
        elif method and (fitting := inflate(array, wanted.shape, method, views=name in views)) is not None:
            merged.inflated.append(name)
        else:
            problems.append(f"shape    {name}: found {shape_text(array.shape)}, expected {shape_text(wanted.shape)}")
            continue
        with np.errstate(over="ignore"):  # told below
            merged.arrays[name] = np.asarray(fitting, wanted.dtype)
    problems += [f"extra    {name} {shape_text(array.shape)}" for name, array in arrays.items()]
    if problems:
        expected = {name: leaf.shape for name, leaf in target.items() if name not in merged.fresh}
        likely = mismatch.causes(found, expected, network=network, inflates=bool(method))
        causes = "\n".join(f"Likely: {cause}." for cause in likely) or (
            "Is the config, with its width and depth, of their network? What shall start afresh in a training run is "
            "left out, by name in init_from.skip."
        )
        raise UserError(
            f"{source} do not fit the network: {len(problems)} problem{'s' * (len(problems) > 1)}. {causes}\n"
            + listed(problems)
        )
    if broken := [line for name, array in merged.arrays.items() if (line := state_lib.defect(name, array))]:
        raise UserError(
            f"{source} are no values that a network computes with, in {len(broken)} of {len(merged.arrays)} arrays; "
            "has their training diverged, or is the file damaged?\n" + listed(broken)
        )
    return merged


def _matching(pattern: str) -> Callable[[str], bool]:
    """Whether a name, without `params/` and `batch_stats/`, matches a pattern of `skip`."""
    return lambda name: fnmatch.fnmatchcase(name.removeprefix("params/").removeprefix("batch_stats/"), pattern)


@dataclasses.dataclass
class Weights:
    """Weights for the network of a config."""

    merged: Merged
    shapes: dict  # {"params", "batch_stats"}, nested, of the network
    sources: list["Source"]  # where from, without their arrays
    num_classes: int


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
    method: str = "",
) -> Weights:
    """Weights for the network of a config: from a run's folder, or from a file in a layout.

    A run of knowledge transfer gives its 3D network, without a classifier.

    Args:
      path, into, expects: where from; the part of the network that they are of, as in "network" of one with consensus,
        while the rest starts afresh; and the network that the run must be of. Several parts, as in
        ("appearance", "motion"), have as many paths, and networks, in the same order.
      num_classes: K; None takes the source's.
      new_head: leaves out the classifier, which starts afresh.
      skip, method: of `merge`.

    Raises:
      UserError: what `files.read`, `names.to_ours` and `merge` raise, or a folder is of no run or of another network.
    """
    parts, paths, networks = (_several(given) for given in (into or "", path, expects or ""))
    networks = networks if expects else [""] * len(parts)
    if not len(parts) == len(paths) == len(networks):
        raise UserError(
            f"init_from.path={','.join(paths)}: expected {len(parts)} paths, for {','.join(parts)}, "
            "with commas between them"
        )
    sources = [read_source(*given, layout, config, mesh) for given in zip(paths, networks, strict=True)]
    return fit(sources, config, parts=parts, num_classes=num_classes, new_head=new_head, skip=skip, method=method)


@dataclasses.dataclass
class Source:
    """Weights by our names, before they have found their places."""

    path: str
    layout: str  # "" of a run
    arrays: dict[str, np.ndarray]
    origin: dict | None  # of a file's weights: `names.Translation.origin`
    problems: list[str]
    num_classes: int | None  # None: there is no classifier
    classes: tuple[str, ...] | None = None  # their names; None: not known
    headless: bool = False  # whether no classifier was trained
    version: str = ""  # of the layout's code, and what says so: `provenance.version`
    signs: str = ""
    normalize: dict | None = None  # section `normalize` of the run that a file was exported from; None: not known


def fit(
    sources: Sequence[Source],
    config: ConfigDict,
    *,
    parts: Sequence[str] = ("",),
    num_classes: int | None = None,
    new_head: bool = False,
    skip: Sequence[str] = (),
    method: str = "",
) -> Weights:
    """Sources that have been read as the weights of a config's network; see `read`. Takes the sources' arrays."""
    path, layout = ",".join(source.path for source in sources), sources[0].layout
    num_classes = num_classes or sources[0].num_classes
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
    if new_head or any(source.headless for source in sources):
        patterns = {
            f"{before}{head}/*" for head in networks.heads() for before in ("", *(f"{part}/" for part in parts))
        }
        skip = (*skip, *(pattern for pattern in sorted(patterns) if any(map(_matching(pattern), [*arrays, *target]))))
    merged = merge(
        arrays,
        target,
        skip=skip,
        method=method,
        views=_view_kernels(model),
        problems=[problem for source in sources for problem in source.problems],
        source=f"the weights in {path}",
        their_name=lambda name: (names.their_name(layout or "jax_video", _without(name, parts) or name) or (name,))[0],
        network=(config.teacher if config.get("teacher") and "teacher" in parts else config.model).name,
    )
    merged.fresh += [name for name in leaves if name not in target]
    return Weights(merged, shapes, list(sources), num_classes)


def read_source(path: str | pathlib.Path, expected: str, layout: str, config: ConfigDict, mesh: Mesh) -> Source:
    """The weights in a run's folder, which must be of the network `expected` if that is not empty, or in a file.

    Raises:
      UserError: as of `read`.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such weight file or run's folder")
    if not path.is_dir():
        if not layout:
            raise UserError(f"{path}: a weight file needs a layout: one of {', '.join(names.LAYOUTS)}")
        file = files.read_file(path)
        version, signs = provenance.version(layout, file)
        found = names.to_ours(layout, file.weights)
        return Source(
            str(path),
            layout,
            found.arrays,
            found.origin,
            found.problems,
            _num_classes(found.arrays),
            version=version,
            signs=signs,
            normalize=_normalize(file.notes),
        )
    if layout:
        raise UserError(f"{path} is a folder, so a run's; a layout ({layout}) is for weight files")
    trained = run.load(path, mesh=mesh)
    if expected and trained.config.model.name != expected:
        raise UserError(f"{path} is a run of {trained.config.model.name}, where one of {expected} is expected")
    arrays, transferred = state_lib.named_leaves(trained.weights), bool(trained.config.get("teacher"))
    if transferred:
        arrays = {name.replace("/student/", "/", 1): leaf for name, leaf in arrays.items() if "/student/" in name}
        arrays = {name: leaf for name, leaf in arrays.items() if name.split("/")[1] not in networks.heads()}
    if not config.get("teacher"):
        _print_differences(path, trained.meta.config, config)
    # A conversion that was given no names has numbered the classes.
    number = len(trained.classes)
    named = trained.meta.manifest or trained.classes != tuple(map(str, range(number)))
    return Source(str(path), "", arrays, None, [], number, trained.classes if named else None, transferred)


def initial_state(
    config: ConfigDict, classes: Sequence[str], mesh: Mesh, create: Callable[[], state_lib.TrainState]
) -> state_lib.TrainState:
    """The state that a run begins with, with the weights that section `init_from` of its config names.

    Prints a table of what was loaded, inflated, left fresh and skipped.

    Args:
      classes: names of the run's classes.
      create: makes the state with random values.

    Raises:
      UserError: the weights cannot be read, do not fit, are of a network that computes otherwise, or have a classifier
        that may be of other classes.
    """
    options = config.init_from
    if not options.path:
        raise UserError(f"init_from.layout is {options.layout!r}, but init_from.path, the weight file, is not given")
    if options.layout:
        check_keywords(options.layout, config.teacher if options.into == "teacher" else config.model)
    weights = read(
        options.path,
        options.layout or "",
        config,
        mesh,
        num_classes=len(classes),
        into=options.into,
        expects=options.expects,
        new_head=options.new_head,
        skip=options.skip,
        method=options.inflate or "",
    )
    _check_classifier(options, weights, tuple(classes))
    if jax.process_index() == 0:
        path = ",".join(_several(options.path))
        print(f"Weights from {path}:\n{weights.merged.table()}", file=sys.stderr)
        if options.layout:
            _print_normalization(weights.sources[0], state_lib.Normalization(**config.normalize))
    return fill(weights, create)


def _check_classifier(options: ConfigDict, weights: Weights, classes: tuple[str, ...]) -> None:
    """Raises UserError where a classifier was loaded that may be of other classes, and the user has not said so."""
    keeps = options.get("keep_head", False)
    if keeps and options.new_head:
        raise UserError("init_from.keep_head and init_from.new_head are both True: choose one")
    if keeps or not any(name.split("/")[-2] in networks.heads() for name in weights.merged.loaded):
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


def _print_normalization(source: Source, given: state_lib.Normalization) -> None:
    """Says so where weights have seen RGB that was normalised otherwise than in this run."""
    found = names.layout(source.layout)
    versions: list[dict | None] = [found.versions[source.version]] if source.version else [*found.versions.values()]
    usual = [source.normalize] if source.normalize else versions or [found.normalize]
    if any(values is None or given == state_lib.Normalization(**values) for values in usual):
        return
    seen = " or, by the version of the code, ".join(map(str, usual))
    print(f"  These weights have seen RGB of {seen}; normalize in the config is another.", file=sys.stderr)


def fill(weights: Weights, create: Callable[[], state_lib.TrainState]) -> state_lib.TrainState:
    """The state that `create` makes, but with these weights; their moving averages, if there are any, are the same.

    Empties the weights on its way.
    """

    def rest() -> tuple[state_lib.TrainState, dict]:
        state = create()
        leaves = state_lib.named_leaves({"params": state.params, "batch_stats": state.batch_stats})
        fresh = {name: leaves[name] for name in weights.merged.fresh}
        return dataclasses.replace(state, params={}, batch_stats={}, ema=None if state.ema is None else {}), fresh

    # What was found is not drawn: XLA leaves it out, where it would be a second copy of the network. And each array
    # leaves the host as it goes to the device.
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
    """Raises UserError where a config's network has the layout's weights but computes something else with them."""
    if model.name not in networks.NETWORKS or not (wanted := names.keywords(layout, model.name)):
        return
    given = {key: model.get(key, networks.find(model.name).keywords[key]) for key in wanted}
    wrong = {key: value for key, value in wanted.items() if given[key] != value}
    if wrong:
        raise UserError(
            f"weights in layout {layout} are of networks with {_options(wrong)}; {model.name} here has "
            f"{_options({key: given[key] for key in wrong})}. Give it "
            + " ".join(f"--config.model.{key}={value}" for key, value in wrong.items())
        )


def _with(name: str, part: str, leaves: dict) -> str:
    """("params/fc/bias", "network") -> "params/network/fc/bias"; what is constant here is among the statistics."""
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


def _print_differences(path: pathlib.Path, theirs: dict, ours: ConfigDict) -> None:
    """Names what another run's network is built with, or has seen, otherwise than this config says."""
    ours = json.loads(json.dumps(ours.to_dict()))
    changed = [
        f"{section}.{key}: there {value}, here {ours[section][key]}"
        for section in ("model", "normalize")
        for key, value in theirs[section].items()
        if key in ours[section] and ours[section][key] != value
    ]
    if changed and jax.process_index() == 0:
        print(f"The run in {path} has another config: {'; '.join(changed)}.", file=sys.stderr)


def _several(value: str | pathlib.Path | Sequence[str]) -> list[str]:
    """What may be one or several, as several."""
    return [str(value)] if isinstance(value, str | pathlib.Path) else list(value)


def _normalize(notes: dict[str, str]) -> dict | None:
    """Section `normalize` of the run that a file was exported from, which may be of an earlier version."""
    return saved.complete_section("normalize", json.loads(notes["normalize"])) if "normalize" in notes else None


def _options(values: dict) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())


def _num_classes(arrays: dict[str, np.ndarray]) -> int | None:
    kernels = (arrays.get(f"params/{head}/kernel") for head in networks.heads())
    return next((kernel.shape[-1] for kernel in kernels if kernel is not None), None)


def _view_kernels(model: nnx.Module) -> set[str]:
    """Names of the kernels whose first axis is CoST's views."""
    modules = ((path, module) for path, module in nnx.iter_modules(model) if isinstance(module, CoST))
    return {"/".join(map(str, ("params", *path, "kernel"))) for path, module in modules}
