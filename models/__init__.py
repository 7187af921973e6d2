"""The detectors, pure compute. What notebooks and scripts want of them is named here, and imported when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipwarden.models.surface import MediaProcessingError, load_model

__all__ = ["MediaProcessingError", "load_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("clipwarden.models.surface"), name)
