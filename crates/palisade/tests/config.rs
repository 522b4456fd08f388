//! What operators mistype, through the real command: each mistake is told with its place and with what to write instead, and no value
//! that may be a secret is repeated.

#![expect(clippy::unwrap_used, reason = "clippy takes only test functions for tests, not what they call")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

const SECRET: &str = "pk_a_0123456789abcdef";
const TENANT: &str = "[[tenant]]\nname = \"a\"\ntokens = [{ id = \"t\", key = \"env:A_KEY\" }]\n";
const MODEL: &str = "[model.m]\nupstream = \"u\"\nupstream_model = \"x\"\n";

/// Starts a server that gives up; what it said.
fn gives_up(folder: &Path, config: &[u8], more: &[&str]) -> String {
    let file = folder.join("palisade.toml");
    std::fs::write(&file, config).unwrap();
    serve(folder, &file, more)
}

fn serve(folder: &Path, file: &Path, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.args(["serve", "--config"]).arg(file).args(more);
    if !more.contains(&"--data-dir") {
        command.arg("--data-dir").arg(folder.join("data"));
    }
    let output = command
        .env("A_KEY", SECRET)
        .env("EMPTY", "")
        .env_remove("UNSET")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it starts: {said}");
    assert!(!said.contains(SECRET), "a secret is repeated: {said}");
    said
}

fn upstream(base_url: &str) -> String {
    format!("[[upstream]]\nname = \"u\"\ndialect = \"openai-chat\"\nbase_url = \"{base_url}\"\n{MODEL}")
}

#[test]
fn what_is_mistyped_is_told_with_what_to_write_instead() {
    let tenant = |more: &str| format!("{TENANT}{more}\n");
    let secret =
        |key: &str| format!("[[tenant]]\nname = \"a\"\ntokens = [{{ id = \"t\", key = \"{key}\" }}]\n");
    let table: Vec<(String, &[&str])> = vec![
        // Addresses.
        ("listen = \"8080\"".into(), &["line 1, listen", "127.0.0.1:8080", "0.0.0.0:8080"]),
        ("listen = \"palisade.example:8080\"".into(), &["line 1, listen", "such as 127.0.0.1:8080"]),
        ("listen = \"http://127.0.0.1:8080\"".into(), &["line 1, listen", "without http://"]),
        ("[egress]\nlisten = \"3128\"\nkey = \"env:A_KEY\"".into(), &["line 2, listen", "127.0.0.1:3128"]),
        ("[egress]\nresolver = \"10.0.0.10\"".into(), &["line 2, resolver", "10.0.0.10:53"]),
        // Quotes, units and other forms of values.
        ("listen = 8080".into(), &["line 1, listen", "a whole number, and it has to be a text in quotes"]),
        ("listen = localhost:8080".into(), &["line 1, listen", "a text stands in quotes"]),
        ("listen = 127.0.0.1:8080".into(), &["line 1, listen", "a text stands in quotes"]),
        ("data_dir = /var/lib/palisade".into(), &["line 1, data_dir", "a text stands in quotes"]),
        ("listen = \"127.0.0.1:8080".into(), &["line 1", "a text begins and ends with a quote"]),
        ("listen: \"127.0.0.1:8080\"".into(), &["line 1", "equals sign"]),
        (tenant("workspace_gb = 10GB"), &["line 4, workspace_gb", "without a unit"]),
        (tenant("workspace_gb = \"10\""), &["line 4, workspace_gb", "a number, without quotes"]),
        (tenant("client_model_selection = yes"), &["line 4, client_model_selection", "write true or false"]),
        (tenant("client_model_selection = \"true\""), &["true or false, without quotes"]),
        (tenant("limits = { turns_per_hour = -3 }"), &["line 4, turns_per_hour", "a whole number from 0 up"]),
        (tenant("limits = { turns_per_hour = 3.5 }"), &["line 4, turns_per_hour", "a whole number from 0 up"]),
        (tenant("limits = { turns_per_hour = 99999999999999999999 }"), &["line 4, turns_per_hour"]),
        (tenant("hosts = \"a.example\""), &["line 4, hosts", "a list"]),
        ("[tenant]\nname = \"a\"".into(), &["line 1", "two brackets"]),
        ("[[tenant]]\ntokens = []".into(), &["line 1", "`name` is missing"]),
        ("[sandbox]\npids = 100\n[sandbox]\ncpus = 1.0".into(), &["line 3", "a second time"]),
        // Names.
        ("lisen = \"127.0.0.1:1\"".into(), &["line 1", "`lisen`", "did you mean `listen`?"]),
        ("[sandbx]\npids = 100".into(), &["line 1", "did you mean `sandbox`?"]),
        (tenant("default-model = \"m\""), &["line 4", "did you mean `default_model`?"]),
        (tenant("mode = \"ofline\""), &["line 4, mode", "did you mean `offline`?"]),
        (format!("{TENANT}{TENANT}"), &["two tenants named \"a\""]),
        (
            "[[tenant]]\nname = \"a\"\ntokens = [{ id = \"t\", key = \"env:A_KEY\" }, { id = \"s\", key = \"env:A_KEY\" }]".into(),
            &["tenant a", "same key", "one of its own"],
        ),
        // Secrets.
        (secret(SECRET), &["line 3, key", "env:NAME or file:PATH"]),
        (secret("env:UNSET"), &["env:UNSET is not set", "set UNSET"]),
        (secret("env:EMPTY"), &["env:EMPTY is empty"]),
        (secret("file:empty.key"), &["empty.key is empty"]),
        (secret("file:nowhere.key"), &["nowhere.key cannot be read", "No such file"]),
        // What leaves.
        (tenant("[tenant.egress]\nallow = [\"https://api.github.com/\"]"), &["write only the host: \"api.github.com\""]),
        (tenant("[tenant.egress]\ndeny = [\"api.github.com/repos\"]"), &["write only the host: \"api.github.com\""]),
        (tenant("[tenant.egress]\nallow = \"api.github.com\""), &["line 5, allow", "a list"]),
        (upstream("localhost:11434/v1"), &["\"u\"", "begins with http://"]),
        (upstream("http://127.0.0.1:1/v1/chat/completions"), &["\"u\"", "leave that away"]),
        (format!("{}price = 3", upstream("http://127.0.0.1:1/v1")), &["price", "a table of its own"]),
        (format!("{}price = {{ input = \"0.3\" }}", upstream("http://127.0.0.1:1/v1")), &["input", "a number, without quotes"]),
        (format!("{}price = {{ inputs = 1.0 }}", upstream("http://127.0.0.1:1/v1")), &["did you mean `input`?"]),
        (format!("{}price = {{ input = -1.0 }}", upstream("http://127.0.0.1:1/v1")), &["\"m\"", "price"]),
    ];
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::write(folder.path().join("empty.key"), "\n").unwrap();
    for (config, told) in table {
        let said = gives_up(folder.path(), config.as_bytes(), &["--listen", "127.0.0.1:0"]);
        for words in told {
            assert!(said.contains(words), "{words:?} is not said of\n{config}\nbut: {said}");
        }
    }
}

#[test]
fn files_that_cannot_be_read_and_places_that_cannot_be_had_are_told_with_a_cure() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = ["--listen", "127.0.0.1:0"];
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let on_a_file = ["--listen", "127.0.0.1:0", "--data-dir", file.to_str().unwrap()];
    let said = [
        (gives_up(folder.path(), b"# \x93smart quotes\x94", &free), "save the file as UTF-8"),
        (gives_up(folder.path(), b"\xff\xfel\0i\0s\0", &free), "UTF-16"),
        (serve(folder.path(), &folder.path().join("no.toml"), &free), "there is no such file"),
        (serve(folder.path(), folder.path(), &free), "it is a folder"),
        (
            gives_up(folder.path(), TENANT.as_bytes(), &["--listen", &address]),
            "another program has this port",
        ),
        (gives_up(folder.path(), TENANT.as_bytes(), &["--listen", "192.0.2.1:80"]), "no such address"),
        (gives_up(folder.path(), TENANT.as_bytes(), &["--listen", "8080"]), "127.0.0.1:8080"),
    ];
    for (said, words) in said {
        assert!(said.contains(words), "{words:?} is not said, but: {said}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_palisade")).arg("serve").args(on_a_file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is a file; name a folder"), "{said}");
}

#[test]
fn forms_that_editors_leave_are_read_and_a_key_lies_beside_the_configuration() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let key = folder.path().join("a.key");
    std::fs::write(&key, SECRET).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    // A byte-order mark, tabs, CRLF, and localhost: it gets as far as the last part, which is wrong on purpose.
    let config = "\u{feff}listen = \"localhost:0\"\r\n[[tenant]]\r\n\tname = \"a\"\r\n\ttokens = [{ id = \"t\", key = \"file:a.key\" }]\r\n";
    let file = folder.path().join("blocked");
    std::fs::write(&file, "").unwrap();
    let said = gives_up(folder.path(), config.as_bytes(), &["--data-dir", file.to_str().unwrap()]);
    assert!(said.contains("is a file; name a folder"), "{said}");
    assert!(
        said.contains("EVERY USER OF THIS MACHINE MAY READ A SECRET") && said.contains("a.key"),
        "{said}"
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let said = gives_up(folder.path(), config.as_bytes(), &["--data-dir", file.to_str().unwrap()]);
    assert!(!said.contains("EVERY USER"), "{said}");
}
