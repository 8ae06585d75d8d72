"""The nouns of the platform: frozen, typed, no I/O."""
