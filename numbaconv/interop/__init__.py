"""Other libraries' arrays and models; each module imports its library, and importing this package imports none."""
