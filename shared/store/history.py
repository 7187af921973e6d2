"""The operator's side of the store: what was found and decided, read back by the thousand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from clipwarden.shared.contracts import Label
from clipwarden.shared.store.connection import Database, text


@dataclass(frozen=True, slots=True)
class Decided:
    """A stored verdict: `values` are the features asked for, None where no branch found one."""

    analysis_id: UUID
    label: Label
    probability: float | None
    values: tuple[float | None, ...]


class History(Database):
    """Reads verdicts and the features that they were made from."""

    def count_verdicts(self) -> int:
        with self._transaction() as c:
            return int(c.scalar(text("SELECT count(*) FROM verdicts")) or 0)

    def verdicts(self, features: Sequence[tuple[str, str]], page: int) -> Iterator[list[Decided]]:
        """Every verdict, oldest analysis first, in pages; with features named by (detector, feature).

        Each page is a transaction of its own: verdicts that are written meanwhile may or may not be seen.
        """
        after = UUID(int=0)
        while found := self._verdicts_after(features, after, page):
            yield found
            after = found[-1].analysis_id

    def _verdicts_after(self, features: Sequence[tuple[str, str]], after: UUID, page: int) -> list[Decided]:
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT v.analysis_id, v.verdict->>'label' AS label,
                           CAST(v.verdict->>'probability' AS float8) AS probability,
                           (SELECT jsonb_object_agg(d->>'name', d->'evidence'->'features')
                            FROM stages s, jsonb_array_elements(s.outcome->'detectors') d
                            WHERE s.analysis_id = v.analysis_id AND s.status = 'ok' AND d->>'status' = 'ok') AS found
                    FROM verdicts v
                    WHERE v.analysis_id > :after
                    ORDER BY v.analysis_id
                    LIMIT :page
                """),
                {"after": after, "page": page},
            ).all()
        return [
            Decided(
                row.analysis_id,
                Label(row.label),
                row.probability,
                tuple((row.found or {}).get(detector, {}).get(name) for detector, name in features),
            )
            for row in rows
        ]
