//! What a client says of later responses: judged as the next one of them is, changed where a rule says so, and held for that
//! one.
//!
//! In: the message, and what a response may be like behind it. Out: the message, forwarded, and the reservation of the next
//! response. On failure: it does not go on, and the client is told; where nothing can follow it, the socket ends.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::standing::{Refused, Standing};
use super::{Ended, Goes, Socket, frame};
use crate::llm::RequestFacts;
use crate::llm::socket::{Need, Request};
use crate::refusal::Refusal;

/// Bytes that a close frame has for its reason (RFC 6455 §5.5).
const REASON: usize = 123;

/// A refusal in the words of a close frame, which holds few.
fn reason(refusal: &Refusal) -> String {
    let mut text = format!("{}: {}", refusal.reason.code(), refusal.message);
    let mut end = text.len().min(REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl Socket {
    /// What says how later responses are: judged as the next one of them is, and then held for it.
    pub(super) async fn set_up(
        &mut self,
        facts: RequestFacts,
        request: &Request,
        beside: Option<Need>,
        message: Bytes,
    ) -> Goes {
        let named = request.named.as_deref();
        let set = self.judge_setup(facts, request, beside, message).await;
        let Err((refusal, id)) = set else {
            return Ok(());
        };
        self.refused(&refusal, &id, named).await?;
        if self.session.needs_setup() {
            // Clients that wait for the setup to be confirmed show why the socket was closed.
            return Err(Ended {
                client: Some(CloseFrame {
                    code: CloseCode::Policy,
                    reason: reason(&refusal).into(),
                }),
                provider: Some(frame(CloseCode::Normal, "")),
            });
        }
        Ok(())
    }

    async fn judge_setup(
        &mut self,
        facts: RequestFacts,
        request: &Request,
        beside: Option<Need>,
        message: Bytes,
    ) -> Result<(), Refused> {
        let covers = facts.carried;
        if let Some(need) = beside {
            self.standing
                .retain(|standing| standing.request.lane != need.lane);
            self.reserve(&need).await?;
        }
        let call = self.caller.call(facts, message, request.turn);
        let id = call.id.to_string();
        let permit = self
            .caller
            .decide(&call)
            .map_err(|refusal| (refusal, id.clone()))?;
        let set = self.upstream.set_up(call, permit).await;
        let (tab, edits) = set.map_err(|refusal| (refusal, id))?;
        self.session.accepted(&edits);
        self.uncovered = None;
        self.standing.retain(|standing| standing.request.lane.is_some());
        if self.session.needs().iter().any(|need| need.lane.is_none()) {
            self.standing.push(Standing {
                tab,
                request: request.clone(),
                covers,
                grows: true,
                bytes: 0,
            });
        }
        Ok(())
    }
}
