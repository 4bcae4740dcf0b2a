"""The API in one table: the router serves what is in it, and ``/openapi.json`` describes the same."""
