"""The refresh: a recipe that ran before, over files that have changed since; only new work is done, and the difference is told."""
