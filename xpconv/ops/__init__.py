"""Operators: pure functions of arrays that give ``y`` and a pullback, one file for each family."""
