"""`python -m tests.drills.table` puts what the last `make drill` measured into the README."""

import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
README, MEASURED = ROOT / "README.md", ROOT / "build" / "drills.json"
PART = re.compile(r"(<!-- drills -->\n).*?(<!-- /drills -->)", re.DOTALL)


def lines(recovered: Mapping[str, Sequence[float]]) -> list[str]:
    """A table of Markdown: seconds to recover by drill."""
    head = ["| drill | rounds | recovered in s, median | worst |", "|---|---|---|---|"]
    return head + [
        f"| {name} | {len(seconds)} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |"
        for name, seconds in recovered.items()
    ]


def main() -> int:
    body = "".join(f"{line}\n" for line in lines(json.loads(MEASURED.read_text("utf-8"))))
    README.write_text(PART.sub(lambda found: f"{found[1]}{body}{found[2]}", README.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
