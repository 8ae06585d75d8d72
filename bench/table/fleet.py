"""Rows of many functions and of many instances."""
