"""Programs that were compiled before are kept, and found again at the next start."""

import os
import zlib

import jax
import pytest
from commands import run, tiny_run

from jax_video.programs import keep_programs

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
    yield tmp_path / "cache" / "programs"
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_second_start_of_a_command_compiles_nothing(tmp_path, tmp_path_factory):
    trained = tiny_run(tmp_path_factory.getbasetemp())
    settings = {"jax_compilation_cache_dir": None, "jax_explain_cache_misses": True}
    arguments = (trained.data / "test", f"--checkpoint={trained.workdir}", "--json")
    found = []
    for _ in range(2):
        env = {"JAX_VIDEO_CACHE": str(tmp_path)}
        finished = run("jax_video.predict", *arguments, env=env, jax_settings=settings)
        assert finished.code == 0, finished.stderr
        found.append((finished.stdout, finished.stderr.count("PERSISTENT COMPILATION CACHE MISS")))
    (first, compiled), (second, again) = found
    assert compiled > 0 and again == 0
    assert first == second


def test_an_entry_that_is_not_whole_goes(cache):
    keep_programs()
    (folder,) = cache.iterdir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert folder.stat().st_mode & 0o77 == 0, "whoever can write there can run code"
    whole = zlib.compress(os.urandom(1000))
    entries = {"whole": whole, "half": whole[:500], "empty": b"", "foreign": b"\x28\xb5\x2f\xfd" + whole}
    for name, data in entries.items():
        (folder / f"{name}-cache").write_bytes(data)
    for _ in range(2):  # the second time, it is known to be whole
        jax.config.update("jax_compilation_cache_dir", None)
        keep_programs()
        assert [path.name for path in folder.iterdir()] == ["whole-cache"]
        assert (folder / "whole-cache").read_bytes() == whole


def test_the_oldest_of_too_many_go(cache):
    keep_programs()
    (folder,) = cache.iterdir()
    for age in range(5):
        path = folder / f"{age}-cache"
        path.write_bytes(zlib.compress(os.urandom(900)))
        os.utime(path, (1e9 - age, 1e9 - age))
    jax.config.update("jax_compilation_cache_dir", None)
    keep_programs(limit=3000)
    assert sorted(path.name for path in folder.iterdir()) == ["0-cache", "1-cache", "2-cache"]


@pytest.mark.parametrize(
    "name, value", [("jax_compilation_cache_dir", "/somewhere"), ("jax_enable_compilation_cache", False)]
)
def test_jaxs_own_settings_come_first(cache, name, value):
    jax.config.update(name, value)
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    keep_programs()
    assert {name: getattr(jax.config, name) for name in SETTINGS} == before and not cache.exists()


def test_a_folder_that_cannot_be_made(cache):
    cache.parent.write_text("a file")
    keep_programs()
    assert jax.config.jax_compilation_cache_dir is None
