"""Witnesses of other hosts, as the log's client: asked, checked, judged by policy."""
