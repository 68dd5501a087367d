"""One self-contained page: what a report says, as blocks, and the file that shows them in a browser without a network.

Images are data URIs, the style is in the page, there is no script; page.html is the template of every page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, StrictUndefined

from vitdfq.common.files import write_text
from vitdfq.reports.charts import Chart

FILE = "reports/index.html"  # of a run, a comparison and an analysis
TEMPLATE = Path(__file__).with_name("page.html")
NO_CHARTS = "The charts are left out: pip install 'vitdfq[report]' brings matplotlib, and the same command draws them."
MOST_ROWS = 20  # of a table that is not folded
PIXELS_OF_AN_INCH = 76  # a chart is not shown smaller than this: on a phone it is scrolled


@dataclass(frozen=True)
class Text:
    """Sentences, a paragraph each."""

    kind: ClassVar[str] = "text"
    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Tiles:
    """Key figures: (name, value, a remark or "")."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Grid:
    """A table. The first `num_names` columns hold words, the others numbers; rows in `strong` are emphasized."""

    kind: ClassVar[str] = "grid"
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_names: int = 1
    strong: frozenset[int] = frozenset()
    notes: Sequence[str] = ()

    @property
    def is_long(self) -> bool:
        """Whether the table is folded: a chart above it shows the same."""
        return len(self.rows) > MOST_ROWS


@dataclass(frozen=True)
class Gallery:
    """Small images, each a data URI with a caption of some lines."""

    kind: ClassVar[str] = "gallery"
    images: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Figure:
    """An image, a data URI, with its caption; never smaller than `min_width` pixels."""

    kind: ClassVar[str] = "figure"
    image: str
    caption: str
    min_width: int = 0


@dataclass(frozen=True)
class Code:
    """Text that is copied."""

    kind: ClassVar[str] = "code"
    text: str


Block = Text | Tiles | Grid | Gallery | Figure | Code


@dataclass
class Section:
    """A heading and what is below it. `folded` ones are opened by the reader."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    folded: bool = False

    @property
    def anchor(self) -> str:
        """The section's address in the page."""
        return "-".join("".join(letter if letter.isalnum() else " " for letter in self.title.lower()).split())


@dataclass
class Page:
    """A title, a line below it, and sections; sections without a block are left out."""

    title: str
    subtitle: str
    sections: list[Section] = field(default_factory=list)

    def add(self, title: str, *blocks: Block | None, folded: bool = False) -> None:
        """Add a section of those blocks that are not None; none without a block."""
        known = [block for block in blocks if block is not None]
        if known:
            self.sections.append(Section(title, known, folded))

    def render(self) -> str:
        """Return the page as HTML. All text is escaped."""
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
        return template.render(page=self) + "\n"

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        write_text(path, self.render())


def chart_figure(chart: Chart) -> Figure | None:
    """Return a chart for a page; None without matplotlib."""
    image = chart.svg()
    return None if image is None else Figure(image, chart.caption, min_width=int(PIXELS_OF_AN_INCH * chart.size[0]))
