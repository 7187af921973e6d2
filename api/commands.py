"""`clipwarden status`, and what the commands that speak to a gateway share: finding it, and showing analyses."""

import argparse
import json
from collections.abc import Iterator, Sequence

from clipwarden.api.client import Client
from clipwarden.api.schemas import AnalysisView
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.settings import Settings, load_settings


def gateway_url(settings: Settings) -> str:
    """The gateway to talk to: the setting, else the one that `clipwarden up` noted. Raises ConfigError."""
    return settings.api_url or noted(settings, "api", "gateway", "CLIPWARDEN_API_URL")


def noted(settings: Settings, name: str, what: str, variable: str) -> str:
    """An address that `clipwarden up` noted. Raises ConfigError naming the variable to set instead."""
    ready = settings.state_dir / "ready.json"
    try:
        return str(json.loads(ready.read_text("utf-8"))[name])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"no {what} is known: run `clipwarden up`, or set {variable} ({ready} does not name one)"
        ) from error


def open_client() -> Client:
    settings = load_settings()
    return Client(gateway_url(settings), settings.api_key)


def status_main(argv: Sequence[str]) -> int:
    """Read analyses once."""
    parser = argparse.ArgumentParser(prog="clipwarden status", description="Read an analysis from a gateway.")
    parser.add_argument("ids", nargs="+", metavar="ID")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    arguments = parser.parse_args(argv)
    with open_client() as client:
        views = client.get_all(arguments.ids)
    show(views, as_json=arguments.json)
    return 0


def show(views: Sequence[AnalysisView], *, as_json: bool) -> None:
    """Print analyses, for people or one JSON object a line."""
    if as_json:
        for view in views:
            print(view.model_dump_json())
        return
    for view in views:
        print("\n".join(_lines(view)))


def _lines(view: AnalysisView) -> Iterator[str]:
    """The id first and whole, to be copied; then the verdict or how far it is, then one line a reason."""
    state = str(view.state) if view.ended else f"{view.state} {view.percent}%"
    yield f"{view.id}  {state}  {view.input.filename}"
    if view.verdict:
        p = view.verdict.probability
        yield f"  {view.verdict.label}" + ("" if p is None else f", P(fake) {p:.3f}")
        yield from (f"  {reason.text}" for reason in view.verdict.reasons)
    if view.branches:
        yield "  " + ", ".join(f"{name} {branch.code or branch.status}" for name, branch in view.branches.items())
    if view.error:
        yield f"  {view.error.message}"
