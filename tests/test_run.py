"""A run as an object: what it says of files and arrays, that it compiles once, and records of other versions."""

import dataclasses
import json
import multiprocessing
import pathlib

import jax
import numpy as np
import pytest
from commands import TinyRun, tiny_run

import jax_video
from jax_video import meta
from jax_video import state as state_lib
from jax_video.data import clips
from jax_video.data.decoding import probing, video
from jax_video.data.manifest import Manifest
from jax_video.data.samples import Protocol
from jax_video.errors import CheckpointError, UserError
from jax_video.meta import Meta
from jax_video.run import load
from jax_video.videos import with_clips

FOLDER = pathlib.Path("runs/first")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TinyRun:
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def run(trained) -> jax_video.Run:
    return jax_video.load(trained.workdir)


@pytest.fixture(scope="module")
def videos(trained) -> list[pathlib.Path]:
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    return [pathlib.Path(manifest.root, entry.path) for _, entry in manifest.select("test")]


@pytest.fixture(scope="module")
def tested(trained) -> list[list[float]]:
    rows = map(json.loads, (trained.workdir / "predictions.jsonl").read_text().splitlines())
    return [row["scores"] for row in rows]


@pytest.fixture
def compilations():
    """What JAX compiles from here on."""
    found = []

    def note(event, seconds, **kwargs):
        if "compile" in event:
            found.append((event, kwargs))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield found
    jax.monitoring.clear_event_listeners()


def frames_of(path: pathlib.Path) -> np.ndarray:
    return video.decode(path, range(probing.probe(path).frames))


def test_what_it_is(run, trained):
    assert run.classes == Manifest.read(trained.data / "manifest.jsonl").classes
    assert (
        run.config.model.name == "resnet3d18"
        and run.step == json.loads((trained.workdir / "test.json").read_text())["step"]
    )
    assert run.folder == trained.workdir and run.sampling.frames == 4 and run.protocol.clips == "nonoverlap"


def test_files_are_classified_as_in_the_test(run, videos, tested):
    one = run.classify(videos[3])
    assert list(one.values()) == sorted(one.values(), reverse=True) and sum(one.values()) == pytest.approx(1, abs=1e-6)
    assert [one[name] for name in run.classes] == pytest.approx(tested[3], abs=1e-6)
    several = run.classify([str(path) for path in videos])
    assert [[row[name] for name in run.classes] for row in several] == [pytest.approx(row, abs=1e-6) for row in tested]


def test_frames_are_a_video_too(run, videos, tested):
    frames = frames_of(videos[5])
    found = run.classify(frames, fps=25)
    assert [found[name] for name in run.classes] == pytest.approx(tested[5], abs=1e-6)
    mixed = run.classify([frames, videos[1], frames_of(videos[2])])
    for row, place in zip(mixed, (5, 1, 2), strict=True):
        assert [row[name] for name in run.classes] == pytest.approx(tested[place], abs=1e-6)


def test_features_are_what_the_classifier_sees(run, videos):
    found = run.features(videos[0])
    assert found.shape == (run.network.fc.kernel.shape[0],) and found.dtype == np.float32
    frames = video.decode(videos[0], range(probing.probe(videos[0]).frames), short_side=32)
    cut = np.stack([frames[clip][:, :, 4:36] for clip in clips.test_clips(len(frames), 4, 1)])
    features = jax.jit(lambda clips: run.network.features(state_lib.normalize(clips)).mean(axis=(0, 1, 2, 3)))(cut)
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run.features([frames_of(videos[0])])[0], found, rtol=1e-5, atol=1e-6)


def test_the_second_video_compiles_nothing(trained, videos, compilations):
    run = jax_video.load(trained.workdir)
    run.classify(videos[0])
    run.features(videos[0])
    assert compilations, "or else this test would see nothing"
    compilations.clear()
    run.classify(videos[1])
    run.classify(np.concatenate([frames_of(videos[1])] * 5))  # which is longer
    run.features(videos[2:5])
    assert compilations == []


def test_videos_that_cannot_be_read_are_named(run, videos, tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(UserError, match=r"2 of 3 videos cannot be read:\n  .*empty.mp4: empty file\n  no.mp4: no such"):
        run.classify([tmp_path / "empty.mp4", videos[0], "no.mp4"])
    with pytest.raises(UserError, match="1 of 1 videos cannot be read"):
        run.features("no.mp4")
    assert run.classify([]) == [] and run.scores([]) == ({}, {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((4, 8, 8, 3)), r"video 0 is float64 \[4, 8, 8, 3\]: expected frames as a NumPy array uint8"),
        (["no.mp4", np.zeros((8, 8, 3), np.uint8)], r"video 1 is uint8 \[8, 8, 3\]: expected frames"),
        (None, "got NoneType: expected a video, or a list of several; a video is a file, a folder"),
        ({"a": "no.mp4"}, "got dict: expected a video"),
        ([3], "video 0 is of type int: expected a file, a folder"),
    ],
)
def test_what_is_no_video(run, given, said):
    with pytest.raises(UserError, match=said):
        run.classify(given)


def test_videos_may_come_as_any_iterable_and_frames_as_any_array(run, videos):
    one = run.classify(videos[0])
    assert run.classify(path for path in videos[:2])[0] == one == run.classify(tuple(videos[:1]))[0]
    frames = frames_of(videos[0])
    assert run.classify(jax.numpy.asarray(frames)) == run.classify(frames)
    assert run.features(path for path in videos[:2]).shape == (2, run.features(frames).size)
    with pytest.raises(UserError, match="no video given"):
        run.features([])
    for fps in (-1, "25", float("nan")):
        with pytest.raises(UserError, match="expected frames per second"):
            run.classify(frames, fps=fps)


def test_a_process_that_may_start_no_others_reads_files_itself(run, videos, monkeypatch):
    """As those of multiprocessing.Pool. Frames in memory need none."""
    expected = run.classify(videos[0])
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert run.classify(frames_of(videos[0])) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UserError, match="a daemonic process may not start the processes .* give timeout=None"):
        run.classify(videos[0])
    assert run.classify(videos[0], timeout=None) == pytest.approx(expected, abs=1e-6)


def test_results_come_one_by_one_whatever_fills_a_batch(run, trained, videos, tested, tmp_path):
    (tmp_path / "empty.mp4").touch()
    given = [*videos[:3], tmp_path / "empty.mp4", frames_of(videos[3]), *videos[4:]]
    for batch in (1, 3, 64):
        found = dict(run.iter_scores(given, batch=batch))
        assert found.pop(3) == "empty file" and sorted(found) == [0, 1, 2, 4, *range(5, len(given))]
        for place, scores in found.items():
            assert scores == pytest.approx(tested[place - (place > 3)], abs=1e-6)
    config = run.config.copy_and_resolve_references()
    config.test.update(clips="uniform", number=2)
    two = load(trained.workdir, config=config).scores(videos[:2])[0]
    for place, scores in run.iter_scores(videos[:2], clips=2):
        assert scores == pytest.approx(two[place], abs=1e-6)


def test_a_test_with_crops_of_several_shapes(run, trained, videos):
    """Clips of one shape make a batch; what waits for others of its shape is bounded."""
    config = run.config.copy_and_resolve_references()
    config.test.update(crop="full")
    other = load(trained.workdir, config=config)
    wide = np.concatenate([frames_of(videos[0])] * 3, axis=2)
    given = [frames_of(videos[0]), wide, frames_of(videos[1]), wide[:, :, ::-1].copy()] * 3
    alone = [other.classify(frames) for frames in given[:4]] * 3
    for place, scores in other.iter_scores(given, batch=2):
        assert dict(zip(other.classes, scores, strict=True)) == pytest.approx(alone[place], abs=1e-6)


@pytest.mark.parametrize("given", [{"batch": 0}, {"clips": -1}, {"batch": 2.5}, {"clips": "3"}, {"clips": True}])
def test_numbers_of_clips_are_at_least_one(run, videos, given):
    (name,) = given
    with pytest.raises(UserError, match=f"{name} is .*: expected a number of clips, at least 1"):
        next(run.iter_scores(videos[:1], **given))


def test_a_network_that_takes_several_clips_keeps_their_number():
    with pytest.raises(UserError, match="this network takes the clips of a video together"):
        with_clips(Protocol("segments"), 2)


def test_another_config_for_the_same_network(run, trained, videos):
    config = run.config.copy_and_resolve_references()
    config.test.update(clips="uniform", number=1)
    other = load(trained.workdir, config=config)
    assert other.protocol.number == 1 and other.classify(videos[0]) != run.classify(videos[0])
    config.model.width = 0.5
    with pytest.raises(CheckpointError, match="is of another network than this config:\n  model.width: 0.0625 -> 0.5"):
        load(trained.workdir, config=config)


def test_a_config_that_is_changed_afterwards_is_refused(trained, videos):
    """Half of it would count, and a test would record what it has not done."""
    changed = load(trained.workdir)
    expected = changed.classify(videos[0])
    changed.config.test.update(clips="uniform", number=1)
    for use in (changed.classify, changed.features, changed.timeline, changed.explain):
        with pytest.raises(UserError, match="run.config has been changed since .*: nothing here would follow it. Open"):
            use(videos[0])
    with pytest.raises(UserError, match="run.config has been changed"):
        jax_video.test(changed, Manifest.read(trained.data / "manifest.jsonl"))
    assert load(trained.workdir, config=changed.config).classify(videos[0]) != expected
    for name in ("weights", "definition", "mesh"):
        with pytest.raises(AttributeError):
            setattr(changed, name, None)


def test_a_run_stays_where_it_was_opened(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.workdir.parent)
    run = load(trained.workdir.name)
    assert run.folder == pathlib.Path(trained.workdir.name), "as it was named"
    monkeypatch.chdir(tmp_path)
    assert run.folder == trained.workdir


def test_any_mesh_gives_its_devices(run, trained, videos):
    mesh = jax.make_mesh((1,), ("anything",), devices=jax.devices()[:1])
    assert load(trained.workdir, mesh=mesh).classify(videos[0]) == pytest.approx(run.classify(videos[0]), abs=1e-6)


def test_several_videos_where_one_is_expected(run):
    frames = [np.zeros((32, 32, 3), np.uint8)] * 3
    for use in (run.timeline, run.explain):
        with pytest.raises(UserError, match=r"got 3 videos: expected one; frames are one array, np.stack\(frames\)"):
            use(frames)
        with pytest.raises(UserError, match="got 0 videos: expected one"):
            use([])


def test_a_fingerprint_is_of_what_is_computed(run, trained):
    """And not of how the config is written: a result and predictions of a run are found again by it."""
    config = run.config.copy_and_resolve_references()
    del config.model.width
    config.model.width = 1 / 16  # last
    for keywords in ({}, {"cardinality": 1}, {"remat": True}):
        with config.unlocked():
            config.model.update(keywords)
        assert load(trained.workdir, config=config).fingerprint == run.fingerprint, keywords


FIRST = {  # of a version that had no number, as its JSON was
    "config": {"seed": 0, "train": {"batch": 8}},
    "classes": ["a", "b"],
    "manifest": "abc",
    "progress": {"validated": 4},
    "ema": False,
}


def test_records_of_the_first_version():
    found = Meta.from_json(FIRST, FOLDER)
    assert found.version == meta.VERSION and found.classes == ("a", "b") and found.manifest == "abc"
    assert found.machines is None and found.origin is None and found.stored_flow is None
    assert found.config["train"]["steps"] is None, "a key that came later says what was before"
    assert Meta.from_json(FIRST | {"origin": {"layout": "cost"}, "stored_flow": None}, FOLDER).origin == {
        "layout": "cost"
    }


def test_a_record_comes_back_as_it_was():
    written = Meta(
        {"seed": 1}, ("a",), "m", {"validated": 1}, True, {"layout": "i3d"}, True, {"devices": 8}, packed=[256, 90]
    )
    assert Meta.from_json(json.loads(json.dumps(written.to_json())), FOLDER) == written
    several = dataclasses.replace(written, config={"train": {"loss": "sigmoid"}}, thresholds=(0.25,))
    assert Meta.from_json(json.loads(json.dumps(several.to_json())), FOLDER).thresholds == (0.25,)
    assert {field.name for field in dataclasses.fields(Meta)} == set(several.to_json())


def test_a_record_of_a_later_version_is_refused():
    later = Meta({"seed": 1}, ("a",)).to_json() | {"version": meta.VERSION + 1, "shape": 3}
    with pytest.raises(CheckpointError, match="was saved by a later version of jax_video, as record 4; .* up to 3"):
        Meta.from_json(later, FOLDER)


@pytest.mark.parametrize("given", ["checkpoints", "checkpoints/4", "checkpoints/4/network", "test.json", "weights.pth"])
def test_what_is_no_runs_folder_says_what_to_give(tmp_path, given):
    (tmp_path / "runs" / "checkpoints" / "4" / "network").mkdir(parents=True)
    (tmp_path / "runs" / "test.json").touch()
    (tmp_path / "weights.pth").touch()
    if given == "weights.pth":
        with pytest.raises(UserError, match="weights.pth is a file; expected the folder of a run.*jax_video.convert"):
            jax_video.load(tmp_path / given)
        return
    with pytest.raises(UserError, match=rf"{given} is a (part|file) of a run; give the run's folder, .*/runs\.$"):
        jax_video.load(tmp_path / "runs" / given)
