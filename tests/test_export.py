"""`python -m jax_video.export`: a program that needs no jax_video, ONNX, and a folder for the Hugging Face Hub."""

import ast
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import runpy
import shutil
import sys
import types
import wave

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from commands import TinyRun, check_user_error, run_each, tiny_run
from conftest import ROOT
from jax import export
from ml_collections import ConfigDict

import jax_video
from jax_video import objectives, published, recipe
from jax_video import state as state_lib
from jax_video.data import clips, encoding, pipeline, transforms
from jax_video.data.decoding import video as decoding
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError
from jax_video.exporting import card, classify, folder, onnx, program
from jax_video.meta import Meta
from jax_video.models import convolution

pytest.importorskip("flatbuffers", reason="programs are written and read by the package flatbuffers")
pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TinyRun:
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """What the commands say: an export, the same once more, and a video classified with it."""
    out = tmp_path_factory.mktemp("exported") / "a folder"
    video = next((trained.data / "test").rglob("*.mp4"))
    calls = [
        ("jax_video.export", [trained.workdir, f"--out={out}", "--license=apache-2.0"]),
        ("jax_video.export", [trained.workdir, f"--out={out}"]),
        ("jax_video.export", [trained.workdir, f"--out={out}-2", "--license=mit", "--format=onnx"]),
        ("jax_video.predict", [video, f"--checkpoint={out}", "--json"]),
        ("jax_video.predict", [video, f"--checkpoint={trained.workdir}", "--json"]),
    ]
    return out, run_each(calls, cwd=out.parent)


def test_a_transfer_is_not_said_to_predict(tmp_path):
    untrained(tmp_path / "run", "transfer")
    calls = [("jax_video.export", [tmp_path / "run", f"--out={tmp_path / 'a folder'}", "--format=safetensors"])]
    [finished] = run_each(calls)
    assert finished.code == 0, finished.stderr
    [line] = re.findall(r"jax_video\.load\(.*", finished.stdout)
    assert "predict" not in finished.stdout
    video = np.zeros((8, 32, 32, 3), np.uint8)
    assert eval(line, {"jax_video": jax_video, "VIDEO": video}).ndim == 1


def untrained(path: pathlib.Path, argument: str = "", **sections) -> jax_video.Run:
    """A run of tests/tiny.py with random weights, and with other values in some sections."""
    config = tiny.get_config(argument)
    for name, values in sections.items():
        with config.unlocked(), config.ignore_type():
            config[name] = values if isinstance(values, str) else ConfigDict(config[name].to_dict() | values)
    config = recipe.resolve(config, flip=False)
    _, *shapes = state_lib.abstract(config, 8)
    rng = np.random.default_rng(0)
    params, batch_stats = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)
    params = jax.tree.map(lambda leaf: leaf * rng.choice([-1, 1], leaf.shape).astype(np.float32), params)
    path.mkdir()
    meta = Meta(json.loads(json.dumps(config.to_dict())), tuple("abcdefgh"))
    published.write(path, meta, 0, {"params": params, "batch_stats": batch_stats})
    return jax_video.load(path)


def read(out: pathlib.Path):
    return export.deserialize((out / "model.stablehlo").read_bytes()), json.loads((out / "model.json").read_text())


def test_the_command(exported, trained):
    out, (first, again, lost, *_) = exported
    assert first.code == 0, first.stderr
    names = {"model.stablehlo", "model.json", "classify.py", "model.safetensors", "config.json", "README.md"}
    assert {path.name for path in out.iterdir()} == names == set(re.findall(r"bytes  .*/(\S+)", first.stdout))
    assert [path.name for path in out.parent.iterdir()] == ["a folder"], "nothing is left beside it"
    assert "python -m jax_video.predict VIDEO --checkpoint='" in first.stdout and "classify.py VIDEO" in first.stdout
    check_user_error(again, "already holds model.stablehlo, model.json,", "choose another --out, or remove them first")
    check_user_error(lost, "--license: of the model card, which --format=safetensors writes")


def test_an_exported_run_predicts_the_same(exported):
    _, (*_, by_export, by_run) = exported
    assert by_export.code == 0, by_export.stderr
    assert by_export.stdout == by_run.stdout


def test_the_reader_gives_what_predict_gives(exported, trained):
    """Resized, as the set's videos are of 32 x 40 pixels; and of a video that is shorter than a clip."""
    out, _ = exported
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    videos = [pathlib.Path(manifest.root, entry.path) for _, entry in manifest.select("test")][:3]
    videos += sorted((ROOT / ".." / "shared" / "data" / "fights" / "fight").glob("*"))[:2]
    expected = jax_video.load(trained.workdir).classify(videos, timeout=None)
    for video, probabilities in zip(videos, expected, strict=True):
        found = classify.classify(video, *read(out))
        assert found == pytest.approx(probabilities, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_the_reader_needs_no_jax_video(exported):
    out, _ = exported
    tree = ast.parse((out / "classify.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - sys.stdlib_module_names == {"av", "jax", "numpy"}


def test_the_reader_goes_on_after_a_file_that_is_no_video(exported, trained, tmp_path, capsys, monkeypatch):
    out, _ = exported
    good = [str(path) for path in sorted((trained.data / "test").rglob("*.mp4"))[:2]]
    (tmp_path / "notes.json").write_text("no video")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", None))
        sound.writeframes(bytes(8000))
    bad = [str(tmp_path / name) for name in ("notes.json", "sound.wav", "gone.mp4")]
    for files, code in (([good[0], *bad, good[1]], 1), (good, 0)):
        monkeypatch.setattr(sys, "argv", ["classify.py", *files])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(out / "classify.py"), run_name="__main__")
        said = capsys.readouterr()
        assert ended.value.code == code
        assert [line for line in said.out.splitlines() if not line.startswith(" ")] == good
        assert [line.partition(": ")[0] for line in said.err.splitlines()] == (bad if code else [])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.stablehlo", None, "model.stablehlo: No such file or directory"),
        ("model.json", None, "model.json: No such file or directory"),
        ("model.stablehlo", b"another program", "damaged, or not the one of model.json (15 bytes, expected 11)"),
        ("model.stablehlo", b"its bet", "damaged, or not the one of model.json (7 bytes, expected 11)"),
        ("model.json", b'{"files": {', "model.json does not describe a program (JSONDecodeError"),
        ("model.json", b"[]", "model.json does not describe a program (TypeError"),
        ("model.json", b'{"files": {"model.onnx": {}}}', "model.json does not describe a program (KeyError"),
        ("model.json", b"\xff", "model.json does not describe a program (UnicodeDecodeError"),
    ],
)
def test_the_reader_takes_no_files_that_do_not_belong_together(tmp_path, monkeypatch, name, content, said):
    """One line, and no name of a wrong class."""
    shutil.copy(classify.__file__, tmp_path)
    (tmp_path / "model.stablehlo").write_bytes(b"its program")
    told = {"model.stablehlo": {"bytes": 11, "sha256": hashlib.sha256(b"its program").hexdigest()}}
    (tmp_path / "model.json").write_text(json.dumps({"files": told, "streams": ["rgb"], "fps": None}))
    monkeypatch.setattr(sys, "argv", ["classify.py", "video.mp4"])
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tmp_path / "classify.py"), run_name="__main__")
    assert said in ended.value.code and "\n" not in ended.value.code
    assert ended.value.code.endswith(": take both files from one export")


def test_the_reader_is_told_the_rate_of_pictures(exported, trained, tmp_path, capsys, monkeypatch):
    """As `predict` is: only where clips have a rate."""
    out, _ = exported
    shutil.copytree(out, tmp_path / "out")
    card = json.loads((out / "model.json").read_text())
    for place in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / f"{place}.png"), np.full((40, 50, 3), 80 * place, np.uint8))

    def said(*arguments, fps=10.0):
        (tmp_path / "out" / "model.json").write_text(json.dumps(card | {"fps": fps}))
        monkeypatch.setattr(sys, "argv", ["classify.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(tmp_path / "out" / "classify.py"), run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    folder = str(tmp_path / "in")
    unknown = f"{folder}: its frame rate is not known: say how many frames there are to a second, --fps=25\n"
    assert said(folder) == (1, "", unknown)
    assert said(folder, "--fps=25")[::2] == (0, "")
    assert said(folder, fps=None)[::2] == (0, "")
    for arguments, fps, message in (
        ((folder, "--fps=25"), None, "--fps: clips of this network count frames, whatever their rate; leave it out\n"),
        ((folder, "--fps=nan"), 10.0, "--fps=nan: expected 0.01 to 1000 frames per second\n"),
        ((), 10.0, "the following arguments are required: VIDEO\n"),
    ):
        code, _, error = said(*arguments, fps=fps)
        assert code == 2 and error.endswith(f"error: {message}")
    (tmp_path / "empty").mkdir()
    unknown = f"{tmp_path / 'empty'}: no frames: the folder has no numbered pictures, as image_00001.jpg\n"
    assert said(str(tmp_path / "empty"))[::2] == (1, unknown)


def test_twenty_lines_read_it(exported, trained, capsys, monkeypatch):
    """Those of docs/how-to/export.md, of the square in the middle; FFmpeg resizes a little otherwise."""
    out, _ = exported
    script = re.search(
        "```python\n(import json, .*?)```", (ROOT / "docs" / "how-to" / "export.md").read_text(), re.DOTALL
    )[1]
    assert len([line for line in script.splitlines() if line]) <= 20
    video = next((trained.data / "test").rglob("*.mp4"))
    monkeypatch.chdir(out)
    monkeypatch.setattr(sys, "argv", ["read.py", str(video)])
    exec(compile(script, "read.py", "exec"), {})
    found = {name: float(value) for value, name in map(str.split, capsys.readouterr().out.splitlines())}
    expected = jax_video.load(trained.workdir).classify(video, timeout=None)
    assert len(found) == 5 and found == pytest.approx({name: expected[name] for name in found}, abs=0.02)


def test_the_program(exported, trained):
    """Takes any number of clips, on every platform; its card says what it takes."""
    out, _ = exported
    found, told = read(out)
    assert found.platforms == ("cpu", "cuda", "tpu")
    run = jax_video.load(trained.workdir)
    assert told["classes"] == list(run.classes) and told["inputs"]["rgb"]["shape"] == ["b", 4, 32, 32, 3]
    assert told["jax"]["calling_convention"] == found.calling_convention_version
    video = np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), dtype=np.uint8)
    probabilities = found.call(video)
    np.testing.assert_allclose(probabilities, jax.jit(program.function(run))(video), atol=1e-6)
    np.testing.assert_allclose(np.sum(probabilities, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(97, 131), (240, 320), (480, 853), (64, 300), (31, 37), (75, 50)])
@pytest.mark.parametrize("short_side", [31, 36, 62])
def test_the_reader_resizes_to_the_bit(shape, short_side):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = transforms.resize_short(image[None], short_side)[0]
    found = classify.resize(image, *expected.shape[:2])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize(("kind", "number"), [("nonoverlap", 1), ("uniform", 1), ("uniform", 5), ("spread", 6)])
def test_the_reader_cuts_the_same_clips(kind, number, reflect):
    for count in range(1, 60):
        asked = dict(frames=5, stride=3, clips=kind, number=number, reflect=reflect, segments=0)
        expected = clips.test_clips(count, 5, 3, clips=kind, number=number, reflect=reflect)
        np.testing.assert_array_equal(classify.clips(count, asked), expected)
        asked |= {"clips": "segments", "segments": number}
        expected = clips.segment_clips(count, 5, 3, number, reflect=reflect)
        np.testing.assert_array_equal(classify.clips(count, asked), [expected])


@pytest.mark.parametrize(("rate", "fps"), [(30, 15.0), (30000 / 1001, 15.0), (25.0, 10), (10.0, 15.0), (24.979, 30.0)])
def test_the_reader_takes_the_same_frames_at_another_rate(rate, fps):
    for count in (1, 2, 7, 60):
        sampling = pipeline.Sampling(5, 3, 32, 32, fps=fps)
        usable = sampling.frames_of(count, rate)
        expected = [usable.places(clip) for clip in clips.test_clips(usable.count, 5, 3, clips="uniform", number=4)]
        asked = dict(frames=5, stride=3, clips="uniform", number=4, reflect=False, segments=0, fps=fps)
        np.testing.assert_array_equal(classify.cut(count, rate, asked), expected)
    with pytest.raises(ValueError, match="its frame rate is not known"):
        classify.cut(2, 0.0, asked)


def test_the_reader_sees_the_clips_of_a_run_that_has_a_rate(exported, trained, tmp_path, monkeypatch):
    """Also of a video of variable rate, and of one that is shorter than a clip; pictures are classified at --fps."""
    out, _ = exported
    config = ConfigDict(json.loads((trained.workdir / "config.json").read_text()))
    config.clip.update(fps=10.0)
    run = jax_video.load(trained.workdir, config=config)
    found, told = read(out)
    told["fps"] = program.card(run, [])["fps"]
    frames = np.random.default_rng(0).integers(0, 256, (30, 40, 50, 3), np.uint8)
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in frames])
    times = {"even": np.arange(30) / 25, "uneven": np.cumsum([0.04] * 15 + [0.11] * 15), "short": np.arange(5) / 30}
    for name, seconds in times.items():
        path = tmp_path / f"{name}.mp4"
        encoding.write(path, zip(seconds, frames, strict=False))
        expected = run.classify(path, timeout=None)
        assert classify.classify(path, found, told) == pytest.approx(expected, abs=1e-5)
        assert expected != pytest.approx(jax_video.load(trained.workdir).classify(path, timeout=None), abs=1e-5)
    assert run.classify(frames, fps=25) == pytest.approx(run.classify(frames[::5], fps=5), abs=0.05)
    with pytest.raises(UserError, match="frames: its frame rate is not known, and clips have 10: say how many frames"):
        run.classify(frames)
    (tmp_path / "pictures").mkdir()
    for place, frame in enumerate([*frames[:24], *frames[:2]]):  # the last two are fields of flow, which others store
        name = f"{place + 1}.png" if place < 24 else f"flow_x_{place}.png"
        assert cv2.imwrite(str(tmp_path / "pictures" / name), frame[..., ::-1])
    expected = run.classify(tmp_path / "pictures", fps=25, timeout=None)
    assert classify.classify(tmp_path / "pictures", found, told, 25) == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(run.classify(tmp_path / "pictures", fps=10, timeout=None), abs=1e-5)
    even = classify.classify(tmp_path / "even.mp4", found, told)
    assert classify.classify(tmp_path / "even.mp4", found, told, 10) == even, "what a file says goes before"

    script = re.search(
        "```python\n(import json, .*?)```", (ROOT / "docs" / "how-to" / "export.md").read_text(), re.DOTALL
    )[1]
    (tmp_path / "model.stablehlo").write_bytes((out / "model.stablehlo").read_bytes())
    (tmp_path / "model.json").write_text(json.dumps(told))
    seen = []
    monkeypatch.setattr(export, "deserialize", lambda _: types.SimpleNamespace(call=lambda rows: seen.append(rows)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["read.py", "even.mp4"])
    with pytest.raises((TypeError, AttributeError, IndexError)):  # of a program that says nothing
        exec(compile(script, "read.py", "exec"), {})
    [rows] = seen
    manifest = Manifest("set", (), "", (Video("even.mp4", None, "test", 30, 24.966, 50, 40, None, ""),))
    wanted = pipeline.cropped_clips(manifest, "test", run.sampling, pipeline.Protocol("nonoverlap"))
    decoded = decoding.decode("even.mp4", np.concatenate([clip.frames for clip in wanted]), short_side=32)
    assert rows.shape == (len(wanted), 4, 32, 32, 3)
    middle = decoded[:, :, 4:36].reshape(rows.shape).astype(int)
    assert np.abs(rows - middle).mean() < 3 < np.abs(rows - np.roll(middle, 1, axis=1)).mean()


TESTS = {
    "three crops, mirrored too, by logits": {
        "test": {"clips": "uniform", "number": 2, "crop": "three", "flip": True, "average_clips": "logit"}
    },
    "segments in bfloat16": {
        "dtype": "bfloat16",
        "model": {"consensus": True},
        "clip": {"segments": 3, "stride": 2, "short_side": 36},
        "test": {"clips": "segments"},
    },
}


@pytest.mark.parametrize("name", TESTS)
def test_other_ways_to_test(name, tmp_path):
    run = untrained(tmp_path / "run", **TESTS[name])
    folder.write(run, tmp_path / "out", ["stablehlo"])
    frames = np.random.default_rng(0).integers(0, 256, (11, 40, 50, 3), dtype=np.uint8)
    found, told = read(tmp_path / "out")
    assert of_frames(frames, found, told) == pytest.approx(run.classify(frames), abs=1e-5)
    assert told["activations"] == run.config.dtype == TESTS[name].get("dtype", "float32")


def of_frames(frames, *given):
    """What the reader says of a video of these frames."""
    with pytest.MonkeyPatch.context() as patch:
        resized = lambda path, side: (transforms.resize_short(path, side), 0.0)  # noqa: E731
        patch.setattr(classify, "frames", resized)
        return classify.classify(frames, *given)


def test_whole_frames(tmp_path):
    """Of any size, in one program: sides are the short side and so many times 32."""
    sections = {"test": {"crop": "full"}}
    run = untrained(tmp_path / "run", **sections)
    folder.write(run, tmp_path / "out", ["stablehlo"])
    found, told = read(tmp_path / "out")
    assert told["inputs"]["rgb"]["shape"] == ["b", 4, "32*h+0", "32*w+0", 3]
    frames = np.random.default_rng(0).integers(0, 256, (8, 33, 80, 3), dtype=np.uint8)
    assert of_frames(frames, found, told) == pytest.approx(run.classify(frames), abs=1e-5)


def test_two_streams(tmp_path):
    """Where frames are small, a program for all sizes cannot be made; one of their middle can."""
    run = untrained(tmp_path / "run", "phase=joint,appearance=a,motion=b")
    with pytest.raises(
        UserError, match="in their middle: --crop=center. Or leave the program out: --format=safetensors"
    ):
        folder.write(run, tmp_path / "out", ["stablehlo"])
    assert not (tmp_path / "out").exists()
    folder.write(run, tmp_path / "out", ["stablehlo"], crop="center")
    found, told = read(tmp_path / "out")
    assert [told["inputs"][name]["shape"] for name in told["streams"]] == [["b", 5, 32, 32, 3], ["b", 5, 32, 32, 20]]
    rng = np.random.default_rng(0)
    batch = {
        name: rng.integers(0, 256, (2, 5, 32, 32, channels), np.uint8) for name, channels in pipeline.CHANNELS.items()
    }
    logits = jax.jit(run.objective.test, static_argnums=0)(run.definition, *run.weights.values(), batch)
    np.testing.assert_allclose(found.call(*batch.values()), jax.nn.softmax(logits), atol=1e-6)


def test_a_knowledge_transfer_has_weights_but_no_program(tmp_path):
    run = untrained(tmp_path / "run")
    run._task = dataclasses.replace(run.task, objective=objectives.Correspondence())
    for each in ("stablehlo", "onnx"):
        with pytest.raises(UserError, match="knows no classes: there is nothing to classify with. Fine-tune it"):
            folder.write(run, tmp_path / "out", [each])
    folder.write(run, tmp_path / "out", ["safetensors"])
    text = (tmp_path / "out" / "README.md").read_text()
    assert 'run.features("video.mp4")' in text and 'pipeline_tag: "feature-extraction"' in text


def test_all_files_of_a_folder_compute_the_same(trained, tmp_path):
    """In another type of activations, and of other parts of a frame, than the run's test; whose result is then not
    theirs."""
    run = jax_video.load(trained.workdir, dtype="bfloat16")
    folder.write(run, tmp_path / "out", ["stablehlo", "safetensors"], crop="three")
    told, again = json.loads((tmp_path / "out" / "model.json").read_text()), jax_video.load(tmp_path / "out")
    assert (again.config.dtype, again.protocol.crop) == ("bfloat16", "three")
    assert "bfloat16" in json.dumps(told) and '"three"' in json.dumps(told)
    assert "No result of a test is known." in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("formats", "out", "expected"),
    [
        (["tensorrt"], "new", "--format=tensorrt: expected one, or several with commas, of stablehlo, onnx, saf"),
        ([], "new", "--format=: expected one, or several with commas, of stablehlo, onnx, safetensors$"),
        (["onnx"], "s3://bucket/new", "export writes to local folders"),
        (["onnx"], "run", "is a run's folder"),
        (["onnx"], "file", "is a file"),
    ],
)
def test_a_folder_that_cannot_be_written(formats, out, expected, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=expected):
        folder.check(out if "://" in out else tmp_path / out, formats)


def test_a_folder_may_be_a_disk_of_its_own(trained, tmp_path, monkeypatch):
    """Nothing is moved into it from beside it; and what fails leaves no folder."""
    replace = os.replace

    def within(source, target):
        assert pathlib.Path(source).resolve().is_relative_to((tmp_path / "disk").resolve())
        replace(source, target)

    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    monkeypatch.setattr(os, "replace", within)
    run = jax_video.load(trained.workdir)
    folder.write(run, tmp_path / "out", ["safetensors"])
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    monkeypatch.setattr(os, "replace", lambda source, target: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        folder.write(run, tmp_path / "new", ["safetensors"])
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="out is empty"):
        folder.write(run, "", ["safetensors"])


def test_packages_that_are_missing(tmp_path, monkeypatch):
    run = untrained(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match="pip install --no-deps jax2onnx"):
        folder.write(run, tmp_path / "out", ["onnx"])
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    monkeypatch.delitem(sys.modules, "jax._src.export.serialization", raising=False)
    with pytest.raises(UserError, match="pip install flatbuffers"):
        folder.write(run, tmp_path / "out", ["stablehlo", "safetensors"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_card(exported, trained):
    out, _ = exported
    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    told = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in front.splitlines())}
    assert (told["license"], told["library_name"], told["pipeline_tag"]) == (
        "apache-2.0",
        "jax_video",
        "video-classification",
    )
    result = json.loads((trained.workdir / "test.json").read_text())
    (entry,) = told["model-index"][0]["results"]
    assert entry["metrics"][0] == {"type": "accuracy", "name": "top-1 accuracy", "value": result["top1"]}
    assert f"| top-1 accuracy | {100 * result['top1']:.2f} % |" in body
    assert "Of 8 of 8 test videos" in body and "counterclockwise" in body and "python classify.py video.mp4" in body


@pytest.mark.parametrize("kind, told", [("sgd", "by SGD, learning rate"), ("adamw", "by AdamW, learning rate")])
def test_a_card_names_the_optimizer(trained, kind, told):
    run = jax_video.load(trained.workdir)
    run.meta.config["optimizer"]["kind"] = kind
    assert told in card.text(run, [])


def test_a_card_says_what_nobody_knows(tmp_path):
    run = untrained(tmp_path / "run")
    text = card.text(run, [])
    assert 'license: "unknown"' in text and "model-index" not in text and "No result of a test is known." in text
    assert "Nobody has said which licence" in text and "classify.py" not in text
    assert "datasets" not in text and " on " not in text.split("# ")[1].splitlines()[0] and "| Data | unknown |" in text
    assert "converted for [jax_video]" in text and "trained with" not in text
    with pytest.raises(UserError, match="--license=My Licence: expected an identifier"):
        card.text(run, [], license="My Licence")


def test_names_of_classes_stay_text_in_a_card(tmp_path):
    run = untrained(tmp_path / "run")
    run.meta = dataclasses.replace(run.meta, manifest="0" * 64)
    run.meta.config["data"]["manifest"] = "/home/me/a|b\x1b[1m"
    text = card.text(run, [])
    assert "\x1b" not in text and "a\\|b" in text and "/home" not in text


@pytest.mark.parametrize("manifest", ["data/ucf101", "data/ucf101/manifest.jsonl", "data/ucf101/packed/"])
def test_a_card_names_the_set_and_not_its_form(tmp_path, manifest):
    run = untrained(tmp_path / "run")
    run.meta = dataclasses.replace(run.meta, manifest="0" * 64)
    run.meta.config["data"]["manifest"] = manifest
    text = card.text(run, [])
    assert 'datasets: ["ucf101"]' in text and f"# {run.config.model.name} on ucf101\n" in text


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("taps", [(1, 1, 1), (3, 3, 3), (3, 1, 1)])
def test_operations_for_onnx_compute_the_same(taps, groups):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 9, 8, 4)).astype(np.float32)
    kernel = rng.normal(size=(*taps, 4 // groups, 6)).astype(np.float32)
    padding = [(size // 2, size // 2) for size in taps]
    for strides in ((1, 1, 1), (2, 2, 1)):
        options = {"strides": strides, "padding": padding}
        expected = convolution.conv(x, kernel, groups=groups, **options)
        np.testing.assert_allclose(onnx._conv(x, kernel, groups=groups, **options), expected, atol=1e-5)
        expected = convolution.max_pool(x, taps, **options)
        np.testing.assert_array_equal(onnx._max_pool(jnp.asarray(x), window=taps, **options), expected)


@pytest.mark.parametrize(("argument", "loss"), [("", None), ("phase=appearance", None), ("", "sigmoid")])
def test_onnx_gives_the_same(argument, loss, tmp_path):
    pytest.importorskip("jax2onnx", reason="docs/how-to/export.md says how to install it")
    runtime = pytest.importorskip("onnxruntime")
    run = untrained(tmp_path / "run", argument, train={"loss": loss})
    folder.write(run, tmp_path / "out", ["onnx"], crop="center")
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx")
    (shape,) = program.shapes(run).values()
    video = np.random.default_rng(0).integers(0, 256, (3, *shape[1:-3], 32, 32, 3), dtype=np.uint8)
    (found,) = session.run(["probabilities"], {"rgb": video})
    np.testing.assert_allclose(found, program.function(run)(video), atol=1e-4)
    told = {"classes": list(run.classes)} | ({"thresholds": [0.5] * 8} if loss else {})
    beside = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(beside[key]) for key in ("classes", "thresholds") if key in beside} == told
