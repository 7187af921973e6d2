"""What the JSON of `/v1` and of the probes says of the service itself: its detectors, limits and health."""

from typing import Self

from pydantic import Field

from clipwarden.api.schema import View
from clipwarden.shared.contracts import Branch, DetectorState, Manifest
from clipwarden.shared.settings import Settings


class DetectorInfo(View):
    """A detector of the current pipeline."""

    name: str
    version: str
    branch: Branch
    state: DetectorState
    weights: str | None
    runtime: str
    dtype: str


class LimitsView(View):
    """What is over these is refused."""

    bytes: int
    duration_s: float
    pixels: int
    frames: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            bytes=settings.max_upload_bytes,
            duration_s=settings.max_duration_s,
            pixels=settings.max_pixels,
            frames=settings.max_frames,
        )


class DetectorsView(View):
    """What new analyses will be examined with."""

    pipeline: str
    detectors: list[DetectorInfo]
    policies: list[str] = Field(description="What verdicts can be given by; the first is the default")
    limits: LimitsView

    @classmethod
    def from_domain(cls, pipeline: str, manifest: Manifest, settings: Settings) -> Self:
        listed = [DetectorInfo(**d.model_dump(exclude={"needs"})) for d in manifest.detectors]
        limits = LimitsView.from_settings(settings)
        return cls(pipeline=pipeline, detectors=listed, policies=list(manifest.policies), limits=limits)


class RootView(View):
    """What this is, and the addresses a newcomer wants first."""

    service: str = Field(examples=["clipwarden"])
    links: dict[str, str]


class LiveView(View):
    status: str = Field(examples=["alive"])


class ReadyView(View):
    """Every service the gateway needs, by name."""

    status: str
    checks: dict[str, str]
