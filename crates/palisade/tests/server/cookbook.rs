//! The cookbook, end to end: a Python client, the built-in planner, the real sandbox and skill, and a deck that
//! LibreOffice opens, with a title, an agenda, content and a native chart.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use palisade_testkit::Server;
use tokio::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Looks into a deck without any code of the skill.
const INSPECT: &str = r#"
import json, sys
from pptx import Presentation
slides = Presentation(sys.argv[1]).slides
print(json.dumps({
    "titles": [s.shapes.title.text if s.shapes.title is not None else None for s in slides],
    "charts": sum(1 for s in slides for shape in s.shapes if shape.has_chart),
    "text": " ".join(shape.text_frame.text for s in slides for shape in s.shapes if shape.has_text_frame),
}))
"#;

fn python(program: &[&str], folder: &Path) -> Command {
    let runtime = std::env::var("PALISADE_RUNTIME").unwrap_or_else(|_| "/opt/palisade/runtime".to_owned());
    let mut command = Command::new("/usr/bin/python3");
    command
        .args(program)
        .current_dir(folder)
        .env("PYTHONPATH", format!("{runtime}/python"))
        .stdin(Stdio::null());
    command
}

async fn output(mut command: Command) -> String {
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Runs a client program against a fresh server; the decks it saved.
async fn run(program: &[&str]) -> (Server, tempfile::TempDir, Vec<PathBuf>) {
    let server = Server::with_config(env!("CARGO_BIN_EXE_palisade"), "").await;
    let key = std::fs::read_to_string(server.folder.path().join("data/admin.key")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut client = python(program, folder.path());
    client.env("POKEE_API", &server.url).env("POKEE_KEY", key.trim());
    output(client).await;
    let saved = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let decks = saved.filter(|path| path.extension().is_some_and(|ending| ending == "pptx")).collect();
    (server, folder, decks)
}

async fn inspect(deck: &Path) -> serde_json::Value {
    let folder = deck.parent().unwrap();
    let said = output(python(&["-c", INSPECT, deck.to_str().unwrap()], folder)).await;
    let mut office = Command::new("soffice");
    office.arg(format!("-env:UserInstallation=file://{}/profile", folder.display()));
    office.args(["--headless", "--convert-to", "pdf", "--outdir"]).arg(folder).arg(deck).stdin(Stdio::null());
    output(office).await;
    assert!(deck.with_extension("pdf").is_file(), "LibreOffice opens it");
    serde_json::from_str(&said).unwrap()
}

#[tokio::test]
async fn figures_that_were_given_are_in_the_chart_and_nothing_is_made_up() {
    let program = format!("{ROOT}/examples/presentation.py");
    let (_server, _folder, decks) =
        run(&[&program, "Build a deck on tea sales: Q1: 10, Q2: 12, Q3: 15"]).await;
    let deck = inspect(&decks[0]).await;
    assert!(deck["charts"].as_u64().unwrap() >= 1, "{deck}");
    assert!(!deck["text"].as_str().unwrap().contains("Sample data"), "{deck}");
}

#[tokio::test]
async fn without_figures_the_chart_says_that_it_is_a_sample() {
    let program = format!("{ROOT}/examples/presentation.py");
    let (_server, _folder, decks) = run(&[&program, "Build a deck on the future of tea"]).await;
    let deck = inspect(&decks[0]).await;
    assert!(deck["text"].as_str().unwrap().contains("Sample data: no figures were given"), "{deck}");
}

/// The published program, as it stands, where the contract's pages lie beside the project.
#[tokio::test]
async fn the_published_program_runs_unchanged() {
    let pages = Path::new(ROOT).join("../shared/seeds");
    let page = std::fs::read_dir(&pages).into_iter().flatten().flatten().find_map(|entry| {
        let text = std::fs::read_to_string(entry.path()).ok()?;
        let begin = text.find("import os, time, httpx")?;
        let end = text[begin..].find("out.write(chunk)")? + begin + "out.write(chunk)".len();
        Some(text[begin..end].to_owned())
    });
    let Some(program) = page else {
        println!("skipped: the published program is not at {}", pages.display());
        return;
    };
    let (_server, _folder, decks) = run(&["-c", &program]).await;
    assert_eq!(decks.len(), 1);
    let deck = inspect(&decks[0]).await;
    let titles: Vec<&str> =
        deck["titles"].as_array().unwrap().iter().filter_map(|title| title.as_str()).collect();
    assert!(titles.len() >= 6, "a title, an agenda and several content slides: {titles:?}");
    assert!(titles[0].contains("NVIDIA"), "{titles:?}");
    assert!(titles.iter().any(|title| title.contains("Agenda")), "{titles:?}");
    assert!(deck["charts"].as_u64().unwrap() >= 1, "{deck}");
}
