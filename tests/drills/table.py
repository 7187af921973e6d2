"""`python -m tests.drills.table` puts what `make drill` measured into the README, each drill in its row."""

import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
README, MEASURED = ROOT / "README.md", ROOT / "build" / "drills.json"
PART = re.compile(r"(<!-- drills -->\n)(.*?)(<!-- /drills -->)", re.DOTALL)
ROW = re.compile(r"^\| (.+?) \| \d+ \|.*$", re.MULTILINE)
HEAD = ("| drill | rounds | recovered in s, median | worst |", "|---|---|---|---|")


def lines(recovered: Mapping[str, Sequence[float]]) -> list[str]:
    """A table of Markdown: seconds to recover by drill."""
    return [*HEAD, *_rows(recovered).values()]


def _rows(recovered: Mapping[str, Sequence[float]]) -> dict[str, str]:
    return {
        name: f"| {name} | {len(seconds)} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |"
        for name, seconds in recovered.items()
    }


def renewed(text: str, recovered: Mapping[str, Sequence[float]]) -> str:
    """A page with what was measured in its table; the rows of other drills stay."""

    def table(found: re.Match[str]) -> str:
        rows = {row[1]: row[0] for row in ROW.finditer(found[2])} | _rows(recovered)
        return "".join([found[1], *(f"{line}\n" for line in (*HEAD, *rows.values())), found[3]])

    return PART.sub(table, text)


def main() -> int:
    measured = json.loads(MEASURED.read_text("utf-8"))
    README.write_text(renewed(README.read_text("utf-8"), measured), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
