"""Checks that every link and picture of a built site leads somewhere within it: python docs/make/links.py site

`zensical build --strict` checks links between pages as they are written; this checks what has become of them, pictures
and generated links included. Addresses of other hosts are not asked.
"""

import functools
import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    """The links of a page, and the places in it that links may lead to."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.places.add(value)


def main(site: pathlib.Path) -> None:
    read = functools.cache(Page)
    broken, count = [], 0
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html":  # its links are absolute, as it is shown anywhere
            continue
        for link in sorted(read(path).links):
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            count += 1
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            place = urllib.parse.unquote(url.fragment)
            if not target.is_file() or target.suffix == ".html" and place not in read(target).places:
                broken.append(f"{path.relative_to(site)}: {link}")
    if broken or not count:
        sys.exit("\n".join([f"{len(broken)} of {count} links lead nowhere:", *broken]))
    print(f"{count} links lead somewhere")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
