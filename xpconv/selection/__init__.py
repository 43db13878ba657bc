"""Who computes: of the ways that there are for some arrays, the one that a model, a clock or the caller chose.

From below: the `model` of what each way would take, the `choices` that `tuning` has measured and keeps, and the
`adjoint` of whatever was chosen. The ways themselves, in array code, kernels and loops, know nothing of each other.
"""
