"""The load generator's goals, one file for each group of figures."""
