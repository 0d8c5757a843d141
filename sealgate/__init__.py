"""Client for a Sealgate gateway: async and sync, typed errors, receipts one can check."""
