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
FAMILIES = [networks.RESNET3D, networks.STC, networks.DENSENET3D, networks.T3D, networks.RESNET, networks.C2D]
FAMILIES += [networks.STREAM, networks.ST_RESNET, networks.find("inception3d"), networks.find("c3d")]


def signature(constructor):
    """{keyword: default} of a constructor."""
    parameters = inspect.signature(pkgutil.resolve_name(constructor).__init__).parameters.items()
    keywords = {name: each.default for name, each in parameters if each.kind is each.KEYWORD_ONLY}
    return {name: default for name, default in keywords.items() if name not in SHARED}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.constructor)
def test_a_family_has_its_constructors_keywords_and_defaults(family):
    assert list(family.keywords.items()) == list(signature(family.constructor).items())


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_record_names_what_there_is(name):
    network = networks.find(name)
    assert set(network.keywords) == set(signature(network.constructor)), "in a network as in its family"
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
