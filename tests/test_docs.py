"""Every block of commands and of Python in README and on the site works as it stands there; what is shown is real.

Blocks run in order, page by page, in a folder with a few tiny videos, by tests/small.py. One that needs what is not
here (a cloud, a device, a full set, a download) is marked by a comment above it, and counted below; its commands, flags
and configs are parsed all the same.
"""

import collections
import importlib
import json
import os
import pathlib
import re
import shutil
import socketserver
import subprocess
import sys
import threading
import tomllib

import commands
import documents
import numpy as np
import pytest
import small
from absl import flags
from conftest import ROOT

import jax_video
from jax_video import config_flag, networks, saved
from jax_video.__main__ import COMMANDS
from jax_video.data.sources import motions

PAGES = documents.pages()
BLOCKS = {page: documents.blocks(page) for page in PAGES}
ALL = [block for page in PAGES for block in BLOCKS[page]]
MARKED = {  # why a block is not run here: how many are not
    "it needs a cloud": 4,
    "it downloads": 7,
    "it installs": 6,
    "it needs a file of PyTorch's": 4,
    "it needs the full set": 2,
    "tests/test_export.py does": 2,
    "it needs a network of PyTorch's": 1,
    "it needs a stream": 1,
    "it needs SLURM": 1,
    "it needs TPUs' compiler": 1,
}
FULL_SIZE = 3  # outputs that a small run does not have: they are not compared
SITE = [page for page in PAGES if page.startswith("docs/")]


def test_what_is_not_run_is_counted():
    assert collections.Counter(block.mark for block in ALL if block.mark) == MARKED
    texts = [pathlib.Path(ROOT, page).read_text(encoding="utf-8") for page in PAGES]
    assert sum(text.count(documents.ELSEWHERE) for text in texts) == FULL_SIZE


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCKS[page]])
def test_commands_can_be_given(page, tmp_path, monkeypatch):
    """Also those of blocks that are not run: there are such commands, flags, recipes and keys."""
    (tmp_path / "runs" / "stc").mkdir(parents=True)  # as much of a run as a recipe looks at
    (tmp_path / "runs" / "stc" / "config.json").write_text(json.dumps(config_flag.load("stc").to_dict()))
    shutil.copy(ROOT / "configs" / "stc.py", tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS[page]:
        for module, arguments in block.commands():
            if module == "jax_video.__main__":  # it lists the commands
                continue
            assert module.removeprefix("jax_video.") in COMMANDS, block.where
            if "--help" not in arguments:
                parse(module, arguments, monkeypatch, block.where)


def parse(module: str, arguments: list[str], monkeypatch, where: str) -> None:
    """Defines the flags of a command and has them parsed, as it does itself."""
    name = "jax_video.models.__main__" if module == "jax_video.models" else module
    defined = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    before = set(flags.FLAGS)
    try:
        defined.define_flags()
        flags.FLAGS([module, *arguments])
        if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
            config_flag.read()
    except Exception as error:
        raise AssertionError(f"{where}: {module} {' '.join(arguments)}: {error}") from error
    finally:
        for added in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, added)
        flags.FLAGS.mark_as_parsed()


def test_every_key_and_flag_says_what_it_means(monkeypatch):
    """The reference is made of these words."""
    assert not [f"{section}.{key}" for section, keys in saved.KEYS.items() for key in keys if not keys[key].meaning]
    monkeypatch.syspath_prepend(ROOT / "docs" / "make")
    made = importlib.import_module("command_line").pages() | importlib.import_module("config_keys").pages()
    rows = [row for text in made.values() for row in re.findall(r"^\| `(?:--|\w+\.).*$", text, re.MULTILINE)]
    assert len(rows) > 150
    assert not [row for row in rows if row.endswith("|  |")]  # the meaning is the last cell
    keys = set(re.findall(r"^\| `([\w.]+)`", made["reference/generated/config.md"], re.MULTILINE))
    assert keys >= {f"{section}.{key}" for section, keys in saved.KEYS.items() for key in keys}
    assert keys >= {f"model.{key}" for network in networks.NETWORKS.values() for key in network.keywords}


def test_every_page_is_in_the_navigation():
    """And the other way round, but for what is made from the code."""
    with open(ROOT / "zensical.toml", "rb") as file:
        found = set(re.findall(r"'([\w/-]+\.md)'", str(tomllib.load(file)["project"]["nav"])))
    made = {f"reference/generated/{name}.md" for name in (*COMMANDS, "recipes", "config", "networks", "weights")}
    assert found == {page.removeprefix("docs/") for page in SITE} | made


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    assert not [name for name in jax_video.__all__ if name != "__version__" and f"jax_video.{name}" not in text]


def test_every_question_is_in_the_list():
    listed = pathlib.Path(ROOT, "docs/how-to/index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs" / "how-to").glob("*.md"):
        for title in re.findall("^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            slug = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
            assert f"({page.name}#{slug})" in listed, f"{page.name}: {title}"


@pytest.mark.parametrize("page", SITE)
def test_links_to_the_repository_lead_somewhere(page):
    """The build checks those that stay within the site."""
    text = pathlib.Path(ROOT, page).read_text(encoding="utf-8")
    for path in re.findall(r"\]\(https://github\.com/jax-video/jax_video/(?:blob|tree)/main/([^)#]+)", text):
        assert (ROOT / path).exists(), f"{page}: {path}"


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> pathlib.Path:
    """A folder with what pages take for given: videos, and names of runs and sets that nothing is in."""
    folder = tmp_path_factory.mktemp("material")
    rendered = motions.make(tmp_path_factory.mktemp("motions"), **small.SET).parent
    for split in ("train", "val", "test"):  # class folders: videos/left/left_000.mp4
        for path in (rendered / split).glob("*/*.mp4"):
            target = folder / "videos" / path.parent.name / f"{split}_{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            person = {"train": "daria", "val": "ira", "test": "lena"}[split]  # weizmann/left/ira_left000.mp4
            target = folder / "weizmann" / path.parent.name / f"{person}_{path.name.replace('_', '')}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (folder / "clips").mkdir()
    for number, path in enumerate(sorted((folder / "videos").glob("*/train_*"))[:12]):
        shutil.copy(path, folder / "clips" / f"clip_{number:03}.mp4")
    labels = ["square moves left", "bar falls", "light flickers"]
    rows = [f"clip_{n:03}.mp4,{';'.join(labels[k] for k in range(3) if n >> k & 1)}" for n in range(12)]
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    (folder / "table.csv").write_text("path,label\n" + "".join(f"clip_{n:03}.mp4,{'ab'[n % 2]}\n" for n in range(12)))
    (folder / "train.txt").write_text("".join(f"clip_{n:03}.mp4 {n % 2}\n" for n in range(8)))
    (folder / "test.txt").write_text("".join(f"clip_{n:03}.mp4 {n % 2}\n" for n in range(8, 12)))
    shutil.copy(folder / "clips" / "clip_000.mp4", folder / "video.mp4")
    frames = np.random.default_rng(0).integers(0, 255, (100, 40, 48, 3), dtype=np.uint8)
    motions.encode(folder / "long.mp4", frames)
    return folder


class Shell:
    """A shell in which `python -m jax_video.…` is a small run of the command, its imports paid for once."""

    def __init__(self, folder: pathlib.Path, scratch: pathlib.Path):
        self.folder, self.scratch = folder, scratch
        self._address = str(scratch / "socket")
        (scratch / "bin").mkdir(parents=True)
        for name, before in (("python", []), ("jax-video", ["-m", "jax_video"])):
            shim = scratch / "bin" / name
            shim.write_text(f"#!{sys.executable} -SE\nADDRESS, BEFORE = {self._address!r}, {before!r}\n{_SHIM}")
            shim.chmod(0o755)
        shell = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                asked = json.loads(self.rfile.readline())
                done = shell._run(asked["arguments"], asked["cwd"], asked["env"])
                self.wfile.write(json.dumps([done.code, done.stdout, done.stderr]).encode() + b"\n")

        self._server = socketserver.UnixStreamServer(self._address, Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def run(self, block: documents.Block) -> str:
        """What a block prints, of both kinds."""
        if block.language == "python":
            (self.scratch / "block.py").write_text(block.text)
            script = f"python {self.scratch / 'block.py'}"
        else:
            script = f"set -euo pipefail\n{block.text}"
        env = os.environ | {"PATH": f"{self.scratch / 'bin'}:{os.environ['PATH']}"}
        env |= {"JAX_VIDEO_CACHE": str(self.scratch / "cache"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-c", script], cwd=self.folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.where}\n{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def _run(self, arguments: list[str], cwd: str, env: dict[str, str]) -> commands.Finished:
        if arguments[:1] == ["-m"]:
            module, *rest = arguments[1:]
            if module == "jax_video" and rest and rest[0] in COMMANDS:
                module, *rest = [f"jax_video.{rest[0]}", *rest[1:]]
        else:
            module, *rest = arguments
        return commands.run("small", module, *rest, cwd=cwd, env=env, timeout=300)


_SHIM = """
import json, os, socket, sys
if sys.argv[1:2] == ["-c"] or any(word.startswith("--live") for word in sys.argv):  # the latter reads from a pipe
    os.execv(sys.executable, [sys.executable, *BEFORE, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as it:
    it.connect(ADDRESS)
    env = {key: os.environ[key] for key in ("JAX_VIDEO_CACHE", "PYTHONPATH")}
    asked = {"arguments": BEFORE + sys.argv[1:], "cwd": os.getcwd(), "env": env}
    it.sendall(json.dumps(asked).encode() + b"\\n")
    code, out, err = json.loads(it.makefile().readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


def run_page(page: str, folder: pathlib.Path, scratch: pathlib.Path) -> None:
    shell = Shell(folder, scratch)
    try:
        program = ""
        for block in BLOCKS[page]:
            if block.language == "python" and not re.match("import |from ", block.text):  # goes on with the one before
                block = documents.dataclasses.replace(block, text=program + block.text)
            if block.mark:
                continue
            program = block.text if block.language == "python" else program
            printed = shell.run(block)
            missing = [line for line in block.output.splitlines() if not is_in(line, printed)]
            assert not missing, f"{block.where} shows {missing[0]!r}, which is not in\n{printed}"
    finally:
        shell.close()


def is_in(line: str, printed: str) -> bool:
    """Whether a line of an output is in what was printed, but for numbers, class names and what depends on the size."""
    return not line.strip() or line.strip() == "…" or general(line) in {*map(general, printed.splitlines())}


def general(line: str) -> str:
    line = re.sub("|".join(motions.CLASSES), "CLASS", line.replace("counterclockwise", "clockwise"))
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.,:×]*", "0", line)).strip()


@pytest.fixture(scope="module")
def given(material, tmp_path_factory) -> pathlib.Path:
    """The same folder with a set and runs, as how-to pages take them for given."""
    folder = tmp_path_factory.mktemp("given") / "given"
    shutil.copytree(material, folder)
    shell = Shell(folder, tmp_path_factory.mktemp("shell") / "shell")
    try:
        text = "\n".join(
            [
                "python -m jax_video.prepare folder --videos=videos --out=data/mine",
                "python -m jax_video.main --config=configs/stc.py",
                "cp -r runs/stc runs/first; cp -r runs/stc runs/second",
                "python -m jax_video.convert runs/stc --layout=jax_video --export=weights.npz",
            ]
        )
        shell.run(documents.Block("given", 1, "bash", text, "", ""))
    finally:
        shell.close()
    return folder


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("page", [page for page in PAGES if any(not block.mark for block in BLOCKS[page])])
def test_blocks_run(page, request, tmp_path):
    folder = tmp_path / "folder"
    starts = page.startswith("docs/tutorials") or page == "docs/index.md"
    shutil.copytree(request.getfixturevalue("material" if starts else "given"), folder)
    run_page(page, folder, tmp_path / "shell")
