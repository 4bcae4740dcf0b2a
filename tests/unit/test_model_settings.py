"""What the configuration may say of named models, and how it is told what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import ConfigurationError, effective_settings, load_settings

PROVIDER = {"type": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": "none"}


@pytest.fixture
def load(tmp_path: Path):
    def loaded(models: Any, **others: Any):
        path = tmp_path / "gateway.yml"
        path.write_text(json.dumps({"providers": {"a": PROVIDER, "b": PROVIDER}, "models": models, **others}))
        return load_settings(path, {})

    return loaded


def refusal(load, models: Any, **others: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(models, **others)
    return str(caught.value)


def test_a_name_needs_no_more_than_a_target(load) -> None:
    model = load({"fast": {"targets": [{"model": "a:x"}]}}).models["fast"]

    assert [(target.model, target.weight) for target in model.targets] == [("a:x", 1)]
    assert (model.select, model.fallbacks, model.retries) == ("weighted", [], 1)
    assert model.attempt_timeout_s is None


def test_everything_that_a_name_may_say_is_shown(load) -> None:
    fast = {
        "targets": [{"model": "a:x", "weight": 3}, {"model": "b:y/z:7b", "weight": 1}],
        "select": "least_busy",
        "fallbacks": ["b:w"],
        "retries": 0,
        "attempt_timeout_s": 2.5,
    }

    settings = load({"fast": fast}, cooldown={"failures": 5, "cooldown_s": 0})

    assert effective_settings(settings)["models"] == {"fast": fast}
    assert effective_settings(settings)["cooldown"] == {"failures": 5, "cooldown_s": 0}


@pytest.mark.parametrize(
    ("fast", "said"),
    [
        ({}, "models.fast.targets: is missing"),
        ({"targets": []}, "models.fast.targets"),
        ({"targets": [{"weight": 1}]}, "models.fast.targets.0.model: is missing"),
        (
            {"targets": [{"model": "a:x", "weigth": 1}]},
            "targets.0.weigth: is not a known key; did you mean weight?",
        ),
        ({"targets": [{"model": "a:x", "weight": 0}]}, "targets.0.weight: is too small"),
        ({"targets": [{"model": "a:x", "weight": True}]}, "targets.0.weight: is true or false"),
        ({"targets": [{"model": "x"}]}, "targets.0.model: names no model; write provider:model"),
        (
            {"targets": [{"model": "c:x"}]},
            "models.fast.targets.0.model: names a provider that is not configured; known here: a, b",
        ),
        (
            {"targets": [{"model": "a:x"}], "fallbacks": ["b:y", "c:x"]},
            "models.fast.fallbacks.1: names a provider that is not configured",
        ),
        (
            {"targets": [{"model": "a:x"}, {"model": "a:x"}]},
            "models.fast.targets.1.model: names a model that this name has already",
        ),
        (
            {"targets": [{"model": "a:x"}], "fallbacks": ["a:x"]},
            "models.fast.fallbacks.0: names a model that this name has already",
        ),
        ({"targets": [{"model": "a:x"}], "fallbacks": ["fast"]}, "fallbacks.0: names no model"),
        (
            {"targets": [{"model": "a:x"}], "select": "random"},
            "models.fast.select: is not one of the choices",
        ),
        ({"targets": [{"model": "a:x"}], "retries": 11}, "models.fast.retries: is too large"),
        ({"targets": [{"model": "a:x"}], "attempt_timeout_s": 0}, "attempt_timeout_s: is too small"),
    ],
)
def test_what_is_wrong_with_a_name_is_told_with_its_key(load, fast: Any, said: str) -> None:
    assert said in refusal(load, {"fast": fast})


@pytest.mark.parametrize("name", ["a:x", "a/x", "b:", "a:x/y"])
def test_a_name_that_reads_as_a_providers_model_is_refused(load, name: str) -> None:
    said = refusal(load, {name: {"targets": [{"model": "b:y"}]}})

    assert f"models.{name}: reads as a model of one of the providers" in said


@pytest.mark.parametrize("name", ["gpt-4o", "meta/llama", "x:1", "aa:x"])
def test_a_name_may_be_what_clients_ask_for_anyway(load, name: str) -> None:
    assert list(load({name: {"targets": [{"model": "b:y"}]}}).models) == [name]


@pytest.mark.parametrize("name", ["", "two words", "x" * 257, "größer"])
def test_a_name_that_no_header_or_column_holds_is_refused(load, name: str) -> None:
    assert "cannot name a model" in refusal(load, {name: {"targets": [{"model": "b:y"}]}})


def test_a_misspelt_key_of_the_cooldown_is_refused(load) -> None:
    assert "cooldown.failure: is not a known key; did you mean failures?" in refusal(
        load, {}, cooldown={"failure": 1}
    )


def test_a_provider_says_how_long_its_first_event_may_take(load) -> None:
    provider = PROVIDER | {"first_token_timeout_s": 2}

    settings = load({}, providers={"a": provider, "b": PROVIDER})

    assert [each.first_token_timeout_s for each in settings.providers.values()] == [2, None]
