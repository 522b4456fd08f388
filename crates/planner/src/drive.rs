//! Drives a deck skill: read its document, write a spec, build, check, mend, report. Where the work stands is read
//! from the calls of this turn; each answer is the next step after them.

use serde_json::{Value, json};

use crate::Answer;
use crate::brief::Brief;
use crate::catalog;
use crate::conversation::Conversation;
use crate::deck::{self, Composition};
use crate::edit::{self, Edit};
use crate::places::paths;
use crate::repair::repair;
use crate::report::{self, Report};
use crate::skill_doc::DeckSkill;
use crate::sources::{self, Sources};
use crate::text::{quoted, tail, unnumbered};
use crate::wish::ABILITIES;

/// Rounds of mending after the first build; a skill's document promises that three are enough for any deck.
const REPAIRS_MAX: usize = 3;
/// Deeds and problems that a report lists.
const LISTED_MAX: usize = 8;

const STATUS: &str = "session-status deck_status=";

/// A deck from a brief.
pub(crate) fn deck(conversation: &Conversation, brief: &Brief) -> Answer {
    if let Some(refusal) = missing_tool(conversation) {
        return refusal;
    }
    let entries = catalog::entries(&conversation.system);
    let Some(skill) = catalog::choose(&entries, &brief.request) else {
        return Answer::say(format!(
            "The catalog has no skill for this kind of document, so nothing was made. {ABILITIES}"
        ));
    };
    if !brief.unreadable.is_empty() {
        return Answer::say(format!(
            "It cannot read {}, and a deck without what stands there would not be what you asked for, so nothing was made. {ABILITIES}",
            brief.unreadable.join(", ")
        ));
    }
    if conversation.turn.is_empty() {
        return opening(brief, &skill.name);
    }
    let Some(document) = conversation.turn.iter().rev().find(|done| done.name == "Skill") else {
        return stop("The skill was never shown, so nothing was made.");
    };
    let Some(known) = DeckSkill::parse(&document.result) else {
        return stop(&not_a_deck_skill(&skill.name, &document.result));
    };
    let sources = match sources::gather(conversation, &brief.files) {
        Sources::Loaded(sources) => sources,
        Sources::Needs(answer) => return answer,
        Sources::Missing(why) => {
            return stop(&format!("No deck was made, because one of its sources is missing: {why}"));
        }
    };
    let composition = deck::compose(brief, &sources, &known);
    let Some((spec_path, deck_path)) = paths(conversation, brief, &known, &composition) else {
        return stop("This session may write nowhere in the workspace, so there is no place for a deck.");
    };
    let intro = format!(
        "I read the instructions of {}. The spec has {} slides; I write it to {spec_path} and build the deck.",
        skill.name,
        composition.spec["slides"].as_array().map_or(0, Vec::len)
    );
    let Composition { spec, sample, prompts, notes } = composition;
    let mut said = Vec::new();
    if sample {
        said.push(
            "No figures were given, so the chart shows sample data and says so on the slide.".to_owned(),
        );
    }
    if prompts {
        said.push("Where you gave no content, the slides hold prompts for what belongs there (“What to say here”); no facts were added.".into());
    }
    said.extend(notes);
    proceed(conversation, &Job { skill: known, spec_path, deck_path, spec, intro, said })
}

/// A change to a deck of this session.
pub(crate) fn edit(conversation: &Conversation, wanted: &Edit) -> Answer {
    if let Some(refusal) = missing_tool(conversation) {
        return refusal;
    }
    let Some(earlier) = edit::latest_spec(&conversation.earlier) else {
        return Answer::say(format!("There is no deck of mine in this session to change. {ABILITIES}"));
    };
    let known = conversation
        .latest_first()
        .filter(|done| done.name == "Skill")
        .find_map(|done| DeckSkill::parse(&done.result));
    if conversation.turn.is_empty() {
        let mut answer = Answer::say(format!(
            "I read the deck's spec back from {}, change it and build again.",
            earlier.path
        ))
        .bash(format!("{STATUS}planning"))
        .call("Read", json!({"file_path": earlier.path}));
        let entries = catalog::entries(&conversation.system);
        if let (None, Some(skill)) = (&known, catalog::choose(&entries, "slide deck")) {
            answer = answer.call("Skill", json!({"name": skill.name}));
        }
        return answer;
    }
    let Some(known) = known else {
        return stop("The skill that built the deck is no longer to be had, so nothing was changed.");
    };
    let mut said = Vec::new();
    let read = conversation
        .turn
        .iter()
        .find(|done| done.name == "Read" && done.argument("file_path") == earlier.path);
    let on_disk =
        read.and_then(|done| unnumbered(&done.result)).and_then(|(text, _)| edit::parse_spec(&text));
    if on_disk.is_none() {
        said.push(
            "The spec could not be read back, so the change was made to the one that I wrote earlier."
                .to_owned(),
        );
    }
    let mut spec = on_disk.unwrap_or(earlier.value);
    match edit::apply(&mut spec, wanted, &known.themes) {
        Ok(deed) => said.insert(0, deed),
        Err(why) => return stop(&format!("Nothing was changed. {why}")),
    }
    let deck_path = format!("{}.pptx", earlier.path.strip_suffix(".json").unwrap_or(&earlier.path));
    let intro = "The spec is changed; building the deck again.".to_owned();
    proceed(conversation, &Job { skill: known, spec_path: earlier.path, deck_path, spec, intro, said })
}

fn missing_tool(conversation: &Conversation) -> Option<Answer> {
    let missing =
        ["Skill", "Write", "Bash", "Read", "Glob"].into_iter().find(|tool| !conversation.has_tool(tool))?;
    Some(Answer::say(format!(
        "Building a document needs the tool {missing}, which is not on offer here, so nothing was made."
    )))
}

/// The last words of a turn that made nothing.
fn stop(why: &str) -> Answer {
    Answer::say(why)
}

fn not_a_deck_skill(name: &str, shown: &str) -> String {
    if shown.len() < 400 && !shown.contains("```") {
        return format!(
            "The skill {name} could not be read, so nothing was made. The tool said: {}",
            tail(shown, 3, 400)
        );
    }
    format!(
        "The skill {name} fits your words, but its instructions describe no deck spec, and that is the only kind this program \
         can follow; a real model can use it. Nothing was made."
    )
}

fn opening(brief: &Brief, skill: &str) -> Answer {
    let about = brief.topic.as_ref().map_or_else(String::new, |topic| format!(" on “{topic}”"));
    let files =
        if brief.files.is_empty() { String::new() } else { format!(", read {}", brief.files.join(", ")) };
    let mut answer = Answer::say(format!(
        "It builds the document{about} with the skill {skill}: read its instructions{files}, write a spec from your own words, build, \
         check, and mend what the check finds."
    ))
    .bash(format!("{STATUS}planning"))
    .call("Skill", json!({"name": skill}))
    .call("Glob", json!({"pattern": "**/*.pptx"}));
    for file in &brief.files {
        answer = answer.call("Read", json!({"file_path": file}));
    }
    answer
}

/// What is to be built, and what the last words will say of it.
struct Job {
    skill: DeckSkill,
    spec_path: String,
    deck_path: String,
    spec: Value,
    intro: String,
    said: Vec<String>,
}

/// Where the work stands, read from the turn's calls.
struct Progress {
    /// The spec as last written.
    spec: Value,
    builds: usize,
    /// What was mended so far.
    deeds: Vec<String>,
    /// The last build or check.
    last: Option<Outcome>,
    /// What the tool said of the last Write.
    written: String,
    /// The output of the last command, which closes the work.
    closed: Option<String>,
}

struct Outcome {
    was_check: bool,
    output: String,
    report: Option<Report>,
}

enum Verdict {
    Check,
    Mend(Value, Vec<String>),
    BuildAgain,
    Ready(Report),
    Failed(String),
}

fn proceed(conversation: &Conversation, job: &Job) -> Answer {
    let progress = progress(conversation, job);
    let Some(last) = &progress.last else {
        return write_and_build(job, &job.spec, job.intro.clone(), "building");
    };
    match (verdict(&progress, last), &progress.closed) {
        (Verdict::Ready(report), Some(listing)) => Answer::say(ready(job, &progress, &report, listing)),
        (Verdict::Failed(why), Some(listing)) => Answer::say(failed(job, &progress, &why, listing)),
        (Verdict::Ready(_), None) => close(job, "done", "The check found nothing wrong."),
        (Verdict::Failed(_), None) => close(job, "failed", "That did not work out; I look at what is there."),
        (Verdict::Check, _) => {
            Answer::say("Built. Now the check, which opens the file again and looks at every slide.")
                .bash(format!("{STATUS}checking\n{}", job.skill.check_command(&job.deck_path)))
        }
        (Verdict::BuildAgain, _) => write_and_build(
            job,
            &progress.spec,
            "The last build was interrupted; building again.".into(),
            "building",
        ),
        (Verdict::Mend(spec, deeds), _) => {
            let text = format!("The report names problems; mending them:\n{}", list(&deeds));
            write_and_build(job, &spec, text, "repairing")
        }
    }
}

fn progress(conversation: &Conversation, job: &Job) -> Progress {
    let mut progress = Progress {
        spec: job.spec.clone(),
        builds: 0,
        deeds: Vec::new(),
        last: None,
        written: String::new(),
        closed: None,
    };
    for done in &conversation.turn {
        let command = done.argument("command");
        if done.name == "Write" && done.argument("file_path") == job.spec_path {
            // Written again after a report: what was mended follows from both.
            if let Some(report) = progress.last.as_ref().and_then(|last| last.report.as_ref()) {
                progress.deeds.extend(repair(&progress.spec, &report.problems).deeds);
            }
            progress.spec = edit::parse_spec(done.argument("content")).unwrap_or(progress.spec);
            progress.written = done.result.clone();
        } else if done.name == "Bash"
            && let Some(rest) = command.strip_prefix(STATUS)
        {
            let output = done.result.clone();
            let outcome = |was_check| {
                Some(Outcome { was_check, report: report::parse(&output), output: output.clone() })
            };
            if rest.starts_with("building\n") || rest.starts_with("repairing\n") {
                progress.builds += 1;
                progress.last = outcome(false);
            } else if rest.starts_with("checking\n") {
                progress.last = outcome(true);
            } else if rest.starts_with("done\n") || rest.starts_with("failed\n") {
                progress.closed = Some(output);
            }
        }
    }
    progress
}

fn verdict(progress: &Progress, last: &Outcome) -> Verdict {
    let Some(report) = &last.report else {
        // A restart or a cancelled turn leaves no report, and building twice does no harm.
        let interrupted = ["restarted", "not known", "outcome", "interrupted", "may or may not"]
            .iter()
            .any(|word| last.output.contains(word));
        if interrupted && progress.builds <= REPAIRS_MAX {
            return Verdict::BuildAgain;
        }
        let command = if last.was_check { "check" } else { "build" };
        return Verdict::Failed(format!(
            "the {command} gave no report; its last words were:\n\n```\n{}\n```",
            tail(&last.output, 12, 1500)
        ));
    };
    match (report.ok, last.was_check) {
        (true, false) => return Verdict::Check,
        (true, true) => return Verdict::Ready(report.clone()),
        (false, _) => {}
    }
    let problems: Vec<String> = report.problems.iter().map(report::Problem::line).collect();
    if progress.builds > REPAIRS_MAX {
        return Verdict::Failed(format!(
            "after {REPAIRS_MAX} rounds of mending there are still problems:\n{}",
            list(&problems)
        ));
    }
    let mended = repair(&progress.spec, &report.problems);
    if mended.deeds.is_empty() {
        return Verdict::Failed(format!(
            "there are problems that this program cannot mend:\n{}",
            list(&problems)
        ));
    }
    Verdict::Mend(mended.spec, mended.deeds)
}

fn write_and_build(job: &Job, spec: &Value, text: String, status: &str) -> Answer {
    // One value a line, so that the Read tool can show all of it again.
    let content = serde_json::to_string_pretty(spec).unwrap_or_default() + "\n";
    Answer::say(text)
        .call("Write", json!({"file_path": job.spec_path, "content": content}))
        .bash(format!("{STATUS}{status}\n{}", job.skill.build_command(&job.spec_path, &job.deck_path)))
}

fn close(job: &Job, status: &str, text: &str) -> Answer {
    Answer::say(text).bash(format!("{STATUS}{status}\nls -l {}", quoted(&job.deck_path)))
}

fn ready(job: &Job, progress: &Progress, report: &Report, listing: &str) -> String {
    let file = job.deck_path.trim_start_matches("/workspace/");
    if !listing.contains(job.deck_path.rsplit('/').next().unwrap_or_default())
        || listing.contains("[exit code")
    {
        return format!(
            "The check found nothing wrong, but {file} is not to be seen:\n\n```\n{}\n```",
            tail(listing, 4, 400)
        );
    }
    let slides = report
        .slides
        .or_else(|| progress.spec["slides"].as_array().and_then(|list| u64::try_from(list.len()).ok()));
    let count = slides.map_or_else(String::new, |count| format!(" ({count} slides)"));
    let rendered = match report.rendered {
        Some(true) => " It was rendered, and every slide was looked at.",
        Some(false) => " It could not be rendered here, so only the file itself was checked.",
        None => "",
    };
    let mended = match progress.deeds.len() {
        0 => String::new(),
        _ => format!(
            " On the way there it was mended: {}.",
            progress.deeds[..progress.deeds.len().min(LISTED_MAX)].join("; ")
        ),
    };
    let mut lines = vec![format!("Check: no problems.{rendered}{mended}")];
    let warnings: Vec<String> =
        report.warnings.iter().take(LISTED_MAX).map(|warning| warning.line()).collect();
    if !warnings.is_empty() {
        lines.push(format!("Warnings, which do not count as problems: {}.", warnings.join("; ")));
    }
    lines.extend(job.said.iter().cloned());
    lines.push(format!(
        "The spec is in {}. In this session you can say “add a slide about …”, “remove slide 3” or “change the title to …”.",
        job.spec_path.trim_start_matches("/workspace/")
    ));
    format!("The deck is ready: `{file}`{count}.\n\n{}", list(&lines))
}

fn failed(job: &Job, progress: &Progress, why: &str, listing: &str) -> String {
    let file = job.deck_path.trim_start_matches("/workspace/");
    let there = !listing.contains("[exit code") && listing.contains(".pptx");
    let state = if there {
        format!("A file was written and may be opened, as it is: `{file}`.")
    } else {
        format!("There is no file `{file}`.")
    };
    let written = if there || progress.written.is_empty() {
        String::new()
    } else {
        format!("\n\nOf the spec the Write tool said: {}", tail(&progress.written, 2, 300))
    };
    format!("The deck is not as it should be: {why}\n\n{state}{written}")
}

fn list(lines: &[String]) -> String {
    let mut text: Vec<String> = lines.iter().take(LISTED_MAX + 4).map(|line| format!("- {line}")).collect();
    if lines.len() > LISTED_MAX + 4 {
        text.push(format!("- and {} more", lines.len() - LISTED_MAX - 4));
    }
    text.join("\n")
}
