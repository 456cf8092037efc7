"""The table of networks against the constructors and the layouts; and a network that is not in it."""

import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from absl import flags
from conftest import ROOT
from flax import nnx
from ml_collections import ConfigDict

import jax_video
from jax_video import models, networks, optimizer, train
from jax_video import state as state_lib
from jax_video.data import pipeline
from jax_video.data.sources import motions
from jax_video.errors import UserError
from jax_video.models import __main__ as command
from jax_video.models.layers import BatchNorm, Linear, looking_inside
from jax_video.testing import results
from jax_video.weights import names

SHARED = {"num_classes", "norm", "dtype", "rngs"}  # keywords of every network, which no config says
FACTORIES = {"units", "unit", "transition", "stem_in_time"}  # keywords by which one network is made of another's
FAMILIES = [networks.RESNET3D, networks.STC, networks.DENSENET3D, networks.T3D, networks.RESNET, networks.C2D]
FAMILIES += [networks.STREAM, networks.ST_RESNET, networks.find("inception3d"), networks.find("c3d")]
FAMILIES += [networks.VIDEO_RESNET]


def signature(constructor):
    """{keyword: default} of a constructor and of those that it hands further keywords to."""
    found = {}
    for kind in pkgutil.resolve_name(constructor).__mro__:
        for name, each in inspect.signature(kind.__init__).parameters.items():
            if each.kind is each.KEYWORD_ONLY and name not in SHARED:
                found.setdefault(name, each.default)
    parts = {networks.ST_RESNET.constructor: networks.STREAM.constructor}  # what is built of others, not on others
    return signature(parts[constructor]) | found if constructor in parts else found


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.constructor)
def test_a_family_has_its_constructors_defaults(family):
    defaults = signature(family.constructor)
    assert family.keywords == {name: defaults[name] for name in family.keywords}
    own = inspect.signature(pkgutil.resolve_name(family.constructor).__init__).parameters.values()
    told = {each.name for each in own if each.kind is each.KEYWORD_ONLY} - SHARED - FACTORIES
    assert told <= set(family.keywords), "every keyword of its own can be said in a config"


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_record_names_what_there_is(name):
    network = networks.find(name)
    assert (ROOT / "configs" / f"{network.recipe}.py").is_file()
    assert set(network.layouts) < set(names.LAYOUTS)
    assert all(set(keywords) <= set(network.keywords) for keywords in network.layouts.values())
    assert set(network.bound) <= set(network.keywords) and (not network.stems or "frames" in network.keywords)
    assert bool(network.stages) == ("layers" in network.keywords)


def test_the_channels_are_those_that_the_pipeline_gives():
    assert networks.CHANNELS == pipeline.CHANNELS


def test_a_network_is_told_of_its_clip_as_far_as_it_is_bound_to_it():
    def keywords(name):
        return networks.find(name).clip_keywords

    assert keywords("stc_resnet18")(24, 96) == {"frames": 24}
    assert keywords("c3d")(24, 96) == {"frames": 24, "size": 96}
    assert keywords("cost_b_resnet50")(32, 224) == {"frames": 32}
    assert keywords("cost_b_resnet50")(16, 224) == keywords("resnet3d18")(32, 224) == {}


def test_an_unknown_name_is_answered_with_the_names():
    with pytest.raises(UserError, match="no network 'resnet'; choose one of resnet3d10, .*, c3d; one of your own"):
        networks.find("resnet")


class Colours(nnx.Module):
    """A classifier of a video's mean colour, with a hidden layer."""

    def __init__(self, *, num_classes, hidden=8, norm=BatchNorm, dtype=jnp.float32, rngs):
        self.fc1 = Linear(3, hidden, dtype=dtype, rngs=rngs)
        self.bn1 = norm(hidden, dtype=dtype, rngs=rngs)
        self.fc = Linear(hidden, num_classes, dtype=dtype, rngs=rngs)

    def features(self, video):
        return nnx.relu(self.bn1(self.fc1(video.mean((1, 2, 3), keepdims=True))))

    def __call__(self, video, *, keys=None):
        return self.fc(self.features(video).mean((1, 2, 3)))


@pytest.fixture
def colours(monkeypatch):
    """All that a new network takes is its class and this."""
    record = networks.Network(f"{__name__}:Colours", {"hidden": 8}, frames=4, size=16)
    monkeypatch.setitem(networks.NETWORKS, "colours", record)


@pytest.mark.usefixtures("colours")
def test_a_new_network_is_built_by_name():
    assert models.build("colours", num_classes=3, rngs=nnx.Rngs(0), hidden=5).fc.kernel.shape == (5, 3)
    assert models.defaults("colours") == {"hidden": 8, "consensus": False}
    with pytest.raises(UserError, match="colours has no keyword width; it has num_classes, hidden, norm, dtype, rngs"):
        models.build("colours", num_classes=3, rngs=nnx.Rngs(0), width=0.5)
    with pytest.raises(UserError, match="no network 'colour'; choose one of resnet3d10, .*, colours; one of your own"):
        models.build("colour", num_classes=3, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("record", "modules"),
    [
        (networks.Network(f"{__name__}:Colours", head="logits"), "fc1, bn1, fc"),
        (networks.find("two_streams").but(head="logits", keywords={"width": 1 / 16}), "conv1, bn1, .*, fc"),
    ],
)
def test_a_classifier_that_is_not_where_its_record_says(record, modules, monkeypatch):
    """Or new_head would keep it, and head_rate do nothing."""
    monkeypatch.setitem(networks.NETWORKS, "mine", record)
    with pytest.raises(UserError, match=f"mine calls its classifier 'logits', .* none of its modules, {modules}: say"):
        nnx.eval_shape(lambda: models.build("mine", num_classes=3, rngs=nnx.Rngs(0)))


def test_a_class_without_a_record_is_no_network(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "colours", Colours)
    with pytest.raises(UserError, match=r"NETWORKS\['colours'\] is <class .*Colours'>: expected a jax_video.Network"):
        networks.find("colours")


@pytest.fixture
def flags_of_the_command():
    """Its flags, which only the command itself defines."""
    others = set(flags.FLAGS)
    command.define_flags()
    yield flags.FLAGS
    for name in set(flags.FLAGS) - others:
        delattr(flags.FLAGS, name)


@pytest.mark.usefixtures("colours")
def test_a_new_network_is_listed(flags_of_the_command, monkeypatch, capsys):
    monkeypatch.setattr(networks, "NETWORKS", {"colours": networks.find("colours")})  # the others take a minute
    command.main([])
    name, parameters, _, clip = capsys.readouterr().out.splitlines()[-1].strip("| ").split("|")
    assert (name.strip(), clip.strip()) == ("colours", "4×16×16")
    assert int(parameters.replace(",", "")) == 3 * 8 + 8 + 2 * 8 + 8 * 400 + 400


RECIPE = """
from flax import nnx
from jax_video import NETWORKS, Network, read_recipe


class Mine(nnx.Module):
    def __init__(self, *, num_classes, width, norm, dtype, rngs):
        self.conv = nnx.Conv(3, width, (3, 3, 3), strides=2, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(width, dtype=dtype, rngs=rngs)
        self.fc = nnx.Linear(width, num_classes, rngs=rngs)

    def features(self, video):
        return nnx.relu(self.norm(self.conv(video)))

    def __call__(self, video, *, keys=None):
        return self.fc(self.features(video).mean((1, 2, 3)))


NETWORKS["mine"] = Network(Mine, {"width": 2}, frames=4, size=16)


def get_config(argument=""):
    config = read_recipe("stc:recipe=small,frames=4,epochs=1")
    del config.model
    config.model = {"name": "mine", "width": 3}
    config.clip.update(short_side=16, size=16)
    return config
"""


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_for_videos_marks_stages_to_explain(name):
    record, marked = networks.find(name), []
    if not record.recipe:
        return  # a teacher
    config = ConfigDict({"seed": 0, "dtype": "float32", "norm": {}, "train": {}, "model": {"name": name}})
    config.norm = ConfigDict({"group_size": None, "frozen": False})
    layers = (2, 1, 1, 1) if record.recipe == "st_resnet" else (1,) * record.stages
    small = {"width": 1 / 16, "layers": layers} if record.stages else {"width": 1 / 16}
    config.model.update({key: value for key, value in small.items() if key in record.keywords})
    config.model.update(record.clip_keywords(record.frames, record.size))
    definition, *trees = state_lib.abstract(config, 2)
    clip = (1, record.frames, record.size, record.size)
    streams = [jax.ShapeDtypeStruct((*clip, networks.CHANNELS[each]), np.float32) for each in record.streams]

    def look(params, batch_stats, *streams):
        with looking_inside(lambda stage, x: marked.append(stage) or x):
            return state_lib.join(definition, params, batch_stats, train=False)(*streams)

    jax.eval_shape(look, *trees, *streams)
    assert marked


@pytest.mark.usefixtures("one_device")
def test_a_network_of_ones_own_is_trained_and_used(tmp_path, monkeypatch, capsys):
    """Of layers of Flax alone, put into the table by a recipe, through public names."""
    copy = dict(networks.NETWORKS)
    monkeypatch.setattr(jax_video, "NETWORKS", copy)  # first, as it takes the other's where it is asked first
    monkeypatch.setattr(networks, "NETWORKS", copy)
    (tmp_path / "mine.py").write_text(RECIPE, encoding="utf-8")
    config = jax_video.read_recipe(str(tmp_path / "mine.py"))
    data = jax_video.read_manifest(motions.make(tmp_path, train=16, val=8, test=8, frames=8, width=20, height=16))
    result, _ = jax_video.train_and_test(config, data, tmp_path / "run")
    assert result["videos"] == 8 and (tmp_path / "run" / "report.html").exists()
    assert "The report failed" not in capsys.readouterr().err

    report = results.report(result, data, tmp_path / "run", network="mine")
    assert "once 'mine' is in jax_video.NETWORKS: jax_video.load(" in report and "jax_video.predict" not in report

    run = jax_video.load(tmp_path / "run")
    assert [*run.weights["batch_stats"]["norm"]] == ["mean", "var"]
    assert float(abs(run.weights["batch_stats"]["norm"]["mean"]).max()) > 0, "its own statistics are counted"
    video = f"{data.root}/{data.videos[0].path}"
    assert set(run.classify(video, timeout=None)) == set(data.classes)
    assert run.features(video, timeout=None).shape == (3,)
    with pytest.raises(UserError, match="marks no stage to explain; in its code, jax_video.models.layers.output"):
        run.explain(video, timeout=None)

    del networks.NETWORKS["mine"]
    with pytest.raises(UserError, match="no network 'mine'; .*; one of your own has to be put into jax_video.NETWORKS"):
        jax_video.load(tmp_path / "run")


@pytest.mark.usefixtures("colours")
def test_a_new_network_trains():
    config = tiny.get_config()
    config.model = ConfigDict({"name": "colours", "hidden": 8})
    definition, _, _ = state_lib.abstract(config, 2)
    tx, mesh = optimizer.make(0.1), jax.make_mesh((1,), ("batch",), devices=jax.devices()[:1])
    step = train.make_train_step(definition, tx, mesh)
    label = np.arange(8, dtype=np.int32) % 2
    batch = {
        "rgb": np.broadcast_to(200 * label[:, None, None, None, None].astype(np.uint8), (8, 4, 16, 16, 3)),
        "label": label,
        "video": np.arange(8, dtype=np.int32),
        "mask": np.ones(8, np.float32),
        "failed": np.zeros(8, np.int32),
    }
    state, losses = state_lib.create(state_lib.network(config, 2), tx), []
    for _ in range(10):
        state, sums = step(state, batch, jax.random.key(0))
        losses.append(float(sums["loss"]) / 8)
    assert losses[-1] < 0.1 < losses[0]
