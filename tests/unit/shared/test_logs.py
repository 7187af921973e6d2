"""Every line of the log is one JSON object that names the analysis, whoever wrote it."""

import json
import subprocess
import sys

SCRIPT = """
import logging
from clipwarden.shared.logs import configure_logging, log_context, logger
configure_logging("tester")
with log_context(analysis_id="a1", stage="ingest"):
    logger("ours").info("claimed", attempt=2)
    logging.getLogger("theirs").warning("careful: %s", "x")
    try:
        raise ValueError("no")
    except ValueError:
        logger("ours").exception("failed")
logger("ours").info("after")
"""


def test_ours_and_the_libraries_lines_carry_the_analysis() -> None:
    shown = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in shown.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["claimed", "careful: x", "failed", "after"]
    assert {line["service"] for line in lines} == {"tester"}
    assert [line.get("analysis_id") for line in lines] == ["a1", "a1", "a1", None]
    assert lines[0]["attempt"] == 2
    assert "ValueError: no" in lines[2]["exception"]
