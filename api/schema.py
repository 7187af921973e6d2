"""What every view of `/v1` is made of."""

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """Frozen; a client ignores fields that a newer gateway adds."""

    model_config = ConfigDict(frozen=True)


class ReasonView(View):
    code: str
    text: str
