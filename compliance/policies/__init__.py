"""Policies that ship with Sealgate, as YAML; `compliance.policy` reads them."""
