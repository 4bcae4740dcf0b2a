"""Calls in one format to a provider that speaks another one: chat completions and messages, both ways."""
