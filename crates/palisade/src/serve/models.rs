//! The catalog from the configuration, with the way out; or the built-in planner when no model is configured.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use palisade_egress::{Credentials, DoorLimits, Endpoint, Principal, WayOut};
use palisade_inference::{Catalog, CredentialRef, ModelConfig, Price, Router, Timeouts, UpstreamConfig};
use palisade_runtime::ProxyTransport;
use tokio::net::TcpListener;

use crate::config::{Config, PriceSection};

/// The contract's two models and their prices in $/M (contract §8): what a server without a configuration offers.
const DEFAULT_MODELS: [(&str, Price); 2] = [
    ("pokee-isaac-high-reasoning", Price { input: 3.0, output: 15.0, cache_read: 0.30 }),
    ("pokee-isaac", Price { input: 0.30, output: 5.0, cache_read: 0.10 }),
];
/// The planner's place in the catalog.
const PLANNER: &str = "demo-planner";

/// What the configuration says, with its secrets read.
pub(crate) struct Upstreams {
    upstreams: Vec<UpstreamConfig>,
    credentials: Credentials,
    is_demo_planner: bool,
}

/// Ready to be asked.
pub(crate) struct Models {
    pub(crate) router: Router,
    pub(crate) default_model: String,
    pub(crate) is_demo_planner: bool,
}

impl Upstreams {
    /// Reads the upstreams' keys.
    pub(crate) fn read(config: &Config) -> Result<Self> {
        let mut read =
            Self { upstreams: Vec::new(), credentials: Credentials::new(), is_demo_planner: false };
        for section in &config.upstream {
            let credential = section.api_key.as_ref().map(|_| CredentialRef::new(&section.name));
            // A proxy in another process has the keys, and this one none.
            if let (Some(key), None) = (&section.api_key, &config.egress.via) {
                read.credentials.insert(&section.name, key.read()?);
            }
            read.upstreams.push(UpstreamConfig {
                name: section.name.clone(),
                dialect: section.dialect.parse()?,
                base_url: section.base_url.clone(),
                credential,
            });
        }
        Ok(read)
    }

    /// Starts the planner when there is nothing else.
    pub(crate) async fn or_planner(mut self) -> Result<Self> {
        if self.upstreams.is_empty() {
            self.upstreams.push(start_planner(&mut self.credentials).await?);
            self.is_demo_planner = true;
        }
        Ok(self)
    }

    /// Where the planner is, for the policy: no configuration names it.
    pub(crate) fn planner_endpoint(&self) -> Result<Option<Endpoint>> {
        let planner = self.upstreams.first().filter(|_| self.is_demo_planner);
        Ok(planner.map(|planner| Endpoint::of_url(&planner.base_url)).transpose()?)
    }

    /// The keys, for the proxy.
    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }
}

/// Builds the catalog, with the proxy as its only way out.
pub(crate) async fn start(config: &Config, read: Upstreams, way_out: &WayOut) -> Result<Models> {
    let Upstreams { upstreams, is_demo_planner, .. } = read;
    let models = match is_demo_planner {
        true => DEFAULT_MODELS.map(|(name, price)| planner_model(name, price)).into(),
        false => configured_models(config),
    };
    // The contract's default where it is offered, else the first by name.
    let preferred = models.iter().find(|model: &&ModelConfig| model.name == DEFAULT_MODELS[0].0);
    let default_model = preferred.or(models.first()).map(|model| model.name.clone()).unwrap_or_default();
    let catalog = Catalog::new(upstreams, models)?;
    check_defaults(config, &catalog)?;
    let door =
        way_out.door(Principal::Router, DoorLimits { bytes_max: u64::MAX, ..DoorLimits::default() }).await?;
    let transport = Arc::new(ProxyTransport::new(door));
    let limits = &config.inference;
    let timeouts = Timeouts {
        head: Duration::from_secs(limits.head_timeout_s),
        idle: Duration::from_secs(limits.idle_timeout_s),
        whole: Duration::from_secs(limits.call_timeout_s),
        ..Timeouts::default()
    };
    Ok(Models { router: Router::new(catalog, transport, timeouts), default_model, is_demo_planner })
}

/// Every tenant's default is among these models.
pub(crate) fn check_defaults(config: &Config, catalog: &Catalog) -> Result<()> {
    for tenant in &config.tenant {
        if let Some(model) = &tenant.default_model
            && catalog.model(model).is_none()
        {
            anyhow::bail!(
                "tenant {:?} has default_model = {model:?}, and there is no such [model]",
                tenant.name.as_str()
            );
        }
    }
    Ok(())
}

fn configured_models(config: &Config) -> Vec<ModelConfig> {
    let model = |(name, section): (&String, &crate::config::ModelSection)| {
        let PriceSection { input, output, cache_read } = section.price;
        ModelConfig {
            name: name.clone(),
            upstreams: section.upstream.clone().into(),
            upstream_model: section.upstream_model.clone(),
            price: Price { input, output, cache_read },
        }
    };
    config.model.iter().map(model).collect()
}

fn planner_model(name: &str, price: Price) -> ModelConfig {
    ModelConfig {
        name: name.to_owned(),
        upstreams: vec![PLANNER.to_owned()],
        upstream_model: palisade_planner::MODEL_NAME.to_owned(),
        price,
    }
}

/// On a loopback port of its own, behind a token that only this process knows.
async fn start_planner(credentials: &mut Credentials) -> Result<UpstreamConfig> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("opening a port for the demo planner")?;
    let address = listener.local_addr()?;
    let token = palisade_vault::random_hex::<24>()?;
    credentials.insert(PLANNER, token.clone().into());
    // It ends with the process: it holds nothing that could be lost.
    tokio::runtime::Handle::current().spawn(async move {
        if let Err(error) = palisade_planner::serve(listener, token, std::future::pending()).await {
            tracing::error!(error = %palisade_protocol::chain(&error), "the demo planner stopped");
        }
    });
    Ok(UpstreamConfig {
        name: PLANNER.to_owned(),
        dialect: palisade_inference::Dialect::OpenAiChat,
        base_url: format!("http://{address}/v1"),
        credential: Some(CredentialRef::new(PLANNER)),
    })
}
