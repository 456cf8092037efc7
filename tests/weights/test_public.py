"""Public weights by their names: fetched once, checked, gone on with; and what a stranger reads where that fails."""

import dataclasses
import hashlib
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest
import servers
import tiny
import torch
from reference import cost

from jax_video import networks, optimizer, sharding
from jax_video import state as state_lib
from jax_video.errors import UserError
from jax_video.weights import names, public, source, start

NAME = "torchvision:resnet18"


@pytest.fixture
def state_dict():
    """As torchvision has it: 2D kernels, and numbers in shortcuts."""
    torch.manual_seed(0)
    found = cost.build("resnet18", 5, width=1 / 4, layers=(1, 1, 1, 1)).state_dict()
    return {
        name.replace("downsample.conv", "downsample.0").replace("downsample.bn", "downsample.1"): tensor.squeeze(2)
        if tensor.ndim == 5
        else tensor
        for name, tensor in found.items()
    }


@pytest.fixture
def server(tmp_path, monkeypatch, state_dict):
    """Serves the weights under a name that tells the digits, in place of torchvision's own."""
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save(state_dict, folder / "weights.pth")
    digits = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()[:8]
    (folder / "weights.pth").rename(folder / f"resnet18-{digits}.pth")
    with servers.serving(folder) as web:
        record = public.PUBLIC[NAME]._replace(url=f"{web.url}/resnet18-{digits}.pth")
        monkeypatch.setitem(public.PUBLIC, NAME, record)
        web.file, web.folder = f"/resnet18-{digits}.pth", folder
        yield web


def test_weights_are_fetched_once_and_need_no_network_then(server):
    path = public.fetch(NAME)
    assert path.read_bytes() == (server.folder / server.file[1:]).read_bytes()
    asked = len(server.asked)
    assert asked and public.fetch(NAME) == path and len(server.asked) == asked


def test_a_copy_that_is_cut_goes_on_where_it_was(server):
    server.cut[server.file] = 1_200_000
    with pytest.raises(
        UserError, match=f"{NAME}: cannot copy .*The same command goes on with what is missing.*Or fetch"
    ):
        public.fetch(NAME)
    path = public.fetch(NAME)
    assert path.read_bytes() == (server.folder / server.file[1:]).read_bytes()
    assert server.asked[-1] == ("GET", server.file, 2**20), "whole pieces of it stay"


def test_what_is_not_the_file_is_removed(server):
    """As a proxy's page, or a file that has been exchanged."""
    whole = (server.folder / server.file[1:]).read_bytes()
    (server.folder / server.file[1:]).write_bytes(b"<html>Log in</html>")
    with pytest.raises(
        UserError, match="has not the SHA-256 that begins with [0-9a-f]{8}; it is removed.*a proxy"
    ) as error:
        public.fetch(NAME)
    path = re.search("put it at (.*)[.]$", str(error.value))[1]
    (server.folder / server.file[1:]).write_bytes(whole)
    assert str(public.fetch(NAME)) == path and public.fetch(NAME).read_bytes() == whole


def test_a_copy_that_is_no_weight_file_is_named(server, monkeypatch):
    """Where its name tells no digits to check it by, as those of pytorch-i3d; it would fail at every call."""
    (server.folder / "rgb.pt").write_text("<html>Log in</html>")
    monkeypatch.setitem(public.PUBLIC, NAME, public.PUBLIC[NAME]._replace(url=f"{server.url}/rgb.pt"))
    config = tiny.get_config()
    given = (NAME, "", "torchvision", config, sharding.make_mesh())
    with pytest.raises(UserError, match=f"not a weight file.* It is the copy of {NAME}: remove it, and the") as error:
        source.read_source(*given)
    shutil.copy(server.folder / server.file[1:], server.folder / "rgb.pt")
    pathlib.Path(str(error.value).partition(": ")[0]).unlink()
    assert source.read_source(*given).num_classes == 5
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="PyTorch's files need PyTorch") as error:
        source.read_source(*given)
    assert "remove it" not in str(error.value)


def test_what_cannot_be_reached_may_be_put_there_by_hand(server):
    server.status[server.file] = 503
    with pytest.raises(UserError, match="cannot copy") as error:
        public.fetch(NAME)
    place = re.search("put it at (.*)[.]$", str(error.value))[1]
    server.status[server.file] = 404
    with pytest.raises(UserError, match="there is nothing at http.* any more. Another copy of it goes to ") as error:
        public.fetch(NAME)
    assert str(error.value).endswith(f"goes to {place}.")
    with open(place, "wb") as file:
        file.write((server.folder / server.file[1:]).read_bytes())
    assert str(public.fetch(NAME)) == place


def test_a_name_that_is_none_and_what_is_a_path():
    with pytest.raises(UserError, match="no weights 'torchvision:resnet19'; did you mean torchvision:resnet1") as error:
        public.find("torchvision:resnet19")
    assert "python -m jax_video.models --weights" in str(error.value)
    for path in ("resnet50.pth", "runs/torchvision:resnet50", "s3://bucket/run", ""):
        assert public.find(path) is None


@pytest.mark.parametrize("name", public.PUBLIC)
def test_a_record_names_what_there_is(name):
    found = public.PUBLIC[name]
    assert found.layout in networks.find(found.network).layouts and found.layout in names.LAYOUTS
    assert found.url.startswith("https://") and (found.digits or found.layout == "i3d")
    assert found.licence and found.data and f"{names.layout(found.layout).clip['size']}² of " in found.clips
    assert found.clips.endswith(", clip.fps=15") == (found.layout == "torchvision-video")


def test_a_run_starts_from_a_name_and_takes_its_layout(server, state_dict, capsys, monkeypatch):
    config = tiny.get_config()
    with config.unlocked():
        config.model = {"name": "resnet18", "width": 1 / 4, "layers": (1, 1, 1, 1)}
    config.init_from.update(path=NAME, new_head=True)

    def create():
        return state_lib.create(state_lib.network(config, 5), optimizer.make(0.1))

    state = start.initial_state(config, list("abcde"), sharding.make_mesh(), create)
    kernel = state_dict["layer2.0.conv1.weight"].numpy()
    np.testing.assert_array_equal(
        state_lib.named_leaves(state)["params/layer2/0/conv1/kernel"][0], kernel.transpose(2, 3, 1, 0)
    )
    said = capsys.readouterr().err
    assert f"Weights from {NAME}:" in said and "frames a second" not in said

    layout = names.LAYOUTS["torchvision"]
    rated = dataclasses.replace(layout, clip=layout.clip | {"fps": 15.0})
    monkeypatch.setitem(names.LAYOUTS, "torchvision", rated)
    start.initial_state(config, list("abcde"), sharding.make_mesh(), create)
    note = "seen clips of 15 frames a second; clips here take frames as they are stored. --config.clip.fps=15 gives"
    assert note in capsys.readouterr().err
    config.clip.fps = 15.0
    start.initial_state(config, list("abcde"), sharding.make_mesh(), create)
    assert "frames a second" not in capsys.readouterr().err
    config.init_from.layout = "i3d"
    with pytest.raises(UserError, match=f"{NAME} is in layout torchvision, and not in i3d: leave the layout out"):
        start.initial_state(config, list("abcde"), sharding.make_mesh(), create)
