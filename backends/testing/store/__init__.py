"""The conformance class of a store: every promise of ``backends.store.contract``, as a test."""

from .suite import StoreSuite

__all__ = ["StoreSuite"]
