//! The pure step function, the prompt and the tool definitions.
