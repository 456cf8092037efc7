"""The rules of the layout, read off the source: who may import what, how long a file may be, what is documented."""

import ast
import graphlib
import importlib
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from jax_video import networks

PACKAGE = ROOT / "jax_video"


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted([*PACKAGE.rglob("*.py"), *(ROOT / "configs").rglob("*.py")])}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in SOURCES.items()}
LIBRARY = [module for module in SOURCES if module.split(".")[0] == "jax_video"]


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def imports(module: str) -> set[str]:
    """What a module imports, wherever in it; `from a import b` is `a.b` if that is a module of ours, or else `a`."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in SOURCES} or {node.module}
    return found


def importers(*packages: str) -> set[str]:
    return {module for module in SOURCES if any(within(name, *packages) for name in imports(module))}


def test_the_rules_see_the_source():
    """Or else every rule below would hold of nothing."""
    assert {"jax_video.main", "jax_video.models.stc", "jax_video.data.pipeline", "configs.stc"} <= set(SOURCES)
    assert imports("jax_video.trained") >= {"jax", "numpy", "jax_video.objectives", "jax_video.data.manifest"}


# Who may import whom, from the bottom up: a layer, its modules (a package stands for all that is in it), and the layers
# that these may import beside their own. Everybody may import `errors`; an arrow down the table is impossible.
LAYERS = {
    "errors": ("errors ctrl_c", ""),
    "networks": ("networks", ""),  # the table of networks: data
    "stores": (
        "data data.archives data.copies data.documents data.processes data.remote lock",
        "",
    ),  # the package itself is empty
    "recipes": (  # what is trained, the meaning of a config's keys, and what is known of others' weights
        "configs recipe saved weights.names weights.public",
        "networks stores",
    ),
    "clips": ("data.clips data.transforms", ""),
    "manifest": ("data.manifest data.labels", "stores"),
    "decoding": ("data.decoding", "stores clips manifest"),  # files in, frames out
    "pipeline": (
        "data.reader data.samples data.pipeline data.encoding",
        "stores clips manifest decoding",
    ),  # frames in, batches out
    "sources": ("data.sources", "stores manifest decoding"),  # one file per kind of data set
    "isolated": (
        "data.isolated",
        "manifest decoding clips pipeline sources",
    ),  # files are read in processes of their own
    "preparing": ("data.preparing", "stores clips manifest decoding pipeline sources"),  # what prepare does
    "models": ("models", "networks"),  # one architecture, one file
    "step": (
        "state objectives augmentation multilabel mixing losses metrics optimizer sharding",
        "networks models",
    ),  # what is computed
    "folder": (
        "meta checkpoint published runlog pictures stopping profiling compilation_cache",
        "networks recipes stores manifest models step",
    ),  # of a run
    "scoring": (  # clips in, means over videos out
        "task scoring timeline windows explanation watching videos",
        "networks manifest decoding pipeline isolated models step",
    ),
    "run": (
        "run trained",
        "recipes stores manifest pipeline isolated models step folder scoring",
    ),  # opened, to be used
    "weights": ("weights", "networks recipes stores pipeline sources models step folder run"),
    "train": ("train beginning failures progress", "recipes stores manifest pipeline step folder scoring weights"),
    "testing": ("testing", "networks recipes stores manifest pipeline models step folder scoring run"),
    "reporting": (  # a run as a page
        "reporting",
        "networks recipes stores manifest pipeline sources models step folder scoring run testing",
    ),
    "exporting": ("exporting", "stores pipeline models step folder run testing"),  # for others to use
    "workflow": (
        "workflow summary planning hlo",
        "networks recipes stores manifest pipeline sources models step scoring run train testing reporting",
    ),
    "commands": (  # flags in, print out
        "main prepare predict predicting convert report export fuse average plan models.__main__ __main__ command "
        "config_flag",
        "networks recipes stores manifest decoding pipeline sources isolated preparing step folder run weights testing "
        "reporting exporting "
        "workflow",
    ),
    "package": (
        "",
        "networks manifest sources models folder run reporting workflow commands",
    ),  # jax_video: the public names
}
WITHOUT_JAX = (
    "errors",
    "networks",
    "recipes",
    "stores",
    "clips",
    "manifest",
    "decoding",
    "pipeline",
    "sources",
    "isolated",
    "preparing",
)
# Libraries that only these modules may import.
OWNERS = {
    "orbax": ("checkpoint",),
    "torch": ("weights.files",),
    "tensorboardX": ("runlog",),
    "matplotlib": ("pictures",),
    "scipy": ("reporting.confusion",),
    "grain": ("data.pipeline",),
    "av": (
        "data.decoding.video",
        "data.decoding.probing",
        "data.decoding.packets",
        "data.decoding.live",
        "data.encoding",
        "data.sources.motions",
        "exporting.classify",
    ),
    "tensorflow_datasets": ("data.decoding.packed", "data.sources.tfds", "data.preparing.packing"),
    "array_record": ("data.decoding.packed", "data.preparing.packing"),
    "apache_beam": ("data.preparing.beam",),
}


def layer_of(module: str) -> str:
    """The layer that a module is in: of several, the one that names it most closely."""
    found = {
        name: layer
        for layer, (modules, _) in LAYERS.items()
        for name in modules.split(" ")
        if within(module.removeprefix("jax_video").removeprefix("."), name) or module == name
    }
    assert found, f"{module} is in no layer: name it in LAYERS"
    return found[max(found, key=len)]


@pytest.mark.parametrize("module", SOURCES)
def test_layers_import_what_the_table_says(module):
    own = layer_of(module)
    allowed = {"errors", own, *LAYERS[own][1].split()}
    wrong = {name: layer_of(name) for name in imports(module) & SOURCES.keys() if layer_of(name) not in allowed}
    assert not wrong, f"{module}, in layer {own}, may not import {wrong}"


def test_the_table_of_layers_runs_one_way():
    """And names nothing that is not there."""
    layers = list(LAYERS)
    for layer, (modules, others) in LAYERS.items():
        assert set(others.split()) <= set(layers[: layers.index(layer)]), f"{layer} imports a layer above it"
        for name in modules.split():
            assert {name, f"jax_video.{name}"} & {*SOURCES, "configs"}, name


def test_the_table_allows_nothing_that_is_not_used():
    found = {layer: set() for layer in LAYERS}
    for module in SOURCES:
        found[layer_of(module)] |= {layer_of(name) for name in imports(module) & SOURCES.keys()}
    idle = {layer: set(others.split()) - found[layer] for layer, (_, others) in LAYERS.items()}
    assert not {layer: names for layer, names in idle.items() if names}


@pytest.mark.parametrize("library", OWNERS)
def test_libraries_have_owners(library):
    assert importers(library) == {f"jax_video.{module}" for module in OWNERS[library]}


@pytest.mark.parametrize("module", [module for module in SOURCES if layer_of(module) in WITHOUT_JAX])
def test_what_is_not_computed_on_devices_loads_without_jax(module):
    """Data's worker processes stay light. (Grain itself loads jax, so this cannot be seen in `sys.modules`.)"""
    assert not {name for name in imports(module) if within(name, "jax", "flax", "optax", "orbax")}
    assert module == "jax_video.data.pipeline" or not {name for name in imports(module) if within(name, "absl")}


def test_tfds_and_beam_are_loaded_where_they_are_used():
    """They take half a second and more. `preparing.packing` is of TFDS and is itself imported only to pack."""
    data = [name for name in LIBRARY if within(name, "jax_video.data") and name != "jax_video.data.preparing.packing"]
    names = ["jax_video.main", "jax_video.prepare", "jax_video.predict", *data]
    loaded = "{'tensorflow_datasets', 'tensorflow', 'apache_beam', 'torch'} & set(sys.modules)"
    script = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nprint({loaded})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("module", [module for module in SOURCES if within(module, "configs")])
def test_configs_are_recipes(module):
    """They can be copied anywhere: they need the installed package, and no jax."""
    ours = {"jax_video.recipe", "jax_video.networks", "jax_video.errors"}
    ours |= {"jax_video.weights.names", "jax_video.weights.public"}  # what is known of others' weights
    assert imports(module) <= {"ml_collections", "pathlib", "types", "typing"} | ours


@pytest.mark.parametrize("module", ["jax_video", "jax_video.networks", "jax_video.recipe"])
def test_what_recipes_read_loads_without_jax(module):
    script = f"import sys, {module}; print({{'jax', 'flax', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"


def told_apart(call: ast.Call) -> list[str]:
    """The networks of whose names a `startswith`, a `re.match` or the like holds, unless it holds of all or none."""
    function = ast.unparse(call.func)
    given = call.args[:1] if function.startswith("re.") else call.args  # the others are no patterns
    arguments = [each for found in given for each in (found.elts if isinstance(found, ast.Tuple) else [found])]
    for text in [each.value for each in arguments if isinstance(each, ast.Constant) and isinstance(each.value, str)]:
        if function.startswith("re."):
            names = [name for name in networks.NETWORKS if re.match(text, name)]
        elif function.endswith((".startswith", ".removeprefix")):
            names = [name for name in networks.NETWORKS if name.startswith(text)]
        elif function.endswith((".endswith", ".removesuffix")):
            names = [name for name in networks.NETWORKS if name.endswith(text)]
        else:
            continue
        if 0 < len(names) < len(networks.NETWORKS):
            return names
    return []


@pytest.mark.parametrize("folder", ["jax_video", "configs", "benchmarks", "tests"])
def test_what_a_network_is_is_not_read_off_its_name(folder):
    """But asked of its record in the table."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (names := told_apart(node)):
                pytest.fail(f"{path}:{node.lineno}: {ast.unparse(node)} holds of {', '.join(names)}")


def test_pytorch_is_imported_where_it_is_needed():
    top = {name for module in SOURCES for node in TREES[module].body for name in imported_at(node)}
    assert "torch" not in top, "torch is imported where it is needed, so that the package works without it"


def imported_at(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [node.module.split(".")[0]] if isinstance(node, ast.ImportFrom) else []


def test_no_network_bypasses_our_convolution():
    """XLA's own, and flax's, are slow out of proportion on a CPU."""
    theirs = re.compile(r"^\w+\.(lax\.)?(Conv|conv_|max_pool|avg_pool|reduce_window)")
    for module in LIBRARY:
        if within(module, "jax_video.models") and not module.startswith("jax_video.models.convolution"):
            attributes = [ast.unparse(node) for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)]
            assert not list(filter(theirs.match, attributes)), module


def test_one_file_takes_networks_apart():
    split_or_merge = {"split", "merge", "clone", "iter_graph", "state", "update"}
    callers = {
        module
        for module in LIBRARY
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "nnx"
        and node.attr in split_or_merge
    }
    # And where parts of one are rematerialised while it computes.
    assert callers == {"jax_video.state", "jax_video.models.layers"}


def test_imports_run_one_way():
    """No cycle, in functions neither; and nothing imports a command, but a command."""
    graph = {module: {name for name in imports(module) if name in SOURCES} for module in SOURCES}
    list(graphlib.TopologicalSorter(graph).static_order())
    for command in (
        "jax_video.main",
        "jax_video.prepare",
        "jax_video.predict",
        "jax_video.convert",
        "jax_video.export",
        "jax_video.fuse",
        "jax_video.average",
        "jax_video.report",
        "jax_video.models.__main__",
        "jax_video.__main__",
    ):
        assert importers(command) <= {"jax_video"}, "the package asks __main__ whether a module is a command"
    assert importers("jax_video.train") == {"jax_video.workflow", "jax_video.planning"}


def test_all_modules_can_be_imported_together():
    """By a notebook, for example: two commands that define a flag of the same name could not."""
    for module in LIBRARY:
        if not module.endswith("__main__"):
            importlib.import_module(module)


def test_no_utils():
    banned = {"utils", "util", "helpers", "misc", "common"}
    assert not [module for module in LIBRARY if module.rsplit(".", 1)[-1] in banned]


@pytest.mark.parametrize(("file", "limit"), [("main.py", 80), ("train.py", 350)])
def test_lengths(file, limit):
    assert len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.parametrize("module", SOURCES)
def test_modules_say_what_they_are(module):
    assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("module", LIBRARY)
def test_public_functions_and_classes_have_docstrings(module):
    """But for a command's flags and `main`, which its module describes, and a name for a single statement."""
    bare = [
        node.name
        for node in TREES[module].body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not (isinstance(node, ast.FunctionDef) and (node.name in ("main", "define_flags") or len(node.body) == 1))
        and not ast.get_docstring(node)
    ]
    assert not bare
