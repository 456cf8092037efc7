"""The table of networks against the constructors, the layouts and README."""

import inspect
import pkgutil
import re

import pytest
from conftest import ROOT

from jax_video import networks
from jax_video.data import pipeline
from jax_video.errors import UserError
from jax_video.weights import names

SHARED = {"num_classes", "norm", "dtype", "rngs"}  # keywords of every network, which no config says
FACTORIES = {"units", "unit", "transition", "stem_in_time"}  # keywords by which one network is made of another's
FAMILIES = [networks.RESNET3D, networks.STC, networks.DENSENET3D, networks.T3D, networks.RESNET, networks.C2D]
FAMILIES += [networks.STREAM, networks.ST_RESNET, networks.find("inception3d"), networks.find("c3d")]


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
    with pytest.raises(UserError, match="there is no network 'resnet'; choose one of resnet3d10, .*, c3d$"):
        networks.find("resnet")


def test_readme_lists_them_in_order():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| network ") :]
    assert re.findall(r"^\| (\w+) +\|", table[: table.index("\n\n")], re.MULTILINE)[1:] == list(networks.NETWORKS)
