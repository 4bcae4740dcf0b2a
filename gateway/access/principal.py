"""The caller, once the key is known to be good, and what a caller may do. Pure."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from backends import ApiKey, User

from ..errors import Forbidden
from ..routing import Destination
from ..routing.routes import colon_form


class Principal(Struct, frozen=True, kw_only=True):
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

    def may_use(self, destination: Destination) -> bool:
        """Whether the key opens what was asked for: a provider's model as ``provider:model`` or by
        ``provider:*``; a named model by its name alone, wherever its calls go."""
        if self.key is None or self.key.allowed_models is None:
            return True
        return any(colon_form(each) in destination.openers for each in self.key.allowed_models)


MASTER: Final = Principal(is_master=True)


def require_master(principal: Principal) -> None:
    """Return if ``principal`` may manage the gateway. Raises ``Forbidden``."""
    if not principal.is_master:
        raise Forbidden("This needs the master key.", "master_key_required")


def require_model(principal: Principal, destination: Destination) -> None:
    """Return if ``principal`` may use ``destination``. Raises ``Forbidden``."""
    if not principal.may_use(destination):
        raise Forbidden("This key may not use this model.", "model_not_allowed", "model")
