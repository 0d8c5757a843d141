"""Finds personal data and secrets in text, both ways, and lets out what policy allows."""
