"""Makes the pages and figures of the site that come from the code: python docs/make

They are written beside the pages that are written by hand, and git does not know them. `zensical build --strict` then
makes the site of both (`zensical serve` to look at it while writing), and `python docs/make/links.py site` checks it.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parent
sys.path.insert(0, str(DOCS.parent))  # the checkout's own package, not another that is installed

import command_line  # noqa: E402
import config_keys  # noqa: E402
import networks  # noqa: E402
import papers  # noqa: E402


def main() -> None:
    pages = command_line.pages() | config_keys.pages() | networks.pages() | papers.figures()
    for name, text in pages.items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    kept = {DOCS / name for name in pages}
    for folder in ("reference/generated", "figures"):
        for path in (DOCS / folder).rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()
    print(f"{len(pages)} pages and figures from the code")


if __name__ == "__main__":
    main()
