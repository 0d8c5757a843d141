"""Brings the log's entries to a SIEM: read and verified here, at least once, in three formats.

    reading    a log's folder or its files over HTTP, verified against its signed checkpoint
    told       what a leaf says, whatever wrote it            ocsf, ecs, cef   the formats
    state      how far an export has come                     sinks, otlp      where lines go
    exporter   the loop: read, verify, write, flush, then remember

docs/export.md tells how it is used.
"""
