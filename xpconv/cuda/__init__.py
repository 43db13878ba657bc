"""Convolution and pooling on CUDA GPUs, for CuPy arrays: a few small kernels over the whole batch, and cuBLAS.

From the ground up: `geometry`, launches and windows as whole numbers; `products`, what cuBLAS is asked for, as whole
numbers; `workspace`, what is done when memory runs out; `sources`, the text of the kernels in ``kernels/``; `runtime`,
the one file here that calls CuPy; and `lowering`, `winograd`, `depthwise` and `pooling`, what operators call.

Tests need no GPU: they compile the kernels for every generation of GPUs, and run them, compiled for the host.
"""
