"""Records on disk: the folders of runs and profiles, predictions, rankings, samples, attention."""
