"""HTTP/1.1: one asyncio protocol, a route table, and what each route does."""
