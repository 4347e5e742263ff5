# NVIDIA's images carry libtorch, for TorchScript models, but not the Python package torch that our
# model imports; so it is added, at the version that the model was trained with.
FROM nvcr.io/nvidia/tritonserver:25.10-py3

# A package index with CPU builds of torch, as PyTorch has one. Without it pip takes the build that
# brings CUDA, 4.6 GB of libraries that only a GPU needs.
ARG TORCH_INDEX
COPY constraints.txt /opt/constraints.txt
RUN python3 -m pip install --no-cache-dir --break-system-packages \
    --constraint /opt/constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY infra/probe.py /opt/probe.py
# File modes are those of the checkout, which may be its owner's alone.
RUN chmod a+r /opt/probe.py
