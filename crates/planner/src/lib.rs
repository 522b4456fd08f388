//! The built-in demo planner: a deterministic stand-in for a model.
