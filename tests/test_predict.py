"""`python -m jax_video.predict`: files, folders and globs in, classes out, from a run's folder alone."""

import contextlib
import copy
import csv
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import time

import av
import jax
import numpy as np
import pytest
from commands import TinyRun, check_user_error, run, tiny_run

import jax_video
from jax_video.data import encoding, processes
from jax_video.data.decoding import video
from jax_video.data.manifest import Manifest
from jax_video.data.sources import files
from jax_video.errors import UserError
from jax_video.testing import predictions

PREDICT = "jax_video.predict"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TinyRun:
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def elsewhere(trained, tmp_path_factory) -> pathlib.Path:
    """A folder with `run`, a copy of the run's checkpoints, and the test videos in `videos`: nothing else is left."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(trained.workdir / "checkpoints", folder / "run" / "checkpoints")
    for path in sorted((trained.data / "test").rglob("*.mp4")):
        (folder / "videos" / path.parent.name).mkdir(parents=True)
        shutil.copy(path, folder / "videos" / path.parent.name)
    return folder


@pytest.fixture(scope="module")
def tested(trained) -> dict[str, list[float]]:
    """The test's own scores, {name of the file: scores}."""
    rows = map(json.loads, (trained.workdir / "predictions.jsonl").read_text().splitlines())
    return {pathlib.Path(row["video"]).name: row["scores"] for row in rows}


def test_files_folders_and_globs(elsewhere, trained, tested):
    """All say the same as the run's own test, in JSON with every class."""
    classes = Manifest.read(trained.data / "manifest.jsonl").classes
    arguments = ["videos/left/left_000.mp4", "videos", "videos/*/*.mp4", "videos/u*"]
    finished = run(PREDICT, *arguments, "--checkpoint=run", "--top=8", "--json", cwd=elsewhere)
    assert finished.code == 0, finished.stderr
    assert "Traceback" not in finished.stderr and "Warning" not in finished.stderr
    rows = [json.loads(line) for line in finished.stdout.splitlines()]
    assert rows[0]["video"] == "videos/left/left_000.mp4"
    assert sorted(pathlib.Path(row["video"]).name for row in rows) == sorted(tested), "each video once"
    for row in rows:
        scores = {entry["name"]: entry["score"] for entry in row["classes"]}
        assert set(scores) == set(classes) and len(row["classes"]) == 8
        assert sum(scores.values()) == pytest.approx(1, abs=1e-6)
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        expected = tested[pathlib.Path(row["video"]).name]
        assert [scores[name] for name in classes] == pytest.approx(expected, abs=1e-6)


def test_a_table(elsewhere, tested):
    video = "videos/growing/growing_000.mp4"
    finished = run(PREDICT, video, "--checkpoint", "run", "--top", "3", cwd=elsewhere)
    assert finished.code == 0, finished.stderr
    first, *lines = finished.stdout.splitlines()
    assert first == video
    scores = [float(re.fullmatch(r"  +(\d\.\d{4})  (\w+)", line)[1]) for line in lines]
    assert scores == pytest.approx(sorted(tested["growing_000.mp4"], reverse=True)[:3], abs=1e-4)


def test_the_command_that_a_run_ends_with(trained):
    python, flag, module, *arguments = shlex.split(trained.finished.stdout.splitlines()[-1])
    assert (python, flag, module) == ("python", "-m", PREDICT)
    finished = run(module, *arguments)
    assert finished.code == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 1 + 5


def test_broken_files_are_named_and_the_others_classified(elsewhere, tmp_path):
    (tmp_path / "text\x1b[31m\n.mp4").write_text("not a video\n" * 100)
    (tmp_path / "empty.avi").touch()
    os.mkfifo(tmp_path / "pipe")  # to open it would take for ever
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile pipe\nduration 0.3\n")
    whole = (elsewhere / "videos" / "up" / "up_000.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    odd = tmp_path / "a b\udcff é\u202e\x1b\x7f.mp4"  # a name that is no UTF-8, and would command a terminal
    odd.write_bytes(whole)
    (tmp_path / "notes.txt").write_text("no video, and not looked at")
    finished = run(PREDICT, tmp_path, f"--checkpoint={elsewhere / 'run'}", "--json")
    check_user_error(finished, "4 of 5 files could not be classified")
    assert [json.loads(line)["video"] for line in finished.stdout.splitlines()] == [str(odd)]
    for name, reason in (
        (r"text\x1b[31m\x0a.mp4", "not a readable video"),
        ("empty.avi", "empty file"),
        ("cut.mp4", ""),
        ("list.mp4", ""),
    ):
        assert f"{tmp_path / name}: {reason}" in finished.stderr
    assert "notes.txt" not in finished.stderr and "\u202e" not in finished.stdout

    finished = run(PREDICT, tmp_path / "empty.avi", f"--checkpoint={elsewhere / 'run'}")
    check_user_error(finished, "1 of 1 files could not be classified")
    assert finished.stdout == ""


def test_a_damaged_checkpoint(elsewhere, tmp_path):
    shutil.copytree(elsewhere / "run", tmp_path / "run")
    for path in (tmp_path / "run").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:100])
    video = elsewhere / "videos" / "up" / "up_000.mp4"
    check_user_error(run(PREDICT, video, f"--checkpoint={tmp_path / 'run'}"), "damaged")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["videos"], ["--checkpoint is missing: the folder of a run"]),
        (["videos", "--checkpoint="], ["--checkpoint is empty: give it a value, or leave it out"]),
        (["--checkpoint=run"], ["no video given: name files, folders or globs; see --help"]),
        (["nosuch.mp4", "--checkpoint=run"], ["nosuch.mp4: no such file"]),
        (["videos/*.avi", "--checkpoint=run"], ["videos/*.avi: no such file, or no video in that folder or glob"]),
        (["run/checkpoints", "--checkpoint=run"], ["run/checkpoints: no such file, or no video in that folder"]),
        (["videos", "--checkpoint=videos"], ["no checkpoint in", "videos/checkpoints: is this a run's folder?"]),
        (["videos", "--checkpoint=nosuch"], ["no checkpoint in", "nosuch/checkpoints: is this a run's folder?"]),
        (["videos", "--checkpoint=run", "--top=0"], ["--top=0", "positive"]),
        (["videos", "--checkpoint=run", "--top=every"], ["--top=every: expected a positive number of classes, or all"]),
        (["videos", "--checkpoint=run", "--batch=0"], ["--batch=0", "positive"]),
        (["videos", "--checkpoint=run", "--clips=0"], ["--clips=0", "positive"]),
        (["videos", "--checkpoint=run", "--clips=few"], ["--clips=few"]),
        (["videos", "--checkpoint=run", "--best"], ["Unknown command line flag 'best'", "See --help"]),
    ],
)  # fmt: skip
def test_mistakes(elsewhere, arguments, expected):
    check_user_error(run(PREDICT, *arguments, cwd=elsewhere), *expected)
    assert not (elsewhere / "nosuch").exists() and not (elsewhere / "videos" / "checkpoints").exists()


def test_find_keeps_the_order_and_takes_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.mp4", "b/10.mp4", "b/c/1.AVI", "b/notes.txt", "a.mkv", "[x].mp4"):
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(name).touch()
    assert files.named(["b", "a.mkv", "b/2.mp4", "*.mkv"]) == ["b/2.mp4", "b/10.mp4", "b/c/1.AVI", "a.mkv"]
    assert files.named(["[x].mp4"]) == ["[x].mp4"], "a name is a name before it is a glob"
    assert files.named(["**/*.AVI"]) == ["b/c/1.AVI"]
    assert files.named(["b/*"]) == ["b/10.mp4", "b/2.mp4", "b/c/1.AVI", "b/notes.txt"], "a glob's folders are searched"
    with pytest.raises(UserError, match="c.mp4: no such file"):
        files.named(["c.mp4"])


def test_a_folder_of_pictures_is_a_video(tmp_path):
    for name in ("walk/image_00001.jpg", "walk/image_00002.jpg", "run/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pictures, file = str(tmp_path / "walk"), str(tmp_path / "run" / "a.mp4")
    assert files.named([pictures]) == [pictures]
    assert files.named([str(tmp_path)]) == [file, pictures]


def test_classify_is_the_same_from_python(elsewhere, tested):
    paths = [str(path) for path in sorted((elsewhere / "videos").rglob("*.mp4"))[:2]]
    trained = jax_video.load(elsewhere / "run")
    scores, faults = trained.scores([*paths, str(elsewhere / "nosuch.mp4")])
    assert len(trained.classes) == 8 and list(scores) == [0, 1]
    assert faults == {2: "no such file"}
    for place, path in enumerate(paths):
        np.testing.assert_allclose(scores[place], tested[pathlib.Path(path).name], atol=1e-6)


@pytest.fixture(scope="module")
def many(elsewhere) -> pathlib.Path:
    """A folder of the eight videos, two of them with odd names, and of one that is none."""
    folder = elsewhere / "many"
    folder.mkdir()
    names = ["a\n\u2028b.mp4", "a\udcff.mp4", *(f"v{number}.mp4" for number in range(2, 8))]
    for name, path in zip(names, sorted((elsewhere / "videos").rglob("*.mp4")), strict=True):
        shutil.copy(path, folder / name)
    (folder / "broken.mp4").write_text("not a video")
    return folder


def written(path: pathlib.Path) -> dict[str, dict]:
    """The lines of a file of predictions by the names of the videos, as a reader of UTF-8 sees them."""
    rows = [json.loads(line) for line in path.read_bytes().decode("utf-8").splitlines()]
    assert len({row["video"] for row in rows}) == len(rows), "each video once"
    return {row["video"]: row for row in rows}


def test_a_file_of_predictions(elsewhere, many, tested):
    """Once it is whole, the same command does nothing, and ends as before."""
    command = (PREDICT, "many", "--checkpoint=run", "--out=new/p.jsonl", "--top=all", "--batch=5")
    finished = run(*command, cwd=elsewhere)
    check_user_error(finished, "1 of 9 files could not be classified")
    assert finished.stdout == "" and "many/broken.mp4: not a readable video" in finished.stderr
    rows = written(elsewhere / "new" / "p.jsonl")
    assert {*rows} == {os.path.join("many", name) for name in os.listdir(many)}
    assert rows.pop("many/broken.mp4")["error"].startswith("not a readable video")
    assert [*rows] == [f"many/{name}" for name in files_in_order(many) if name != "broken.mp4"]
    for scores in rows.values():
        found = {row["name"]: row["score"] for row in scores["classes"]}
        assert any(sorted(found.values()) == pytest.approx(sorted(each), abs=1e-6) for each in tested.values())
        assert [*found.values()] == sorted(found.values(), reverse=True) and len(found) == 8
    whole = (elsewhere / "new" / "p.jsonl").read_bytes()
    again = run(*command, cwd=elsewhere)
    check_user_error(again, "1 of 9 files could not be classified")
    assert (elsewhere / "new" / "p.jsonl").read_bytes() == whole and "9 of them are in new/p.jsonl" in again.stderr
    assert "many/broken.mp4: not a readable video" in again.stderr


def files_in_order(folder: pathlib.Path) -> list[str]:
    return [os.path.basename(path) for path in files.named([str(folder)])]


@pytest.mark.parametrize("torn", [b'{"vid', b'{"video": "b.mp4", "cla', b"\0" * 99, b""])
def test_a_torn_last_line_is_dropped(elsewhere, tmp_path, torn):
    """A whole one that lacks only its end is not."""
    trained, out = jax_video.load(elsewhere / "run"), tmp_path / "p.jsonl"
    with predictions.File(out, trained) as file:
        for name in ("a.mp4", "b\n\udcff.mp4"):
            file.write(predictions.of(name, "empty file", trained.classes, 5))
    whole = out.read_bytes()
    out.write_bytes(whole + torn if torn else whole[:-1])
    with predictions.File(out, trained) as file:
        with pytest.raises(UserError, match="p.jsonl is written by another process"):
            predictions.File(out, trained)
        assert [*file.done.items()] == [((name, (None, None)), "empty file") for name in ("a.mp4", "b\n\udcff.mp4")]
        file.write(predictions.of("c.mp4", np.full(8, 1 / 8), trained.classes, 2))
    assert [*written(out)] == ["a.mp4", "b\n\udcff.mp4", "c.mp4"] and out.read_bytes().startswith(whole)


def test_what_other_limits_have_said_is_asked_again(elsewhere, tested):
    """A timeout, or the limit of memory, is no fault of the file's."""
    trained, name = jax_video.load(elsewhere / "run"), "videos/left/left_000.mp4"
    stamp = predictions.stamp(str(elsewhere / name))
    for fault, flag in (("not done after 0.001 s", "--timeout=60"), ("needs more than 1 GiB of memory", "--timeout=0")):
        path = elsewhere / f"{flag}.jsonl"
        with predictions.File(path, trained, top=1) as out:
            out.write(predictions.of(name, fault, trained.classes, 1), stamp)
        finished = run(PREDICT, name, "--checkpoint=run", "--top=1", flag, f"--out={path}", cwd=elsewhere)
        assert finished.code == 0, finished.stderr
        assert "are in" not in finished.stderr and path.read_text().count("\n") == 2


def test_predictions_of_something_else_are_left_alone(elsewhere, tmp_path):
    trained = jax_video.load(elsewhere / "run")
    with predictions.File(tmp_path / "p.jsonl", trained, top=5) as out:
        out.write(predictions.of("a.mp4", "empty file", trained.classes, 5))
    other = copy.copy(trained)
    other._weights = jax.tree.map(lambda leaf: leaf * 1.0001, trained.weights)
    smaller = copy.copy(trained)
    smaller._task = dataclasses.replace(trained.task, sampling=dataclasses.replace(trained.sampling, stride=2))
    for run_, kind, message in (
        (trained, {"top": None}, "p.jsonl has predictions with another --top. Give another file"),
        (trained, {"top": 5, "clips": 3}, "p.jsonl has predictions of another test: other clips or crops"),
        (smaller, {"top": 5}, "p.jsonl has predictions of another test"),
        (other, {"top": 5}, "p.jsonl has predictions of other weights than those in"),
    ):
        vars(run_).pop("fingerprint", None)
        before = (tmp_path / "p.jsonl").read_bytes()
        with pytest.raises(UserError, match=message):
            predictions.File(tmp_path / "p.jsonl", run_, **kind)
        assert (tmp_path / "p.jsonl").read_bytes() == before
    line = before
    for content, message in (
        (b"hello", r"line 1 is no prediction \(unfinished"),
        (b'{"video": "a.mp4"}\n', r"line 1 is no prediction \('key' is missing\)"),
        (line + b'{"video": "b.m\n' + line, "line 2 is no prediction"),
    ):
        (tmp_path / "p.jsonl").write_bytes(content)
        with pytest.raises(UserError, match=message):
            predictions.File(tmp_path / "p.jsonl", trained, top=5)
        assert (tmp_path / "p.jsonl").read_bytes() == content


@pytest.mark.parametrize("rate", [None, 25.0])
def test_predictions_of_another_frame_rate_are_left_alone(elsewhere, tmp_path, rate):
    """Where clips have a rate of their own, what is said of a video without one depends on --fps."""
    trained = copy.copy(jax_video.load(elsewhere / "run"))
    trained._task = dataclasses.replace(trained.task, sampling=dataclasses.replace(trained.sampling, fps=rate))
    for number, fps in enumerate((0.0, 12.5)):
        path = tmp_path / f"{number}.jsonl"
        for name in ("a.mp4", "b.mp4"):
            with predictions.File(path, trained, fps=fps) as out:
                out.write(predictions.of(name, "empty file", trained.classes, 5))
        assert [*written(path)] == ["a.mp4", "b.mp4"]
        said = "has predictions of another test: other clips or crops, or another --fps"
        with pytest.raises(UserError, match=said) if rate else contextlib.nullcontext():
            with predictions.File(path, trained, fps=24.0) as out:
                assert [name for name, _ in out.done] == ["a.mp4", "b.mp4"]


def test_results_come_in_order_unless_one_holds_up_too_many():
    come = [(2, "c"), (0, "a"), (1, "b"), (5, "f"), (4, "e"), (6, "g"), (3, "d")]
    assert [place for place, _ in predictions.nearly_in_order(come)] == [*range(7)]
    assert [place for place, _ in predictions.nearly_in_order(come, most=1)] == [0, 1, 2, 4, 5, 6, 3]

    def interrupted():
        yield from come[:4]
        raise KeyboardInterrupt

    found = []
    with pytest.raises(KeyboardInterrupt):
        for place, _ in predictions.nearly_in_order(interrupted()):
            found.append(place)
    assert found == [0, 1, 2, 5]


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="only Linux lists the children of a process")
def test_a_stop_in_the_middle_loses_nothing_and_leaves_nothing(elsewhere, tested, tmp_path):
    """The last file never ends, so that the command is in the middle until it is killed, or stopped by Ctrl-C."""
    videos = sorted((elsewhere / "videos").rglob("*.mp4"))
    (tmp_path / "videos").mkdir()
    for number in range(24):
        (tmp_path / "videos" / f"{number:02}.mp4").symlink_to(videos[number % 8])
    with av.open(str(videos[0])) as good, av.open(str(tmp_path / "videos" / "z.mkv"), "w") as endless:
        stream = endless.add_stream_from_template(good.streams.video[0])
        for packet in good.demux(video=0):
            if packet.size:
                packet.stream = stream
                endless.mux(packet)
    os.truncate(tmp_path / "videos" / "z.mkv", 2**40)
    out = tmp_path / "p.jsonl"
    command = (PREDICT, "videos", "--out=p.jsonl", f"--checkpoint={elsewhere / 'run'}", "--top=all", "--batch=4")
    commands: list[int] = []
    children: list[int] = []

    def stop(pid: int, how: signal.Signals, lines: int) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (out.exists() and out.read_bytes().count(b"\n") >= lines):
            time.sleep(0.01)
        commands.append(pid)
        children.extend(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        os.kill(pid, how)

    run(*command, cwd=tmp_path, during=lambda pid: stop(pid, signal.SIGKILL, 4))
    assert 4 <= out.read_bytes().count(b"\n")
    stopped = run(*command, cwd=tmp_path, during=lambda pid: stop(pid, signal.SIGINT, 16))
    said = f"stopped: p.jsonl has {len(written(out))} of 25 videos; the same command goes on from there"
    assert stopped.code == 130 and stopped.stderr.splitlines()[-2:] == ["", said], stopped.stderr
    end = time.monotonic() + 20
    while any(processes.is_alive(child, 0) for child in children) and time.monotonic() < end:
        time.sleep(0.05)
    assert children and not any(processes.is_alive(child, 0) for child in children)
    assert not [path for pid in commands for path in processes.SHARED.glob(f"*jax_video-*-{pid}-*")]

    os.remove(tmp_path / "videos" / "z.mkv")
    finished = run(*command, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = written(out)
    names = [f"videos/{number:02}.mp4" for number in range(24)]
    assert sorted(rows) == names  # a video that was known already is written at Ctrl-C, before one that was not
    for number, row in enumerate(rows[name] for name in names):
        expected = sorted(tested[videos[number % 8].name], reverse=True)
        assert [each["score"] for each in row["classes"]] == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def long_video(elsewhere) -> pathlib.Path:
    """Three videos of 8 frames in a row, 10 frames a second, with the sound of 2 s."""
    sound = elsewhere / "sound.mkv"
    with av.open(str(sound), "w") as container:
        container.add_stream("libx264", rate=10)
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = (8000 * np.sin(np.arange(16000) / 5)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.rate, frame.pts = 8000, 0
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for packets in (container.streams.video[0].encode(picture), container.streams.video[0].encode()):
            container.mux(packets)
        for packets in (stream.encode(frame), stream.encode()):
            container.mux(packets)
    paths = sorted((elsewhere / "videos").rglob("*.mp4"))[:3]
    frames = [image for path in paths for image in video.decode(path, range(8))]
    encoding.write(elsewhere / "long.mp4", ((place / 10, image) for place, image in enumerate(frames)), sound_of=sound)
    return elsewhere / "long.mp4"


def test_labels_with_times(elsewhere, long_video):
    window = ("--checkpoint=run", "--window=0.8", "--hop=0.4")
    outputs = ("--csv=out.csv", "--srt=out.srt", "--video=labelled.mkv")
    finished = run(PREDICT, long_video.name, *window, *outputs, cwd=elsewhere)
    assert finished.code == 0, finished.stderr
    first, *segments = finished.stdout.splitlines()
    assert first == "long.mp4" and all(re.fullmatch(r"  00:\S+  00:\S+  +0\.\d{4}  \w+", line) for line in segments)
    rows = [*csv.DictReader((elsewhere / "out.csv").read_text().splitlines())]
    assert [float(row["start"]) for row in rows] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6])
    assert (elsewhere / "out.srt").read_text().count(" --> ") == len(segments)
    with av.open(str(elsewhere / "labelled.mkv")) as labelled:
        assert sum(1 for _ in labelled.decode(video=0)) == 24
    with av.open(str(elsewhere / "labelled.mkv")) as labelled:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in labelled.decode(audio=0)])
    assert len(heard) > 15000 and np.abs(heard[4000:12000]).max() > 0.1, "its sound is kept"
    changed = np.abs(video.decode(elsewhere / "labelled.mkv", [4]).astype(int) - video.decode(long_video, [4])).max(
        axis=(0, 3)
    )
    assert changed[:6].max() > 50 and changed[-2:].max() > 50 and changed[10:-8].max() < 50, "a label, and a bar"

    finished = run(PREDICT, long_video.name, *window, "--json", cwd=elsewhere)
    found = json.loads(finished.stdout)
    assert found["video"] == "long.mp4" and len(found["windows"]) == 5 and len(found["segments"]) == len(segments)
    assert found["windows"][0]["probabilities"] == pytest.approx(
        [float(rows[0][name]) for name in found["classes"]], abs=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["long.mp4", "--hop=1"], "--hop, --csv, --srt and --video are of labels with times: give --window"),
        (["videos", "--window=1", "--srt=x.srt"], "--srt: one file cannot hold 8 videos; name one"),
        (["long.mp4", "--window=1", "--video=x.txt"], "x.txt: expected the name of a video, which ends in .mkv or"),
        (["long.mp4", "--window=-1"], "window is -1.0: expected seconds, more than 0"),
        (["long.mp4", "--fps=12"], "--fps: clips of this run count frames, whatever their rate (clip.fps is None)"),
        (["long.mp4", "--window=1", "--out=x"], "--out and --clips are of whole videos: not with --window, which has"),
        (["long.mp4", "--window=1", "--clips=2"], "--out and --clips are of whole videos: not with --window"),
        (["long.mp4", "--window=0.1"], "a window of 0.1 s has 1 of the video's frames"),
        (["long.mp4", "--window=1", "--top=2"], "--top is of whole videos: with --window the best is shown"),
        (["long.mp4", "--out=x", "--json"], "--out and --json: the file has JSON in it; give one of them"),
        (["long.mp4", "--window=1", "--csv=x", "--srt=./x"], "x: two files of this name are asked for"),
        (["long.mp4", "--window=1", "--csv=nowhere/x"], "nowhere/x: there is no folder nowhere; make it, or name"),
        (["long.mp4", "--window=1", "--csv=./long.mp4"], "./long.mp4 is the video itself; name another file"),
        (["long.mp4", "--window=1", "--video=./long.mp4"], "./long.mp4 is the video itself; name another file"),
    ],
)
def test_labels_with_times_refuse(elsewhere, long_video, arguments, message):
    before = long_video.read_bytes()
    finished = run(PREDICT, *arguments, "--checkpoint=run", cwd=elsewhere)
    assert finished.code == 2 and message in finished.stderr and "Traceback" not in finished.stderr
    assert long_video.read_bytes() == before
