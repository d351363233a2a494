"""A report as one HTML page that works offline, and as Markdown with its figures and tables beside it."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
from jinja2 import Environment, PackageLoader

from harness.analysis.claims import Claim
from harness.analysis.figure import NARROW

_TEMPLATES = Environment(
    loader=PackageLoader("harness.analysis", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind = "text"


@dataclass(frozen=True)
class Lines:
    """A list of sentences."""

    lines: Sequence[str]
    kind = "lines"


@dataclass(frozen=True)
class Missing:
    """What is not there, and the command that would provide it."""

    text: str
    command: str = ""
    kind = "missing"


@dataclass(frozen=True)
class Table:
    """A table of texts; the row of `marked` (its first cell) stands out. Long ones are folded."""

    frame: pd.DataFrame
    caption: str = ""
    marked: str | None = None
    folded: bool = False
    kind = "table"

    @property
    def columns(self) -> list[str]:
        """Headings."""
        return [str(column) for column in self.frame]

    @property
    def rows(self) -> list[list[str]]:
        """Cells as text."""
        return [[str(cell) for cell in row] for row in self.frame.to_numpy(object).tolist()]


@dataclass(frozen=True)
class Drawing:
    """A figure as an SVG element; `name` is its file's."""

    name: str
    svg: str
    caption: str
    kind = "drawing"

    @property
    def wide(self) -> bool:
        """Whether a phone has to scroll it to be able to read it."""
        return float(self.svg.split('width="', 1)[1].split("pt", 1)[0]) > 72 * NARROW


@dataclass(frozen=True)
class Picture:
    """A PNG, shown inline; `name` is its file's. Folded ones are opened by a click on the caption."""

    name: str
    png: bytes
    caption: str
    folded: bool = False
    kind = "picture"

    @property
    def url(self) -> str:
        """The picture itself as an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


Block = Text | Lines | Missing | Table | Drawing | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What links to it say."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


@dataclass(frozen=True)
class Page:
    """A report: title, question, claims (or why there are none), then sections in order."""

    title: str
    question: str
    claims: Sequence[Claim]
    remarks: Sequence[str] = ()
    sections: Sequence[Section] = field(default_factory=list)
    unfolded = 12

    def html(self) -> str:
        """One file: figures inline, no request to anywhere; every text is escaped."""
        return _TEMPLATES.get_template("page.html").render(page=self)

    def markdown(self) -> str:
        """The same with the figures as files beside it."""
        lines = [f"# {_plain(self.title)}", "", _plain(self.question), ""]
        lines += [
            f"- **{_plain(c.arm)}** against {_plain(c.reference)}: **{c.verdict}**. {_plain(c.detail)}"
            for c in self.claims
        ]
        lines += [f"- {_plain(remark)}" for remark in self.remarks]
        for section in self.sections:
            lines += ["", f"## {_plain(section.title)}"]
            for block in section.blocks:
                lines += ["", *_markdown(block)]
        return "\n".join(lines) + "\n"

    @property
    def drawings(self) -> list[Drawing]:
        """All figures, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Drawing)]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]


def _markdown(block: Block) -> list[str]:
    if isinstance(block, Text):
        return [_plain(block.text)]
    if isinstance(block, Lines):
        return [f"- {_plain(line)}" for line in block.lines]
    if isinstance(block, Missing):
        return [_plain(block.text) + (f" `{block.command}`" if block.command else "")]
    if isinstance(block, Drawing):
        return [f"![{_plain(block.caption)}](figures/{block.name}.svg)", "", _plain(block.caption)]
    if isinstance(block, Picture):
        return [f"![{_plain(block.caption)}](figures/{block.name}.png)", "", _plain(block.caption)]
    rows = [_row(block.columns), "|" + "|".join(["---"] + ["--:"] * (len(block.columns) - 1)) + "|"]
    rows += [_row(row) for row in block.rows]
    return [*([_plain(block.caption), ""] if block.caption else []), *rows]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    return html.escape(text, quote=False)
