# Prometheus with our jobs and alerts, as its own user's files: their modes in the checkout may be
# for its owner alone.
FROM prom/prometheus:v3.5.0
COPY --chown=65534 infra/prometheus /etc/prometheus
