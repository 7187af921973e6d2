"""Addresses that are told with an analysis; those of files are signed, so that `<img>` and `<video>` can open them.

A signature is an HMAC-SHA256 under a secret of the installation. It binds the tenant, the path, which names the
analysis, and the time until which the link opens it; whoever has the link needs no key.
"""

import hmac
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import TERMINAL_STATES, Analysis, AnalysisState, Branch
from clipwarden.shared.errors import ProblemError

ROOT: Final = "/v1/analyses"
REPORTED: Final = TERMINAL_STATES - {AnalysisState.DELETED}
STEPS: Final = 4
"""Links made within this part of their lifetime are alike, so that what reads them again finds what it has."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Makes and checks links that open for at least `lifetime_s`."""

    secret: bytes
    lifetime_s: float

    def signed(self, tenant_id: UUID, path: str) -> str:
        """The path with the query that opens it."""
        step = self.lifetime_s / STEPS
        expires = int((time.time() // step + 1) * step + self.lifetime_s)
        query = {"expires": expires, "signature": self._signature(tenant_id, path, str(expires))}
        return f"{path}?{urlencode(query)}"

    def check(self, tenant_id: UUID, path: str, expires: str, signature: str) -> None:
        """Raises ProblemError: 404 for a link that we did not make, 403 for one that has expired."""
        if not hmac.compare_digest(self._signature(tenant_id, path, expires).encode(), signature.encode()):
            raise ProblemError(ProblemCode.NOT_FOUND)
        if int(expires) < time.time():
            raise ProblemError(ProblemCode.FORBIDDEN, "This link has expired; read the analysis for a new one.")

    def _signature(self, tenant_id: UUID, path: str, expires: str) -> str:
        told = "\n".join((str(tenant_id), path, expires))
        digest = hmac.digest(self.secret, told.encode("utf-8", "surrogateescape"), "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


def address(analysis_id: UUID, *more: str) -> str:
    return "/".join((ROOT, str(analysis_id), *more))


@dataclass(frozen=True, slots=True)
class Links:
    """The addresses of one analysis; without a signer those of files open with a key only."""

    analysis: Analysis
    signer: Signer | None = None

    def told(self) -> dict[str, str]:
        """What `links` says; the file only as long as it is kept, the report once there is one."""
        links = {"self": address(self.analysis.id), "events": address(self.analysis.id, "events")}
        files = {"media": self.analysis.upload_key is not None, "report": self.analysis.state in REPORTED}
        return links | {name: self._opened(name) for name, kept in files.items() if kept}

    def evidence(self, branch: Branch, detector: str, name: str) -> str:
        return self._opened("evidence", branch, detector, name)

    def _opened(self, *more: str) -> str:
        path = address(self.analysis.id, *more)
        return self.signer.signed(self.analysis.tenant_id, path) if self.signer else path
