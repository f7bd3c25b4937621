"""A result -> the outside world."""
