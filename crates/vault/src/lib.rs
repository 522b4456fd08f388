//! The only room that handles keys and secrets.
