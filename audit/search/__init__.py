"""Finding records: an index that can be made again from the log, and questions to it."""
