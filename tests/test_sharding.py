"""Devices: what a batch must divide by, where rows go, and how processes are told of each other."""

import socket
import types

import jax
import numpy as np
import pytest

from jax_video import sharding
from jax_video.errors import UserError


def test_mesh_has_all_devices_on_one_axis():
    mesh = sharding.make_mesh()
    assert mesh.axis_names == ("batch",) and mesh.size == jax.device_count() == 8


@pytest.mark.parametrize(
    "batch, devices, accumulate, group_size, message",
    [
        (12, 8, 1, None, "a batch of 12 does not divide into 8 devices × 1 micro-batches: use a multiple of 8"),
        (16, 8, 4, 1, "into 8 devices × 4 micro-batches: raise train.micro_batch, .*, or use a multiple of 32"),
        (0, 1, 1, None, "a batch has 0 videos: expected at least 1"),
        (16, 1, 0, None, "0 micro-batches"),
        (32, 2, 4, None, r"set norm.group_size \(for example 4\) or norm.frozen"),
        (32, 2, 1, 3, "groups of 3 do not fit 16 clips .* must divide 16 or be a multiple of it"),
        (32, 2, 1, 0, "groups of 0 do not fit 16 clips"),
        (48, 3, 1, 32, "groups of 32 do not divide the 48 clips of a micro-batch"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(batch, devices, accumulate, group_size, message):
    with pytest.raises(UserError, match=message):
        sharding.check_batch(batch, devices=devices, accumulate=accumulate, group_size=group_size)


@pytest.mark.parametrize(
    "batch, devices, accumulate, group_size, frozen",
    [(8, 8, 1, None, False), (32, 8, 2, 2, False), (32, 8, 1, 16, False), (32, 8, 4, None, True), (48, 3, 1, 3, True)],
)
def test_a_batch_that_fits_passes(batch, devices, accumulate, group_size, frozen):
    sharding.check_batch(batch, devices=devices, accumulate=accumulate, group_size=group_size, frozen=frozen)


def test_groups_count_the_clips_of_a_video():
    sharding.check_batch(64, devices=1, accumulate=4, group_size=80, clips=5)
    with pytest.raises(UserError, match="groups of 16 do not fit 40 clips per device and micro-batch"):
        sharding.check_batch(64, devices=2, accumulate=4, group_size=16, clips=5)


def test_a_batch_that_only_sets_the_pace_is_rounded_up():
    mesh = sharding.make_mesh()
    assert [sharding.multiple_of_devices(batch, mesh) for batch in (1, 8, 9)] == [8, 8, 16]


def test_each_device_gets_its_contiguous_rows():
    mesh = sharding.make_mesh()
    rows = {"rgb": np.arange(48, dtype=np.uint8).reshape(16, 3), "label": np.arange(16, dtype=np.int32)}
    placed = sharding.place_batch(rows, mesh)
    for name, array in placed.items():
        assert array.dtype == rows[name].dtype
        for number, device in enumerate(mesh.devices):
            (shard,) = [shard for shard in array.addressable_shards if shard.device == device]
            np.testing.assert_array_equal(shard.data, rows[name][2 * number : 2 * number + 2])


def test_each_device_gets_the_whole_state():
    mesh = sharding.make_mesh()
    state = sharding.place_state({"kernel": np.ones((3, 5), np.float32), "step": np.int32(7)}, mesh)
    for array in state.values():
        assert array.sharding.is_fully_replicated and len(array.addressable_shards) == 8
    assert int(state["step"]) == 7


@pytest.mark.parametrize(
    "value", ["yes", "localhost,0,2", "localhost:80,2,2", "localhost:80,-1,2", ":80,0,2", "a:b,0,2"]
)
def test_malformed_distributed_shows_the_form(value):
    with pytest.raises(UserError, match="--distributed=.*expected auto, or HOST:PORT,ID,COUNT"):
        sharding.start(value)


def test_a_single_process_stops_when_it_is_asked_to():
    assert sharding.stop_requested(True) and not sharding.stop_requested()


def test_processes_with_different_numbers_of_devices_are_refused():
    devices = [types.SimpleNamespace(process_index=process, id=number) for number, process in enumerate((0, 0, 1))]
    with pytest.raises(UserError, match=r"\(process 0 has 2, process 1 has 1\), but load equal shares"):
        sharding.make_mesh(devices)


def test_an_address_where_nobody_answers_is_said(monkeypatch, capsys):
    """JAX would abort the process, after five silent minutes."""
    monkeypatch.setattr(sharding, "_WAIT", 0.0)
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port = own.getsockname()[1]
        with pytest.raises(UserError, match=f"process 0 does not answer at 127.0.0.1:{port}"):
            sharding.start(f"127.0.0.1:{port},1,2")
        own.listen()
        with pytest.raises(UserError, match="--distributed=localhost:99999,0,2: expected auto, or HOST:PORT"):
            sharding.start("localhost:99999,0,2")
        with pytest.raises(UserError, match=f"port {port} cannot be used here .*: choose another"):
            sharding.start(f"127.0.0.1:{port},0,2")
