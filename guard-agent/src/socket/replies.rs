//! The provider's side of a socket: each message is metered on the account of the call that it belongs to.

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{DUE, Ended, Goes, Lane, Socket, Standing, frame};
use crate::llm::frames::{MESSAGE_END, message};
use crate::llm::socket::{Mark, Told};

impl Socket {
    pub(super) async fn hear_provider(&mut self, message: Option<Result<Message, Error>>) -> Goes {
        self.heard.1 = Instant::now();
        let (bytes, binary) = match message {
            Some(Ok(Message::Text(text))) => (Bytes::from(text), false),
            Some(Ok(Message::Binary(bytes))) => (bytes, true),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            Some(Ok(Message::Close(frame))) => {
                let why = frame.as_ref().map_or_else(
                    || "the provider closed the socket".to_owned(),
                    |frame| format!("the provider closed the socket: {} {}", frame.code, frame.reason),
                );
                return Err(self.provider_gone(&why, frame));
            }
            Some(Err(error)) => return Err(self.provider_gone(&error.to_string(), None)),
            None => return Err(self.provider_gone("the provider closed the socket", None)),
        };
        if let Some((_, _, read)) = &mut self.gone {
            *read = read.saturating_add(bytes.len() as u64);
        }
        if memchr::memchr(MESSAGE_END, &bytes).is_some() {
            return Err(self.provider_gone("the provider sent what is no text", None));
        }
        let told = self.session.told(&bytes);
        if told.mark == Mark::Due {
            self.due = Some(Instant::now() + DUE);
        }
        let begins = matches!(told.mark, Mark::Begin | Mark::Whole);
        let call = |lane: &Lane| lane.name == told.lane && lane.call.is_some();
        let mut owner = self.lanes.iter().position(call);
        if begins {
            self.due = None;
            if self.is_another(owner) {
                return self.unasked(&told, bytes, binary).await;
            }
            if owner.is_none() {
                owner = self.begin_standing(told.lane.as_deref()).await?;
            }
        }
        match owner {
            Some(at)
                if !matches!(told.mark, Mark::Aside | Mark::Due | Mark::Doubt)
                    || self.session.busy().is_none() =>
            {
                self.reply(at, &told, &bytes, binary).await
            }
            _ => {
                if told.mark == Mark::Doubt {
                    self.doubt(owner);
                }
                self.unasked(&told, bytes, binary).await
            }
        }
    }

    /// A message of a call that is under way.
    async fn reply(&mut self, at: usize, told: &Told, bytes: &[u8], binary: bool) -> Goes {
        let Some(call) = self.lanes.get_mut(at).and_then(|lane| lane.call.as_mut()) else {
            return Ok(());
        };
        call.begun |= !matches!(told.mark, Mark::Failed(_) | Mark::Aside);
        call.created |= matches!(told.mark, Mark::Begin | Mark::Whole);
        if std::mem::take(&mut call.doubtful) {
            call.tab.refused_by_provider(StatusCode::OK);
        }
        if let Mark::Failed(status) = told.mark
            && !call.begun
        {
            let status = status.and_then(|status| StatusCode::from_u16(status).ok());
            call.tab
                .refused_by_provider(status.unwrap_or(StatusCode::BAD_REQUEST));
        }
        let out = call.tab.feed(Bytes::from(message(bytes)));
        let over = call.tab.outgrown_messages();
        self.say_all(out, binary).await;
        if let Some(call) = self.lanes.get_mut(at).and_then(|lane| lane.call.as_mut())
            && let Some(answer) = call.tab.answers()
        {
            self.answer(answer).await?;
        }
        let outgrown = over.is_some();
        if let Some(words) = over {
            self.say_all(words, false).await;
        }
        self.end_early(at, told, outgrown).await?;
        if !matches!(told.mark, Mark::End | Mark::Whole | Mark::Failed(_)) {
            return Ok(());
        }
        let ended = self.lanes.get_mut(at).and_then(|lane| lane.call.take());
        if let Some(call) = ended {
            let (rest, _replaced) = call.tab.close();
            self.say_all(rest, binary).await;
        }
        self.begin(at).await?;
        self.take_up().await
    }

    /// A message of no call. What is part of a response that nobody asked for does not pass: nothing was reserved for it,
    /// and no rule has judged it.
    async fn unasked(&mut self, told: &Told, bytes: Bytes, binary: bool) -> Goes {
        match told.mark {
            Mark::Aside | Mark::Due | Mark::Doubt | Mark::Failed(_) => {
                let mut ended = message(&bytes);
                ended.shrink_to_fit();
                self.say_all(Bytes::from(ended), binary).await;
                Ok(())
            }
            Mark::Part | Mark::End => Ok(()),
            Mark::Begin | Mark::Whole => {
                tracing::warn!(
                    provider = self.caller.provider.name,
                    "the provider began a response that nobody had asked for"
                );
                Err(self.provider_gone("the provider began a response that nobody had asked for", None))
            }
        }
    }

    /// Ends the replies whose time is over. It is the run's time, so the socket ends with them.
    pub(super) async fn expire(&mut self, now: Instant) -> Goes {
        let mut over = false;
        for at in 0..self.lanes.len() {
            let call = self.lanes.get_mut(at).and_then(|lane| lane.call.as_mut());
            let late = call.filter(|call| {
                call.tab
                    .deadline()
                    .is_some_and(|deadline| deadline <= now.into_std())
            });
            if let Some(call) = late {
                let words = call.tab.expire_messages();
                self.say_all(words, false).await;
                over = true;
            }
        }
        let late = |standing: &Standing| standing.tab.deadline().is_some_and(|at| at <= now.into_std());
        if self.standing.iter().any(late) {
            // What nobody asked for has nobody to tell; the rule is what an asked-for call would meet.
            over = true;
        }
        if over {
            return Err(Ended::both(CloseCode::Policy, "the time of this run is over"));
        }
        Ok(())
    }

    /// The provider's side has ended: the usage of what was under way is not known.
    pub(super) fn provider_gone(&mut self, why: &str, told: Option<CloseFrame>) -> Ended {
        for call in self.lanes.iter_mut().filter_map(|lane| lane.call.as_mut()) {
            if !call.doubtful {
                call.tab.set_error(why.to_owned());
            }
        }
        if self.is_due() {
            // It was to begin, and whether it has is not known.
            self.owe(why);
        }
        tracing::debug!(why, "the provider's side of a socket has ended");
        Ended {
            client: Some(
                told.unwrap_or_else(|| {
                    frame(CloseCode::Error, "the provider's side of the socket broke off")
                }),
            ),
            provider: Some(frame(CloseCode::Normal, "")),
        }
    }
}
