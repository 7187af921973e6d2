"""What the gateway tells of a request: how often each route answered what, and how fast."""

from typing import Final

from starlette.types import Scope

from clipwarden.shared.metrics import REQUEST_SECONDS, REQUESTS

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNROUTED: Final = "none"
"""What was refused before a route was chosen, or matches none: paths of strangers are no labels."""
CLIENT_LEFT: Final = 499


def count_request(scope: Scope, status: int, elapsed_s: float) -> None:
    """Count a request that was answered; without a status the client left."""
    method = scope["method"] if scope["method"] in METHODS else "other"
    route = getattr(scope.get("route"), "path", UNROUTED)
    REQUESTS.labels(method, route, str(status or CLIENT_LEFT)).inc()
    REQUEST_SECONDS.labels(route).observe(elapsed_s)
