"""A bad configuration file is one line: file and line, key, what is wrong, what would be right."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import field_validator, model_validator

from backends import SinkOptions, StoreDriverMissing, sinks
from gateway import settings
from gateway.settings import ConfigurationError, load_settings

SECRET = "s3cret-value"
KEY = {"GATEWAY_MASTER_KEY": SECRET, "SECRET": SECRET}
PROVIDER = "providers:\n  a: {type: openai, base_url: 'http://x/v1', api_key: none"


def provider(base_url: str) -> str:
    return f"providers: {{a: {{type: openai, api_key: none, base_url: '{base_url}'}}}}"


def price(value: str, name: str = "a:b") -> str:
    return f"pricing: {{'{name}': {{input_per_million: {value}, output_per_million: 1}}}}"


BAD = [
    ("prot: 1", 1, "prot", "did you mean port?"),
    (f"host: a\nstore: {{url: 'redis://u:{SECRET}@x'}}", 2, "store.url", "it begins with sqlite:"),
    (f"store: {{url: {SECRET}}}", 1, "store.url", "is no store's URL"),
    ("store: {urls: x}", 1, "store.urls", "did you mean url?"),
    ("store: {cache_s: -1}", 1, "store.cache_s", "give at least 0"),
    ("store: {timeout_s: 0}", 1, "store.timeout_s", "give more than 0"),
    ("store: {max_connections: 0}", 1, "store.max_connections", "give at least 1"),
    ("store: {url: 5}", 1, "store.url", "in quotes"),
    ("workers: 2\nstore: {url: 'memory:'}", 2, "store.url", "name a database"),
    ("cors_allow_origins: [ours.net]", 1, "cors_allow_origins.0", "write one such as https://app.example"),
    ("cors_allow_origins: ['https://a.example/']", 1, "cors_allow_origins.0", "is no origin"),
    ("cors_allow_origins: '*'", 1, "cors_allow_origins", "is not a list; write [ONE, OTHER]"),
    ("spool: {mode: on}", 1, "spool.mode", "give 'off', 'spill' or 'write_ahead'"),
    ("spool: {path: .}", 1, "spool.path", "names no folder of its own"),
    ("spool: {path: /}", 1, "spool.path", "names no folder of its own"),
    ("spool: {path: ..}", 1, "spool.path", "names no folder of its own"),
    ("guardrails: {}", 1, "guardrails", "not a known key"),
    (
        "streams:\n  max_pumps: 1\n  heartbeat_s: 15",
        3,
        "streams.heartbeat_s",
        "known here: after_disconnect_s",
    ),
    ("batching: {max_row: 1}", 1, "batching.max_row", "did you mean max_rows?"),
    ("batching: {on_full: none}", 1, "batching.on_full", "give 'block', 'spill', 'shed' or 'reject'"),
    ("batching: {on_full: off}", 1, "batching.on_full", "give 'block', 'spill', 'shed' or 'reject'"),
    ("batching: {max_rows: yes}", 1, "batching.max_rows", "give a number"),
    ("batching: {max_rows: 0}", 1, "batching.max_rows", "give at least 1"),
    ("batching: {max_rows: 1.5}", 1, "batching.max_rows", "give a whole number"),
    ("batching: {linger_s: .inf}", 1, "batching.linger_s", "give a finite number"),
    ("batching: {max_block_s: .nan}", 1, "batching.max_block_s", "give a finite number"),
    ("batching: 5", 1, "batching", "write its keys below it"),
    ("batching: [1]", 1, "batching", "write its keys below it"),
    ("providers: {a: 1}", 1, "providers.a", "write its keys below it"),
    ("sinks: 5", 1, "sinks", "write its keys below it"),
    ("sinks: {sqlite: 5}", 1, "sinks.sqlite", "write its keys below it"),
    ("sinks: {sqlight: {}}", 1, "sinks.sqlight", "did you mean sqlite?"),
    ("sinks: {sqlite: {pth: x}}", 1, "sinks.sqlite.pth", "did you mean path?"),
    ("sinks: {sqlite: {path: [1]}}", 1, "sinks.sqlite.path", "put the path in quotes"),
    ("sinks: {sqlite: {path: ':memory:'}}", 1, "sinks.sqlite.path", "must be the path of a file"),
    ("host: 5", 1, "host", "put the value in quotes"),
    ("host: ''", 1, "host", "give at least 1 character"),
    ("host:", 1, "host", "is empty; give it a value"),
    ("port: x", 1, "port", "give a whole number"),
    ("port: 65536", 1, "port", "give at most 65535"),
    ("port: -1", 1, "port", "give at least 0"),
    ("workers: 65", 1, "workers", "give at most 64"),
    ("estimate_cost: maybe", 1, "estimate_cost", "give true or false"),
    ("log_writer_strategy: nope", 1, "log_writer_strategy", "there are: "),
    ("log_writer_strategy: 'batch:'", 1, "log_writer_strategy", "write [batch:|single:]SINK"),
    ("log_writer_strategy: off", 1, "log_writer_strategy", "write [batch:|single:]SINK"),
    ("log_writer_strategy: [memory]", 1, "log_writer_strategy", "write [batch:|single:]SINK"),
    ("port: 1\nLOG_WRITER_STRATEGY: nope", 2, "log_writer_strategy", "there are: "),
    ("log_writer_strategy: noop\nLOG_WRITER_STRATEGY: noop", 2, "LOG_WRITER_STRATEGY", "keep one of the two"),
    ("budget_strategy: redis", 1, "budget_strategy", "give 'disabled', 'for_update' or 'cas'"),
    ("budget_strategy: disabled\nBUDGET_STRATEGY: disabled", 2, "BUDGET_STRATEGY", "keep one of the two"),
    (
        "shutdown: {grace_s: 20}",
        1,
        "shutdown",
        "takes 28 s, 2 s for closing included, and grace_s is 20; raise",
    ),
    ("shutdown: {drain_s: -1}", 1, "shutdown.drain_s", "give at least 0"),
    ("dead_letters: {max_bytes: 0}", 1, "dead_letters.max_bytes", "give at least 1"),
    (f"{PROVIDER}, timeout_s: 0}}", 2, "providers.a.timeout_s", "give more than 0"),
    (f"{PROVIDER}, retries: 1}}", 2, "providers.a.retries", "known here: type, provider, base_url"),
    (f"{PROVIDER}, api_key: x}}", 2, "providers.a.api_key", "is written twice; keep one"),
    (
        "providers: {a: {type: nobodys, base_url: 'http://x', api_key: x}}",
        1,
        "providers.a.type",
        "give 'openai', 'anthropic' or 'any-llm'",
    ),
    (
        "providers: {a: {type: openai, api_key: none}}",
        1,
        "providers.a.base_url",
        "GATEWAY_PROVIDERS__A__BASE_URL",
    ),
    ("providers: {a: {type: openai, base_url: 'http://x'}}", 1, "providers.a.api_key", "is missing"),
    (
        "providers: {a: {type: openai, base_url: 'http://x', api_key: 5}}",
        1,
        "providers.a.api_key",
        "in quotes",
    ),
    (
        "providers: {a: {type: openai, base_url: 'http://x', api_key: ''}}",
        1,
        "providers.a.api_key",
        "give the key",
    ),
    ("providers: {'a:b': {}}", 1, "providers.a:b", "cannot name a provider"),
    (provider("ftp://x/v1"), 1, "providers.a.base_url", "write one such as https://api.openai.com/v1"),
    (provider("api.openai.com/v1"), 1, "providers.a.base_url", "is no http or https URL"),
    (provider("http://"), 1, "providers.a.base_url", "is no http or https URL"),
    (provider("http://x:99999/v1"), 1, "providers.a.base_url", "is no URL"),
    (provider("http://[x/v1"), 1, "providers.a.base_url", "is no URL"),
    (provider("http://x y/v1"), 1, "providers.a.base_url", "is no http or https URL"),
    (provider(f"http://u:{SECRET}@x/v1"), 1, "providers.a.base_url", "put the key into api_key"),
    (provider(f"http://x/v1?key={SECRET}"), 1, "providers.a.base_url", "leave out what begins with ? or #"),
    (price("-1"), 1, "pricing.a:b.input_per_million", "give at least 0"),
    (price("free"), 1, "pricing.a:b.input_per_million", "give a number such as 0.15"),
    (price(".nan"), 1, "pricing.a:b.input_per_million", "give a finite number"),
    (price("1_000_001"), 1, "pricing.a:b.input_per_million", "give at most 1000000"),
    (price("'1e-31'"), 1, "pricing.a:b", "is no price; use 0 to 1000000 USD"),
    (price("true"), 1, "pricing.a:b.input_per_million", "give a number"),
    (price("1, cache: 2"), 1, "pricing.a:b.cache", "known here: input_per_million"),
    (price("1", name="gpt-4o"), 1, "pricing.gpt-4o", "write provider:model"),
    ("pricing: {'a:b': {input_per_million: 1}}", 1, "pricing.a:b.output_per_million", "is missing"),
    ("host: a\nport: 1\nhost: b", 3, "host", "is written twice"),
    ("batching:\n  max_rows: 1\n  max_rows: 1", 3, "batching.max_rows", "is written twice"),
    ("providers:\n  1: {}", 2, "providers", "put the key in quotes"),
    ("providers:\n  off: {}", 2, "providers", "put the key in quotes"),
    ('host: "${NOT_SET}"', 1, "host", "needs the variable NOT_SET, which is not set; set NOT_SET"),
    ('sinks: {sqlite: {path: "a/${NOT_SET}"}}', 1, "sinks.sqlite.path", "needs the variable NOT_SET"),
    ('host: "${NOT-A-NAME}"', 1, "host", "write ${NAME} or ${NAME:-default}"),
    ('host: "${A:-${B}}"', 1, "host", "write ${NAME} or ${NAME:-default}"),
    (f'port: "${{SECRET}}"\nhost: {SECRET}', 1, "port", "give a whole number"),
    (
        f"log_writer_strategy: 'postgres://u:{SECRET}@x/db'",
        1,
        "log_writer_strategy",
        "write [batch:|single:]",
    ),
    (f"budget_strategy: {SECRET}", 1, "budget_strategy", "give 'disabled'"),
    (f"master_key: '{SECRET} '", 1, "master_key", "use visible ASCII"),
]
BAD_AS_A_WHOLE = [
    ("a: [1", "is not valid YAML"),
    ("a: b: c", "is not valid YAML"),
    (f"host: *{SECRET}", "is not valid YAML"),
    (f"host: !{SECRET} x", "is not valid YAML"),
    (f"host: '{SECRET}", "is not valid YAML"),
    ("host: a\x07", "is not valid YAML"),
    ("host: a\n---\nhost: b", "is not valid YAML"),
    ("- host", "write lines of the form key: value"),
    ("host", "write lines of the form key: value"),
    ("a: &a [*a]", "write it flatter"),
    ("host: 2024-13-45", "put it in quotes"),
]


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> Path:
        path = tmp_path / "gateway.yml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def refusal(path: Path, environ: dict[str, str] = KEY) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environ)
    printed = "".join(traceback.format_exception(caught.value))
    assert SECRET not in printed
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "key", "says"), BAD, ids=[f"{key}-{text[:30]}" for text, _, key, _ in BAD]
)
def test_a_bad_file_is_one_line_with_file_key_and_remedy(
    write, text: str, line: int, key: str, says: str
) -> None:
    path = write(text)

    error = str(refusal(path, KEY if not text.startswith("master_key") else {}))

    assert error.startswith(f"{path}:{line}: {key}: ")
    assert says in error


@pytest.mark.parametrize(("text", "says"), BAD_AS_A_WHOLE, ids=[text for text, _ in BAD_AS_A_WHOLE])
def test_a_file_that_is_no_configuration_at_all_is_one_line(write, text: str, says: str) -> None:
    path = write(text)

    error = str(refusal(path))

    assert error.startswith(str(path))
    assert says in error


def test_a_misspelt_key_comes_before_the_missing_key_that_it_left_behind(write) -> None:
    error = str(refusal(write("providers: {a: {type: openai, base_url: 'http://x', api_kee: x}}")))

    assert "providers.a.api_kee: is not a known key; did you mean api_key?" in error


def test_a_budget_strategy_that_the_store_does_not_offer_is_named_with_those_that_it_does(
    write, monkeypatch
) -> None:
    class OneWayStore:
        budget_strategies = frozenset({"cas"})

    monkeypatch.setattr(settings, "load_store", lambda url: OneWayStore)
    path = write("store: {url: 'mongodb://x'}\nbudget_strategy: for_update")

    error = str(refusal(path))

    assert error == f"{path}:2: budget_strategy: is not what this store can do; write cas, or disabled"


def test_a_missing_driver_of_a_store_names_what_to_install(write, monkeypatch) -> None:
    def missing(url: str) -> Any:
        raise StoreDriverMissing("needs 'asyncpg', which is not installed: pip install 'tallygate[postgres]'")

    monkeypatch.setattr(settings, "load_store", missing)
    path = write(f"store: {{url: 'postgresql://u:{SECRET}@x/y'}}")

    error = str(refusal(path))

    assert error.startswith(f"{path}:1: store.url: needs 'asyncpg'")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert "(No such file or directory); name a YAML file" in str(refusal(tmp_path / "none.yml"))
    assert "(Is a directory); name a YAML file" in str(refusal(tmp_path))


def test_a_file_in_another_encoding_says_so(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yml"
    path.write_bytes("host: ü".encode("latin-1"))

    assert str(refusal(path)) == f"{path}: is not UTF-8 text; save it as UTF-8"


class TalkativeOptions(SinkOptions):
    dsn: str = ""
    extra: str = ""

    @field_validator("dsn")
    @classmethod
    def _quotes_what_it_was_given(cls, dsn: str) -> str:
        if dsn:
            raise ValueError(f"cannot connect\nto {dsn}, password {SECRET}")
        return dsn

    @model_validator(mode="before")
    @classmethod
    def _quotes_everything(cls, values: Any) -> Any:
        if values.get("extra"):
            raise ValueError(f"strange: {values}")
        return values


class TalkativeSink:
    Options = TalkativeOptions
    batching_defaults: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("key", "value"), [("dsn", f"db://u:{SECRET}@x/y"), ("extra", SECRET)], ids=["field", "model"]
)
def test_a_sink_that_quotes_secrets_is_not_repeated(write, monkeypatch, key: str, value: str) -> None:
    monkeypatch.setattr(sinks, "_registered", {})
    monkeypatch.setitem(sys.modules, "talkative_stub", sys.modules[__name__])
    sinks.register("talkative", "talkative_stub:TalkativeSink")
    path = write(f"log_writer_strategy: talkative\nsinks:\n  talkative: {{{key}: '{value}'}}")

    error = str(refusal(path))

    assert error.startswith(f"{path}:3: sinks.talkative")
    assert "***" in error


def test_a_missing_driver_names_what_to_install(write, monkeypatch) -> None:
    monkeypatch.setattr(sinks, "_registered", {})
    sinks.register("elsewhere", "no_such_module_anywhere:Sink")

    error = str(refusal(write("log_writer_strategy: elsewhere")))

    assert ":1: log_writer_strategy: " in error
    assert "no_such_module_anywhere" in error
