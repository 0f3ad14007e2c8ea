"""Tables of results and leaderboards."""
