"""The allocator's thresholds are set where there is glibc, and nowhere else."""

import platform
from types import SimpleNamespace

import pytest

from recbole_dtn.training import allocator
from recbole_dtn.training.allocator import KEEP_ABOVE, MAP_ABOVE, keep_large_blocks


@pytest.fixture(autouse=True)
def _no_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)


def test_both_thresholds_are_set_by_their_numbers_in_malloc_h() -> None:
    calls: list[tuple[int, int]] = []
    assert keep_large_blocks(lambda: SimpleNamespace(mallopt=lambda *given: calls.append(given) or 1))
    assert calls == [(-3, MAP_ABOVE), (-1, KEEP_ABOVE)]


def test_a_refusal_a_missing_library_and_a_library_without_mallopt_are_no_errors() -> None:
    def absent() -> None:
        raise OSError("no such library")

    assert not keep_large_blocks(lambda: SimpleNamespace(mallopt=lambda *_: 0))
    assert not keep_large_blocks(lambda: SimpleNamespace())
    assert not keep_large_blocks(absent)


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert not keep_large_blocks(lambda: pytest.fail("the library was opened"))


def test_elsewhere_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator, "_this_process", lambda: pytest.fail("the library was opened"))
    assert not keep_large_blocks()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_it_works_on_this_glibc() -> None:
    assert keep_large_blocks()
