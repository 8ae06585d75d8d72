"""Implementations of the blobs and trees ports."""
