"""Contract of every protocol, generated from protos/ by `make protos`; never edited."""
