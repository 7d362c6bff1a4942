"""Backends: a registry, what backends are made of, and the backends themselves, loaded when asked for."""
