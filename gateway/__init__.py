"""Admits, authorizes and drives a call; owns the order of its steps and nothing else."""
