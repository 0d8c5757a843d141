"""Keeps released answers, sealed, for those who may see them."""
