"""`clipwarden keys`: make, list and revoke the keys of tenants."""

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from clipwarden.api.access import Scope, digest_of
from clipwarden.api.commands import noted
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.settings import load_settings
from clipwarden.shared.store import Key, NewKey, Store

PREFIX = "cw_"
DAY_S = 24 * 3600
DEFAULT_SCOPES = (Scope.SUBMIT, Scope.READ)


def new_secret() -> str:
    """`cw_` and 43 characters that are 256 random bits; the prefix lets scanners find leaked ones."""
    return PREFIX + secrets.token_urlsafe(32)


def main(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    settings = load_settings()
    database_url = settings.database_url or noted(settings, "database", "database", "CLIPWARDEN_DATABASE_URL")
    store = Store(database_url, pool_size=1)
    try:
        if arguments.action == "create":
            _create(store, arguments)
        elif arguments.action == "list":
            _list(store.keys(arguments.tenant), as_json=arguments.json)
        else:
            _revoke(store, arguments.id)
    finally:
        store.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clipwarden keys", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="make a key and print its secret, once")
    create.add_argument("name", type=_name, help="what the key is for")
    create.add_argument("--tenant", type=_name, default="default", help="whose it is; made on first use")
    create.add_argument(
        "--scope", action="append", choices=[s.value for s in Scope], help="what it may do (default: submit and read)"
    )
    create.add_argument("--requests-per-minute", type=_positive, metavar="N", help="more are refused until later")
    create.add_argument("--concurrent", type=_positive, metavar="N", help="unfinished analyses it may have")
    create.add_argument(
        "--callback-host", action="append", default=[], metavar="HOST", help="where its callbacks may go; repeatable"
    )
    create.add_argument("--days", type=_positive, metavar="N", help="when it expires (default: never)")
    create.add_argument("--json", action="store_true", help="print one JSON object")
    listing = actions.add_parser("list", help="show all keys but not their secrets")
    listing.add_argument("--tenant", help="only this tenant's")
    listing.add_argument("--json", action="store_true", help="print one JSON object a line")
    revoke = actions.add_parser("revoke", help="end a key; gateways notice within seconds")
    revoke.add_argument("id", help="as `list` shows it")
    return parser


def _name(text: str) -> str:
    if not 0 < len(text) <= 100 or not text.isprintable():
        raise argparse.ArgumentTypeError("1 to 100 printable characters")
    return text


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("a number from 1 to 1000000")
    return int(text)


def _create(store: Store, arguments: argparse.Namespace) -> None:
    first = not store.any_key()
    secret = new_secret()
    key = store.create_key(
        NewKey(
            tenant=arguments.tenant,
            name=arguments.name,
            digest=digest_of(secret),
            scopes=[s.value for s in Scope if s in (arguments.scope or DEFAULT_SCOPES)],
            callback_hosts=[host.lower() for host in arguments.callback_host],
            requests_per_minute=arguments.requests_per_minute,
            concurrent=arguments.concurrent,
            expires_in_s=arguments.days and arguments.days * DAY_S,
        )
    )
    print(json.dumps(_facts(key) | {"secret": secret}) if arguments.json else secret)
    print(f"key {key.id} of tenant {key.tenant}; its secret is shown only this once", file=sys.stderr)
    if first:
        print("this is the first key: from now on the gateway serves nobody without one", file=sys.stderr)


def _list(keys: Sequence[Key], *, as_json: bool) -> None:
    if as_json:
        for key in keys:
            print(json.dumps(_facts(key)))
        return
    table = Table(*("id", "tenant", "name", "scopes", "a minute", "at once", "expires", "state"), box=None)
    for key in keys:
        limits = [str(limit or "") for limit in (key.requests_per_minute, key.concurrent)]
        expires = f"{key.expires_at:%Y-%m-%d}" if key.expires_at else ""
        table.add_row(str(key.id), key.tenant, key.name, " ".join(key.scopes), *limits, expires, _state(key))
    Console(width=None if sys.stdout.isatty() else 200, markup=False).print(table)


def _state(key: Key) -> str:
    return "revoked" if key.revoked_at else "live" if key.live else "expired"


def _facts(key: Key) -> dict[str, Any]:
    facts = asdict(key)
    for name in ("id", "tenant_id"):
        facts[name] = str(facts[name])
    for name in ("created_at", "expires_at", "revoked_at"):
        facts[name] = facts[name] and facts[name].isoformat()
    return facts | {"state": _state(key)}


def _revoke(store: Store, text: str) -> None:
    try:
        found = store.revoke_key(UUID(text))
    except ValueError:
        found = False
    if not found:
        raise ConfigError(f"there is no key {text!r}; `clipwarden keys list` shows them")
    print(f"key {text} is revoked")
