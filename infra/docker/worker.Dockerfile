# The worker, the sink, the bridge and the command line; no torch, no Java, no servers.
FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY features features
COPY fm_intent fm_intent
COPY intentstream intentstream
COPY stream stream
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm

RUN useradd --system --uid 10001 --home-dir /app intentstream \
    && install --directory --owner intentstream /var/lib/intentstream /var/lib/intentstream/offline
ENV INTENT_DATA_DIR=/var/lib/intentstream/worker \
    INTENT_FEATURE_REGISTRY=/var/lib/intentstream/registry.db \
    INTENT_OFFLINE_DIR=/var/lib/intentstream/offline \
    NUMBA_CACHE_DIR=/var/lib/intentstream/compiled \
    PYTHONUNBUFFERED=1

WORKDIR /app
COPY constraints.txt ./
COPY --from=wheel /wheels /wheels
# pip gives what it installs modes of its own; those of the checkout may be its owner's alone.
RUN pip install --no-cache-dir --constraint constraints.txt "$(echo /wheels/*.whl)[bridge]" \
    && rm -r /wheels \
    && chmod a+r constraints.txt

USER 10001
EXPOSE 9464 9465 9466
ENTRYPOINT ["intentstream"]
CMD ["worker"]
