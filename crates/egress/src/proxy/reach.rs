//! Whether an upstream can be reached: a connection as a model call would make it, judged and recorded like any other, over which
//! nothing is said.

use std::sync::Arc;

use super::{DoorState, Proxy, WayOut, open};
use crate::{Destination, DoorLimits, Endpoint, Principal, Reason, Scheme};

impl Proxy {
    /// Connects to where calls to this URL go, with TLS where they have it, and hangs up.
    pub async fn reaches(&self, url: &str) -> Result<(), Reason> {
        let endpoint = Endpoint::of_url(url).map_err(|_| Reason::TargetRefused)?;
        let asked = Destination { scheme: Scheme::Http, ..Destination::from_authority(&endpoint.host_port)? };
        let destination = self.shared.policy.load().outward(&Principal::Router, asked);
        let door = DoorState::new(&self.shared, Principal::Router, DoorLimits::default());
        let door = Arc::new(door.map_err(|_| Reason::TlsFailed)?);
        let request = open::Request { destination: &destination, method: "PROBE", path: "/" };
        let opened = open::open(&self.shared, &door, request, None, |_| Ok(None)).await?;
        opened.way.close(Reason::Done, None).await;
        Ok(())
    }
}

impl WayOut {
    /// The same; `None` where the proxy is in another process, which alone could say.
    pub async fn reaches(&self, url: &str) -> Option<Result<(), Reason>> {
        match self {
            Self::Here(proxy) => Some(proxy.reaches(url).await),
            Self::There(_) => None,
        }
    }
}
