"""The picture of `status` as a person sees it on a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from factoryctl.layout import COLUMNS, NUMBERS, Picture, Row

_STATE = COLUMNS.index("state")
_STYLES = {
    "starting": "cyan",
    "claimed": "cyan",
    "running": "green",
    "done": "green",
    "succeeded": "green",
    "cooldown": "yellow",
    "frozen": "blue",
    "stopping": "yellow",
    "cancelled": "yellow",
    "parked": "red",
    "escalated": "red",
    "failed": "red",
    "leaked": "bold red",
}
_SHORT = {
    "attempt": "try",
    "round/stage": "rnd/stg",
    "processes": "procs",
    "resumes": "res",
}


def render(picture: Picture) -> RenderableType:
    """Return a picture as a headline, alarms in red, and a table of issues and agents."""
    return Group(
        Text(picture.headline, style="bold"),
        *(Text(alarm, style="red") for alarm in picture.alarms),
        Text(),
        _table(picture) if picture.rows else Text("no issues", style="dim"),
        Text(),
        Text(picture.footer, style="dim"),
    )


def _table(picture: Picture) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold dim")
    for name in COLUMNS:
        table.add_column(
            Text(_SHORT.get(name, name)),
            justify="right" if name in NUMBERS else "left",
            no_wrap=name != "about",
            overflow="fold" if name == "about" else "ellipsis",
        )
    for row in picture.rows:
        table.add_row(*(_cell(row, column) for column in range(len(COLUMNS))))
    return table


def _cell(row: Row, column: int) -> Text:
    text = row.cells[column]
    if column == _STATE:
        return Text(text, style=_STYLES.get(text.rpartition("/")[2], ""))
    return Text(text, style="bold" if row.is_issue and column == 0 else "")
