//! The TOML blocks: each is TOML for another parser, too, and a server starts with it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use palisade_testkit::Server;
use palisade_testkit::postgres::Postgres;

use crate::readme;

/// What a block builds on that another one shows.
const UPSTREAM: &str =
    "[[upstream]]\nname = \"local\"\ndialect = \"openai-chat\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";

#[tokio::test]
async fn a_server_starts_with_every_toml_block() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::start();
    for block in readme().iter().filter(|block| block.language == "toml") {
        read_by_python(&block.text, block.line);
        let Some(mut config) = with_secrets(&block.text, folder.path(), postgres.as_ref()) else { continue };
        if config.contains("upstream = \"local\"") && !config.contains("[[upstream]]") {
            config = format!("{config}\n{UPSTREAM}");
        }
        // The test's server adds this section by itself where there is none.
        let hand = format!("[sandbox]\nhand = {:?}\n", palisade_testkit::server::hand());
        config = config.replace("[sandbox]\n", &hand);
        let mut server = Server::with_config(env!("CARGO_BIN_EXE_palisade"), &config).await;
        assert!(server.terminate().await.success(), "README.md:{}: {}", block.line, server.log());
    }
}

/// What people use to look at a file beside us.
fn read_by_python(text: &str, line: usize) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let program = "import sys, tomllib; tomllib.load(open(sys.argv[1], 'rb'))";
    let mut python = Command::new("/usr/bin/python3");
    let output = python.args(["-c", program]).arg(file.path()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "README.md:{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The block with files in the place of its secrets and this machine in the place of others. `None` when it needs what
/// this machine has not.
fn with_secrets(text: &str, folder: &Path, postgres: Option<&Postgres>) -> Option<String> {
    let mut config = text
        .replace("10.0.0.10:53", "127.0.0.1:9")
        .replace("https://s3.example.com", "https://127.0.0.1:9")
        .replace("127.0.0.1:9090", "127.0.0.1:0");
    for quoted in text.split('"').skip(1).step_by(2) {
        let Some(name) = quoted.strip_prefix("env:").or_else(|| quoted.strip_prefix("file:")) else {
            continue;
        };
        let file = folder.join(name.rsplit('/').next().unwrap_or(name));
        fs::write(&file, secret(name, postgres)?).unwrap();
        config = config.replace(quoted, &format!("file:{}", file.display()));
    }
    let authority = folder.join("internal-ca.pem");
    if text.contains("/etc/palisade/internal-ca.pem") {
        fs::write(&authority, authority_pem()).unwrap();
    }
    Some(config.replace("/etc/palisade/internal-ca.pem", authority.to_str().unwrap()))
}

fn secret(name: &str, postgres: Option<&Postgres>) -> Option<String> {
    let file = name.rsplit('/').next().unwrap_or(name);
    Some(match file {
        "PALISADE_DATABASE" => postgres?.database(),
        "vault.key" => "0123456789abcdef".repeat(4),
        _ => match file.strip_suffix(".key") {
            Some(tenant) => format!("pk_{tenant}_0123456789abcdef"),
            None => "0123456789abcdef".to_owned(),
        },
    })
}

fn authority_pem() -> Vec<u8> {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=internal",
    ]);
    openssl.args(["-keyout", "/dev/null"]).stdin(Stdio::null());
    openssl.output().unwrap().stdout
}
