"""money.py: every amount is written and read exactly, and nothing else is read."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeskill.errors import AmountError
from tradeskill.money import MAX_RAW, UNITS, Amount, format_amount, format_amounts, in_unit, parse_amount, parse_amounts, parse_raw, total

values = st.integers(0, MAX_RAW) | st.integers(0, 60).map(lambda n: 10**n % (MAX_RAW + 1)) | st.sampled_from([0, 1, MAX_RAW, MAX_RAW - 1])
kept_units = st.sampled_from(sorted({base for base, _ in UNITS.values()}))

# What `int()` or `Decimal()` would take, and more; each refused as raw digits and as the number of an amount.
NO_NUMBERS = [
    *("", " ", "-1", "-0", "+7", " 5", "5 ", "5\n", "\n5", "\t5", "1_0", "0x10", "0b1", "00", "01", "007"),
    *("1e3", "1E3", "1e-3", "NaN", "nan", "inf", "Infinity", "-Infinity", "１２", "٣", "5\u00a0", "\u200b5", "½", "²", "5\0"),
    *("1,5", "1'000", "0.", ".5", "1.2.3", "--1", "1.-5", "True", "None", "9" * 40, "9" * 5000, "1e1000000"),
]


@given(values, kept_units)
def test_an_amount_is_read_back_as_it_was_written(value: int, unit: str) -> None:
    amount = Amount(value, unit)
    assert parse_amount(format_amount(amount)) == amount
    assert parse_amount(str(amount)) == amount


@given(values)
def test_raw_digits_are_read_back_as_they_were_written(value: int) -> None:
    assert parse_raw(str(value)) == value


@given(values)
def test_what_people_read_is_the_exact_decimal(value: int) -> None:
    number, unit = format_amount(Amount(value, "raw")).split(" ")
    assert unit == "XNO"
    assert Fraction(number) * 10**30 == value
    assert set(number) <= set("0123456789.")


@given(st.text(max_size=45))
def test_nothing_is_read_that_is_not_written_so(text: str) -> None:
    for read in (lambda t: str(parse_raw(t)), lambda t: format_amount(parse_amount(t))):
        try:
            again = read(text)
        except AmountError:
            continue
        assert read(again) == again
        assert text.isascii()


@given(st.from_regex(r"\A[0-9]{1,39}(\.[0-9]{1,31})?\Z"))
def test_a_decimal_is_read_exactly_or_not_at_all(number: str) -> None:
    exact = Fraction(number) * 10**30
    try:
        amount = parse_amount(f"{number} XNO")
    except AmountError:
        assert exact > MAX_RAW or exact.denominator != 1 or (len(number) > 1 and number[0] == "0" and number[1] != ".") or len(number.partition(".")[2]) > 30
    else:
        assert amount.value == exact


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0.001 XNO", Amount(10**27, "raw")),
        ("0 XNO", Amount(0, "raw")),
        ("1.0 XNO", Amount(10**30, "raw")),
        ("0.000000000000000000000000000001 XNO", Amount(1, "raw")),
        ("340282366.920938463463374607431768211455 XNO", Amount(MAX_RAW, "raw")),
        (f"{MAX_RAW} raw", Amount(MAX_RAW, "raw")),
        ("21 sat", Amount(21, "sat")),
        ("5 msat", Amount(5, "msat")),
    ],
)
def test_these_amounts_are_read(text: str, amount: Amount) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize("unit", list(UNITS))
def test_no_unit_makes_a_number_of_this(number: str, unit: str) -> None:
    with pytest.raises(AmountError) as caught:
        parse_amount(f"{number} {unit}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", [*NO_NUMBERS, "0.5", str(2**128), str(10**38 * 9), 5, 5.0, True, None, b"5", ["5"], Decimal(5)])
def test_these_are_no_raw_digits(text: object) -> None:
    with pytest.raises(AmountError) as caught:
        parse_raw(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        *("5", "5XNO", "5  XNO", " 5 XNO", "5 XNO ", "5\tXNO", "5 xno", "5 Xno", "5 USD", "5 XNO\n", "5 ", "XNO", "XNO 5", "5 \uff38\uff2e\uff2f"),
        *("0.5 raw", "5.0 raw", "0.5 sat", "0.0000000000000000000000000000001 XNO", "340282366.920938463463374607431768211456 XNO"),
        *(f"{2**128} raw", "340282367 XNO", "9" * 39 + " XNO"),
        *(5, 5.0, None, True, ["5", "XNO"], b"5 XNO", Amount(5, "raw")),
    ],
)
def test_these_are_no_amounts(text: object) -> None:
    with pytest.raises(AmountError) as caught:
        parse_amount(text)
    assert "\n" not in str(caught.value)


def test_the_error_names_value_and_way_out() -> None:
    with pytest.raises(AmountError, match=r"'5 USD' has an unknown unit: use one of XNO, raw, sat, msat"):
        parse_amount("5 USD")
    with pytest.raises(AmountError, match=r'write it like "0\.001 XNO"'):
        parse_amount("1e3 XNO")


@pytest.mark.parametrize("value", [-1, 2**128, True, False, 5.0, "5", None])
def test_an_amount_holds_only_an_int_in_range(value: object) -> None:
    with pytest.raises(AmountError, match="out of range"):
        Amount(value, "raw")  # type: ignore[arg-type]  # what the test is about


def test_amounts_of_different_units_are_different_and_have_no_order() -> None:
    assert Amount(5, "raw") != Amount(5, "sat")
    with pytest.raises(TypeError):
        Amount(5, "raw") < Amount(6, "raw")  # type: ignore[operator]  # noqa: B015 - what the test is about


@given(st.lists(st.builds(Amount, values, kept_units), min_size=1, max_size=3, unique_by=lambda amount: amount.unit))
def test_amounts_in_several_units_are_read_as_they_are_written(amounts: list[Amount]) -> None:
    assert parse_amounts(format_amounts(amounts)) == tuple(amounts)
    for amount in amounts:
        assert in_unit(amounts, amount.unit) == amount
    assert in_unit(amounts, "XNO") is None


@pytest.mark.parametrize("text", ["1 XNO or 5 raw", "1 sat or 1 sat", "1 sat or", "1 sat or ", " or 1 sat", "1 sat, 1 XNO", "1 sat OR 1 XNO", "", 5, None])
def test_amounts_that_are_no_list_or_name_a_unit_twice_are_refused(text: object) -> None:
    with pytest.raises(AmountError):
        parse_amounts(text)


@given(st.lists(st.integers(0, 2**120), max_size=50))
def test_a_sum_is_exact(parts: list[int]) -> None:
    assert total(parts) == sum(parts)


def test_a_sum_that_is_no_amount_is_refused() -> None:
    assert total([]) == 0
    assert total([MAX_RAW, 0]) == MAX_RAW
    with pytest.raises(AmountError, match="sum is above"):
        total([MAX_RAW, 1])
