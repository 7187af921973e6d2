"""What may be asked for beside a file: the same in a form, in JSON, and for each item of a batch."""

from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SkipValidation,
    StrictBool,
    ValidationError,
    model_validator,
)

from clipwarden.api.fields import (
    METADATA_BYTES,
    TAG_BYTES,
    checked_metadata,
    checked_tag,
    checked_text,
    read_json,
    sentences,
)
from clipwarden.shared.addresses import URL_CHARACTERS
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import DetectorState, Lane, Manifest
from clipwarden.shared.errors import ProblemError

MOST_DETECTORS = 64
MOST_ITEMS = 1000
FORM_BYTES = {
    "tag": TAG_BYTES,
    "metadata": METADATA_BYTES,
    "detectors": 4096,
    "policy": 200,
    "lane": 16,
    "callback_url": URL_CHARACTERS,
    "reuse": 8,
}
"""The fields of a form beside the file, and their largest sizes."""

Model = TypeVar("Model", bound=BaseModel)
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_+-]{0,199}$")]
Names = Annotated[
    tuple[Name, ...],
    Field(min_length=1, max_length=MOST_DETECTORS),
    AfterValidator(lambda names: tuple(sorted(set(names)))),
]
Url = Annotated[str, Field(min_length=1, max_length=URL_CHARACTERS), AfterValidator(checked_text)]


class Options(BaseModel):
    """All of it may be left out. Unknown fields are refused, or a slip of the pen would be a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tag: Annotated[str, AfterValidator(checked_tag)] | None = Field(
        None, description=f"Echoed back; at most {TAG_BYTES} bytes of UTF-8", examples=["case-7"]
    )
    metadata: Annotated[dict[str, Any], AfterValidator(checked_metadata)] = Field(
        {}, description=f"Echoed back; a JSON object of at most {METADATA_BYTES} bytes", examples=[{"post": 4711}]
    )
    detectors: Names | None = Field(
        None,
        description="Which of the ready detectors that `GET /v1/detectors` lists are asked; all of them if left out",
        examples=[["forensic_mlp"]],
    )
    policy: Name | None = Field(
        None,
        description="By which of the policies that `GET /v1/detectors` lists the verdict is given; the first of them"
        " if left out",
        examples=["balanced"],
    )
    lane: Lane | None = Field(
        None,
        description="`realtime`, the default of one file, is taken before `bulk`, the default of a batch",
        examples=[Lane.REALTIME],
    )
    callback_url: Url | None = Field(
        None, description="Told once the analysis ended", examples=["https://hooks.example.com/clipwarden"]
    )
    reuse: StrictBool = Field(
        True,
        description="Whether findings of an earlier analysis of the same content may be taken over",
        examples=[False],
    )


class Named(Options):
    """A file that is not in the request: one to be fetched by its address, or one that was sent ahead."""

    url: Url | None = Field(
        None, description="Where the file is fetched from", examples=["https://cdn.example.com/a.mp4"]
    )
    upload: UUID | None = Field(None, description="The id of a file that was sent ahead, instead of `url`")

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if (self.url is None) == (self.upload is None):
            raise ValueError("Name the file by 'url' or by 'upload', by one of them.")
        return self

    @property
    def options(self) -> Options:
        return Options.model_construct(**self.model_dump(exclude={"url", "upload"}))


class Batch(BaseModel):
    """Many files at once, each as if it were submitted by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: list[SkipValidation[Named]] = Field(min_length=1, max_length=MOST_ITEMS)
    """As they were sent: a wrong one is refused by itself."""
    tag: Annotated[str, AfterValidator(checked_tag)] | None = Field(None, description="Echoed back with the batch")


def from_form(values: Mapping[str, bytes]) -> Options:
    """The options in a form's fields. Empty ones count as left out, as browsers send them. Raises ProblemError."""
    return checked(Options, {name: _field(name, raw) for name, raw in values.items() if raw})


def from_json(value: Any) -> Named:
    """Raises ProblemError that names what is wrong."""
    return checked(Named, value)


def checked(model: type[Model], value: Any) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ProblemError(ProblemCode.INVALID, sentences(error.errors(include_url=False))) from error


def check_choice(options: Options, manifest: Manifest) -> None:
    """Raises ProblemError for detectors and policies that the pipeline does not have."""
    if options.detectors is not None:
        ready = {d.name for d in manifest.detectors if d.state is DetectorState.READY}
        _refuse("detectors", set(options.detectors) - ready, "what GET /v1/detectors lists as ready")
    if options.policy is not None:
        _refuse("policy", {options.policy} - set(manifest.policies), "the policies that GET /v1/detectors lists")


def _refuse(field: str, unknown: set[str], known: str) -> None:
    if unknown:
        names = ", ".join(sorted(unknown)[:3])
        raise ProblemError(ProblemCode.INVALID, f"The field {field!r} names {names}, not among {known}.")


def _field(name: str, raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(ProblemCode.INVALID, f"The field {name!r} is not UTF-8 text.") from error
    match name:
        case "metadata":
            return _json(name, raw)
        case "detectors":
            return [each.strip() for each in text.split(",")]
        case "reuse":
            return {"true": True, "false": False}.get(text, text)
    return text


def _json(name: str, raw: bytes) -> Any:
    try:
        value = read_json(raw)
    except ValueError as error:
        raise ProblemError(ProblemCode.INVALID, f"The field {name!r} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ProblemError(ProblemCode.INVALID, f"The field {name!r} must be a JSON object.")
    return value
