//! Money: integer micro-credits, what a model call costs, and whose ledger pays. Never a float once a value is
//! inside: floats appear where an operator writes a price and where the wire shows a balance, and nowhere between.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Usage;
use crate::id::InvalidId;
use crate::limits::TOKENS_PER_CALL_MAX;

/// Micro-credits in one credit.
pub const MICRO: i64 = 1_000_000;
/// What one posting may move at most, in credits either way: far from where sums could overflow.
pub const CREDITS_PER_POSTING_MAX: i64 = 1_000_000_000;
/// Dollars in a credit, unless configured otherwise (contract §8).
pub const USD_PER_CREDIT_DEFAULT: f64 = 0.01;

/// An amount of money in millionths of a credit; below zero is owed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroCredits(pub i64);

/// Why a text is not an amount of credits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an amount of credits: digits, at most six behind the point, at most {CREDITS_PER_POSTING_MAX}"
)]
pub struct InvalidAmount(pub String);

impl MicroCredits {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `12`, `-0.5`, `3.000001`: exact, or refused.
    pub fn parse(text: &str) -> Result<Self, InvalidAmount> {
        Self::parsed(text).ok_or_else(|| InvalidAmount(text.chars().take(60).collect()))
    }

    fn parsed(text: &str) -> Option<Self> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |part: &str, digits_max: usize| {
            (1..=digits_max).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !is_number(whole, 10) || !is_number(fraction, 6) {
            return None;
        }
        let micro: i64 = format!("{fraction:0<6}").parse().ok()?;
        let amount = whole.parse::<i64>().ok()?.checked_mul(MICRO)?.checked_add(micro)?;
        (amount <= CREDITS_PER_POSTING_MAX * MICRO).then_some(Self(sign * amount))
    }

    /// From a number that an operator wrote in a configuration; rounded to the nearest micro-credit.
    pub fn from_credits(credits: f64) -> Option<Self> {
        let is_one = credits.is_finite() && credits.abs() <= CREDITS_PER_POSTING_MAX as f64;
        is_one.then(|| Self((credits * MICRO as f64).round() as i64))
    }

    /// As the wire shows it. Exact to the micro-credit up to nine thousand million credits.
    pub fn to_credits(self) -> f64 {
        self.0 as f64 / MICRO as f64
    }

    /// The sum of two, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for MicroCredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, micro) = (self.0.unsigned_abs() / MICRO as u64, self.0.unsigned_abs() % MICRO as u64);
        let fraction = format!("{micro:06}");
        match fraction.trim_end_matches('0') {
            "" => f.pad(&format!("{sign}{whole}")),
            fraction => f.pad(&format!("{sign}{whole}.{fraction}")),
        }
    }
}

/// What a model costs, in micro-credits per million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tariff {
    /// Input that was not read from the upstream's cache.
    pub input: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// Input that the upstream read from its cache.
    pub cache_read: u64,
}

/// The dearest price that is taken, in micro-credits per million tokens: with it and the most tokens that a call can
/// report, a cost is still far from overflowing.
const PRICE_MAX: f64 = 1e15;
/// The most that one call can cost, in micro-credits: a thousand million credits. A ledger has room for thousands of such.
const COST_PER_CALL_MAX: i64 = 1_000_000_000 * MICRO;

impl Tariff {
    /// From dollars per million tokens and dollars per credit; `None` for what is not a price.
    pub fn from_usd(input: f64, output: f64, cache_read: f64, usd_per_credit: f64) -> Option<Self> {
        let price = |usd: f64| {
            let micro = usd / usd_per_credit * MICRO as f64;
            (usd_per_credit > 0.0 && (0.0..=PRICE_MAX).contains(&micro)).then(|| micro.round() as u64)
        };
        Some(Self { input: price(input)?, output: price(output)?, cache_read: price(cache_read)? })
    }

    /// What a call costs: rounded up to the next micro-credit, once per call.
    pub fn cost(&self, usage: &Usage) -> MicroCredits {
        let tokens = |count: u64| u128::from(count.min(TOKENS_PER_CALL_MAX));
        let cached = usage.input_tokens_details.cached_tokens.min(usage.input_tokens);
        let sum = tokens(usage.input_tokens - cached) * u128::from(self.input)
            + tokens(cached) * u128::from(self.cache_read)
            + tokens(usage.output_tokens) * u128::from(self.output);
        MicroCredits(i64::try_from(sum.div_ceil(1_000_000)).unwrap_or(i64::MAX).min(COST_PER_CALL_MAX))
    }
}

/// Whether credits that are not there stop anybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CreditMode {
    /// Debits are recorded and nothing is refused; a balance may fall below zero.
    #[default]
    Soft,
    /// What cannot be paid does not start.
    Hard,
}

/// The name of a ledger: `[a-z0-9-]{1,40}`, as a tenant's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LedgerName(String);

impl LedgerName {
    /// Checks the name's form.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match crate::TenantName::parse(text) {
            Ok(name) => Ok(Self(name.into())),
            Err(InvalidId(text, _)) => Err(InvalidId(text, "ledger name ([a-z0-9-]{1,40})")),
        }
    }

    /// The name as configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LedgerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for LedgerName {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<LedgerName> for String {
    fn from(name: LedgerName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The contract's two models at $0.01 a credit.
    const HIGH: (f64, f64, f64) = (3.0, 15.0, 0.30);
    const PLAIN: (f64, f64, f64) = (0.30, 5.0, 0.10);

    fn tariff((input, output, cache_read): (f64, f64, f64)) -> Tariff {
        Tariff::from_usd(input, output, cache_read, USD_PER_CREDIT_DEFAULT).unwrap()
    }

    #[test]
    fn costs_by_hand() {
        for (prices, usage, expected) in [
            (HIGH, Usage::new(1_000_000, 0, 0, 0), "300"),
            (HIGH, Usage::new(0, 0, 1_000_000, 0), "1500"),
            (HIGH, Usage::new(1_000_000, 1_000_000, 0, 0), "30"),
            (HIGH, Usage::new(1_000_000, 250_000, 10_000, 9_000), "247.5"),
            // One token of input is $0.000003, which is 300 micro-credits.
            (HIGH, Usage::new(1, 0, 0, 0), "0.0003"),
            (PLAIN, Usage::new(1, 0, 1, 0), "0.00053"),
            (PLAIN, Usage::new(1, 1, 0, 0), "0.00001"),
            (PLAIN, Usage::default(), "0"),
            // More cached than sent is an upstream's mistake: all of it was cached, and no more.
            (PLAIN, Usage::new(1_000_000, 5_000_000, 0, 0), "10"),
        ] {
            assert_eq!(tariff(prices).cost(&usage).to_string(), expected, "{prices:?} {usage:?}");
        }
        // A price with less than a micro-credit a token is rounded up per call, and once.
        let cheap = Tariff { input: 400_000, output: 400_000, cache_read: 0 };
        assert_eq!(cheap.cost(&Usage::new(1, 0, 1, 0)), MicroCredits(1));
        assert_eq!(cheap.cost(&Usage::new(5, 0, 0, 0)), MicroCredits(2));
    }

    #[test]
    fn what_is_not_a_price_is_refused() {
        for (input, usd_per_credit) in
            [(-1.0, 0.01), (f64::NAN, 0.01), (f64::INFINITY, 0.01), (1.0, 0.0), (1.0, -0.01), (1e12, 0.01)]
        {
            assert_eq!(Tariff::from_usd(input, 0.0, 0.0, usd_per_credit), None, "{input} {usd_per_credit}");
        }
        let absurd = Usage::new(u64::MAX, 0, u64::MAX, u64::MAX);
        let dearest = Tariff { input: 1e15 as u64, output: 1e15 as u64, cache_read: 0 };
        assert_eq!(dearest.cost(&absurd), MicroCredits(COST_PER_CALL_MAX));
    }

    #[test]
    fn amounts_are_read_exactly_or_not_at_all() {
        for (text, micro) in [
            ("0", 0),
            ("12", 12_000_000),
            ("+1.5", 1_500_000),
            ("-0.000001", -1),
            ("1000000000", 1_000_000_000_000_000),
        ] {
            assert_eq!(MicroCredits::parse(text), Ok(MicroCredits(micro)), "{text}");
        }
        for wrong in
            ["", "-", ".5", "1.", "1.0000001", "1e3", "1,5", " 1", "--1", "1000000000.000001", "99999999999"]
        {
            assert!(MicroCredits::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(MicroCredits::from_credits(0.1), Some(MicroCredits(100_000)));
        for wrong in [f64::NAN, f64::INFINITY, 2e9, -2e9] {
            assert_eq!(MicroCredits::from_credits(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn an_amount_reads_back_as_it_was_shown(micro in -1_000_000_000_000_000_i64..=1_000_000_000_000_000) {
            let amount = MicroCredits(micro);
            prop_assert_eq!(MicroCredits::parse(&amount.to_string()), Ok(amount));
            // What the wire shows is the same number.
            prop_assert_eq!(MicroCredits::from_credits(amount.to_credits()), Some(amount));
        }

        #[test]
        fn a_call_costs_what_its_tokens_cost_rounded_up_once(
            input in 0_u64..2_000_000, cached in 0_u64..2_000_000, output in 0_u64..200_000,
            prices in (0_u64..10_000_000_000, 0_u64..10_000_000_000, 0_u64..10_000_000_000),
        ) {
            let tariff = Tariff { input: prices.0, output: prices.1, cache_read: prices.2 };
            let cost = tariff.cost(&Usage::new(input, cached, output, 0)).0 as u128 * 1_000_000;
            let cached = cached.min(input);
            let exact = u128::from(input - cached) * u128::from(prices.0)
                + u128::from(cached) * u128::from(prices.2) + u128::from(output) * u128::from(prices.1);
            prop_assert!(cost >= exact && cost < exact + 1_000_000);
        }
    }
}
