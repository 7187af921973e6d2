"""`clipwarden probe`: what files are, how they were made as far as they tell, and what is put right to read them."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clipwarden.shared.errors import ClipwardenError, ConfigError, MediaError
from clipwarden.shared.hints import hints
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.probe import MediaProbe

_PAGE_WIDTH = 140

Probed = tuple[Path, MediaProbe | ClipwardenError]


def main(argv: Sequence[str]) -> int:
    """Print what each file is. Exit status 1 if any was refused; the others are probed all the same."""
    parser = argparse.ArgumentParser(prog="clipwarden probe", description="Say what files are, without judging them.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="video, sound or picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")
    chosen = parser.parse_args(argv)
    found: list[Probed] = []
    with Fence(MediaLimits()) as fence:
        for path, outcome in _probed(fence, chosen.files):
            found.append((path, outcome))
            if chosen.json:
                print(json.dumps(_as_json(path, outcome), ensure_ascii=False), flush=True)
    known = [(path, outcome) for path, outcome in found if isinstance(outcome, MediaProbe)]
    if known and not chosen.json:
        _print(known)
    for path, outcome in found:
        if isinstance(outcome, ClipwardenError):
            print(f"clipwarden: {path}: {outcome}", file=sys.stderr)
    return 1 if len(known) < len(found) else 0


def _probed(fence: Fence, paths: Sequence[Path]) -> Iterator[Probed]:
    for path in paths:
        try:
            yield path, fence.probe(path)
        except MediaError as error:
            yield path, error
        except OSError as error:
            yield path, ConfigError(f"the file cannot be opened: {error.strerror}")


def _as_json(path: Path, outcome: MediaProbe | ClipwardenError) -> dict[str, Any]:
    if isinstance(outcome, ClipwardenError):
        return {"file": str(path), "probe": None, "hints": [], "error": {"code": outcome.code, "message": str(outcome)}}
    said = [hint.model_dump() for hint in hints(outcome)]
    return {"file": str(path), "probe": outcome.model_dump(mode="json"), "hints": said, "error": None}


def _print(known: Sequence[tuple[Path, MediaProbe]]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _PAGE_WIDTH
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("file", "container", "length", "picture", "sound", "written by", "repairs"):
        made.add_column(heading, overflow="fold")
    for path, probe in known:
        made.add_row(*(escape(cell) for cell in (path.name, *_cells(probe))))
    console.print(made)
    for path, probe in known:
        for hint in hints(probe):
            console.print(f"[bold]{escape(path.name)}[/]  {hint.code}\n    {escape(hint.text)}", highlight=False)


def _cells(probe: MediaProbe) -> tuple[str, ...]:
    notes = probe.provenance.notes if probe.provenance else ()
    return (
        probe.container,
        f"{probe.duration_s:.2f} s" if probe.duration_s else "-",
        _picture(probe) if probe.has_video else "-",
        _sound(probe) if probe.has_audio else "-",
        ", ".join(dict.fromkeys(note.text for note in notes if note.key != "handler_name")) or "-",
        ", ".join(probe.repairs) or "-",
    )


def _picture(probe: MediaProbe) -> str:
    words = [f"{probe.video_codec} {probe.width} x {probe.height}"]
    if probe.frames > 1:
        words.append(f"{probe.frames} frames at {probe.fps:.4g}/s" + (" varying" if probe.variable_frame_rate else ""))
    if probe.colour:
        words.append(f"{probe.colour.bit_depth} bit" + (f" HDR ({probe.colour.transfer})" if probe.colour.hdr else ""))
    if probe.rotation_deg or probe.mirrored:
        words.append(f"turned {probe.rotation_deg}" + (" and mirrored" if probe.mirrored else ""))
    if probe.pixel_aspect != (1, 1):
        words.append("pixels {} : {}".format(*probe.pixel_aspect))
    return ", ".join(words)


def _sound(probe: MediaProbe) -> str:
    tracks = f", {probe.audio_streams} tracks" if probe.audio_streams > 1 else ""
    return f"{probe.audio_codec} {probe.sample_rate_hz} Hz {probe.channel_layout or ''}".rstrip() + tracks
