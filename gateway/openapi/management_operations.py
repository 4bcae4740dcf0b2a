"""The part of the table that manages keys, users, budgets and prices: the same five operations of each, and
the rotation of keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ..management import budgets, keys, pricing, users
from ..management.answers import (
    BudgetAnswer,
    BudgetPage,
    KeyAnswer,
    KeyPage,
    NewKeyAnswer,
    PriceAnswer,
    PricePage,
    UserAnswer,
    UserPage,
)
from ..management.entrance import Handlers, Verb
from ..management.paging import DEFAULT_LIMIT, MAX_LIMIT
from ..management.requests import (
    BudgetChange,
    BudgetCreate,
    KeyChange,
    KeyCreate,
    KeyRotate,
    PriceChange,
    PriceCreate,
    UserChange,
    UserCreate,
)
from .operation import Answer, Body, Operation, Parameter, json_answer

ALWAYS = (400, 401, 403, 503)
WITH_BODY = (413, 415, 422)
GONE = {"204": Answer("Done; nothing is answered.")}
PAGING = (
    Parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}),
    Parameter("cursor", {"type": "string"}, "The cursor of the page before."),
)
_FILTER = {"type": "string", "minLength": 1, "maxLength": 256}


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of records. ``conflicts`` are the verbs that may answer 409."""

    path: str
    noun: str
    handlers: Handlers
    summaries: Mapping[Verb, str]
    create: type[BaseModel]
    change: type[BaseModel]
    shown: type[BaseModel]
    made: type[BaseModel]
    page: type[BaseModel]
    filters: tuple[str, ...] = ()
    conflicts: tuple[Verb, ...] = ()

    def operations(self) -> Iterator[Operation]:
        """All five."""
        one = f"{self.path}/{{id}}"
        made = {"201": json_answer("Made.", self.made)}
        shown = {"200": json_answer("As it is now.", self.shown)}
        filters = (Parameter(each, _FILTER, f"Only those with this {each}.") for each in self.filters)
        yield self._operation("create", "POST", self.path, made, body=Body(self.create))
        yield self._operation(
            "list",
            "GET",
            self.path,
            {"200": json_answer("One page.", self.page)},
            parameters=(*PAGING, *filters),
        )
        yield self._operation("get", "GET", one, shown)
        yield self._operation("change", "PATCH", one, shown, body=Body(self.change))
        yield self._operation("delete", "DELETE", one, GONE)

    def _operation(
        self, verb: Verb, method: Any, path: str, answers: Mapping[str, Answer], **rest: Any
    ) -> Operation:
        errors = {*ALWAYS, *(WITH_BODY if "body" in rest else ())}
        errors |= ({404} if "{" in path else set()) | ({409} if verb in self.conflicts else set())
        return Operation(
            method=method,
            path=path,
            handler=self.handlers[verb],
            id=f"{verb}_{self.noun}{'s' * (verb == 'list')}",
            tag=f"{self.noun.capitalize()}s",
            summary=self.summaries[verb],
            answers=answers,
            errors=tuple(sorted(errors)),
            needs="master",
            **rest,
        )


_KEYS = _Kind(
    path="/v1/keys",
    noun="key",
    handlers=keys.HANDLERS,
    summaries={
        "create": "Make a key; its secret is shown this once",
        "list": "Keys, the oldest first, those that were revoked too",
        "get": "One key",
        "change": "Change what is named; null clears",
        "delete": "Revoke a key; may be repeated",
    },
    create=KeyCreate,
    change=KeyChange,
    shown=KeyAnswer,
    made=NewKeyAnswer,
    page=KeyPage,
    filters=keys.FILTERS,
)
_ROTATION = Operation(
    method="POST",
    path="/v1/keys/{id}/rotate",
    handler=keys.rotate,
    id="rotate_key",
    tag="Keys",
    summary="Give a key a new secret; the one before opens for a while more",
    body=Body(KeyRotate, is_required=False),
    answers={"200": json_answer("The key with its new secret.", NewKeyAnswer)},
    errors=tuple(sorted((*ALWAYS, *WITH_BODY, 404, 409))),
    needs="master",
)
_USERS = _Kind(
    path="/v1/users",
    noun="user",
    handlers=users.HANDLERS,
    summaries={
        "create": "Make a user; an id is given once, also if its user is deleted",
        "list": "Users by their id, those that were deleted too",
        "get": "One user, and what was spent",
        "change": "Change what is named; null clears. Another budget begins with nothing spent",
        "delete": "Delete a user, whose keys open nothing from now on; the rows stay",
    },
    create=UserCreate,
    change=UserChange,
    shown=UserAnswer,
    made=UserAnswer,
    page=UserPage,
    filters=users.FILTERS,
    conflicts=("create", "change"),
)
_BUDGETS = _Kind(
    path="/v1/budgets",
    noun="budget",
    handlers=budgets.HANDLERS,
    summaries={
        "create": "Make a budget, to be given to users",
        "list": "Budgets, the oldest first",
        "get": "One budget",
        "change": "Change what is named, for all its users at once; null clears",
        "delete": "Delete a budget that no user has",
    },
    create=BudgetCreate,
    change=BudgetChange,
    shown=BudgetAnswer,
    made=BudgetAnswer,
    page=BudgetPage,
    conflicts=("delete",),
)
_PRICES = _Kind(
    path="/v1/pricing",
    noun="price",
    handlers=pricing.HANDLERS,
    summaries={
        "create": "Say what a model costs from a time on",
        "list": "Prices, the oldest entry first",
        "get": "One price",
        "change": "Change a price that is not in force yet; null clears",
        "delete": "Delete a price; rows that it priced stay as they are",
    },
    create=PriceCreate,
    change=PriceChange,
    shown=PriceAnswer,
    made=PriceAnswer,
    page=PricePage,
    filters=pricing.FILTERS,
    conflicts=("create", "change"),
)
MANAGEMENT = (
    *_KEYS.operations(),
    _ROTATION,
    *_USERS.operations(),
    *_BUDGETS.operations(),
    *_PRICES.operations(),
)
