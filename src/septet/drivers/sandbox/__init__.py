"""Implementations of the sandbox port."""
