"""Thin: parse, call, show."""
