"""Implementations of the contract port."""
