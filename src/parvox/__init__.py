"""Parvox: turn a big speaker-verification model into a small one that is nearly as good, and rely on it."""

__version__ = "0.1.0"
