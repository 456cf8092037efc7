"""Runs whose config an earlier version has saved can be used and gone on with, as can recipes of that time."""

import contextlib
import dataclasses
import importlib
import json
import pathlib
import shutil
import zlib

import jax
import pytest
import tiny
from commands import TinyRun, check_user_error, run, tiny_run
from conftest import ROOT
from ml_collections import ConfigDict

from jax_video import checkpoint, models, networks, saved
from jax_video import recipe as recipe_lib
from jax_video import train as train_lib
from jax_video.data.manifest import Manifest
from jax_video.errors import CheckpointError, UserError
from jax_video.meta import Meta, check_network, check_same_run
from jax_video.run import load
from jax_video.testing import averages, results

RECIPES = [
    *(f"{path.stem}:" for path in sorted((ROOT / "configs").glob("*.py"))),
    "cost:imagenet=w.pth",
    "st_resnet:phase=joint,appearance=a,motion=m",
    "t3d:consensus=true",
    "transfer:clips=4",
]
LATER = [(section, key) for section, keys in saved.KEYS.items() for key in keys if keys[key].before is not saved.ALWAYS]
FIRST = json.loads((ROOT / "tests/configs_0.1.json").read_text())  # what version 0.1.0 made of these


def recipe(text: str) -> ConfigDict:
    name, _, argument = text.partition(":")
    return importlib.import_module(f"configs.{name}").get_config(argument)


def without(config: dict, keys: list[tuple[str, str]]) -> dict:
    """As a version wrote it that did not have these keys; nor sections of which none is left."""
    sections = {
        name: {key: entry for key, entry in value.items() if (name, key) not in keys} if name in saved.KEYS else value
        for name, value in config.items()
    }
    return {name: value for name, value in sections.items() if value != {}}


def in_old_names(config: dict) -> dict:
    """As versions up to 0.1.0 wrote it."""
    train = dict(config["train"])
    micro_batch = train.pop("micro_batch")
    train["accumulate"] = 1 if micro_batch is None else train["batch"] // micro_batch
    sections = {"train": train}
    for section, old, new in (("test", "average", "average_clips"), ("normalize", "deviation", "std")):
        if section in config:
            sections[section] = {old if key == new else key: value for key, value in config[section].items()}
    return config | sections


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TinyRun:
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def old(trained, tmp_path) -> TinyRun:
    """The run as the first version would have saved it."""
    shutil.copytree(trained.workdir, tmp_path / "run")
    rewrite(tmp_path / "run", lambda config: in_old_names(without(config, LATER)))
    path = tmp_path / "run" / "test.json"
    result = json.loads(path.read_text())
    sections = without({"test": result["protocol"], "clip": result["clip"]}, LATER)
    sections["test"]["average"] = sections["test"].pop("average_clips")
    path.write_text(json.dumps(result | {"protocol": sections["test"], "clip": sections["clip"]}))
    return dataclasses.replace(trained, workdir=tmp_path / "run")


def rewrite(workdir: pathlib.Path, change) -> None:
    """Changes the config in every checkpoint."""
    for path in workdir.glob("checkpoints/*/meta/metadata"):
        content = json.loads(path.read_text())["content"]
        content["config"] = change(content["config"])
        crc = zlib.crc32(json.dumps(content, sort_keys=True).encode())
        path.write_text(json.dumps({"content": content, "crc32": crc}))


def main(tiny: TinyRun, *arguments: str):
    return run("jax_video.main", *tiny.arguments, f"--workdir={tiny.workdir}", *arguments)


@pytest.mark.parametrize("text", RECIPES)
def test_every_key_says_what_versions_before_it_did(text):
    """Who adds a key to a recipe enters it, with that value, in saved.KEYS."""
    assert saved.unknown(recipe(text).to_dict()) == []


@pytest.mark.parametrize("text", RECIPES)
def test_what_is_lacking_is_filled_in_and_nothing_else(text):
    config = recipe(text)
    full = saved.complete(config.to_dict())
    assert saved.complete(full) == full
    for section, key in LATER:
        value = full[section].get(key) if section in full else None
        filled = saved.complete(without(full, [(section, key)]))
        expected = full | {section: full[section] | {key: saved.KEYS[section][key].before}}
        if (section, key) != ("train", "steps"):  # in place of which there are the epochs
            assert filled == expected, (section, key, value)
    assert saved.complete_recipe(config) is config
    bare = ConfigDict(without(config.to_dict(), LATER))
    given = saved.complete_recipe(bare)
    assert saved.complete(given.to_dict()) == saved.complete(bare.to_dict()) and given.clip == bare.clip
    assert "init_from" not in bare and given.init_from.path is None and saved.complete_recipe(given) is given


@pytest.mark.parametrize("text", FIRST)
def test_recipes_make_the_runs_that_they_made_before_keys_were_renamed(text):
    """With the arguments' old names and with the new: a run that was begun then can be gone on with."""
    data = Manifest("x", ("a",), "/", ())
    data.__dict__["hash"] = "m"
    meta = Meta(saved.complete(FIRST[text]), ("a",), "m")
    flip = FIRST[text]["data"]["manifest"] != "motions"  # whose manifest says so now
    for given in {text, text.replace("hold=", "micro_batch=")}:
        config = json.loads(json.dumps(recipe_lib.resolve(recipe(given), flip=flip).to_dict()))
        if text.startswith("transfer") and "weights=" in text:
            assert config["optimizer"].pop("head_rate") == 0.1, "at 1, as it was, such a run diverged"
            config["optimizer"]["head_rate"] = 1.0
        check_same_run(meta, config, data, pathlib.Path("run"), 1)
        check_network(meta, config, pathlib.Path("run"))
        assert config["model"].pop("remat") is False, "which came later"
        assert json.dumps(saved.complete(config), sort_keys=True) == json.dumps(meta.config, sort_keys=True)


def test_old_names_and_values():
    found = saved.complete(FIRST["t3d:consensus=true,hold=16"])
    assert (found["train"]["micro_batch"], found["norm"]["group_size"]) == (16, 80)
    assert found["normalize"]["std"] == [58.395, 57.12, 57.375] and "deviation" not in found["normalize"]
    assert found["test"]["average_clips"] == "probability" and "average" not in found["test"]
    joint = saved.complete(FIRST["st_resnet:phase=joint,appearance=A,motion=M"])
    assert (joint["init_from"]["path"], joint["init_from"]["into"]) == (("A", "M"), ("appearance", "motion"))
    assert (joint["train"]["steps"], joint["train"]["epochs"], joint["data"]["workers"]) == (80_000, None, None)
    with pytest.raises(UserError, match="train.accumulate is 3, which does not divide train.batch=128"):
        saved.complete({"train": {"batch": 128, "accumulate": 3}})


def test_a_recipe_of_that_time_can_be_given():
    """Copied, and changed: its keys have their old names, and can be set by both."""
    text = "st_resnet:phase=joint,appearance=A,motion=M"
    config = saved.complete_recipe(ConfigDict(FIRST[text]))
    assert config.train.micro_batch == 16 and config.test.average_clips == "logit"
    config.lock().init_from.path = ("B", "C")
    config.train.update(steps=None, epochs=3)
    with pytest.raises(TypeError):
        config.train.steps = "many"
    resolved = recipe_lib.resolve(config)
    assert resolved.init_from.path == ("B", "C")
    again = recipe_lib.resolve(ConfigDict(json.loads(json.dumps(resolved.to_dict()))))  # as a run's folder gives it
    assert json.dumps(again.to_dict()) == json.dumps(resolved.to_dict())


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_networks_are_built_with_their_defaults(name):
    """So a keyword that came later may be left out of a saved config, or be there."""
    given = models.defaults(name)
    assert given["consensus"] is False and "num_classes" not in given and json.dumps(given)


@pytest.mark.parametrize("keys", [LATER, *([each] for each in LATER)])
def test_it_is_the_same_run_whatever_its_version_lacked(keys):
    config = tiny.get_config().to_dict()
    meta = Meta(saved.complete(without(json.loads(json.dumps(config)), keys)), ("a",), "m")
    data = Manifest("x", ("a",), "/", ())
    data.__dict__["hash"] = "m"
    check_same_run(meta, config, data, pathlib.Path("run"), 1)
    meta.config["model"].pop("preactivation")  # of False, as is the network's own default
    check_same_run(meta, config, data, pathlib.Path("run"), 1)
    check_network(meta, config, pathlib.Path("run"))
    with pytest.raises(CheckpointError, match="optimizer.clip_norm: 0.0 -> 4.0"):
        config["optimizer"]["clip_norm"] = 4.0
        check_same_run(meta, config, data, pathlib.Path("run"), 1)


def test_it_predicts_is_tested_and_goes_on(trained, old):
    again = main(old)
    assert again.code == 0 and "is finished." in again.stdout, again.stderr
    assert again.stdout.splitlines()[1:5] == trained.finished.stdout.splitlines()[:4]
    tested = json.loads((trained.workdir / "test.json").read_text())
    averages.summarise({"old": json.loads((old.workdir / "test.json").read_text()), "new": tested})
    assert main(old, "--mode=test").code == 0
    assert json.loads((old.workdir / "test.json").read_text()) == tested

    video = next((old.data / "test").rglob("*.mp4"))
    said = [
        run("jax_video.predict", video, f"--checkpoint={workdir}").stdout for workdir in (old.workdir, trained.workdir)
    ]
    assert said[0] == said[1] != ""

    shutil.rmtree(old.workdir / "checkpoints" / "4")
    (old.workdir / "test.json").unlink()
    on = main(old)
    assert on.code == 0 and "Going on from step 3" in on.stderr, on.stderr
    assert json.loads((old.workdir / "test.json").read_text()) == tested


def test_a_config_of_the_first_version_can_be_given(old):
    """As config.json holds it, or a recipe that was copied then."""
    config = ConfigDict(in_old_names(without(tiny.get_config().to_dict(), LATER)))
    config.train.epochs = 2
    manifest, mesh = Manifest.read(old.data / "manifest.jsonl"), jax.sharding.Mesh(jax.devices()[:1], ("batch",))
    result = results.test(load(old.workdir, config=config, mesh=mesh), manifest)
    assert result["protocol"]["crop"] == "center"
    assert results.read_result(load(old.workdir, config=config, mesh=mesh), manifest) == result
    assert not train_lib.train(config, manifest, old.workdir, mesh), "it is finished"


def test_a_key_that_no_version_knows_is_said(old, capsys):
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("batch",))

    def read():
        with contextlib.closing(checkpoint.Checkpoints(old.workdir, mesh, read_only=True)) as checkpoints:
            return checkpoints.best_meta()

    rewrite(old.workdir, lambda config: config | {"lab": {"note": 1}, "train": config["train"] | {"smoothing": 0.1}})
    read(), read()
    assert capsys.readouterr().err.count("was saved with train.smoothing, lab in its config, not known to version") == 1
    config, manifest = tiny.get_config(), Manifest.read(old.data / "manifest.jsonl")
    config.train.epochs = 2
    assert not train_lib.train(config, manifest, old.workdir, mesh), "it goes on, and is finished"
    assert results.test(load(old.workdir, mesh=mesh), manifest)["videos"] == 8
    rewrite(old.workdir, lambda config: config | {"clip": config["clip"] | {"reverse": True}})
    with pytest.raises(CheckpointError, match="clip.reverse.*compute something else"):
        read()
    check_user_error(run("jax_video.predict", __file__, f"--checkpoint={old.workdir}"), "clip.reverse")
    rewrite(
        old.workdir,
        lambda config: without(config, [("clip", "reverse")]) | {"model": config["model"] | {"turns": 3}},
    )
    check_user_error(run("jax_video.predict", __file__, f"--checkpoint={old.workdir}"), "no keyword turns")


def test_a_run_may_go_on_with_activations_computed_twice():
    data = Manifest("x", ("a",), "/", ())
    data.__dict__["hash"] = "m"
    config = recipe_lib.resolve(recipe("stc:data=DIR"), flip=True).to_dict()
    meta = Meta(saved.complete(json.loads(json.dumps(config))), ("a",), "m")
    config["model"]["remat"] = True
    check_same_run(meta, config, data, pathlib.Path("run"), 1)
    check_network(meta, config, pathlib.Path("run"))
    config["model"]["stem"] = "table1"
    with pytest.raises(UserError, match="model.stem: hara -> table1"):
        check_network(meta, config, pathlib.Path("run"))
