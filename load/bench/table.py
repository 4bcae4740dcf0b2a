"""The result of a run: what was promised beside what was reached, and the figures behind it. Pure: text out.

Takes sections, one of each part; gives markdown, and the same as plain values for JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HEAD = """# What `make bench` measured

Written by `make bench`; a part that is run again takes the place of what it said before."""


@dataclass(frozen=True)
class Line:
    """One promise. ``is_met`` None: not measured, and ``why`` says so."""

    what: str
    goal: str
    reached: str
    is_met: bool | None
    why: str = ""

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "**no**", None: "-"}[self.is_met]


@dataclass(frozen=True)
class Table:
    """Figures, as text. ``notes`` stand below."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """What one part found, at which commit. ``raw`` are the figures of all rounds, for JSON alone."""

    name: str
    lines: Sequence[Line] = ()
    tables: Sequence[Table] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""


def at_least(what: str, goal: float, value: float, *, unit: str = "", why: str = "") -> Line:
    """Reached when ``value`` is ``goal`` or more; ``why`` is said in any case."""
    return Line(what, f">= {number(goal)}{unit}", f"{number(value)}{unit}", value >= goal, why)


def below(what: str, goal: float, value: float, *, unit: str = "", why: str = "") -> Line:
    """Reached when ``value`` is less than ``goal``."""
    return Line(what, f"< {number(goal)}{unit}", f"{number(value)}{unit}", value < goal, why)


def not_measured(what: str, goal: str, why: str) -> Line:
    """Neither reached nor missed."""
    return Line(what, goal, "not measured", None, why)


def number(value: float) -> str:
    """As short as its size allows: 12,345, 123, 12.3, 1.23."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def goals(lines: Iterable[Line]) -> Table:
    """The table of promises."""
    header = ("with authentication, a price, a usage row per call, batch mode, one worker", "goal", "reached")
    rows = [(each.what, each.goal, each.reached, each.verdict, each.why) for each in lines]
    return Table("", (*header, "met", "how, and why"), rows)


def markdown(table: Table) -> str:
    """The table as GitHub shows it."""
    head = [f"**{table.title}**", ""] if table.title else []
    body = [_row(table.header), _row(["---"] * len(table.header)), *map(_row, table.rows)]
    notes = [f"\n{note}" for note in table.notes]
    return "\n".join([*head, *body, *notes])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page(about: Mapping[str, str], sections: Sequence[Section]) -> str:
    """`load/results/bench.md`: where and how, the promises, then the figures of each part."""
    told = [f"- {name}: {value}" for name, value in about.items()]
    lines = [line for section in sections for line in section.lines]
    tables = [_of_part(section, about.get("commit", "")) for section in sections]
    return "\n".join([HEAD, "", *told, "", "\n\n".join([markdown(goals(lines)), *tables]), ""])


def _of_part(section: Section, commit: str) -> str:
    """Its tables; a part that was measured at another commit says so."""
    elsewhere = [] if section.commit == commit else [f"*This part was measured at {section.commit}.*"]
    return "\n\n".join([f"## {section.name}", *elsewhere, *map(markdown, section.tables)])


def plain(section: Section) -> dict[str, Any]:
    """For JSON."""
    return asdict(section)


def from_plain(values: Mapping[str, Any]) -> Section:
    """What ``plain`` gave, read from JSON."""
    return Section(
        values["name"],
        [Line(**each) for each in values["lines"]],
        [Table(**each) for each in values["tables"]],
        values["raw"],
        values["commit"],
    )
