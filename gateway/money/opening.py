"""Opens prices and budgets over a store, with the tasks behind them, and closes them before it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from backends import Store

from ..sections import Settings
from .budgets import Budgets, DisabledBudgets, ReservingBudgets
from .default_prices import DefaultPrices, genai_prices, no_prices
from .metrics import MoneyMetrics
from .price_book import PriceBook
from .settlements import Settlements

MIN_REFRESH_S = 0.25
"""Prices are read no more often, however little may be believed of what was read before."""


@dataclass(frozen=True, slots=True)
class Money:
    """``settlements`` None: no budgets are kept."""

    prices: PriceBook
    budgets: Budgets
    settlements: Settlements | None = None


@asynccontextmanager
async def opened_money(
    settings: Settings, store: Store, registry: CollectorRegistry, closing_s: float
) -> AsyncIterator[Money]:
    """Prices and budgets as ``settings`` say; ask nobody before they are used. What calls still have to
    settle in the end has ``closing_s`` seconds."""
    prices = PriceBook(
        settings.pricing,
        store,
        refresh_s=max(MIN_REFRESH_S, settings.store.cache_s),
        patience_s=settings.store.timeout_s,
        defaults=_defaults(settings),
    )
    async with prices.fresh():
        if settings.budget_strategy == "disabled":
            yield Money(prices, DisabledBudgets())
            return
        settlements = Settlements(store, settings.budgets.reservation_ttl_s)
        settlements.start()
        try:
            yield Money(prices, _budgets(settings, store, settlements, registry), settlements)
        finally:
            await settlements.stop(closing_s)


def _budgets(
    settings: Settings, store: Store, settlements: Settlements, registry: CollectorRegistry
) -> Budgets:
    metrics = MoneyMetrics(registry, lambda: len(settlements))
    return ReservingBudgets(
        store,
        settlements,
        ttl_s=settings.budgets.reservation_ttl_s,
        default_output_tokens=settings.budgets.default_output_tokens,
        on_refused=metrics.refused,
    )


def _defaults(settings: Settings) -> DefaultPrices:
    if settings.default_prices == "none":
        return no_prices
    return genai_prices(
        {name: provider.provider or provider.type for name, provider in settings.providers.items()}
    )
