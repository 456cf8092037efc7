"""What every test shares: eight CPU devices, strict dtypes where numbers are checked, and the real material."""

import gc
import importlib.metadata
import os
import pathlib
import signal
import sys
import tempfile

# Networks of a few channels run for milliseconds but compile for seconds: a third of them without these two.
FAST_COMPILE = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib") < "0.11":  # later ones may not know it, and end a process that gives it
    FAST_COMPILE += " --xla_cpu_use_fusion_emitters=false"
# Tracing makes millions of objects that live on: to look through them as often as Python does takes it a tenth longer.
SELDOM = (100_000, 20, 20)
# Before jax starts: one process shows eight devices, so that sharding is tested on any machine.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILE} --xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import pytest  # noqa: E402
import stores  # noqa: E402
from absl import flags  # noqa: E402

ROOT = pathlib.Path(__file__).parents[1]
flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl flags, which pytest does not parse.


def pytest_configure(config):
    """What was compiled once need not be again, be it in another file or by a command. Each worker of xdist keeps its
    own: JAX writes these files in place, where another process could read half of one."""
    gc.set_threshold(*SELDOM)
    _make_examples_sure()
    folder = tempfile.TemporaryDirectory(prefix="jax_video-compiled-")
    config.add_cleanup(folder.cleanup)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as `pytest &` of a script; tests send it to their processes
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = {
        "jax_compilation_cache_dir": folder.name,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


def _make_examples_sure():
    """Hypothesis draws the same examples in every run, and a busy machine fails none. It stores none then."""
    from hypothesis import settings  # which processes that only import this file need not

    settings.register_profile("jax_video", deadline=None, derandomize=True)
    settings.load_profile("jax_video")


class Module(pytest.Module):
    """A file of tests; one that compares with PyTorch is skipped where PyTorch is not installed."""

    def collect(self):
        try:
            return super().collect()
        except self.CollectError as error:
            if getattr(error.__cause__, "name", None) == "torch":
                pytest.skip("needs PyTorch: pip install -r requirements-dev.txt", allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path, parent):
    return Module.from_parent(parent, path=module_path)


@pytest.fixture(autouse=True, scope="module")
def little_to_collect():
    """What one file has compiled is of no use to the next; kept, it makes every later `gc.collect()` take seconds."""
    yield
    jax.clear_caches()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def no_flags_left():
    """A flag that one file defines is there for the next, which may run in the same process or not."""
    before = set(flags.FLAGS)
    yield
    ours = tuple(str(ROOT / folder) for folder in ("jax_video", "benchmarks", "tests", "docs"))  # not .venv in it
    modules = {name: flags.FLAGS.find_module_defining_flag(name) for name in set(flags.FLAGS) - before}
    files = {name: getattr(sys.modules.get(module), "__file__", None) or "" for name, module in modules.items()}
    left = sorted(name for name, file in files.items() if file.startswith(ours))
    assert not left, f"flags that were defined and not taken back: {left}"


@pytest.fixture(scope="module")
def one_device():
    """For files of tests that do not care how many there are: programs for eight take a third longer to compile."""
    devices = jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: devices[:1])
        yield


@pytest.fixture
def strict_dtypes():
    """Implicit dtype promotion is an error; not for the optimizer, whose schedules rely on it."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def one_torch_thread():
    """PyTorch draws the same weights in every run, on one thread: more stand in the way of ours on small arrays."""
    import torch

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def store(tmp_path) -> pathlib.Path:
    """The folder that stands for gs:// in this test."""
    stores.use(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(scope="session")
def test_data() -> pathlib.Path:
    """The folder of real videos and official lists (JAX_VIDEO_TEST_DATA); skips where there is none."""
    folder = pathlib.Path(os.environ.get("JAX_VIDEO_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real test material in {folder}; set JAX_VIDEO_TEST_DATA")
    return folder
