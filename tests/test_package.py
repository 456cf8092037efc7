"""What `import jax_video` offers, and what of the package is said in several files."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

import jax_video


def loaded(code: str) -> set[str]:
    """The packages beyond Python's own that a fresh process has loaded after running `code`."""
    names = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}} - sys.stdlib_module_names)"
    done = subprocess.run([sys.executable, "-c", names], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing():
    before = loaded("")  # what site-packages load at the start of any process
    assert loaded("import jax_video; dir(jax_video); jax_video.__version__") - before == {"jax_video"}


@pytest.mark.parametrize("name", jax_video.__all__)
def test_public_names(name):
    assert name in dir(jax_video)
    value = getattr(jax_video, name)
    assert isinstance(value, dict | str) or value.__doc__
    assert getattr(jax_video, name) is value
    assert importlib.util.find_spec(f"jax_video.{name}") is None, "a name is a function's or a module's, not both"


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'jax_video' has no attribute 'lod'"):
        jax_video.lod  # noqa: B018


def test_types_are_those_of_the_same_places():
    """What a type checker reads, under TYPE_CHECKING, is where the names are found when the package runs."""
    tree = ast.parse((ROOT / "jax_video" / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    places = {alias.asname or alias.name: (node.module, alias.name) for node in checked.body for alias in node.names}
    assert {*places, "__version__"} == set(jax_video.__all__)
    for name, (module, attribute) in places.items():
        assert getattr(jax_video, name) is getattr(importlib.import_module(module), attribute)
    assert (ROOT / "jax_video" / "py.typed").is_file()


def test_every_folder_of_modules_is_a_package():
    """Or else it would be missing from a wheel."""
    folders = {path.parent for path in (ROOT / "jax_video").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_the_version_is_the_same_everywhere():
    versions = re.findall(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    cited = re.search("^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == cited[1] == jax_video.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "jax_video.__version__"}
