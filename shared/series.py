"""The file in which a detector keeps everything that it said over time."""

from pydantic import BaseModel, ConfigDict

from clipwarden.shared.contracts import Curve, Gap, Look, Window


class Series(BaseModel):
    """What a `series` file holds, thinned where it is endless; readers ignore what a newer writer adds."""

    model_config = ConfigDict(frozen=True)

    detector: str
    version: str
    windows: tuple[Window, ...]
    gaps: tuple[Gap, ...] = ()
    looks: tuple[Look, ...]
    curves: tuple[Curve, ...]
