"""What a page of HTML consists of, read by the standard library's parser."""

import html
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}
RESOURCES = {"src", "srcset", "href", "data", "poster", "action"}  # attributes that name a file


@dataclass
class Parsed(HTMLParser):
    """The parts of a page; `problems` lists tags that are not closed, scripts, and files that are asked for."""

    convert_charrefs: bool = True
    problems: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)  # of sections
    images: list[dict] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "iframe", "object", "embed"):
            self.problems.append(f"<{tag}>")
        if tag == "img":
            self.images.append(attributes)
        for name, value in attributes.items():
            if name.startswith("on"):
                self.problems.append(f"{name}={value}")
            if name in RESOURCES and not (value or "").startswith(("data:", "#")):
                self.problems.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes another tag")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "summary"):
            self.headings.append(data)
        if self.open and self.open[-1] == "style":
            self.problems += re.findall(r"(?:@import|url\()[^;]*", data)
        elif data.strip():
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(self.words)


def parsed(text: str) -> Parsed:
    """Parse a page."""
    page = Parsed()
    page.feed(text)
    page.close()
    page.problems += [f"<{tag}> is not closed" for tag in page.open]
    page.problems += [] if text.startswith("<!doctype html>") else ["no doctype"]
    return page


def escaped(text: str) -> str:
    """How a text stands in a page."""
    return html.escape(text, quote=True)
