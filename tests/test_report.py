"""The report: what a run's folder tells is on the page, safe to look at; what is missing is said."""

import dataclasses
import html.parser
import itertools
import json
import os
import pathlib
import re
import shutil
import time
import types

import mutations
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from commands import TinyRun, check_user_error, run, tiny_run
from scipy import stats
from servers import serving

import jax_video
from jax_video import metrics, published, workflow
from jax_video.data import documents, pipeline, samples
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError
from jax_video.explanation import Explainer, Explanation
from jax_video.exporting import card
from jax_video.reporting import charts, classes, comparison, confusion, labels, mistakes, page, record, single
from jax_video.testing import fusion

REPORT = "jax_video.report"
NASTY = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "&lt;b&gt; 'quoted' \"twice\"",
    "bell \x07 escape \x1b[31m null-ish \x01",
    "right \u202eto\u202c left \u2066x\u2069",
    "long " * 2000,
    "عربي",
)


class Page(html.parser.HTMLParser):
    """What is on a page: its elements, and its text without scripts and styles."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self._within: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._within.append(tag)
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        if self._within and tag == self._within[-1]:
            self._within.pop()

    def handle_data(self, data):
        if self._within:
            self.scripts[-1] = self.scripts[-1][0], self.scripts[-1][1] + data
        else:
            self.words.append(data)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(name == tag and attributes.items() <= found.items() for name, found in self.elements)


def make_run(
    folder: pathlib.Path, names: tuple[str, ...], scores: np.ndarray, labels: np.ndarray, **more
) -> pathlib.Path:
    """The folder of a run that was tested: of video i of class k `names[k]/i.mp4`."""
    folder.mkdir(parents=True)
    values = metrics.video_metrics(scores, labels, len(names))
    table = values.pop("confusion")
    result = {"step": 7, "videos": len(labels), "of": len(labels), **values} | more
    result["class_accuracy"] = dict(zip(names, values["class_accuracy"], strict=True))
    rows = ((f"{names[k]}/{i}.mp4", names[k], row) for i, (k, row) in enumerate(zip(labels, scores, strict=True)))
    fusion.write_scores(folder, names, table, result, rows)
    documents.write(folder / "test.json", result, seal=False)
    config = {"model": {"name": "resnet3d18"}, "data": {"manifest": "gone", "fraction": 1.0}, "train": {"batch": 8}}
    (folder / "config.json").write_text(json.dumps(config))
    lines = [{"step": step, "split": "train", "loss": 2 / step, "top1": step / 10} for step in range(1, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def drawn(count: int, each: int, seed: int = 0, right: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of a test; neighbouring classes are confused."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    logits = rng.normal(size=(len(labels), count))
    for place, label in enumerate(labels):
        logits[place, [label, label ^ 1 if label ^ 1 < count else label]] += right
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True), labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TinyRun:
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def small(tmp_path) -> pathlib.Path:
    return make_run(tmp_path / "small", ("run", "walk", "swim"), *drawn(3, 6))


def write(*folders, **options) -> Page:
    return Page(jax_video.write_report(*folders, **options))


def test_a_test_leaves_a_report(trained):
    """With its mistakes as filmstrips of what the network looked at."""
    found = Page(trained.workdir / "report.html")
    wrong = mistakes.surest(record.read(trained.workdir))
    assert found.count("img") == min(len(wrong), 8) > 0
    assert "cannot be shown" not in found.text and "No pictures" not in found.text
    assert "resnet3d18 on motions" in found.text and "8 of 8 test videos" in found.text
    network = re.search("resnet3d18, ([0-9,]+) parameters", trained.finished.stderr)[1]
    assert f"parameters {network}" in found.text and "trained on 1 device" in found.text
    assert "weights from random" in found.text and "train videos 16" in found.text and "batch 8" in found.text
    assert "report.html" in trained.finished.stdout and "report" not in trained.finished.stderr


def test_the_command(trained, tmp_path):
    finished = run(REPORT, trained.workdir, "--out=it.html", "--mistakes=2", "--noexplain", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    assert (finished.stdout, finished.stderr) == ("Wrote it.html.\n", "")
    assert Page(tmp_path / "it.html").count("img") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["it.html"]


def test_wrong_use(small, tmp_path):
    check_user_error(run(REPORT), "expected the folder of a run, or of two, got none")
    check_user_error(run(REPORT, tmp_path), f"{tmp_path} is no run: none of test.json")
    check_user_error(run(REPORT, small / "test.json"), "test.json is a file; expected the folder of a run")
    check_user_error(run(REPORT, small, small), "say where to write, for example --out=both.html")
    check_user_error(run(REPORT, small, "--out=nowhere/x.html", cwd=tmp_path), "cannot write nowhere/x.html", "--out")
    os.mkfifo(tmp_path / "pipe")
    check_user_error(
        run(REPORT, small, f"--out={tmp_path / 'pipe'}"), "pipe is no report, and one would take its place"
    )
    (tmp_path / "link").symlink_to(small)
    for other in (small, tmp_path / "link"):
        with pytest.raises(UserError, match="is named twice"):
            jax_video.write_report(small, other, out=tmp_path / "x.html")
    before = (small / "test.json").read_text()
    with pytest.raises(UserError, match="test.json is no report, and one would take its place"):
        jax_video.write_report(small, out=small / "test.json")
    assert (small / "test.json").read_text() == before
    with pytest.raises(UserError, match="there is no such folder; make it, or name a file"):
        jax_video.write_report(small, out=f"{tmp_path}/pages/")
    assert jax_video.write_report(small, out=tmp_path / "x.html") == jax_video.write_report(
        small, out=tmp_path / "x.html"
    )


def test_a_page_needs_nothing_else(small):
    found = write(small)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", found.source.replace("://schema", ""))
    addresses = [found[key] for _, found in found.elements for key in ("src", "href") if key in found]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)


@pytest.mark.parametrize(("right", "of"), [(0, 1), (1, 1), (0, 20), (7, 8), (160, 160), (14116, 20000)])
def test_intervals_are_wilsons(right, of):
    expected = stats.binomtest(right, of).proportion_ci(method="wilson")
    assert classes.wilson(right, of) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_every_class_has_its_numbers(tmp_path):
    scores = np.eye(3)[[0, 0, 1, 1, 1, 0]] * 0.8 + 0.1  # answers
    found = write(make_run(tmp_path / "run", ("run", "walk", "swim"), scores, np.array([0, 0, 0, 1, 1, 2])))
    rows = re.findall(r"<tr>(.*?)</tr>", found.source)
    texts = [" ".join(re.sub(r"<[^>]+>", " ", row).split()).replace("\u202f", " ") for row in rows]
    assert "run 3 66.7 % 21–94 66.7 % walk 1×" in texts
    assert "walk 2 100.0 % 34–100 66.7 % –" in texts
    assert "swim 1 0.0 % 0–79 – run 1×" in texts, "nothing is answered with it: no precision"
    assert {"run walk 1 33 % 0", "swim run 1 100 % 0"} <= set(texts), "the pairs"
    assert "2 of 6 videos got a wrong answer" in found.text


def test_names_of_strangers_are_shown_and_not_obeyed(tmp_path):
    scores, labels = drawn(len(NASTY), 3, right=0.3)
    found = write(make_run(tmp_path / "<b>run</b>", NASTY, scores, labels))
    scripts = [attributes for attributes, _ in found.scripts if attributes.get("type") != "application/json"]
    assert found.count("script") == 1 and len(scripts) == 2, "the style, and one script"
    assert not any(key.startswith("on") for _, attributes in found.elements for key in attributes)
    assert not found.count("b", **{}) or "<b>run" not in found.source
    assert "<script>document.title='owned'</script>" in found.text and "bell \\x07 escape \\x1b[31m" in found.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", found.source)
    assert max(map(len, found.words)) < 4000 and len(found.source) < 200_000


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("test.json", "No result: there is no test.json."),
        ("config.json", "How it was trained is not known: there is no config.json."),
        ("metrics.jsonl", "No curves: there is no metrics.jsonl."),
        ("predictions.jsonl", "predictions.jsonl"),
        ("confusion.json", "No table: there is no confusion.json."),
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"model": 3, "top1": 1}\n', b"\0\0"])
def test_what_is_missing_is_said(small, gone, said, content):
    """Be it gone, or damaged."""
    (small / gone).unlink()
    if content is not None:
        (small / gone).write_bytes(content)
    found = write(small)
    assert content is not None or said in found.text
    assert found.count("h2") >= 3


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("test.json", {"top1": "x"}, "No result: test.json: 'top1' is 'x', expected a number."),
        ("test.json", {"pair_accuracy": "x"}, "No result: test.json: 'pair_accuracy' is 'x', expected a number."),
        ("confusion.json", {"classes": [], "videos": []}, "No table: confusion.json: 'classes' is empty."),
    ],
)
def test_what_is_damaged_is_said(small, file, content, said):
    (small / file).write_text(json.dumps(content))
    assert said in write(small).text


def test_an_empty_matrix_beside_a_checkpoint(trained, tmp_path):
    work = shutil.copytree(trained.workdir, tmp_path / "run", ignore=lambda *_: ["tensorboard"])
    (work / "confusion.json").write_text('{"classes": [], "videos": []}')
    assert "No table: confusion.json: 'classes' is empty." in write(work).text


def test_weights_of_several_parts_are_named(small):
    config = json.loads((small / "config.json").read_text())
    config["init_from"] = {"path": ["runs/a", "runs/b"], "into": ["appearance", "motion"]}
    (small / "config.json").write_text(json.dumps(config))
    assert "runs/a , runs/b , for its appearance and motion" in write(small).text
    config["init_from"] = {"path": "runs/a", "into": "student"}
    (small / "config.json").write_text(json.dumps(config))
    assert "runs/a , for its student" in write(small).text


def test_a_run_that_is_still_trained(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "split": "train", "loss": NaN, "top1": 0.5}\n')
    found = write(tmp_path)
    assert "No result: there is no test.json" in found.text and "--mode=test" in found.text
    assert "It was not validated so far." in found.text


def test_fused_scores_and_knowledge_transfer(tmp_path):
    scores, labels = drawn(3, 4)
    fused = make_run(
        tmp_path / "fused", ("run", "walk", "swim"), 2 * scores, labels, fused=["a", "b"], weights=[1.0, 2.0]
    )
    for file in ("config.json", "metrics.jsonl"):
        (fused / file).unlink()
    found = write(fused)
    assert "the sum of 1 × a , 2 × b" in found.text and "share of the scores" in found.text
    assert "Training" not in found.text and "curves" not in found.text
    transfer = tmp_path / "transfer"
    transfer.mkdir()
    (transfer / "test.json").write_text(
        '{"pair_accuracy": 0.5, "positive_accuracy": 1.0, "videos": 8, "of": 9, "step": 6}'
    )
    assert "pairs told right 50.0" in (found := write(transfer)).text.replace("\u202f", " ")
    assert "8 of 9 test videos : the others could not be read" in found.text
    assert "Knowledge transfer tells whether pairs are of one video" in found.text


def test_views_are_shown_by_layer(small):
    share = {"H-W": 0.5, "T-W": 0.3, "T-H": 0.2}
    views = {"step": 6, "split": "val", "videos": 8, "of": 8, "overall": share}
    views |= {"layers": {"layer2/0": share}, "classes": {f"class {k}": share for k in range(30)}}
    (small / "views.json").write_text(json.dumps(views))
    found = write(small)
    assert "of another set than" not in found.text
    assert "Appearance and motion" in found.text and "layer2/0, H-W: 0.500" in found.text
    assert "class 9" in found.text and "class 29" in found.text and "class 15" not in found.text


def test_the_pictures_are_of_the_set_that_was_tested(trained, tmp_path):
    """Where it is another one now, or gone, the page has none and says so."""
    work = shutil.copytree(trained.workdir, tmp_path / "run", ignore=lambda *_: ["checkpoints", "tensorboard"])
    other = tmp_path / "other.jsonl"
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    assert write(work, data=trained.data).count("img") > 0
    assert "cannot be shown" in write(work, data=trained.data).text, "it has no checkpoint: plain filmstrips"
    Manifest("another", manifest.classes, manifest.root, manifest.videos[:-1]).write(other)
    found = write(work, data=other)
    assert found.count("img") == 0 and "the test was of another set than another is now" in found.text
    found = write(work, data=tmp_path / "nowhere")
    assert found.count("img") == 0 and "cannot read the manifest" in found.text and "--data=DIR" in found.text
    moved = tmp_path / "moved.jsonl"
    Manifest(manifest.name, manifest.classes, str(tmp_path), manifest.videos).write(moved)
    found = write(work, data=moved)
    wrong = len(mistakes.surest(record.read(work)))
    assert found.count("img") == 0 and wrong > 1 and found.text.count("missing") == 1
    assert f"{wrong} pictures are missing, the first: {tmp_path}" in found.text
    assert "A picture is missing: " in write(work, data=moved, mistakes=1).text


def retold(work: pathlib.Path, **changes) -> pathlib.Path:
    """A run whose test says something else of what it is of, in both files that have it."""
    result = json.loads((work / "test.json").read_text()) | changes
    (work / "test.json").write_text(json.dumps(result))
    table = documents.read(work / "confusion.json")
    table["result"] = {key: result.get(key, value) for key, value in table["result"].items()}
    documents.write(work / "confusion.json", table)
    return work


@pytest.fixture
def work(trained, tmp_path) -> pathlib.Path:
    """A copy of the run."""
    return shutil.copytree(trained.workdir, tmp_path / "work", ignore=lambda *_: ["tensorboard"])


def test_a_result_of_another_set_is_not_shown_as_one_of_the_set_that_it_was_trained_on(work, trained):
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    other = Manifest("another", manifest.classes, manifest.root, manifest.videos[8:])
    said = "8 of 8 test videos; of another set than it was trained on"
    assert "another set" not in write(work, explain=False).text
    retold(work, manifest=other.hash)
    found = write(work, explain=False).text
    assert "resnet3d18 on motions" in found and said in found and "train videos 16" in found
    found = write(work, explain=False, data=other).text
    assert f"resnet3d18 on {trained.data.name}" in found and said in found and "train videos" not in found
    both = write(work, trained.workdir, out=work / "both.html").text
    assert f"A: {said}" in both and "B: 8 of 8 test videos; checkpoint" in both


def test_a_result_is_of_the_videos_of_its_split(small):
    assert "18 of 18 test videos" in write(small).text
    retold(small, protocol={"split": "val"}, of=19)
    assert "18 of 19 val videos : the others could not be read" in write(small).text
    retold(small, fused=["a", "b"])
    assert "18 of 19 videos : the others" in write(small).text


def test_how_it_was_tested_is_said_where_it_is_not_as_it_was_trained(work, trained, tmp_path):
    config = json.loads((work / "config.json").read_text())
    asked = {"clips": "uniform", "number": 3, "flip": True, "average_clips": "logit"}
    protocol = config["test"] | {"split": "test"} | asked
    clip = config["clip"] | {"frames": 8, "stride": 4}
    retold(work, protocol=protocol, clip=clip, dtype="bfloat16")
    shown = write(work, explain=False).text
    assert "clips: uniform (3), crop: center, each also mirrored, logits averaged" in shown
    assert f"other clips than it was trained with , which had frames {config['clip']['frames']}, stride" in shown
    assert "activations in bfloat16" in shown
    said = "They were not tested alike, so differences are not of the networks alone: protocol.average_clips: logit and"
    both = write(work, trained.workdir, out=tmp_path / "both.html").text
    assert said in both and "dtype: bfloat16 and float32" in both and "sign test" not in both
    same = shutil.copytree(trained.workdir, tmp_path / "same", ignore=lambda *_: ["tensorboard", "checkpoints"])
    assert "not tested alike" not in write(trained.workdir, same, out=tmp_path / "same.html").text


@pytest.mark.parametrize(
    "chosen, said", [(None, "all .5, as no validation has chosen any"), ((0.3, 0.6), "which validation has chosen")]
)
def test_thresholds_are_said_to_be_chosen_where_they_are(chosen, said):
    meta = types.SimpleNamespace(thresholds=chosen, is_of_another_set=lambda _: False)
    found = record.Record(
        pathlib.Path("run"), "run", result={"map": 0.5, "thresholds": {"a": 0.5, "b": 0.5}}, meta=meta
    )
    assert said in labels.about(found)
    found.meta, found.result = None, {"map": 0.5, "thresholds": {"a": 0.4, "b": 0.5}}
    assert "which validation has chosen" in labels.about(found), "whatever is known of its checkpoint"
    found.result = {"map": 0.5, "fused": ["a", "b"]}
    assert "F1" not in labels.about(found)


def test_what_a_run_was_trained_on_and_from_is_told_as_it_was(small):
    """Clips of drawn strides and of a rate, a part of the set; and no password of an address."""
    config = json.loads((small / "config.json").read_text())
    config["data"]["fraction"] = 0.004
    config["clip"] = {"frames": 5, "stride": 2, "strides": [1, 3], "fps": 15.0}
    config["optimizer"] = {"kind": "sgd", "momentum": 0.0}
    config["init_from"] = {"path": "https://ann:secret@example.invalid/run"}
    (small / "config.json").write_text(json.dumps(config))
    shown = write(small, explain=False)
    assert "stride 1 to 3 in training, 2 in tests" in shown.text and "frames per second 15.0" in shown.text
    assert "share of the set’s training videos 0.4 %" in shown.text and "SGD, momentum 0.0" in shown.text
    assert "secret" not in shown.source and "https://example.invalid/run" in shown.source


def test_parameters_are_not_counted_without_the_classes(work):
    shown = write(work, explain=False).text
    assert (number := re.search(r"parameters ([\d,]+)", shown))
    shutil.rmtree(work / "checkpoints")
    for file in ("test.json", "confusion.json", "predictions.jsonl"):
        (work / file).unlink()
    assert f"parameters {number[1]}" in write(work).text, "of the classes of its set"
    config = json.loads((work / "config.json").read_text())
    config["data"]["manifest"] = "gone"
    (work / "config.json").write_text(json.dumps(config))
    assert not re.search(r"parameters [\d,]+", write(work).text)


@pytest.fixture
def explained(monkeypatch) -> list[tuple[Explainer, Explanation]]:
    """What explained, and the explanation, of each filmstrip with maps, which are of nothing and cost nothing."""
    found = []

    def look(explainer, part, clips, batch, wanted, layer):
        [clip] = clips
        frames = samples.cut(part.manifest, clip, explainer._sampling)["rgb"]
        frames, places = frames.reshape(-1, *frames.shape[-3:]), clip.frames.ravel()
        maps = np.zeros(frames.shape[:3], np.float32)
        found.append(explainer)
        yield Explanation(frames, maps, "it", 0.5, "layer4", (1, 1, 1), places, part.seconds[places])

    def filmstrip(explanation, columns):
        found[-1] = found[-1], explanation
        return explanation.frames[0]

    monkeypatch.setattr(Explainer, "_look", look)
    monkeypatch.setattr(mistakes.heatmaps, "filmstrip", filmstrip)
    return found


@pytest.mark.parametrize("fps", [10.0, 0.0])
def test_a_mistake_is_explained_with_the_frames_and_seconds_of_its_video(work, trained, explained, fps):
    """In a clip of its test: of 8 frames there are two clips of 4, one after the other."""
    manifest = Manifest.read(trained.data / "manifest.jsonl")
    videos = tuple(dataclasses.replace(video, fps=fps) for video in manifest.videos)
    other = dataclasses.replace(manifest, videos=videos)
    write(retold(work, manifest=other.hash), data=other)
    assert explained
    for _, found in explained:
        assert found.indices.tolist() == [4, 5, 6, 7]
        assert found.seconds is None if not fps else found.seconds == pytest.approx(found.indices / fps)


@pytest.mark.parametrize("opened", [False, True])
def test_mistakes_are_explained_by_the_clips_and_the_type_of_their_test(work, trained, explained, opened):
    config = json.loads((work / "config.json").read_text())
    clip = config["clip"] | {"frames": 3, "stride": 2, "short_side": 30, "size": 24}
    protocol = config["test"] | {"split": "test", "clips": "uniform", "number": 4, "crop": "three", "flip": True}
    retold(work, protocol=protocol, clip=clip, dtype="bfloat16")
    write(jax_video.load(work) if opened else work, data=trained.data)
    assert explained
    for explainer, found in explained:
        assert found.indices.tolist() == [2, 4, 6] and found.frames.shape == (3, 30, 30, 3)
        assert explainer._task.protocol == pipeline.Protocol("uniform", 4, "three", True)
        assert "bfloat16" in repr(explainer._step.__wrapped__.args[0])


def test_segments_are_those_of_the_test(work, trained, explained):
    config = json.loads((work / "config.json").read_text())
    clip, protocol = config["clip"] | {"frames": 1, "segments": 3}, config["test"] | {"clips": "segments"}
    write(retold(work, protocol=protocol | {"split": "test"}, clip=clip), data=trained.data)
    assert explained
    for _, found in explained:
        assert found.indices.tolist() == [0, 3, 6]


@pytest.mark.parametrize("changes", [{"stride": "two"}, {"colour": 1}, {"stride": 0}])
def test_clips_that_no_test_has_are_not_explained(work, trained, explained, changes):
    config = json.loads((work / "config.json").read_text())
    found = write(retold(work, clip=config["clip"] | changes), data=trained.data)
    assert not explained and found.count("img") > 0
    assert "What the network looked at cannot be shown: " in found.text


@pytest.mark.parametrize("opened", [False, True])
def test_mistakes_are_explained_by_the_checkpoint_that_made_them(work, trained, explained, opened):
    """Which need not be the best one any more, be the run open or not. If it is gone, there are plain filmstrips."""
    run = jax_video.load(work) if opened else work
    for step in (4, 3):
        explained.clear()
        retold(work, step=step, fingerprint=jax_video.load(work, step=step).fingerprint)
        write(run, data=trained.data)
        expected = jax_video.load(work, step=step).weights["params"]["conv1"]["kernel"]
        assert explained
        for explainer, _ in explained:
            assert np.array_equal(explainer._weights[0]["conv1"]["kernel"], expected)
    explained.clear()
    shutil.rmtree(work / "checkpoints" / "3")
    found = write(run, data=trained.data)
    assert not explained and found.count("img") > 0
    assert "What the network looked at cannot be shown: there is no checkpoint of step 3 in " in found.text


def test_mistakes_of_other_weights_are_not_explained_by_those_that_are_there_now(work, trained, explained):
    """As of a run that was trained anew in the folder of an earlier one."""
    found = write(retold(work, fingerprint=7), data=trained.data)
    assert not explained and found.count("img") > 0
    assert "its test was of other weights than are in the folder now: make the test again" in found.text


@pytest.mark.parametrize("file", ["config.json", "test.json", "metrics.jsonl", "confusion.json", "predictions.jsonl"])
def test_whatever_becomes_of_a_file_there_is_a_report(small, file):
    """Of all that can become of each, a part."""
    path, other = small / file, record.read(small)
    content = path.read_bytes()
    found = [mutations.of_place(), mutations.of_bytes(content)]
    found.append(mutations.of_json_lines(content, 1) if file.endswith("l") else mutations.of_json(content))
    for mutation in itertools.islice(itertools.chain(*found), 0, None, 7):
        mutation.do(path)
        read = record.read(small)
        assert b"</html>" in single.document(read, explain=False) and b"</html>" in comparison.document(other, read)
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        path.write_bytes(content)


def test_a_report_that_fails_does_not_fail_the_test(trained, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr(workflow, "write_report", fail)
    monkeypatch.setattr(workflow.results, "test", lambda *_: {"top1": 1.0})
    opened = jax_video.load(trained.workdir)
    assert workflow.test(opened, Manifest.read(trained.data / "manifest.jsonl")) == {"top1": 1.0}
    said = capsys.readouterr().err
    assert (
        said.startswith("The report failed (RuntimeError: no ink); python -m jax_video.report '")
        and said.count("\n") == 1
    )


def test_a_run_in_a_store(small, store):
    there = store / "bucket" / "runs" / "first"
    shutil.copytree(small, there)
    target = jax_video.write_report("gs://bucket/runs/first")
    assert str(target) == "gs://bucket/runs/first/report.html"
    assert "resnet3d18 on gone" in (found := Page(there / "report.html")).text and "got a wrong answer" in found.text


@pytest.fixture
def exported(trained, tmp_path) -> pathlib.Path:
    """The run, as a folder to share."""
    opened = jax_video.load(trained.workdir)
    (tmp_path / "exported").mkdir()
    published.write(tmp_path / "exported", opened.meta, opened.step, opened.weights, card.result(opened))
    return tmp_path / "exported"


def test_an_exported_run_has_a_report_elsewhere(exported, trained, tmp_path):
    files = sorted(exported.iterdir())
    check_user_error(run(REPORT, exported), "is a run that was exported, for others: say where to write, such as --out")
    found = write(exported, out=tmp_path / "it.html")
    assert "resnet3d18 on motions" in found.text and "An exported run in" in found.text
    network = re.search("resnet3d18, ([0-9,]+) parameters", trained.finished.stderr)[1]
    assert f"parameters {network}" in found.text and "batch 8" in found.text and "train.ema = 0.9" in found.text
    assert "8 of 8 test videos" in found.text and "there is no confusion.json" in found.text
    assert sorted(exported.iterdir()) == files
    shutil.copy(trained.workdir / "test.json", exported)  # it was tested there
    assert "8 of 8 test videos" in write(exported).text
    (exported / "test.json").unlink()
    (exported / "model.safetensors").unlink()
    (exported / "config.json").write_text('{"model_type": "videomae"}')
    with pytest.raises(UserError, match="is no run: none of .*no config.json of a run"):
        write(exported, out=tmp_path / "it.html")


def test_a_run_behind_a_url(trained, exported, tmp_path, monkeypatch):
    """Be it the run's own folder or an export; it is only read."""
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    with serving(trained.workdir.parent) as web:
        url = f"{web.url}/{trained.workdir.name}"
        check_user_error(run(REPORT, url), f"{url} is only read: say where to write, such as --out=report.html")
        assert not web.asked and not (tmp_path / "cache").exists()
        found, here = (write(each, out=tmp_path / "it.html", explain=False) for each in (url, trained.workdir))
        assert f"A run in {url}" in found.text and "cache" not in found.text
        assert found.text.replace(url, "") == here.text.replace(str(trained.workdir), "")
        copy = jax_video.load(url)
        with pytest.raises(UserError, match="is only read"):
            jax_video.write_report(copy)
    with serving(tmp_path) as web:
        found = write(f"{web.url}/exported", out=tmp_path / "it.html")
        assert f"An exported run in {web.url}/exported" in found.text and "8 of 8 test videos" in found.text


def test_two_runs_side_by_side(tmp_path):
    names, labels = ("run", "walk"), np.array([0, 0, 0, 1, 1])
    answers = {"a": [0, 0, 1, 1, 1], "b": [0, 1, 0, 0, 1]}
    folders = [make_run(tmp_path / name, names, np.eye(2)[best] * 0.8 + 0.1, labels) for name, best in answers.items()]
    config = json.loads((folders[1] / "config.json").read_text())
    config["train"]["batch"] = 16
    (folders[1] / "config.json").write_text(json.dumps(config))
    found = comparison.pairing(*map(record.read, folders))
    assert found.only_first == ["run/1.mp4", "walk/3.mp4"] and found.only_second == ["run/2.mp4"]
    assert (found.both, found.neither) == (["run/0.mp4", "walk/4.mp4"], [])
    shown = write(*folders, out=tmp_path / "both.html")
    assert (
        "both are right in 2 and wrong in 0; only A is right in 2, only B in 1 (exact sign test: p = 1)" in shown.text
    )
    assert "train.batch 8 16" in shown.text and "data.manifest" not in shown.text
    assert "Right in A, wrong in B: 2 videos" in shown.text and "A training" in shown.text
    assert "walk 2 100.0 % 50.0 % −50.0" in shown.text.replace("\u202f", " ")


def test_two_runs_of_different_videos(small, tmp_path):
    other = make_run(tmp_path / "other", ("run", "walk", "swim"), *drawn(3, 5))
    (other / "predictions.jsonl").write_text("")
    assert "predictions.jsonl" in write(small, other, out=tmp_path / "x.html").text
    third = make_run(tmp_path / "third", ("run", "fly"), *drawn(2, 5))
    assert "tested on different videos" in write(small, third, out=tmp_path / "x.html").text


@pytest.mark.parametrize(("one", "other"), [(1, 1), (0, 6), (3, 12), (700, 800)])
def test_the_sign_test_is_exact(one, other):
    assert comparison.sign_test(one, other) == pytest.approx(stats.binomtest(one, one + other).pvalue)


def test_the_sign_test_is_quick():
    """In the square of the number of videos, not in its cube."""
    begun = time.process_time()
    assert comparison.sign_test(9_900, 10_100) == pytest.approx(stats.binomtest(9_900, 20_000).pvalue)
    assert time.process_time() - begun < 5, "it was 37 s"


def test_confused_classes_are_put_side_by_side():
    rng = np.random.default_rng(0)
    mixed = rng.permutation(40)
    table = np.diag(np.full(40, 9))
    for first, second in mixed.reshape(20, 2):
        table[first, second] = table[second, first] = 3
    place = {number: position for position, number in enumerate(confusion.order(table))}
    assert sorted(place) == list(range(40))
    assert all(abs(place[first] - place[second]) == 1 for first, second in mixed.reshape(20, 2))


def test_curves_say_what_they_are_of(small, tmp_path):
    other = make_run(tmp_path / "other", ("run", "walk"), *drawn(2, 3))
    for found in (write(small), write(small, other, out=tmp_path / "both.html")):
        labels = re.findall(r'<text class="label"[^>]*rotate[^>]*>([^<]*)<', found.source)
        assert labels == ["loss", "top-1 (%)"]


def test_long_curves_are_thinned_to_their_means():
    points, size = charts.thinned([(step, float(step % 2)) for step in range(10_000)])
    assert len(points) <= 300 and size == 34 and points[-1][0] == 9999
    assert {y for _, y in points} == {0.5}


@pytest.mark.parametrize("values", [[0.0], [5.0, 0.0001], [1e-9, 3.0], [-1.0, 2.0], [1e20]])
def test_any_curve_is_drawn(values):
    curve = charts.Curve("x", list(enumerate(values)), "a")
    numbers = [*map(float, re.findall(r'c[xy]="([-\d.]+)"', charts.lines("Loss", "step", "loss", [curve])))]
    assert len(numbers) == 2 * len(values) and all(0 <= number <= charts.WIDTH for number in numbers)


def large(folder: pathlib.Path, each: int) -> pathlib.Path:
    names = tuple(f"class {k:03d} of a long enough name" for k in range(400))
    return make_run(folder, names, *drawn(400, each, right=5.0))


@pytest.fixture(scope="module")
def of_400_classes(tmp_path_factory) -> pathlib.Path:
    """The report of a run of 400 classes."""
    return jax_video.write_report(large(tmp_path_factory.mktemp("large") / "run", 2))


def test_400_classes_have_names_and_little_weight(of_400_classes):
    found = Page(of_400_classes)
    assert len(found.source) < 5e6
    assert found.count("img", **{"class": "map", "width": "400", "height": "400"}) == 1
    assert all(f"class {k:03d} of a long enough name" in found.text for k in range(400))


@pytest.mark.slow
def test_400_classes_of_20_000_videos(tmp_path):
    work = large(tmp_path / "run", 50)
    start = time.process_time()
    found = write(work)
    assert len(found.source) < 5e6 and time.process_time() - start < 20


# In a real browser.

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
FIRST = "document.querySelector('table.sorts tbody tr:not([hidden]) th').textContent"


@needs_chromium
def test_a_browser_shows_all_of_it_and_asks_for_nothing(trained, tmp_path):
    with Browser(width=390) as browser:
        browser.open(trained.workdir / "report.html")
        assert (browser.requests, browser.errors) == ([], [])
        widths = browser.evaluate("[...document.images].map((image) => image.naturalWidth)")
        assert widths and min(widths) > 100
        assert browser.evaluate("document.documentElement.scrollWidth <= 390"), "a phone scrolls down only"
        heads = "[...document.querySelectorAll('table.sorts thead button')]"
        rows = record.read(trained.workdir)
        most = rows.classes[int(rows.confusion.sum(axis=0).argmax())]
        browser.evaluate(f"{heads}[0].click()")
        assert browser.evaluate(FIRST) == min(rows.classes)
        browser.evaluate(f"{heads}[0].click()")
        assert browser.evaluate(FIRST) == max(rows.classes)
        assert browser.evaluate("document.querySelector('[aria-sort]').ariaSort") == "descending"
        browser.evaluate(f"{heads}[2].click()")
        recalls = browser.evaluate(
            "[...document.querySelectorAll('table.sorts tbody td:nth-child(3)')].map((x) => +x.dataset.key)"
        )
        assert recalls == sorted(recalls, reverse=True)
        browser.evaluate(
            "(({right, top}) => document.querySelector('.chart svg').dispatchEvent(new PointerEvent('pointermove', "
            "{clientX: right, clientY: top})))(document.querySelector('.chart svg').getBoundingClientRect())"
        )
        last = [row for row in rows.rows if row["split"] == "train"][-1]
        said = browser.evaluate("document.querySelector('.read').textContent")
        assert said.startswith(f"training {last['loss']:.4g} at step {last['step']} · validation ")
        find = "Object.assign(document.querySelector('.long input'), {value: '%s'}).dispatchEvent(new Event('input'))"
        browser.evaluate(find % most)
        assert browser.evaluate("document.querySelector('.found').textContent").endswith(" of 8")
        assert browser.evaluate(FIRST)
        browser.evaluate(find % "nosuchclass")
        assert browser.evaluate("document.querySelector('.found').textContent") == "0 of 8"
        assert (browser.requests, browser.errors) == ([], [])


@needs_chromium
def test_long_names_do_not_push_a_column_off_the_page(tmp_path):
    names = tuple(f"class_{k:02d}_of_{'ALongEnoughName' * 5}" for k in range(40))
    with Browser(width=1280) as browser:
        browser.open(jax_video.write_report(make_run(tmp_path / "run", names, *drawn(40, 3, right=0.3))))
        overflow = "[...document.querySelectorAll('.scroll')].map((box) => box.scrollWidth - box.clientWidth)"
        assert set(browser.evaluate(overflow)) == {0}


@needs_chromium
def test_a_browser_runs_no_name(tmp_path):
    scores, labels = drawn(len(NASTY), 3, right=0.3)
    one = make_run(tmp_path / "one", NASTY, scores, labels)
    many = make_run(tmp_path / "many", (*NASTY, *map(str, range(40))), *drawn(48, 3, right=0.3))
    with Browser() as browser:
        pages = [
            *map(jax_video.write_report, (one, many)),
            jax_video.write_report(one, many, out=tmp_path / "both.html"),
        ]
        for place in pages:
            browser.open(place)
            assert "resnet3d18 on gone" in browser.evaluate("document.title")
            assert (browser.requests, browser.errors) == ([], [])


@needs_chromium
def test_the_lens_looks_at_any_part_of_400_classes(of_400_classes):
    with Browser() as browser:
        browser.open(of_400_classes)
        names = "[...document.querySelectorAll('.lens tbody th')].map((x) => x.textContent)"
        numbers = "[...document.querySelectorAll('.lens td.right')].map((x) => +x.textContent)"
        before = browser.evaluate(names)
        assert len(before) == confusion.LENS and min(browser.evaluate(numbers)) > 0
        wanted = "class 123 of a long enough name"
        box = "document.querySelector('.overview input')"
        browser.evaluate(f"Object.assign({box}, {{value: '{wanted}'}}).dispatchEvent(new Event('input'))")
        assert wanted in (found := browser.evaluate(names)) and found != before
        area = browser.evaluate("(({x, y}) => [x, y])(document.querySelector('.map').getBoundingClientRect())")
        place = {"clientX": area[0] + 1, "clientY": area[1] + 1, "bubbles": True}
        browser.evaluate(f"document.querySelector('.map').dispatchEvent(new MouseEvent('click', {json.dumps(place)}))")
        corner = browser.evaluate(names)
        browser.evaluate(
            "document.querySelector('.map-box').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowDown'}))"
        )
        assert browser.evaluate(names)[0] == corner[confusion.LENS // 2]
        assert (browser.requests, browser.errors) == ([], [])


def test_the_pages_policy_allows_its_own_script_alone(small):
    found = write(small)
    [policy] = [found["content"] for tag, found in found.elements if found.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ") and "script-src 'sha256-" in policy
    assert page.text("a\x1b<b>'\"") == "a\\x1b&lt;b&gt;&#x27;&quot;"
