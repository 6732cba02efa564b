"""fastsse in other frameworks; each needs its own package."""
