"""Follows a log from outside and says what is wrong with it."""
