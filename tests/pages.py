"""Reads HTML pages as strictly as the tests need."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "wbr", "link", "input"}


class Page(HTMLParser):
    """Checks nesting and collects what a browser would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "wbr":
            self.text = self.text.removesuffix(" ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> does not match"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += f"{data} "


def read(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object"), "the page must stand alone"
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/jpeg;base64,"))
    assert "http:" not in path.read_text() and "https:" not in path.read_text()
    return page
