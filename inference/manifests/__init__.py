"""Models that Sealgate knows: one JSON file each, read by `inference.registry`."""
