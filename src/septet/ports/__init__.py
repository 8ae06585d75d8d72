"""What the core needs from the world, as protocols. Each method says what it returns and what it may raise."""
