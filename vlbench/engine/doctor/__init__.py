"""Is a model on a task sound: what `vlbench doctor` looks at."""
