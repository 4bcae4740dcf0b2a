"""Variables: which key they set, what they beat, and which of them are only worth a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import ConfigurationError, load_settings

KEY = {"GATEWAY_MASTER_KEY": "tg-master"}


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> Path:
        path = tmp_path / "gateway.yml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_the_environment_beats_the_file_and_the_file_the_default(write) -> None:
    path = write("port: 1\nhost: a\nbatching: {max_rows: 5, linger_s: 1}")
    environ = KEY | {"GATEWAY_PORT": "2", "GATEWAY_BATCHING__MAX_ROWS": "6"}

    settings = load_settings(path, environ)

    assert (settings.port, settings.host) == (2, "a")
    assert (settings.batching.max_rows, settings.batching.linger_s) == (6, 1)


def test_the_configuration_file_may_be_named_by_a_variable(write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("port: 1")

    assert load_settings(None, KEY | {"GATEWAY_CONFIG": str(path)}).port == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("gateway_port", "9", lambda settings: settings.port == 9),
        ("Gateway_Batching__Linger_S", "1.5", lambda settings: settings.batching.linger_s == 1.5),
        ("GATEWAY_ESTIMATE_COST", "true", lambda settings: settings.estimate_cost is True),
        ("GATEWAY_BATCHING__ON_FULL", "shed", lambda settings: settings.batching.on_full == "shed"),
        ("GATEWAY_STORE__URL", "memory:", lambda settings: settings.store.cache_s == 5),
        ("GATEWAY_STORE__CACHE_S", "0", lambda settings: settings.store.cache_s == 0),
        ("GATEWAY_HOST", "0", lambda settings: settings.host == "0"),
        ("GATEWAY_MASTER_KEY", "0123", lambda settings: settings.master_key.get_secret_value() == "0123"),
        ("GATEWAY_SINKS__SQLITE__PATH", "off", lambda settings: settings.sinks["sqlite"]["path"] == "off"),
        ("GATEWAY_SINKS__SQLITE__BUSY_TIMEOUT_S", "2", lambda s: s.sinks["sqlite"]["busy_timeout_s"] == 2),
    ],
)
def test_a_variable_is_read_as_its_key_asks(name: str, text: str, read) -> None:
    assert read(load_settings(None, KEY | {name: text}))


def test_a_provider_may_stand_in_the_environment_alone(write) -> None:
    environ = KEY | {
        "GATEWAY_PROVIDERS__LOCAL__TYPE": "openai",
        "GATEWAY_PROVIDERS__LOCAL__BASE_URL": "http://127.0.0.1:1/v1",
        "GATEWAY_PROVIDERS__LOCAL__API_KEY": "12345",
    }

    assert load_settings(None, environ).providers["local"].api_key.get_secret_value() == "12345"


def test_names_that_a_file_spells_freely_are_found_again(write) -> None:
    path = write("""
providers: {My-vLLM: {type: openai, base_url: "http://a/v1", api_key: none}}
pricing: {"My-vLLM:llama-3.1": {input_per_million: 1, output_per_million: 1}}
""")
    environ = KEY | {
        "GATEWAY_PROVIDERS__MY_VLLM__TIMEOUT_S": "7",
        "GATEWAY_PRICING__MY_VLLM_LLAMA_3_1__INPUT_PER_MILLION": "0.1",
    }

    settings = load_settings(path, environ)

    assert settings.providers["My-vLLM"].timeout_s == 7
    assert str(settings.pricing["My-vLLM:llama-3.1"].input_per_million) == "0.1"


@pytest.mark.parametrize(
    ("file", "environ", "strategy"),
    [
        ("noop", {"LOG_WRITER_STRATEGY": "memory"}, "batch:memory"),
        ("noop", {"GATEWAY_LOG_WRITER_STRATEGY": "memory"}, "batch:memory"),
        ("noop", {"GATEWAY_LOG_WRITER_STRATEGY": "memory", "LOG_WRITER_STRATEGY": "sqlite"}, "batch:memory"),
        ("batch:memory", {"LOG_WRITER_STRATEGY": "single"}, "single:memory"),
        ("single:memory", {"LOG_WRITER_STRATEGY": "batch"}, "batch:memory"),
        ("noop", {"LOG_WRITER_STRATEGY": "single"}, "single:sqlite"),
        ("memory", {"LOG_WRITER_STRATEGY": "sqlite"}, "batch:sqlite"),
    ],
)
def test_the_strategy_of_the_environment(write, file: str, environ: dict[str, str], strategy: str) -> None:
    settings = load_settings(write(f"LOG_WRITER_STRATEGY: {file}"), KEY | environ)

    assert str(settings.log_writer_strategy) == strategy


@pytest.mark.parametrize(
    "name",
    [
        "GATEWAY_PROT",
        "GATEWAY_BATCHING__NOPE",
        "GATEWAY_STORE__NOPE",
        "GATEWAY_SINKS__NOPE__DSN",
        "GATEWAY_",
        "GATEWAY_PORT__X",
    ],
)
def test_an_unknown_variable_is_one_warning(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert load_settings(None, KEY | {name: "s3cret", "OTHER": "x"})

    assert [record.variable for record in caplog.records] == [name]
    assert "s3cret" not in str([vars(record) for record in caplog.records])


def test_a_port_injected_by_kubernetes_is_ignored_with_advice(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(None, KEY | {"GATEWAY_PORT": "tcp://10.0.0.1:80"})

    assert settings.port == 8000
    [record] = caplog.records
    assert record.variable == "GATEWAY_PORT"
    assert "enableServiceLinks: false" in record.hint


@pytest.mark.parametrize(
    ("environ", "starts"),
    [
        ({"GATEWAY_PORT": "x"}, "GATEWAY_PORT: port: is not a whole number;"),
        ({"GATEWAY_PORT": "{"}, "GATEWAY_PORT: port: is not a whole number;"),
        ({"GATEWAY_PORT": "true"}, "GATEWAY_PORT: port: is true or false;"),
        ({"GATEWAY_PORT": ""}, "GATEWAY_PORT: port: is set but empty;"),
        ({"GATEWAY_MASTER_KEY": ""}, "GATEWAY_MASTER_KEY: master_key: is set but empty;"),
        ({"GATEWAY_MASTER_KEY": "two words"}, "GATEWAY_MASTER_KEY: master_key: cannot be sent in a header;"),
        ({"GATEWAY_BATCHING": "{}"}, "GATEWAY_BATCHING: batching: is a section;"),
        (
            {"GATEWAY_BATCHING__LINGER_S": ".inf"},
            "GATEWAY_BATCHING__LINGER_S: batching.linger_s: is not a fin",
        ),
        ({"GATEWAY_SHUTDOWN__DRAIN_S": "60"}, "GATEWAY_SHUTDOWN__DRAIN_S: shutdown: takes 76 s,"),
        ({"LOG_WRITER_STRATEGY": ""}, "LOG_WRITER_STRATEGY: log_writer_strategy: is no log writer strategy;"),
        ({"LOG_WRITER_STRATEGY": "nope"}, "LOG_WRITER_STRATEGY: log_writer_strategy: no sink is called"),
        ({"GATEWAY_STORE__URL": "redis://x"}, "GATEWAY_STORE__URL: store.url: is no store's URL;"),
        ({"BUDGET_STRATEGY": "redis"}, "BUDGET_STRATEGY: budget_strategy: is not one of the choices;"),
        (
            {"GATEWAY_PROVIDERS__A__TYPE": "openai"},
            "GATEWAY_PROVIDERS__A__TYPE: providers.a.base_url: is missing;",
        ),
        ({"GATEWAY_PORT": "1", "gateway_port": "2"}, "gateway_port: port: is set by GATEWAY_PORT too;"),
        ({"GATEWAY_CONFIG": "/no/such/file"}, "/no/such/file: cannot be read (No such file or directory);"),
    ],
)
def test_a_bad_variable_is_named(environ: dict[str, str], starts: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, KEY | environ)

    assert str(caught.value).startswith(starts)
    assert "\n" not in str(caught.value)


def test_an_option_of_the_command_line_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^--port: port: is too large; give at most 65535$"):
        load_settings(None, KEY, {"port": 99999})


def test_a_missing_key_says_how_to_set_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {"GATEWAY_PROVIDERS__A__TYPE": "openai"})

    assert str(caught.value).endswith("is missing; add it, or set GATEWAY_PROVIDERS__A__BASE_URL")
