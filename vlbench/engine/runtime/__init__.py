"""What a run needs of its machine: device, precision, memory, processes, random generators, signals, trackers."""
