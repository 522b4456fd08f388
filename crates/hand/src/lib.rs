//! The executor inside the sandbox.
