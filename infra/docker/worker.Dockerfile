# The worker, the sink and the command line; no torch, no Java, no servers.
FROM python:3.12-slim-bookworm

RUN useradd --system --uid 10001 --home-dir /app intentstream \
    && install --directory --owner intentstream /var/lib/intentstream /var/lib/intentstream/offline
ENV INTENT_DATA_DIR=/var/lib/intentstream/worker \
    INTENT_FEATURE_REGISTRY=/var/lib/intentstream/registry.db \
    INTENT_OFFLINE_DIR=/var/lib/intentstream/offline \
    PYTHONUNBUFFERED=1

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY features features
COPY fm_intent fm_intent
COPY infra infra
COPY intentstream intentstream
COPY lab lab
COPY stream stream
# Editable, because Feast wants its repository as a folder, not as an installed package. File modes
# are those of the checkout, which may be its owner's alone.
RUN pip install --no-cache-dir --constraint constraints.txt --editable . \
    && chmod -R a+rX .

USER 10001
EXPOSE 9464 9465
ENTRYPOINT ["intentstream"]
CMD ["worker"]
