"""Every setting, once: the only reader of the environment (`CLIPWARDEN_*`).

Built in `create_app`, at worker start and in the command line, nowhere else. A bad value stops the process with
the variable's name.
"""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from clipwarden.shared.errors import ConfigError

PREFIX = "CLIPWARDEN_"
MEBIBYTE = 1024 * 1024


def _default_state_dir() -> Path:
    return Path.home() / ".local" / "state" / "clipwarden"


class Settings(BaseSettings):
    """Times in seconds, sizes in bytes unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    redis_url: str = Field("", description="Redis that carries the queues, e.g. redis://host:6379/0")
    database_url: str = Field("", description="Postgres that holds the truth, as a postgresql:// URL")
    api_url: str = Field(
        "", description="Gateway that the command line talks to; empty: the one `clipwarden up` started"
    )
    state_dir: Path = Field(
        default_factory=_default_state_dir, description="Directory of the embedded servers and `ready.json`"
    )
    blob_dir: Path | None = Field(
        None, description="Directory of uploads and bundles; empty: `blobs` in the state directory"
    )
    blob_url: str = Field(
        "",
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.-]+)*)?$",
        description="Bucket of uploads and bundles, s3://BUCKET or s3://BUCKET/PREFIX, instead of a directory; the"
        " address and the credentials are the standard AWS_ variables",
    )
    blob_cache_dir: Path | None = Field(
        None, description="Directory for blobs fetched from a bucket; empty: `blob-cache` in the state directory"
    )
    blob_cache_bytes: int = Field(
        8192 * MEBIBYTE, gt=0, description="Size of that directory; what is in use stays even beyond it"
    )
    worker_queue: str = Field("", description="Queue of this worker process; `clipwarden worker` sets it")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where detectors run: auto, cpu, cuda or cuda:N",
    )
    weights: Path | None = Field(
        None, description="A weights.toml of your own, its files beside it: what it names adds to the installed weights"
    )
    triage: bool = Field(
        False,
        description="Whether a clip in which the tiny gate sees nothing suspicious is spared the costlier detectors of"
        " pictures; needs fitted heads that decide without them",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe level that is logged"
    )
    metrics_host: str = Field("127.0.0.1", description="Address that metrics and health are served on")
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port that a process serves its metrics and health on; 0: none. The processes of `clipwarden up`"
        " take one each from there",
    )
    flower_host: str = Field("127.0.0.1", description="Address Flower binds to")
    flower_port: int = Field(5555, ge=0, le=65535, description="Port Flower binds to; 0 takes a free one")
    flower_user: str = Field("operator", pattern=r"^[^:\s]+$", description="Who may use Flower")
    flower_password: str = Field("", description="Password for Flower, which does not start without one")

    host: str = Field("127.0.0.1", description="Address the gateway binds to")
    port: int = Field(8000, ge=0, le=65535, description="Port the gateway binds to; 0 takes a free one")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host names the gateway answers to besides the loopback ones, separated by commas",
    )
    link_lifetime_s: float = Field(
        3600, ge=60, description="How long a link to a file or a picture of an analysis opens it without a key"
    )
    max_streams: int = Field(1000, gt=0, description="Event streams that one key may hold open at a gateway process")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins, such as https://desk.example.org, whose pages may use the gateway, separated by commas;"
        " pages of its own always may",
    )
    api_key: str = Field(
        "", pattern=r"^(cw_[A-Za-z0-9_-]{43})?$", description="Key that the command line sends to the gateway"
    )
    max_upload_bytes: int = Field(2048 * MEBIBYTE, gt=0, description="Largest upload")
    max_unfinished: int = Field(
        10_000, gt=0, description="Most analyses that may be under way; beyond it uploads are refused until some end"
    )
    max_sent_ahead_bytes: int = Field(
        20 * 1024 * MEBIBYTE,
        gt=0,
        description="Most bytes of a tenant's files that were sent ahead and that no analysis names; beyond it more are"
        " refused",
    )

    max_duration_s: float = Field(7200, gt=0, description="Longest clip")
    max_pixels: int = Field(8192 * 8192, gt=0, description="Largest picture, width times height")
    max_frames: int = Field(500_000, gt=0, description="Most frames in a clip")
    decode_memory_bytes: int = Field(
        512 * MEBIBYTE, ge=64 * MEBIBYTE, description="Memory that one decoder process may allocate"
    )
    decode_cpu_s: int = Field(600, gt=0, description="CPU time of one decoder process")

    outbound_private: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Private networks, such as 10.1.0.0/16, that files may be fetched from and callbacks sent to,"
        " separated by commas; public addresses are always allowed",
    )
    outbound_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (80, 443), description="Ports that files are fetched from and callbacks sent to, separated by commas"
    )
    fetch_timeout_s: float = Field(300, gt=0, description="Time that fetching a file by its address may take")
    webhook_timeout_s: float = Field(15, gt=0, description="Time a receiver of callbacks has to answer")
    webhook_overlap_s: float = Field(
        24 * 3600, ge=0, description="How long callbacks are signed with the old secret too, after a new one was made"
    )

    lease_s: float = Field(60, gt=0, description="How long a worker owns a stage without a heartbeat")
    heartbeat_s: float = Field(15, gt=0, description="How often a worker extends its lease")
    max_attempts: int = Field(3, gt=0, description="How often a stage is tried before it is poison")
    ingest_soft_limit_s: int = Field(600, gt=0, description="Time that fetching a file, or an ingest, may take")
    ingest_hard_limit_s: int = Field(
        630, gt=0, description="Time after which a process that fetches or ingests is killed"
    )
    assess_soft_limit_s: int = Field(300, gt=0, description="Time a branch may take")
    assess_hard_limit_s: int = Field(330, gt=0, description="Time after which a branch's process is killed")
    deadline_s: float = Field(1800, gt=0, description="Time an analysis may take in all")
    bulk_deadline_s: float = Field(
        24 * 3600, gt=0, description="The same in the lane bulk, where most of it is spent waiting"
    )
    visibility_timeout_s: int = Field(
        4 * 3600, gt=0, description="Time after which Redis hands an unacknowledged message out again"
    )
    result_expires_s: int = Field(7200, gt=0, description="How long chord counters live in Redis")
    worker_start_timeout_s: float = Field(600, gt=0, description="Time a worker process may take to load its models")
    soft_shutdown_s: float = Field(60, ge=0, description="Time a stopping worker gives its running task")

    sweep_every_s: float = Field(10, gt=0, description="Pause between two sweeps")
    resend_after_s: float = Field(30, gt=0, description="Age at which an open stage is sent again; doubles each time")
    upload_retention_s: float = Field(
        24 * 3600, gt=0, description="How long an upload is kept after its analysis ended"
    )
    bundle_retention_s: float = Field(
        3600, ge=0, description="Age at which a bundle is deleted that was left behind when its analysis ended"
    )
    evidence_retention_s: float = Field(
        30 * 24 * 3600,
        ge=0,
        description="How long pictures and curves are kept after the last analysis that shows them ended; 0: as long as"
        " it",
    )
    row_retention_s: float = Field(
        365 * 24 * 3600,
        ge=0,
        description="How long an analysis is kept after it ended, its verdict and all that is its own; 0: for ever",
    )
    orphan_retention_s: float = Field(
        3600,
        ge=0,
        description="Age at which a file that nothing names is deleted; longer than an upload takes to be recorded",
    )
    sent_ahead_s: float = Field(
        24 * 3600, gt=0, description="How long a file that was sent ahead is kept for analyses to name it"
    )
    idempotency_s: float = Field(
        24 * 3600, gt=0, description="How long a request with the same Idempotency-Key is answered like the first one"
    )

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("allowed_hosts", "cors_origins", "outbound_private", "outbound_ports"):
            listed = values.get(name)
            if isinstance(listed, str):
                values[name] = tuple(item.strip() for item in listed.split(",") if item.strip())
        return values

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, url: str) -> str:
        return _checked_url(url, "redis", "rediss")

    @field_validator("database_url")
    @classmethod
    def _database(cls, url: str) -> str:
        return _checked_url(url, "postgresql", "postgresql+psycopg2")

    @field_validator("api_url")
    @classmethod
    def _api(cls, url: str) -> str:
        return _checked_url(url, "http", "https")

    @field_validator("worker_queue")
    @classmethod
    def _queue(cls, name: str) -> str:
        from clipwarden.shared.queue import Queue  # which reads settings

        if name and name not in set(Queue):
            raise ValueError(f"there is no queue {name!r}, but {', '.join(Queue)}")
        return name

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[a-z0-9.\[\]:-]+", origin):
                raise ValueError(f"{origin!r} is not an origin: scheme, host and port, in lower case, without a path")
        return origins

    @field_validator("outbound_private")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(network)) for network in networks)

    @field_validator("weights")
    @classmethod
    def _from_anywhere(cls, path: Path | None) -> Path | None:
        return path and path.absolute()  # processes that inherit the setting run in other directories

    @model_validator(mode="after")
    def _ordered(self) -> "Settings":
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError(
                f"{PREFIX}HEARTBEAT_S: at most half of {PREFIX}LEASE_S, or a single late heartbeat loses the lease"
            )
        for name in ("ingest", "assess"):
            if getattr(self, f"{name}_soft_limit_s") >= getattr(self, f"{name}_hard_limit_s"):
                stage = f"{PREFIX}{name.upper()}"
                raise ValueError(f"{stage}_SOFT_LIMIT_S: must be below {stage}_HARD_LIMIT_S")
        return self

    @property
    def blobs(self) -> Path:
        """Directory of the blob store."""
        return self.blob_dir or self.state_dir / "blobs"

    @property
    def blob_cache(self) -> Path:
        """Directory for blobs fetched from a bucket."""
        return self.blob_cache_dir or self.state_dir / "blob-cache"

    def need(self, *names: str) -> None:
        """Refuse to go on without these settings. Raises ConfigError naming the first missing variable."""
        for name in names:
            if not getattr(self, name):
                raise ConfigError(f"{PREFIX}{name.upper()} is not set: {type(self).model_fields[name].description}")


def _checked_url(url: str, *schemes: str) -> str:
    """The URL, or nothing; what is wrong with it is told without its password."""
    if not url:
        return url
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"is no URL: {str(error).splitlines()[0]}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"is no URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    return url


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment. Raises ConfigError that names each bad variable."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"{PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" if e["loc"] else str(e["ctx"]["error"])
            for e in error.errors()
        ]
        raise ConfigError("; ".join(lines)) from error
