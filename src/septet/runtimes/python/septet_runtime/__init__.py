"""What serves a Python function inside its sandbox. Standard library only; nothing that the handler did not ask for
is imported before its first call."""
