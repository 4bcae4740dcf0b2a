"""The caller, once the key is known to be good, and what a caller may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backends import ApiKey, User

from ..errors import Forbidden
from ..routing import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller. The master key may do everything and has neither ``key`` nor ``user``. Both are as they
    were when last asked for, so what the user has spent may be out of date."""

    is_master: bool
    key: ApiKey | None = None
    user: User | None = None

    @property
    def api_key_id(self) -> str | None:
        """The id of the key; None for the master."""
        return self.key.id if self.key else None

    @property
    def user_id(self) -> str | None:
        """The id of the user whose key it is; None for the master."""
        return self.user.id if self.user else None

    def may_use(self, route: Route) -> bool:
        """Whether the key opens this route: by the name that was asked for, by ``provider:model``, or by
        ``provider:*``."""
        if self.key is None or self.key.allowed_models is None:
            return True
        names = {_colon_form(route.name), route.price_key, f"{route.provider}:*"}
        return any(_colon_form(each) in names for each in self.key.allowed_models)


MASTER: Final = Principal(is_master=True)


def require_master(principal: Principal) -> None:
    """Return if ``principal`` may manage the gateway. Raises ``Forbidden``."""
    if not principal.is_master:
        raise Forbidden("This needs the master key.", "master_key_required")


def require_model(principal: Principal, route: Route) -> None:
    """Return if ``principal`` may use ``route``. Raises ``Forbidden``."""
    if not principal.may_use(route):
        raise Forbidden("This key may not use this model.", "model_not_allowed", "model")


def _colon_form(name: str) -> str:
    """``provider/model`` means ``provider:model``, wherever it stands."""
    provider, divider, model = _divided(name)
    return f"{provider}:{model}" if divider else name


def _divided(name: str) -> tuple[str, str, str]:
    return min(name.partition(":"), name.partition("/"), key=lambda parts: len(parts[0]))
