//! Token counts in the shape of OpenAI's Responses API (contract §4).

use serde::{Deserialize, Serialize};

/// Tokens of one model call, or the sum over a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Usage {
    /// Tokens sent to the model, cached ones included.
    pub input_tokens: u64,
    /// Part of the input that the upstream served from its cache.
    pub input_tokens_details: InputDetails,
    /// Tokens the model produced, reasoning included.
    pub output_tokens: u64,
    /// Part of the output that was reasoning.
    pub output_tokens_details: OutputDetails,
    /// Input plus output.
    pub total_tokens: u64,
}

/// See [`Usage::input_tokens_details`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InputDetails {
    /// Tokens read from the upstream's prompt cache.
    pub cached_tokens: u64,
}

/// See [`Usage::output_tokens_details`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutputDetails {
    /// Tokens spent on reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Counts from an upstream; the total is ours, because upstreams disagree about theirs.
    pub fn new(input: u64, cached: u64, output: u64, reasoning: u64) -> Self {
        Self {
            input_tokens: input,
            input_tokens_details: InputDetails { cached_tokens: cached },
            output_tokens: output,
            output_tokens_details: OutputDetails { reasoning_tokens: reasoning },
            total_tokens: input.saturating_add(output),
        }
    }

    /// The sum of two, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::new(
            self.input_tokens.saturating_add(other.input_tokens),
            self.input_tokens_details.cached_tokens.saturating_add(other.input_tokens_details.cached_tokens),
            self.output_tokens.saturating_add(other.output_tokens),
            self.output_tokens_details
                .reasoning_tokens
                .saturating_add(other.output_tokens_details.reasoning_tokens),
        )
    }
}
