"""The checks of `vlbench doctor`: is a model on a task correct?"""
