"""The switch for a pooler in a store's URL: read, and kept from the driver."""

from __future__ import annotations

import pytest

from backends.postgres_address import without_pooler_switch

HOST = "postgresql://user:pass%3Fword@host:5432/db"


@pytest.mark.parametrize(
    ("query", "left", "is_pooled"),
    [
        ("", "", False),
        ("?sslmode=require", "?sslmode=require", False),
        ("?pgbouncer=true", "", True),
        ("?pgbouncer=false", "", False),
        ("?sslmode=require&pgbouncer=true", "?sslmode=require", True),
        ("?pgbouncer=true&sslmode=require&a=b", "?sslmode=require&a=b", True),
        ("?not_pgbouncer=true", "?not_pgbouncer=true", False),
    ],
)
def test_the_pooler_switch_is_taken_out_of_the_url(query: str, left: str, is_pooled: bool) -> None:
    assert without_pooler_switch(HOST + query) == (HOST + left, is_pooled)
