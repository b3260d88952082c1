//! The provider's side of a socket: each message is metered on the account of the call that it belongs to.

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Ended, Goes, Socket, frame};
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
        let told = self.caller.format.told(&bytes);
        let lane = self.lanes.iter().position(|lane| lane.name == told.lane);
        let busy = lane.filter(|at| self.lanes.get(*at).is_some_and(|lane| lane.call.is_some()));
        match busy {
            Some(at) => self.reply(at, &told, &bytes, binary).await,
            None => self.unasked(&told, bytes, binary).await,
        }
    }

    /// A message of a call that is under way.
    async fn reply(&mut self, at: usize, told: &Told, bytes: &[u8], binary: bool) -> Goes {
        let Some(call) = self.lanes.get_mut(at).and_then(|lane| lane.call.as_mut()) else {
            return Ok(());
        };
        call.begun |= !matches!(told.mark, Mark::Failed(_) | Mark::Aside);
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
        if let Some(words) = over {
            self.say_all(words, false).await;
            // Only a provider that is let go makes no more.
            return Err(Ended::both(CloseCode::Policy, "the budget is used up"));
        }
        if !matches!(told.mark, Mark::End | Mark::Failed(_)) {
            return Ok(());
        }
        let ended = self.lanes.get_mut(at).and_then(|lane| lane.call.take());
        if let Some(call) = ended {
            let (rest, _replaced) = call.tab.close();
            self.say_all(rest, binary).await;
        }
        self.begin(at).await
    }

    /// A message of no call. What is part of a response that nobody asked for does not pass: nothing was reserved for it,
    /// and no rule has judged it.
    async fn unasked(&mut self, told: &Told, bytes: Bytes, binary: bool) -> Goes {
        match told.mark {
            Mark::Aside | Mark::Failed(_) => {
                let mut ended = message(&bytes);
                ended.shrink_to_fit();
                self.say_all(Bytes::from(ended), binary).await;
                Ok(())
            }
            Mark::Part | Mark::End => Ok(()),
            Mark::Begin => {
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
        if over {
            return Err(Ended::both(CloseCode::Policy, "the time of this run is over"));
        }
        Ok(())
    }

    /// The provider's side has ended: the usage of what was under way is not known.
    pub(super) fn provider_gone(&mut self, why: &str, told: Option<CloseFrame>) -> Ended {
        for lane in &mut self.lanes {
            if let Some(call) = &mut lane.call {
                call.tab.set_error(why.to_owned());
            }
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
