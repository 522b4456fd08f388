//! What things cost and who pays: the models' tariffs and the ledgers' terms, as configured. The amounts themselves
//! are the store's; nothing here remembers a balance.

use std::collections::HashMap;

use palisade_inference::Catalog;
use palisade_protocol::limits::{OUTPUT_TOKENS_RESERVED, PROMPT_BYTES_PER_TOKEN};
use palisade_protocol::money::{CreditMode, Tariff};
use palisade_protocol::prompt::PromptMessage;
use palisade_protocol::{LedgerName, MicroCredits, Prompt, Usage};

use palisade_store::{Charge, TurnAccount};

use crate::tenant::TenantConfig;
use crate::{OpCtx, StartError};

/// What an operator says about a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerConfig {
    /// What tenants call it.
    pub name: LedgerName,
    /// Whether it refuses what cannot be paid.
    pub mode: CreditMode,
    /// What it is opened with, once.
    pub opening: Option<MicroCredits>,
    /// In hard mode: no turn starts with less.
    pub minimum: MicroCredits,
}

/// Tariffs and terms.
pub(crate) struct Billing {
    tariffs: HashMap<String, Tariff>,
    ledgers: HashMap<LedgerName, LedgerConfig>,
}

impl Billing {
    pub(crate) fn new(
        catalog: &Catalog,
        usd_per_credit: f64,
        ledgers: Vec<LedgerConfig>,
    ) -> Result<Self, StartError> {
        let mut tariffs = HashMap::new();
        for model in catalog.models() {
            let price = model.price;
            let tariff = Tariff::from_usd(price.input, price.output, price.cache_read, usd_per_credit)
                .ok_or_else(|| StartError::Price { model: model.name.clone() })?;
            tariffs.insert(model.name.clone(), tariff);
        }
        let ledgers = ledgers.into_iter().map(|ledger| (ledger.name.clone(), ledger)).collect();
        Ok(Self { tariffs, ledgers })
    }

    /// The terms of a tenant's ledger; `None` for one that has none.
    pub(crate) fn terms(&self, tenant: &TenantConfig) -> Option<&LedgerConfig> {
        tenant.ledger.as_ref().and_then(|name| self.ledgers.get(name))
    }

    /// Who starts a turn, what that caller may use, and who pays.
    pub(crate) fn account(&self, ctx: &OpCtx, tenant: &TenantConfig) -> TurnAccount {
        let charge = self.terms(tenant).map(|terms| Charge {
            ledger: terms.name.clone(),
            mode: terms.mode,
            minimum: terms.minimum,
        });
        TurnAccount { caller: ctx.token_id().to_owned(), rate: tenant.rate, charge }
    }

    /// Every ledger that is configured.
    pub(crate) fn ledgers(&self) -> impl Iterator<Item = &LedgerConfig> {
        self.ledgers.values()
    }

    /// The terms of a ledger that is configured.
    pub(crate) fn ledger(&self, name: &LedgerName) -> Option<&LedgerConfig> {
        self.ledgers.get(name)
    }

    /// What a call cost. A model that has left the catalog since costs nothing any more.
    pub(crate) fn cost(&self, model: &str, usage: &Usage) -> MicroCredits {
        self.tariffs.get(model).map_or(MicroCredits::ZERO, |tariff| tariff.cost(usage))
    }

    /// What a call will cost, as far as can be said before it: no part of the prompt is cached, and the answer is of
    /// usual length.
    pub(crate) fn estimate(&self, model: &str, prompt: &Prompt) -> MicroCredits {
        let input = prompt_bytes(prompt).div_ceil(PROMPT_BYTES_PER_TOKEN);
        let output = prompt.output_tokens_max.map_or(OUTPUT_TOKENS_RESERVED, u64::from);
        self.cost(model, &Usage::new(input, 0, output, 0))
    }
}

fn prompt_bytes(prompt: &Prompt) -> u64 {
    let messages = prompt.messages.iter().map(|message| match message {
        PromptMessage::User(text) => text.len(),
        PromptMessage::Assistant { text, calls, .. } => {
            text.len() + calls.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>()
        }
        PromptMessage::ToolResult { content, .. } => content.len(),
    });
    let tools = prompt
        .tools
        .iter()
        .map(|tool| tool.name.len() + tool.description.len() + tool.parameters.to_string().len());
    (prompt.system.len() + messages.sum::<usize>() + tools.sum::<usize>()) as u64
}

#[cfg(test)]
mod tests {
    use palisade_inference::{Dialect, ModelConfig, Price, UpstreamConfig};
    use palisade_protocol::ToolDefinition;

    use super::*;

    fn billing() -> Billing {
        let upstream = UpstreamConfig {
            name: "u".into(),
            dialect: Dialect::OpenAiChat,
            base_url: "http://127.0.0.1:1/v1".into(),
            credential: None,
        };
        let model = ModelConfig {
            name: "m".into(),
            upstreams: vec!["u".into()],
            upstream_model: "x".into(),
            price: Price { input: 1.0, output: 10.0, cache_read: 0.1 },
        };
        Billing::new(&Catalog::new(vec![upstream], vec![model]).unwrap(), 0.01, Vec::new()).unwrap()
    }

    fn prompt(system: &str, messages: Vec<PromptMessage>, tools: Vec<ToolDefinition>) -> Prompt {
        Prompt { system: system.into(), messages, tools, output_tokens_max: None }
    }

    #[test]
    fn an_estimate_counts_everything_that_is_sent() {
        let billing = billing();
        let answer = billing.cost("m", &Usage::new(0, 0, OUTPUT_TOKENS_RESERVED, 0));
        // 3 bytes a token, 100 micro-credits a token of input.
        let of_input = |prompt: &Prompt| billing.estimate("m", prompt).0 - answer.0;
        assert_eq!(of_input(&prompt("", vec![], vec![])), 0);
        assert_eq!(of_input(&prompt(&"x".repeat(300), vec![], vec![])), 10_000);
        let words = PromptMessage::User("x".repeat(299));
        assert_eq!(of_input(&prompt("", vec![words], vec![])), 10_000, "rounded up");
        let result =
            PromptMessage::ToolResult { call_id: "c".into(), content: "x".repeat(300), is_error: false };
        assert_eq!(of_input(&prompt("", vec![result], vec![])), 10_000);
        let tool = ToolDefinition {
            name: "t".repeat(10),
            description: "d".repeat(288),
            parameters: serde_json::json!({}),
        };
        assert_eq!(of_input(&prompt("", vec![], vec![tool])), 10_000);
        let bounded = Prompt { output_tokens_max: Some(0), ..prompt("", vec![], vec![]) };
        assert_eq!(billing.estimate("m", &bounded), MicroCredits::ZERO);
    }

    #[test]
    fn a_model_that_is_not_in_the_catalog_costs_nothing() {
        assert_eq!(billing().cost("gone", &Usage::new(1000, 0, 1000, 0)), MicroCredits::ZERO);
    }
}
