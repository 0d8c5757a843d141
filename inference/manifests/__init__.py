"""Models that Sealgate knows: a manifest each, pinned by this release."""
