"""One check per server that says whether it answers its own protocol. None of them raises."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request

import redis
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from infra.probe import stuck_versions


def kafka_ready(port: int) -> bool:
    """Whether the broker on `port` has registered itself in the cluster's metadata."""
    if not _accepts(port):
        return False

    async def brokers() -> list[dict[str, object]]:
        admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}", request_timeout_ms=5000)
        try:
            await admin.start()
            cluster = await admin.describe_cluster()
        finally:
            await admin.close()
        return list(cluster["brokers"])

    try:
        return any(broker["port"] == port for broker in asyncio.run(brokers()))
    except (KafkaError, OSError):
        return False


def redis_ready(port: int) -> bool:
    """Whether the Redis on `port` answers PING."""
    if not _accepts(port):
        return False
    try:
        with redis.Redis(port=port, socket_timeout=5) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def triton_ready(grpc_port: int, metrics_port: int) -> bool:
    """Whether the Triton with its gRPC service on `grpc_port` says that it is ready.

    Its metrics come up last, and count: who starts a server may read them at once.
    """
    if not _accepts(grpc_port) or not _accepts(metrics_port):
        return False
    with InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        try:
            return bool(client.is_server_ready(client_timeout=5))
        except InferenceServerException:
            return False


def triton_serves(http_port: int, grpc_port: int, metrics_port: int) -> bool:
    """Whether Triton is ready, and every version that says so answers a tiny inference."""
    if not triton_ready(grpc_port, metrics_port):
        return False
    try:
        return not stuck_versions(f"http://127.0.0.1:{http_port}")
    except OSError:
        return False


def worker_ready(metrics_port: int) -> bool:
    """Whether `/ready` of the worker, or of the sink, answers 200."""
    return _says_ok(f"http://127.0.0.1:{metrics_port}/ready")


def console_ready(port: int) -> bool:
    """Whether the console answers."""
    return _says_ok(f"http://127.0.0.1:{port}/health")


def _says_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _accepts(port: int) -> bool:
    """Whether anything listens, asked first because the clients log and retry refusals."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False
