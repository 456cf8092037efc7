"""Files of class names and lists with labels as people have them: no label ever means the class beside its own."""

import json
import pathlib

import hypothesis
import pytest
from hypothesis import strategies

from jax_video.data.sources import class_files, lists
from jax_video.errors import UserError

NAMES = ("walk", "running (slow)", "jump, high", "37 steps")


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_text(text)
    return path


def table(rows: list[str]) -> str:
    return "\n".join(rows) + "\n"


def forms(names: tuple[str, ...], first: int) -> dict[str, str]:
    """The same names in every form; where it has numbers, they begin with `first`."""
    numbered = [(number, name) for number, name in enumerate(names, first)]
    shuffled = numbered[1:] + numbered[:1]
    by_name, by_number = {name: number for number, name in shuffled}, {str(number): name for number, name in shuffled}
    records = [{"id": number, "name": name} for number, name in shuffled]
    return {
        "lines": table(list(names)),
        "number name": table([f"{number} {name}" for number, name in shuffled]),
        "number: name": table([f"{number}: {name}" for number, name in shuffled]),
        "number. name": table([f"{number}. {name}" for number, name in shuffled]),
        "name,number": table([f'"{name}",{number}' for number, name in shuffled]),
        "YAML": table(["names:", *(f"  {number}: {name}" for number, name in shuffled)]),
        "id,name": table(["id,name", *(f'{number},"{name}"' for number, name in shuffled)]),
        "name;id": table(["Name;ID", *(f"{name};{number}" for number, name in shuffled)]),
        "label name": table(["label\tname", *(f"{number}\t{name}" for number, name in shuffled)]),
        "id,name,parent": table(["id,name,parent", *(f'{number},"{name}",sport' for number, name in shuffled)]),
        "name": table(["class_name", *names]),
        "JSON list": json.dumps(names, indent=1),
        "JSON by name": json.dumps(by_name),
        "JSON by name in lines": json.dumps(by_name, indent=2),
        "JSON by name, quoted": json.dumps({f'"{name}"': number for name, number in by_name.items()}),
        "JSON by name, numbers as text": json.dumps({name: str(number) for name, number in by_name.items()}),
        "JSON by number": json.dumps(by_number),
        "JSON records": json.dumps(records),
        "JSON records inside": json.dumps({"info": {"year": 2020}, "categories": records}),
        "JSON lines": table([json.dumps(record) for record in records]),
        "JSON of Hugging Face": json.dumps(
            {"model_type": "x", "sizes": [1], "id2label": by_number, "label2id": by_name}
        ),
    }


NUMBERED = sorted(forms(NAMES, 0).keys() - {"lines", "name", "JSON list"})


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("form", forms(NAMES, 0))
def test_names_are_read_in_the_order_of_their_numbers(form, first, tmp_path):
    found = class_files.read(write(tmp_path / "names", forms(NAMES, first)[form]))
    assert (found.names, found.first) == (NAMES, first if form in NUMBERED else None)
    assert any("taken for a header" in note for note in found.notes) == (
        form in ("id,name", "name;id", "label name", "id,name,parent", "name")
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,name\n0,walk\n1,run\n3,jump", ":4: expected indices from 0 to 2, each once, got '3,jump'.*needs its line"),
        ("id,name\n0,walk\n0,run\n2,jump", ":3: expected indices from 0 to 2, each once, got '0,run'"),
        ("id,name\n0,walk\n1,run\nx,jump", ":4: expected id, name, got 'x,jump'"),
        ("id,name\n0,walk\n1,run\n2,", ":4: a class without a name, got '2,'"),
        ("0,walk\n1,run\n2,", ":3: expected a name and its number, as in most lines, got '2,'"),
        ("0 walk\n1 run\njump", ":3: expected a name and its number, as in most lines, got 'jump'"),
        ("walk\n1,run\n2,jump", ":1: expected a name and its number, as in most lines, got 'walk'; a header"),
        ("0,walk,sport\n1,run,sport", ":1: 3 columns without a header"),
        ("item {\n name: 'walk'\n id: 1\n}\n", ":4: no name of a class, got '}'"),
        ('{"walk": 0,\n "run": 0}', ":2: expected indices from 0 to 1, each once, got 'run: 0'"),
        ('{"walk": 0,\n "run": 1,\n "walk": 2}', ":1: the class 'walk' is named twice"),
        ('{"walk": 0,\n "run": 1\n "jump": 2}', ":3: begins as JSON and is none"),
        ('["walk",\n "run"', ":2: begins as JSON and is none"),
        ('{"walk": 0.5}', ": JSON of a kind that is not known: an object with 'walk': 0.5"),
        ('{"a": {"walk": 0}, "b": 1}', ": JSON of a kind that is not known: an object with a, b"),
        ('[{"start": 1, "end": 2}]', ': JSON of a kind that is not known: a list with {"start": 1, "end": 2}'),
        ("[1, 2]", ": JSON of a kind that is not known: a list with 1"),
        ('[{"id": 0, "name": "walk"}, {"name": "run"}]', ": some of its classes have a number and others none"),
        ('{"0": "1", "1": "0"}', ": JSON of a kind that is not known"),
        ('{"a":' * 400 + "1" + "}" * 400, ": JSON of a kind that is not known: an object with a"),
        ("[" * 100_000, ": too deep to be JSON|:1: begins as JSON"),
        ("path: ../d\ntrain: images\nnames:\n  0: walk\n  1: run", ":3: no name of a class, got 'names:'"),
        ("walk\t6\nrun\t12\njump\t9", ":1: no name of a class, as it has a tab"),
        ('"walk",\n"run",\n"jump",', ":1: no name of a class, as it begins or ends with a separator"),
        ('["walk", "\\ud800"]', ": it has half of a character|: .* is no UTF-8"),
        ("{}", " names no class"),
        ("id,name\n", " names no class"),
    ],
)
def test_files_that_cannot_be_understood_are_refused_with_the_line(text, message, tmp_path):
    with pytest.raises(UserError, match=f"names{message}"):
        class_files.read(write(tmp_path / "names", text))


@pytest.mark.parametrize(
    "text",
    ["walk\n\nrun\n\njump\n\n", "[Something] falls\n[Something] rises", "walk 1\nrun 1\njump 2", "2 hands\nwalk"],
)
def test_names_that_look_like_something_else(text, tmp_path):
    names = tuple(line for line in text.split("\n") if line)
    assert class_files.read(write(tmp_path / "names", text)).names == names


@pytest.mark.parametrize(
    "text",
    [
        "---\n- walk\n- run\n",
        "---\nnames:\n- walk\n- run\n",
        "# of my set\n# in order\nwalk\nrun\n",
        "// in order\nwalk\nrun\n",
        "id name\n0 walk\n1 run\n",
        "name id\nwalk 0\nrun 1\n",
    ],
)
def test_what_stands_before_the_names_is_none(text, tmp_path):
    assert class_files.read(write(tmp_path / "names", text)).names == ("walk", "run")
    assert class_files.read(write(tmp_path / "tags", "#walk\n#run\n")).names == ("#walk", "#run")


@hypothesis.given(
    form=strategies.sampled_from(list(forms(NAMES, 0))),
    first_in_file=strategies.sampled_from([0, 1]),
    first_in_list=strategies.sampled_from([0, 1]),
    used=strategies.sets(strategies.integers(0, 3), min_size=1),
    in_folders=strategies.booleans(),
)
@hypothesis.settings(max_examples=120)
def test_no_label_means_the_class_beside_its_own(
    form, first_in_file, first_in_list, used, in_folders, tmp_path_factory
):
    """It is read right, or refused, or it is said what was taken for granted."""
    root = tmp_path_factory.mktemp("lists")
    paths = {number: f"{NAMES[number]}/{number}.mp4" if in_folders else f"{number}.mp4" for number in sorted(used)}
    for path in paths.values():
        (root / "videos" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "videos" / path).touch()
    listed = write(root / "list.txt", table([f"{path} {number + first_in_list}" for number, path in paths.items()]))
    names = write(root / "names", forms(NAMES, first_in_file)[form])
    try:
        listing = lists.find(root / "videos", test_list=listed, class_names=names)
    except UserError as error:
        assert "is without a class" in str(error) or "is one less" in str(error)
        assert first_in_list == 1 and "from 1" in str(error)
        return
    right = {video.path: listing.classes[video.label] for video in listing.videos} == {
        path: NAMES[number] for number, path in paths.items()
    }
    said = [note for note in listing.notes if "label" in note and "count" in note]
    assert right or (said and not in_folders)
    if form in NUMBERED and first_in_file == first_in_list:
        assert right
    if first_in_list == 0 and 0 in used:
        assert right
    if right and first_in_list != first_in_file and form in NUMBERED:
        assert said


@pytest.mark.parametrize("text, line", [("walk\n\nrun\njump\n", 2), ("walk\nrun\n\n\njump\n", 3)])
def test_a_blank_line_may_be_a_class(text, line, tmp_path):
    """Which matters where labels are numbers."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    names = write(tmp_path / "names", text)
    listing = lists.find(tmp_path / "videos", test_list=write(tmp_path / "list", "a.mp4 jump\n"), class_names=names)
    assert (listing.classes, listing.videos[0].label) == (("walk", "run", "jump"), 2)
    with pytest.raises(UserError, match=f"names:{line}: a blank line between the names: if it is a class"):
        lists.find(tmp_path / "videos", test_list=write(tmp_path / "list", "a.mp4 2\n"), class_names=names)


def test_labels_that_are_names_of_numbers(tmp_path):
    """One odd line does not make indices of the names of all others."""
    (tmp_path / "videos").mkdir()
    for number in range(4):
        (tmp_path / "videos" / f"{number}.mp4").touch()
    names = write(tmp_path / "names", "1\n2\n3\n4\n")
    listed = write(tmp_path / "list.txt", "0.mp4 1\n1.mp4 2\n2.mp4 4\n")
    listing = lists.find(tmp_path / "videos", test_list=listed, class_names=names)
    assert [listing.classes[video.label] for video in listing.videos] == ["1", "2", "4"]
    write(listed, "0.mp4 1\n1.mp4 2\n2.mp4 4\n3.mp4 0\n")
    with pytest.raises(UserError, match="list.txt:4: the label '0' is without a class; .*: 1, 2, 3, 4"):
        lists.find(tmp_path / "videos", test_list=listed, class_names=names)
