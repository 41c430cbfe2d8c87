"""Measurements, through the public API and with real servers."""
