"""Runs language models."""
