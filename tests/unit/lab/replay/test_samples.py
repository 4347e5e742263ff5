import json

from lab.replay.prober import read_samples


def _write(path, *samples) -> None:
    path.write_text(
        "".join(
            json.dumps({"produced_ms": 0, "freshness_ms": ms, "superseded": newer}) + "\n"
            for ms, newer in samples
        )
    )


def test_events_first_seen_as_a_newer_one_count_as_samples(tmp_path) -> None:
    _write(tmp_path / "samples", (10.0, False), (20.0, True))
    samples = read_samples(tmp_path / "samples")
    assert samples.freshness_ms.tolist() == [10.0, 20.0]
    assert samples.superseded == 1


def test_events_that_were_never_seen_are_counted_apart(tmp_path) -> None:
    _write(tmp_path / "samples", (10.0, False), (None, False))
    samples = read_samples(tmp_path / "samples")
    assert samples.unseen == 1
    assert samples.percentile(99) == 10.0


def test_a_line_that_is_being_written_is_left_for_later(tmp_path) -> None:
    _write(tmp_path / "samples", (10.0, False))
    with (tmp_path / "samples").open("a") as file:
        file.write('{"produced_ms": 1, "fre')
    assert len(read_samples(tmp_path / "samples").freshness_ms) == 1


def test_without_samples_there_is_no_percentile(tmp_path) -> None:
    assert read_samples(tmp_path / "absent").percentile(50) is None
