"""`clipwarden demo [CLIP]`: the whole system, once, on one clip; then everything is stopped.

Steps and the verdict go to stdout, progress to stderr. The last line of stdout is the analysis as JSON. It always
starts servers of its own, on a directory that is deleted, whatever the settings point at.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from clipwarden.shared.codes import SENTENCES, RejectCode
from clipwarden.shared.errors import ClipwardenError, ConfigError, Unavailable
from clipwarden.shared.local.child import tail
from clipwarden.shared.local.stack import Stack, command_line
from clipwarden.shared.settings import PREFIX, Settings, load_settings

READY_TIMEOUT_S = 600.0
MARGIN_S = 60.0
NEXT = """Run next:
  make up                                       keep the system running
  .venv/bin/clipwarden submit FILE --wait       send it a clip of yours
  .venv/bin/clipwarden analyze FILE             examine one without any service
  make demo CLIP="my file.mp4"                  this again, with a clip of yours"""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 if the clip was analysed, 1 if it could not be."""
    parser = argparse.ArgumentParser(prog="clipwarden demo", description="Run the system once on one clip.")
    parser.add_argument("clip", nargs="?", default="", help="a clip of yours; without it a sample is made")
    chosen = parser.parse_args(argv)
    given = _checked(Path(chosen.clip)) if chosen.clip else None
    with _stoppable(), tempfile.TemporaryDirectory(prefix="clipwarden-demo-") as directory:
        clip = _take(given) if given else _sample(Path(directory))
        analysis = _run(clip, Path(directory) / "state")
    for line in summary(analysis):
        _say(line)
    _say(f"\n{NEXT}\n")
    _say(json.dumps(analysis))
    return 0 if analysis.get("state") == "done" else 1


def summary(analysis: dict[str, Any]) -> list[str]:
    """The verdict and what became of each branch, for a person. `analysis` is the JSON of the HTTP interface."""
    if (state := analysis["state"]) != "done":
        return ["", f"No verdict: the analysis is {state}. {(analysis['error'] or {}).get('message', '')}".rstrip()]
    told = {reason["text"] for reason in analysis["verdict"]["reasons"]}
    return ["", *_verdict_lines(analysis["verdict"]), *_branch_lines(analysis["branches"], told)]


def _verdict_lines(verdict: dict[str, Any]) -> list[str]:
    probability = verdict["probability"]
    number = "no probability" if probability is None else f"probability of fake {probability:.2f}"
    share = f"{verdict['coverage']:.0%} of the branches that apply"
    lines = [f"Verdict: {str(verdict['label']).upper()} ({number}, from {share})"]
    return lines + _sum_lines(verdict) + [f"  {reason['text']}" for reason in verdict["reasons"]]


def _sum_lines(verdict: dict[str, Any]) -> list[str]:
    """How the probability came about: its log-odds are the baseline and each detector's share."""
    if verdict["head"] is None:
        return []
    shares = (f"{share['detector']} {share['log_odds']:+.3f}" for share in verdict["contributions"])
    return [f"  Head {verdict['head']}, log-odds: baseline {verdict['baseline_logit']:+.3f}, {', '.join(shares)}"]


def _branch_lines(branches: dict[str, dict[str, Any]], told: set[str]) -> list[str]:
    lines = [""]
    for name, branch in branches.items():
        code = branch.get("code") or ""
        sentence = SENTENCES.get(code, "")
        reason = f"{code}: {sentence}" if sentence and not any(sentence in text for text in told) else code
        lines.append(f"  {name:<8} {branch['status']:<8} {reason}".rstrip())
        for detector in branch.get("detectors", ()):
            score = detector.get("score")
            shown = str(detector["status"]) if score is None else f"score {score:.2f} (1 = fake, uncalibrated)"
            lines.append(f"    {detector['name']:<16} {shown}")
    return lines


def _checked(clip: Path) -> Path:
    """The clip, if it is a file with something in it. Raises ConfigError with one sentence."""
    if not clip.exists():
        raise ConfigError(f"there is no file {str(clip)!r}; check the path, and quote it if it has spaces")
    if not clip.is_file():
        raise ConfigError(f"{str(clip)!r} is not a file; name one clip")
    if not os.access(clip, os.R_OK):
        raise ConfigError(f"{str(clip)!r} may not be read by this user; change its permissions or copy it")
    if clip.stat().st_size == 0:
        raise ConfigError(f"{str(clip)!r}: {SENTENCES[RejectCode.EMPTY_FILE]}")
    return clip.absolute()


def _take(clip: Path) -> Path:
    _say(f"1/4 Taking your clip {clip.name} ({clip.stat().st_size / 1e6:.1f} MB).")
    return clip


def _sample(directory: Path) -> Path:
    from clipwarden.shared.local.sample import render_sample

    _say("1/4 Making a sample clip, for none was given.")
    with _progress("drawing and encoding"):
        facts = render_sample(directory / "sample.mp4")
    _say(f"    It is {facts.description}.")
    _say(f"    The right label is {facts.expected!s}. {facts.caveat}")
    return facts.path


def _run(clip: Path, state_dir: Path) -> dict[str, Any]:
    settings = load_settings(
        redis_url="",
        database_url="",
        state_dir=state_dir,
        blob_dir=None,
        blob_url="",
        host="127.0.0.1",
        port=0,
        allowed_hosts=("localhost", "127.0.0.1"),
    )
    with _system(state_dir, settings) as stack:
        _say(f"3/4 Sending the clip to {stack.api_url}/v1/analyses and waiting for the verdict.")
        analysis = _submit(clip, stack.api_url, settings.deadline_s + MARGIN_S)
        _say("4/4 Stopping everything.")
    return analysis


@contextmanager
def _system(state_dir: Path, settings: Settings) -> Iterator[Stack]:
    """The running system; stopped at the end, in a hurry and with its logs shown if anything went wrong."""
    with _progress("starting") as progress:
        _say("2/4 Starting Redis, Postgres, the gateway and one worker process per queue.")
        stack = Stack(state_dir, settings, note=progress.print)
        try:
            stack.start()
            stack.wait_ready(READY_TIMEOUT_S)
        except BaseException as error:
            _abandon(stack, error)
            raise
    try:
        yield stack
        stack.stop()
    except BaseException as error:
        _abandon(stack, error)
        raise


def _abandon(stack: Stack, error: BaseException) -> None:
    with _deaf():
        stack.ask_to_stop()
        stack.ask_to_stop()
        stack.stop()
    if isinstance(error, ClipwardenError):
        for log in _suspects(stack.logs, str(error)):
            sys.stderr.write(f"\n{log.name} ends with:\n{tail(log)}\n")


def _suspects(logs: Path, message: str) -> list[Path]:
    """Logs of the processes that the message names, else the one written last; none if it quotes one already."""
    if "ends with:" in message:
        return []
    written = sorted(logs.glob("*.log"), key=lambda log: log.stat().st_mtime)
    return [log for log in written if log.stem in message] or written[-1:]


def _submit(clip: Path, api_url: str, timeout_s: float) -> dict[str, Any]:
    """Upload as any client would, in a process of its own, and return the analysis it prints."""
    words = [*command_line(), "submit", str(clip), "--wait", "--json"]
    environment = {**os.environ, f"{PREFIX}API_URL": api_url}
    try:
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"no verdict after {timeout_s:g} s") from error
    try:
        analysis = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise Unavailable(f"the clip was not analysed: `clipwarden submit` ended with {done.returncode}") from error
    return dict(analysis)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Termination and a closed terminal end the demo as Ctrl-C does, also where Ctrl-C would be ignored."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _deaf() -> Iterator[None]:
    """No signal interrupts the clearing up, which is bounded."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _progress(text: str) -> Iterator[Console]:
    console = Console(stderr=True, highlight=False, markup=False)
    with console.status(text):
        yield console


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
