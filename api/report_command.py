"""The gateway's side of `clipwarden report`."""

from uuid import UUID

from clipwarden.api.commands import open_client


def report_on_analysis(analysis_id: UUID) -> str:
    """The report as the gateway wrote it. Raises ProblemError while the analysis runs, or Unavailable."""
    with open_client() as client:
        return client.report(analysis_id)
