//! What belongs on the slides of a deck whose facts nobody gave: prompts for the person who has them. They state
//! nothing about any topic.

use serde_json::{Value, json};

use crate::text::{capitalized, words};

/// The prompts for one kind of topic.
#[derive(Debug)]
pub(crate) struct Prompts {
    pub(crate) situation: &'static str,
    pub(crate) situation_bullets: [&'static str; 3],
    pub(crate) trend: &'static str,
    pub(crate) drivers: &'static str,
    pub(crate) left: (&'static str, [&'static str; 3]),
    pub(crate) right: (&'static str, [&'static str; 3]),
    pub(crate) evidence: [[&'static str; 3]; 4],
    pub(crate) risks: [&'static str; 3],
}

/// For results of a period. `{t}` stands for the topic.
const RESULTS: Prompts = Prompts {
    situation: "Situation: how {t} turned out",
    situation_bullets: [
        "**Headline:** the one result that the audience must remember",
        "**Comparison:** against plan, the period before and peers",
        "**Why it matters:** what the audience decides with it",
    ],
    trend: "Development: {t} over time",
    drivers: "Drivers: what moved {t}",
    left: (
        "What pushed it up",
        [
            "The largest cause, with its figure",
            "Whether it lasts or happened once",
            "Who or what is behind it",
        ],
    ),
    right: (
        "What held it back",
        ["The largest cause, with its figure", "What is being done about it", "When the effect should show"],
    ),
    evidence: [
        ["What was the result?", "Main measure, unit and date", "Published report or finance system"],
        ["Compared with what?", "Plan, earlier period, peers", "Budget and earlier reports"],
        ["Where did it come from?", "Split by product, region, customer", "Management accounts"],
        ["What is expected next?", "Outlook with its assumptions", "Guidance or own forecast"],
    ],
    risks: [
        "**Demand:** what would have to happen for it to weaken",
        "**Supply and cost:** which dependency is hardest to replace",
        "**Rules and rivals:** which change outside would hurt most",
    ],
};

/// For plans and proposals.
const PLAN: Prompts = Prompts {
    situation: "Situation: where {t} starts from",
    situation_bullets: [
        "**Goal:** the outcome that counts as success, and by when",
        "**Starting point:** what exists today and what is missing",
        "**Why now:** what happens if nothing is done",
    ],
    trend: "Course: the measure that {t} shall move",
    drivers: "Drivers: what decides over {t}",
    left: (
        "What speaks for it",
        [
            "The strongest reason, with its evidence",
            "Who supports it and why",
            "What it makes possible later",
        ],
    ),
    right: (
        "What speaks against it",
        [
            "The strongest objection, stated fairly",
            "Its cost in money and attention",
            "What would have to stop for it",
        ],
    ),
    evidence: [
        ["What does it cost?", "Budget by year, with its range", "Offers and own estimate"],
        ["What does it bring?", "Benefit, unit and date", "Pilot or comparable case"],
        ["Who does it?", "Names, time and skills", "Team plan"],
        ["How is success seen?", "Measure and threshold", "Agreed with the sponsor"],
    ],
    risks: [
        "**Delivery:** the step most likely to slip, and its early sign",
        "**People:** whose time is not secured yet",
        "**Dependency:** which decision of others it waits for",
    ],
};

/// For everything else.
const GENERAL: Prompts = Prompts {
    situation: "Situation: where {t} stands today",
    situation_bullets: [
        "**In one sentence:** what the audience must know about it",
        "**Who is concerned:** whom it touches and how",
        "**Why now:** what makes it worth their time today",
    ],
    trend: "Development: {t} over time",
    drivers: "Drivers: what shapes {t}",
    left: (
        "What helps",
        ["The strongest factor, with evidence", "Who benefits from it", "How long it will last"],
    ),
    right: (
        "What hinders",
        ["The strongest obstacle, with evidence", "Who is affected by it", "What has been tried"],
    ),
    evidence: [
        ["How large is it?", "Main measure, unit and date", "Official statistics or own data"],
        ["How does it change?", "The same measure over time", "The same source, earlier editions"],
        ["How does it compare?", "A similar case elsewhere", "Study or report, with its date"],
        ["What do those concerned say?", "A quote or a survey", "Interview, with permission"],
    ],
    risks: [
        "**What is uncertain:** the assumption that carries the most",
        "**What could go wrong:** the event that would change the picture",
        "**What would show it early:** the sign to watch for",
    ],
};

/// The prompts that fit a topic's words.
pub(crate) fn of(topic: &str) -> &'static Prompts {
    let words = words(topic);
    let any = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    if any(&["plan", "strategy", "roadmap", "launch", "project", "proposal", "migration", "rollout", "pilot"])
    {
        &PLAN
    } else if any(&[
        "performance",
        "results",
        "result",
        "earnings",
        "quarter",
        "q1",
        "q2",
        "q3",
        "q4",
        "sales",
        "revenue",
        "review",
        "kpi",
        "status",
    ]) {
        &RESULTS
    } else {
        &GENERAL
    }
}

impl Prompts {
    pub(crate) fn evidence_table(&self) -> Value {
        json!({"columns": ["Question", "What to show", "Where to look"], "rows": self.evidence})
    }
}

/// A prompt with the topic in its place.
pub(crate) fn about(prompt: &str, topic: &str) -> String {
    capitalized(&prompt.replace("{t}", topic))
}

/// The slides of one sub-topic that the user named: what should stand there, in two ways so that decks vary.
pub(crate) fn subtopic(name: &str, index: usize) -> Value {
    let title = capitalized(name);
    if index.is_multiple_of(2) {
        return json!({"layout": "bullets", "title": title, "bullets": [
            format!("**The point:** what the audience should remember about {name}"),
            "**The evidence:** one figure with its source and date",
            "**The consequence:** what follows from it",
        ]});
    }
    json!({"layout": "two_column", "title": title, "columns": [
        {"heading": "What is known", "bullets": [format!("The main fact about {name}, with its source"), "Since when it holds"]},
        {"heading": "What is open", "bullets": ["The question that is still unanswered", "Who can answer it, and when"]},
    ]})
}

/// The steps from an outline to a finished deck: the one thing that is true whatever the topic.
pub(crate) fn next_steps() -> Value {
    json!([
        {"label": "Step 1", "title": "Collect the figures", "text": "Each with its source and date"},
        {"label": "Step 2", "title": "Write the messages", "text": "One sentence a slide in place of the prompts"},
        {"label": "Step 3", "title": "Test the story", "text": "With somebody who disagrees"},
        {"label": "Step 4", "title": "Ask for the decision", "text": "State it on the last slide"},
    ])
}
