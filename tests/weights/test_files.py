"""Weight files: what is read, in every format; what is refused or damaged, by name; what is written, whole or not."""

import argparse
import collections
import concurrent.futures
import io
import os
import pathlib
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from jax_video.weights import files
from jax_video.weights.files import WeightFileError, read, write

WEIGHTS = {
    "conv1.weight": np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32),
    "bn1.running_mean": np.arange(4, dtype=np.float64),
    "bn1.num_batches_tracked": np.array(2**40, np.int64),
    "half": np.array([1.5, -0.25], np.float16),
    "brain": np.array([1.5, -3e38], jnp.bfloat16),
    "flags": np.array([[True], [False]]),
}
TENSORS = {
    name: torch.from_numpy(array) if array.dtype != jnp.bfloat16 else torch.tensor(array.tolist(), dtype=torch.bfloat16)
    for name, array in WEIGHTS.items()
}


def assert_weights(found, expected=WEIGHTS):
    """The same names, shapes, types and bits."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


# Read.


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.th", "w.pth.tar", "w.bin", "w"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_pytorch(tmp_path, name, new):
    torch.save(TENSORS, tmp_path / name, _use_new_zipfile_serialization=new)
    assert_weights(read(tmp_path / name))
    assert list(read(str(tmp_path / name))) == list(WEIGHTS), "in the file's order"


def test_other_formats(tmp_path):
    safetensors.torch.save_file(TENSORS, tmp_path / "w.safetensors", metadata={"format": "pt"})
    assert_weights(read(tmp_path / "w.safetensors"))
    for name, save in (("w.npz", np.savez), ("compressed.npz", np.savez_compressed)):
        save(tmp_path / name, **WEIGHTS)
        assert_weights(read(tmp_path / name))
    (tmp_path / "w.safetensors").rename(tmp_path / "named.pth")
    assert_weights(read(tmp_path / "named.pth")), "what a file is, it says itself"


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights},
        lambda weights: {"model": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}},
        lambda weights: {"net": weights, "acc": 93.1, "epoch": 7},
        lambda weights: {"model": {"state_dict": weights}},
        lambda weights: {"best_acc1": torch.tensor(76.1), "state_dict": weights, "ema": torch.ones(3)},
        lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
        lambda weights: {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}},
        lambda weights: {f"_orig_mod.module.{name}": tensor for name, tensor in weights.items()},
        lambda weights: {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()},
        lambda weights: collections.OrderedDict(weights),
        lambda weights: {name: nn.Parameter(tensor, False) for name, tensor in weights.items()},
        lambda weights: {
            "state_dict": weights,
            "arch": "resnet-18",
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": np.float64(0.1)}]},
            "opt": argparse.Namespace(lr=0.1, mean=[114.8, 107.7, 99.5], no_cuda=False, n=np.int64(4)),
            "history": collections.defaultdict(list, {"loss": [1.0, 0.5]}),
            "milestones": collections.Counter([30, 60]),
            "best": (np.float32(0.5), np.bool_(True), np.uint8(3), np.float16(2)),
            "size": torch.Size([3]),
            "dtype": torch.float16,
            "classes": {"a", "b"},
        },
    ],
)
def test_what_training_code_puts_around_them(tmp_path, wrap, new):
    torch.save(wrap(TENSORS), tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    assert_weights(read(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("raw", "averaged"), [("model", "model_ema"), ("state_dict", "state_dict_ema"), (None, "model_ema"), (None, "ema")]
)
def test_moving_averages_beside_weights_and_alone(tmp_path, raw, averaged):
    """As torchvision's and timm's training code keep them; what is not taken is named."""
    averages = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in TENSORS.items()}
    within = {"n_averaged": torch.tensor(7)} | {f"module.{name}": tensor for name, tensor in averages.items()}
    for kept in (averages, within):
        torch.save({averaged: kept, "epoch": 3} | ({raw: TENSORS} if raw else {}), tmp_path / "w.pth")
        found = files.read_file(tmp_path / "w.pth")
        expected = TENSORS if raw else averages
        assert found.weights.keys() == expected.keys() and found.prefixes == ()
        assert found.weights["conv1.weight"].tobytes() == expected["conv1.weight"].numpy().tobytes()
        if raw:
            said = f"its weights [{raw!r}] are taken, not [{averaged!r}], which may be moving averages. To take these, "
            assert found.passed_over.startswith(said) and f"torch.load('w.pth')[{averaged!r}]" in found.passed_over
        else:
            assert found.passed_over == ""
    torch.save({"n_averaged": torch.tensor(7)}, tmp_path / "w.pth")
    assert list(read(tmp_path / "w.pth")) == ["n_averaged"]


@pytest.mark.parametrize(
    ("beside", "place"),
    [
        ({"swa_state_dict": TENSORS}, "['swa_state_dict']"),
        (
            {"callbacks": {"EMA": {"weights": {f"module.{name}": each for name, each in TENSORS.items()}}}},
            "['callbacks']['EMA']['weights']",
        ),
        ({"ema": {f"shadow.{name}": each for name, each in TENSORS.items()}}, "['ema']"),
        ({"best_state_dict": TENSORS, "net": TENSORS}, "['best_state_dict'] or ['net']"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "discriminator": {"a": torch.zeros(3)}}, ""),
    ],
)
def test_other_weights_of_the_same_network_are_named_wherever_they_are(tmp_path, beside, place):
    torch.save({"state_dict": TENSORS} | beside, tmp_path / "w.pth")
    found = files.read_file(tmp_path / "w.pth")
    assert found.weights.keys() == TENSORS.keys()
    assert (f"its weights ['state_dict'] are taken, not {place}, which" in found.passed_over) == bool(place)
    assert bool(found.passed_over) == bool(place)


def test_metadata_of_others_are_no_notes_of_ours(tmp_path):
    """Others keep a name there, or settings of theirs; earlier versions kept our notes beside one another."""
    path = tmp_path / "w.safetensors"
    weights = {"a": torch.zeros(2)}
    for told in ({"model": "r3d_18"}, {"clip": "16"}, {"loss": "sigmoid", "normalize": "imagenet"}):
        safetensors.torch.save_file(weights, path, metadata=told)
        assert files.read_file(path).notes == {}
    first = {"normalize": '{"mean": [1]}', "model": '{"name": "r3d_18"}'}  # of the first versions
    for ours in (first, first | {"clip": "{}", "test": "{}", "loss": "sigmoid"}):
        safetensors.torch.save_file(weights, path, metadata=ours | {"format": "pt"})
        assert files.read_file(path).notes == ours


def test_a_type_that_numpy_has_not_is_no_damage(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightFileError, match="of a type that NumPy cannot hold"):
        read(tmp_path / "w.safetensors")


def test_two_at_once_write_one_of_both(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda k: write(tmp_path / "w.pth", {f"a{i}": np.full(999, k) for i in range(9)}), range(12)):
            found = {float(array[0]) for array in read(tmp_path / "w.pth").values()}
            assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_settings_of_averages_are_no_averages(tmp_path):
    torch.save({"model": TENSORS, "ema": {"decay": 0.99, "steps": 3}}, tmp_path / "w.pth")
    assert files.read_file(tmp_path / "w.pth").passed_over == ""
    torch.save({"ema": {"decay": 0.99}}, tmp_path / "w.pth")
    with pytest.raises(WeightFileError, match="holds a dict of 'ema'; expected a state dict"):
        read(tmp_path / "w.pth")


def test_a_prefix_of_some_names_is_part_of_them(tmp_path):
    torch.save({"module.a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "w.pth")
    assert list(read(tmp_path / "w.pth")) == ["module.a", "b"]


def test_a_network_as_torch_saves_it(tmp_path):
    """Parameters that share memory, are views of other memory, or require gradients."""
    network = nn.Sequential(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4), nn.Linear(5, 6))
    network[2].weight = nn.Parameter(torch.arange(30.0).reshape(5, 6).T)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    assert_weights(read(tmp_path / "w.pth"), {name: t.numpy() for name, t in network.state_dict().items()})


# Refused.


class Payload:
    """Makes a file where it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "save",
    [
        lambda content, path: torch.save(content, path),
        lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
        *(lambda content, path, protocol=p: path.write_bytes(pickle.dumps(content, protocol)) for p in range(2, 6)),
        lambda content, path: np.savez(path.open("wb"), payload=np.array([content], object), a=np.ones(3)),
    ],
    ids=["zip", "legacy", "pickle 2", "pickle 3", "pickle 4", "pickle 5", "npz"],
)
def test_code_is_never_run(tmp_path, save):
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        save({"state_dict": dict(TENSORS), "payload": Payload(tmp_path / "pwned")}, tmp_path / "w.pth")
    with pytest.raises(WeightFileError, match="w.pth: refused, because loading it could run code: it holds ") as error:
        read(tmp_path / "w.pth")
    assert "torch.save(model.state_dict(), 'weights.pth')" in str(error.value), "what to do"
    assert not (tmp_path / "pwned").exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(WeightFileError, match=r"refused.* it holds torch.nn.modules.linear.Linear, not only arrays"):
        read(tmp_path / "w.pth")


def test_other_things_of_pytorch(tmp_path):
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(WeightFileError, match=r"TorchScript program.*torch.jit.load\('script.pt'\).state_dict"):
        read(tmp_path / "script.pt")
    with tarfile.open(tmp_path / "old.pth.tar", "w") as archive:
        info = tarfile.TarInfo("storages")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(WeightFileError, match="a tar archive"):
        read(tmp_path / "old.pth.tar")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "holds a dict of"),
        (torch.ones(3), "Tensor'>; expected a state dict"),
        ([torch.ones(3)], "list'>; expected a state dict"),
        ({"epoch": 3, "weights": {"a": torch.ones(3)}}, "'epoch', 'weights'; expected a state dict .* 'state_dict'"),
        ({"state_dict": {"epoch": 3}}, "holds a dict of 'epoch'"),
        ({"a": torch.ones(3), "epoch": 3}, "'epoch' among its weights are not named arrays"),
        ({0: torch.ones(3)}, "0 among its weights are not named arrays"),
        ({"a": torch.ones(3).to(torch.float8_e4m3fn)}, "a is a torch.float8_e4m3fn tensor that NumPy cannot hold"),
        ({"a": torch.ones(2, 2).to_sparse()}, "a is a torch.float32 tensor that NumPy cannot hold"),
        ({"a": torch.ones(2, device="meta")}, "a is a torch.float32 tensor that NumPy cannot hold"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a has values of type complex64; expected real numbers"),
    ],
)
def test_what_is_no_state_dict(tmp_path, content, expected):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightFileError, match=expected):
        read(tmp_path / "w.pth")


def test_npz_of_other_things(tmp_path):
    for array in (np.array(["a"]), np.zeros(2, [("x", np.float32)])):
        np.savez(tmp_path / "w.npz", a=array)
        with pytest.raises(WeightFileError, match="a has values of type .*; expected real numbers"):
            read(tmp_path / "w.npz")


# Bombs.


def claim(path: pathlib.Path, size: int) -> pathlib.Path:
    """Has the directory of a zip archive say this size of its last member."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 24, size)
    path.write_bytes(data)
    return path


def test_what_would_swell_is_refused(tmp_path):
    """A few bytes may unpack to any number, and a tensor may repeat one value as often as it likes."""
    torch.save({"w": torch.zeros(1).expand(10**5, 10**5)}, tmp_path / "w.pth")
    torch.save({"w": torch.zeros(1).expand(10**5, 10**5)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    np.savez_compressed(tmp_path / "w.npz", w=np.zeros(10))
    torch.save({"w": torch.zeros(10)}, tmp_path / "unpacked.pth")
    claim(tmp_path / "w.npz", 2**31), claim(tmp_path / "unpacked.pth", 2**31)
    for name in ("w.pth", "w.pt", "w.npz", "unpacked.pth"):
        with pytest.raises(WeightFileError, match="refused, as its .* bytes would become .* in memory"):
            read(tmp_path / name)
    torch.save({"w": torch.ones(3, 1).expand(3, 1000)}, tmp_path / "inflated.pth")  # as people inflate 2D weights
    np.testing.assert_array_equal(read(tmp_path / "inflated.pth")["w"], np.ones((3, 1000)))


def test_a_size_that_a_header_claims_is_not_believed(tmp_path):
    def header(shape: str) -> bytes:
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text

    for shape in ("(10**13,)", "(10000000000000,)", "(4611686018427387904, 4)", "(" * 5000, "-" * 5000):
        with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
            archive.writestr("w.npy", header(shape))
        with pytest.raises(WeightFileError, match="damaged or cut short"):
            read(tmp_path / "w.npz")
    for size, start in (
        (2**40, struct.pack("<Q", 2**39) + b"{"),
        (2**40, b""),
        (2**20, struct.pack("<Q", 2**19) + b"{["),
    ):
        with open(tmp_path / "w.safetensors", "wb") as file:
            file.write(start)
            file.truncate(size)
        with pytest.raises(WeightFileError, match="damaged or cut short|not a weight file"):
            read(tmp_path / "w.safetensors")


# Damaged.


def test_no_weight_file(tmp_path):
    for name, content in {
        "page.pth": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "empty.pth": b"",
        "text.npz": b"not weights, and no archive either",
        "zeros.safetensors": bytes(100),
        "gzip.pth.tar": b"\x1f\x8b\x08\x00" + bytes(range(100)),
        "array.npy": b"\x93NUMPY\x01\x00v\x00{'descr'",
        "protocol0.pkl": pickle.dumps({"a": 1}, 0),
        "archive.zip": b"PK\x05\x06" + bytes(18),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightFileError, match=rf"{name}: not a weight file.*{len(content)} bytes start with"):
            read(tmp_path / name)
    for name in ("nosuch.pth", "."):
        with pytest.raises(WeightFileError, match="there is no such file"):
            read(tmp_path / name)


def whole(tmp_path, kind) -> bytes:
    path = tmp_path / f"whole.{kind}"
    if kind in ("zip", "legacy"):
        torch.save({"state_dict": TENSORS}, path, _use_new_zipfile_serialization=kind == "zip")
    else:
        write(path, WEIGHTS)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "npz"])
def test_a_file_cut_short(tmp_path, kind):
    content, path = whole(tmp_path, kind), tmp_path / "cut"
    for length in [*range(24), *np.linspace(24, len(content) - 1, 60, dtype=int)]:
        path.write_bytes(content[:length])
        with pytest.raises(WeightFileError, match=f"^{path}: ") as error:
            read(path)
        assert len(str(error.value)) < 500 and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "npz"])
def test_a_file_with_a_wrong_bit(tmp_path, kind):
    """It is read, for not every format has checksums, or it is an error of ours; never another one."""
    content, path, failed = whole(tmp_path, kind), tmp_path / "flipped", 0
    rng = np.random.default_rng(0)
    for place in [*range(48), *rng.integers(len(content), size=100), *range(len(content) - 48, len(content))]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            read(path)
        except WeightFileError:
            failed += 1
    assert failed


# Written.


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_a_file_written_is_read_again(tmp_path, suffix):
    path = tmp_path / "new folder" / f"w{suffix}"
    strided = WEIGHTS | {"conv1.weight": WEIGHTS["conv1.weight"].transpose(1, 0, 3, 2)}
    for weights in (WEIGHTS, strided):  # the second one in the first one's place
        write(path, weights)
        assert_weights(read(path), weights)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_notes_stay_with_the_weights(tmp_path, suffix):
    """Also where a state dict is put into another dict, as training code does; no other reader sees them."""
    notes, path = {"normalize": '{"mean": [1.0]}', "loss": "sigmoid"}, tmp_path / f"w{suffix}"
    write(path, WEIGHTS, notes)
    found = files.read_file(path)
    assert_weights(found.weights)
    assert found.notes.items() >= notes.items()
    if suffix == ".npz":
        with np.load(path) as arrays:
            assert list(arrays) == list(WEIGHTS)
        np.savez(path, **WEIGHTS)
        for comment in (b"made by hand", b"{}", b'{"jax_video": 3}', b'{"jax_video": {"loss": 1}}'):
            with zipfile.ZipFile(path, "a") as archive:
                archive.comment = comment
            assert files.read_file(path).notes == {}
    if suffix in (".pth", ".pt"):
        torch.save({"epoch": 3, "model": {"state_dict": torch.load(path)}}, path)
        assert files.read_file(path).notes == notes
        weights = torch.load(path)["model"]["state_dict"]
        for told in ([], {"jax_video": []}, {"jax_video": {"loss": 3}}):
            vars(weights)["_metadata"] = told
            torch.save(weights, path)
            assert files.read_file(path).notes == {}


def test_what_pytorch_makes_of_a_file_written(tmp_path):
    """A plain state dict: names, types and shapes, those of 0 axes too."""
    for suffix, load in ((".pth", torch.load), (".pt", torch.load), (".safetensors", safetensors.torch.load_file)):
        write(tmp_path / f"w{suffix}", WEIGHTS)
        loaded = load(tmp_path / f"w{suffix}")
        assert loaded.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape), name
            assert torch.equal(loaded[name], tensor), name
    with safetensors.safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}, "which some readers ask for"


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_a_failing_write_leaves_nothing_behind(tmp_path, suffix, monkeypatch):
    """Neither a new file nor a part of one; an older one stays as it was."""
    path = tmp_path / f"w{suffix}"

    def full(temporary, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(WeightFileError, match=rf"w{suffix}: cannot be written .*No space left"):
            write(path, WEIGHTS)
    assert not list(tmp_path.iterdir())

    write(path, WEIGHTS)
    if suffix != ".npz":  # which has every type
        with pytest.raises(WeightFileError, match=rf"w{suffix}: cannot be written .*(longdouble|float128)"):
            write(path, WEIGHTS | {"a": np.ones(2, np.longdouble)})
    assert list(tmp_path.iterdir()) == [path]
    assert_weights(read(path))


def test_places_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.npz").mkdir()
    for path in (tmp_path / "file" / "w.npz", tmp_path / "folder.npz"):
        with pytest.raises(WeightFileError, match="cannot be written"):
            write(path, WEIGHTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.npz"]


def test_an_unknown_suffix(tmp_path):
    with pytest.raises(WeightFileError, match=r"w.h5: expected a name that ends in one of .pth, .pt, .safetensors"):
        write(tmp_path / "w.h5", WEIGHTS)
    assert not list(tmp_path.iterdir())


def test_without_pytorch(tmp_path, monkeypatch):
    """Its files need it; the others do not."""
    torch.save(TENSORS, tmp_path / "w.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (lambda: read(tmp_path / "w.pth"), lambda: write(tmp_path / "new.pth", WEIGHTS)):
        with pytest.raises(WeightFileError, match="PyTorch's files need PyTorch: pip install torch"):
            call()
    for suffix in (".safetensors", ".npz"):
        write(tmp_path / f"w{suffix}", WEIGHTS)
        assert_weights(read(tmp_path / f"w{suffix}"))
    assert not (tmp_path / "new.pth").exists() and not (tmp_path / ".new.pth.part").exists()
