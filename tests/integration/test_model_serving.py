from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from fm_intent.clusters import found_clusters
from fm_intent.export import Manifest, export
from fm_intent.model_config import TOP, configuration
from stream.domain.heads import HEADS
from stream.domain.labels import hash64
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.test_export import manifest
from tests.workers import ANSWER_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fm_intent.served.network import Answer, FMIntent
    from infra.local.stack import Stack

SEQUENCES = ("title_hash", "action", "start_ms", "watched_share", "device")

CLUSTERS = found_clusters(
    tiny.network(tiny.sequences()),
    tiny.sequences(),
    tiny.sequences().contexts("test", 64, "served"),
    seed=0,
)

Request = dict[str, "NDArray[Any]"]


@pytest.fixture(scope="module")
def model() -> FMIntent:
    return tiny.network(tiny.sequences())


@pytest.fixture(scope="module")
def version(model: FMIntent, model_repository: Path) -> Manifest:
    windows = tiny.windows(tiny.sequences())
    return export(model, manifest(), windows, model_repository, CLUSTERS)


@pytest.fixture(scope="module")
def client(triton: str, stack: Stack, version: Manifest) -> Iterator[InferenceServerClient]:
    stack.load_model(str(version.version))
    with InferenceServerClient(triton) as connected:
        yield connected


def requests(rows: slice = slice(None)) -> Request:
    """Served windows of the made-up profiles, as the worker would send them."""
    data = tiny.sequences()
    contexts = data.contexts("test", 64, "served")
    batch = data.windows(contexts)
    hashes = data.table.hash_T[batch.title_BL]
    count = len(batch.length_B)
    whole = {
        "title_hash": hashes.numpy(),
        "action": batch.action_BL.int().numpy(),
        "start_ms": batch.start_ms_BL.numpy(),
        "watched_share": batch.watched_share_BL.numpy(),
        "device": batch.device_BL.int().numpy(),
        "length": batch.length_B.int().numpy()[:, None],
        "profile_hash": np.arange(count)[:, None],
        "sequence_no": np.arange(count)[:, None],
    }
    return {name: column[rows] for name, column in whole.items()}


def inputs(request: Request) -> list[InferInput]:
    tensors = []
    for name, column in request.items():
        tensor = InferInput(name, column.shape, np_to_triton_dtype(column.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(column))
        tensors.append(tensor)
    return tensors


def infer(client: InferenceServerClient, request: Request) -> InferResult:
    return client.infer("fm_intent", inputs(request), client_timeout=ANSWER_S)


def at_once(
    client: InferenceServerClient, some: list[Request]
) -> list[InferResult | InferenceServerException]:
    """Answers or errors of requests that are sent side by side, so that they share batches."""

    def answer(request: Request) -> InferResult | InferenceServerException:
        try:
            return infer(client, request)
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(len(some)) as pool:
        return list(pool.map(answer, some))


def expected(model: FMIntent) -> Answer:
    with torch.inference_mode():
        return model.answer(tiny.windows(tiny.sequences()), model.titles(), TOP)


def assert_answers(result: InferResult, wanted: Answer, rows: slice = slice(None)) -> None:
    names = (head.probs for head in HEADS)
    tensors = dict(zip(names, wanted.intent_probs, strict=True)) | {
        "intent_attention": wanted.attention_BM,
        "intent_embedding": wanted.intent_BD,
        "next_title_score": wanted.next_title_score,
        "user_embedding": wanted.user_BD,
    }
    for name, tensor in tensors.items():
        np.testing.assert_allclose(result.as_numpy(name), tensor[rows], atol=1e-5, err_msg=name)


def test_the_server_answers_as_the_network_does(
    client: InferenceServerClient, model: FMIntent
) -> None:
    result = infer(client, requests())
    wanted = expected(model)
    assert_answers(result, wanted)
    np.testing.assert_array_equal(result.as_numpy("next_title_hash"), wanted.next_title_hash)


def test_the_cluster_is_that_of_the_nearest_centre(
    client: InferenceServerClient, model: FMIntent
) -> None:
    found = infer(client, requests()).as_numpy("intent_cluster")
    away = expected(model).intent_BD[:, None] - CLUSTERS.centres_KD
    np.testing.assert_array_equal(found[:, 0], away.norm(dim=2).argmin(1))
    assert len(np.unique(found)) > 1


def test_windows_of_any_length_may_share_a_batch(
    client: InferenceServerClient, model: FMIntent
) -> None:
    wanted = expected(model)
    unpadded = []
    for row in range(12):
        request = requests(slice(row, row + 1))
        for name in SEQUENCES:
            request[name] = request[name][:, : request["length"].item()]
        unpadded.append(request)
    for row, answer in enumerate(at_once(client, unpadded)):
        assert isinstance(answer, InferResult)
        assert_answers(answer, wanted, slice(row, row + 1))


def test_what_stands_in_the_padding_has_no_effect(
    client: InferenceServerClient, model: FMIntent
) -> None:
    request = requests()
    padding = np.arange(request["action"].shape[1]) >= request["length"]
    for name, junk in (
        ("title_hash", 7),
        ("action", -5),
        ("device", 99),
        ("watched_share", np.nan),
    ):
        request[name] = np.where(padding, junk, request[name]).astype(request[name].dtype)
    assert_answers(infer(client, request), expected(model))


def test_a_title_that_the_version_does_not_know_is_answered(client: InferenceServerClient) -> None:
    request = requests(slice(0, 1))
    request["title_hash"] = np.full_like(request["title_hash"], hash64("released tomorrow"))
    scores = infer(client, request).as_numpy("next_title_score")
    assert np.isfinite(scores).all()
    assert (scores > 0).all()


@pytest.mark.parametrize("share", [np.nan, np.inf, -np.inf])
def test_a_share_that_is_not_a_number_counts_as_unknown(
    client: InferenceServerClient, share: float
) -> None:
    request = requests(slice(0, 4))
    strange, unknown = dict(request), dict(request)
    strange["watched_share"] = np.full_like(request["watched_share"], share)
    unknown["watched_share"] = np.full_like(request["watched_share"], -1)
    np.testing.assert_allclose(
        infer(client, strange).as_numpy("user_embedding"),
        infer(client, unknown).as_numpy("user_embedding"),
        atol=1e-5,
    )


@pytest.mark.parametrize("hashed", [np.iinfo(np.int64).min, np.iinfo(np.int64).max])
def test_any_hash_is_answered(client: InferenceServerClient, hashed: int) -> None:
    request = requests(slice(0, 2))
    for name in ("title_hash", "profile_hash", "sequence_no"):
        request[name] = np.full_like(request[name], hashed)
    assert np.isfinite(infer(client, request).as_numpy("user_embedding")).all()


@pytest.mark.parametrize(
    ("name", "column", "complaint"),
    [
        ("length", np.array([[0], [1]], np.int32), "row 0: length must be from 1"),
        ("length", np.array([[1], [99]], np.int32), "row 1: length must be from 1"),
        ("action", np.full((2, 64), 7, np.int32), "row 0: action must be from 0 to 6"),
        ("device", np.full((2, 64), -1, np.int32), "row 0: device must be from 0 to 5"),
        ("start_ms", np.arange(128)[::-1].reshape(2, 64), "row 0: start_ms must not fall"),
        ("start_ms", np.full((2, 64), -1), "row 0: start_ms must be from 0"),
        ("start_ms", np.full((2, 64), 1 << 53), "row 0: start_ms must be from 0"),
        ("length", np.array([[-7], [1]], np.int32), "row 0: length must be from 1"),
        ("device", np.zeros((2, 63), np.int32), r"device has shape \[2, 63\]"),
        ("title_hash", np.ones((2, 257), np.int64), "L from 1 to 256"),
        ("title_hash", np.ones((2, 0), np.int64), "L from 1 to 256"),
        ("length", np.ones((2, 2), np.int32), "length"),
        ("length", np.ones((3, 1), np.int32), "length|batch"),
        ("action", np.zeros((2, 64), np.int64), "action.* data-type"),
        ("watched_share", np.zeros((2, 64), np.float64), "watched_share.* data-type"),
        ("surprise", np.ones((2, 1), np.int32), "surprise"),
    ],
)
def test_a_malformed_request_is_told_what_is_wrong(
    client: InferenceServerClient,
    stack: Stack,
    model: FMIntent,
    name: str,
    column: NDArray[Any],
    complaint: str,
) -> None:
    processes = serving_processes(stack)
    request = requests(slice(0, 2))
    for sequence in SEQUENCES:
        shape = ((0, 0), (0, 64 - request[sequence].shape[1]))
        request[sequence] = np.pad(request[sequence], shape, mode="edge")
    request["start_ms"] = np.arange(128).reshape(2, 64)
    request["length"] = np.full((2, 1), 64, np.int32)
    request[name] = column
    with pytest.raises(InferenceServerException, match=complaint) as caught:
        infer(client, request)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert_answers(infer(client, requests()), expected(model))
    assert serving_processes(stack) <= processes


def serving_processes(stack: Stack) -> set[int]:
    """The server's, and those of the models in it; one of a version before may still be ending."""
    server = psutil.Process(stack.pid("triton"))
    return {server.pid, *(child.pid for child in server.children(recursive=True))}


def test_a_request_that_lacks_a_tensor_is_refused(client: InferenceServerClient) -> None:
    request = requests(slice(0, 1))
    del request["device"]
    with pytest.raises(InferenceServerException, match="expected 8 inputs but got 7") as caught:
        infer(client, request)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_request_of_too_many_rows_is_refused(client: InferenceServerClient) -> None:
    request = requests(slice(0, 1))
    many = {name: np.repeat(column, 257, axis=0) for name, column in request.items()}
    with pytest.raises(InferenceServerException, match="batch-size must be <= 256") as caught:
        infer(client, many)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_tensor_of_the_wrong_number_of_bytes_is_refused(
    client: InferenceServerClient, model: FMIntent
) -> None:
    tensors = inputs(requests(slice(0, 1)))
    tensors[0]._raw_content = b"123"
    with pytest.raises(InferenceServerException, match="byte size") as caught:
        client.infer("fm_intent", tensors, client_timeout=ANSWER_S)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert_answers(infer(client, requests()), expected(model))


def test_a_request_that_its_caller_gave_up_is_not_computed(
    client: InferenceServerClient, version: Manifest
) -> None:
    def counted() -> tuple[int, int]:
        (stats,) = client.get_inference_statistics("fm_intent", str(version.version), as_json=True)[
            "model_stats"
        ]
        counts = stats["inference_stats"]
        return int(counts["success"].get("count", 0)), int(counts["fail"].get("count", 0))

    many = {
        name: np.repeat(column[:1], 256, axis=0) for name, column in requests(slice(0, 1)).items()
    }
    computed, dropped = counted()
    numbers, waiting = itertools.count(1), Queue[object]()

    def some_are_dropped() -> bool:
        for number in itertools.islice(numbers, 40):
            # Profiles that are not in the cache: the server computes every row.
            many["profile_hash"] = np.arange(256)[:, None] + 1_000 * number
            client.async_infer(
                "fm_intent",
                inputs(many),
                lambda result, error: waiting.put(error),
                client_timeout=0.1,
            )
        errors = [waiting.get(timeout=ANSWER_S) for _ in range(40)]
        assert any(errors)
        return counted()[1] > dropped

    # Some may be given up before they reach the server, which counts those nowhere.
    until(some_are_dropped, "a request that was taken and not computed")
    assert counted()[0] - computed < next(numbers) - 1


def test_a_malformed_request_does_not_spoil_the_batch_it_is_in(
    client: InferenceServerClient, model: FMIntent
) -> None:
    bad = requests(slice(0, 1))
    bad["length"] = np.zeros((1, 1), np.int32)
    wanted = expected(model)
    mixed = [bad if row % 2 else requests(slice(row, row + 1)) for row in range(16)]
    for row, answer in enumerate(at_once(client, mixed)):
        if row % 2:
            assert isinstance(answer, InferenceServerException)
        else:
            assert isinstance(answer, InferResult)
            assert_answers(answer, wanted, slice(row, row + 1))


def test_the_server_takes_and_gives_what_the_committed_configuration_says(
    client: InferenceServerClient,
) -> None:
    committed = text_format.Parse(configuration(Path("nowhere"))["config.pbtxt"], ModelConfig())
    served = client.get_model_metadata("fm_intent", as_json=True)
    for declared, told in (
        (committed.input, served["inputs"]),
        (committed.output, served["outputs"]),
    ):
        assert [
            (one["name"], f"TYPE_{one['datatype']}", [int(size) for size in one["shape"]])
            for one in told
        ] == [(one.name, DataType.Name(one.data_type), [-1, *one.dims]) for one in declared]


def test_an_answer_has_the_types_and_shapes_that_the_server_declares(
    client: InferenceServerClient,
) -> None:
    metadata = client.get_model_metadata("fm_intent", as_json=True)
    result = infer(client, requests(slice(0, 3)))
    for output in metadata["outputs"]:
        given = result.as_numpy(output["name"])
        assert np_to_triton_dtype(given.dtype) == output["datatype"]
        for declared, size in zip(map(int, output["shape"]), given.shape, strict=True):
            assert declared in (-1, size), output["name"]
