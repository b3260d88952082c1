//! Responses that the provider begins by itself: one is decided and reserved for before anything goes on that could lead to
//! it.
//!
//! In: what the session says that is needed, and a provider's message that begins a response. Out: a call like any other,
//! or the reservation given back. On failure: the input does not go on, and the client is told. More responses may come of
//! one input than were foreseen: one that nothing was reserved for is decided when it begins, and ends the socket when it
//! is refused.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{CUT, Current, Ended, Goes, Lane, Socket};
use crate::forward::socket::stand;
use crate::llm::Seen;
use crate::llm::socket::{Asked, Expected, Input, Mark, Need, Request, Told};
use crate::meter::Tab;
use crate::refusal::{Reason, Refusal};

/// Input comes many times a second: what could not be reserved is not tried again before this.
const AGAIN: Duration = Duration::from_secs(1);

/// What is reserved for one response that the provider may begin.
pub(super) struct Standing {
    pub(super) tab: Tab,
    pub(super) request: Request,
    /// How much input it has room for, in its lane's own measure.
    pub(super) covers: u64,
    pub(super) grows: bool,
    /// Bytes of input that went on since.
    pub(super) bytes: u64,
}

/// A refusal, and the id under which it is recorded.
pub(super) type Refused = (Refusal, String);

impl Socket {
    /// Input goes on once every response that it may lead to is reserved for.
    pub(super) async fn put_in(&mut self, input: Input, message: Bytes) -> Goes {
        let covered = match self.cover().await {
            Ok(()) => self.prolong(input.extends),
            refused => refused,
        };
        if let Err((refusal, id)) = covered {
            return self.refused(&refusal, &id, input.named.as_deref()).await;
        }
        for standing in &mut self.standing {
            standing.bytes = standing.bytes.saturating_add(message.len() as u64);
        }
        if input.due
            && self
                .standing
                .iter()
                .any(|standing| standing.request.lane.is_none())
        {
            self.due = Some(Instant::now() + super::DUE);
        }
        self.forward(message).await
    }

    /// Tells the provider in the place of a denied call's result that there is none. It is input as the client's own is.
    pub(super) async fn answer(&mut self, answer: String) -> Goes {
        match self.session.asked(answer.as_bytes()) {
            Ok(Asked::Input(input)) => self.put_in(input, Bytes::from(answer)).await,
            _ => Ok(()),
        }
    }

    /// The response that is under way goes on, if what that may cost can be reserved.
    fn prolong(&mut self, more: Option<Seen>) -> Result<(), Refused> {
        let (Some(more), Some(call)) = (more, self.lanes.iter_mut().find_map(|lane| lane.call.as_mut()))
        else {
            return Ok(());
        };
        let prolonged = call.tab.reserve_more(more);
        prolonged.map_err(|refusal| {
            let id = self.caller.refused(&refusal);
            (refusal, id)
        })
    }

    async fn cover(&mut self) -> Result<(), Refused> {
        let needs = self.session.needs();
        self.standing
            .retain(|standing| needs.iter().any(|need| need.lane == standing.request.lane));
        for need in needs {
            if self.covers(&need) {
                continue;
            }
            if let Some((at, refusal, id)) = &self.uncovered
                && at.elapsed() < AGAIN
            {
                return Err((refusal.clone(), id.clone()));
            }
            let covered = self.cover_one(&need).await;
            self.uncovered = covered
                .as_ref()
                .err()
                .map(|(refusal, id)| (Instant::now(), refusal.clone(), id.clone()));
            covered?;
        }
        Ok(())
    }

    fn covers(&self, need: &Need) -> bool {
        let of_lane = self.standing.iter().filter(|held| held.request.lane == need.lane);
        of_lane.filter(|held| held.covers >= need.covers).count() >= need.count
    }

    async fn cover_one(&mut self, need: &Need) -> Result<(), Refused> {
        let (mut held, others): (Vec<Standing>, Vec<Standing>) = std::mem::take(&mut self.standing)
            .into_iter()
            .partition(|standing| standing.request.lane == need.lane);
        self.standing = others;
        let grown = self.grow(&mut held, need);
        // What cannot grow is held until there is a larger one.
        let (large, small): (Vec<Standing>, Vec<Standing>) = held
            .into_iter()
            .partition(|standing| standing.covers >= need.covers);
        let missing = need.count.saturating_sub(large.len());
        self.standing.extend(large);
        if let Err(refused) = grown {
            self.standing.extend(small);
            return Err(refused);
        }
        for _ in 0..missing {
            if let Err(refused) = self.reserve(need).await {
                self.standing.extend(small);
                return Err(refused);
            }
        }
        Ok(())
    }

    fn grow(&mut self, held: &mut [Standing], need: &Need) -> Result<(), Refused> {
        let short = |standing: &&mut Standing| standing.grows && standing.covers < need.covers;
        for standing in held.iter_mut().filter(short) {
            let Some(expected) = self.session.expected(need) else {
                continue;
            };
            let (wanted, held) = (expected.covers, standing.covers);
            let input = standing
                .tab
                .readable(wanted)
                .saturating_sub(standing.tab.readable(held));
            let more = Seen { input, output: 0 };
            standing.tab.reserve_more(more).map_err(|refusal| {
                let id = self.caller.refused(&refusal);
                (refusal, id)
            })?;
            standing.covers = expected.covers;
        }
        Ok(())
    }

    /// One more response of this kind is decided and reserved for.
    pub(super) async fn reserve(&mut self, need: &Need) -> Result<(), Refused> {
        let Some(Expected {
            facts,
            request,
            covers,
            grows,
        }) = self.session.expected(need)
        else {
            return Ok(());
        };
        let call = self.caller.call(facts, Bytes::new(), request.turn);
        let id = call.id.to_string();
        let permit = self
            .caller
            .decide(&call)
            .map_err(|refusal| (refusal, id.clone()))?;
        let stood = stand(call, permit).await;
        let (tab, edits) = stood.map_err(|refusal| (refusal, id.clone()))?;
        if let Some(cap) = edits.output_cap.filter(|_| request.lane.is_none()) {
            let Some(text) = self.session.cap(cap) else {
                let refusal = Refusal::new(
                    Reason::OutputCap,
                    format!("This agent's responses may have {cap} output tokens by now. Open a new socket."),
                );
                return Err((refusal, id));
            };
            let told = self.send_on(Utf8Bytes::from(text)).await;
            if told.is_err() {
                let refusal = Refusal::new(Reason::Upstream, "The provider takes nothing any more.");
                return Err((refusal, id));
            }
        }
        self.standing.push(Standing {
            tab,
            request,
            covers,
            grows,
            bytes: 0,
        });
        Ok(())
    }

    /// The provider begins a response in this lane, which has no call: what was reserved for it becomes its call.
    pub(super) async fn begin_standing(&mut self, lane: Option<&str>) -> Result<Option<usize>, Ended> {
        let of_lane = |standing: &Standing| standing.request.lane.as_deref() == lane;
        if !self.standing.iter().any(of_lane)
            && let Some(need) = self.session.unforeseen(lane)
            && let Err((refusal, id)) = self.reserve(&need).await
        {
            self.refused(&refusal, &id, None).await?;
        }
        let Some(at) = self.standing.iter().position(of_lane) else {
            return Ok(None);
        };
        let Standing {
            mut tab,
            request,
            bytes,
            ..
        } = self.standing.remove(at);
        tab.begin_standing(bytes);
        tab.begin_messages(|gate| self.session.reader(&request, gate));
        if self.client.is_none() {
            tab.set_client_gone();
        }
        let call = Some(Current::new(tab));
        let at = match self.lanes.iter().position(|known| known.name == request.lane) {
            Some(at) => at,
            None => {
                self.lanes.push(Lane {
                    name: request.lane,
                    ..Lane::default()
                });
                self.lanes.len() - 1
            }
        };
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.call = call;
        }
        Ok(Some(at))
    }

    /// Whether the lane has a call that has begun already: what begins now is another response.
    pub(super) fn is_another(&self, owner: Option<usize>) -> bool {
        owner
            .and_then(|at| self.lanes.get(at)?.call.as_ref())
            .is_some_and(|call| call.created)
    }

    /// Something failed, perhaps this call. It costs nothing unless it begins after all.
    pub(super) fn doubt(&mut self, owner: Option<usize>) {
        let call = owner.and_then(|at| self.lanes.get_mut(at)?.call.as_mut());
        if let Some(call) = call.filter(|call| !call.begun) {
            call.doubtful = true;
            call.tab.refused_by_provider(StatusCode::BAD_REQUEST);
        }
    }

    /// Another call takes the place of one that has most probably failed.
    pub(super) async fn give_up_doubtful(&mut self, name: Option<&str>) {
        let lane = self.lanes.iter_mut().find(|lane| lane.name.as_deref() == name);
        let Some(lane) = lane.filter(|lane| lane.call.as_ref().is_some_and(|call| call.doubtful)) else {
            return;
        };
        if let Some(call) = lane.call.take() {
            let (rest, _replaced) = call.tab.close();
            self.say_all(rest, false).await;
        }
    }

    /// Nothing more of a response is forwarded: the provider is told to end it, or let go.
    pub(super) async fn end_early(&mut self, at: usize, told: &Told, outgrown: bool) -> Goes {
        let Some(call) = self.lanes.get_mut(at).and_then(|lane| lane.call.as_mut()) else {
            return Ok(());
        };
        let over = matches!(told.mark, Mark::End | Mark::Whole | Mark::Failed(_));
        if over || call.cut.is_some() || !(outgrown || call.tab.stopped_messages()) {
            return Ok(());
        }
        match self.session.cancel(told.lane.as_deref()) {
            Some(text) => {
                call.cut = Some(Instant::now());
                self.send_on(Utf8Bytes::from(text)).await
            }
            // Only a provider that is let go makes no more.
            None if outgrown => Err(Ended::both(CloseCode::Policy, "the budget is used up")),
            None => Ok(()),
        }
    }

    /// Lets a provider go that does not end what it was told to end.
    pub(super) fn end_cut(&mut self, now: Instant) -> Goes {
        let calls = self.lanes.iter().filter_map(|lane| lane.call.as_ref());
        let late = |call: &Current| call.cut.is_some_and(|since| now.duration_since(since) > CUT);
        if calls.into_iter().any(late) {
            return Err(self.provider_gone(
                "the provider did not end a response that it was told to end",
                None,
            ));
        }
        Ok(())
    }

    /// Whether a response has to come that nobody asks for.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|until| until > Instant::now())
    }

    /// A response was to begin, and whether it has is not known: it is paid for.
    pub(super) fn owe(&mut self, why: &str) {
        self.due = None;
        let next = self
            .standing
            .iter()
            .position(|standing| standing.request.lane.is_none());
        if let Some(at) = next {
            let mut standing = self.standing.remove(at);
            standing.tab.begin_standing(standing.bytes);
            standing.tab.set_error(why.to_owned());
        }
    }

    /// Gives back what was reserved for responses that did not come.
    pub(super) fn stand_down(&mut self) {
        if self.is_due() {
            self.owe("the socket ended before a response that was due");
        }
        self.standing.clear();
    }
}
