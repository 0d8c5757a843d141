"""Keeps a log that third parties can verify, and the sealed texts it commits to."""
