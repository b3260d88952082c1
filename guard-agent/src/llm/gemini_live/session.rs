//! One Live socket: how it is set up, what its conversation may hold, and which turns the model may take.
//!
//! In: the messages of both sides. Out: what has to be reserved before input goes on. On failure: `Unfit`.
//!
//! The model takes a turn whenever it finds that there is something to answer, so every input is taken to lead to one. A
//! turn goes on when the results of its tool calls come: then what it may read and make is reserved once more.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::error;
use super::reply::LiveReply;
use super::request::{self, Piece, Said, Settings};
use super::told::Turn;
use crate::llm::reply::Reader;
use crate::llm::socket::context::Context;
use crate::llm::socket::{Asked, Expected, Input, Need, Request, Session, Told, Unfit};
use crate::llm::{
    Audio, BodyEdits, DeclaredTool, Gate, Malformed, ReplyHead, ReplyReader, RequestFacts, Seen,
};
use crate::refusal::{Reason, Refusal};

/// Tokens that a reservation has room for beyond what was said so far: some seconds of speech.
const HEADROOM: u64 = 2_048;
/// What a turn without a cap may make beyond, when it goes on.
const MORE: u64 = 8_192;

/// How a socket is set up.
#[derive(Debug, Clone, Default)]
struct Set {
    model: String,
    tools: Vec<DeclaredTool>,
    cap: Option<u64>,
}

/// One socket.
#[derive(Debug, Default)]
pub(super) struct Live {
    set: Option<Set>,
    proposed: Option<Set>,
    turn: Turn,
    context: Context,
    said: u64,
}

impl Live {
    fn facts(set: &Set, carried: u64) -> RequestFacts {
        RequestFacts {
            model: set.model.clone(),
            stream: true,
            output_cap: set.cap,
            choices: 1,
            server_side: set.tools.iter().any(|tool| tool.server_side),
            tools: set.tools.clone(),
            carried,
            audio: Audio::Spoken,
            ..RequestFacts::default()
        }
    }

    fn set_up(&mut self, settings: Settings, bytes: u64) -> Result<Asked, Malformed> {
        if self.set.is_some() {
            return Err(Malformed(
                "a socket of Live is set up once; open another one".to_owned(),
            ));
        }
        self.context = Context::default();
        self.context.add(bytes);
        if settings.unseen {
            self.context.add_unseen();
        }
        let set = Set {
            model: settings.model,
            tools: settings.tools,
            cap: settings.cap,
        };
        let facts = Self::facts(&set, self.context.bound().saturating_add(HEADROOM));
        self.proposed = Some(set);
        let request = Request {
            turn: self.said,
            ..Request::default()
        };
        Ok(Asked::Setup(Box::new(facts), request, None))
    }

    fn put(&mut self, piece: &Piece, beyond: u64) -> Asked {
        self.context.add(piece.tokens.saturating_add(beyond));
        if piece.unseen {
            self.context.add_unseen();
        }
        Asked::Input(Input {
            due: piece.due,
            ..Input::default()
        })
    }

    fn answer(&mut self, bytes: u64, unseen: bool) -> Asked {
        self.context.add(bytes);
        if unseen {
            self.context.add_unseen();
        }
        let cap = self.set.as_ref().and_then(|set| set.cap);
        let more = Seen {
            input: self.context.bound().saturating_add(HEADROOM),
            output: cap.unwrap_or(MORE),
        };
        Asked::Input(Input {
            due: false,
            extends: self.turn.is_active().then_some(more),
            named: None,
        })
    }
}

impl Session for Live {
    fn asked(&mut self, message: &[u8]) -> Result<Asked, Unfit> {
        self.said = self.said.saturating_add(1);
        let read = request::said(message);
        let beyond = read.as_ref().map_or(0, |(_, beyond)| *beyond);
        let bytes = (message.len() as u64).saturating_add(beyond);
        let asked = read.and_then(|(said, _)| match (said, &self.set) {
            (Said::Setup(settings), _) => self.set_up(settings, bytes),
            (_, None) => Err(Malformed("a socket of Live begins with a setup".to_owned())),
            (Said::Put(piece), Some(_)) => Ok(self.put(&piece, beyond)),
            (Said::Answer { unseen }, Some(_)) => Ok(self.answer(bytes, unseen)),
        });
        asked.map_err(|Malformed(why)| Unfit { why, named: None })
    }

    fn told(&mut self, message: &[u8]) -> Told {
        let (told, ended) = self.turn.place(message);
        if let Some(total) = ended {
            self.said = self.said.saturating_add(1);
            self.context.ended(total);
        }
        told
    }

    fn reader(&self, _request: &Request, gate: Option<&Arc<dyn Gate>>) -> Box<dyn ReplyReader> {
        let head = ReplyHead {
            status: StatusCode::OK,
            headers: &HeaderMap::new(),
            hide_usage_event: false,
            gate,
        };
        Box::new(Reader::new(LiveReply::default(), &head))
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str, _named: Option<&str>) -> String {
        error(refusal, request_id).to_string()
    }

    fn accepted(&mut self, edits: &BodyEdits) {
        if let Some(mut set) = self.proposed.take() {
            set.tools.retain(|tool| !edits.strip_tools.contains(&tool.name));
            set.cap = edits.output_cap.or(set.cap);
            self.set = Some(set);
        }
    }

    fn needs(&self) -> Vec<Need> {
        let need = Need {
            count: 1,
            covers: self.context.bound(),
            ..Need::default()
        };
        self.set.iter().map(|_| need.clone()).collect()
    }

    fn unforeseen(&self, lane: Option<&str>) -> Option<Need> {
        lane.is_none().then(|| self.needs().pop())?
    }

    fn expected(&mut self, need: &Need) -> Option<Expected> {
        self.said = self.said.saturating_add(1);
        let covers = need.covers.saturating_add(HEADROOM);
        Some(Expected {
            facts: Self::facts(self.set.as_ref()?, covers),
            request: Request {
                turn: self.said,
                ..Request::default()
            },
            covers,
            grows: true,
        })
    }

    fn busy(&self) -> Option<Refusal> {
        Some(Refusal::new(
            Reason::InFlight,
            "The model takes a turn at present.",
        ))
    }

    fn needs_setup(&self) -> bool {
        self.set.is_none()
    }
}

#[cfg(test)]
mod tests;
