# NVIDIA's images carry libtorch, for TorchScript models, but not the Python package torch that our
# model imports; so it is added, at the version that the model was trained with.
FROM nvcr.io/nvidia/tritonserver:25.10-py3
RUN --mount=type=bind,source=constraints.txt,target=constraints.txt \
    python3 -m pip install --no-cache-dir --break-system-packages --constraint constraints.txt torch
COPY infra/probe.py /opt/probe.py
