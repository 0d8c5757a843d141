"""What services record about themselves and others travels by this."""
