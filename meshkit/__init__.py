"""What every Sealgate service shares: contract, identity, TLS, keys, proofs, telemetry."""
