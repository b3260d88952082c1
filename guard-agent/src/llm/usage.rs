//! What a provider reports that it used, in buckets that do not overlap.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// Tokens in buckets that do not overlap, except that `reasoning` is part of `output`; and things billed one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Input neither read from nor written to a cache: text, and whatever the provider does not tell apart from it.
    pub input: u64,
    /// Input read from a prompt cache.
    pub cache_read: u64,
    /// Input written to a cache with the provider's default lifetime: Anthropic five minutes, OpenAI thirty.
    pub cache_write_5m: u64,
    /// Input written to a cache with the longer lifetime: Anthropic one hour, OpenAI twelve.
    pub cache_write_1h: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// Of the output, reasoning.
    pub reasoning: u64,
    /// What text alone does not cover.
    #[serde(flatten)]
    pub media: Media,
    /// Things that are billed by number.
    #[serde(skip_serializing_if = "Units::is_empty")]
    pub units: Units,
    /// Billed by number alone: no tokens were told, so the counts of tokens above are blanks and not zeros.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_number: bool,
}

/// Tokens of audio and images; not part of the text buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Media {
    /// Audio heard.
    #[serde(skip_serializing_if = "is_zero")]
    pub input_audio: u64,
    /// Audio heard that came from a cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read_audio: u64,
    /// Images seen, where the provider bills their tokens apart.
    #[serde(skip_serializing_if = "is_zero")]
    pub input_image: u64,
    /// Images seen that came from a cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read_image: u64,
    /// Audio spoken.
    #[serde(skip_serializing_if = "is_zero")]
    pub output_audio: u64,
    /// Images made.
    #[serde(skip_serializing_if = "is_zero")]
    pub output_image: u64,
}

impl Media {
    /// Each with its name in the audit record.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("input_audio", self.input_audio),
            ("cache_read_audio", self.cache_read_audio),
            ("input_image", self.input_image),
            ("cache_read_image", self.cache_read_image),
            ("output_audio", self.output_audio),
            ("output_image", self.output_image),
        ]
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Usage {
    /// So many of one thing, and no tokens told.
    pub fn of_units(unit: Unit, count: u64) -> Self {
        Self {
            units: Units::of(unit, count),
            by_number: true,
            ..Self::default()
        }
    }

    /// The same, where tokens were told.
    pub fn tokens_told(self) -> Option<Self> {
        (!self.by_number).then_some(self)
    }

    /// All input: what decides whether a call is a long-context one.
    pub fn total_input(&self) -> u64 {
        [
            self.input,
            self.cache_read,
            self.cache_write_5m,
            self.cache_write_1h,
            self.media.input_audio,
            self.media.cache_read_audio,
            self.media.input_image,
            self.media.cache_read_image,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// All output.
    pub fn total_output(&self) -> u64 {
        self.output
            .saturating_add(self.media.output_audio)
            .saturating_add(self.media.output_image)
    }

    /// Everything that was read and written.
    pub fn total_tokens(&self) -> u64 {
        self.total_input().saturating_add(self.total_output())
    }

    /// All input neither read from nor written to a cache.
    pub fn total_uncached(&self) -> u64 {
        self.input
            .saturating_add(self.media.input_audio)
            .saturating_add(self.media.input_image)
    }

    /// All input read from a cache.
    pub fn total_cache_read(&self) -> u64 {
        self.cache_read
            .saturating_add(self.media.cache_read_audio)
            .saturating_add(self.media.cache_read_image)
    }

    /// Both together; `None` beyond what integers hold.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let mut units = self.units;
        for (unit, count) in other.units.iter() {
            units.set(unit, units.get(unit).checked_add(count)?);
        }
        let (a, b) = (&self.media, &other.media);
        Some(Self {
            input: self.input.checked_add(other.input)?,
            cache_read: self.cache_read.checked_add(other.cache_read)?,
            cache_write_5m: self.cache_write_5m.checked_add(other.cache_write_5m)?,
            cache_write_1h: self.cache_write_1h.checked_add(other.cache_write_1h)?,
            output: self.output.checked_add(other.output)?,
            reasoning: self.reasoning.checked_add(other.reasoning)?,
            media: Media {
                input_audio: a.input_audio.checked_add(b.input_audio)?,
                cache_read_audio: a.cache_read_audio.checked_add(b.cache_read_audio)?,
                input_image: a.input_image.checked_add(b.input_image)?,
                cache_read_image: a.cache_read_image.checked_add(b.cache_read_image)?,
                output_audio: a.output_audio.checked_add(b.output_audio)?,
                output_image: a.output_image.checked_add(b.output_image)?,
            },
            units,
            by_number: self.by_number && other.by_number,
        })
    }
}

/// Usage of another model inside a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherUsage {
    /// The model, as the provider names it.
    pub model: String,
    /// What it used.
    pub usage: Usage,
}

/// Something that a provider bills by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Unit {
    /// Searches of the web (or of X, or of Maps) that the provider ran.
    WebSearch,
    /// Sessions (containers) in which it ran code.
    CodeSession,
    /// Searches of stored files.
    FileSearch,
    /// Images made.
    Image,
    /// Thousandths of a second of audio heard or spoken.
    AudioMillis,
    /// Thousandths of a second of video made.
    VideoMillis,
    /// Characters spoken or translated.
    Character,
    /// Search units of a reranker.
    SearchUnit,
    /// Pages read.
    Page,
    /// The request itself, where that has a fee.
    Request,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::WebSearch,
        Self::CodeSession,
        Self::FileSearch,
        Self::Image,
        Self::AudioMillis,
        Self::VideoMillis,
        Self::Character,
        Self::SearchUnit,
        Self::Page,
        Self::Request,
    ];

    /// Name in the audit record and in price files.
    pub fn label(self) -> &'static str {
        match self {
            Self::WebSearch => "web_search",
            Self::CodeSession => "code_session",
            Self::FileSearch => "file_search",
            Self::Image => "image",
            Self::AudioMillis => "audio_ms",
            Self::VideoMillis => "video_ms",
            Self::Character => "character",
            Self::SearchUnit => "search_unit",
            Self::Page => "page",
            Self::Request => "request",
        }
    }
}

/// How many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units([u64; Unit::ALL.len()]);

impl Units {
    /// Only this.
    pub fn of(unit: Unit, count: u64) -> Self {
        let mut units = Self::default();
        units.set(unit, count);
        units
    }

    /// How many of this.
    pub fn get(&self, unit: Unit) -> u64 {
        self.0.get(unit as usize).copied().unwrap_or(0)
    }

    /// Says how many of this there are, in place of what was said before.
    pub fn set(&mut self, unit: Unit, count: u64) {
        if let Some(place) = self.0.get_mut(unit as usize) {
            *place = count;
        }
    }

    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = (Unit, u64)> + '_ {
        Unit::ALL
            .into_iter()
            .map(|unit| (unit, self.get(unit)))
            .filter(|(_, count)| *count > 0)
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl Serialize for Units {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (unit, count) in self.iter() {
            map.serialize_entry(unit.label(), &count)?;
        }
        map.end()
    }
}
