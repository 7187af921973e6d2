"""The addresses that requests name, judged before anything is kept; workers judge them again when they use them."""

from clipwarden.api.access import Caller
from clipwarden.shared.addresses import AddressRefused, Rules, check_callback, parse
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.settings import Settings


def callback_of(settings: Settings, caller: Caller, url: str) -> str:
    """The address as it will be told. Raises ProblemError unless the caller's key allows its host."""
    hosts = None if caller.key_id is None else caller.callback_hosts
    try:
        return check_callback(url, Rules.of(settings), hosts).url
    except AddressRefused as error:
        raise ProblemError(ProblemCode.INVALID, f"No callback can be sent there: {error}") from error


def source_of(settings: Settings, url: str) -> str:
    """The address as it will be fetched from. Raises ProblemError; what its name resolves to is seen later."""
    try:
        return parse(url, Rules.of(settings)).url
    except AddressRefused as error:
        raise ProblemError(ProblemCode.INVALID, f"Nothing can be fetched from there: {error}") from error
