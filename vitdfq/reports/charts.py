"""A chart, as a PNG file and as an SVG image inside a page. Both need matplotlib, of the extra `[report]`."""

import base64
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitdfq.common.files import written_whole

logger = logging.getLogger(__name__)

DARK, LIGHT, WARM, LEAF = "#33506e", "#7a9cc6", "#c6803a", "#6b9e6b"  # the colors of all charts
INK, RULE = "#1f2328", "#b0b7c0"  # of text and axes, and of grids
ON_DARK = {INK: "#d7dce2", RULE: "#4a525c", DARK: "#a9c7ea", LIGHT: "#5f88b8", WARM: "#dd9a55", LEAF: "#86bd86"}
DOTS_OF_AN_INCH = 120
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "image.composite_image": False,  # maps keep their own resolution
    "svg.fonttype": "path",  # letters as outlines: a page then needs no font
    "svg.hashsalt": "vitdfq",  # the same chart gives the same bytes
}


@dataclass(frozen=True)
class Chart:
    """What to draw, and how large.

    Attributes:
        size: width and height in inches.
        draw: draws on an empty `matplotlib.figure.Figure`.
        caption: what can be seen, in a sentence.
    """

    size: tuple[float, float]
    draw: Callable[[Any], None]
    caption: str

    def save_png(self, path: Path) -> None:
        """Write a PNG file; without matplotlib none, and a message."""
        if not has_matplotlib():
            logger.info(f"{path.name} left out: pip install 'vitdfq[report]' brings matplotlib")
            return
        with written_whole(path) as temporary:
            self._save(temporary, "png")

    def svg(self) -> str | None:
        """Return an SVG image as a data URI, whose colors follow the reader's color scheme; None without matplotlib."""
        if not has_matplotlib():
            return None
        buffer = io.StringIO()
        self._save(buffer, "svg", transparent=True, metadata={"Date": None})
        return data_uri("image/svg+xml", _with_color_schemes(buffer.getvalue()).encode())

    def _save(self, file: Any, format: str, **options: Any) -> None:
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context(STYLE):
            figure = Figure(figsize=self.size, layout="constrained")
            self.draw(figure)
            figure.savefig(file, format=format, dpi=DOTS_OF_AN_INCH, **options)


def has_matplotlib() -> bool:
    """Whether charts can be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def logarithmic(set_scale: Callable[[str], None], axis: Any) -> None:
    """Make an axis logarithmic, with plain numbers: 2 and 20 where matplotlib writes powers of ten.

    Args:
        set_scale: `axes.set_xscale` or `axes.set_yscale`.
        axis: `axes.xaxis` or `axes.yaxis`.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def data_uri(kind: str, content: bytes) -> str:
    """Return a file's content as a link that needs no network.

    Args:
        kind: "image/png", for example.
        content: of the file.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _with_color_schemes(svg: str) -> str:
    """Let colors be chosen by the color scheme: dark ones on a dark page would not be seen."""
    names = {color: f"--c{index}" for index, color in enumerate(ON_DARK)}
    light = "".join(f"{name}:{color};" for color, name in names.items())
    dark = "".join(f"{name}:{ON_DARK[color]};" for color, name in names.items())
    for color, name in names.items():
        svg = svg.replace(color, f"var({name})")
    style = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    head, tag, rest = svg.partition("<defs>")
    return head + style + tag + rest
