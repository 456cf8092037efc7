"""Results that a kill leaves whole: a JSON file and a table in Markdown, written anew after every row."""

import json
import os
import pathlib


class Results:
    """What a part has measured, by the names of rows; what an earlier process has written is read first.

    Args:
      folder: of the two files.
      name: of the files, NAME.json and NAME.md.
      render: from all that was measured to the lines of the table.
    """

    def __init__(self, folder, name, render):
        self.json, self.markdown = (pathlib.Path(folder, f"{name}.{ending}") for ending in ("json", "md"))
        self.render = render
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.data = json.loads(self.json.read_text(encoding="utf-8")) if self.json.exists() else {}

    def add(self, *path, **values):
        """Add to the entry at this path of names, write both files and print the values."""
        entry = self.data
        for name in path:
            entry = entry.setdefault(name, {})
        if "failed" in values:  # what was measured before does not stand for it
            entry.clear()
        entry.pop("failed", None)
        entry.update(values)
        shown = ", ".join(f"{key} {_short(value)}" for key, value in values.items() if not isinstance(value, list))
        print(f"{' / '.join(path)}: {shown}", flush=True)
        for file, text in (
            (self.json, json.dumps(self.data, indent=1)),
            (self.markdown, "\n".join(self.render(self.data))),
        ):
            partial = file.with_suffix(".partial")
            partial.write_text(text + "\n", encoding="utf-8")
            os.replace(partial, file)


def table(columns, rows):
    """The lines of a table in Markdown; a cell is text, a number or None."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join('' if cell is None else _short(cell) for cell in line)} |" for line in lines]


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)
