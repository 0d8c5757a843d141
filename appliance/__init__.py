"""All five services on one host, in one process, with an OpenBao of its own."""
