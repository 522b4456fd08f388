//! The catalog: which models there are, what they cost, and which upstreams serve them in which order. Built
//! once from plain values, and checked then, so that a call never fails for a mistake in the configuration.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use http::Uri;
use palisade_protocol::limits::UPSTREAMS_PER_MODEL_MAX;

use crate::CredentialRef;

/// A wire dialect of upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI chat completions.
    OpenAiChat,
}

impl FromStr for Dialect {
    type Err = CatalogError;

    fn from_str(name: &str) -> Result<Self, CatalogError> {
        match name {
            "openai-chat" => Ok(Self::OpenAiChat),
            _ => Err(CatalogError::UnknownDialect { dialect: name.to_owned() }),
        }
    }
}

/// Where models are really served, as configured.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// What models call it.
    pub name: String,
    /// How it is spoken to.
    pub dialect: Dialect,
    /// Everything before `/chat/completions`.
    pub base_url: String,
    /// The key that belongs to it, by name.
    pub credential: Option<CredentialRef>,
}

/// A name of the catalog, as configured.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// What clients call it.
    pub name: String,
    /// Who serves it, tried in this order.
    pub upstreams: Vec<String>,
    /// What the upstreams call it.
    pub upstream_model: String,
    /// What it costs.
    pub price: Price,
}

/// Dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Price {
    /// Input tokens that were not cached.
    pub input: f64,
    /// Output tokens, reasoning included.
    pub output: f64,
    /// Input tokens read from the upstream's cache.
    pub cache_read: f64,
}

/// A model as the router knows it.
#[derive(Debug, Clone)]
pub struct Model {
    /// What clients call it.
    pub name: String,
    /// What the upstreams call it.
    pub upstream_model: String,
    /// What it costs.
    pub price: Price,
    /// Who serves it, in order; at least one.
    pub upstreams: Vec<Arc<Upstream>>,
}

/// An upstream as the router knows it.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// How it is spoken to.
    pub dialect: Dialect,
    /// Where calls go.
    pub url: String,
    /// The key that belongs to it, by name.
    pub credential: Option<CredentialRef>,
}

/// All models, checked.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    models: BTreeMap<String, Arc<Model>>,
}

/// What is wrong with a configured catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A dialect that this server does not speak.
    #[error("the dialect {dialect:?} is not supported; supported: \"openai-chat\"")]
    UnknownDialect {
        /// As configured.
        dialect: String,
    },
    /// A `base_url` that nothing can be sent to.
    #[error("upstream {upstream:?}: base_url {base_url:?} {fault}")]
    BadBaseUrl {
        /// Whose.
        upstream: String,
        /// As configured, without what may be a password.
        base_url: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Two of one name.
    #[error("there are two {what}s named {name:?}")]
    Twice {
        /// `upstream` or `model`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A model names an upstream that is not there.
    #[error("model {model:?} names the upstream {upstream:?}, which is not configured")]
    UnknownUpstream {
        /// Whose.
        model: String,
        /// What it names.
        upstream: String,
    },
    /// A model that nobody serves, or too many do.
    #[error("model {model:?} names {count} upstreams; from 1 to {UPSTREAMS_PER_MODEL_MAX} are possible")]
    UpstreamCount {
        /// Which.
        model: String,
        /// How many.
        count: usize,
    },
    /// A price below zero or not a number.
    #[error("model {model:?}: a price must be zero or more dollars per million tokens")]
    BadPrice {
        /// Which.
        model: String,
    },
}

impl Catalog {
    /// Checks the configured values and puts them together.
    pub fn new(upstreams: Vec<UpstreamConfig>, models: Vec<ModelConfig>) -> Result<Self, CatalogError> {
        let mut by_name = BTreeMap::new();
        for config in upstreams {
            let upstream = checked_upstream(config)?;
            let name = upstream.name.clone();
            if by_name.insert(name.clone(), Arc::new(upstream)).is_some() {
                return Err(CatalogError::Twice { what: "upstream", name });
            }
        }
        let mut catalog = Self::default();
        for config in models {
            let model = checked_model(config, &by_name)?;
            let name = model.name.clone();
            if catalog.models.insert(name.clone(), Arc::new(model)).is_some() {
                return Err(CatalogError::Twice { what: "model", name });
            }
        }
        Ok(catalog)
    }

    /// A model by the name that clients use.
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.get(name)
    }

    /// All models by name.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values()
    }
}

fn checked_upstream(config: UpstreamConfig) -> Result<Upstream, CatalogError> {
    let base = config.base_url.trim_end_matches('/');
    if let Some(fault) = base_url_fault(base) {
        // What stands before an `@` may be a password, and this text goes to a terminal.
        let base_url = match base.rsplit_once('@') {
            Some((_, shown)) => format!("…@{shown}"),
            None => base.to_owned(),
        };
        return Err(CatalogError::BadBaseUrl { upstream: config.name, base_url, fault });
    }
    let url = match config.dialect {
        Dialect::OpenAiChat => format!("{base}/chat/completions"),
    };
    Ok(Upstream { name: config.name, dialect: config.dialect, url, credential: config.credential })
}

fn base_url_fault(base: &str) -> Option<&'static str> {
    let Ok(uri) = base.parse::<Uri>() else { return Some("is not a URL") };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Some("must begin with http:// or https://");
    }
    let Some(authority) = uri.authority() else { return Some("has no host") };
    if authority.host().is_empty() {
        return Some("has no host");
    }
    if authority.as_str().contains('@') {
        return Some("must not hold a user or password; use api_key");
    }
    if uri.query().is_some() || base.contains('#') {
        return Some("must not have a query or a fragment");
    }
    base.ends_with("/chat/completions").then_some("must end before /chat/completions")
}

fn checked_model(
    config: ModelConfig,
    upstreams: &BTreeMap<String, Arc<Upstream>>,
) -> Result<Model, CatalogError> {
    let (model, count) = (config.name, config.upstreams.len());
    if count == 0 || count > UPSTREAMS_PER_MODEL_MAX {
        return Err(CatalogError::UpstreamCount { model, count });
    }
    let Price { input, output, cache_read } = config.price;
    if [input, output, cache_read].iter().any(|price| !price.is_finite() || *price < 0.0) {
        return Err(CatalogError::BadPrice { model });
    }
    let mut serving = Vec::with_capacity(count);
    for name in config.upstreams {
        match upstreams.get(&name) {
            Some(upstream) => serving.push(Arc::clone(upstream)),
            None => return Err(CatalogError::UnknownUpstream { model, upstream: name }),
        }
    }
    Ok(Model { name: model, upstream_model: config.upstream_model, price: config.price, upstreams: serving })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(base_url: &str) -> UpstreamConfig {
        UpstreamConfig {
            name: "local".into(),
            dialect: Dialect::OpenAiChat,
            base_url: base_url.into(),
            credential: None,
        }
    }

    fn model(upstreams: &[&str]) -> ModelConfig {
        ModelConfig {
            name: "m".into(),
            upstreams: upstreams.iter().map(|name| (*name).to_owned()).collect(),
            upstream_model: "gpt-x".into(),
            price: Price::default(),
        }
    }

    #[test]
    fn a_model_knows_its_urls() {
        for base_url in ["http://127.0.0.1:9911/v1", "http://127.0.0.1:9911/v1/"] {
            let catalog = Catalog::new(vec![upstream(base_url)], vec![model(&["local"])]).expect("a catalog");
            let found = catalog.model("m").expect("the model");
            assert_eq!(found.upstreams[0].url, "http://127.0.0.1:9911/v1/chat/completions");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let good = || upstream("https://models.example/v1");
        let says = |upstreams, models| Catalog::new(upstreams, models).expect_err("a mistake").to_string();
        let base_url = |text| says(vec![upstream(text)], vec![]);
        assert!(base_url("ftp://h/v1").contains("must begin with http"));
        assert!(base_url("models.example/v1").contains("base_url"));
        assert!(base_url("http://h/v1?key=1").contains("query"));
        assert!(base_url("http://h/v1/chat/completions").contains("must end before"));
        let with_password = base_url("http://me:hunter2@h/v1");
        assert!(with_password.contains("api_key") && !with_password.contains("hunter2"), "{with_password}");
        assert_eq!(says(vec![good(), good()], vec![]), r#"there are two upstreams named "local""#);
        assert_eq!(
            says(vec![good()], vec![model(&["other"])]),
            r#"model "m" names the upstream "other", which is not configured"#
        );
        assert!(says(vec![good()], vec![model(&[])]).contains("names 0 upstreams"));
        let nine = model(&["local"; UPSTREAMS_PER_MODEL_MAX + 1]);
        assert!(says(vec![good()], vec![nine]).contains("names 9 upstreams"));
        let negative = ModelConfig { price: Price { input: -1.0, ..Price::default() }, ..model(&["local"]) };
        assert!(says(vec![good()], vec![negative]).contains("price"));
    }

    #[test]
    fn a_dialect_that_is_not_spoken_is_refused_with_what_is() {
        assert_eq!("openai-chat".parse::<Dialect>().expect("spoken"), Dialect::OpenAiChat);
        let refusal = "openai-responses".parse::<Dialect>().expect_err("not spoken").to_string();
        assert_eq!(refusal, r#"the dialect "openai-responses" is not supported; supported: "openai-chat""#);
    }
}
