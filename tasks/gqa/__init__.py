"""GQA: compositional questions about photographs, with scene graphs."""
