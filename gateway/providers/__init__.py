"""The way to a provider: what it answers, token by token or at once, and every way it fails, as types."""
