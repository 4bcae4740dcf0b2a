"""How a MongoDB client is set, for the sink and for the store. Knows no driver."""

from __future__ import annotations

from typing import Any


def client_settings(timeout_s: float, max_connections: int) -> dict[str, Any]:
    """Said outright, whatever driver, version and connection string prefer. The drivers retry nothing: the
    caller does, one thing at a time and with pauses. Under ``timeoutMS`` theirs would go on for all of that
    time, and several calls at once keep each other from a server that is back."""
    timeout_ms = round(timeout_s * 1000)
    return {
        "appname": "tallygate",
        "connect": False,
        "connectTimeoutMS": timeout_ms,
        "maxPoolSize": max_connections,
        "retryReads": False,
        "retryWrites": False,
        "serverSelectionTimeoutMS": timeout_ms,
        "timeoutMS": timeout_ms,
        "tz_aware": True,
        "uuidRepresentation": "standard",
    }
