"""Septet's own API."""
