"""Reading and writing of weight files of PyTorch, safetensors and NumPy. No other module imports torch."""

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import pickle
import re
import struct
import tarfile
import uuid
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jax_video.data import archives, documents, remote
from jax_video.errors import UserError, mended

# Keys under which training code keeps the weights.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net")
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema")  # and their moving averages
_DEEPEST = 4  # dicts within dicts in which other weights are looked for
_COUNT = "n_averaged"  # what torch's AveragedModel keeps beside the averages, whose names begin with "module."
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
SUFFIXES = (".pth", ".pt", ".safetensors", ".npz")
_NOTES = "jax_video"
_EARLIER = ("normalize", "clip", "test", "model", "loss")
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what PyTorch's files began with until 1.6
# Training code keeps these beside the weights; unpickling them runs no code.
HARMLESS = (dict, list, set, int, float, argparse.Namespace, np.dtype)
SCALARS = (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.float16, np.float32, np.float64)


class WeightFileError(UserError):
    """A file that cannot be read as weights, or written; the message says why."""


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a weight file holds."""

    weights: dict[str, np.ndarray]  # by name, without the prefixes that all names have
    prefixes: tuple[str, ...]  # those prefixes, outermost first: ("module.",), for example
    beside: tuple[str, ...]  # other keys of the file: ("epoch", "optimizer"), for example
    notes: dict[str, str] = dataclasses.field(default_factory=dict)  # that `write` was given
    passed_over: str = ""  # which weights of the file were not taken, in words; "": it holds no others


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a weight file: `read_file(path).weights`."""
    return read_file(path).weights


def read_file(path: str | os.PathLike) -> WeightFile:
    """The arrays of a weight file by the names that the file gives them, and what else it tells.

    PyTorch's files (`.pth`, `.pt`, `.th`, `.pth.tar`) are read in both of its formats, also where the weights are an
    entry of a larger dict (`WRAPPERS`) and where every name has a prefix (`PREFIXES`). Moving averages (`AVERAGED`) are
    taken where there are no other weights. The first bytes of a file tell its format, not its name. Half-precision
    arrays stay what they are.

    Raises:
      WeightFileError: it is not such a file, or damaged, or would have to run code to be loaded.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise WeightFileError(f"{path}: there is no such file")
    found = _state_dict(path, _reader(path)(path))
    weights, prefixes = found.weights, []
    counts = {name for name in weights if name.rpartition(".")[2] == _COUNT or name == "steps"}
    averaged = weights.keys() - counts
    if 0 < len(averaged) < len(weights) and all(name.startswith("module.") for name in averaged):
        weights = {name.removeprefix("module."): array for name, array in weights.items() if name in averaged}
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in weights)), None):
        weights = {name.removeprefix(prefix): array for name, array in weights.items()}
        prefixes.append(prefix)
    return dataclasses.replace(found, weights=weights, prefixes=tuple(prefixes))


def write(path: str | os.PathLike, weights: dict[str, np.ndarray], notes: dict[str, str] | None = None) -> None:
    """Write arrays as `.pth` or `.pt` (a state dict), `.safetensors` or `.npz`. The file appears whole or not at all.

    Notes go where other readers do not look: into the metadata of the format, or the comment of the archive that an
    `.npz` is.

    Raises:
      WeightFileError: another suffix, a type that the format does not have, or a place that cannot be written to.
    """
    path = pathlib.Path(path)
    check_suffix(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")  # another process may write the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "x+b") as file:
            if path.suffix == ".safetensors":
                ordered = {name: np.asarray(array, order="C") for name, array in weights.items()}
                told = {_NOTES: json.dumps(notes)} if notes else {}
                file.write(safetensors.numpy.save(ordered, metadata={"format": "pt"} | told))
            elif path.suffix == ".npz":
                arrays: dict[str, Any] = weights
                np.savez(file, **arrays)
                if notes:
                    with zipfile.ZipFile(file, "a") as archive:
                        archive.comment = json.dumps({_NOTES: notes}).encode()
            else:
                tensors = collections.OrderedDict((name, _tensor(weights[name])) for name in weights)
                vars(tensors)["_metadata"] = {_NOTES: notes or {}}  # as PyTorch has it, by the names of modules
                _torch().save(tensors, file)
        remote.put_in_place(part, path)
    except WeightFileError:
        raise
    except Exception as error:  # of each format's own kind
        raise WeightFileError(
            f"{path}: cannot be written ({error}). {mended(getattr(error, 'errno', None))}."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def check_suffix(path: str | os.PathLike) -> None:
    """Raise WeightFileError unless `write` knows the format that a file's name ends with."""
    if pathlib.Path(path).suffix not in SUFFIXES:
        raise WeightFileError(f"{path}: expected a name that ends in one of {', '.join(SUFFIXES)}")


def _reader(path: pathlib.Path):
    """The function that reads this file, by its first bytes."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        beginning = file.read(2**16)  # enough for the first member of a tar archive, compressed or not
    start = beginning[:16]
    if start[:2] == b"PK":
        try:
            archives.check(path)
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except UserError as error:
            raise WeightFileError(str(error)) from error
        except Exception as error:  # a damaged list of names may also be no text, or too long
            raise _damaged(path, error) from error
        if names and all(name.endswith(".npy") for name in names):
            return _read_npz
        if any(name.endswith("/constants.pkl") for name in names):
            raise WeightFileError(
                f"{path}: a TorchScript program, not weights. Save them in PyTorch: "
                f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
            )
        if any(name.endswith("data.pkl") for name in names):
            return _read_torch
    elif len(start) > 8 and start[8:9] == b"{" and 0 < struct.unpack("<Q", start[:8])[0] <= size - 8:
        return _read_safetensors
    elif start.startswith(LEGACY):
        return _read_torch
    elif start[:1] == b"\x80" and size > len(LEGACY):
        raise _refused(path, "a pickle")
    elif beginning.strip(b"\0") and tarfile.is_tarfile(io.BytesIO(beginning)):
        raise WeightFileError(
            f"{path}: a tar archive. If it is of PyTorch before 0.2, load it there and save it again; else unpack it."
        )
    raise WeightFileError(
        f"{path}: not a weight file. Expected one of PyTorch, safetensors or NumPy (.npz); its {size} bytes start with "
        f"{start!r}. A download that was interrupted or refused often looks like this."
    )


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        weights = collections.OrderedDict(archives.read_npz(path))
        with zipfile.ZipFile(path) as archive:
            if archive.comment.startswith(f'{{"{_NOTES}": '.encode()):  # others may comment on their archives, too
                vars(weights)["_metadata"] = json.loads(archive.comment)
        return weights
    except archives.ObjectsError as error:
        raise _refused(path, "Python objects") from error
    except Exception as error:  # whatever goes wrong while a file is taken apart, the file is at fault
        raise _damaged(path, error) from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        weights = collections.OrderedDict(safetensors.numpy.load_file(path))
        with safetensors.safe_open(path, "numpy") as file:
            vars(weights)["_metadata"] = {_NOTES: _own_notes(file.metadata() or {})}
        return weights
    except AttributeError as error:  # a type that NumPy has no name for
        raise WeightFileError(f"{path}: has values of a type that NumPy cannot hold ({error})") from error
    except Exception as error:
        raise _damaged(path, error) from error


def _own_notes(metadata: dict[str, str]) -> Any:
    """The notes that `write` put into the metadata of safetensors, where others keep theirs."""
    if _NOTES in metadata:
        return documents.parse(metadata[_NOTES])
    earlier = {key: value for key, value in metadata.items() if key in _EARLIER}  # each under its own name
    for key in ("normalize", "model"):  # which all versions have written
        try:
            documents.parse(earlier.get(key, ""), {"*": object})
        except documents.Damaged:
            return {}
    return earlier


def _read_torch(path: pathlib.Path):
    torch = _torch()
    scalar = np.float64(0).__reduce__()[0]  # it unpickles numbers; it has two names, as NumPy 2 has moved it
    harmless = [*HARMLESS, *(type(np.dtype(kind)) for kind in SCALARS)]
    harmless += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    harmless += [(lambda *_: {}, "collections.defaultdict")]  # torch fills plain dicts only
    try:
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise _refused(path, found[1]) from error
        reason = re.search(r"WeightsUnpickler error:\s*(.*)", str(error))
        raise _damaged(path, reason[1] if reason else error) from error
    except Exception as error:
        raise _damaged(path, error) from error


def _state_dict(path: pathlib.Path, loaded) -> WeightFile:
    """The dict of arrays in what a file holds, names with their prefixes, and what else the file tells."""
    weights, beside, taken = loaded, [], ""
    for _ in WRAPPERS:  # before anything else: the best accuracy, beside the weights, may be an array too
        keys = [key for key in (*WRAPPERS, *AVERAGED) if isinstance(weights, dict) and _is_wrapper(key, weights)]
        if keys:
            key, *_ = keys
            taken += f"[{key!r}]"
            beside += [str(other) for other in weights if other != key]
            weights = weights[key]
    if not isinstance(weights, dict) or not any(map(_is_array, weights.values())):
        found = f"a dict of {', '.join(map(repr, list(weights)[:8]))}" if isinstance(weights, dict) else type(weights)
        raise WeightFileError(
            f"{path}: holds {found}; expected a state dict (names and arrays), or one under the key "
            f"{', '.join(map(repr, WRAPPERS))}"
        )
    if other := [name for name, value in weights.items() if not (_is_array(value) and isinstance(name, str))]:
        raise WeightFileError(f"{path}: {', '.join(map(repr, other[:8]))} among its weights are not named arrays")
    arrays = {name: _array(path, name, value) for name, value in weights.items()}
    try:
        archives.check(path, sum(array.nbytes for array in arrays.values()))  # a tensor may repeat one value endlessly
    except UserError as error:
        raise WeightFileError(str(error)) from error
    return WeightFile(arrays, (), tuple(beside), _notes(weights), _passed_over(path, loaded, taken, arrays))


def _passed_over(path: pathlib.Path, loaded: Any, taken: str, arrays: dict[str, np.ndarray]) -> str:
    """Which other weights of the same network a file holds, such as moving averages, in words; "" if none."""
    names, averages = {_bare(name) for name in arrays}, tuple(f"[{key!r}]" for key in AVERAGED)

    def places(found: Any, place: str, depth: int) -> Iterator[str]:
        if not isinstance(found, dict) or place == taken or depth > _DEEPEST:
            return
        own = {_bare(name) for name, value in found.items() if isinstance(name, str) and _is_array(value)}
        if 2 * len(own & names) > len(names) or (own and place.endswith(averages)):
            yield place
            return
        for key, value in found.items():
            yield from places(value, f"{place}[{key!r}]", depth + 1)

    others = [place for place in places(loaded, "", 0) if place] if taken else []
    if not others:
        return ""
    return (
        f"its weights {taken} are taken, not {' or '.join(others[:3])}, which may be moving averages. To take "
        f"these, save them alone, in PyTorch: torch.save(torch.load({path.name!r}){others[0]}, 'other.pth')"
    )


def _bare(name: str) -> str:
    """A name without the prefixes that wrappers of networks put before it."""
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


def _is_wrapper(key: str, found: dict) -> bool:
    """Whether there are weights under this key; averages may also be settings of how they are taken."""
    value = found.get(key)
    return isinstance(value, dict) and (
        key in WRAPPERS or any(isinstance(each, dict) or _is_array(each) for each in value.values())
    )


def _notes(weights: dict) -> dict[str, str]:
    """The notes that stay with a state dict, whatever dict or file it is put into."""
    told = getattr(weights, "_metadata", None)
    notes = told.get(_NOTES) if isinstance(told, dict) else None
    notes = notes if isinstance(notes, dict) else {}
    return {key: value for key, value in notes.items() if isinstance(key, str) and isinstance(value, str)}


def _is_array(value) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "untyped_storage")


def _array(path: pathlib.Path, name: str, tensor) -> np.ndarray:
    array = tensor
    if not isinstance(tensor, np.ndarray):
        torch = _torch()
        try:
            if tensor.dtype == torch.bfloat16:  # which NumPy has from JAX only
                return tensor.detach().view(torch.int16).numpy().view(jnp.bfloat16)
            array = tensor.detach().numpy()
        except (RuntimeError, TypeError) as error:
            raise WeightFileError(
                f"{path}: {name} is a {tensor.dtype} tensor that NumPy cannot hold ({error})"
            ) from error
    elif array.dtype == np.dtype("V2"):  # bfloat16, which an .npz keeps as bare bytes
        return array.view(jnp.bfloat16)
    if not (array.dtype.kind in "biu" or jnp.issubdtype(array.dtype, jnp.floating)):
        raise WeightFileError(f"{path}: {name} has values of type {array.dtype}; expected real numbers")
    return array


def _tensor(array: np.ndarray):
    torch = _torch()
    array = np.array(array)  # contiguous and writable, which torch insists on; 0-d arrays stay so
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _torch():
    try:
        import torch
    except ImportError as error:
        raise WeightFileError(
            "PyTorch's files need PyTorch: pip install torch (its CPU build will do), or save the weights as "
            ".safetensors or .npz where it is installed"
        ) from error
    return torch


def _refused(path: pathlib.Path, what: str) -> WeightFileError:
    return WeightFileError(
        f"{path}: refused, because loading it could run code: it holds {what}, not only arrays. Where you trust it, "
        "load it in PyTorch and save the arrays alone: torch.save(model.state_dict(), 'weights.pth')"
    )


def _damaged(path: pathlib.Path, error: Exception | str) -> WeightFileError:
    reason = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
    return WeightFileError(f"{path}: damaged or cut short ({reason[:200]}); fetch it again")
