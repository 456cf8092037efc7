"""The notebooks run from top to bottom, at a small size. `pytest -m ci` runs them, as `.ci/run` does."""

import re

import nbclient
import nbformat
import pytest
from conftest import FAST_COMPILE, ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ci,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::nbformat.warnings.MissingIDFieldWarning"),
]


def test_quickstart(tmp_path, monkeypatch):
    parameters = f"EPOCHS, WIDTH, VIDEOS, WORKDIR = 1, 1 / 16, dict(train=16, val=8, test=8), {str(tmp_path / 'run')!r}"
    small = ("config.model.width = WIDTH", "config.model.width = WIDTH\nconfig.model.update(layers=(1, 1, 1, 1))")
    outputs = run("quickstart.ipynb", parameters, tmp_path, monkeypatch, small)
    text = "".join(output.get("text", "") for output in outputs)
    assert "8 of 8 test videos" in text and "the file's true class: " in text
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3  # frames, curves, confusion


def test_from_pytorch(tmp_path, monkeypatch):
    parameters = (
        "NETWORK, PYTORCH_STEPS, EPOCHS, WIDTH = 'resnet3d10', 2, 1, 1 / 16\n"
        f"VIDEOS, FOLDER = dict(train=16, val=8, test=8), {str(tmp_path / 'folder')!r}"
    )
    outputs = run("from_pytorch.ipynb", parameters, tmp_path, monkeypatch)
    text = "".join(output.get("text", "") for output in outputs)
    assert text.count("8 of 8 test videos") == 2  # converted, and trained further
    assert "All keys matched" in text
    (difference,) = re.findall("largest difference: (.*) of the largest logit", text)
    assert float(difference) < 1e-5


def test_cost_views(tmp_path, monkeypatch):
    parameters = (
        "EPOCHS, NETWORK, VIDEOS = 1, dict(width=1 / 16, layers=(1, 1, 1, 1)), dict(train=16, val=8, test=8)\n"
        f"WORKDIR = {str(tmp_path / 'run')!r}"
    )
    outputs = run("cost_views.ipynb", parameters, tmp_path, monkeypatch)
    text = "".join(output.get("text", "") for output in outputs)
    assert "8 of 8 test videos" in text and "Mean coefficients of 8 of 8 videos of the split 'val'" in text
    (overall,) = [output.data["text/plain"] for output in outputs if output.output_type == "execute_result"]
    assert overall.startswith("{'H-W': 0.")
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 2


def run(name, parameters, tmp_path, monkeypatch, replaced=None):
    """The outputs of a notebook, run with these parameters and without installing anything.

    `replaced`: a text that stands once in its cells, and another in its place.
    """
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", FAST_COMPILE)  # one device, as a notebook has
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    by_tag = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    by_tag["install"].source = ""
    by_tag["parameters"].source = parameters
    if replaced is not None:
        (cell,) = (cell for cell in notebook.cells if replaced[0] in cell.source)
        cell.source = cell.source.replace(*replaced)

    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    ).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    return outputs
