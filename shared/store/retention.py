"""What is past its age in the store: uploads, evidence, and at last the analyses themselves with all that is theirs.

Files go within the transaction that forgets them: if one cannot be deleted nothing is forgotten, and it is done again.
"""

from collections.abc import Sequence
from uuid import UUID

from clipwarden.shared.store.acting import Doomed, Remove, locked, own_folders, own_upload
from clipwarden.shared.store.connection import Database, text


class Retention(Database):
    """Finds what is past its age, and forgets it."""

    def expired_uploads(self, age_s: float, limit: int = 500) -> list[tuple[UUID, str]]:
        """Uploads of analyses that ended at least `age_s` ago, rejected ones at once, and that no other one needs."""
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT a.id, a.upload_key FROM analyses a
                    WHERE a.upload_key IS NOT NULL AND a.finished_at IS NOT NULL
                      AND (a.state = 'rejected' OR a.finished_at < clock_timestamp() - make_interval(secs => :age))
                      AND NOT EXISTS (SELECT 1 FROM analyses o
                          WHERE o.upload_key = a.upload_key AND o.state <> 'rejected'
                            AND coalesce(o.finished_at >= clock_timestamp() - make_interval(secs => :age), true))
                      AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.blob_key = a.upload_key)
                    LIMIT :limit
                """),
                {"age": age_s, "limit": limit},
            ).all()
        return [(r.id, r.upload_key) for r in rows]

    def unknown_uploads(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that no analysis refers to, and no file that was sent ahead."""
        with self._transaction() as c:
            known = c.scalars(
                text("""
                    SELECT upload_key FROM analyses WHERE upload_key = ANY(:keys)
                    UNION SELECT blob_key FROM uploads WHERE blob_key = ANY(:keys)
                """),
                {"keys": list(keys)},
            ).all()
        return set(keys) - set(known)

    def unknown_evidence(self, folders: Sequence[str]) -> set[str]:
        """Those of the folders of evidence that no result names, nor will: a lease of that token names it at its end.

        Results that took over another's are asked for last, which costs more.
        """
        with self._transaction() as c:
            own = c.scalars(
                text("""
                    SELECT coalesce(outcome->>'folder', concat_ws('/', 'evidence', analysis_id, stage,
                                                                  replace(CAST(lease_token AS text), '-', '')))
                    FROM stages WHERE analysis_id = ANY(:ids)
                      AND (outcome->>'folder' IS NOT NULL OR status = 'leased')
                """),
                {"ids": list({UUID(folder.split("/")[1]) for folder in folders})},
            ).all()
            rest = set(folders) - set(own)
            if not rest:
                return rest
            others = c.scalars(
                text("""
                    SELECT outcome->>'folder' FROM stages
                    WHERE outcome->>'folder' IS NOT NULL AND outcome->>'folder' = ANY(:folders)
                """),
                {"folders": list(rest)},
            ).all()
        return rest - set(others)

    def unfinished(self, analysis_ids: Sequence[UUID]) -> set[UUID]:
        """Those of the ids whose analysis has not ended."""
        with self._transaction() as c:
            alive = c.scalars(
                text("SELECT id FROM analyses WHERE id = ANY(:ids) AND finished_at IS NULL"),
                {"ids": list(analysis_ids)},
            ).all()
        return set(alive)

    def expired_evidence(self, age_s: float, limit: int = 500) -> Sequence[UUID]:
        """Analyses that ended at least `age_s` ago and still name files of evidence."""
        with self._transaction() as c:
            return c.scalars(
                text("""
                    SELECT DISTINCT a.id FROM stages s JOIN analyses a ON a.id = s.analysis_id
                    WHERE s.outcome->>'folder' IS NOT NULL
                      AND s.finished_at < clock_timestamp() - make_interval(secs => :age)
                      AND a.finished_at < clock_timestamp() - make_interval(secs => :age)
                    LIMIT :limit
                """),
                {"age": age_s, "limit": limit},
            ).all()

    def drop_evidence(self, analysis_id: UUID, remove: Remove) -> None:
        """Have an analysis name no files of evidence; scores and windows stay. What no other one names is removed."""
        with self._transaction() as c:
            row = locked(c, analysis_id)
            if row is None:
                return
            remove(Doomed(None, own_folders(c, row)))
            c.execute(
                text("""
                    UPDATE stages SET outcome = (outcome - 'folder') || jsonb_build_object('detectors', (
                        SELECT coalesce(jsonb_agg(d.one #- '{evidence,exhibits}' ORDER BY d.place), '[]')
                        FROM jsonb_array_elements(outcome->'detectors') WITH ORDINALITY AS d (one, place)))
                    WHERE analysis_id = :id AND outcome->>'folder' IS NOT NULL
                """),
                {"id": analysis_id},
            )

    def expired_analyses(self, age_s: float, limit: int = 500) -> Sequence[UUID]:
        """Analyses that ended at least `age_s` ago, the oldest first."""
        with self._transaction() as c:
            return c.scalars(
                text("""
                    SELECT id FROM analyses WHERE finished_at < clock_timestamp() - make_interval(secs => :age)
                    ORDER BY finished_at LIMIT :limit
                """),
                {"age": age_s, "limit": limit},
            ).all()

    def drop_analysis(self, analysis_id: UUID, remove: Remove) -> None:
        """Forget an analysis without a trace; its stages, verdict, feedback and callbacks go with it."""
        with self._transaction() as c:
            row = locked(c, analysis_id)
            if row is None:
                return
            remove(Doomed(own_upload(c, row), own_folders(c, row)))
            c.execute(text("DELETE FROM analyses WHERE id = :id"), {"id": analysis_id})

    def drop_pings(self, age_s: float) -> int:
        """Forget callbacks that told of no analysis and ended at least `age_s` ago; returns how many."""
        with self._transaction() as c:
            return c.execute(
                text("""
                    DELETE FROM deliveries WHERE analysis_id IS NULL
                      AND finished_at < clock_timestamp() - make_interval(secs => :age)
                """),
                {"age": age_s},
            ).rowcount

    def drop_empty_batches(self, age_s: float, limit: int = 500) -> int:
        """Forget batches that are as old and none of whose analyses is left; returns how many."""
        with self._transaction() as c:
            return c.execute(
                text("""
                    DELETE FROM batches WHERE id IN (
                        SELECT b.id FROM batches b
                        WHERE b.created_at < clock_timestamp() - make_interval(secs => :age)
                          AND NOT EXISTS (SELECT 1 FROM analyses a WHERE a.batch_id = b.id)
                        LIMIT :limit)
                """),
                {"age": age_s, "limit": limit},
            ).rowcount
