"""Making the world match the model."""
