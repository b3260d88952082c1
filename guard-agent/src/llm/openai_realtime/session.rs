//! One realtime socket: what its session is set to, what its conversation may hold, and which responses may begin.
//!
//! In: the messages of both sides. Out: what they ask for, and what has to be reserved for responses that the provider
//! begins by itself. On failure: `Unfit`.
//!
//! Until the provider has confirmed otherwise, it is taken to answer whatever it hears by itself. Each response reads the
//! conversation, of which Guard keeps only a bound of its length: a byte of text is a token at most, sound has at most
//! twenty tokens a second, and what a response that ran to its end says that it read and made takes the place of that
//! guess. One that was cut off, or that was given something else to read, says nothing of the rest.

use std::collections::VecDeque;
use std::sync::Arc;

use super::item::Item;
use super::length::Length;
use super::reply::{RealtimeReply, Sound, error};
use super::request::{self, Read, Said, Settings, Shape};
use super::setup::{SLIGHT_CHARS_PER_MILLI, Set, Setup};
use super::told::{self, Heard};
use super::{PREVIEW, REALTIME};
use crate::llm::reply::Reader;
use crate::llm::socket::{Asked, Expected, Input, Need, Request, Session, Told, Unfit};
use crate::llm::{
    Audio, BodyEdits, Bound, Dialect, Gate, Malformed, ReplyHead, ReplyReader, RequestFacts, Unit, Units,
};
use crate::refusal::{Reason, Refusal};
use http::{HeaderMap, StatusCode};

/// The lane of responses that are no part of the conversation.
pub(super) const APART: &str = "apart";
/// The lane of what is written down of what was heard.
pub(super) const TRANSCRIPTION: &str = "transcription";
/// Tokens that a reservation has room for beyond what was said so far: some seconds of speech.
const HEADROOM: u64 = 2_048;
/// Sound that the reservation of a transcription has room for, in milliseconds, beside what was heard.
const SPEECH: u64 = 30_000;
/// Tokens of text that a second of speech comes to, at most, and what comes beside them.
const WORDS_PER_SECOND: u64 = 20;
/// Calls that a client says the model has made, by their ids.
const OWN_CALLS: usize = 256;

/// One socket.
#[derive(Debug)]
pub(super) struct Realtime {
    shape: Shape,
    model: String,
    setup: Setup,
    heard: Heard,
    length: Length,
    /// Milliseconds of sound, at most, that were not written down yet.
    millis: u64,
    turn: u64,
    own_calls: VecDeque<String>,
}

impl Realtime {
    pub(super) fn new(model: String, shape: Shape) -> Self {
        Self {
            shape,
            model,
            setup: Setup::default(),
            heard: Heard::default(),
            length: Length::default(),
            millis: 0,
            turn: 1,
            own_calls: VecDeque::new(),
        }
    }

    fn facts(&self, set: &Set, carried: u64) -> RequestFacts {
        RequestFacts {
            model: self.model.clone(),
            stream: true,
            output_cap: set.cap,
            choices: 1,
            tools: set.tools.clone(),
            carried,
            audio: Audio::Spoken,
            unseen_input: set.prompt,
            ..RequestFacts::default()
        }
    }

    fn of_model(&self, model: Option<&str>) -> Result<(), Malformed> {
        match model {
            Some(other) if other != self.model => Err(Malformed(format!(
                "this socket was opened for another model than the one named here; open one for that model ({} is what \
                 Guard charges here)",
                crate::policy::quoted(&self.model)
            ))),
            _ => Ok(()),
        }
    }

    fn create(&mut self, settings: Settings, named: Option<String>) -> Result<Asked, Malformed> {
        self.of_model(settings.model.as_deref())?;
        self.put(&settings.input, 0);
        if !settings.apart {
            self.length.asked(settings.selects, settings.overrides);
        }
        // Of this response alone, but whose sound the next piece is, is not known before it is read.
        self.setup.set.slight_sound |= settings.slight_sound;
        let (input, apart) = (settings.input.unseen, settings.apart);
        let set = self.setup.with(settings);
        let mut facts = self.facts(&set, self.length.bound());
        facts.unseen_input |= input;
        let request = Request {
            lane: apart.then(|| APART.to_owned()),
            named,
            turn: self.turn,
            ..Request::default()
        };
        Ok(Asked::Response(Box::new(facts), request))
    }

    fn update(&mut self, settings: Settings, named: Option<String>, bytes: u64) -> Result<Asked, Malformed> {
        self.of_model(settings.model.as_deref())?;
        self.heard.asked(settings.begins);
        self.length.instruct(bytes);
        let set = self.setup.with(settings);
        let asked = set
            .transcription
            .clone()
            .filter(|_| set.transcription != self.setup.set.transcription);
        let beside = asked.map(|model| Need {
            lane: Some(TRANSCRIPTION.to_owned()),
            model: Some(model),
            count: 1,
            covers: self.millis,
        });
        let facts = self.facts(&set, self.length.bound().saturating_add(HEADROOM));
        self.setup.propose(set);
        let request = Request {
            named,
            turn: self.turn,
            ..Request::default()
        };
        Ok(Asked::Setup(Box::new(facts), request, beside))
    }

    /// Something becomes part of the conversation.
    fn put(&mut self, item: &Item, bytes: u64) {
        self.turn = self.turn.saturating_add(1);
        self.length.add(bytes);
        if item.unseen {
            self.length.add_unseen();
        }
        for id in &item.calls {
            if self.own_calls.len() >= OWN_CALLS {
                self.own_calls.pop_front();
            }
            self.own_calls.push_back(id.clone());
        }
    }

    fn listen(&mut self, chars: u64) {
        self.turn = self.turn.saturating_add(1);
        self.length.add(chars.div_ceil(self.setup.set.per_token()));
        self.millis = self
            .millis
            .saturating_add(chars.div_ceil(self.setup.set.per_milli()));
    }

    fn asked_for(&mut self, said: Said, named: Option<String>, bytes: u64) -> Result<Asked, Malformed> {
        let input = |named| {
            Ok(Asked::Input(Input {
                named,
                ..Input::default()
            }))
        };
        match said {
            Said::Create(settings) => self.create(settings, named),
            Said::Update(settings) => self.update(settings, named, bytes),
            Said::Audio(chars) => {
                self.listen(chars);
                input(named)
            }
            Said::Commit => input(named),
            Said::Item(item) => {
                self.put(&item, bytes);
                if item.sound {
                    self.millis = self.millis.saturating_add(bytes.div_ceil(SLIGHT_CHARS_PER_MILLI));
                    return input(named);
                }
                Ok(Asked::Aside)
            }
            Said::Stop => Ok(Asked::Stop),
            Said::Aside => Ok(Asked::Aside),
        }
    }
}

impl Session for Realtime {
    fn dialect(&self) -> Option<&'static dyn Dialect> {
        Some(match self.shape {
            Shape::Current => &REALTIME,
            Shape::Preview => &PREVIEW,
        })
    }

    fn asked(&mut self, message: &[u8]) -> Result<Asked, Unfit> {
        let Read { named, beyond, said } = request::read(message);
        let bytes = (message.len() as u64).saturating_add(beyond);
        let asked = said.and_then(|said| self.asked_for(said, named.clone(), bytes));
        asked.map_err(|Malformed(why)| Unfit { why, named })
    }

    fn told(&mut self, message: &[u8]) -> Told {
        let own = |id: &str| self.own_calls.iter().any(|known| known == id);
        let told = told::read(message, &mut self.heard, own);
        let sound = told.made.sound.div_ceil(self.setup.set.per_token());
        self.length.made(told.made.text.saturating_add(sound));
        if let Some(total) = told.ended {
            self.turn = self.turn.saturating_add(1);
            self.length.ended(total);
        }
        if let Some(confirmed) = told.setup {
            self.setup.answered(confirmed, self.heard.cap);
        }
        if told.written {
            self.millis = 0;
        }
        if self.setup.set.transcription.is_none() {
            // One that the provider says it has, although nobody asked for it.
            self.setup.set.transcription = self.heard.transcription.clone();
        }
        told.told
    }

    fn reader(&self, request: &Request, gate: Option<&Arc<dyn Gate>>) -> Box<dyn ReplyReader> {
        let model = match request.lane.as_deref() {
            // The provider's own word first: a setup that was forwarded may be refused.
            Some(TRANSCRIPTION) => self
                .heard
                .transcription
                .clone()
                .or(self.setup.set.transcription.clone()),
            _ => self.heard.model.clone(),
        };
        let sound = Sound(self.setup.set.per_token());
        let head = ReplyHead {
            status: StatusCode::OK,
            headers: &HeaderMap::new(),
            hide_usage_event: false,
            gate,
        };
        let reply = RealtimeReply::new(model, sound, request.named.clone());
        Box::new(Reader::new(reply, &head))
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str, named: Option<&str>) -> String {
        error(refusal, request_id, named).to_string()
    }

    fn sent(&mut self, request: &Request) {
        self.heard.pending(request);
    }

    fn accepted(&mut self, edits: &BodyEdits) {
        self.setup.accepted(edits);
        self.heard.updated();
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        if self.heard.begins() {
            needs.push(Need {
                count: 1,
                covers: self.length.bound(),
                ..Need::default()
            });
        }
        if let Some(model) = &self.setup.set.transcription {
            needs.push(Need {
                lane: Some(TRANSCRIPTION.to_owned()),
                model: Some(model.clone()),
                count: 1 + self.heard.unwritten,
                covers: self.millis,
            });
        }
        needs
    }

    fn expected(&mut self, need: &Need) -> Option<Expected> {
        // Each is a call of its own, whatever was said.
        self.turn = self.turn.saturating_add(1);
        let request = Request {
            lane: need.lane.clone(),
            turn: self.turn,
            ..Request::default()
        };
        let Some(model) = &need.model else {
            let covers = need.covers.saturating_add(HEADROOM);
            return Some(Expected {
                facts: self.facts(&self.setup.set, covers),
                request,
                covers,
                grows: true,
            });
        };
        let covers = need.covers.saturating_mul(2).max(SPEECH);
        let seconds = covers.div_ceil(1_000);
        let tokens = seconds.saturating_mul(WORDS_PER_SECOND).saturating_add(HEADROOM);
        let facts = RequestFacts {
            model: model.clone(),
            stream: true,
            output_cap: Some(tokens),
            choices: 1,
            bound: Some(Bound {
                input: tokens,
                output: tokens,
                units: Units::of(Unit::AudioMillis, covers),
                ..Bound::default()
            }),
            audio: Audio::Heard,
            ..RequestFacts::default()
        };
        Some(Expected {
            facts,
            request,
            covers,
            grows: false,
        })
    }

    fn unforeseen(&self, lane: Option<&str>) -> Option<Need> {
        let model = match lane {
            None => None,
            Some(TRANSCRIPTION) => Some(
                self.heard
                    .transcription
                    .clone()
                    .or(self.setup.set.transcription.clone())?,
            ),
            Some(_) => return None,
        };
        let covers = match lane {
            None => self.length.bound(),
            Some(_) => self.millis,
        };
        Some(Need {
            lane: lane.map(str::to_owned),
            model,
            count: 1,
            covers,
        })
    }

    fn cap(&mut self, tokens: u64) -> Option<String> {
        self.setup.capped(tokens);
        self.heard.updated();
        Some(match self.shape {
            Shape::Current => format!(
                "{{\"type\":\"session.update\",\"session\":{{\"type\":\"realtime\",\"max_output_tokens\":{tokens}}}}}"
            ),
            Shape::Preview => format!(
                "{{\"type\":\"session.update\",\"session\":{{\"max_response_output_tokens\":{tokens}}}}}"
            ),
        })
    }

    fn cancel(&self, lane: Option<&str>) -> Option<String> {
        let id = self.heard.running(lane)?;
        let message = serde_json::json!({"type": "response.cancel", "response_id": id});
        Some(message.to_string())
    }

    fn busy(&self) -> Option<Refusal> {
        Some(Refusal::new(
            Reason::InFlight,
            "The conversation has a response under way. Wait until it has ended, or end it with response.cancel, before \
             you ask for another one.",
        ))
    }
}

#[cfg(test)]
mod tests;
