"""The closed set of commands that every face uses."""
