"""Your features: one package each, found by its `routes` module with a `router`."""
