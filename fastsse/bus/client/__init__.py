"""A worker's side of the bus."""
