"""Triton kernels for one decode step of many rows, made to be captured in CUDA graphs.

Row b of a batch owns slot b of every cache. Grids, block sizes and workspaces follow from shapes alone, nothing waits
for the device, and what depends on data (how many columns of a row are read) is decided inside the kernels. Call a
function once with the same shapes before capturing it, because a first call compiles. Caches are read and written
through their strides, so that views of larger buffers work; only the last dimension has to be contiguous.
"""
