"""What the configuration may say, and what it means."""

from __future__ import annotations

import sys
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from backends import SinkOptions, Strategy, sinks
from gateway.config_errors import Origins
from gateway.config_schema import straighten
from gateway.effective import masked
from gateway.settings import ConfigurationError, Settings, effective_settings, load_settings, sink_options

CONFIG = Path(__file__).parent.parent.parent / "config"
KEY = {"GATEWAY_MASTER_KEY": "tg-master"}

CONTRACT_EXAMPLE = """
host: 127.0.0.1
port: 8000
workers: 1
master_key: "${GATEWAY_MASTER_KEY}"
log_writer_strategy: batch:postgres
budget_strategy: disabled                  # disabled | for_update | cas
sinks:
  sqlite:     {path: ./data/usage.db}
  postgres:   {dsn: "postgresql://localhost/gateway", table: usage_logs}
  mongo:      {uri: "mongodb://localhost", database: gateway, collection: usage_logs, driver: motor}   # or driver: pymongo
  clickhouse: {url: "http://localhost:8123", database: default, table: usage_logs}
store: {url: "sqlite:///./data/gateway.db"}   # keys, users, budgets, prices: sqlite:, postgresql: or mongodb:
batching: {max_rows: 1000, max_bytes: 8388608, linger_s: 0.2, max_queue_rows: 20000, max_queue_bytes: 67108864, flush_concurrency: 2,
           attempt_timeout_s: 10, batch_deadline_s: 120, on_full: spill, max_block_s: 0.25}
spool: {mode: spill, path: ./data/spool, sync: normal, max_bytes: 1073741824}   # mode: off | spill | write_ahead; sync: normal | full
streams: {after_disconnect_s: 30, max_pumps: 200, keepalive_s: 15}
shutdown: {grace_s: 30, readiness_delay_s: 0, drain_s: 12, pump_s: 3, stop_deadline_s: 10, cancel_grace_s: 1}
providers:
  openai:    {type: openai, base_url: "https://api.openai.com/v1", api_key: "${OPENAI_API_KEY}", timeout_s: 600}
  anthropic: {type: anthropic, api_key: "${ANTHROPIC_API_KEY}"}
  local:     {type: openai, base_url: "http://127.0.0.1:9999/v1", api_key: none}
models:                                    # names clients may use beside provider:model and provider/model
  fast: {targets: [{model: "openai:gpt-4o-mini", weight: 3}, {model: "local:fake", weight: 1}], fallbacks: ["anthropic:claude-haiku"], retries: 2}
pricing:
  openai:gpt-4o-mini: {input_per_million: 0.15, output_per_million: 0.60, cached_input_per_million: 0.075}
"""  # noqa: E501
DRIVERS = {"postgres": "asyncpg", "mongo": "motor", "clickhouse": "clickhouse_connect"}

PROVIDER_KEYS = {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2"}


class StubOptions(SinkOptions):
    password: SecretStr = SecretStr("")
    url: str = ""
    mode: Literal["off", "spill"] = "spill"


class StubSink:
    Options = StubOptions
    batching_defaults = {"max_rows": 10_000, "linger_s": 1.0}


@pytest.fixture
def stub_sink(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sinks, "_registered", {})
    monkeypatch.setitem(sys.modules, "settings_stub", sys.modules[__name__])
    sinks.register("stub-sink", "settings_stub:StubSink")
    return "stub-sink"


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> Path:
        path = tmp_path / "gateway.yml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_nothing_is_needed() -> None:
    settings = load_settings(None, {})

    assert settings.master_key is None
    assert settings.store.url.get_secret_value() == "sqlite:///./data/gateway.db"
    assert (settings.store.cache_s, settings.store.timeout_s, settings.store.max_connections) == (5, 2, 10)
    assert settings.cors_allow_origins == []


def test_what_is_not_given_has_its_default() -> None:
    settings = load_settings(None, KEY)

    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.log_writer_strategy == Strategy("batch", "sqlite")
    assert settings.budget_strategy == "disabled"
    assert settings.master_key.get_secret_value() == "tg-master"


def test_the_example_of_the_contract_parses(write) -> None:
    example = yaml.safe_load(CONTRACT_EXAMPLE) | {"log_writer_strategy": "batch:sqlite"}

    settings = load_settings(write(yaml.safe_dump(example)), KEY | PROVIDER_KEYS)

    defaults = load_settings(None, KEY)
    for key in ("host", "port", "workers", "streams", "shutdown", "budget_strategy"):
        assert getattr(settings, key) == getattr(defaults, key), key
    assert settings.batching.flush_concurrency == 2  # written, where sqlite's own default is 1
    assert settings.batching.model_copy(update={"flush_concurrency": 1}) == defaults.batching
    assert settings.providers["openai"].api_key.get_secret_value() == "sk-1"
    assert [target.weight for target in settings.models["fast"].targets] == [3, 1]


def test_anthropic_is_where_it_is_unless_the_file_says_otherwise(write) -> None:
    text = "providers: {a: {type: anthropic, api_key: x}, b: {type: anthropic, api_key: x, base_url: 'http://b'}}"

    providers = load_settings(write(text), KEY).providers

    assert [providers[name].base_url for name in "ab"] == ["https://api.anthropic.com", "http://b"]


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yml")), ids=lambda path: path.name)
def test_every_file_in_config_parses_or_says_what_to_install(path: Path) -> None:
    environ = KEY | {"OPENAI_API_KEY": "sk-1"}
    if (driver := DRIVERS.get(path.stem)) and find_spec(driver) is None:
        with pytest.raises(ConfigurationError, match=rf"pip install 'tallygate\[{path.stem}\]'"):
            load_settings(path, environ)
        return

    settings = load_settings(path, environ)

    assert sink_options(settings)
    assert settings.providers and settings.pricing


@pytest.mark.parametrize("sink", ["sqlite", *DRIVERS])
def test_each_commented_file_says_every_key_with_its_default(sink: str) -> None:
    if (driver := DRIVERS.get(sink)) and find_spec(driver) is None:
        pytest.skip(f"{driver} is not installed")
    path = CONFIG / f"{sink}.yml"
    written = yaml.safe_load(path.read_text())
    settings = load_settings(path, KEY | PROVIDER_KEYS)
    defaults = load_settings(None, KEY | {"LOG_WRITER_STRATEGY": f"batch:{sink}"})

    assert set(written) == set(Settings.model_fields)
    for section in ("batching", "spool", "dead_letters", "streams", "shutdown", "cooldown"):
        assert set(written[section]) == set(type(getattr(settings, section)).model_fields)
    assert set(written["sinks"][sink]) == set(type(sink_options(settings)).model_fields)
    for key in set(written) - {"sinks", "providers", "models", "pricing"}:
        assert getattr(settings, key) == getattr(defaults, key), key
    assert sink_options(settings) == sink_options(defaults)


@pytest.mark.parametrize("strategy", ["disabled", "for_update", "cas"])
def test_a_budget_strategy_is_taken_if_the_store_offers_it(write, strategy: str) -> None:
    settings = load_settings(write(f"budget_strategy: {strategy}\nstore: {{url: 'memory:'}}"), KEY)

    assert settings.budget_strategy == strategy


@pytest.mark.parametrize(
    ("origins", "given"),
    [("['*']", ["*"]), ("[http://localhost:3000, 'https://a.b-c.example']", None), ("", []), ("[]", [])],
)
def test_origins_of_pages_are_a_list(write, origins: str, given: list[str] | None) -> None:
    settings = load_settings(write(f"cors_allow_origins: {origins or '[]'}"), KEY)

    assert settings.cors_allow_origins == (yaml.safe_load(origins) if given is None else given)


def test_the_effective_settings_show_the_store_without_its_password(write) -> None:
    store = "store: {url: 'sqlite:////data/x.db', cache_s: 1}"
    hidden = masked("postgresql://app:s3cret@db.example/gateway?sslpassword=s3cret")

    assert effective_settings(load_settings(write(store), KEY))["store"] == {
        "url": "sqlite:////data/x.db",
        "timeout_s": 2.0,
        "max_connections": 10,
        "migrate": True,
        "cache_s": 1,
    }
    assert "s3cret" not in hidden and "app:" in hidden and "@db.example/gateway" in hidden


@pytest.mark.parametrize("password", ["s3 s3cret", "s3;s3cret", "'s3' s3cret", "s3\ns3cret"])
def test_a_password_among_the_parameters_of_a_url_is_masked_whatever_it_holds(password: str) -> None:
    hidden = masked(f"postgresql://db.example/gateway?password={password}&application_name=x")

    assert "s3" not in hidden and hidden.endswith("&application_name=x")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:s3 s3cret@db.example/gateway",
        "postgresql://app:s3\ns3cret@db.example/gateway",
        "postgresql:app:s3cret@db.example/gateway",
        "app:s3cret@db.example/gateway",
        "mongodb://app:s3@s3cret @db.example,db2.example/gateway",
    ],
)
def test_a_password_is_masked_however_its_url_is_written(url: str) -> None:
    assert "s3" not in masked(url)
    assert masked(url).endswith("/gateway")


def test_the_quickstart_works_without_any_variable() -> None:
    settings = load_settings(CONFIG / "quickstart.yml", {})

    assert settings.host == "127.0.0.1"
    assert settings.providers["local"].base_url == "http://127.0.0.1:9999/v1"
    assert settings.pricing["local:fake"].output_per_million == Decimal("0.60")


def test_prices_are_exact(write) -> None:
    text = 'pricing: {"local:llama3:8b": {input_per_million: 0.15, output_per_million: "0.000000001"}}'

    price = load_settings(write(text), KEY).pricing["local:llama3:8b"]

    assert (price.input_per_million, price.output_per_million) == (Decimal("0.15"), Decimal("0.000000001"))
    assert price.cached_input_per_million is None


def test_a_price_without_its_provider_is_a_warning(write, caplog: pytest.LogCaptureFixture) -> None:
    load_settings(write('pricing: {"opneai:gpt": {input_per_million: 1, output_per_million: 2}}'), KEY)

    assert [record.key for record in caplog.records] == ["pricing.opneai:gpt"]


@pytest.mark.parametrize(
    ("written", "strategy"),
    [
        ("postgres-like", "stub-sink"),
        ("batch", "batch:sqlite"),
        ("single", "single:sqlite"),
        ("memory", "batch:memory"),
        ("single:memory", "single:memory"),
        ("noop", "noop"),
    ],
)
def test_the_strategy_of_the_file_follows_the_grammar(
    write, stub_sink: str, written: str, strategy: str
) -> None:
    written = stub_sink if written == "postgres-like" else written
    strategy = f"batch:{stub_sink}" if strategy == stub_sink else strategy

    settings = load_settings(write(f"log_writer_strategy: {written}"), KEY)

    assert str(settings.log_writer_strategy) == strategy


@pytest.mark.parametrize("key", ["LOG_WRITER_STRATEGY", "log_writer_strategy"])
def test_a_switch_may_be_written_in_either_case(write, key: str) -> None:
    assert load_settings(write(f"{key}: noop"), KEY).log_writer_strategy.kind == "noop"
    assert load_settings(write("BUDGET_STRATEGY: disabled"), KEY).budget_strategy == "disabled"


def test_noop_has_no_sink_options(write) -> None:
    with pytest.raises(LookupError):
        sink_options(load_settings(write("log_writer_strategy: noop"), KEY))


def test_the_chosen_sink_brings_its_own_options_and_batching_defaults(write, stub_sink: str) -> None:
    text = (
        f"log_writer_strategy: {stub_sink}\nsinks: {{stub-sink: {{mode: off}}}}\nbatching: {{linger_s: 0.5}}"
    )

    settings = load_settings(write(text), KEY)

    assert sink_options(settings) == StubOptions(mode="off")
    assert (settings.batching.max_rows, settings.batching.linger_s) == (10_000, 0.5)


def test_a_sink_that_is_not_chosen_is_neither_checked_nor_imported(write, monkeypatch) -> None:
    monkeypatch.setattr(sinks, "_registered", {})
    sinks.register("elsewhere", "no_such_module_anywhere:Sink")

    settings = load_settings(write("sinks: {elsewhere: {dsn: 'x', anything: [1, 2]}}"), KEY)

    assert settings.log_writer_strategy.sink == "sqlite"


def test_an_unquoted_off_means_off_where_a_word_is_asked_for() -> None:
    class Spool(BaseModel):
        mode: Literal["off", "spill"] = "spill"
        is_synced: bool = True

    written = yaml.safe_load("{mode: off, is_synced: off}")

    assert straighten(written, Spool, (), Origins()) == {"mode": "off", "is_synced": False}


def test_an_empty_section_has_the_defaults(write) -> None:
    settings = load_settings(write("sinks:\nbatching:\nproviders:\npricing:\n"), KEY)

    assert settings == load_settings(None, KEY)


def test_variables_are_replaced_in_values_and_never_become_structure(write) -> None:
    text = 'host: "${HOST}"\nport: "${PORT:-9000}"\nsinks: {sqlite: {path: "${FOLDER:-./data}/x.db"}}'

    settings = load_settings(write(text), KEY | {"HOST": "{a: ${PORT}} # b", "FOLDER": ""})

    assert settings.host == "{a: ${PORT}} # b"
    assert settings.port == 9000
    assert str(settings.sinks["sqlite"]["path"]) == "./data/x.db"


def test_a_base_url_loses_its_last_slash(write) -> None:
    text = "providers: {local: {type: openai, base_url: 'http://[::1]:9/v1/', api_key: none}}"

    assert load_settings(write(text), KEY).providers["local"].base_url == "http://[::1]:9/v1"


def test_shutdown_times_may_fill_the_grace_to_the_last_tenth(write) -> None:
    text = "shutdown: {grace_s: 2.3, drain_s: 0.1, pump_s: 0.2, stop_deadline_s: 0, cancel_grace_s: 0}"

    assert load_settings(write(text), KEY).shutdown.grace_s == 2.3


def test_the_command_line_beats_environment_and_file(write) -> None:
    environ = KEY | {"GATEWAY_PORT": "2", "GATEWAY_HOST": "0.0.0.0"}

    settings = load_settings(write("port: 1"), environ, {"port": 3})

    assert (settings.port, settings.host) == (3, "0.0.0.0")


def test_effective_settings_can_be_written_as_yaml_and_read_again(write, stub_sink: str) -> None:
    first = load_settings(CONFIG / "sqlite.yml", KEY | PROVIDER_KEYS)

    text = yaml.safe_dump(effective_settings(first), sort_keys=False)
    again = load_settings(write(text), {})

    assert list(yaml.safe_load(text)) == list(Settings.model_fields)
    assert again.pricing == first.pricing
    assert (again.batching, again.shutdown, again.streams) == (first.batching, first.shutdown, first.streams)
    assert sink_options(again) == sink_options(first)


def test_no_secret_shows_in_any_rendering(write, stub_sink: str) -> None:
    text = f"""
log_writer_strategy: {stub_sink}
sinks: {{stub-sink: {{password: s3cret-a, url: "db://app:s3cret-b@host/x?sslpassword=s3cret-c&a=1"}}}}
providers: {{local: {{type: openai, base_url: "http://127.0.0.1/v1", api_key: s3cret-d}}}}
"""
    settings = load_settings(write(text), {"GATEWAY_MASTER_KEY": "s3cret-e"})

    shown = yaml.safe_dump(effective_settings(settings))

    assert "s3cret" not in repr(settings) + str(settings) + shown
    assert "app:" in shown and "@host/x" in shown and "a=1" in shown
