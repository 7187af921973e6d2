"""`clipwarden submit`: files, folders and addresses, one by itself or many as batches."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from clipwarden.api.client import Client, Options, Source, is_address
from clipwarden.api.commands import open_client, show
from clipwarden.api.options import MOST_ITEMS
from clipwarden.api.schemas import AnalysisView
from clipwarden.shared.contracts import AnalysisState, Lane
from clipwarden.shared.errors import ClipwardenError, ConfigError

WAIT_S = 1800.0


def main(argv: Sequence[str]) -> int:
    """Have files examined; one that fails does not stop the others. Exit status 1 if one got no verdict."""
    arguments = _parser().parse_args(argv)
    sources = [each for given in arguments.files for each in _sources(given)]
    options: Options = {
        "tag": arguments.tag,
        "metadata": arguments.metadata,
        "detectors": arguments.detectors and arguments.detectors.split(","),
        "policy": arguments.policy,
        "lane": arguments.lane or (Lane.BULK if len(sources) > 1 else None),
        "callback_url": arguments.callback_url,
        "reuse": arguments.reuse,
    }
    views: list[AnalysisView] = []
    with open_client() as client, _bars() as bars:
        run = _Submission(client, bars, options, arguments.timeout if arguments.wait else None)
        for start in range(0, len(sources), MOST_ITEMS):
            views += run.of(sources[start : start + MOST_ITEMS])
    show(views, as_json=arguments.json)
    return int(run.failed or any(view.ended and view.state is not AnalysisState.DONE for view in views))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clipwarden submit", description="Have files examined by a gateway.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, a folder, or the address of a file")
    parser.add_argument("--wait", action="store_true", help="wait for the verdicts")
    parser.add_argument("--timeout", type=float, default=WAIT_S, metavar="SECONDS", help="how long to wait for them")
    parser.add_argument("--tag", help="a word of yours that comes back with each analysis")
    parser.add_argument("--metadata", type=_object, metavar="JSON", help="an object of yours that comes back, too")
    parser.add_argument("--lane", choices=[*Lane], help="realtime, as one file is by default, or bulk, as several are")
    parser.add_argument("--detectors", metavar="NAMES", help="which detectors to ask, separated by commas")
    parser.add_argument("--policy", metavar="NAME", help="by which policy the verdict is given")
    parser.add_argument("--callback-url", metavar="URL", help="what is told of the end")
    parser.add_argument("--no-reuse", dest="reuse", action="store_false", help="examine known content again")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser


def _object(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return found


def _sources(given: str) -> list[Source]:
    """What one argument names: of a folder all files below it but hidden ones, by name. Raises ConfigError."""
    path = Path(given)
    if is_address(given):
        return [given]
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"there is no file {given}")
    below = (each for each in sorted(path.rglob("*")) if each.is_file())
    found = [each for each in below if not any(part.startswith(".") for part in each.relative_to(path).parts)]
    if not found:
        raise ConfigError(f"there is no file in {given}")
    return [*found]


def _bars() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


@dataclass
class _Submission:
    """One run of the command; `timeout_s` is None where the verdicts are not waited for."""

    client: Client
    bars: Progress
    options: Options
    timeout_s: float | None
    failed: bool = False

    def of(self, sources: Sequence[Source]) -> list[AnalysisView]:
        """The analyses of those sources that were taken."""
        views: list[AnalysisView] = []
        if len(sources) == 1:
            with self._reported(sources[0]):
                self._one(sources[0], views)
        else:
            with self._reported(f"{len(sources)} files"):
                self._many(sources, views)
        return views

    def _one(self, source: Source, views: list[AnalysisView]) -> None:
        name = _name(source)
        with self._bar(f"upload {name}") as upload:
            views.append(self.client.submit(source, progress=upload, **self.options))
        if self.timeout_s is not None:
            with self._bar(f"analyse {name}") as analyse:
                views[:] = [
                    self.client.wait(views[0].id, self.timeout_s, progress=lambda now: analyse(now.percent, 100))
                ]

    def _many(self, sources: Sequence[Source], views: list[AnalysisView]) -> None:
        with self._bar(f"upload {len(sources)} files") as upload:
            sent = self.client.submit_batch(sources, progress=upload, **self.options)
        for item in sent.items:
            if item.error is not None:
                self._say(item.source, item.error.message)
        ids = [item.id for item in sent.items if item.id is not None]
        try:
            if sent.batch is not None and self.timeout_s is not None:
                with self._bar(f"analyse {len(ids)} files") as analyse:
                    self.client.wait_batch(
                        sent.batch.id, self.timeout_s, progress=lambda now: analyse(now.ended, now.accepted)
                    )
        finally:
            views += self.client.get_all(ids)

    @contextmanager
    def _bar(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A line on the terminal, and what moves it."""
        bar = self.bars.add_task(what, total=None)
        yield lambda done, total: self.bars.update(bar, completed=done, total=total)
        self.bars.remove_task(bar)

    @contextmanager
    def _reported(self, what: Source) -> Iterator[None]:
        """Say on stderr what failed, and go on."""
        try:
            yield
        except ClipwardenError as error:
            self._say(what, str(error))

    def _say(self, what: Source, message: str) -> None:
        self.failed = True
        told = f"clipwarden: {_name(what)}: {message}"
        self.bars.console.print(told, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _name(source: Source) -> str:
    return source.name if isinstance(source, Path) else source
