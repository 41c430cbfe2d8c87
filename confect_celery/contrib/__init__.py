"""Edges to frameworks: each in a room of its own, the only one that names its framework."""
