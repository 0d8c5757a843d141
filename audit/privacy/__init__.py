"""PayloadService at audit's port, and audit's way to the caches that must forget."""
