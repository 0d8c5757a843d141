"""Which version of a model answers whom: versions, their states, traffic, shadow, rollback."""
