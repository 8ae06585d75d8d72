"""The part of Septet that starts a function's processes inside its instance. Standard library only."""
