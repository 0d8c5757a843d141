"""The log, copied to an object store behind every publication."""
