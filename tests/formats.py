"""File formats, written byte by byte as their documents describe them."""


def idx(code, array):
    """Write an array as the format describes it, byte by byte."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()
