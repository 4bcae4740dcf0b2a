"""Prices, budgets and what goes with them, as the configuration writes them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.pricing import Price
from gateway.settings import ConfigurationError, Settings, effective_settings, load_settings


def settings(folder: Path, **sections: Any) -> Settings:
    file = folder / "gateway.yml"
    file.write_text(yaml.safe_dump({"master_key": "x", "store": {"url": "memory:"}, **sections}))
    return load_settings(file, {})


def priced(folder: Path, **price: Any) -> Settings:
    provider = {"type": "openai", "base_url": "http://localhost/v1", "api_key": "none"}
    return settings(folder, providers={"a": provider}, pricing={"a:m": price})


WHOLE = {
    "input_per_million": 1.1,
    "output_per_million": 2,
    "cached_input_per_million": 0.3,
    "reasoning_per_million": 4.4,
    "per_image": 0.04,
    "per_request": 0.001,
}


def test_a_price_may_say_what_reasoning_images_and_calls_cost(tmp_path: Path) -> None:
    price = priced(tmp_path, **WHOLE).pricing["a:m"]

    assert price == Price(*(Decimal(str(value)) for value in WHOLE.values()))


def test_a_price_need_not_say_so(tmp_path: Path) -> None:
    given = priced(tmp_path, input_per_million=1, output_per_million=2)

    assert given.pricing["a:m"] == Price(Decimal(1), Decimal(2))


def test_the_price_in_force_is_shown_whole(tmp_path: Path) -> None:
    assert effective_settings(priced(tmp_path, **WHOLE))["pricing"] == {"a:m": WHOLE}


def test_the_defaults_count_no_budget_and_serve_what_has_no_price(tmp_path: Path) -> None:
    given = settings(tmp_path)

    assert (given.budget_strategy, given.unpriced, given.default_prices) == ("disabled", "serve", "none")
    assert (given.budgets.reservation_ttl_s, given.budgets.default_output_tokens) == (900, 1024)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"budgets": {"reservation_ttl_s": 0}}, "budgets.reservation_ttl_s"),
        ({"budgets": {"default_output_tokens": -1}}, "budgets.default_output_tokens"),
        ({"unpriced": "maybe"}, "unpriced"),
        ({"default_prices": "mine"}, "default_prices"),
        ({"pricing": {"a:m": {**WHOLE, "per_image": -1}}}, "per_image"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, sections: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(tmp_path, **sections)

    assert key in str(caught.value)
