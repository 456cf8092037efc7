"""Programs that were compiled before are kept, and found again at the next start."""

import os
import pathlib
import zlib

import jax
import pytest
from commands import run, tiny_run

from jax_video.compilation_cache import enable_compilation_cache

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, of a process that was told nothing of one; JAX itself does not begin to use it."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "cache" / "compilation"
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_second_start_of_a_command_compiles_nothing(tmp_path, tmp_path_factory):
    trained = tiny_run(tmp_path_factory.getbasetemp())
    settings = {"jax_compilation_cache_dir": None, "jax_explain_cache_misses": True}
    arguments = (trained.data / "test", f"--checkpoint={trained.workdir}", "--json")
    found = []
    for _ in range(2):
        env = {"JAX_VIDEO_CACHE": str(tmp_path)}
        before = set(tmp_path.rglob("*-cache"))
        finished = run("jax_video.predict", *arguments, env=env, jax_settings=settings)
        assert finished.code == 0, finished.stderr
        # The times of use say that it was read: without a cache there would be no word of a miss, either.
        used = [path for path in before if path.stat().st_mode & 0o777 == 0o400]
        new = set(tmp_path.rglob("*-cache")) - before
        found.append((finished.stdout, finished.stderr.count("PERSISTENT COMPILATION CACHE MISS"), len(new), len(used)))
    (first, compiled, kept, _), (second, again, more, used) = found
    assert compiled == kept == used > 0 and again == more == 0
    assert first == second


def test_an_entry_that_is_not_whole_goes(cache):
    enable_compilation_cache()
    (folder,) = cache.iterdir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert folder.stat().st_mode & 0o77 == 0, "whoever can write there can run code"
    whole = zlib.compress(os.urandom(1000))
    entries = {"whole": whole, "half": whole[:500], "empty": b"", "foreign": b"\x28\xb5\x2f\xfd" + whole}
    for name, data in entries.items():
        (folder / f"{name}-cache").write_bytes(data)
    for _ in range(2):  # the second time, it is known to be whole
        jax.config.update("jax_compilation_cache_dir", None)
        enable_compilation_cache()
        assert [path.name for path in folder.iterdir()] == ["whole-cache"]
        assert (folder / "whole-cache").read_bytes() == whole


def test_the_oldest_of_too_many_go(cache):
    enable_compilation_cache()
    (folder,) = cache.iterdir()
    for age in range(5):
        path = folder / f"{age}-cache"
        path.write_bytes(zlib.compress(os.urandom(900)))
        os.utime(path, (1e9 - age, 1e9 - age))
    jax.config.update("jax_compilation_cache_dir", None)
    enable_compilation_cache(limit=3000)
    assert sorted(path.name for path in folder.iterdir()) == ["0-cache", "1-cache", "2-cache"]


@pytest.mark.parametrize(
    "name, value", [("jax_compilation_cache_dir", "/somewhere"), ("jax_enable_compilation_cache", False)]
)
def test_jaxs_own_settings_come_first(cache, name, value):
    jax.config.update(name, value)
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    enable_compilation_cache()
    assert {name: getattr(jax.config, name) for name in SETTINGS} == before and not cache.exists()


@pytest.mark.parametrize("depth", [0, 1])
def test_a_folder_that_others_can_write(cache, depth):
    enable_compilation_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    [cache, *cache.iterdir()][depth].chmod(0o777)
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None


def test_an_entry_that_another_process_deletes_meanwhile(cache, monkeypatch):
    enable_compilation_cache()
    (folder,) = cache.iterdir()
    for name in "abc":
        (folder / f"{name}-cache").write_bytes(b"half")
    jax.config.update("jax_compilation_cache_dir", None)
    glob = pathlib.Path.glob

    def after_another(path, pattern):
        found = list(glob(path, pattern))
        found[0].unlink()
        return found

    monkeypatch.setattr(pathlib.Path, "glob", after_another)
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert list(folder.iterdir()) == []


def test_without_a_home(cache, monkeypatch):
    monkeypatch.delenv("JAX_VIDEO_CACHE")

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", home)
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_made(cache):
    cache.parent.write_text("a file")
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
