//! The dialect of OpenAI's chat completions, streaming: the request it wants and the stream it answers, with
//! the habits of the many servers that speak it too.

mod calls;
mod request;
mod stream;
mod wire;

pub use request::request_body;
pub use stream::{ChatStream, Yield};
pub(crate) use wire::error_message;
