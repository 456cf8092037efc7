"""A run as a folder to share: it is read like the run's own, to the bit, wherever it lies; or there is one message."""

import json
import pathlib
import shutil

import commands
import fsspec
import numpy as np
import pytest
import safetensors.numpy
from commands import TinyRun, tiny_run
from servers import serving

import jax_video
from jax_video import published, sharding
from jax_video import state as state_lib
from jax_video.data import documents
from jax_video.data.manifest import Manifest
from jax_video.errors import CheckpointError, UserError
from jax_video.exporting import card
from jax_video.testing import results
from jax_video.weights import source

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TinyRun:
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def run(trained, one_device) -> jax_video.Run:
    return jax_video.load(trained.workdir)


@pytest.fixture
def folder(run, tmp_path) -> pathlib.Path:
    """The run, to share."""
    (tmp_path / "shared").mkdir()
    published.write(tmp_path / "shared", run.meta, run.step, run.weights, card.result(run))
    return tmp_path / "shared"


def check_same(found, run):
    for what in ("classes", "step", "protocol", "objective", "normalization"):
        assert getattr(found, what) == getattr(run, what)
    assert json.dumps(found.meta.to_json()) == json.dumps(run.meta.to_json())
    ours, theirs = map(state_lib.named_leaves, (run.weights, found.weights))
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(theirs[name], leaf)


def test_a_published_run_is_the_same_to_the_bit(run, folder):
    found = jax_video.load(folder)
    check_same(found, run)
    video = np.random.default_rng(0).integers(0, 256, (8, 40, 48, 3), dtype=np.uint8)
    assert found.classify(video) == run.classify(video)


def test_any_program_can_read_the_weights(run, folder):
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    assert arrays.keys() == state_lib.named_leaves(run.weights).keys()
    assert json.loads((folder / "config.json").read_text())["library_name"] == "jax_video"


def test_an_export_keeps_the_result_of_the_test(run, trained, folder):
    """So that one of an export, and one of a copy from a store, has it in its card, too."""
    told = json.loads((trained.workdir / "test.json").read_text())
    found = card.result(jax_video.load(folder))
    assert found == card.result(run) and (found["top1"], found["videos"], found["of"]) == (told["top1"], 8, 8)
    with serving(trained.workdir.parent) as web:
        copy = jax_video.load(f"{web.url}/{trained.workdir.name}")
        assert copy.folder != run.folder and card.result(copy) == found
    change("result", None)(folder)
    assert card.result(jax_video.load(folder)) is None
    record = documents.read(folder / "config.json")
    del record["result"]  # as earlier versions
    documents.write(folder / "config.json", record)
    assert card.result(jax_video.load(folder)) is None
    change("result", found | {"step": run.step + 1})(folder)
    assert card.result(jax_video.load(folder)) is None, "it is not of these weights"


@pytest.mark.parametrize(
    ("other", "known"),
    [
        ({"manifest": "0" * 64}, False),
        ({"clip": {"frames": 99}}, False),
        ({"dtype": "bfloat16"}, False),
        ({"step": 3}, False),
        ({"manifest": None}, True),
        ({"protocol": {"clips": "uniform"}}, True),  # which the card says
    ],
)
def test_a_result_of_something_else_is_not_in_the_card(run, folder, other, known):
    """Of another set, clip, type or checkpoint than the network was trained with, as far as the result tells."""
    found = card.result(run)
    parts = {key: found[key] | value if isinstance(value, dict) else value for key, value in other.items()}
    change("result", found | parts)(folder)
    assert (card.result(jax_video.load(folder)) is not None) == known
    change("result", {key: value for key, value in found.items() if key not in other or key == "step"})(folder)
    assert card.result(jax_video.load(folder)) is not None


def change(key, value):
    def damage(folder):
        record = documents.read(folder / "config.json")
        documents.write(folder / "config.json", record | {key: value})

    return damage


def other_arrays(folder):
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    arrays["params/fc/kernel"] = np.zeros((3, 3), np.float32)
    data = safetensors.numpy.save(arrays)
    (folder / "model.safetensors").write_bytes(data)
    change("weights", {"bytes": len(data), "sha256": published.checksum(data)})(folder)


def no_arrays(folder):
    (folder / "model.safetensors").write_bytes(b"nothing")
    change("weights", {"bytes": 7, "sha256": published.checksum(b"nothing")})(folder)


def cut(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def flip(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def edit(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"left"', '"port"'))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (cut, r"model.safetensors is not the file that config.json tells of \([\d,]+ of [\d,]+ bytes\): fetch both"),
        (flip, "model.safetensors is not the file that config.json tells of .its checksum is wrong"),
        (edit, "config.json is damaged .changed since it was written"),
        (no_arrays, "model.safetensors is not a file of safetensors"),
        (other_arrays, r"1 arrays do not match.\n  shape    params/fc/kernel: found \(3, 3\), expected"),
        (change("step", "five"), "config.json is damaged .'step' is 'five', expected int"),
        (change("run", {"config": {}, "classes": [], "version": 99}), "saved by a later version of jax_video"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged .not JSON"),
        (lambda folder: (folder / "config.json").unlink(), "has model.safetensors, but no config.json: fetch that"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has config.json, but no model.safetensors: fetch"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "videomae"}'),
            "config.json is not of jax_video: it is of a model of type 'videomae'. Expected a folder that",
        ),
    ],
)
def test_a_folder_that_is_not_whole(folder, damage, expected):
    damage(folder)
    with pytest.raises(CheckpointError, match=expected):
        jax_video.load(folder)


def test_a_file_in_place_of_its_folder(folder):
    with pytest.raises(CheckpointError, match="model.safetensors is a file of a run; give the run's folder"):
        jax_video.load(folder / "model.safetensors")


def test_a_published_run_behind_a_url(run, folder):
    with serving(folder.parent) as web:
        check_same(jax_video.load(f"{web.url}/shared"), run)
        check_same(jax_video.load(f"{web.url}/shared/"), run)
    check_same(jax_video.load(f"{web.url}/shared"), run)  # by its copy
    with pytest.raises(UserError, match="cannot copy .*/other .* there is no whole copy"):
        jax_video.load(f"{web.url}/other")


def test_a_wrong_file_behind_a_url_does_not_stay(run, folder):
    good = (folder / "model.safetensors").read_bytes()
    with serving(folder.parent) as web:
        flip(folder)
        with pytest.raises(CheckpointError, match="http://.*its checksum is wrong.* The copy of it is removed"):
            jax_video.load(f"{web.url}/shared")
        (folder / "model.safetensors").write_bytes(good)  # within the same second, as large
        check_same(jax_video.load(f"{web.url}/shared"), run)


def test_a_runs_folder_behind_a_url(run, trained, cache):
    with serving(trained.workdir.parent) as web:
        url = f"{web.url}/{trained.workdir.name}"
        check_same(jax_video.load(url), run)
    check_same(jax_video.load(url), run)  # by its copy
    copied = {path.relative_to(cache).parts[-1] for path in cache.rglob("*") if path.is_dir()}
    assert {"checkpoints", "ema", "checksums"} <= copied and not {"training", "network", "tensorboard"} & copied


def test_both_in_a_store(run, trained, folder):
    store = fsspec.filesystem("memory")
    for name, path in (("shared", folder), ("trained", trained.workdir)):
        store.put(str(path), f"/bucket/{name}", recursive=True)
        check_same(jax_video.load(f"memory://bucket/{name}"), run)
    with pytest.raises(CheckpointError, match="memory://bucket: there is no run here: expected config.json and model"):
        jax_video.load("memory://bucket")
    store.rm("/bucket", recursive=True)


@pytest.fixture
def replaced(trained):
    """A run in a store, of which a copy was loaded, and which has only its earlier checkpoint by now."""
    store = fsspec.filesystem("memory")
    store.put(str(trained.workdir), "/bucket/replaced", recursive=True)
    assert jax_video.load("memory://bucket/replaced").step == 4
    store.rm("/bucket/replaced/checkpoints/4", recursive=True)
    yield store
    store.rm("/bucket", recursive=True)


def test_a_checkpoint_that_is_gone_from_the_store_is_gone_from_its_copy(replaced, trained):
    """As where a run is trained anew in the same place."""
    found = jax_video.load("memory://bucket/replaced")
    check_same(found, jax_video.load(trained.workdir, step=3))
    with pytest.raises(CheckpointError, match="no checkpoint of step 4 in .*: choose one of 3"):
        jax_video.load("memory://bucket/replaced", step=4)


def test_an_export_in_the_place_of_a_run(replaced, run, folder):
    replaced.put(f"{folder}/", "/bucket/replaced/", recursive=True)
    check_same(jax_video.load("memory://bucket/replaced"), run)


def test_a_run_that_changes_while_it_is_copied(replaced, monkeypatch):
    names = published.copies.Copy.names
    monkeypatch.setattr(published.copies.Copy, "names", lambda *of: [*names(*of), "checkpoints/3/checksums/gone"])
    with pytest.raises(
        CheckpointError, match="memory://bucket/replaced has changed while it was copied: give the same"
    ):
        jax_video.load("memory://bucket/replaced")


def test_a_published_run_in_googles_store_is_read_there(run, folder, store):
    shutil.copytree(folder, store / "bucket" / "shared")
    check_same(jax_video.load("gs://bucket/shared"), run)


def test_a_file_url_is_a_local_folder(run, folder, cache):
    check_same(jax_video.load(folder.as_uri()), run)
    assert not cache.exists()


def test_weights_to_start_from_may_be_published(run, folder):
    with serving(folder.parent) as web:
        for path in (folder, f"{web.url}/shared"):
            found = source.read_source(path, "resnet3d18", "", run.config, sharding.make_mesh())
            np.testing.assert_array_equal(found.arrays["params/conv1/kernel"], run.weights["params"]["conv1"]["kernel"])


def test_a_copy_is_not_written_to(folder, trained):
    with serving(folder.parent) as web:
        found = jax_video.load(f"{web.url}/shared")
    with pytest.raises(UserError, match="is the copy of a run in a store, which is only read: copy it to a folder of"):
        results.test(found, Manifest.read(trained.data / "manifest.jsonl"))


def test_a_published_run_is_not_gone_on_with(folder, trained):
    finished = commands.run("jax_video.main", *trained.arguments, f"--workdir={folder}")
    commands.check_user_error(finished, "holds a run that was exported: it is not gone on with. Train in another")
    assert jax_video.load(folder).step


def test_a_published_run_can_be_tested(folder, trained):
    config = jax_video.load(folder).config
    found = jax_video.load(folder, config=config)
    result = results.test(found, Manifest.read(trained.data / "manifest.jsonl"))
    assert result["top1"] == json.loads((trained.workdir / "test.json").read_text())["top1"]
