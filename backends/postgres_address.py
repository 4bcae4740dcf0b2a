"""Whether a DSN names a PostgreSQL server, as far as that shows without asking one. Pure."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

_TLS_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


def dsn_problem(dsn: str) -> str | None:
    """What is wrong with ``dsn``, without a word of it: there may be a password in any part."""
    try:
        parts = urlsplit(dsn)
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
        ports = [_port(host) for host in parts.netloc.rpartition("@")[2].split(",")]
    except ValueError:
        return "is no address of a PostgreSQL server"
    if parts.scheme not in ("postgresql", "postgres"):
        return "does not begin with postgresql://"
    if parts.netloc.count("@") > 1:
        return "has an @ in its user or password, which is written %40"
    if not all(0 < port < 65536 for port in ports):
        return "has a port that there is not"
    if not _TLS_MODES.issuperset(query.get("sslmode", ())):
        return f"has an sslmode that is none of {', '.join(sorted(_TLS_MODES))}"
    return None


def _port(host: str) -> int:
    """Raises ``ValueError`` if it is no number."""
    port = host.rpartition("]")[2].partition(":")[2]
    return int(port) if port else 5432


def without_pooler_switch(dsn: str) -> tuple[str, bool]:
    """``dsn`` without ``pgbouncer=…`` in its query, which no server knows, and whether that says ``true``: a
    pooler in transaction mode is in between."""
    address, _, query = dsn.partition("?")
    settings = query.split("&") if query else []
    others = [each for each in settings if not each.startswith("pgbouncer=")]
    return "?".join([address, *filter(None, ["&".join(others)])]), "pgbouncer=true" in settings
