"""Prices of the package genai-prices: only those that our counts can be reckoned with."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway import sections
from gateway.config_errors import ConfigurationError
from gateway.money.default_prices import DefaultPrices, genai_prices, no_prices, plain_price
from gateway.pricing import Price
from gateway.settings import load_settings

NOW = datetime.now(UTC)
TWO, THREE, ONE = Decimal(2), Decimal(3), Decimal(1)
TIERS: Any = object()
"""What depends on how much is asked is no number."""


@pytest.fixture
def prices() -> DefaultPrices:
    pytest.importorskip("genai_prices")
    return genai_prices({"openai": "openai", "mine": "openai", "groq": "openai", "other": "nobody"})


def test_without_the_package_there_are_none() -> None:
    assert no_prices("openai:gpt-4o", NOW) is None


@pytest.mark.parametrize(
    ("listed", "price"),
    [
        ({"input_mtok": TWO, "output_mtok": THREE}, Price(TWO, THREE)),
        ({"input_mtok": TWO, "output_mtok": THREE, "cache_read_mtok": ONE}, Price(TWO, THREE, ONE)),
        ({"input_mtok": TWO}, Price(TWO, Decimal(0))),
        ({"input_mtok": TWO, "output_mtok": THREE, "input_audio_mtok": None}, Price(TWO, THREE)),
        ({"input_mtok": TWO, "output_mtok": THREE, "web_searches_kcount": ONE}, Price(TWO, THREE)),
        ({"input_mtok": TWO, "output_mtok": THREE, "input_audio_mtok": ONE}, None),
        ({"input_mtok": TIERS, "output_mtok": THREE}, None),
        ({"input_mtok": TWO, "output_mtok": TIERS}, None),
        ({"input_mtok": TWO, "output_mtok": THREE, "cache_read_mtok": TIERS}, None),
        ({"output_mtok": THREE}, None),
        ({}, None),
    ],
)
def test_a_price_is_taken_if_it_is_one_of_plain_tokens(listed: dict[str, Any], price: Price | None) -> None:
    assert plain_price(listed) == price


def test_a_provider_is_found_by_its_name_else_by_its_type(prices: DefaultPrices) -> None:
    by_name = prices("openai:gpt-4o-mini", NOW)

    assert by_name is not None and by_name.input_per_million > 0
    assert prices("mine:gpt-4o-mini", NOW) == by_name
    assert prices("groq:gpt-4o-mini", NOW) is None
    assert prices("other:gpt-4o-mini", NOW) is None
    assert prices("unknown:gpt-4o-mini", NOW) is None


def test_a_model_that_is_not_listed_has_no_price(prices: DefaultPrices) -> None:
    assert prices("openai:no-such-model", NOW) is None


def test_who_asks_for_them_without_the_package_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "find_spec", lambda name: None)
    file = tmp_path / "gateway.yml"
    file.write_text("master_key: x\nstore: {url: 'memory:'}\ndefault_prices: genai-prices\n")

    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, {})

    assert "default_prices: needs a package" in str(caught.value)
    assert "pip install 'tallygate[prices]'" in str(caught.value)
