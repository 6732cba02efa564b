"""The hub process's side of the bus."""
