"""The notebooks run from top to bottom, at a small size."""

import nbclient
import nbformat
import pytest
from conftest import ROOT


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::nbformat.warnings.MissingIDFieldWarning")
def test_quickstart(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    by_tag = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    by_tag["install"].source = ""
    by_tag[
        "parameters"
    ].source = f"EPOCHS, WIDTH, VIDEOS, WORKDIR = 1, 0.125, dict(train=16, val=8, test=8), {str(tmp_path / 'run')!r}"

    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    ).execute()

    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "8 of 8 test videos" in text and "the file's true class: " in text
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3  # frames, curves, confusion
    errors = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert not errors
