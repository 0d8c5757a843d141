"""Releases of models between services: what gateway, inference and the SDK write alike."""
