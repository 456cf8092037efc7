"""Every file that the library writes and reads back, after whatever can become of one: what is read is right, or it is
said what was left out or made again, or there is one message. Never a traceback, never other numbers in silence."""

import collections
import itertools
import json
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import commands
import mutations
import numpy as np
import pytest
from conftest import ROOT
from mutations import Mutation

from jax_video import lock, runlog
from jax_video.data import documents, manifest
from jax_video.data.decoding import flow
from jax_video.data.preparing import checks, likeness, verdicts
from jax_video.errors import UserError
from jax_video.testing import averages, fusion

# What a command says that has not used a file as it found it.
SAID = re.compile(
    r"damaged|made again|looked at again|begins anew|packed anew|left out|cannot be read|does not count|of \d+ of the"
)
RECORD = "checkpoints/{}/meta/metadata"
PACK = ("--pack", "--pack_side=32", "--flow=dis", "--flow_side=32", "--workers=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> commands.TinyRun:
    return commands.tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def prepared(trained, tmp_path_factory) -> pathlib.Path:
    """The same videos as a set of files with stored flow, and packed."""
    out = tmp_path_factory.mktemp("prepared") / "set"
    finished = commands.run("jax_video.prepare", "folder", f"--videos={trained.data}", f"--out={out}", *PACK)
    assert finished.code == 0, finished.stderr
    return out


# Of all that can become of a file every seventh is tried always.
EVERY = pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])


def whatever(every: int, data: bytes, *, lines: bool = False, **kwargs) -> Iterator[Mutation]:
    """All that can become of a file of JSON, or every seventh of it, for example."""
    found = [mutations.of_place(), mutations.of_bytes(data)]
    if lines:
        found += [
            mutations.of_lines(data),
            mutations.of_json_lines(data, 0),
            mutations.of_json_lines(data, 1, **kwargs),
        ]
    else:
        found.append(mutations.of_json(data, **kwargs))
    return itertools.islice(itertools.chain(*found), 0, None, every)


def sealed(document: dict) -> None:
    """Puts the checksum of a changed document right, so that only its shape can tell."""
    if documents.CHECKSUM in document:
        content = {key: value for key, value in document.items() if key != documents.CHECKSUM}
        document[documents.CHECKSUM] = documents.checksum(content)


def sealed_record(document: dict) -> None:
    """The same of a checkpoint's record."""
    if "content" in document and "crc32" in document:
        document["crc32"] = documents.checksum(document["content"])


def hashed(data: bytes) -> bytes:
    """A manifest with hash and checksum of the rows that it has now."""
    first, *rest = data.removesuffix(b"\n").decode(errors="surrogateescape").split("\n")
    header = json.loads(first)
    if not isinstance(header.get("name"), str) or not isinstance(header.get("classes"), list):
        return data
    texts = (line.partition(', "index": ')[0] + "}" if ', "index": ' in line else line for line in rest)
    header["hash"] = manifest._hash(header["name"], header["classes"], texts)
    lines = [f"{line}\n".encode(errors="surrogateescape") for line in rest]
    header["crc32"] = manifest._checksum(header, lines)
    return json.dumps(header).encode() + b"\n" + b"".join(lines)


# In this process: every reader, and hundreds of mutations in seconds.


def outcomes(
    path: pathlib.Path, found: Iterable[Mutation], read: Callable[[pathlib.Path], object]
) -> dict[str, object]:
    """What `read` makes of each mutation of a file: a value, or None for a message to the user."""
    content = path.read_bytes()
    results = {}
    for mutation in found:
        mutation.do(path)
        try:
            results[mutation.name] = read(path)
        except UserError as error:
            assert len(str(error)) < 1000 and "Errno" not in str(error), f"{mutation.name}: {error}"
            results[mutation.name] = None
        finally:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            path.write_bytes(content)
    return results


@pytest.fixture
def work(trained, tmp_path) -> pathlib.Path:
    """A copy of the run's own files, without its checkpoints."""
    return shutil.copytree(trained.workdir, tmp_path / "run", ignore=lambda *_: ["checkpoints", "tensorboard"])


def test_rows_of_metrics_are_right_or_left_out_and_named(work, capsys):
    path = work / "metrics.jsonl"
    expected = runlog.read(path)

    def read(path: pathlib.Path) -> tuple[list[dict], bool]:
        return runlog.read(path), "damaged and left out" in capsys.readouterr().err

    found = outcomes(path, whatever(1, path.read_bytes(), lines=True, depth=1), read)
    assert found["line 1 behind one of NUL bytes"] == (expected, True)
    assert found["line 1 torn and ended"] == (expected[1:], True)
    assert found["line 2: step -1"] == ([expected[0], *expected[2:]], True)
    for name, (rows, said) in ((name, result) for name, result in found.items() if result is not None):
        # A row that is gone cannot be missed, nor one that was torn at the end; nor can it be seen that a number is
        # another one.
        gone = any(word in name for word in ("gone", "dangling", "loop", "empty", "cut", "lost", "torn"))
        assert said or gone or len(rows) == len(expected), name
        assert is_unseen(name) or all(row in expected for row in rows), name


def is_unseen(name: str) -> bool:
    """Whether a mutation may have made another number of one in a row of metrics, which has no checksum."""
    return "flipped" in name or ": " in name


@EVERY
def test_a_manifest_is_read_as_it_was_written_or_not_at_all(every, trained, tmp_path):
    path = tmp_path / "manifest.jsonl"
    content = (trained.data / "manifest.jsonl").read_bytes()
    path.write_bytes(content)
    read = manifest.Manifest.read
    expected = read(path)
    found = outcomes(path, whatever(every, content, lines=True), read)
    places = ("root", "flow")  # which may be elsewhere tomorrow
    for name, result in found.items():
        assert result is None or result == expected or any(f"{place} " in name for place in places), name
    for number in (0, 1):
        wrong = mutations.of_json_lines(content, number, seal=hashed)
        assert outcomes(path, wrong, read), "no more is asked than a message"


@EVERY
def test_scores_and_results_are_read_as_they_were_written_or_not_at_all(every, work):
    expected = fusion.read(work)
    for name, lines in {"predictions.jsonl": True, "confusion.json": False}.items():
        content = (work / name).read_bytes()
        for mutation, result in outcomes(
            work / name, whatever(every, content, lines=lines), lambda _: fusion.read(work)
        ).items():
            assert result is None or same_scores(result, expected), f"{name}: {mutation}"
        outcomes(
            work / name,
            whatever(every, content, lines=lines, **({} if lines else {"seal": sealed})),
            lambda _: fusion.read(work),
        )
    result = averages.read(work)
    content = (work / "test.json").read_bytes()
    for mutation, found in outcomes(
        work / "test.json", whatever(every, content), lambda _: averages.read(work)
    ).items():
        numbers = found and {key: found.get(key) for key, value in result.items() if isinstance(value, int | float)}
        assert found is None or all(value in (None, result[key]) for key, value in numbers.items()), mutation
    outcomes(work / "test.json", whatever(every, content, seal=sealed), lambda _: averages.read(work))


def same_scores(one: fusion.Predictions, other: fusion.Predictions) -> bool:
    same = (one.classes, one.labels, one.scores.keys()) == (other.classes, other.labels, other.scores.keys())
    return same and all(np.array_equal(row, other.scores[video]) for video, row in one.scores.items())


@EVERY
def test_what_was_checked_is_taken_as_it_was_written_or_looked_at_again(every, prepared, tmp_path, capsys):
    path = tmp_path / "checked.jsonl"
    content = b"".join((prepared / "checked.jsonl").read_bytes().splitlines(keepends=True)[:3])
    path.write_bytes(content)
    videos = manifest.Manifest.read(prepared / "manifest.jsonl").videos

    def read(path: pathlib.Path) -> list:
        try:
            records = checks._Records(path, videos)
        except OSError:  # prepare says so
            return []
        try:
            return [record for _, record in records.earlier()]
        except OSError:
            return []
        finally:
            records.close()

    expected = [json.dumps(record) for record in read(path)]
    for name, records in outcomes(path, whatever(every, content, lines=True), read).items():
        legacy = "crc32 missing" in name
        assert {json.dumps(record) for record in records} <= set(expected) or legacy, name
    assert "damaged, or of another version. Their files are looked at again." in capsys.readouterr().err

    def forged(data: bytes) -> bytes:
        rows = []
        for line in data.splitlines():
            row = json.loads(line)
            sealed(row)
            rows.append(json.dumps(row).encode() + b"\n")
        return b"".join(rows)

    for records in outcomes(path, mutations.of_json_lines(content, 1, seal=forged), read).values():
        for record in records:
            for accepted in (False, True):
                verdicts.judged(videos[0], record, min_frames=1, max_damage=0.02, accepted=accepted)
            assert record["digest"] is None or 0 <= int(record["digest"], 16) < 2**64
            assert record["print"] is None or likeness.read(record["print"]).shape == (likeness.PICTURES,)


@EVERY
def test_settings_and_holders_are_read_as_they_were_written_or_not_at_all(every, prepared, tmp_path):
    path = shutil.copy(prepared / "flow" / "flow.json", tmp_path)
    path = pathlib.Path(path)
    expected = flow.read_settings(tmp_path)
    for name, found in outcomes(
        path, whatever(every, path.read_bytes()), lambda _: flow.read_settings(tmp_path)
    ).items():
        assert found in (None, expected) or "crc32 missing" in name, name
    outcomes(path, whatever(every, path.read_bytes(), seal=sealed), lambda _: flow.read_settings(tmp_path))
    path = tmp_path / "in_use.json"
    path.write_bytes(lock.this_process().write())
    for mutation in (*mutations.of_bytes(path.read_bytes()), *mutations.of_json(path.read_bytes())):
        mutation.do(path)
        lock.Holder.parse(path.read_bytes())


def test_documents_say_what_is_wrong():
    shape = {"a": int, "b?": [float], "c?": ({"*": str}, {"d": bool | None})}
    assert documents.parse(b'{"a": 1, "b": [1, 2.5], "c": {"d": null}, "more": NaN}', shape)["b"] == [1, 2.5]
    for text, message in {
        "": "empty",
        "\0\0": "not JSON (NUL bytes)",
        '{"a": 1,}': "not JSON (Expecting property name enclosed in double quotes at column 9)",
        "[" * 100_000: "not JSON of ours (maximum recursion depth",
        "9" * 5000: "not JSON of ours (Exceeds the limit",
        '{"a": "\\ud800"}': "half of a character",
        "[]": "it is a list, expected an object",
        '{"b": 1}': "'a' is missing",
        '{"a": true}': "'a' is True, expected int",
        f'{{"a": {10**30}}}': "'a' is a very large number, expected int",
        '{"a": 1, "b": [1, NaN]}': "number 1 of 'b' is nan, expected a number",
        '{"a": 1, "c": {"d": 1}}': "'d' is 1, expected bool or null",
    }.items():
        with pytest.raises(documents.Damaged, match=re.escape(message)):
            documents.parse(text, shape)


def test_files_of_earlier_versions_which_have_no_checksums_are_read(trained, prepared, work, tmp_path):
    expected = fusion.read(work), averages.read(work), flow.read_settings(prepared / "flow")
    for path in (work / "test.json", work / "confusion.json", shutil.copy(prepared / "flow" / "flow.json", tmp_path)):
        content = documents.read(pathlib.Path(path))
        content.pop("predictions", None)
        pathlib.Path(path).write_text(json.dumps(content))
    scores, result, settings = fusion.read(work), averages.read(work), flow.read_settings(tmp_path)
    assert same_scores(scores, expected[0]) and (result, settings) == expected[1:]

    first, *rows = (prepared / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    header = {key: value for key, value in json.loads(first).items() if key != "crc32"}
    (tmp_path / "manifest.jsonl").write_bytes(json.dumps(header).encode() + b"\n" + b"".join(rows))
    read = manifest.Manifest.read(tmp_path / "manifest.jsonl")
    assert read.videos == manifest.Manifest.read(prepared / "manifest.jsonl").videos
    for line in (prepared / "checked.jsonl").read_bytes().splitlines():
        record = json.loads(line)
        del record["crc32"]
        assert checks._parse(json.dumps(record).encode()) == checks._parse(line) == record


# Through the commands.


class Case(NamedTuple):
    """A side file, what may become of it, and who reads it then."""

    path: str  # below the copy of what it belongs to
    found: list[Mutation]
    base: str  # of `bases`
    readers: tuple[str, ...]  # of `calls`
    forged: bool = False  # a value that could be right has the checksum that is right for it: nobody can tell


def check_all(cases: list[Case], calls: Callable, bases: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    """Runs every reader on a copy of its own for every mutation, and compares with what they make of an unchanged one.

    Raises AssertionError, with all that is wrong.
    """
    work, planned = [], []
    for base in {case.base for case in cases}:
        for reader in sorted({reader for case in cases if case.base == base for reader in case.readers}):
            planned.append((base, "", "unchanged", reader, lambda _: None))
    for case in cases:
        for mutation in case.found:
            planned += [(case.base, case.path, mutation.name, reader, mutation.do) for reader in case.readers]
    for number, (base, path, _, reader, do) in enumerate(planned):
        folder = shutil.copytree(bases[base], tmp_path / str(number), symlinks=True)
        do(folder / path)
        work.append((folder, calls(reader, folder)))
    finished = commands.run_each([call for _, call in work], timeout=60 + 20 * len(work))
    counts, wrong, expected = collections.Counter(), [], {}
    forged = {(case.path, mutation.name) for case in cases if case.forged for mutation in case.found}
    for (base, path, name, reader, _), (folder, _), done in zip(planned, work, finished, strict=True):
        said = done.stdout + done.stderr
        results = result(reader, folder, done.stdout) if done.code == 0 else None
        if name == "unchanged":
            assert done.code == 0, done.stderr
            expected[base, reader] = results
        try:
            if done.code != 0:
                commands.check_user_error(done)
            assert "Traceback" not in done.stderr, done.stderr
        except AssertionError as error:
            wrong.append(f"{path}, {name}: {reader}: {str(error)[-1000:]}")
        if results not in (None, expected[base, reader]) and not SAID.search(said) and (path, name) not in forged:
            wrong.append(f"{path}, {name}: {reader}: other in silence: {difference(results, expected[base, reader])}")
        counts[reader, "a message" if done.code else "as before" if results == expected[base, reader] else "said"] += 1
    print(f"{len(planned)} commands: {dict(counts)}")
    assert not wrong, f"{len(wrong)} of {len(planned)}:\n" + "\n\n".join(wrong)


def difference(found: object, expected: object) -> str:
    """What is other, in short."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return ", ".join(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    return f"{found}"[:300]


def result(reader: str, folder: pathlib.Path, stdout: str) -> object:
    """What a command has found, so that it can be compared; not what it says beside that, and no times."""
    if reader == "main":
        rows = processes_rows(folder)
        return rows, json.loads((folder / "test.json").read_text()), (folder / "predictions.jsonl").read_bytes()
    if reader == "convert":
        with np.load(folder / "out.npz") as arrays:
            return {name: zlib.crc32(array.tobytes()) for name, array in arrays.items()}
    if reader == "features":
        with np.load(folder / "run" / "features.npz") as arrays:
            return {name: zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes()) for name in arrays}
    if reader.startswith("prepare"):
        return {
            str(path.relative_to(folder)): zlib.crc32(path.read_bytes())
            for path in (folder / "set").rglob("*")
            if path.is_file()
            and path.name not in ("checked.jsonl", "broken.csv")
            # What is in them is no text; whoever reads it says what is wrong.
            and not path.name.endswith(".flow")
            and ".array_record" not in path.name
        }
    return re.sub(r"\S*/\S*", "", stdout).split()


def processes_rows(folder: pathlib.Path) -> list:
    rows = runlog.read(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key != "examples_per_second"} for row in rows]


@pytest.fixture(scope="module")
def bases(trained, prepared, tmp_path_factory) -> dict[str, pathlib.Path]:
    """A finished run; one that was killed before its last checkpoint; a set, with a run that gives features of it."""
    folder = tmp_path_factory.mktemp("bases")
    shutil.copytree(trained.workdir, folder / "finished")
    shutil.copytree(trained.workdir, folder / "killed")
    shutil.rmtree(folder / "killed" / "checkpoints" / "4")
    shutil.copytree(prepared, folder / "set" / "set")
    shutil.copytree(trained.workdir, folder / "set" / "run")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def calls(trained) -> Callable:
    """The command line of a reader for a folder."""
    video = next((trained.data / "test").rglob("*.mp4"))

    def call(reader: str, folder: pathlib.Path) -> tuple[str, list]:
        again = ["jax_video.prepare", "folder", f"--videos={trained.data}", f"--out={folder / 'set'}", *PACK]
        tiny = f"--config={ROOT}/tests/tiny.py"
        module, *arguments = {
            "main": ["jax_video.main", *trained.arguments, f"--workdir={folder}"],
            "predict": ["jax_video.predict", video, f"--checkpoint={folder}", "--json"],
            "convert": ["jax_video.convert", folder, "--layout=3d-resnets", f"--export={folder / 'out.npz'}"],
            "fuse": ["jax_video.fuse", folder, folder / "predictions.jsonl"],
            "average": ["jax_video.average", folder, trained.workdir],
            "prepare": again,
            "prepare manifest": ["jax_video.prepare", "manifest", f"--out={folder / 'set'}", "--check=fast", *PACK],
            "features": [
                "jax_video.main",
                tiny,
                "--mode=features",
                f"--workdir={folder / 'run'}",
                f"--config.data.manifest={folder / 'set' / 'packed'}",
            ],
        }[reader]
        return module, arguments

    return call


def test_commands_read_what_is_left(bases, calls, tmp_path):
    """A few of the mutations below."""

    def pick(found: Iterable[Mutation], *names: str) -> list[Mutation]:
        chosen = [mutation for mutation in found if mutation.name in names]
        assert len(chosen) == len(names)
        return chosen

    def mutated(base: str, path: str, *names: str, **kwargs) -> list[Mutation]:
        return pick(whatever(1, (bases[base] / path).read_bytes(), **kwargs), *names)

    meta, rows = RECORD.format(4), "metrics.jsonl"
    check_all(
        [
            Case(rows, mutated("killed", rows, "line 1 behind one of NUL bytes", lines=True), "killed", ("main",)),
            Case("test.json", mutated("finished", "test.json", "empty", "now nested lists"), "finished", ("main",)),
            Case(meta, mutated("finished", meta, "cut in the middle"), "finished", ("predict",)),
            Case(
                "checkpoints/4/metrics/metrics",
                mutated("finished", "checkpoints/4/metrics/metrics", "empty"),
                "finished",
                ("predict",),
            ),
        ],
        calls,
        bases,
        tmp_path,
    )


@pytest.mark.slow
@pytest.mark.parametrize("base", ["killed", "finished", "set"])
def test_commands_read_whatever_is_left(base, bases, calls, tmp_path):
    """Every side file, by every command that reads it."""

    def some(path: str, number: int, *, lines: bool = False, **kwargs) -> list[Mutation]:
        found = list(whatever(1, (bases[base] / path).read_bytes(), lines=lines, **kwargs))
        return [found[place] for place in np.linspace(0, len(found) - 1, min(number, len(found))).astype(int)]

    def raw(path: str, number: int) -> list[Mutation]:
        found = [*mutations.of_place(), *mutations.of_bytes((bases[base] / path).read_bytes())]
        return [found[place] for place in np.linspace(0, len(found) - 1, min(number, len(found))).astype(int)]

    if base == "killed":
        rows = some("metrics.jsonl", 24, lines=True)
        cases = [
            Case(RECORD.format(3), some(RECORD.format(3), 40, seal=sealed_record, depth=4), base, ("predict",), True),
            Case(
                RECORD.format(3),
                some(RECORD.format(3), 16, seal=sealed_record, depth=3),
                base,
                ("main", "convert"),
                True,
            ),
            Case(RECORD.format(3), some(RECORD.format(3), 8), base, ("main",)),
            Case("config.json", raw("config.json", 3), base, ("main",)),
            *(Case("metrics.jsonl", [each], base, ("main",), is_unseen(each.name)) for each in rows),
        ]
    elif base == "finished":
        folder = bases[base]
        orbax = [str(path.relative_to(folder)) for path in (folder / "checkpoints" / "4").rglob("*") if path.is_file()]
        validation = "checkpoints/4/metrics/metrics"
        cases = [
            Case("test.json", some("test.json", 30), base, ("main", "average")),
            Case("test.json", some("test.json", 12, seal=sealed), base, ("main", "average"), True),
            Case("predictions.jsonl", some("predictions.jsonl", 24, lines=True), base, ("fuse",)),
            Case("confusion.json", some("confusion.json", 20, seal=sealed), base, ("fuse",)),
            Case(RECORD.format(4), raw(RECORD.format(4), 10), base, ("predict", "main")),
            Case(validation, some(validation, 10), base, ("predict", "main")),
            *(Case(path, raw(path, 3), base, ("main",)) for path in sorted(orbax) if "/d/" not in path),
        ]
    else:
        (about,) = (bases[base] / "set" / "packed").glob("*/*/dataset_info.json")
        tfds = about.parent.relative_to(bases[base])
        shard = str(next(about.parent.glob("*-test.*")).relative_to(bases[base]))
        stored = str(next((bases[base] / "set" / "flow").rglob("*.flow")).relative_to(bases[base]))
        packed = ("prepare", "features")
        rows = {"lines": True}
        cases = [
            Case("set/manifest.jsonl", some("set/manifest.jsonl", 16, **rows), base, ("prepare manifest",)),
            Case(
                "set/manifest.jsonl", some("set/manifest.jsonl", 30, **rows, seal=hashed), base, ("prepare manifest",)
            ),
            Case("set/checked.jsonl", some("set/checked.jsonl", 30, **rows), base, ("prepare",)),
            Case("set/broken.csv", list(mutations.of_place()), base, ("prepare",)),
            Case("set/flow/flow.json", some("set/flow/flow.json", 16, seal=sealed), base, ("prepare",)),
            Case(stored, raw(stored, 8), base, ("prepare",)),
            Case("set/packed/packed.json", some("set/packed/packed.json", 16, seal=sealed), base, ("prepare",)),
            Case("set/packed/manifest.jsonl", some("set/packed/manifest.jsonl", 16, **rows), base, packed),
            Case("set/packed/manifest.jsonl", some("set/packed/manifest.jsonl", 20, **rows, seal=hashed), base, packed),
            Case(f"{tfds}/dataset_info.json", some(f"{tfds}/dataset_info.json", 20), base, packed),
            Case(f"{tfds}/features.json", some(f"{tfds}/features.json", 14), base, packed),
            Case(f"{tfds}/metadata.json", some(f"{tfds}/metadata.json", 5), base, packed),
            Case(f"{tfds}/label.labels.txt", raw(f"{tfds}/label.labels.txt", 5), base, packed),
            Case(shard, raw(shard, 8), base, packed),
        ]
    check_all(cases, calls, bases, tmp_path)
