"""`clipwarden webhooks`: the secrets with which callbacks are signed, from the command line."""

import argparse
from collections.abc import Sequence

from clipwarden.shared.errors import ConfigError
from clipwarden.shared.settings import load_settings
from clipwarden.shared.store import Secret, Store

HOUR_S = 3600


def main(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    settings = load_settings()
    settings.need("database_url")
    store = Store(settings.database_url, pool_size=1)
    try:
        tenant_id = store.tenant_named(arguments.tenant)
        if tenant_id is None:
            raise ConfigError(f"there is no tenant {arguments.tenant!r}; `clipwarden keys list` names them")
        if arguments.action == "show":
            _print(store.signing_secrets(tenant_id))
        else:
            hours = arguments.overlap_hours
            _print(store.rotate_secret(tenant_id, settings.webhook_overlap_s if hours is None else hours * HOUR_S))
    finally:
        store.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clipwarden webhooks", description=__doc__)
    subjects = parser.add_subparsers(dest="subject", required=True)
    secret = subjects.add_parser("secret", help="what receivers check signatures with")
    actions = secret.add_subparsers(dest="action", required=True)
    show = actions.add_parser("show", help="print the secrets in force, the newest first")
    rotate = actions.add_parser("rotate", help="make a new one; callbacks are signed with the old one too for a while")
    rotate.add_argument(
        "--overlap-hours", type=_hours, metavar="N", help="how long (default: CLIPWARDEN_WEBHOOK_OVERLAP_S)"
    )
    for action in (show, rotate):
        action.add_argument("--tenant", default="default", help="whose callbacks (default: those without a key)")
    return parser


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1
    if not 0 <= hours <= 8760:
        raise argparse.ArgumentTypeError("a number of hours from 0 to 8760")
    return hours


def _print(secrets: Sequence[Secret]) -> None:
    for secret in secrets:
        print(secret.secret, f"until {secret.expires_at:%Y-%m-%d %H:%M %Z}" if secret.expires_at else "current")
