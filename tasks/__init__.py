"""The tasks: one folder each, found by listing; shipped as `vlbench._tasks`."""
