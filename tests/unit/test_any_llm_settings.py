"""What the configuration may say of providers of the any-llm SDK, with and without that SDK."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from gateway import cli
from gateway.settings import ConfigurationError, load_settings

HAS_SDK = find_spec("any_llm") is not None


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Without taking over this process's logging."""
    monkeypatch.setattr(cli, "set_up_logging", lambda: None)


@pytest.fixture
def sdk_is_there(monkeypatch):
    if not HAS_SDK:
        module = ModuleType("any_llm")
        module.__spec__ = ModuleSpec("any_llm", None)
        monkeypatch.setitem(sys.modules, "any_llm", module)


@pytest.fixture
def write(tmp_path: Path):
    def written(**members: str) -> Path:
        path = tmp_path / "gateway.yml"
        lines = ["providers:", "  far:", "    type: any-llm", "    api_key: sk-swordfish"]
        lines += [f"    {name}: {value}" for name, value in members.items()]
        path.write_text("\n".join([*lines, "store: {url: 'memory:'}", "log_writer_strategy: noop", ""]))
        return path

    return written


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {})
    return str(caught.value)


def checked(path: Path, capsys) -> tuple[int, str]:
    status = cli.main(["check", "--config", str(path)])
    return status, capsys.readouterr().err.strip()


def test_without_the_extra_the_configuration_says_what_to_install(write, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "any_llm", None)

    status, said = checked(write(provider="bedrock"), capsys)

    assert status == 2
    assert said.endswith(
        "gateway.yml:3: providers.far.type: needs a package that is not installed; "
        "pip install 'tallygate[any-llm]'"
    )


def test_it_names_the_sdks_provider_and_needs_no_address(sdk_is_there, write) -> None:
    entry = load_settings(write(provider="bedrock"), {}).providers["far"]

    assert (entry.provider, entry.base_url) == ("bedrock", None)


def test_it_may_have_an_address(sdk_is_there, write) -> None:
    path = write(provider="llamacpp", base_url="http://127.0.0.1:1/v1")

    assert load_settings(path, {}).providers["far"].base_url == "http://127.0.0.1:1/v1"


def test_an_entry_that_names_none_of_the_sdks_providers_is_refused(sdk_is_there, write) -> None:
    assert "providers.far: names no provider of the SDK; add its name, such as" in refusal(write())


@pytest.mark.parametrize("name", ["'../x'", "Bedrock", "''"])
def test_what_can_be_no_name_of_the_sdks_is_refused(sdk_is_there, write, name) -> None:
    assert "providers.far.provider: " in refusal(write(provider=name))


def test_other_types_have_no_provider_of_the_sdks(tmp_path) -> None:
    path = tmp_path / "gateway.yml"
    path.write_text("providers: {a: {type: anthropic, provider: bedrock, api_key: x}}")

    assert "providers.a: has a provider of the SDK; write type: any-llm, or remove provider" in refusal(path)


@pytest.mark.parametrize("entry", ["{type: openai, api_key: x}", "{type: openai, api_key: x, base_url: }"])
def test_other_types_need_an_address(tmp_path, entry) -> None:
    path = tmp_path / "gateway.yml"
    path.write_text(f"providers: {{a: {entry}}}")

    assert "providers.a" in (said := refusal(path)) and "base_url" in said


@pytest.mark.skipif(not HAS_SDK, reason="needs the any-llm SDK")
@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"provider": "nobody"}, "providers.far.provider: is no provider of the any-llm SDK; "),
        (
            {"provider": "cohere"},
            "providers.far.provider: needs packages that are not installed; "
            "pip install 'any-llm-sdk[cohere]'",
        ),
        (
            {"provider": "openai", "api_key": "none"},
            "providers.far.api_key: is none, and the SDK finds no key; give one, or set OPENAI_API_KEY",
        ),
    ],
)
def test_what_the_sdk_cannot_open_is_an_error_of_the_configuration(
    write, monkeypatch, capsys, members, said
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = write(**members)
    path.write_text(path.read_text().replace("    api_key: sk-swordfish\n", "", "api_key" in members))

    status, told = checked(path, capsys)

    assert status == 2
    assert told.startswith(said) and "swordfish" not in told


@pytest.mark.skipif(not HAS_SDK, reason="needs the any-llm SDK")
def test_what_the_sdk_can_open_is_shown_without_its_key(write, capsys) -> None:
    assert cli.main(["check", "--config", str(write(provider="llamacpp"))]) == 0

    shown = capsys.readouterr().out
    assert "provider: llamacpp" in shown and "swordfish" not in shown
