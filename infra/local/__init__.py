"""Kafka, Redis, Triton, worker and sink on this machine, under supervisord, on loopback only."""
