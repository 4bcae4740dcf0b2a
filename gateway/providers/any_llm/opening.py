"""The SDK's own providers, made of the settings.

The only file that imports the SDK, and not before somebody wants it: that takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...config_errors import ConfigurationError, Origins
from ...sections import ANY_LLM
from .threads import BLOCKING

if TYPE_CHECKING:
    from ...settings import ProviderSettings

_TALKATIVE = (
    "openai",
    "anthropic",
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "botocore",
    "urllib3",
    "any_llm",
)
"""Loggers that tell of every call, some of them with its whole prompt."""


def require_sdk(entries: Mapping[str, ProviderSettings], origins: Origins) -> None:
    """Return if the SDK is there, should one of the ``entries`` be of its type. Raises
    ``ConfigurationError``."""
    for name, entry in entries.items():
        if entry.type == ANY_LLM and find_spec("any_llm") is None:
            right = "pip install 'tallygate[any-llm]'"
            raise origins.error(("providers", name, "type"), "needs a package that is not installed", right)


def check_providers(entries: Mapping[str, ProviderSettings]) -> None:
    """Return if the SDK has what the ``entries`` of its type name. Raises ``ConfigurationError``."""
    for name, entry in entries.items():
        if entry.type == ANY_LLM:
            open_sdk(name, entry)


def open_sdk(name: str, entry: ProviderSettings) -> Any:
    """The SDK's provider for the entry ``name``. Asks the provider nothing; Amazon's SDK may look for its
    credentials. Raises ``ConfigurationError``, without any text of the SDK's: it may quote a key."""
    from any_llm import AnyLLM

    for each in _TALKATIVE:
        logging.getLogger(each).setLevel(logging.ERROR)
    at, provider = f"providers.{name}", str(entry.provider)
    if provider not in AnyLLM.get_supported_providers():
        raise ConfigurationError(
            "", f"{at}.provider", "is no provider of the any-llm SDK", "see its documentation"
        )
    kind: Any = AnyLLM.get_provider_class(provider)
    if getattr(kind, "MISSING_PACKAGES_ERROR", None) is not None:
        right = f"pip install 'any-llm-sdk[{provider}]'"
        raise ConfigurationError("", f"{at}.provider", "needs packages that are not installed", right)
    try:
        return AnyLLM.create(provider, **_arguments(entry, kind), **_amazons(provider))
    except Exception as error:
        variable = getattr(error, "env_var_name", None)
        if variable is not None:
            right = f"give one, or set {variable}"
            raise ConfigurationError(
                "", f"{at}.api_key", "is none, and the SDK finds no key", right
            ) from None
        right = "see the SDK's documentation for what it needs in the environment"
        wrong = f"cannot be opened ({type(error).__name__})"
        raise ConfigurationError("", f"{at}.provider", wrong, right) from None


def _amazons(provider: str) -> dict[str, Any]:
    """Amazon's SDK would try again up to four times, which ``max_retries`` does not reach."""
    if provider not in BLOCKING:
        return {}
    return {"config": import_module("botocore.config").Config(retries={"total_max_attempts": 1})}


def _arguments(entry: ProviderSettings, kind: Any) -> dict[str, Any]:
    """One call goes out once: what is tried again is ours to say."""
    key = entry.api_key.get_secret_value()
    given = {
        "api_key": None if key == "none" else key,
        "api_base": entry.base_url,
        "unified_exceptions": True,
    }
    return given if kind.MAX_RETRIES_SUPPORT == "unsupported" else {**given, "max_retries": 0}
