# Grafana with our dashboard, as its own user's files: their modes in the checkout may be for its
# owner alone.
FROM grafana/grafana:12.1.0
COPY --chown=472 infra/grafana/datasource.yml /etc/grafana/provisioning/datasources/
COPY --chown=472 infra/grafana/dashboards.yml /etc/grafana/provisioning/dashboards/
COPY --chown=472 infra/grafana/dashboards /var/lib/grafana/dashboards
