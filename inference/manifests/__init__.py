"""Models that Sealgate knows: a manifest each, of `inference.store.manifest`, pinned by this release."""
