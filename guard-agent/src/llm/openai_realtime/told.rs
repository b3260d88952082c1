//! What the provider's messages say of a realtime socket: which responses run, and how the session is set.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::session::{APART, TRANSCRIPTION};
use super::usage::Wire;
use crate::llm::request::lenient;
use crate::llm::socket::{Mark, Request, Told};

/// Responses that are told apart by their ids.
const RUNNING: usize = 64;
/// Requests that wait for their response.
const PENDING: usize = 64;
/// Longest id.
const ID: usize = 512;

/// What was heard so far.
#[derive(Debug)]
pub(super) struct Heard {
    /// The model that the provider says it serves with.
    pub(super) model: Option<String>,
    /// The model that the provider says it writes down with.
    pub(super) transcription: Option<String>,
    /// The cap on a response's output that the provider says it keeps to, if it has said so; none inside is no cap.
    pub(super) cap: Option<Option<u64>>,
    /// Turns that were not written down yet.
    pub(super) unwritten: usize,
    /// The provider begins responses by itself, as far as is known.
    begins: bool,
    /// What the setup that is on its way says of that.
    asked: Option<bool>,
    /// Setups that the provider has not confirmed yet.
    updates: u32,
    /// Responses under way, with their lanes.
    running: Vec<(String, Option<String>)>,
    /// Requests whose response has not begun: lane, and by which the client knows them.
    pending: Vec<(Option<String>, Option<String>)>,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            model: None,
            transcription: None,
            cap: None,
            unwritten: 0,
            begins: true,
            asked: None,
            updates: 0,
            running: Vec::new(),
            pending: Vec::new(),
        }
    }
}

impl Heard {
    /// A setup that is judged says so of responses that the provider begins.
    pub(super) fn asked(&mut self, begins: Option<bool>) {
        self.asked = begins;
    }

    /// A setup has gone on. What it allows holds at once, what it takes away when the provider says so.
    pub(super) fn updated(&mut self) {
        self.updates = self.updates.saturating_add(1);
        self.begins |= self.asked.take() == Some(true);
    }

    /// Whether the provider may begin responses by itself.
    pub(super) fn begins(&self) -> bool {
        self.begins
    }

    /// A request has gone on.
    pub(super) fn pending(&mut self, request: &Request) {
        // A lane has one call at a time.
        self.pending.retain(|(lane, _)| *lane != request.lane);
        if self.pending.len() < PENDING {
            self.pending.push((request.lane.clone(), request.named.clone()));
        }
    }

    /// The response under way in a lane.
    pub(super) fn running(&self, lane: Option<&str>) -> Option<&str> {
        let found = self.running.iter().find(|(_, of)| of.as_deref() == lane);
        found.map(|(id, _)| id.as_str())
    }

    /// A response begins: in which lane. One that belongs to no conversation was asked for as such.
    fn created(&mut self, response: &Response<'_>) -> Option<String> {
        let conversation = response.conversation_id.is_some_and(|id| id.get() != "null");
        let apart = self.pending.iter().any(|(lane, _)| lane.is_some());
        let lane = (apart && !conversation).then(|| APART.to_owned());
        if let Some(at) = self.pending.iter().position(|(of, _)| *of == lane) {
            self.pending.remove(at);
        }
        if let Some(id) = response.id.as_deref().filter(|id| id.len() <= ID) {
            if self.running.len() >= RUNNING {
                self.running.remove(0);
            }
            self.running.push((id.to_owned(), lane.clone()));
        }
        lane
    }

    fn lane_of(&self, id: Option<&str>) -> Option<String> {
        let found = self.running.iter().find(|(known, _)| Some(known.as_str()) == id);
        found.and_then(|(_, lane)| lane.clone())
    }

    fn session(&mut self, raw: &RawValue, confirms: bool) {
        if let Some(told) = lenient::<Session<'_>>(Some(raw)) {
            self.model = told.model.map(Cow::into_owned).or(self.model.take());
            let cap = told.max_output_tokens.or(told.max_response_output_tokens);
            self.cap = cap.map(|cap| cap.get().parse().ok());
        }
        let value: serde_json::Value = serde_json::from_str(raw.get()).unwrap_or_default();
        let input = value.get("audio").and_then(|audio| audio.get("input"));
        let of = |today: &str, before: &str| {
            let place = input.and_then(|input| input.get(today));
            place.or(value.get(before)).cloned()
        };
        let model = of("transcription", "input_audio_transcription");
        self.transcription = model.and_then(|asked| Some(asked.get("model")?.as_str()?.to_owned()));
        if confirms {
            self.updates = self.updates.saturating_sub(1);
        }
        let begins = of("turn_detection", "turn_detection").map(|detection| {
            !detection.is_null()
                && detection
                    .get("create_response")
                    .is_none_or(|answer| answer != false)
        });
        match begins {
            Some(false) if self.updates > 0 => {}
            Some(begins) => self.begins = begins,
            None => {}
        }
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    #[serde(borrow)]
    response_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    item: Option<Item<'a>>,
    #[serde(borrow)]
    error: Option<Failure<'a>>,
    #[serde(borrow)]
    session: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    conversation_id: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    usage: Option<Wire>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    call_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    event_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Session<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_response_output_tokens: Option<&'a RawValue>,
}

/// What a message was.
pub(super) struct Read {
    pub(super) told: Told,
    /// A response of the conversation has ended, which read and made so much, if it ran to its end and says so.
    pub(super) ended: Option<Option<u64>>,
    /// What a response of the conversation has put out with this message.
    pub(super) made: Made,
    /// The provider has confirmed a setup, or told an error, which may be that of a setup.
    pub(super) setup: Option<bool>,
    /// Something heard was written down.
    pub(super) written: bool,
}

/// Output that is not yet counted by the provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Made {
    /// Bytes of text.
    pub(super) text: u64,
    /// Characters of sound.
    pub(super) sound: u64,
}

impl Read {
    /// Part of a response.
    fn part() -> Self {
        Self {
            told: Told::plain(Mark::Part),
            ended: None,
            made: Made::default(),
            setup: None,
            written: false,
        }
    }
}

/// Reads a message. `own`: whether the client itself says that this call was made.
pub(super) fn read(message: &[u8], heard: &mut Heard, own: impl Fn(&str) -> bool) -> Read {
    let mut read = Read::part();
    let Ok(event) = serde_json::from_slice::<Event<'_>>(message) else {
        return read;
    };
    let empty = Response {
        id: None,
        conversation_id: None,
        status: None,
        usage: None,
    };
    read.told = match &*event.r#type {
        "response.created" => Told {
            lane: heard.created(event.response.as_ref().unwrap_or(&empty)),
            mark: Mark::Begin,
        },
        "response.done" => {
            let response = event.response.as_ref();
            let id = response.and_then(|response| response.id.as_deref());
            let lane = heard.lane_of(id);
            heard.running.retain(|(known, _)| Some(known.as_str()) != id);
            if lane.is_none() {
                // One that was cancelled or failed may say that it took nothing.
                let over = response.filter(|response| {
                    matches!(response.status.as_deref(), Some("completed" | "incomplete"))
                });
                let total = over.and_then(|response| response.usage.as_ref()?.total());
                read.ended = Some(total.filter(|total| *total > 0));
            }
            Told {
                lane,
                mark: Mark::End,
            }
        }
        kind if kind.starts_with("response.") => {
            let lane = heard.lane_of(event.response_id.as_deref());
            if lane.is_none() {
                read.made = made(kind, event.delta);
            }
            Told {
                lane,
                mark: Mark::Part,
            }
        }
        "error" => {
            read.setup = Some(false);
            failed(heard, event.error.as_ref())
        }
        "session.created" | "session.updated" => {
            let confirms = event.r#type == "session.updated";
            read.setup = confirms.then_some(true);
            if let Some(session) = event.session {
                heard.session(session, confirms);
            }
            Told::plain(Mark::Aside)
        }
        "input_audio_buffer.committed" => {
            heard.unwritten = heard.unwritten.saturating_add(1).min(PENDING);
            Told::plain(if heard.begins { Mark::Due } else { Mark::Aside })
        }
        "conversation.item.input_audio_transcription.completed" => {
            heard.unwritten = heard.unwritten.saturating_sub(1);
            read.written = true;
            Told {
                lane: Some(TRANSCRIPTION.to_owned()),
                mark: Mark::Whole,
            }
        }
        "conversation.item.input_audio_transcription.failed" => {
            heard.unwritten = heard.unwritten.saturating_sub(1);
            Told::plain(Mark::Aside)
        }
        _ => Told::plain(Mark::Aside),
    };
    if read.told.mark == Mark::Aside {
        // Of whatever type: some reader may take the item for what it is.
        read.told.mark = item(event.item.as_ref(), own);
    }
    read
}

fn made(kind: &str, delta: Option<&RawValue>) -> Made {
    let length = delta.map_or(0, |delta| delta.get().len() as u64);
    match kind {
        "response.output_audio.delta" | "response.audio.delta" => Made {
            text: 0,
            sound: length,
        },
        _ => Made {
            text: length,
            sound: 0,
        },
    }
}

/// An item of the conversation: a call in it belongs to the response that makes it, unless the client wrote it there.
fn item(item: Option<&Item<'_>>, own: impl Fn(&str) -> bool) -> Mark {
    let Some(item) = item else { return Mark::Aside };
    let call = item.r#type.as_deref().is_some_and(|kind| kind.ends_with("_call"));
    let mut ids = [&item.call_id, &item.id].into_iter().flatten();
    match call && !ids.any(|id| own(id)) {
        true => Mark::Part,
        false => Mark::Aside,
    }
}

/// An error belongs to the message that it names.
fn failed(heard: &mut Heard, failure: Option<&Failure<'_>>) -> Told {
    let named = failure.and_then(|failure| failure.event_id.as_deref());
    let of = |(_, known): &(Option<String>, Option<String>)| known.is_some() && known.as_deref() == named;
    if let Some(at) = heard.pending.iter().position(of) {
        let (lane, _) = heard.pending.remove(at);
        return Told {
            lane,
            mark: Mark::Failed(None),
        };
    }
    let unnamed = heard.pending.iter().find(|(_, known)| known.is_none());
    match unnamed {
        Some((lane, _)) if named.is_none() => Told {
            lane: lane.clone(),
            mark: Mark::Doubt,
        },
        _ => Told::plain(Mark::Aside),
    }
}
