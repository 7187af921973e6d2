"""What the database itself notes of every end and every verdict, so that a second one cannot hide."""

from collections import Counter
from typing import Any

from sqlalchemy import Engine, text

INSTALL = """
CREATE TABLE drill_audit (id bigserial, analysis_id uuid NOT NULL, what text NOT NULL);
CREATE FUNCTION drill_note_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO drill_audit (analysis_id, what) VALUES (NEW.id, 'ended');
    RETURN NULL;
END $$;
CREATE FUNCTION drill_note_verdict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO drill_audit (analysis_id, what) VALUES (coalesce(NEW.analysis_id, OLD.analysis_id), lower(TG_OP));
    RETURN NULL;
END $$;
CREATE TRIGGER drill_ends AFTER UPDATE ON analyses FOR EACH ROW
    WHEN (OLD.finished_at IS DISTINCT FROM NEW.finished_at
          OR (OLD.finished_at IS NOT NULL AND OLD.state <> NEW.state))
    EXECUTE FUNCTION drill_note_end();
CREATE TRIGGER drill_verdicts AFTER INSERT OR UPDATE OR DELETE ON verdicts FOR EACH ROW
    EXECUTE FUNCTION drill_note_verdict();
"""


def install(engine: Engine) -> None:
    with engine.begin() as c:
        c.exec_driver_sql(INSTALL)


def noted(engine: Engine) -> dict[str, Counter[str]]:
    """By analysis, how often it ended and how often its verdict was inserted, updated or deleted."""
    found: dict[str, Counter[str]] = {}
    with engine.connect() as c:
        rows: Any = c.execute(text("SELECT analysis_id, what, count(*) AS n FROM drill_audit GROUP BY 1, 2"))
        for row in rows:
            found.setdefault(str(row.analysis_id), Counter())[row.what] = row.n
    return found
