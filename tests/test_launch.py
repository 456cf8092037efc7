"""The files of launch/: they can be parsed, and their commands are ones that jax_video.main takes."""

import functools
import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from absl import flags
from conftest import ROOT

from jax_video import NETWORKS, config_flag, main

SCRIPTS = ["launch/slurm.sh", "launch/tpu_pod.sh", "tests/slurm.sh"]
FILES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in [*SCRIPTS, "launch/gke.yaml", "docs/tutorials/cluster.md"]
}
COMMANDS = {  # where arguments of jax_video.main stand
    "docs/tutorials/cluster.md": [r"sbatch launch/slurm\.sh (--.*)", r"launch/tpu_pod\.sh run (--.*)"],
    "launch/slurm.sh": [r"sbatch launch/slurm\.sh (--config.*)"],
    "launch/tpu_pod.sh": [r"launch/tpu_pod\.sh run (--.*)"],
    "launch/gke.yaml": [r'--command="python -m jax_video\.main (.*)"'],
}


@pytest.fixture
def parse(monkeypatch):
    """A function that takes the flags of jax_video.main from a command line, and returns their values."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    for kind in ("boolean", "string", "enum", "integer"):
        define = functools.partial(getattr(flags, f"DEFINE_{kind}"), flag_values=values)
        monkeypatch.setattr(flags, f"DEFINE_{kind}", define)
    main.define_flags()

    def parse(arguments: list[str]) -> flags.FlagValues:
        monkeypatch.setattr("sys.argv", ["main", *arguments])
        assert values(["main", *arguments]) == ["main"]
        config_flag.read()
        return values

    return parse


@pytest.mark.parametrize(
    ("file", "pattern"), [(file, pattern) for file, patterns in COMMANDS.items() for pattern in patterns]
)
def test_a_command(parse, file, pattern):
    (found,) = re.findall(pattern, FILES[file])
    values = parse(shlex.split(found, comments=True))
    assert values.config.model.name in NETWORKS and values.workdir


@pytest.mark.parametrize("file", ["launch/slurm.sh", "launch/tpu_pod.sh"])
def test_what_a_script_runs(parse, file):
    (flag,) = re.findall(r"python -u -m jax_video\.main (\S+) ", FILES[file])
    assert parse([flag, "--config=stc"]).distributed == "auto"


def test_gke(parse):
    """What XLA, JAX and Kubernetes need to agree on: the chips of a host and of all, and what starts there."""
    specification = yaml.safe_load(FILES["launch/gke.yaml"])["spec"]
    (job,) = specification["replicatedJobs"]
    pods = job["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-u", "-m", "jax_video.main"]
    values = parse(container["args"])
    assert (values.distributed, values.takeover) == ("auto", True)
    rows, columns = pods["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert int(rows) * int(columns) == pods["completions"] * container["resources"]["limits"]["google.com/tpu"]
    assert pods["completions"] == pods["parallelism"]


@pytest.mark.parametrize("file", SCRIPTS)
def test_a_script_can_be_run(file):
    path = ROOT / file
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(path, os.X_OK)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)


def test_tpu_pod_hands_on_what_follows_run(tmp_path):
    """Through the shell of a host, for which a folder stands in here."""
    gcloud, python = tmp_path / "gcloud", tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    gcloud.write_text('#!/bin/bash\ncommand=${!#}\ncd "$(dirname "$0")" && bash -c "${command#--command=}"\n')
    python.write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    for path in (gcloud, python):
        path.chmod(0o755)
    given = ["--config=stc:data=gs://bucket/a set", "--workdir=$HOME/runs/'one'"]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [ROOT / "launch" / "tpu_pod.sh", "run", *given]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["-u", "-m", "jax_video.main", "--distributed=auto", *given]
