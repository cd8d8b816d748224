"""The version, where packaging can read it without importing polyad."""

__version__ = "0.1.0"
