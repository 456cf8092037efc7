"""The flag --config: recipes by name and as files, from any folder; old names; and what --print_config says."""

import json
import pathlib
import re
import sys

import pytest
from absl import flags
from commands import check_user_error, run
from conftest import ROOT

import jax_video
from jax_video import config_flag, recipe, saved
from jax_video.data.sources import motions
from jax_video.errors import UserError

MAIN = "jax_video.main"
OWN = '''"""A recipe of one's own.

    python -m jax_video.main --config=own.py
"""

from ml_collections import ConfigDict

from jax_video import recipe

ARGUMENTS = {"data": "motions", "rate": 0.05, "frames": 4, "epochs": int}


def get_config(argument: str = "") -> ConfigDict:
    given = recipe.arguments(argument, **ARGUMENTS)
    return recipe.config(
        dtype="float32",
        model={"name": "resnet18", "width": 1 / 16, "layers": (1, 1, 1, 1)},
        clip={"frames": given.frames, "stride": 8 // given.frames, "short_side": 32, "size": 32, "crop": "random",
              "flip": False},
        data={"manifest": given.data, "workers": 0},
        train={"batch": 8, "epochs": given.epochs or 1, "log_steps": 1},
        optimizer={"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "decay_norm": True},
        schedule={"kind": "cosine", "learning_rate": given.rate},
        test={"clips": "uniform", "number": 1, "average_clips": "probability"},
    )
'''


@pytest.fixture
def own(tmp_path):
    """A folder with a recipe of its own, `own.py`."""
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """What a command line makes, in a folder without recipes: {key: (value, where it comes from)}."""

    def parse(*arguments: str) -> dict[str, tuple[str, str]]:
        with monkeypatch.context() as patch:
            patch.setattr(flags, "FLAGS", flags.FlagValues())
            patch.setattr(sys, "argv", ["main", *arguments])
            patch.chdir(tmp_path)
            config_flag.define("A recipe.")
            flags.FLAGS(sys.argv)
            return table(config_flag.describe())

    recipe.note.cache_clear()
    return parse


def table(text: str) -> dict[str, tuple[str, str]]:
    head, *lines = text.splitlines()
    assert head.startswith("# ")
    return {key: (value, origin) for key, value, origin in (re.split(r" += | +# ", line) for line in lines)}


def test_a_recipe_of_ones_own_is_one_file(own, tmp_path):
    """In a folder of its own; it trains, by its arguments and by flags."""
    data = motions.make(tmp_path, train=8, val=0, test=0, frames=8, width=40, height=32).parent
    finished = run(MAIN, "--config=own.py:epochs=2", f"--config.data.manifest={data}", "--workdir=run", cwd=own)
    assert finished.code == 0 and finished.stdout.startswith("Trained; 'motions' has no test videos"), finished.stderr
    assert "step 2/2  train" in finished.stderr
    assert json.loads((own / "run/config.json").read_text())["train"]["micro_batch"] is None


def test_recipes_go_by_their_names_from_any_folder(shown, tmp_path):
    printed = run(MAIN, "--config", "stc:model=stc_resnet101,data=DIR", "--print_config", cwd=tmp_path)
    assert (printed.code, printed.stderr) == (0, "")
    by_name = table(printed.stdout)
    assert by_name == shown(f"--config={ROOT}/configs/stc.py:model=stc_resnet101,data=DIR")
    assert by_name["model.name"] == ("'stc_resnet101'", "argument model=stc_resnet101")
    assert not (tmp_path / "runs").exists()


def test_what_is_written_down_can_be_given(monkeypatch):
    """Every --config of README, of recorded results, and of the docstrings of recipes and commands."""
    paths = ["README.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md", "jax_video/main.py", "jax_video/convert.py"]
    paths += [f"configs/{name}.py" for name in config_flag.recipes()]
    text = "\n".join((ROOT / path).read_text(encoding="utf-8") for path in paths)
    known = "|".join(config_flag.recipes())
    given = set(re.findall(rf"--config=((?:(?:{known})\b|configs/\w+\.py)(?::[\w=.,:/$]*\w)?)", text))
    assert len(given) > 15
    monkeypatch.chdir(ROOT)
    for string in given:
        assert config_flag.load(string.replace("phase=$1", "phase=motion")).model.name, string


@pytest.mark.parametrize("name", config_flag.recipes())
def test_a_copied_recipe_is_the_same(name, tmp_path):
    copy = tmp_path / "mine.py"
    copy.write_bytes((ROOT / "configs" / f"{name}.py").read_bytes())
    assert config_flag.load(f"{copy}").to_dict() == config_flag.load(name).to_dict()


def test_where_values_come_from(shown, own):
    found = shown(
        "--config=own.py:rate=0.02,frames=4",
        *("--config.train.micro_batch=5", "--config.clip.flip=True", "--config.clip.frames", "2"),
    )
    assert found["optimizer.momentum"] == ("0.9", "recipe")
    assert found["schedule.learning_rate"] == ("0.02", "argument rate=0.02")
    assert found["clip.flip"] == ("True", "--config.clip.flip")
    assert found["clip.stride"] == ("4", "--config.clip.frames"), "which is the argument of that name"
    assert found["norm.group_size"] == ("4", "derived")
    assert found["train.micro_batch"] == ("4", "derived, from 5 by --config.train.micro_batch")
    assert set(found) == {
        key if section in saved.VALUES else f"{section}.{key}"
        for section, values in recipe.resolve(config_flag.load(f"{own}/own.py")).to_dict().items()
        for key in (values if isinstance(values, dict) else [section])
    }


DROPS = ("schedule.drop_epochs", "schedule.drop_steps")


@pytest.mark.parametrize(
    ("argument", "flag", "keys"),
    [
        ("stc:frames=32", "--config.clip.frames=32", ("clip.frames", "model.frames")),
        ("cost:frames=32", "--config.clip.frames=32", ("clip.frames", "clip.stride", "model.frames")),
        ("t3d:size=112", "--config.clip.size=112", ("clip.size", "clip.short_side")),
        ("transfer:size=224", "--config.clip.size=224", ("clip.size", "clip.short_side")),
        ("stc:stride=4", "--config.clip.stride=4", ("clip.stride",)),
        ("st_resnet:epochs=3", "--config.train.epochs=3", (*DROPS, "train.epochs", "train.steps")),
        ("stc:micro_batch=4", "--config.train.micro_batch=4", ("train.micro_batch", "norm.group_size")),
    ],
)
def test_an_argument_and_a_key_of_its_name_are_the_same(shown, argument, flag, keys, tmp_path):
    name = argument.partition(":")[0]
    plain, by_argument, by_key = (
        {key: value for key, (value, _) in shown(*given).items()}
        for given in ([f"--config={name}"], [f"--config={argument}"], [f"--config={name}", flag])
    )
    assert by_argument == by_key
    (tmp_path / "flags").write_text(f"{flag}\n")
    filed = shown(f"--config={name}", f"--flagfile={tmp_path / 'flags'}")
    assert {key: value for key, (value, _) in filed.items()} == by_key, "also from a file of flags"
    assert {key for key in plain if plain[key] != by_key[key]} == set(keys)


def test_steps_or_epochs_give_way_to_what_is_set(shown, capsys):
    recipe.note.cache_clear()
    by_steps, by_epochs = (
        shown("--config=stc", "--config.train.steps=9"),
        shown("--config=cost", "--config.train.epochs=3"),
    )
    assert by_steps["train.steps"][0] == "9" and by_steps["train.epochs"] == ("None", "--config.train.steps")
    assert by_epochs["train.epochs"][0] == "3" and by_epochs["train.steps"] == ("None", "--config.train.epochs")
    assert shown("--config=stc", "--config.train.steps=0")["train.epochs"][0] == "10", "as none was written earlier"
    assert not capsys.readouterr().err


def test_every_keyword_of_a_network_can_be_set(shown):
    """Also one that the recipe does not name; and only what is set becomes a part of the config."""
    before = shown("--config=cost")
    given = ("--config.model.stride_on=1x1", "--config.model.stem_width=48", "--config.model.layers=(1,2,1,1)")
    found = shown("--config=cost", *given)
    assert {key: value for key, value in found.items() if key not in before} == {
        "model.stride_on": ("'1x1'", "--config.model.stride_on"),
        "model.stem_width": ("48", "--config.model.stem_width"),
        "model.layers": ("(1, 2, 1, 1)", "--config.model.layers"),
    }
    assert {key: found[key] for key in before} == before
    assert shown("--config=transfer", "--config.teacher.dropout=0.25")["teacher.dropout"][0] == "0.25"
    with pytest.raises(AttributeError):
        shown("--config=stc", "--config.model.stride_on=1x1")  # which 3D-ResNets do not have


@pytest.fixture
def given(monkeypatch):
    """A command line, as a command reads it."""

    def give(*arguments: str) -> None:
        monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
        monkeypatch.setattr(sys, "argv", ["convert", *arguments])
        config_flag.define("A recipe.")
        flags.FLAGS(sys.argv)

    return give


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--config=cost:model=c2d_resnet50"], set()),
        (["--config=cost:model=c2d_resnet50,recipe=paper"], set()),
        (["--config=cost:model=c2d_resnet50,span=128"], {"clip.stride"}),
        (["--config=t3d:model=inception3d,size=112"], {"clip.size", "clip.short_side"}),
        (["--config=stc:model=stc_resnet50,branches=tcb"], {"model.branches"}),
        (["--config=stc", "--config.test.number=3"], {"test.number"}),
    ],
)
def test_what_the_user_has_set_is_all_that_follows_from_it(given, arguments, chosen):
    given(*arguments)
    assert config_flag.chosen() == chosen


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--config=stc:model=resnet3d50,recipe=paper"], False),  # motions, by itself
        (["--config=stc:data=motions"], True),
        (["--config=stc", "--config.data.manifest=motions"], True),
    ],
)
def test_whether_the_user_has_named_the_data_set(given, arguments, named):
    given(*arguments)
    config, _ = config_flag.read()
    assert config.data.manifest == "motions" and ("data.manifest" in config_flag.chosen()) == named


def test_names_of_earlier_versions(shown, capsys):
    new = ("--config=stc:data=DIR", "--config.train.micro_batch=32", "--config.norm.group_size=8")
    new += ("--config.test.average_clips=logit", "--config.normalize.std=(1.0, 2.0, 3.0)")
    old = ("--config=stc:data=DIR", "--config.train.accumulate=4", "--config.norm.group_size=8")
    old += ("--config.test.average=logit", "--config.normalize.deviation=(1.0, 2.0, 3.0)")
    assert shown(*old) == shown(*new)
    assert capsys.readouterr().err.splitlines() == [
        "--config.train.accumulate is now --config.train.micro_batch=32",
        "--config.test.average is now --config.test.average_clips=logit",
        "--config.normalize.deviation is now --config.normalize.std=(1.0, 2.0, 3.0)",
    ]
    assert shown("--config=stc:data=DIR,hold=32")["train.micro_batch"] == ("32", "argument hold=32")
    assert capsys.readouterr().err == "The argument hold is called micro_batch now.\n"


def test_several_paths_on_the_command_line(shown):
    given = "--config=st_resnet:phase=joint,appearance=A,motion=M"
    assert shown(given)["init_from.path"][0] == "('A', 'M')"
    found = shown(given, "--config.init_from.path=/runs/a,/runs/b")
    assert found["init_from.path"][0] == "('/runs/a', '/runs/b')"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own", "there is no recipe 'own'. There are .* A file of your own is --config=own.py."),
        ("empty.py", "empty.py is no recipe: it has no function get_config"),
        ("old.py", "old.py cannot be imported.* Recipes import jax_video.recipe in place of configs.common"),
        ("wrong.py", "get_config of wrong.py gives a dict, no ConfigDict"),
        ("value.py", "value.py is no recipe: it has no function get_config"),
        ("syntax.py", r"syntax.py is no Python file, as a recipe is: .*\(syntax.py, line 2\)"),
        ("bytes.py", "bytes.py is no Python file, as a recipe is: "),
        ("raises.py", "raises.py fails in line 3: ZeroDivisionError: division by zero"),
        ("later.py", "get_config of later.py fails in line 2: KeyError: 'a'"),
        ("part.py", "get_config of part.py gives a config without model, norm, train: jax_video.recipe.config makes"),
    ],
)
def test_what_is_no_recipe(name, expected, own, monkeypatch):
    (own / "empty.py").write_text("")
    (own / "old.py").write_text("from configs import common\n")
    (own / "wrong.py").write_text("def get_config(): return {}\n")
    (own / "value.py").write_text("get_config = 3\n")
    (own / "syntax.py").write_text("a = 1\ndef get_config(:\n")
    (own / "bytes.py").write_bytes(b"\xff\x00")
    (own / "raises.py").write_text("def get_config(): pass\n\n1 / 0\n")
    (own / "later.py").write_text("def get_config():\n    return {}['a']\n")
    (own / "part.py").write_text("import ml_collections\ndef get_config(): return ml_collections.ConfigDict()\n")
    monkeypatch.chdir(own)
    with pytest.raises(flags.Error, match=expected):
        config_flag.load(name)


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "recipes").mkdir()
    expected = "--config: 'recipes' is a folder; a recipe is a name or a Python file: for example --config="
    check_user_error(run(MAIN, "--config=recipes", cwd=tmp_path), expected)


def test_an_unknown_name_is_a_users_error(tmp_path):
    expected = "there is no recipe 'stcc'; did you mean stc? There are cost, finetune, st_resnet, stc, t3d, transfer."
    check_user_error(run(MAIN, "--config", "stcc:frames=3", "--config.seed=1", cwd=tmp_path), expected)


def test_a_file_that_is_not_there(monkeypatch, tmp_path):
    """But for configs/stc.py, which is this package's own in any folder, as README and messages name it."""
    monkeypatch.chdir(tmp_path)
    assert config_flag.load("configs/stc.py:frames=32") == config_flag.load("stc:frames=32")
    with pytest.raises(OSError):
        config_flag.load("recipes/stc.py:frames=32")
    assert config_flag.missing("recipes/stc.py:frames=32") == (
        "--config: there is no file 'recipes/stc.py': for example --config=stc, the recipe of this package"
    )
    assert config_flag.missing("mine.py").endswith("'mine.py': for example --config=configs/stc.py")


def test_help_lists_the_recipes():
    lines = run(MAIN, "--help").stdout.splitlines()
    for name in config_flag.recipes():
        (place,) = (place for place, line in enumerate(lines) if line.startswith(f"  {name}: "))
        assert "epochs" in "".join(lines[place : place + 4])
    assert "    model=stc_resnet18, data=motions, frames=16, stride, branches=both, start, epochs" in "\n".join(lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--config=stc:model=resnet3d50", "--config.data.manifest=DIR"],
            "--config=stc:model=resnet3d50,data=DIR is an",
        ),
        (["--config=stc:recipe=small", "--config.data.manifest=DIR"], ""),
        (["--config=cost", "--config.data.manifest=DIR"], ""),
        (["--config=stc:data=DIR"], ""),
    ],
)
def test_a_recipe_that_is_for_another_set_is_spoken_of(given, capsys, arguments, said):
    recipe.note.cache_clear()
    given(*arguments)
    config_flag.note_kept_recipe()
    found = capsys.readouterr().err
    assert said in found and bool(said) == bool(found)


def test_a_recipe_is_read_from_python():
    text = "stc:micro_batch=32,model=stc_resnet50,data=x"
    config = jax_video.read_recipe(text)
    assert config.to_dict() == config_flag.load(text).to_dict()
    config.train.micro_batch = 64
    assert recipe.resolve(config).norm.group_size == 64, "it follows from what is set here"
    assert jax_video.read_recipe(pathlib.Path("configs/stc.py")) == jax_video.read_recipe("stc")
    for text, said in {
        "sct": "did you mean stc",
        "no.py": "there is no file 'no.py'",
        "stc:x=1": "argument 'x=1'",
    }.items():
        with pytest.raises(UserError, match=said):
            jax_video.read_recipe(text)


def test_none_leaves_open_what_may_be_left_open(shown):
    """Whatever the recipe says; any other key needs a value, and says so."""
    rows = {f"{section}.{key}": row for section, keys in saved.KEYS.items() for key, row in keys.items()}
    for name in rows.keys() & shown("--config=stc").keys():
        if rows[name].kind is None:
            with pytest.raises(UserError, match=rf"^--config\.{name}=None: expected a value"):
                shown("--config=stc", f"--config.{name}=None")
        else:
            steps = ["--config.train.steps=9"] * (name == "train.epochs")  # how long has to be said
            value, origin = shown("--config=stc", f"--config.{name}=None", *steps)[name]
            assert origin.startswith(f"--config.{name}" if value == "None" else "derived, from None"), (name, value)
    given = shown("--config=stc:epochs=3", "--config.model.layers=None", "--config.train.freeze=None")
    assert given["model.layers"][0] == given["train.freeze"][0] == "None"
