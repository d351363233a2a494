"""A report as one HTML page that works offline, and as Markdown."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from jinja2 import Environment, PackageLoader

_TEMPLATES = Environment(
    loader=PackageLoader("harness.analysis", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Page:
    """What a report shows, in this order: title, question, notes, table, figures (title -> SVG element)."""

    title: str
    question: str
    table: pd.DataFrame
    figures: Mapping[str, str]
    notes: Sequence[str]

    def html(self) -> str:
        """One file: figures inline, no request to anywhere; every text is escaped."""
        return _TEMPLATES.get_template("page.html").render(
            page=self, columns=list(self.table.columns), rows=self.table.to_numpy().tolist()
        )

    def markdown(self) -> str:
        """The same with the figures as files beside it."""
        columns = [str(column) for column in self.table.columns]
        lines = [f"# {self.title}", "", html.escape(self.question), ""]
        lines += [
            " | ".join(["", *columns, ""]).strip(),
            "|" + "|".join(["---"] + ["--:"] * (len(columns) - 1)) + "|",
        ]
        for row in self.table.to_numpy().tolist():
            cells = [html.escape(str(cell)).replace("|", "\\|") for cell in row]
            lines.append(" | ".join(["", *cells, ""]).strip())
        lines += ["", *[f"- {html.escape(note)}" for note in self.notes]]
        for title in self.figures:
            lines += ["", f"## {title}", "", f"![{title}](figures/{figure_file(title)})"]
        return "\n".join(lines) + "\n"


def figure_file(title: str) -> str:
    """The file name of a figure."""
    return f"{title.lower().replace(' ', '_')}.svg"
