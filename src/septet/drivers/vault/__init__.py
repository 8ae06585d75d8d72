"""Implementations of the vault port."""
