"""Prices for models that nobody priced: the list of the package ``genai-prices``, if it is asked for.

A provider of the configuration is looked up there by its name, else by its type: ``groq`` of type ``openai``
has Groq's prices, ``my-openai`` of the same type OpenAI's. Taken are plain prices of tokens; a model whose
price depends on how much is asked, or on more than text, has none here. What a provider bills beside tokens,
for searches and for writing its cache, is not in them, nor are other service tiers than the standard one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

from ..pricing import Price

DefaultPrices: TypeAlias = Callable[[str, datetime], Price | None]
"""The price of ``provider:model`` at a time, or None."""

PACKAGE = "genai_prices"
_TOKENS = ("input_mtok", "output_mtok", "cache_read_mtok")
_BESIDE = frozenset(
    ("cache_write_mtok", "cache_write_1h_mtok", "web_searches_kcount", "storage_searches_kcount")
)
_MODELS_KEPT = 1024
"""Model names are the clients', so there may be any number of them."""


def is_installed() -> bool:
    """Whether ``genai_prices`` can give prices."""
    return find_spec(PACKAGE) is not None


def no_prices(name: str, at: datetime) -> Price | None:
    """None: for those who do not ask for default prices."""
    return None


def genai_prices(types: Mapping[str, str]) -> DefaultPrices:
    """The prices of the package for the providers of the configuration, by name with their types."""
    listed = import_module(f"{PACKAGE}.data").providers
    by_id = {each.id: each for each in listed}
    known = {name: by_id.get(name) or by_id.get(type) for name, type in types.items()}

    @lru_cache(_MODELS_KEPT)
    def model_of(name: str) -> Any:
        provider, _, model = name.partition(":")
        found = known.get(provider)
        return None if found is None else found.find_model(model, all_providers=listed)

    def price_at(name: str, at: datetime) -> Price | None:
        model = model_of(name)
        return None if model is None or not model.prices else plain_price(vars(model.get_prices(at)))

    return price_at


def plain_price(prices: Mapping[str, Any]) -> Price | None:
    """The price of text by the package's keys, or None if there is more to it."""
    given = {key: value for key, value in prices.items() if value is not None}
    if "input_mtok" not in given or not given.keys() <= {*_TOKENS, *_BESIDE}:
        return None
    if not all(isinstance(given.get(key, Decimal(0)), Decimal) for key in _TOKENS):
        return None
    return Price(given["input_mtok"], given.get("output_mtok", Decimal(0)), given.get("cache_read_mtok"))
