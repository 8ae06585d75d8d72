"""Implementations of the logs port."""
