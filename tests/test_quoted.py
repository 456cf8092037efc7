"""README's figures are what its commands give: those that take less than ten minutes.

`.ci/run start` compares the quickstart's, and tests/test_networks.py the table of networks; here is the rest. A test
video more or less is allowed: another processor rounds otherwise.
"""

import json
import re
import shlex

import pytest
from commands import run
from conftest import ROOT

README = (ROOT / "README.md").read_text()


def command(beginning: str) -> list[str]:
    """The arguments of the one line in README that begins so."""
    (found,) = (line for line in README.splitlines() if line.startswith(beginning))
    return shlex.split(found.partition("  #")[0])[2:]


@pytest.mark.slow
def test_weizmann(tmp_path, test_data):
    """The row of the results, by the two commands below its table."""
    row = next(line for line in README.splitlines() if line.startswith("| Weizmann silhouettes"))
    top1, right, of = re.search(r"([\d.]+) \((\d+) of (\d+) videos\)", row).groups()
    _, *prepare = command("python -m jax_video.prepare folder --videos=weizmann")
    prepared = run("jax_video.prepare", *prepare, f"--videos={test_data / 'weizmann'}", cwd=tmp_path)
    assert prepared.code == 0, prepared.stderr
    _, *main = command("python -m jax_video.main --config=configs/stc.py:recipe=small,data=data/weizmann")
    main = [f"--config={ROOT}/{main[0].removeprefix('--config=')}", *main[1:]]
    # As users run it: tests otherwise compile quickly what runs slowly.
    trained = run("jax_video.main", *main, "--workdir=run", cwd=tmp_path, timeout=1200, env={"XLA_FLAGS": ""})
    assert trained.code == 0, trained.stderr
    found = json.loads((tmp_path / "run" / "test.json").read_text())
    assert found["of"] == found["videos"] == int(of)
    assert float(top1) == pytest.approx(100 * int(right) / int(of), abs=0.05)
    assert abs(found["top1"] * int(of) - int(right)) < 1.5
