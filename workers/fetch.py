"""The fetch stage: a file named by its address is streamed into the blob store, and ingest goes on from there."""

from email.message import Message
from urllib.parse import unquote, urlsplit
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded

from clipwarden.shared.addresses import AddressRefused, Rules
from clipwarden.shared.codes import SENTENCES, RejectCode
from clipwarden.shared.errors import MediaError, StorageFull, Unavailable
from clipwarden.shared.handing import drop_copy, hand_on
from clipwarden.shared.logs import logger
from clipwarden.shared.names import safe_name
from clipwarden.shared.outbound import NoAnswer, Outbound, Reply, ReplyTooLarge
from clipwarden.shared.store import Fetched, Granted
from clipwarden.shared.telling import tell
from clipwarden.workers.process import WorkerProcess

FIRST_PAUSE_S = 5.0
PAUSE_GROWTH = 4.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What a server answers that may answer otherwise the next time."""
PAGES = frozenset({"text/html", "application/xhtml+xml", "application/json"})

log = logger(__name__)


def fetch(process: WorkerProcess, analysis_id: UUID, granted: Granted) -> None:
    """Fetch the analysis's file, or reject the analysis with a code; a passing failure is tried again later.

    Raises Unavailable, StorageFull if there is no room for the file, ConfigError if its store is not the right one.
    """
    try:
        found = _fetched(process, granted.source_url or "")
    except (NoAnswer, SoftTimeLimitExceeded) as error:
        _try_again(process, analysis_id, granted, str(error) or "the time is over")
    except AddressRefused as error:
        _reject(process, analysis_id, granted, RejectCode.FETCH_REFUSED, str(error))
    except ReplyTooLarge:
        limit = f"at most {process.settings.max_upload_bytes} bytes"
        _reject(process, analysis_id, granted, RejectCode.FETCH_TOO_LARGE, limit)
    except MediaError as error:
        _reject(process, analysis_id, granted, RejectCode(error.code), error.detail)
    except StorageFull:
        raise
    except Unavailable:
        process.blobs.check(process.store.store_id())
        raise
    else:
        _hand_over(process, analysis_id, granted, found)


def _fetched(process: WorkerProcess, url: str) -> Fetched:
    """The file at the address, committed to the blob store."""
    s = process.settings
    outbound = Outbound(Rules.of(s))
    with process.blobs.create() as writer:
        with outbound.get(url, s.fetch_timeout_s) as reply:
            _accept(reply)
            for chunk in reply.chunks(s.max_upload_bytes):
                writer.write(chunk)
            name = file_name(reply)
        if not writer.size:
            raise MediaError(RejectCode.EMPTY_FILE)
        return Fetched(name, writer.size, writer.sha256, writer.commit())


def _accept(reply: Reply) -> None:
    """Raises NoAnswer or MediaError unless the reply carries a file as it is."""
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = reply.headers.get("content-encoding", "identity").strip().lower()
    if reply.status in PASSING:
        raise NoAnswer(f"the server answered {reply.status}")
    if reply.status != 200:
        raise MediaError(RejectCode.FETCH_FAILED, f"the server answered {reply.status}")
    if encoding not in {"", "identity"}:  # it was not asked for, and may grow a thousandfold
        raise MediaError(RejectCode.FETCH_FAILED, f"the server sent it compressed as {encoding[:32]!r}")
    if kind in PAGES:
        raise MediaError(RejectCode.FETCH_FAILED, f"the server sent {kind}, a page and not a media file")


def file_name(reply: Reply) -> str:
    """The name that the server gives the file, else the last part of the address."""
    header = Message()
    told = reply.headers.get("content-disposition", "")
    header["Content-Disposition"] = told.encode("latin-1", "replace").decode("utf-8", "replace")
    return safe_name(header.get_filename() or unquote(urlsplit(reply.target.url).path))


def _try_again(process: WorkerProcess, analysis_id: UUID, granted: Granted, reason: str) -> None:
    """The sweeper sends the stage again when its time has come."""
    if granted.attempts >= process.settings.max_attempts:
        _reject(process, analysis_id, granted, RejectCode.FETCH_FAILED, reason)
        return
    pause_s = FIRST_PAUSE_S * PAUSE_GROWTH ** (granted.attempts - 1)
    log.info("not fetched, tried again later", reason=reason, pause_s=pause_s)
    process.store.put_off_fetch(analysis_id, granted.token, pause_s)


def _reject(process: WorkerProcess, analysis_id: UUID, granted: Granted, code: RejectCode, detail: str) -> None:
    log.info("not fetched", code=code, reason=detail)
    message = f"{SENTENCES[code]} ({detail})" if detail else SENTENCES[code]
    if process.store.end_fetch(analysis_id, granted.token, code, message):
        tell(process.settings, process.store, analysis_id)


def _hand_over(process: WorkerProcess, analysis_id: UUID, granted: Granted, found: Fetched) -> None:
    if not process.store.finish_fetch(analysis_id, granted.token, found, process.settings.resend_after_s):
        log.warning("lease lost, another worker fetches")
        process.blobs.delete(found.upload_key)
        return
    log.info("fetched", size_bytes=found.size_bytes)
    drop_copy(process.store, process.blobs, found.upload_key)
    hand_on(process.settings, process.store, analysis_id, granted.lane)
