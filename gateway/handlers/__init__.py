"""Thin: each handler parses, calls, answers. What a request means is decided in the rooms below."""
