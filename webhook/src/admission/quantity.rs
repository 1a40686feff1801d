//! Amounts of CPU and memory, as Kubernetes writes them: `10m`, `0.5`, `64Mi`, `1e3`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// An amount that is at least 0, in the notation of Kubernetes' `resource.Quantity`
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).
///
/// Two quantities are equal when they say the same amount, however they are written.
#[derive(Clone)]
pub struct Quantity {
    text: String,
    /// In billionths, the finest that Kubernetes knows.
    nanos: i128,
}

/// Text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no quantity: write digits and one of n, u, m, k, M, G, T, Ki, Mi, Gi, Ti, such as 10m or 64Mi"
)]
pub struct QuantityError(String);

impl Quantity {
    /// The amount as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError(text.chars().take(32).collect());
        let number_ends =
            text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(number_ends);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // More digits can't be meant, and can't overflow what follows.
        if whole.len() + fraction.len() == 0 || whole.len() + fraction.len() > 18 {
            return Err(error());
        }
        let mantissa: i128 = format!("{whole}{fraction}").parse().map_err(|_| error())?;
        let (base, exponent) = scale(suffix).ok_or_else(error)?;
        let factor = i128::from(base)
            .checked_pow(exponent.unsigned_abs())
            .filter(|factor| *factor <= 1 << 64)
            .ok_or_else(error)?;
        let divisor = 10_i128.pow(fraction.len() as u32);
        let nanos = if exponent < 0 {
            div_ceil(mantissa * 1_000_000_000, divisor * factor)
        } else {
            div_ceil((mantissa * 1_000_000_000).checked_mul(factor).ok_or_else(error)?, divisor)
        };
        Ok(Self { text: text.to_owned(), nanos })
    }
}

/// Kubernetes rounds up what is finer than a billionth.
fn div_ceil(dividend: i128, divisor: i128) -> i128 {
    (dividend + divisor - 1) / divisor
}

/// Base and exponent that a suffix stands for.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "" => (10, 0),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        _ => (10, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// A quantity, or `none` for none at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaybeQuantity(pub Option<Quantity>);

impl FromStr for MaybeQuantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse().map(Some).map(Self),
        }
    }
}

impl fmt::Display for MaybeQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or("none", Quantity::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::{MaybeQuantity, Quantity};

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn notations_of_one_amount_are_equal() {
        for (one, other) in [
            ("1", "1000m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1024Ki", "1Mi"),
            ("1e3", "1k"),
            ("1E3", "1000"),
            ("1E", "1000P"),
            ("0.1n", "1n"),
            ("10e-3", "10m"),
        ] {
            assert_eq!(quantity(one), quantity(other), "{one} and {other}");
        }
    }

    #[test]
    fn amounts_are_ordered() {
        for (less, more) in [("10m", "1"), ("1M", "1Mi"), ("32m", "32Mi"), ("0", "1n")] {
            assert!(quantity(less) < quantity(more), "{less} and {more}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            "m",
            ".",
            "-1",
            "+1",
            "1.2.3",
            "64MB",
            "1 Mi",
            "1e",
            "1e99",
            "ten",
            "9999999999999999999",
            "999999999999999999Ei",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn none_is_no_quantity() {
        assert_eq!("none".parse(), Ok(MaybeQuantity(None)));
        assert_eq!("1".parse(), Ok(MaybeQuantity(Some(quantity("1")))));
        assert!("None".parse::<MaybeQuantity>().is_err());
    }
}
