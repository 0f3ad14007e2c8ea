"""What a run runs on: processes, memory, precision, chance, interruptions, the clock."""
