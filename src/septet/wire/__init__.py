"""Formats that several rooms share; stateless."""
