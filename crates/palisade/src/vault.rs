//! `palisade vault`: credentials of tenants and the key they are sealed with, over the operator's socket. A secret comes from standard
//! input or a file and never from an argument, which everybody on the machine can see.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use palisade_protocol::CredentialName;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::socket::{Socket, encoded};
use crate::admin::{Server, carry_out, shown, time};
use crate::client::table::Table;

/// Credentials that are attached to requests as they leave.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  palisade vault set github --host api.github.com --env GITHUB_TOKEN < token.txt
  palisade vault set jira --host acme.atlassian.net --basic me@example.com --from-file jira.txt
  palisade vault set search --host api.example.com --header X-Api-Key --tenant acme < key.txt
  palisade vault set crm --host api.crm.example --oauth < oauth.json
  palisade vault list
  palisade vault rotate            give every tenant a new data key; everything is sealed anew in the background
  palisade vault rotate --key      replace the vault's own key
  palisade vault seal              forget the keys: nothing that needs a credential leaves until `unseal`

With --oauth the input is JSON: {\"grant\": \"refresh_token\" or \"client_credentials\", \"token_url\", \"client_id\",
\"client_secret\", \"refresh_token\"?, \"scope\"?, \"client_auth\": \"basic\" or \"post\"}.

It speaks to a running server through admin.sock in the server's data directory, which only the server's own user and
root can open. No command shows a value.")]
pub(crate) struct Vault {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    at: Server,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Store a credential, or replace one; its value is read from standard input.
    Set(Box<Set>),
    /// Every credential with its rules, without its value.
    List {
        /// Whose; the only tenant when absent.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
    },
    /// Remove a credential.
    Delete {
        /// Which.
        name: String,
        /// Whose; the only tenant when absent.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
    },
    /// Replace data keys, or with --key the vault's own key.
    Rotate(Rotate),
    /// Make every server forget the keys, restarts included.
    Seal,
    /// Let the servers know the keys again.
    Unseal(Given),
    /// Whether it is sealed, and what its key is.
    Status,
}

#[derive(Debug, clap::Args)]
struct Set {
    /// What it is called: [a-z0-9][a-z0-9_-]{0,63}.
    name: String,
    /// Where it may go: a name, name:port or *.suffix; may be repeated.
    #[arg(long = "host", required = true, value_name = "HOST")]
    hosts: Vec<String>,
    #[command(flatten)]
    injection: InjectionArgs,
    /// The environment variable that shows commands in the sandbox a placeholder of it.
    #[arg(long, value_name = "VAR")]
    env: Option<String>,
    /// Whose; the only tenant when absent.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The input is JSON that says how access tokens are had.
    #[arg(long)]
    oauth: bool,
    /// Read the value here instead of from standard input.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct InjectionArgs {
    /// As `Authorization: Bearer`; the default.
    #[arg(long)]
    bearer: bool,
    /// As the password of this user in `Authorization: Basic`.
    #[arg(long, value_name = "USER")]
    basic: Option<String>,
    /// As this header field.
    #[arg(long, value_name = "NAME")]
    header: Option<String>,
    /// As this parameter of the query.
    #[arg(long, value_name = "NAME")]
    query: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Rotate {
    /// The vault's own key instead of the tenants' data keys: by a new one where the server keeps the key file, by what the
    /// configuration's place has now, or by one that is given.
    #[arg(long)]
    key: bool,
    /// The new key is a passphrase where the old one was none, or the other way round.
    #[arg(long, requires = "key", value_name = "KIND", value_parser = ["key", "passphrase"])]
    kind: Option<String>,
    #[command(flatten)]
    given: Given,
    /// Only this tenant's data key.
    #[arg(long, conflicts_with = "key", value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Given {
    /// Read the key or passphrase from standard input.
    #[arg(long)]
    stdin: bool,
    /// Read the key or passphrase here.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
}

impl Given {
    fn read(&self) -> Result<Option<SecretString>> {
        match (self.stdin, &self.from_file) {
            (false, None) => Ok(None),
            (_, file) => read_secret(file.as_deref(), "key or passphrase").map(Some),
        }
    }
}

/// Carries the command out.
pub(crate) fn vault(args: Vault) -> Result<()> {
    let json = args.at.json;
    carry_out(async {
        let socket = Socket::open(&args.at.data_dir)?;
        match args.action {
            Action::Set(set) => self::set(&socket, *set, json).await,
            Action::List { tenant } => list(&socket, tenant.as_deref(), json).await,
            Action::Delete { name, tenant } => delete(&socket, &name, tenant.as_deref(), json).await,
            Action::Rotate(rotate) => self::rotate(&socket, rotate, json).await,
            Action::Seal => state(&socket, socket.post("/vault/seal"), json).await,
            Action::Unseal(given) => {
                let request = socket.post("/vault/unseal").json(&json!({"key": exposed(&given.read()?)}));
                state(&socket, request, json).await
            }
            Action::Status => state(&socket, socket.get("/vault"), json).await,
        }
    })
}

fn exposed(secret: &Option<SecretString>) -> Option<&str> {
    secret.as_ref().map(|secret| secret.expose_secret())
}

/// The path of a credential, checked here so that a slip is named without a server.
fn path_of(name: &str, tenant: Option<&str>) -> Result<String> {
    let name = CredentialName::parse(name)?;
    Ok(format!("/vault/credentials/{name}{}", query_of(tenant)))
}

fn query_of(tenant: Option<&str>) -> String {
    tenant.map_or(String::new(), |tenant| format!("?tenant={}", encoded(tenant)))
}

async fn set(socket: &Socket, set: Set, json: bool) -> Result<()> {
    let path = path_of(&set.name, set.tenant.as_deref())?;
    let secret = read_secret(set.from_file.as_deref(), if set.oauth { "oauth object" } else { "value" })?;
    let InjectionArgs { bearer: _, basic, header, query } = set.injection;
    let injection = match (basic, header, query) {
        (Some(username), ..) => json!({"type": "basic", "username": username}),
        (_, Some(name), _) => json!({"type": "header", "name": name}),
        (.., Some(name)) => json!({"type": "query", "name": name}),
        _ => json!({"type": "bearer"}),
    };
    let mut body = json!({"allowed_hosts": set.hosts, "injection": injection, "env": set.env});
    match set.oauth {
        // What is wrong with it is said without quoting it.
        true => match serde_json::from_str::<Value>(secret.expose_secret()) {
            Ok(oauth) => body["oauth"] = oauth,
            Err(error) => bail!("the input is not JSON (line {}, column {})", error.line(), error.column()),
        },
        false => body["value"] = secret.expose_secret().into(),
    }
    let answer = socket.json(socket.put(&path).json(&body)).await?;
    shown(json, &answer, |answer| {
        let credential: Credential = serde_json::from_value(answer)?;
        Ok(format!("{} is stored, for {}\n", credential.name, credential.allowed_hosts.join(", ")))
    })
}

#[derive(Deserialize)]
struct Credential {
    name: String,
    kind: String,
    allowed_hosts: Vec<String>,
    injection: Value,
    env: Option<String>,
    version: i64,
    updated_at: f64,
    expires_at: Option<f64>,
}

async fn list(socket: &Socket, tenant: Option<&str>, json: bool) -> Result<()> {
    let answer = socket.json(socket.get(&format!("/vault/credentials{}", query_of(tenant)))).await?;
    shown(json, &answer, |answer| {
        let credentials: Vec<Credential> = serde_json::from_value(answer)?;
        if credentials.is_empty() {
            return Ok("no credentials; `palisade vault set` stores one\n".to_owned());
        }
        let mut table =
            Table::new(&["NAME", "KIND", "HOSTS", "ATTACHED AS", "ENV", "VERSION", "UPDATED", "TOKEN UNTIL"]);
        for credential in credentials {
            let detail = credential.injection["name"].as_str().or(credential.injection["username"].as_str());
            let kind = credential.injection["type"].as_str().unwrap_or_default();
            table.row(vec![
                credential.name,
                credential.kind,
                credential.allowed_hosts.join(", "),
                detail.map_or(kind.to_owned(), |detail| format!("{kind} {detail}")),
                credential.env.unwrap_or_default(),
                credential.version.to_string(),
                time::shown(credential.updated_at),
                credential.expires_at.map(time::shown).unwrap_or_default(),
            ]);
        }
        Ok(table.render())
    })
}

async fn delete(socket: &Socket, name: &str, tenant: Option<&str>, json: bool) -> Result<()> {
    socket.send(socket.delete(&path_of(name, tenant)?)).await?;
    shown(json, &json!({"deleted": name}), |_| Ok(format!("{name} is removed\n")))
}

async fn rotate(socket: &Socket, rotate: Rotate, json: bool) -> Result<()> {
    if rotate.key {
        let given = rotate.given.read()?;
        let body = json!({"key": exposed(&given), "kind": rotate.kind});
        return state(socket, socket.post("/vault/rotate-key").json(&body), json).await;
    }
    if rotate.given.stdin || rotate.given.from_file.is_some() {
        bail!("data keys are of the server's own making; a key is given with --key");
    }
    let request = socket.post(&format!("/vault/rotate{}", query_of(rotate.tenant.as_deref())));
    let answer = socket.json(request).await?;
    shown(json, &answer, |answer| {
        let tenants = answer["tenants"].as_u64().unwrap_or_default();
        Ok(format!(
            "{tenants} tenant(s) have a new data key; what was sealed is sealed anew in the background\n"
        ))
    })
}

async fn state(socket: &Socket, request: reqwest::RequestBuilder, json: bool) -> Result<()> {
    let answer = socket.json(request).await?;
    shown(json, &answer, |answer| {
        let is_sealed = answer["sealed"].as_bool().unwrap_or_default();
        let (kind, generation) = (answer["kind"].as_str().unwrap_or_default(), &answer["generation"]);
        let rotating = if answer["rotating"] == true { ", which is being replaced" } else { "" };
        let is = if is_sealed { "sealed" } else { "unsealed" };
        Ok(format!("the vault is {is}; its {kind} is number {generation}{rotating}\n"))
    })
}

/// Without the line end that editors and `echo` leave.
fn read_secret(file: Option<&Path>, what: &str) -> Result<SecretString> {
    let text = match file {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?,
        None => read_input(what)?,
    };
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        bail!("no {what} was given");
    }
    Ok(secret.to_owned().into())
}

/// Everything that comes; from a terminal one line, which is not shown.
fn read_input(what: &str) -> Result<String> {
    let stdin = std::io::stdin();
    let mut text = String::new();
    if !stdin.is_terminal() {
        stdin.lock().read_to_string(&mut text).with_context(|| format!("reading the {what}"))?;
        return Ok(text);
    }
    prompt(&format!("{what} (not shown): "));
    let before = rustix::termios::tcgetattr(&stdin).context("looking at the terminal")?;
    let mut silent = before.clone();
    silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
    rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, &silent)
        .context("silencing the terminal")?;
    let read = stdin.read_line(&mut text);
    let restored = rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, &before);
    prompt("\n");
    read.with_context(|| format!("reading the {what}"))?;
    restored.context("restoring the terminal")?;
    Ok(text)
}

/// Asks a person; nobody can be told when that fails.
fn prompt(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
