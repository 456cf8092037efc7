import dataclasses
import errno
import json
import os
import pathlib
import signal

import cv2
import numpy as np
import pytest

from jax_video.data.decoding import probing, video, workers
from jax_video.data.manifest import MISSING, Manifest, Video
from jax_video.data.preparing import checks
from jax_video.data.sources import motions
from jax_video.errors import UnavailableError


def encode(path: pathlib.Path, frames: int = 4, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    motions.encode(path, np.random.default_rng(seed).integers(0, 255, (frames, 32, 48, 3), np.uint8))


def manifest(root: pathlib.Path, **splits: str) -> Manifest:
    """A set, not checked yet, of the files <name>.mp4, each with its split."""
    rows = [Video(f"{name}.mp4", 0, split, 0, 0.0, 0, 0, None, name) for name, split in splits.items()]
    return Manifest("mine", ("a",), str(root), tuple(rows))


def check(prepared: Manifest, out: pathlib.Path, processes: int = 1, **options) -> tuple[Manifest, dict[str, str]]:
    """Looks at the files, in one process where nothing else is said: it takes half a second to start."""
    out.mkdir(exist_ok=True)
    return checks.check(prepared, out, processes=processes, **options)


def errors(prepared: Manifest) -> dict[str, str | None]:
    return {row.path.removesuffix(".mp4"): row.error for row in prepared.videos}


def swap(path: pathlib.Path, content: bytes) -> None:
    """Other content, of which neither size nor time tells."""
    status = path.stat()
    path.write_bytes(content[: status.st_size].ljust(status.st_size, b"."))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_rows_say_what_was_found(tmp_path):
    encode(tmp_path / "good.mp4", 5)
    (tmp_path / "empty.mp4").touch()
    asked = manifest(tmp_path, good="train", empty="train", gone="test", never="test")
    asked = dataclasses.replace(asked, videos=(*asked.videos[:3], dataclasses.replace(asked.videos[3], error=MISSING)))
    found, doubles = check(asked, tmp_path / "out", processes=2)
    assert doubles == {}
    good, empty, gone, never = found.videos
    info = probing.probe(tmp_path / "good.mp4")
    expected = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    assert good == dataclasses.replace(asked.videos[0], **expected)
    assert (good.frames, good.width, good.height) == (5, 48, 32)
    assert (empty.error, gone.error, never.error) == ("empty file", "no such file", MISSING)
    assert all((row.frames, row.fps, row.width, row.height) == (0, 0.0, 0, 0) for row in (empty, gone, never))
    found.write(tmp_path / "manifest.jsonl")
    assert Manifest.read(tmp_path / "manifest.jsonl") == found


def test_only_what_is_new_or_has_changed_is_looked_at_again(tmp_path):
    for name in "abc":
        encode(tmp_path / f"{name}.mp4")
    asked = manifest(tmp_path, a="train", b="train", c="val")
    first, _ = check(asked, tmp_path / "out")
    (text,) = {(tmp_path / "out" / "checked.jsonl").read_bytes()}

    swap(tmp_path / "a.mp4", b"text")
    assert check(asked, tmp_path / "out")[0] == first
    assert (tmp_path / "out" / "checked.jsonl").read_bytes() == text
    os.utime(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"")
    second, _ = check(asked, tmp_path / "out")
    assert errors(second)["a"].startswith("not a readable video") and errors(second)["b"] == "empty file"
    assert second.videos[2] == first.videos[2]

    swap(tmp_path / "c.mp4", b"text")
    (tmp_path / "out" / "checked.jsonl").unlink()
    assert errors(check(asked, tmp_path / "out")[0])["c"].startswith("not a readable video")


def test_a_fast_look_does_not_do_for_a_full_one_but_a_full_one_for_a_fast_one(tmp_path):
    encode(tmp_path / "b.mp4", 9)
    content = (tmp_path / "b.mp4").read_bytes()
    start, end = content.index(b"mdat"), content.index(b"moov") - 4
    middle = (start + end) // 2  # The first frame is decoded by a fast look too.
    (tmp_path / "b.mp4").write_bytes(content[:middle] + b"\xff" * (end - middle) + content[end:])
    asked = manifest(tmp_path, b="train")
    fast, _ = check(asked, tmp_path / "out", level="fast")
    assert errors(fast) == {"b": None} and fast.videos[0].frames == 9
    full, _ = check(asked, tmp_path / "out", level="full")
    assert errors(full)["b"].startswith("damaged: undecodable from frame ")
    assert check(asked, tmp_path / "out", level="fast")[0] == full


OLD = b'{"path": "c.mp4", "size": 1, "modified": 1, "span": null, "level": "slow", "digest": null, "reason": "x", ' + (
    b'"video": null}\n'
)


@pytest.mark.parametrize("torn", [b'{"path": "c.mp4", "si', b"\xff\n[]\nnull\n", b'{"path": "b.mp4"}\n{"path"', OLD])
def test_a_line_that_is_not_whole_does_not_count(torn, tmp_path):
    for name in "abc":
        encode(tmp_path / f"{name}.mp4")
    asked = manifest(tmp_path, a="train", b="train", c="val")
    whole = check(asked, tmp_path / "out")
    memory = tmp_path / "out" / "checked.jsonl"
    text = memory.read_bytes()
    lines = text.splitlines(keepends=True)
    memory.write_bytes(lines[1] + lines[0] + torn)
    assert check(asked, tmp_path / "out") == whole
    assert memory.read_bytes() == text
    assert os.listdir(tmp_path / "out") == ["checked.jsonl"]


def test_all_is_looked_at_again_on_demand_or_by_another_decoder(tmp_path, monkeypatch):
    encode(tmp_path / "a.mp4")
    asked = manifest(tmp_path, a="train")
    for change in ({"recheck": True}, {"decoder": "PyAV 99.0.0"}):
        decoder = change.pop("decoder", None)
        encode(tmp_path / "a.mp4")
        assert errors(check(asked, tmp_path / "out", **change)[0]) == {"a": None}
        swap(tmp_path / "a.mp4", b"text")
        assert errors(check(asked, tmp_path / "out")[0]) == {"a": None}
        if decoder:
            monkeypatch.setattr(video, "DECODER", decoder)
        assert errors(check(asked, tmp_path / "out", **change)[0])["a"].startswith("not a readable video")
        (line,) = (tmp_path / "out" / "checked.jsonl").read_text().splitlines()
        assert json.loads(line)["decoder"] == video.DECODER


def _breaks(task: tuple) -> None:
    """What PyAV says of a keyword that it does not know any more."""
    raise TypeError("open() got an unexpected keyword argument")


def _is_lost(task: tuple) -> None:
    raise UnavailableError(task[0], "cannot be read (Stale file handle)")


def _has_no_memory(task: tuple) -> None:
    """The system's own, where the process has hardly any."""
    raise UnavailableError(task[0], "cannot be read (Cannot allocate memory)") from OSError(errno.ENOMEM, "")


def _is_killed(task: tuple) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _cannot_start(task: tuple) -> None:
    os._exit(1)


@pytest.mark.parametrize(
    "look, reason",
    [
        (_breaks, "not looked at: TypeError: open() got an unexpected keyword argument"),
        (_is_lost, "not looked at: cannot be read (Stale file handle)"),
        (_has_no_memory, "not looked at: cannot be read (Cannot allocate memory)"),
        (_is_killed, "not looked at: the process that looked at it was ended (SIGKILL)"),
        (_cannot_start, "not looked at: the process that looked at it was ended (exit code 1)"),
    ],
)
def test_what_is_no_verdict_on_a_file_is_shown_and_not_remembered(look, reason, tmp_path, monkeypatch, capfd):
    for name in "ab":
        encode(tmp_path / f"{name}.mp4")
    asked = manifest(tmp_path, a="train", b="val")
    with monkeypatch.context() as patch:
        patch.setattr(checks, "_examine", look)
        assert errors(check(asked, tmp_path / "out")[0]) == {"a": reason, "b": reason}
    assert (tmp_path / "out" / "checked.jsonl").read_bytes() == b""
    shown = capfd.readouterr().err
    assert shown.count("Traceback") == (look is _breaks) and ("in _breaks" in shown) == (look is _breaks)
    assert errors(check(asked, tmp_path / "out")[0]) == {"a": None, "b": None}


def test_the_memory_is_of_the_present_set_in_its_order(tmp_path):
    for name in "abc":
        encode(tmp_path / f"{name}.mp4")
    check(manifest(tmp_path, c="train", a="train", b="val"), tmp_path / "out", processes=2)
    assert paths(tmp_path) == ["c.mp4", "a.mp4", "b.mp4"]
    check(manifest(tmp_path, b="train", c="train"), tmp_path / "out")
    assert paths(tmp_path) == ["b.mp4", "c.mp4"]


def paths(folder: pathlib.Path) -> list[str]:
    return [json.loads(line)["path"] for line in (folder / "out" / "checked.jsonl").read_text().splitlines()]


def test_a_name_may_be_any_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xe2\x82\xac")
    encode(tmp_path / "x.mp4")
    (tmp_path / "x.mp4").rename(tmp_path / f"{name}.mp4")
    asked = manifest(tmp_path, **{name: "train"})
    found, _ = check(asked, tmp_path / "out")
    swap(tmp_path / f"{name}.mp4", b"text")
    assert check(asked, tmp_path / "out")[0] == found and errors(found) == {name: None}


def test_a_part_of_a_file_is_known_by_its_seconds(tmp_path):
    encode(tmp_path / "a.mp4", 50)  # 2 s
    whole = manifest(tmp_path, a="train")
    for span, expected in (((0.4, 0.8), (10, 10)), ((1.0, 1.2), (25, 5)), ((0.0, 0.4), (0, 10)), (None, (0, 50))):
        asked = dataclasses.replace(whole, videos=(dataclasses.replace(whole.videos[0], span=span),))
        found, _ = check(asked, tmp_path / "out")
        assert (found.videos[0].first, found.videos[0].frames, found.videos[0].span) == (*expected, span)
        swap(tmp_path / "a.mp4", (tmp_path / "a.mp4").read_bytes())
        assert check(found, tmp_path / "out")[0] == found


def test_a_part_that_is_broken_is_still_a_part_when_its_file_is_mended(tmp_path):
    encode(tmp_path / "a.mp4", 50)
    content = (tmp_path / "a.mp4").read_bytes()
    whole = manifest(tmp_path, a="train")
    asked = dataclasses.replace(whole, videos=(dataclasses.replace(whole.videos[0], span=(0.0, 0.4)),))
    (tmp_path / "a.mp4").write_bytes(b"")
    found, _ = check(asked, tmp_path / "out")
    assert errors(found) == {"a": "empty file"}
    (tmp_path / "a.mp4").write_bytes(content)
    found, _ = check(found, tmp_path / "out")
    assert (found.videos[0].frames, found.videos[0].error) == (10, None)


@pytest.mark.parametrize("level", checks.LEVELS)
def test_a_part_that_reaches_beyond_its_file_is_remarked_unless_its_end_is_rounded(level, tmp_path):
    encode(tmp_path / "a.mp4", 250)  # 10 s
    rounded = [(0.0, 10.0), (8.0, 10.9), (0.0, 11.0), (9.9, 10.4), (2.0, 3.0)]
    beyond = {(0.0, 12.0): "10.0 of its 12.0", (9.0, 11.5): "1.0 of its 2.5", (2.0, 250.0): "8.0 of its 248.0"}
    row = manifest(tmp_path, a="train").videos[0]
    asked = Manifest("m", ("a",), str(tmp_path), tuple(dataclasses.replace(row, span=s) for s in (*rounded, *beyond)))
    expected = {
        dataclasses.replace(row, span=span).name: f"reaches beyond its file: {there} s are there"
        for span, there in beyond.items()
    }
    for _ in ("first", "again"):
        found, remarks = check(asked, tmp_path / "out", level=level)
        assert remarks == expected and set(errors(found).values()) == {None}
    assert "  reaches beyond its file         3         0         0         3" in checks.table(found, remarks)


def test_too_few_frames_and_another_timeout_are_judged_anew(tmp_path, monkeypatch):
    encode(tmp_path / "a.mp4", 200)
    asked = manifest(tmp_path, a="train")

    def too_slow(tasks, *_, timeout, **__):
        return ((index, workers.late(timeout)) for index, _ in enumerate(tasks))

    with monkeypatch.context() as patch:
        patch.setattr(workers, "run", too_slow)
        for seconds in (1.0, 2.0):
            assert errors(check(asked, tmp_path / "out", timeout=seconds)[0]) == {"a": f"not done after {seconds:g} s"}
    assert errors(check(asked, tmp_path / "out", timeout=2.0)[0]) == {"a": "not done after 2 s"}  # as it is stored
    assert errors(check(asked, tmp_path / "out", timeout=60.0)[0]) == {"a": None}
    short, _ = check(asked, tmp_path / "out", min_frames=201)
    assert errors(short) == {"a": "too short: 200 frames, expected at least 201"} and short.videos[0].frames == 0
    assert errors(check(asked, tmp_path / "out", min_frames=200)[0]) == {"a": None}


def test_what_is_trained_on_and_tested_as_well_is_found_by_content(tmp_path):
    encode(tmp_path / "test.mp4")
    whole = (tmp_path / "test.mp4").read_bytes()
    whole += (1_000_008).to_bytes(4, "big") + b"free" + bytes(1_000_000)  # A part of the container without meaning.
    changed = bytearray(whole)
    changed[len(whole) // 4] = 1  # Where a digest does not look.
    other = (tmp_path / "test.mp4").read_bytes()
    contents = {"test": whole, "same": whole, "near": bytes(changed), "other": other, "again": whole}
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    for name in ("broken", "broken_test"):
        (tmp_path / f"{name}.mp4").write_bytes(b"text")
    splits = {"same": "train", "near": "train", "other": "train", "again": "val", "broken": "train"}
    found, doubles = check(manifest(tmp_path, **splits, test="test", broken_test="test"), tmp_path / "out", processes=2)
    said = "duplicate of a test video: test.mp4"
    assert doubles == {"same.mp4": said, "again.mp4": said}
    assert {name for name, error in errors(found).items() if error is None} == contents.keys()
    # One that was tested already is found when the other comes.
    _, doubles = check(manifest(tmp_path, test="train"), tmp_path / "out")
    assert doubles == {}
    _, doubles = check(manifest(tmp_path, test="train", same="test"), tmp_path / "out")
    assert doubles == {"test.mp4": "duplicate of a test video: same.mp4"}


def test_a_folder_of_pictures_is_a_video(tmp_path):
    for index in range(3):
        picture = np.full((16, 24, 3), index, np.uint8)
        for name in ("a.mp4", "b.mp4"):  # A folder's name is as it is.
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"img_{index:05d}.jpg"), picture)
    asked = manifest(tmp_path, a="train", b="test")
    found, doubles = check(asked, tmp_path / "out")
    assert [(row.frames, row.width, row.height) for row in found.videos] == [(3, 24, 16)] * 2
    assert doubles == {"a.mp4": "duplicate of a test video: b.mp4"}
    cv2.imwrite(str(tmp_path / "a.mp4" / "img_00003.jpg"), picture)
    assert check(asked, tmp_path / "out")[0].videos[0].frames == 4
    for path in (tmp_path / "a.mp4").iterdir():  # written over: the folder stays as it is
        cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
    assert check(asked, tmp_path / "out")[0].videos[0].height == 20


def test_a_copy_of_a_folder_of_pictures_is_found(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).mkdir()
        for index in range(5):
            shade = 200 if (name, index) == ("c.mp4", 1) else index  # where a digest does not look
            cv2.imwrite(str(tmp_path / name / f"img_{index:05d}.png"), np.full((16, 24, 3), shade, np.uint8))
    _, doubles = check(manifest(tmp_path, a="train", b="test", c="val"), tmp_path / "out")
    assert doubles == {"a.mp4": "duplicate of a test video: b.mp4"}


def test_the_table_counts_kinds_of_reasons_for_each_split():
    reasons = {
        "damaged: undecodable from frame 3 (x)": 1,
        "damaged: undecodable from frame 4": 2,
        "empty file": 1,
        "not a readable video (y)": 1100,
        None: 2000,
        MISSING: 3,
    }
    rows = [
        Video(f"{number}/{index}", 0, "train", 0, 0.0, 0, 0, reason, "")
        for number, (reason, count) in enumerate(reasons.items())
        for index in range(count)
    ]
    rows.append(Video("test", 0, "test", 9, 0.0, 9, 9, None, ""))
    text = checks.table(Manifest("mine", ("a", "b"), "/x", tuple(rows)), {"4/0": "duplicate of a test video: test"})
    assert text.splitlines() == [
        "mine: 2 classes",
        "                                train       val      test       all",
        "readable                        2,000         0         1     2,001",
        "  duplicate of a test video         1         0         0         1",
        "missing                             3         0         0         3",
        "not a readable video            1,100         0         0     1,100",
        "damaged                             3         0         0         3",
        "empty file                          1         0         0         1",
        "all                             3,107         0         1     3,108",
    ]


def test_reasons_are_written_in_the_order_of_the_set(tmp_path):
    asked = manifest(tmp_path, b="train", a="test", c="val")
    checks.write_reasons(tmp_path / "x.csv", asked, {"c.mp4": "one, two", "b.mp4": "three"})
    text = (tmp_path / "x.csv").read_text()
    assert text.splitlines() == ["split,path,reason", "train,b.mp4,three", 'val,c.mp4,"one, two"']
    assert os.listdir(tmp_path) == ["x.csv"]
