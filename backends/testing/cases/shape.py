"""The form: a class that the registry, the settings and the core can use without knowing it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ...registry import sinks
from ...sink import Capabilities, SinkOptions
from .base import SinkCases, auditor_of, reader_of


class ShapeCases(SinkCases):
    async def test_declares_options_capabilities_and_batching_defaults(self) -> None:
        assert issubclass(self.sink_cls.Options, SinkOptions)
        assert isinstance(self.make_options(), self.sink_cls.Options)
        assert isinstance(self.sink_cls.capabilities, Capabilities)
        assert self.batching.model_dump().items() >= self.sink_cls.batching_defaults.items()

    async def test_options_refuse_an_unknown_key(self) -> None:
        known = self.make_options().model_dump()

        with pytest.raises(ValidationError, match="no_such_key"):
            self.sink_cls.Options.model_validate({**known, "no_such_key": 1})

    async def test_options_cannot_be_changed(self) -> None:
        options = self.make_options()

        for name in type(options).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(options, name, getattr(options, name))

    async def test_is_found_by_its_name(self) -> None:
        if self.sink_name is None:
            pytest.skip(f"not offered: {type(self).__name__} has no sink_name")

        assert sinks.load(self.sink_name) is self.sink_cls

    async def test_the_read_side_is_as_declared(self) -> None:
        async with self.open() as sink:
            reader = reader_of(sink)

        assert (reader is not None) == self.capabilities.reads_usage

    async def test_the_audit_side_is_as_declared(self) -> None:
        async with self.open() as sink:
            auditor = auditor_of(sink)

        assert (auditor is not None) == self.capabilities.audits_usage
