"""Copies of what lies in a store or behind a URL: whole, made once, and made again where it has changed there."""

import errno
import os

import fsspec
import pytest
from servers import serving

from jax_video.data import copies
from jax_video.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    """What is served."""
    (tmp_path / "there" / "run" / "deep er").mkdir(parents=True)
    (tmp_path / "there" / "run" / "a.json").write_bytes(b"1" * 100)
    (tmp_path / "there" / "run" / "deep er" / "b.bin").write_bytes(b"2" * 3_000_000)
    return tmp_path / "there" / "run"


@pytest.fixture
def web(folder):
    with serving(folder.parent) as server:
        yield server


def write(path, data, seconds=5):
    """Other content, some seconds later: a web server tells whole ones."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, (status.st_atime + seconds, status.st_mtime + seconds))


def fetch(url, *names):
    with copies.held(url) as copy:
        found = copy.fetch(names)
        return [(copy.folder / name).read_bytes() for name in names] if found else None


def test_a_copy_from_a_web_server_is_made_once_and_again_where_it_has_changed(folder, web):
    names = ("a.json", "deep er/b.bin")
    assert fetch(f"{web.url}/run/", *names) == [b"1" * 100, b"2" * 3_000_000]
    web.asked.clear()
    assert fetch(f"{web.url}/run", *names) == [b"1" * 100, b"2" * 3_000_000]
    assert {method for method, *_ in web.asked} == {"HEAD"}
    write(folder / "a.json", b"3" * 100)  # as large as before
    web.asked.clear()
    assert fetch(f"{web.url}/run", *names) == [b"3" * 100, b"2" * 3_000_000]
    assert [path for method, path, _ in web.asked if method == "GET"] == ["/run/a.json"]


def test_a_copy_from_a_store_is_made_once_and_again_where_it_has_changed():
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/run/a.json", b"1")
    assert fetch("memory://bucket/run", "a.json") == [b"1"]
    store.pipe("/bucket/run/a.json", b"2")
    assert fetch("memory://bucket/run", "a.json") == [b"2"]
    assert fetch("memory://bucket/run", "a.json", "nosuch") is None
    with copies.held("memory://bucket") as copy:
        assert copy.names("run") == ["run/a.json"]
        assert copy.names("nosuch") == []
    store.rm("/bucket", recursive=True)


def test_a_damaged_copy_is_made_again(web, cache):
    assert fetch(f"{web.url}/run", "a.json")
    (here,) = cache.rglob("a.json")
    here.write_bytes(b"1" * 50)
    assert fetch(f"{web.url}/run", "a.json") == [b"1" * 100]


def test_what_is_in_a_folder_of_a_web_server(web):
    """Found by its pages of links."""
    with copies.held(web.url) as copy:
        assert copy.names("run") == ["run/a.json", "run/deep er/b.bin"]
        assert copy.names("nosuch") == []


def test_a_page_of_links_to_other_places(folder, web):
    links = [
        "..%2f",
        "../",
        "/run/a.json",
        "//example.com/x",
        "a.json",
        "a.json?C=M",
        "%2e%2e%2fpasswd",
        "x/../y",
        "..",
    ]
    (folder / "index.html").write_text("".join(f'<a href="{link}">x</a>' for link in links))
    with copies.held(web.url) as copy:
        assert copy.names("run") == ["run/a.json", "run/y"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_copy_that_was_cut_is_gone_on_with(web, cache, ranges):
    web.ranges, web.cut = ranges, {"/run/deep%20er/b.bin": 2_500_000}
    with pytest.raises(UserError, match="cannot copy .*/run .* there is no whole copy .* goes on with what is missing"):
        fetch(f"{web.url}/run", "a.json", "deep er/b.bin")
    assert not [*cache.rglob("b.bin"), *cache.rglob("a.json")], "it is no copy before all of it is"
    web.asked.clear()
    assert fetch(f"{web.url}/run", "a.json", "deep er/b.bin") == [b"1" * 100, b"2" * 3_000_000]
    starts = {path: start for method, path, start in web.asked if method == "GET"}
    assert set(starts) == {"/run/deep%20er/b.bin"}, "a.json was there already"
    assert (starts["/run/deep%20er/b.bin"] > 1_000_000) == ranges
    assert not [*cache.rglob("*.part")]


def test_what_grew_too_far_begins_anew(web, cache):
    web.cut = {"/run/deep%20er/b.bin": 2_500_000}
    with pytest.raises(UserError, match="cannot copy"):
        fetch(f"{web.url}/run", "deep er/b.bin")
    (part,) = cache.rglob("*.part")
    part.write_bytes(b"9" * 4_000_000)
    assert fetch(f"{web.url}/run", "deep er/b.bin") == [b"2" * 3_000_000]


def test_what_grew_of_another_version_is_not_gone_on_with(folder, web):
    web.cut = {"/run/deep%20er/b.bin": 2_500_000}
    with pytest.raises(UserError, match="cannot copy"):
        fetch(f"{web.url}/run", "deep er/b.bin")
    write(folder / "deep er" / "b.bin", b"4" * 3_000_000)
    assert fetch(f"{web.url}/run", "deep er/b.bin") == [b"4" * 3_000_000]


def test_files_that_have_changed_take_their_places_together(folder, web, capsys):
    """Where the second one is cut, the copy from before serves, of both."""
    names = ("a.json", "deep er/b.bin")
    before = fetch(f"{web.url}/run", *names)
    write(folder / "a.json", b"5" * 100)
    write(folder / "deep er" / "b.bin", b"5" * 3_000_000)
    web.cut = {"/run/deep%20er/b.bin": 10}
    assert fetch(f"{web.url}/run", *names) == before
    assert "taking the copy from before" in capsys.readouterr().err
    assert fetch(f"{web.url}/run", *names) == [b"5" * 100, b"5" * 3_000_000]


def test_without_a_network_the_copy_from_before_serves(folder, capsys):
    with serving(folder.parent) as web:
        assert fetch(f"{web.url}/run", "a.json")
        assert fetch(f"{web.url}/run", "nosuch") is None
    assert fetch(f"{web.url}/run", "a.json") == [b"1" * 100]
    assert "taking the copy from before" in capsys.readouterr().err
    assert fetch(f"{web.url}/run", "nosuch") is None
    with pytest.raises(UserError, match="cannot copy .*ConnectionError.* there is no whole copy of it from before"):
        fetch(f"{web.url}/run", "deep er/b.bin")
    with copies.held(f"{web.url}/run") as copy, pytest.raises(UserError, match="cannot copy"):
        copy.names("deep er")


def test_a_server_that_refuses(web):
    web.status = {"/run/a.json": 403}
    with pytest.raises(UserError, match="cannot copy .*403.* rights"):
        fetch(f"{web.url}/run", "a.json")
    web.status = {"/run/a.json": 410}
    assert fetch(f"{web.url}/run", "a.json") is None


def test_a_password_in_a_url_is_not_shown(folder):
    with serving(folder.parent) as web:
        pass
    with pytest.raises(UserError, match="cannot copy") as caught:
        fetch(web.url.replace("//", "//me:secret@") + "/run", "a.json")
    assert "secret" not in str(caught.value)
    with serving(folder.parent) as web, pytest.raises(UserError, match="cannot copy .*403") as caught:
        web.status = {"/run/a.json": 403}  # the message of the package has the address
        fetch(web.url.replace("//", "//me:secret@") + "/run", "a.json")
    assert "secret" not in str(caught.value)


def test_a_full_disk_is_no_fault_of_the_store(web, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copies, "_read_on", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(f"{web.url}/run", "a.json")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nosuch://bucket/run", "no such kind of store. Expected a local path, https://"),
        ("s3://b/run", "pip install s3fs"),
    ],
)
def test_a_store_that_cannot_be_opened(url, expected, monkeypatch):
    def find(scheme):
        raise ImportError("Install it") if scheme == "s3" else ValueError("Protocol not known")

    monkeypatch.setattr(fsspec, "get_filesystem_class", find)
    with pytest.raises(UserError, match=expected):
        fetch(url, "a.json")
