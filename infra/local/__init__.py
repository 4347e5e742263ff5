"""Kafka, Redis, Triton and the worker on this machine, under supervisord, on loopback only."""
