"""NLVR: one statement about three boxes of coloured shapes, true or false."""
