//! One conversation of a run: how large its calls are, what they read from the cache, how long its tools take.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::input;
use crate::config::{Agent, LoopRule};
use crate::llm::Usage;
use crate::llm::conversation::{Conversation, STEPS, Step};
use crate::policy::loops::{Level, Reading, readings};

/// Sizes of calls that are kept; `growth_turns` goes no higher.
const SIZES: usize = 64;
/// Times between a reply and the next call that are kept.
const GAPS: usize = 8;
/// Fewer of them say nothing.
const FEWEST_GAPS: usize = 3;
/// An agent whose tools take this long waits for something.
const SLOW: Duration = Duration::from_secs(20);
/// How long a prompt cache holds.
const CACHE: Duration = Duration::from_secs(5 * 60);
/// A call below this many tokens says nothing about the cache: providers cache only longer beginnings.
const CACHED: u64 = 4096;

/// The state of a conversation.
#[derive(Debug)]
pub(super) struct Thread {
    user: u64,
    pub(super) used: Instant,
    ended: Option<Instant>,
    gaps: VecDeque<Duration>,
    /// Tokens of input of the last calls since the user spoke, oldest first.
    sizes: VecDeque<u64>,
    caches: bool,
    misses: u32,
    /// What was seen of a conversation that the provider stores.
    steps: Vec<Step>,
    /// What was said since the user spoke.
    pub(super) told: Vec<(LoopRule, Level)>,
    pub(super) score: u32,
    pub(super) growth: u32,
}

impl Thread {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            user: 0,
            used: now,
            ended: None,
            gaps: VecDeque::new(),
            sizes: VecDeque::new(),
            caches: false,
            misses: 0,
            steps: Vec::new(),
            told: Vec::new(),
            score: 0,
            growth: 0,
        }
    }

    /// A call goes on with the conversation. Gives what its rules count, and whether the user has spoken since the last
    /// call.
    pub(super) fn enter(
        &mut self,
        agent: &Agent,
        conversation: &Conversation,
        now: Instant,
    ) -> (Vec<Reading>, bool) {
        self.used = now;
        if let Some(ended) = self.ended.take() {
            push(&mut self.gaps, GAPS, now.saturating_duration_since(ended));
        }
        let known = self.user != 0;
        let spoke = match conversation.partial {
            // What is new may hold no word of the user's.
            true => conversation.user != 0,
            false => conversation.user != self.user,
        };
        if spoke {
            self.user = conversation.user;
            self.sizes.clear();
            self.misses = 0;
            self.steps.clear();
            self.told.clear();
        }
        let steps = self.steps_of(conversation);
        let mut found = readings(&steps, self.is_slow());
        if conversation.partial {
            self.steps = steps;
        }
        self.growth = self.slope(agent.loops.growth_turns).unwrap_or(0);
        found.push(Reading::of(LoopRule::Growth, self.growth));
        found.push(Reading::of(LoopRule::CacheMisses, self.misses));
        (found, spoke && known)
    }

    /// The steps since the user spoke: of the request, or with those that it does not repeat.
    fn steps_of(&mut self, conversation: &Conversation) -> Vec<Step> {
        if !conversation.partial {
            return conversation.steps.clone();
        }
        let mut steps = std::mem::take(&mut self.steps);
        let turns = steps.last().map_or(0, |step| step.turn);
        steps.extend(conversation.steps.iter().cloned().map(|step| Step {
            turn: step.turn.saturating_add(turns),
            ..step
        }));
        let surplus = steps.len().saturating_sub(STEPS);
        steps.drain(..surplus);
        steps
    }

    fn is_slow(&self) -> bool {
        let count = u32::try_from(self.gaps.len()).unwrap_or(u32::MAX);
        let sum: Duration = self.gaps.iter().sum();
        self.gaps.len() >= FEWEST_GAPS && sum / count.max(1) >= SLOW
    }

    /// Tokens that each of the last calls added to the one before, where they grew steadily: one large file does not
    /// make a slope.
    fn slope(&self, turns: u32) -> Option<u32> {
        let count = usize::try_from(turns).ok()?;
        let from = self.sizes.len().checked_sub(count)?;
        let sizes: Vec<u64> = self.sizes.range(from..).copied().collect();
        let (first, last) = (sizes.first()?, sizes.last()?);
        let slope = last.checked_sub(*first)? / u64::from(turns).checked_sub(1)?;
        let steady = sizes
            .windows(2)
            .filter(|pair| matches!(pair, [a, b] if *b >= a.saturating_add(slope / 2)))
            .count();
        (steady * 4 >= (count - 1) * 3).then_some(u32::try_from(slope).unwrap_or(u32::MAX))
    }

    /// A call has ended well.
    pub(super) fn left(&mut self, usage: Option<&Usage>, body_bytes: u64, now: Instant) {
        let size = usage.map_or(body_bytes / 4, input);
        push(&mut self.sizes, SIZES, size);
        if let Some(usage) = usage {
            self.cache(usage, now);
        }
        self.ended = Some(now);
        self.used = now;
    }

    fn cache(&mut self, usage: &Usage, now: Instant) {
        let all = input(usage);
        if all < CACHED {
            return;
        }
        let hit = usage.cache_read.saturating_mul(10) >= all;
        let expected = self.caches && now.saturating_duration_since(self.used) < CACHE;
        if hit {
            self.misses = 0;
        } else if expected {
            self.misses = self.misses.saturating_add(1);
        }
        self.caches |= hit || usage.cache_write_5m > 0 || usage.cache_write_1h > 0;
    }
}

fn push<T>(list: &mut VecDeque<T>, most: usize, item: T) {
    if list.len() == most {
        list.pop_front();
    }
    list.push_back(item);
}
