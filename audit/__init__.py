"""Keeps a log that third parties can verify, and the sealed texts it commits to.

log        durable, in the tree, published       records   what a leaf says, who read it
cosigning  witnesses, asked                      search    an index that can be made again
privacy    payloads: retention, holds, erasure   keys      data keys and pseudonyms
mirror     a copy in an object store             export    OCSF, ECS, CEF for a SIEM
console    all of it in a browser                monitor   a log watched from outside
witness    a service for another host            servicer, wire, app, main   gRPC at the log
"""
