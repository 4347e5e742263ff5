# `intentstream model publish` with the exported versions of model_repo/. Built on the worker's image:
#
#   docker build --file infra/docker/worker.Dockerfile --tag intentstream-worker:0.1.0 .
#   docker build --file infra/docker/publisher.Dockerfile --tag intentstream-publisher:0.1.0 .
FROM intentstream-worker:0.1.0
USER root
# As in triton.Dockerfile: where CPU builds of torch are.
ARG TORCH_INDEX
RUN pip install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "intentstream[serve]"
COPY model_repo model_repo
RUN chmod -R a+rX model_repo
USER 10001
CMD ["model", "publish"]
