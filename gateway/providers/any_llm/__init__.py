"""Providers that the any-llm SDK speaks to: the room around it, so that nobody else has to know it."""
