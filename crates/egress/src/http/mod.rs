//! HTTP/1.1 as the proxy reads and writes it. Nothing here touches a socket: bytes in, meaning or a refusal out.

pub(crate) mod answer;
pub(crate) mod chunked;
pub(crate) mod head;
pub(crate) mod part;
pub(crate) mod refusal;
pub(crate) mod scan;

#[cfg(test)]
mod tests;
