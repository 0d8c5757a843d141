"""Word lists of the name finder, one entry a line; each file's head says where it is from."""
