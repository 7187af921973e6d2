"""Files of a Hugging Face hub: what they are, and the way here, which goes on where it was cut off.

`huggingface_hub` speaks to the server. It throws partial downloads away when it fails; here they are kept until they
are whole, under the commit that they belong to.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._headers import build_hf_headers

from clipwarden.models.weights import file_digest
from clipwarden.shared.errors import ConfigError, Unavailable

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
_YES: Final = frozenset({"1", "on", "yes", "true"})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of one commit. Servers tell size and digest of large files only; `here` is set for one that has come."""

    repo: str
    name: str
    commit: str
    size_bytes: int | None
    sha256: str | None = None
    here: Path | None = None


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub, or without a connection only what was fetched of it before."""

    endpoint: str
    offline: bool
    downloads: Path

    @classmethod
    def of_environment(cls, downloads: Path) -> "Hub":
        """As HF_ENDPOINT and HF_HUB_OFFLINE say, which are the hub's own variables."""
        offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in _YES or constants.is_offline_mode()
        return cls((os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/"), offline, downloads)

    def look(self, repo: str, revision: str, name: str) -> RemoteFile:
        """Find a file at a branch or commit, here or there. Raises ConfigError, Unavailable."""
        if here := self._here(repo, revision, name):
            return here
        if self.offline:
            raise ConfigError(
                f"offline (HF_HUB_OFFLINE is set), and {name} of {repo} at {revision} is not on this machine: fetch it "
                "on another, and run `clipwarden models install` on what you fetched"
            )
        with _translated(self.endpoint, repo, revision, name):
            found = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision, endpoint=self.endpoint))
        if not COMMIT.fullmatch(found.commit_hash or "") or revision not in {"main", found.commit_hash}:
            raise Unavailable(f"{self.endpoint} names no commit, or another than {revision}, for {name} of {repo}")
        known = found.etag if SHA256.fullmatch(found.etag or "") else None
        return RemoteFile(repo, name, str(found.commit_hash), found.size, known and f"sha256:{known}")

    def fetch(self, file: RemoteFile) -> Path:
        """Bring a file here, or the rest of it. Raises ConfigError, Unavailable; what came until then is kept."""
        if file.here is not None:
            return file.here
        path = self._place(file.repo, file.commit, file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with (
            part.open("ab") as stream,
            _alone(stream, path),
            _translated(self.endpoint, file.repo, file.commit, path.name),
        ):
            if file.size_bytes is None or stream.tell() > file.size_bytes:
                stream.truncate(0)
                stream.seek(0)
            http_get(
                hf_hub_url(file.repo, file.name, revision=file.commit, endpoint=self.endpoint),
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(),
                expected_size=file.size_bytes,
                displayed_filename=file.name,
            )
        if file.sha256 is not None and file_digest(part) != file.sha256:
            part.unlink()
            raise Unavailable(f"{file.name} came damaged from {self.endpoint}, and was deleted: run this again")
        return part.replace(path)

    def drop(self, file: RemoteFile) -> None:
        """Delete what was fetched of a file; copies in the hub's own cache stay."""
        path = self._place(file.repo, file.commit, file.name)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # something else of the commit or of the repository is still there
            path.parent.rmdir()
            path.parent.parent.rmdir()

    def _here(self, repo: str, revision: str, name: str) -> RemoteFile | None:
        """A whole file from an earlier fetch, or from the cache that the hub's own programs keep."""
        if COMMIT.fullmatch(revision) and (path := self._place(repo, revision, name)).is_file():
            return RemoteFile(repo, name, revision, path.stat().st_size, here=path)
        if not self.offline and not COMMIT.fullmatch(revision):
            return None
        cached = try_to_load_from_cache(repo, name, revision=revision)
        if not isinstance(cached, str) or not COMMIT.fullmatch(commit := Path(cached).parent.name):
            return None
        return RemoteFile(repo, name, commit, Path(cached).stat().st_size, here=Path(cached))

    def _place(self, repo: str, commit: str, name: str) -> Path:
        return self.downloads / repo.replace("/", "--") / commit / name


@contextmanager
def _alone(stream: BinaryIO, path: Path) -> Iterator[None]:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"{path.name} is being fetched by another command") from error
    yield


@contextmanager
def _translated(endpoint: str, repo: str, revision: str, name: str) -> Iterator[None]:
    """The library's errors in ours; a refusal is for the user to mend, anything else may pass."""
    try:
        yield
    except GatedRepoError as error:
        raise ConfigError(f"{repo} asks for consent on {endpoint}: give it there, then set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"{repo} on {endpoint} has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"there is no {repo} on {endpoint}, or it is not public: set HF_TOKEN") from error
    except EntryNotFoundError as error:
        raise ConfigError(f"{repo} on {endpoint} has no file {name} at {revision}") from error
    except FileMetadataError as error:
        raise ConfigError(f"{endpoint} does not speak the hub's protocol; see HF_ENDPOINT") from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        why = str(error).strip().partition("\n")[0]
        raise Unavailable(
            f"{name} of {repo} did not come whole from {endpoint}: {why}; run this again, it goes on where it ended"
        ) from error
