"""The built-in world: scenes with a true scene graph, drawn, spoken about, exported in the official formats."""
