//! What can go wrong in serving the planner; what it refuses to do is an answer and not an error.

/// An error of the planner's server.
#[derive(Debug, thiserror::Error)]
pub enum PlannerError {
    /// The listener is reachable from other machines.
    #[error("the demo planner listens on loopback only, not on {0}")]
    NotLoopback(std::net::SocketAddr),
    /// The listener's own address could not be read.
    #[error("reading the address of the demo planner's listener")]
    Address(#[source] std::io::Error),
    /// Serving ended.
    #[error("serving the demo planner")]
    Serve(#[source] std::io::Error),
    /// The body is no chat-completions request.
    #[error("the body is not a chat-completions request: {0}")]
    BadRequest(#[source] serde_json::Error),
}
