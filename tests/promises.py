"""The contract's promises, as they are written down in ``tests/contract``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).with_name("contract")
CONTRACT: dict[str, Any] = tomllib.loads((FOLDER / "contract.toml").read_text())
EXAMPLE = FOLDER / "settings.yml"
EXAMPLE_VARIABLES = {"GATEWAY_MASTER_KEY": "tg-m", "OPENAI_API_KEY": "sk-o", "ANTHROPIC_API_KEY": "sk-a"}
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def told(heading: str) -> list[list[str]]:
    """The cells of the tables under a heading of the reference page, row by row."""
    part = REFERENCE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+) \|$", part, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def quoted(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)
