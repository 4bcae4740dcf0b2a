"""What a named model may be made of, beyond what its own section can tell.

Every entry is a provider's model and never another name, so no name can lead back to itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from .config_errors import KeyPath, Origins, nearest
from .sections import ModelSettings, Settings


def check_models(settings: Settings, origins: Origins) -> None:
    """Return if every name is distinct from ``provider:model`` and leads to configured providers, to each of
    their models at most once. Raises ``ConfigurationError``."""
    for name, model in settings.models.items():
        _check_name(name, settings, origins)
        seen: set[str] = set()
        for path, entry in _entries(name, model):
            provider = entry.partition(":")[0]
            if provider not in settings.providers:
                right = nearest(provider, tuple(settings.providers))
                raise origins.error(path, "names a provider that is not configured", right)
            if entry in seen:
                raise origins.error(path, "names a model that this name has already", "remove one of the two")
            seen.add(entry)


def _check_name(name: str, settings: Settings, origins: Origins) -> None:
    for divider in ":/":
        provider, found, _ = name.partition(divider)
        if found and provider in settings.providers:
            wrong = "reads as a model of one of the providers"
            raise origins.error(
                ("models", name), wrong, "begin it with something else than a provider's name"
            )


def _entries(name: str, model: ModelSettings) -> Iterator[tuple[KeyPath, str]]:
    for index, target in enumerate(model.targets):
        yield ("models", name, "targets", str(index), "model"), target.model
    for index, fallback in enumerate(model.fallbacks):
        yield ("models", name, "fallbacks", str(index)), fallback
