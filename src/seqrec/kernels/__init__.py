"""Arithmetic that must be fast. Every kernel has a readable torch reference that the tests hold it against."""
