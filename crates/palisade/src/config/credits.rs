//! What a configuration says about money and limits, put together per ledger: tenants that name one ledger may not
//! say different things about it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use palisade_protocol::money::{CreditMode, Tariff, USD_PER_CREDIT_DEFAULT};
use palisade_protocol::rate::{RateLimits, WindowLimit};
use palisade_protocol::{LedgerName, MicroCredits, TenantName, limits};
use palisade_runtime::LedgerConfig;
use serde::Deserialize;

use super::{Config, PriceSection, TenantSection};

/// `[credits]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CreditsSection {
    /// What a credit is worth. Prices are dollars, ledgers are credits.
    pub(crate) usd_per_credit: f64,
}

/// `[[tenant]] credits`: of the tenant's ledger, and so of every tenant that names it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantCreditsSection {
    /// `soft` records debits and never refuses, `hard` refuses what cannot be paid.
    pub(crate) mode: Option<CreditMode>,
    /// What the ledger is opened with, once; `palisade admin credits` changes a ledger that is there.
    pub(crate) balance: Option<f64>,
    /// In `hard` mode: no turn starts with less.
    pub(crate) minimum: Option<f64>,
}

/// `[[tenant]] limits`: what a tenant may have.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsSection {
    /// Sessions at a time.
    pub(crate) concurrent_sessions: u64,
    /// How long a turn may run, all attempts together.
    pub(crate) turn_timeout_s: u64,
    /// The lifetime of sessions that ask for none.
    pub(crate) session_ttl_s: u64,
    /// The longest lifetime that a session may ask for.
    pub(crate) session_ttl_max_s: u64,
    /// Per token of the tenant and per bucket, as the next three. Both of a window 0: the window is switched off.
    pub(crate) turns_per_hour: u64,
    pub(crate) tokens_per_hour: u64,
    pub(crate) turns_per_day: u64,
    pub(crate) tokens_per_day: u64,
}

impl Default for CreditsSection {
    fn default() -> Self {
        Self { usd_per_credit: USD_PER_CREDIT_DEFAULT }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        let RateLimits([hour, day]) = RateLimits::default();
        let of =
            |window: Option<WindowLimit>| window.map_or((0, 0), |limit| (limit.turns_max, limit.tokens_max));
        Self {
            concurrent_sessions: limits::CONCURRENT_SESSIONS_DEFAULT,
            turn_timeout_s: limits::TURN_TIMEOUT_DEFAULT_S,
            session_ttl_s: limits::TTL_DEFAULT_S,
            session_ttl_max_s: limits::TTL_MAX_S,
            turns_per_hour: of(hour).0,
            tokens_per_hour: of(hour).1,
            turns_per_day: of(day).0,
            tokens_per_day: of(day).1,
        }
    }
}

impl LimitsSection {
    pub(super) fn check(&self, tenant: &TenantName) -> Result<()> {
        let name = tenant.as_str();
        if self.concurrent_sessions == 0 {
            bail!("tenant {name:?} may have no sessions, so nobody could use it");
        }
        for (key, seconds) in [
            ("turn_timeout_s", self.turn_timeout_s),
            ("session_ttl_s", self.session_ttl_s),
            ("session_ttl_max_s", self.session_ttl_max_s),
        ] {
            if !(1..=limits::TTL_MAX_S).contains(&seconds) {
                bail!(
                    "tenant {name:?} has limits.{key} = {seconds}; from 1 to {} s are possible",
                    limits::TTL_MAX_S
                );
            }
        }
        if self.session_ttl_s > self.session_ttl_max_s {
            bail!(
                "tenant {name:?} has limits.session_ttl_s = {}, and a session may have session_ttl_max_s = {} at most",
                self.session_ttl_s,
                self.session_ttl_max_s
            );
        }
        for (window, turns, tokens) in [
            ("hour", self.turns_per_hour, self.tokens_per_hour),
            ("day", self.turns_per_day, self.tokens_per_day),
        ] {
            if (turns == 0) != (tokens == 0) {
                bail!(
                    "tenant {name:?}: 0 switches the {window}'s window off, so limits.turns_per_{window} and \
                     limits.tokens_per_{window} are both 0 or neither is"
                );
            }
            if turns.max(tokens) > i64::MAX.unsigned_abs() {
                bail!("tenant {name:?} has a limit per {window} that no counter reaches; 0 switches it off");
            }
        }
        Ok(())
    }

    /// What the windows let through.
    pub(crate) fn rate(&self) -> RateLimits {
        let window = |turns_max, tokens_max| (turns_max > 0).then_some(WindowLimit { turns_max, tokens_max });
        RateLimits([
            window(self.turns_per_hour, self.tokens_per_hour),
            window(self.turns_per_day, self.tokens_per_day),
        ])
    }
}

impl CreditsSection {
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        let rate = self.usd_per_credit;
        if !rate.is_finite() || rate <= 0.0 {
            bail!("[credits] usd_per_credit = {rate}: a credit is worth more than nothing");
        }
        for (name, model) in &config.model {
            let PriceSection { input, output, cache_read } = model.price;
            // What is no price at all is for the catalog to say.
            let is_price = [input, output, cache_read].iter().all(|usd| usd.is_finite() && *usd >= 0.0);
            if is_price && Tariff::from_usd(input, output, cache_read, rate).is_none() {
                bail!(
                    "model {name:?} costs more credits than can be counted; is [credits] usd_per_credit right?"
                );
            }
        }
        Ok(())
    }
}

impl TenantSection {
    /// The ledger that it spends from.
    pub(crate) fn ledger(&self) -> Result<Option<LedgerName>> {
        match (&self.ledger, &self.credits) {
            (Some(ledger), _) => Ok(Some(ledger.clone())),
            (None, Some(_)) => Ok(Some(LedgerName::parse(self.name.as_str())?)),
            (None, None) => Ok(None),
        }
    }
}

/// What has been said of one ledger so far, each with the tenant that said it.
#[derive(Default)]
struct Said<'a> {
    mode: Option<(CreditMode, &'a TenantName)>,
    opening: Option<(MicroCredits, &'a TenantName)>,
    minimum: Option<(MicroCredits, &'a TenantName)>,
}

impl Config {
    /// Every ledger that a tenant names. Tenants of one ledger each may say something about it or nothing, and not
    /// different things.
    pub(crate) fn ledgers(&self) -> Result<Vec<LedgerConfig>> {
        let mut ledgers: BTreeMap<LedgerName, Said<'_>> = BTreeMap::new();
        for tenant in &self.tenant {
            let Some(ledger) = tenant.ledger()? else { continue };
            let said = ledgers.entry(ledger.clone()).or_default();
            let Some(credits) = &tenant.credits else { continue };
            agree(&ledger, "mode", &mut said.mode, credits.mode, &tenant.name)?;
            let amount = |key, credits: Option<f64>| amount(&tenant.name, key, credits);
            let (opening, minimum) =
                (amount("balance", credits.balance)?, amount("minimum", credits.minimum)?);
            agree(&ledger, "balance", &mut said.opening, opening, &tenant.name)?;
            agree(&ledger, "minimum", &mut said.minimum, minimum, &tenant.name)?;
        }
        if ledgers.len() > limits::LEDGERS_MAX {
            bail!("there are {} ledgers; at most {} are possible", ledgers.len(), limits::LEDGERS_MAX);
        }
        let minimum_default = MicroCredits::from_credits(limits::CREDITS_PER_TURN_MIN).unwrap_or_default();
        let ledger = |(name, said): (LedgerName, Said<'_>)| LedgerConfig {
            name,
            mode: said.mode.map_or(CreditMode::default(), |(mode, _)| mode),
            opening: said.opening.map(|(amount, _)| amount),
            minimum: said.minimum.map_or(minimum_default, |(amount, _)| amount),
        };
        Ok(ledgers.into_iter().map(ledger).collect())
    }
}

fn amount(tenant: &TenantName, key: &str, credits: Option<f64>) -> Result<Option<MicroCredits>> {
    let Some(credits) = credits else { return Ok(None) };
    MicroCredits::from_credits(credits).filter(|amount| *amount >= MicroCredits::ZERO).map(Some).with_context(
        || {
            format!(
                "tenant {:?} has credits.{key} = {credits}, which is no amount of credits",
                tenant.as_str()
            )
        },
    )
}

fn agree<'a, T: PartialEq>(
    ledger: &LedgerName,
    key: &str,
    said: &mut Option<(T, &'a TenantName)>,
    now: Option<T>,
    tenant: &'a TenantName,
) -> Result<()> {
    match (&said, now) {
        (Some((before, who)), Some(now)) if *before != now => bail!(
            "the tenants {:?} and {:?} share the ledger {ledger:?} and name different values of credits.{key}; name it \
             once, or the same twice",
            who.as_str(),
            tenant.as_str(),
            ledger = ledger.as_str(),
        ),
        (None, Some(now)) => *said = Some((now, tenant)),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config> {
        Config::parse(text)
    }

    fn tenant(name: &str, more: &str) -> String {
        format!("[[tenant]]\nname = \"{name}\"\ntokens = [{{id = \"t\", key = \"env:X\"}}]\n{more}\n")
    }

    #[test]
    fn paired_tenants_have_one_ledger() {
        let text = tenant("acme", "credits = { mode = \"hard\", balance = 100.5, minimum = 2 }")
            + &tenant("acme-offline", "ledger = \"acme\"")
            + &tenant("alone", "ledger = \"other\"")
            + &tenant("free", "");
        let config = parsed(&text).unwrap();
        let micro = |credits| MicroCredits::from_credits(credits).unwrap();
        let ledger = |name: &str, mode, opening, minimum| LedgerConfig {
            name: LedgerName::parse(name).unwrap(),
            mode,
            opening,
            minimum,
        };
        assert_eq!(
            config.ledgers().unwrap(),
            [
                ledger("acme", CreditMode::Hard, Some(micro(100.5)), micro(2.0)),
                ledger("other", CreditMode::Soft, None, micro(1.0)),
            ]
        );
        let names: Vec<_> =
            config.tenant.iter().map(|t| t.ledger().unwrap().map(|l| l.to_string())).collect();
        assert_eq!(names, [Some("acme".into()), Some("acme".into()), Some("other".into()), None]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let acme = |more: &str| tenant("acme", more);
        for (text, said) in [
            (
                acme("credits = { balance = 1 }") + &tenant("b", "ledger = \"acme\"\ncredits = { balance = 2 }"),
                "\"acme\" and \"b\" share the ledger \"acme\" and name different values of credits.balance",
            ),
            (
                acme("credits = { mode = \"soft\" }")
                    + &tenant("b", "ledger = \"acme\"\ncredits = { mode = \"hard\" }"),
                "credits.mode",
            ),
            (acme("credits = { balance = -1 }"), "credits.balance = -1"),
            (acme("credits = { balance = 1e12 }"), "no amount"),
            (acme("credits = { mode = \"firm\" }"), "line 4"),
            (acme("ledger = \"A B\""), "ledger name"),
            (acme("limits = { turns_per_hour = 0 }"), "both 0 or neither"),
            (acme("limits = { tokens_per_day = 0 }"), "turns_per_day"),
            (acme("limits = { turn_timeout_s = 0 }"), "turn_timeout_s = 0"),
            (acme("limits = { session_ttl_s = 7200, session_ttl_max_s = 3600 }"), "3600 at most"),
            (acme("limits = { workspace_gb = 100 }"), "workspace_gb"),
            ("[credits]\nusd_per_credit = 0\n".to_owned(), "usd_per_credit"),
            (
                "[credits]\nusd_per_credit = 1e-12\n[[upstream]]\nname = \"u\"\ndialect = \"openai-chat\"\nbase_url = \"http://h/v1\"\n\
                 [model.m]\nupstream = \"u\"\nupstream_model = \"x\"\nprice = { input = 1e9 }\n"
                    .to_owned(),
                "costs more credits",
            ),
        ] {
            let error = format!("{:#}", parsed(&text).expect_err(&text));
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn limits_are_the_contracts_unless_written_otherwise() {
        let config = parsed(
            &(tenant("a", "")
                + &tenant("b", "limits = { turns_per_hour = 0, tokens_per_hour = 0,\n  turns_per_day = 7 }")),
        )
        .unwrap();
        assert_eq!(config.tenant[0].limits.rate(), RateLimits::default());
        let day = WindowLimit { turns_max: 7, tokens_max: 200_000_000 };
        assert_eq!(config.tenant[1].limits.rate(), RateLimits([None, Some(day)]));
        assert_eq!(config.tenant[0].limits.turn_timeout_s, 5400);
    }
}
