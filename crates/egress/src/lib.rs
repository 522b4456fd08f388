//! The door out: the transport that attaches credentials.
