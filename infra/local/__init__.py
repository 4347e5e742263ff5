"""Kafka, Redis, Triton and our own programs on this machine, by supervisord, on loopback only."""
