"""One folder per implementation of a port."""
