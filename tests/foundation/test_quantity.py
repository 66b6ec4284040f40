"""Amounts as Kubernetes writes them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from foundation.quantity import CPU, MEMORY, Cpu, Memory, parse_quantity

CPUS, BYTES = TypeAdapter[str](Cpu), TypeAdapter[str](Memory)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2", "2"),
        ("0.5", "0.5"),
        ("1500m", "1.5"),
        ("512Mi", "536870912"),
        ("2G", "2000000000"),
        ("1.5Gi", "1610612736"),
        ("64k", "64000"),
        ("64Ki", "65536"),
    ],
)
def test_amounts(text: str, amount: str) -> None:
    assert parse_quantity(text) == Decimal(amount)


@given(st.from_regex(CPU, fullmatch=True) | st.from_regex(MEMORY, fullmatch=True))
def test_whatever_matches_is_read(text: str) -> None:
    assert parse_quantity(text) >= 0


@pytest.mark.parametrize("text", ["", "1 Gi", "-1", "1e3", "Gi", "1GB", "١"])
def test_nothing_else_is(text: str) -> None:
    with pytest.raises(ValueError):
        parse_quantity(text)


@pytest.mark.parametrize("text", ["10m", "0.01", "0.010000001", "1", "250m", "64"])
def test_cpus(text: str) -> None:
    assert CPUS.validate_python(text) == text


@pytest.mark.parametrize("text", ["6Mi", "6291456", "6.5M", "512Mi", "1Ti"])
def test_memory(text: str) -> None:
    assert BYTES.validate_python(text) == text


@pytest.mark.parametrize(
    "text", ["0", "0.0000001m", "5m", "9.9m", "0.0099", "1Gi", "1k", "", "lots"]
)
def test_too_few_cpus(text: str) -> None:
    """Docker counts billionths of one, and has no limit at 0."""
    with pytest.raises(ValidationError, match="no amount of CPUs, or less than 10m"):
        CPUS.validate_python(text)


@pytest.mark.parametrize("text", ["0", "1m", "500m", "9999999999m", "5.9Mi", "1", "", "1 GB"])
def test_too_little_memory(text: str) -> None:
    with pytest.raises(ValidationError, match="no amount of memory, or less than 6Mi"):
        BYTES.validate_python(text)
