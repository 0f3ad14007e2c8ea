"""SNLI-VE: does a photograph entail a sentence, contradict it, or neither?"""
