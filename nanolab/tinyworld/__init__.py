"""TinyWorld: a small, true, seeded world of English text, the same on every machine."""
