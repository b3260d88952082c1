//! The agent's side of a socket: each message is read; one that asks for a response becomes a call when its lane is free.

use bytes::Bytes;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::{Current, Goes, LANES, Lane, Over, Socket, WAITING, Waiting, client, frame};
use crate::llm::RequestFacts;
use crate::llm::frames::MESSAGE_END;
use crate::llm::request::{TOOL_LIMIT, declare};
use crate::llm::socket::{Asked, Request};
use crate::refusal::{Reason, Refusal};
use crate::share::large::{beside, turn};

impl Socket {
    pub(super) async fn hear_client(&mut self, message: Option<Result<Message, Error>>) -> Goes {
        self.heard.0 = Instant::now();
        let message = match message {
            Some(Ok(message)) => message,
            None => {
                self.leave(None);
                return Ok(());
            }
            Some(Err(error)) => {
                let (code, refusal) = client::fault(&error);
                if let Some(refusal) = refusal {
                    self.refuse_unread(&refusal, None).await;
                }
                if let (Some(code), Some(client)) = (code, self.client.take()) {
                    client
                        .close(Some(frame(code, "the host's firewall cannot read this")))
                        .await;
                }
                self.leave(None);
                return Ok(());
            }
        };
        let message = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(_) => {
                let refusal = Refusal::new(
                    Reason::Malformed,
                    "Messages on this socket are JSON text; this one was binary.",
                );
                self.refuse_unread(&refusal, None).await;
                return Ok(());
            }
            Message::Close(frame) => {
                if let Some(client) = self.client.take() {
                    client.close(None).await;
                }
                self.leave(frame);
                return Ok(());
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        let room = match self.client.as_mut().map(|client| client.take_room(message.len())) {
            Some(Ok(room)) => room,
            Some(Err(refusal)) => {
                self.refuse_unread(&refusal, None).await;
                return Ok(());
            }
            None => return Ok(()),
        };
        let _turn = turn(message.len()).await;
        match beside(message.len(), || self.session.asked(&message)) {
            Err(unfit) => {
                let refusal = Refusal::new(Reason::Malformed, unfit.why);
                self.refuse_unread(&refusal, unfit.named.as_deref()).await;
                Ok(())
            }
            // It frees money, so it does not wait.
            Ok(Asked::Stop) => {
                for call in self.lanes.iter_mut().filter_map(|lane| lane.call.as_mut()) {
                    call.stopping = true;
                }
                self.pass_on(message).await
            }
            Ok(Asked::Response(facts, request)) => {
                let asked = (facts, request);
                let waiting = Waiting {
                    asked,
                    message,
                    room,
                    overtaken: false,
                };
                self.line_up(waiting).await
            }
            Ok(_) if self.over.is_some() => Ok(()),
            Ok(Asked::Setup(facts, request, beside)) => self.set_up(*facts, &request, beside, message).await,
            Ok(Asked::Input(input)) => self.put_in(input, message).await,
            Ok(Asked::Aside) => self.forward(message).await,
        }
    }

    /// The client has gone: what is under way is read to its end, and nothing else is begun.
    fn leave(&mut self, frame: Option<CloseFrame>) {
        self.client = None;
        self.gone = Some((Instant::now(), frame, 0));
        self.held = None;
        for lane in &mut self.lanes {
            lane.waiting.clear();
            if let Some(call) = &mut lane.call {
                call.tab.set_client_gone();
            }
        }
    }

    async fn pass_on(&mut self, message: Bytes) -> Goes {
        let text = Utf8Bytes::try_from(message);
        match text {
            Ok(text) if self.busy() => self.send_on(text).await,
            // Nothing is under way that it could stop.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Forwards a message that leads to no response, or to one that is reserved for.
    pub(super) async fn forward(&mut self, message: Bytes) -> Goes {
        match Utf8Bytes::try_from(message) {
            Ok(text) => self.send_on(text).await,
            // It was read as text before.
            Err(_) => Ok(()),
        }
    }

    pub(super) async fn send_on(&mut self, text: Utf8Bytes) -> Goes {
        match self.upstream.send(Message::Text(text)).await {
            Ok(()) => Ok(()),
            Err(why) => Err(self.provider_gone(&why, None)),
        }
    }

    /// What waits for the response before it.
    pub(super) async fn take_up(&mut self) -> Goes {
        match self.held.take() {
            Some(waiting) => self.line_up(waiting).await,
            None => Ok(()),
        }
    }

    /// Puts a message in its lane, and begins it if the lane is free.
    async fn line_up(&mut self, mut waiting: Waiting) -> Goes {
        let request = &waiting.asked.1;
        let (name, named) = (request.lane.clone(), request.named.clone());
        self.give_up_doubtful(name.as_deref()).await;
        let busy = self.lanes.iter().find(|lane| lane.name == name);
        if let Some(call) = busy.and_then(|lane| lane.call.as_ref())
            && name.is_none()
            && let Some(refusal) = self.session.busy()
        {
            if call.stopping {
                waiting.overtaken = true;
                self.held = Some(waiting);
            } else {
                self.refuse_unread(&refusal, named.as_deref()).await;
            }
            return Ok(());
        }
        self.lanes
            .retain(|lane| lane.call.is_some() || !lane.waiting.is_empty() || lane.name == name);
        let at = match self.lanes.iter().position(|lane| lane.name == name) {
            Some(at) => at,
            None => {
                self.lanes.push(Lane {
                    name: name.clone(),
                    ..Lane::default()
                });
                self.lanes.len() - 1
            }
        };
        let all: usize = self.lanes.iter().map(|lane| lane.waiting.len()).sum();
        if self.lanes.len() > LANES || all >= WAITING {
            let refusal = Refusal::new(
                Reason::InFlight,
                "Too many requests wait on this socket. Wait for some to end, then try again.",
            );
            self.refuse_unread(&refusal, named.as_deref()).await;
            return Ok(());
        }
        if let Some(lane) = self.lanes.get_mut(at) {
            waiting.overtaken |= lane.call.is_some();
            lane.waiting.push_back(waiting);
        }
        self.begin(at).await
    }

    /// Begins what waits in a lane, until something of it is under way.
    pub(super) async fn begin(&mut self, at: usize) -> Goes {
        loop {
            let Some(lane) = self.lanes.get_mut(at).filter(|lane| lane.call.is_none()) else {
                return Ok(());
            };
            if self.over.is_some() || self.client.is_none() {
                lane.waiting.clear();
                return Ok(());
            }
            let Some(waiting) = lane.waiting.pop_front() else {
                return Ok(());
            };
            let Waiting {
                asked: (facts, request),
                message,
                room,
                ..
            } = self.again(waiting);
            let begun = self.decide(*facts, &request, message).await;
            drop(room);
            match begun {
                Ok(current) => {
                    self.session.sent(&request);
                    self.heard.1 = Instant::now();
                    if let Some(lane) = self.lanes.get_mut(at) {
                        lane.call = Some(current);
                    }
                }
                Err((refusal, id)) => self.refused(&refusal, &id, request.named.as_deref()).await?,
            }
        }
    }

    /// What waited while the conversation went on is read again: what it reads, and what the session says of it, may be
    /// another by now.
    fn again(&mut self, mut waiting: Waiting) -> Waiting {
        if waiting.overtaken
            && self.session.busy().is_some()
            && let Ok(Asked::Response(facts, request)) = self.session.asked(&waiting.message)
        {
            waiting.asked = (facts, request);
        }
        waiting
    }

    /// Tells a refusal that is recorded, and whether the socket can go on.
    pub(super) async fn refused(&mut self, refusal: &Refusal, id: &str, named: Option<&str>) -> Goes {
        self.tell(refusal, id, named).await;
        match refusal.reason {
            Reason::Frozen | Reason::RunTimeout => self.over = Some(Over::Refused(None)),
            Reason::Upstream => return Err(self.provider_gone(&refusal.message, None)),
            _ => {}
        }
        Ok(())
    }

    /// One call: decide, reserve, forward.
    async fn decide(
        &mut self,
        mut facts: RequestFacts,
        request: &Request,
        message: Bytes,
    ) -> Result<Current, (Refusal, String)> {
        let mut declared = facts.tools.clone();
        if request.continues {
            for tool in &self.tools {
                // What does not fit is not remembered for this call; the allow list decides on its calls.
                if declare(&mut facts.tools, tool.clone()).is_err() {
                    break;
                }
            }
        }
        let call = self.caller.call(facts, message, request.turn);
        let id = call.id.to_string();
        let permit = self
            .caller
            .decide(&call)
            .map_err(|refusal| (refusal, id.clone()))?;
        let sent = self
            .upstream
            .ask(self.session.as_ref(), request, call, permit)
            .await;
        let (tab, stripped) = sent.map_err(|refusal| (refusal, id))?;
        declared.retain(|tool| !stripped.contains(&tool.name));
        for tool in declared {
            // Beyond the limit a tool is not remembered; the allow list decides on its calls.
            if self.tools.len() < TOOL_LIMIT && !self.tools.contains(&tool) {
                self.tools.push(tool);
            }
        }
        Ok(Current::new(tab))
    }

    /// Refuses what never became a call, and records that.
    pub(super) async fn refuse_unread(&mut self, refusal: &Refusal, named: Option<&str>) {
        let id = self.caller.refused(refusal);
        self.tell(refusal, &id, named).await;
    }

    /// Tells the client a refusal.
    pub(super) async fn tell(&mut self, refusal: &Refusal, id: &str, named: Option<&str>) {
        let text = self.session.refusal(refusal, id, named);
        self.say(Message::text(text)).await;
    }

    pub(super) async fn say(&mut self, message: Message) {
        if let Some(client) = &mut self.client
            && client.send(message).await.is_err()
        {
            self.leave(None);
        }
    }

    /// Sends messages that a reply's reader gave, each ended with its mark.
    pub(super) async fn say_all(&mut self, mut messages: Bytes, binary: bool) {
        while let Some(at) = memchr::memchr(MESSAGE_END, &messages) {
            let one = messages.split_to(at);
            drop(messages.split_to(1));
            let text = Utf8Bytes::try_from(one.clone());
            let message = match text {
                Ok(text) if !binary => Message::Text(text),
                _ => Message::Binary(one),
            };
            self.say(message).await;
        }
    }
}
