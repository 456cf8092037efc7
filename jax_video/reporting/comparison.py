"""The report of two runs side by side: where their configs differ, curves, results, classes, and single videos."""

from typing import Any, NamedTuple

import numpy as np

from jax_video.reporting import charts, labels, mistakes, page, single, training
from jax_video.reporting.page import Cell, Column, percent, text
from jax_video.reporting.record import Record, flat
from jax_video.testing import averages
from jax_video.testing.results import NAMES

_MOST = 200  # videos in a table, at most


def document(first: Record, second: Record) -> bytes:
    """The page; the first run is A and blue, the second B and orange."""
    records = {"A": first, "B": second}
    keys = "<br>".join(
        f'<span class="key {kind}">{letter}: {page.code(record.address)}, {text(record.name)}</span>'
        for kind, (letter, record) in zip("ab", records.items(), strict=True)
    )
    names = dict.fromkeys(record.name for record in records.values())
    parts = {
        "Result": _result(records),
        "Where the configs differ": _configs(first.config, second.config),
        "Learning curves": _curves(records),
        "Classes": _classes(records),
        "Videos": _videos(records),
    }
    title = " and ".join(names) if len(names) == 2 else f"Two runs: {first.name}"
    return page.document(title, keys, parts, single.foot())


def _missing(records: dict[str, Record], part: str) -> str:
    """A note on the runs that lack a part; empty where none does."""
    lacking = [f"{letter}: {record.why(part)}" for letter, record in records.items() if part in record.missing]
    return page.note(". ".join(lacking) + ".") if lacking else ""


def _result(records: dict[str, Record]) -> str:
    found = {letter: record.result or {} for letter, record in records.items()}
    wanted = [key for key in NAMES if any(key in result for result in found.values())]
    columns = [Column("Metric"), Column("A", True), Column("95 % interval"), Column("B", True)]
    columns += [Column("95 % interval"), Column("B − A", True, "In percentage points")]
    rows = []
    for key in wanted:
        row = [Cell(text(NAMES[key].strip()))]
        for kind, result in zip("ab", found.values(), strict=True):
            row += _with_interval(result.get(key), single.bounds(result, key), kind)
        both = [result[key] for result in found.values() if key in result]
        rows.append([*row, Cell(_points(both[1] - both[0]) if len(both) == 2 else page.DASH)])
    table = page.table("Results", columns, rows) if rows else ""
    subjects = "".join(
        page.paragraph(f"{letter}: {single.subject(record)}") for letter, record in records.items() if record.result
    )
    other = averages.differences(*_results(records))
    said = f"They were not tested alike, so differences are not of the networks alone: {text('; '.join(other), 500)}."
    return (page.note(said) if other else "") + table + _missing(records, "result") + subjects + _paired(records)


def _results(records: dict[str, Record]) -> list[dict[str, Any]]:
    return [record.result or {} for record in records.values()]


def _with_interval(value: float | None, bounds: tuple[float, ...], kind: str) -> list[Cell]:
    if value is None:
        return [Cell(page.DASH), Cell("")]
    if not bounds:
        return [Cell(percent(value)), Cell("")]
    low, high = bounds
    shown = f'{charts.interval(value, low, high, kind)} <small class="range">{100 * low:.1f}–{100 * high:.1f}</small>'
    return [Cell(percent(value)), Cell(shown)]


def _points(difference: float) -> str:
    """A difference of two shares, in percentage points: "+1.2", "−0.5", "0.0"."""
    shown = f"{100 * difference:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


class Pairing(NamedTuple):
    """The videos of two tests of the same set, by which run gets them right."""

    both: list[str]
    only_first: list[str]
    only_second: list[str]
    neither: list[str]


def pairing(first: Record, second: Record) -> Pairing | None:
    """Which run gets which video right; None unless both were tested on the same videos with the same single labels."""
    one, two = first.predictions, second.predictions
    if one is None or two is None or one.labels != two.labels or one.multilabel:
        return None
    found = Pairing([], [], [], [])
    answers = [(each.class_names, mistakes.answers(each)) for each in (one, two)]
    for video, label in one.labels.items():
        first_right, second_right = (names[best[video]] == label for names, best in answers)
        found[(0 if second_right else 1) if first_right else (2 if second_right else 3)].append(video)
    return found


def sign_test(one: int, other: int) -> float:
    """The exact two-sided p-value (McNemar): how likely fair coins split as unevenly as `one` to `other`, or more."""
    tosses = one + other
    ways = total = 1  # of the tosses, to have so many heads, and as many or fewer
    for heads in range(min(one, other)):
        ways = ways * (tosses - heads) // (heads + 1)  # as math.comb(tosses, heads + 1), which begins anew each time
        total += ways
    return min(1.0, 2 * total / 2**tosses)


def _paired(records: dict[str, Record]) -> str:
    found = pairing(*records.values())
    if found is None:
        return ""
    alone, alike = (len(found.only_first), len(found.only_second)), not averages.differences(*_results(records))
    said = f" (exact sign test: p = {sign_test(*alone):.2g})" if any(alone) and alike else ""
    return page.paragraph(
        f"Of the same {sum(map(len, found)):,} videos, both are right in {len(found.both):,} and wrong in "
        f"{len(found.neither):,}; only A is right in {alone[0]:,}, only B in {alone[1]:,}{said}."
    )


def _configs(one: dict[str, Any], two: dict[str, Any]) -> str:
    if not one or not two:
        return page.note("One of the two has no config to compare.")
    values, others = flat(one), flat(two)
    rows = [
        [Cell(page.code(key)), Cell(_value(values, key)), Cell(_value(others, key))]
        for key in dict.fromkeys([*values, *others])
        if values.get(key, page.DASH) != others.get(key, page.DASH)
    ]
    if not rows:
        return page.paragraph("Nowhere.")
    return page.table("Values that differ", [Column("Key"), Column("A"), Column("B")], rows)


def _value(config: dict[str, Any], key: str) -> str:
    return text(config[key], 200) if key in config else page.DASH


def _curves(records: dict[str, Record]) -> str:
    gone = _missing(records, "metrics")
    there = {letter: record for letter, record in records.items() if record.rows}
    return (training.curve_charts(records) if there else "") + gone


def _classes(records: dict[str, Record]) -> str:
    """A table of each class: its recall, or in multi-label tests its average precision, in both, and the difference."""
    several = {record.multilabel for record in records.values()} == {True}
    gone = "" if several else _missing(records, "confusion")
    recalls = [found for record in records.values() if (found := _shares(record, several))]
    if len(recalls) < 2:
        return gone
    what = "AP" if several else "Recall"
    columns = [Column("Class"), Column("Videos", True), Column(f"{what} of A", True), Column(f"{what} of B", True)]
    columns += [Column("B − A", True, "In percentage points"), Column("Difference")]
    rows = []
    for name in dict.fromkeys([*recalls[0], *recalls[1]]):
        counts = [recall.get(name, (None, 0)) for recall in recalls]
        shares = [share for share, _ in counts]
        videos = " / ".join(f"{of:,}" for of in dict.fromkeys(of for _, of in counts))
        cells = [
            Cell(page.DASH if share is None else percent(share), -1 if share is None else share) for share in shares
        ]
        change = None if None in shares else shares[1] - shares[0]  # type: ignore[operator]
        cells += [Cell(page.DASH, -9), Cell("", -9)] if change is None else _difference(change)
        rows.append([Cell(page.name(name), page.plain(name)), Cell(videos, counts[0][1]), *cells])
    return page.table("Every class, in both", columns, rows, find="class") + gone


def _shares(record: Record, several: bool) -> dict[str, tuple[float | None, int]]:
    """{class: (recall, or in multi-label tests average precision; videos)}."""
    if several:
        return labels.precisions(record) if record.predictions is not None else {}
    found: dict[str, tuple[float | None, int]] = {}
    for number, name in enumerate(record.classes if record.confusion is not None else ()):
        of = int(record.confusion[number].sum())  # type: ignore[index]
        found[name] = (record.confusion[number, number] / of if of else None, of)  # type: ignore[index]
    return found


def _difference(change: float) -> list[Cell]:
    return [Cell(_points(change), change), Cell(_bar(change), change)]


def _bar(change: float) -> str:
    """A difference from -1 to 1 as a bar, to the left or to the right of a middle line."""
    half = 60
    left, width = half + min(0.0, change) * half, abs(change) * half
    return (
        f'<svg class="{"b" if change > 0 else "a"}" viewBox="0 0 {2 * half} 14" width="{2 * half}" height="14" '
        f'aria-hidden="true"><rect x="{left:.1f}" y="3" width="{width:.1f}" height="8"/>'
        f'<path class="axis" d="M{half} 0V14"/></svg>'
    )


def _videos(records: dict[str, Record]) -> str:
    """Tables of the videos that one run gets right and the other wrong."""
    gone = _missing(records, "predictions") or _missing(records, "confusion")
    found = pairing(*records.values())
    if any(record.multilabel for record in records.values()):
        return gone
    if found is None:
        return gone or page.note("They were tested on different videos, or with different labels: nothing to compare.")
    first, second = records.values()
    return _right_in_one(found.only_first, "A", second, "B") + _right_in_one(found.only_second, "B", first, "A")


def _right_in_one(videos: list[str], letter: str, other: Record, wrong: str) -> str:
    """A table of the videos that one run gets right and `other` wrong, the surest answers of `other` first."""
    title = f"Right in {letter}, wrong in {wrong}"
    if not videos:
        return f"<h3>{title}</h3>" + page.paragraph("No video.")
    assert other.predictions is not None
    place = {video: number for number, video in enumerate(other.predictions.scores)}
    rows, sure = mistakes.probabilities(other), mistakes.answers(other.predictions)
    ordered = sorted(videos, key=lambda video: -np.max(rows[place[video]]))[:_MOST]
    names = other.predictions.class_names
    cells = [
        [
            Cell(page.name(video), page.plain(video)),
            Cell(page.name(other.predictions.labels[video]), page.plain(other.predictions.labels[video])),
            Cell(page.name(names[sure[video]]), page.plain(names[sure[video]])),
            Cell(percent(rows[place[video]].max()), float(rows[place[video]].max())),
        ]
        for video in ordered
    ]
    columns = [Column("Video"), Column("Class"), Column(f"{wrong} answers"), Column("Sure", True)]
    said = f"{len(videos):,} videos" + (f"; the {_MOST} surest are listed" if len(videos) > _MOST else "")
    return f"<h3>{title}: {said}</h3>" + page.table(f"{title}: {said}", columns, cells, find="video")
