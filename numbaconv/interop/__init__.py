"""Convolutions for the arrays of other libraries: each module imports its library itself, or names what installs it."""
