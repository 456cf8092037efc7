"""The notebooks: what they are kept as, their first cell, which installs, and the address that they install from.

`pytest -m ci` runs all of them from top to bottom, at a small size, as `.ci/run` does.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import types

import nbclient
import nbformat
import pytest
from conftest import FAST_COMPILE, ROOT

import jax_video
from jax_video import networks, state
from jax_video.data.sources import motions
from jax_video.exporting import card

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Repository"]
TINY = "layers=(1, 1, 1, 1)"


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def tagged(notebook, tag):
    (cell,) = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    return cell


def test_one_address_stands_everywhere():
    """To change it everywhere: the command in CONTRIBUTING.md, "The address"."""
    path = ADDRESS.removeprefix("https://github.com/")
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", path)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"git grep -lF {path} | xargs sed -i 's|{path}|OWNER/NAME|g'" in contributing
    assert all(url.startswith(ADDRESS) for url in PROJECT["urls"].values())
    assert f"\nrepository-code: {ADDRESS}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    links = re.findall(r"^\[.*\]: (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert links and all(link.startswith(f"{ADDRESS}/") for link in links)
    assert card._PROJECT == ADDRESS
    for name in NAMES:
        notebook = read(name)
        badge = f"(https://colab.research.google.com/github/{path}/blob/main/notebooks/{name}.ipynb)"
        assert badge in notebook.cells[0].source.splitlines()[0]
        assert f'\nREPOSITORY = "{ADDRESS}"\n' in tagged(notebook, "install").source


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_as_it_is_kept(name):
    """Without outputs, with the same first cell as the others, and nothing from tests/."""
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    first, second, *others = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert (first, second) == (tagged(notebook, "install"), tagged(notebook, "parameters"))
    assert first.source == tagged(read(NAMES[0]), "install").source
    for cell in (first, second, *others):
        assert not cell.outputs and cell.execution_count is None
        assert not re.search(r"\b(reference|tests|configs|sys\.path|chdir)\b(?!/)", cell.source)


@pytest.fixture
def install(monkeypatch):
    """Runs the first cell where modules are there or not; returns what pip was asked for, or None."""

    def run(*modules, gpu=False, code=0):
        asked = []

        def pip(command, **_):
            asked.append(command[command.index("--quiet") + 1 :])
            return types.SimpleNamespace(returncode=code, stderr="fatal: repository not found")

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in modules else None)
        monkeypatch.setattr(shutil, "which", lambda name: f"/opt/bin/{name}" if gpu else None)
        monkeypatch.setattr(subprocess, "run", pip)
        exec(tagged(read(NAMES[0]), "install").source, {})
        return asked[0] if asked else None

    return run


def test_the_first_cell_installs_for_the_device(install, capsys):
    source = f"git+{ADDRESS}"
    assert install() == [source, "jax[cpu]"]
    assert install("libtpu", "jax") == [source, "jax[tpu]"]
    assert install("jax", "jax_cuda12_plugin", gpu=True) == [source, "jax[cuda12]"]
    assert install("jax", "jax_cuda13_plugin", gpu=True) == [source, "jax[cuda13]"]
    assert install("jax", "jax_cuda12_plugin") == [source, "jax[cpu]"]  # of a machine without the card
    assert f"pip install {source} jax[cpu]" in capsys.readouterr().out
    assert install("jax_video", gpu=True) is None


def test_the_first_cell_says_what_went_wrong(install, monkeypatch):
    with pytest.raises(RuntimeError, match=f"{re.escape(ADDRESS)} cannot be installed. .*\nfatal: repository not"):
        install(code=1)
    monkeypatch.setitem(sys.modules, "numpy", types.SimpleNamespace(__version__="1.0"))
    with pytest.raises(RuntimeError, match="^numpy: installed anew. Runtime → Restart session"):
        install()


def test_a_network_of_ones_own_in_files(tmp_path, monkeypatch):
    """The recipe that the notebook shows, beside a file with the classes of its cell."""
    notebook = read("own_network")
    (classes,) = [cell.source for cell in notebook.cells if "class SpaceTime" in cell.source]
    (recipe,) = re.findall("```python\n# mine.py\n(.*?)```", notebook.cells[-1].source, re.DOTALL)
    imports = "from flax import nnx\n\nfrom jax_video.models.layers import output, padded_conv\n"
    assert imports.splitlines()[-1] in notebook.cells[4].source
    (tmp_path / "space_time.py").write_text(imports + classes, encoding="utf-8")
    (tmp_path / "mine.py").write_text(recipe, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    copy = dict(networks.NETWORKS)
    monkeypatch.setattr(jax_video, "NETWORKS", copy)  # first, as it takes the other's where it is asked first
    monkeypatch.setattr(networks, "NETWORKS", copy)
    config = jax_video.read_recipe(str(tmp_path / "mine.py"))
    _, params, batch_stats = state.abstract(config, 8)
    assert params["fc"]["kernel"].shape == (128, 8) and len(batch_stats["stages"]) == 4


def in_ci(function):
    for mark in (
        pytest.mark.slow,
        pytest.mark.ci,
        pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::nbformat.warnings.MissingIDFieldWarning"),
    ):
        function = mark(function)
    return function


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small set of motions."""
    return str(motions.make(tmp_path_factory.mktemp("data"), train=16, val=8, test=32))


@in_ci
def test_quickstart(run, data):
    parameters = f"DATA, EPOCHS, WIDTH, WORKDIR = {data!r}, 1, 1 / 16, 'run'"
    small = ("config.model.width = WIDTH", f"config.model.width = WIDTH\nconfig.model.update({TINY})")
    text, pictures = run("quickstart", parameters, small)
    assert "32 of 32 test videos" in text and "the file's true class: " in text
    assert pictures == 3  # frames, curves, confusion


@in_ci
def test_from_pytorch(run, data):
    parameters = f"DATA, PYTORCH_STEPS, EPOCHS, WIDTH, LAYERS, FOLDER = {data!r}, 2, 1, 1 / 16, (1, 1, 1, 1), 'folder'"
    text, pictures = run("from_pytorch", parameters)
    assert text.count("32 of 32 test videos") == 2  # converted, and trained further
    assert "All keys matched" in text
    (difference,) = re.findall("largest difference: (.*) of the largest logit", text)
    assert float(difference) < 1e-5
    assert pictures == 1  # confusion


@in_ci
def test_cost_views(run, data):
    parameters = f"DATA, EPOCHS, NETWORK, WORKDIR = {data!r}, 1, dict(width=1 / 16, {TINY}), 'run'"
    text, pictures = run("cost_views", parameters)
    assert "32 of 32 test videos" in text and "Mean coefficients of 8 of 8 videos of the split 'val'" in text
    assert "{'H-W': 0." in text
    assert pictures == 2


@in_ci
def test_own_videos(run, data):
    parameters = (
        "VIDEOS, WEIGHTS, LONG_VIDEO, EPOCHS, FOLDER = '', '', '', 1, 'a folder'\n"
        f"STAND_INS = {data!r}, {str(ROOT / 'tests' / 'tiny.py')!r}"
    )
    text, pictures = run("own_videos", parameters)
    assert "readable          12         6         6        24" in text  # by the command
    assert "('shift', 'turn', 'zoom')" in text
    assert "6 of 6 test videos" in text and "the file's true class: shift" in text
    assert "  00:00:00.000  00:00:0" in text  # a timeline
    assert "a folder/exported/model.stablehlo" in text
    assert re.search(r"left_\d+.mp4\n    0\.\d{4}  ", text)  # by the exported program
    assert pictures == 5  # frames, curves, confusion, timeline, what it looks at


@in_ci
def test_own_network(run, data):
    text, pictures = run("own_network", f"DATA, EPOCHS, WIDTH, WORKDIR = {data!r}, 1, 2, 'run'")
    assert "space_time, " in text and "32 of 32 test videos" in text
    assert "features: (16,)" in text
    assert pictures == 3  # curves, confusion, what it looks at


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a notebook, in a folder of its own, with these parameters and without installing anything.

    `replaced` is a text that stands once in its cells, and another in its place. Returns all text that its cells have
    put out, and how many pictures.
    """
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", FAST_COMPILE)  # one device, as a notebook has

    def execute(name, parameters, replaced=None):
        monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with which ipykernel does not show what other processes print
        notebook = read(name)
        tagged(notebook, "parameters").source = parameters
        if replaced is not None:
            (cell,) = (cell for cell in notebook.cells if replaced[0] in cell.source)
            cell.source = cell.source.replace(*replaced)
        client = nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        )
        client.execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        texts = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        return "".join(texts), sum("image/png" in output.get("data", {}) for output in outputs)

    return execute
