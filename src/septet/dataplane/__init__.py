"""One invocation, front to back."""
