"""The one seam through which NumPy does what the standard cannot say.

From the ground up: the BLAS that NumPy calls, a pool of threads, the memory that tasks work in, the steps of a task
written down once; and on these what algorithms are made of, tasks, arithmetic element by element, products of matrices.
"""
