"""The configuration as types: what each key takes, its default and its bounds.

Every section is closed and frozen. A validator's text reads "what is wrong; what would be right" and shows
no value, for a secret may stand in the wrong place.
"""

from __future__ import annotations

import re
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from backends import (
    DEFAULT_MAX_BYTES,
    BatchingOptions,
    SinkOptions,
    SpoolOptions,
    StoreOptions,
    Strategy,
    StrategyError,
    parse_strategy,
    sinks,
)

from .pricing import Price

MAX_WORKERS = 64
STRATEGY_GRAMMAR = ("is no log writer strategy", "write [batch:|single:]SINK in lower case, or noop")
CLOSING_S = 2.0
"""Kept of ``shutdown.grace_s`` for closing sockets, pools and files."""
ANTHROPIC_URL = "https://api.anthropic.com"
ANY_LLM = "any-llm"
_PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PRICED_MODEL = re.compile(r"[^:/\s]+:\S+")
_MODEL_NAME = re.compile(r"[!-~]{1,256}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_VISIBLE_ASCII = re.compile(r"[!-~]+")


class Section(BaseModel):
    """Base of all sections: an unknown key is an error, and no error shows what was given."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        raise ValueError("is empty; give the key")
    if not _VISIBLE_ASCII.fullmatch(text):
        raise ValueError("cannot be sent in a header; use visible ASCII without spaces or line breaks")
    return value


def _provider_name(name: str) -> str:
    if not _PROVIDER_NAME.fullmatch(name):
        raise ValueError("cannot name a provider; use up to 64 letters, digits, '.', '_' or '-'")
    return name


def _priced_model(name: str) -> str:
    if not _PRICED_MODEL.fullmatch(name):
        raise ValueError("names no model; write provider:model")
    return name


def _model_name(name: str) -> str:
    if not _MODEL_NAME.fullmatch(name):
        raise ValueError("cannot name a model; use up to 256 visible ASCII characters without spaces")
    return name


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError("is no URL; write one such as https://api.openai.com/v1") from None
    if parts.scheme not in ("http", "https") or not is_complete or not _VISIBLE_ASCII.fullmatch(url):
        raise ValueError("is no http or https URL; write one such as https://api.openai.com/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a user or password in it; put the key into api_key")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("has more than a path after the host; leave out what begins with ? or #")
    return url.rstrip("/")


def _cors_origin(origin: str) -> str:
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError("is no origin; write one such as https://app.example.com, or '*'")
    return origin


def _strategy(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_strategy(value)
    except StrategyError:
        raise ValueError("; ".join(STRATEGY_GRAMMAR)) from None


def _price(value: Any) -> Price:
    if isinstance(value, Price):
        return value
    return Price(**dict(PriceSettings.model_validate(value)))


def _default_prices(name: str) -> str:
    if name == "genai-prices" and find_spec("genai_prices") is None:
        raise ValueError("needs a package that is not installed; pip install 'tallygate[prices]'")
    return name


Secret: TypeAlias = Annotated[SecretStr, AfterValidator(_secret)]
Usd: TypeAlias = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
ProviderName: TypeAlias = Annotated[str, AfterValidator(_provider_name)]
PricedModel: TypeAlias = Annotated[str, AfterValidator(_priced_model)]
ModelName: TypeAlias = Annotated[str, AfterValidator(_model_name)]
CorsOrigin: TypeAlias = Annotated[str, AfterValidator(_cors_origin)]
Seconds: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StoreSettings(StoreOptions):
    """Where keys, users, budgets and prices are kept. ``cache_s``: how long what was read of a key or a user
    is believed; within that time a revocation is seen by every process."""

    cache_s: Seconds = 5


class BudgetSettings(Section):
    """For how long a call holds its money at most, and how many tokens of output are expected of one that
    does not say how many it wants."""

    reservation_ttl_s: float = Field(default=900, gt=0, le=7 * 24 * 3600, allow_inf_nan=False)
    default_output_tokens: int = Field(default=1024, ge=0)


class DeadLetterSettings(Section):
    """The file of the rows that the sink refuses for good, in ``<spool.path>-dead/``."""

    max_bytes: int = Field(default=DEFAULT_MAX_BYTES, ge=1)


class StreamSettings(Section):
    """How long, and how many at once, streams are read on for their usage after the client left; after which
    silence of the provider's the client hears that all is well; how long a client may read nothing."""

    after_disconnect_s: Seconds = 30
    max_pumps: int = Field(default=200, ge=0)
    keepalive_s: Seconds = 15
    unread_s: Seconds = 120


class ShutdownSettings(Section):
    """The steps of stopping; with ``CLOSING_S`` they must fit ``grace_s``, the platform's kill delay."""

    grace_s: Seconds = 30
    readiness_delay_s: Seconds = 0
    drain_s: Seconds = 12
    pump_s: Seconds = 3
    stop_deadline_s: Seconds = 10
    cancel_grace_s: Seconds = 1

    @model_validator(mode="after")
    def _fits_the_grace(self) -> Self:
        steps = (
            self.readiness_delay_s + self.drain_s + self.pump_s + self.stop_deadline_s + self.cancel_grace_s
        )
        needed = round(steps + CLOSING_S, 6)  # so that 0.1 + 0.2 fits 0.3
        if needed > self.grace_s:
            raise ValueError(
                f"takes {needed:g} s, {CLOSING_S:g} s for closing included, and grace_s is {self.grace_s:g}; "
                "raise grace_s with the platform's kill delay, or shorten a step"
            )
        return self


class ProviderSettings(Section):
    """One provider: where it is, the key for it, how long it may be silent, until a stream's first event
    (None: as else), too. ``provider``: its name in the SDK, for the type ``any-llm``."""

    type: Literal["openai", "anthropic", "any-llm"]
    provider: Annotated[str, Field(pattern="^[a-z0-9_-]{1,64}$")] | None = None
    base_url: Annotated[str, AfterValidator(_base_url)] | None
    api_key: Secret
    timeout_s: PositiveSeconds = 600
    first_token_timeout_s: PositiveSeconds | None = None

    @model_validator(mode="before")
    @classmethod
    def _some_are_in_one_place(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("type") in ("anthropic", ANY_LLM):
            return {"base_url": ANTHROPIC_URL if values["type"] == "anthropic" else None, **values}
        return values

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.type == ANY_LLM:
            if self.provider is None:
                raise ValueError("names no provider of the SDK; add its name, such as provider: bedrock")
        elif self.provider is not None:
            raise ValueError("has a provider of the SDK; write type: any-llm, or remove provider")
        elif self.base_url is None:
            raise ValueError("has an empty base_url; give it a value")
        return self


class TargetSettings(Section):
    """One of the models behind a name; ``weight``: its share of the calls, beside the others' weights."""

    model: PricedModel
    weight: int = Field(default=1, ge=1, le=1_000_000)


class ModelSettings(Section):
    """A name that clients may use: the targets to select from, how often another try of them is made, and
    where a call goes when they fail. ``attempt_timeout_s`` bounds one attempt; of a stream, until its first
    event."""

    targets: list[TargetSettings] = Field(min_length=1)
    select: Literal["weighted", "least_busy", "lowest_latency", "cheapest"] = "weighted"
    fallbacks: list[PricedModel] = []
    retries: int = Field(default=1, ge=0, le=10)
    attempt_timeout_s: PositiveSeconds | None = None


class CooldownSettings(Section):
    """A target that failed so many times in a row is left alone for about ``cooldown_s``; 0: never."""

    failures: int = Field(default=3, ge=1)
    cooldown_s: Seconds = 30


class PriceSettings(Section):
    """USD, exact: a number is taken digit by digit as it is written. See ``Price``."""

    input_per_million: Usd
    output_per_million: Usd
    cached_input_per_million: Usd | None = None
    reasoning_per_million: Usd | None = None
    per_image: Usd = Decimal(0)
    per_request: Usd = Decimal(0)


PriceEntry: TypeAlias = Annotated[Price, BeforeValidator(_price)]
"""Checked as ``PriceSettings``, kept as the plain ``Price`` that the arithmetic knows."""


class Settings(Section):
    """Everything that the gateway may be told. ``load_settings`` makes one that fits its sink, too.

    ``sinks`` holds each sink's options as they were written, unchecked but for the chosen one's.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    master_key: Secret | None = None
    log_writer_strategy: Annotated[Strategy, BeforeValidator(_strategy)] = Strategy("batch", "sqlite")
    budget_strategy: Literal["disabled", "for_update", "cas"] = "disabled"
    store: StoreSettings = StoreSettings()
    sinks: dict[str, dict[str, Any]] = Field(default={}, repr=False)
    batching: BatchingOptions = Field(default_factory=lambda: BatchingOptions.model_validate({}))
    spool: SpoolOptions = SpoolOptions()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    streams: StreamSettings = StreamSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    providers: dict[ProviderName, ProviderSettings] = {}
    models: dict[ModelName, ModelSettings] = {}
    cooldown: CooldownSettings = CooldownSettings()
    pricing: dict[PricedModel, PriceEntry] = {}
    default_prices: Annotated[Literal["none", "genai-prices"], AfterValidator(_default_prices)] = "none"
    unpriced: Literal["serve", "refuse"] = "serve"
    estimate_cost: bool = False
    budgets: BudgetSettings = BudgetSettings()
    cors_allow_origins: list[CorsOrigin] = []

    @model_validator(mode="after")
    def _spills_somewhere(self) -> Self:
        if self.batching.on_full == "spill" and self.spool.mode == "off":
            raise ValueError("batching.on_full needs the disk that spool.mode forbids; change one of the two")
        return self

    @property
    def dead_letters_folder(self) -> Path:
        """Beside the spool, whatever its mode."""
        return self.spool.path.with_name(self.spool.path.name + "-dead")


def sink_options(settings: Settings) -> SinkOptions:
    """The options of the chosen sink, made by its own class. Raises ``LookupError`` for ``noop``."""
    name = settings.log_writer_strategy.sink
    if name is None:
        raise LookupError("the strategy noop has no sink")
    return sinks.load(name).Options.model_validate(settings.sinks.get(name, {}))
