"""Labels of streams: the windows of a timeline, taken as they come, and the command that shows them."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import streams
from commands import check_user_error, run_each, tiny_run
from conftest import FAST_COMPILE, ROOT

import jax_video
from jax_video import timeline, watching
from jax_video.data import pipeline
from jax_video.data.decoding import live, video
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError

FLOW = pipeline.Sampling(frames=4, stride=1, short_side=32, size=32, streams=("rgb", "flow"))
PREDICT = "jax_video.predict"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def run(trained):
    return jax_video.load(trained.workdir)


@pytest.fixture(scope="module")
def stream(trained) -> bytes:
    """Four videos of the test in a row: 32 frames in .8 s."""
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    paths = [f"{manifest.root}/{entry.path}" for _, entry in manifest.select("test")[:4]]
    return streams.mpegts(np.concatenate([video.decode(path, range(8)) for path in paths]), fps=40)


def test_what_keeps_up_is_the_timeline(run, stream, tmp_path):
    path = tmp_path / "a.ts"
    path.write_bytes(stream)
    notes: list[str] = []
    with run.watch(path, window=0.3, hop=0.1, say=notes.append) as watch:
        found = [*watch]
    expected = run.timeline(path, window=0.3, hop=0.1)
    assert notes == ["windows of 0.3 s, one every 0.1 s"]
    assert watch.summary.frames == 32 and watch.summary.windows == len(found) and watch.summary.seconds > 0.7
    assert len(found) + watch.summary.skipped == len(expected.starts), "on a busy machine some are skipped"
    for moment in found:
        place = int(np.abs(expected.ends - moment.end).argmin())
        assert moment.start == pytest.approx(expected.starts[place], abs=1e-6)
        row = [moment.probabilities[name] for name in run.classes]
        assert row == pytest.approx(expected.probabilities[place], abs=1e-6)
        assert moment.label == run.classes[expected.probabilities[place].argmax()]
        assert moment.probability == max(row) and moment.latency < 3
    assert sum(watch.summary.labels.values()) == pytest.approx(0.8, abs=0.01)


def watched(source, look, *, window=None, hop=None, frames=4, segments=0, **options) -> watching.Watch:
    sampling = pipeline.Sampling(frames=frames, stride=1, short_side=8, size=8, segments=segments)
    return watching.Watch(source, ("a", "b"), look, watching.Windows(window, hop, sampling), **options)


def test_a_network_that_falls_behind_skips_windows_and_says_so():
    """The label stays a recent one, and what waits does not grow."""
    sizes = []

    def slow(window):
        sizes.append(len(window.images))
        time.sleep(0.2)
        return np.array([0.25, 0.75])

    with streams.serving([streams.mpegts(streams.pictures(100), fps=50)]) as address:
        with watched(address, slow, window=0.1, hop=0.04) as watch:
            found = []
            for moment in watch:
                found.append(moment)
                if moment.end > 1.8:
                    break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reads ")]
    summary = watch.summary
    assert found[-1].label == "b" and found[-1].probabilities == {"b": 0.75, "a": 0.25}
    assert 3 <= len(found) <= 11 and summary.windows == len(found), "five in a second, fewer on a busy machine"
    assert summary.skipped >= 2 * len(found) and [moment.skipped for moment in found] == sorted(
        moment.skipped for moment in found
    )
    seen = sum(sizes[1:])  # after the one that compiles; none of these windows overlap
    assert summary.dropped == found[-1].dropped and 0.3 * 90 < summary.dropped <= summary.frames - seen
    assert max(moment.latency for moment in found) < 1.5, "and not the 7 s that all windows would fall behind"


def look_at_once(window):
    return np.array([1.0, 0.0])


def test_windows_do_not_reach_across_a_break(monkeypatch):
    """Also where the stream returns with pictures of another size."""
    monkeypatch.setattr(live, "_PAUSE", 0.05)
    sizes = []

    def look(window):
        sizes.append({image.shape for image in window.images})
        return look_at_once(window)

    parts = [streams.mpegts(streams.pictures(20, size), fps=50) for size in ((32, 40), (32, 64))]
    notes: list[str] = []
    with streams.serving(parts) as address, watched(address, look, window=0.1, hop=0.05, say=notes.append) as watch:
        for moment in watch:
            if moment.reconnections and moment.end - moment.start < 0.11 and len(sizes[-1]) == 1 and moment.frames > 35:
                break
    assert all(len(shapes) == 1 for shapes in sizes) and {(8, 10, 3)} in sizes and {(8, 16, 3)} in sizes
    assert watch.summary.reconnections == 1 and f"{address}: open again" in notes


def of_times(monkeypatch, times: list[float], window: float, hop: float) -> tuple[list[float], watching.Watch]:
    """The ends of the windows of a stream with frames at these seconds, which nobody waits for; and the watch."""

    class Stream(live.Stream):
        def frames(self):
            self._connect()
            for seconds in times:
                yield live.Frame(seconds, np.zeros((8, 8, 3), np.uint8), time.monotonic(), seconds > 0, 25.0)

    monkeypatch.setattr(live, "Stream", Stream)
    offered = []
    offer = watching._Newest._offer

    def noted(self, start, end):
        notes = offer(self, start, end)
        offered.append((round(start, 6), self._part is not None and round(self._part.window.end, 6) == round(end, 6)))
        return notes

    monkeypatch.setattr(watching._Newest, "_offer", noted)
    watch = watched(__file__, look_at_once, window=window, hop=hop)
    with watch:
        list(watch)
    return [start for start, made in offered if made], watch


def test_a_stream_that_stalls_early_is_no_slow_one(monkeypatch):
    """Its windows are too short where its frames are far apart, and not because one lies in a pause."""
    times = [*(place / 25 for place in range(12)), *(2.5 + place / 25 for place in range(30))]
    starts, _ = of_times(monkeypatch, times, 0.64, 0.16)
    assert starts[0] == 0 and starts[-1] > 2.5
    with pytest.raises(UserError, match="a window of 0.64 s has .* of the video's frames, which are 2 s apart"):
        of_times(monkeypatch, [2.0 * place for place in range(30)], 0.64, 0.16)


def test_windows_before_a_hiccup_are_not_forgotten(monkeypatch):
    """All that a timeline has are offered, and counted as skipped where nobody takes them."""
    times = [burst + place / 25 for burst in range(6) for place in range(5)]
    starts, watch = of_times(monkeypatch, times, 0.2, 0.04)
    frames = [(seconds, np.zeros((1, 1, 3), np.uint8)) for seconds in times]
    expected = [part for part in timeline.windows(frames, 0.2, 0.04) if len(part.images) > 1]
    assert starts == pytest.approx([part.start for part in expected])
    assert watch.summary.windows + watch.summary.skipped == len(expected)


def test_windows_are_as_long_as_clips(tmp_path):
    path = tmp_path / "a.ts"
    path.write_bytes(streams.mpegts(streams.pictures(20), fps=50))
    notes: list[str] = []
    first = next(watched(path, look_at_once, say=notes.append))
    assert first.end - first.start == pytest.approx(4 / 50) and notes == ["windows of 0.08 s, one every 0.02 s"]
    for given in ({"segments": 2}, {"frames": 1}):
        found = [*watched(path, look_at_once, **given)]
        assert [(moment.start, moment.end) for moment in found] == [(0, pytest.approx(0.4))], "2 s, and it ends before"
    found = [*watched(path, look_at_once, frames=50, window=0.2, say=notes.append)]
    assert notes[-1] == "clips span 50 frames and windows have 10: clips are looped, as in training"


@pytest.mark.parametrize(("clips", "frames"), [(25.0, 8), (50.0, 4), (100.0, 2), (40.0, 5)])
def test_windows_are_as_long_as_clips_that_have_a_rate(clips, frames, tmp_path):
    """In whole frames of the stream, whose rate its times tell."""
    path = tmp_path / "a.ts"
    path.write_bytes(streams.mpegts(streams.pictures(20), fps=50))
    seen, notes = [], []

    def look(window):
        seen.append(window)
        return look_at_once(window)

    sampling = pipeline.Sampling(frames=4, stride=1, short_side=8, size=8, fps=clips)
    chosen = watching.Windows(None, None, sampling)
    first = next(watching.Watch(path, ("a", "b"), look, chosen, say=notes.append))
    assert first.end - first.start == pytest.approx(frames / 50) and len(notes) == 1
    warm, window, *_ = seen
    assert len(warm.images) == 4 and warm.rate == clips, "what is compiled has the same shape"
    assert len(window.images) == frames and window.rate == pytest.approx(50)
    assert sampling.frames_of(frames, window.rate).count >= 4, "nothing is looped"
    assert chosen.chosen(0.0)[0] == pytest.approx(4 / clips), "where the stream does not say its rate"


def test_whoever_is_asked_ends_it(tmp_path):
    asked = threading.Event()
    with streams.serving([b""], silent=True) as address:
        watch = watched(address, look_at_once, interrupted=asked.is_set)
        threading.Timer(0.3, asked.set).start()
        begin = time.monotonic()
        assert [*watch] == [] and time.monotonic() - begin < 5, "although nothing comes, for ten seconds"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0.01}, "a window of 0.01 s has . of the video's frames, which are 0.02 s apart: expected"),
        ({"window": 0}, "window is 0: expected seconds, more than 0"),
        ({"hop": float("nan")}, "hop is nan: expected seconds"),
        ({"fps": -1}, "fps is -1: expected frames per second"),
    ],
)  # fmt: skip
def test_wrong_windows_are_refused(run, tmp_path, options, message):
    path = tmp_path / "a.ts"
    path.write_bytes(streams.mpegts(streams.pictures(20), fps=50))
    with pytest.raises(UserError, match=message):
        [*run.watch(path, **options)]


def test_the_command(trained, stream, tmp_path):
    """A pipe that ends, as text and as JSON; and what it refuses, each in one message."""
    (tmp_path / "a.ts").write_bytes(stream)
    flags = (f"--checkpoint={trained.workdir}", "--window=0.3", "--hop=0.1")
    mistakes = {
        ("--live=/dev/video99",): "/dev/video99: no such camera; those here: ",
        ("--live=tcp://127.0.0.1:9",): "tcp://127.0.0.1:9: cannot be opened (Connection refused): is a stream sent",
        ("--live=a.ts", "--live=b.ts"): "a.ts b.ts: --live watches one stream",
        ("--live=a.ts", "a.ts"): "a.ts a.ts: --live watches one stream; classify files without --live",
        ("--live=a.ts", "--srt=a.srt"): "--srt: of files, and not of a stream",
        ("--live=a.ts", "--top=2"): "--top: without --json a stream's best class alone is shown",
    }
    calls = [(PREDICT, ["--live=a.ts", *flags]), (PREDICT, ["--live=a.ts", "--json", "--top=2", *flags])]
    text, rows, *refused = run_each([*calls, *((PREDICT, [*flags, *given]) for given in mistakes)], cwd=tmp_path)
    assert (text.code, rows.code) == (0, 0), text.stderr + rows.stderr
    assert "windows of 0.3 s, one every 0.1 s" in text.stderr
    first, *_ = text.stdout.splitlines()
    assert first.startswith("00:00:00.") and " s watched: " in text.stdout
    *moments, last = map(json.loads, rows.stdout.splitlines())
    assert all(len(moment["classes"]) == 2 and 0 < moment["probability"] <= 1 for moment in moments)
    assert [moment["time"] for moment in moments] == sorted(moment["time"] for moment in moments)
    assert last["summary"]["frames"] == 32 and last["summary"]["windows"] == len(moments)
    for finished, message in zip(refused, mistakes.values(), strict=True):
        check_user_error(finished, message)


def test_optical_flow_is_refused(run, monkeypatch):
    monkeypatch.setattr(run, "_task", dataclasses.replace(run.task, sampling=FLOW))
    with pytest.raises(UserError, match="streams rgb, flow: optical flow takes many times as long .* rgb alone"):
        run.watch("tcp://127.0.0.1:9")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_ctrl_c_ends_it_with_a_summary(trained, stream, tmp_path):
    """Although the pipe that it reads from stays open."""
    os.mkfifo(tmp_path / "pipe")
    command = [
        sys.executable,
        "-m",
        PREDICT,
        f"--live={tmp_path / 'pipe'}",
        f"--checkpoint={trained.workdir}",
        "--json",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": FAST_COMPILE},
    )
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        with open(tmp_path / "pipe", "wb") as pipe:
            pipe.write(stream)
            pipe.flush()
            assert json.loads(process.stdout.readline())["label"]
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["summary"]["windows"] >= 1 and "Traceback" not in stderr
