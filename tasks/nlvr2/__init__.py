"""NLVR2: one statement about two photographs, true or false."""
