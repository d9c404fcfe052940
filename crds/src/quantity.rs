//! Kubernetes quantities as whole numbers. Pure.

use crate::Quantity;

/// The quantity in base units (bytes for sizes), rounded up; `None` when it is negative, malformed or above 2⁶³.
///
/// Grammar: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
pub fn units(quantity: &Quantity) -> Option<u64> {
    scaled(quantity, 1)
}

/// The quantity in thousandths (for CPUs), rounded up; `None` as for [`units`].
pub fn thousandths(quantity: &Quantity) -> Option<u64> {
    scaled(quantity, 1000)
}

/// `bytes` as the shortest exact binary quantity, such as `512Mi`.
pub fn from_bytes(bytes: u64) -> Quantity {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut value, mut unit) = (bytes, 0);
    while value != 0 && value % 1024 == 0 && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    Quantity(format!("{value}{}", UNITS[unit]))
}

fn scaled(quantity: &Quantity, scale: u128) -> Option<u64> {
    let text = quantity.0.strip_prefix('+').unwrap_or(&quantity.0);
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.is_empty() || number.len() > 30 || fraction.contains('.') || whole.len() + fraction.len() == 0 {
        return None;
    }
    let (multiplier, divisor) = factor(suffix)?;
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = divisor.checked_mul(10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let value = mantissa.checked_mul(multiplier)?.checked_mul(scale)?.div_ceil(divisor);
    u64::try_from(value).ok().filter(|v| *v <= i64::MAX as u64)
}

/// Multiplier and divisor of a suffix.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1024u128.pow(power), 1));
    let decimal = |power: i32| {
        let ten = 10u128.checked_pow(power.unsigned_abs())?;
        Some(if power < 0 { (1, ten) } else { (ten, 1) })
    };
    match suffix {
        "" => Some((1, 1)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        exponent => decimal(exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|e: &i32| e.abs() <= 18)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity(text.into())
    }

    #[test]
    fn a_quantity_is_read_as_the_api_server_reads_it() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("1k", 1000),
            ("2E", 2_000_000_000_000_000_000),
            ("1e3", 1000),
            ("100m", 1),
            (".5Ki", 512),
            ("+5", 5),
        ] {
            assert_eq!(units(&quantity(text)), Some(bytes), "{text}");
        }
        assert_eq!(thousandths(&quantity("1.5")), Some(1500));
        assert_eq!(thousandths(&quantity("250m")), Some(250));
    }

    #[test]
    fn what_is_no_quantity_or_too_large_is_none() {
        for text in ["", "-1", "Gi", "1 Gi", "1Xi", "1.2.3", "16Ei", "1e99", ".", "é"] {
            assert_eq!(units(&quantity(text)), None, "{text}");
        }
    }

    #[test]
    fn bytes_are_written_in_the_largest_unit_that_is_exact() {
        for (bytes, text) in [(0, "0"), (1024, "1Ki"), (1536, "1536"), (1 << 30, "1Gi"), (3 << 19, "1536Ki")] {
            assert_eq!(from_bytes(bytes).0, text);
            assert_eq!(units(&from_bytes(bytes)), Some(bytes));
        }
    }
}
