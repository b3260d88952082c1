//! Images that are to be made, or changed: JSON, or a form with the images in it.
//!
//! In: the body. Out: its facts, with the most that the images can be billed for: by their number, or by tokens. On
//! failure: `Malformed`.
//!
//! **Tokens of an image that is made** follow from its size and quality. The first generation has a table
//! (developers.openai.com/api/docs/guides/image-generation, cost and latency): [`FIRST`]. From the second on it is what
//! OpenAI's calculator on that page computes (1024×1024: 7,024 tokens at high quality; 1536×1024: 5,488), see
//! [`second`]. For qualities above high no figure is published; they, and `auto` where it may choose them, count as twice
//! as fine as high in each direction, so four times the tokens. Each partial image that is streamed takes 100 more.
//!
//! **Tokens of an image that is sent** are 6,240 and 1,097 at most in the first generation, at high fidelity; [`SENT`] is
//! twice that, because no figure is published for the later ones.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::bound::Bound;
use crate::llm::media::form::Form;
use crate::llm::media::is_json;
use crate::llm::request::{is_set, list_of};
use crate::llm::{Malformed, RequestFacts, Unit, Units, json_strict, multipart};

/// Names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 13] = [
    "model",
    "prompt",
    "n",
    "size",
    "quality",
    "output_format",
    "partial_images",
    "frame_count",
    "stream",
    "resolution",
    "mask",
    "markup",
    "image_url",
];

/// Those that stand in JSON alone: a form has them in a list, or as an object.
const KNOWN_JSON: [&str; 3] = ["image", "images", "svg"];

/// Tokens of the dearest size, by quality.
const FIRST: [(&str, u64); 2] = [("low", 408), ("medium", 1_584)];
/// The same at high quality.
const FIRST_HIGH: u64 = 6_240;
/// Units on the longer edge, by quality.
const EDGE: [(&str, u64); 3] = [("low", 16), ("medium", 48), ("high", 96)];
/// The same where no figure is published.
const FINEST: u64 = 192;
/// The largest image, in pixels.
const MOST_PIXELS: u64 = 8_294_400;
/// The longest edge, in pixels.
const LONGEST: u64 = 3_840;
/// Tokens of an image that is streamed before it is done.
const PARTIAL: u64 = 100;
/// Most frames of an animation.
const FRAMES: u64 = 16;
/// Tokens of text that a model may write beside an image.
const BESIDE: u64 = 1_024;
/// Tokens of an image that is sent.
const SENT: u64 = 16_384;

/// What is asked for.
#[derive(Default)]
struct Asked<'a> {
    model: Cow<'a, str>,
    prompt_bytes: u64,
    n: Option<u64>,
    size: Option<Cow<'a, str>>,
    quality: Option<Cow<'a, str>>,
    output_format: Option<Cow<'a, str>>,
    partial_images: Option<u64>,
    frame_count: Option<u64>,
    stream: bool,
    resolution: Option<Cow<'a, str>>,
    images: u64,
    /// A second model writes the image as a text.
    svg: bool,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    n: Option<u64>,
    #[serde(borrow)]
    size: Option<Cow<'a, str>>,
    #[serde(borrow)]
    quality: Option<Cow<'a, str>>,
    #[serde(borrow)]
    output_format: Option<Cow<'a, str>>,
    partial_images: Option<u64>,
    frame_count: Option<u64>,
    stream: Option<bool>,
    #[serde(borrow)]
    resolution: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image: Option<&'a RawValue>,
    #[serde(borrow)]
    images: Option<&'a RawValue>,
    #[serde(borrow)]
    image_url: Option<&'a RawValue>,
    #[serde(borrow)]
    mask: Option<&'a RawValue>,
    #[serde(borrow)]
    markup: Option<&'a RawValue>,
    #[serde(borrow)]
    svg: Option<&'a RawValue>,
}

/// Reads a whole body.
pub(super) fn facts(
    content_type: Option<&str>,
    body: &[u8],
    model: Option<&str>,
) -> Result<RequestFacts, Malformed> {
    let asked = if content_type.is_some_and(multipart::is_form) {
        from_form(content_type, body, model)?
    } else {
        is_json(content_type)?;
        from_json(body, model)?
    };
    asked.facts()
}

fn from_json<'a>(body: &'a [u8], model: Option<&'a str>) -> Result<Asked<'a>, Malformed> {
    let known: Vec<&str> = KNOWN.into_iter().chain(KNOWN_JSON).collect();
    let (text, _) = json_strict::survey(body, &known)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    let count = |raw: Option<&RawValue>| match list_of(raw, b"") {
        Some((count, _)) => count,
        None => u64::from(is_set(raw)),
    };
    let sent = [body.image, body.images, body.image_url, body.mask, body.markup];
    Ok(Asked {
        model: named(model.map(Cow::Borrowed).or(body.model))?,
        prompt_bytes: body.prompt.map_or(0, |text| text.get().len() as u64),
        n: body.n,
        size: body.size,
        quality: body.quality,
        svg: is_set(body.svg),
        output_format: body.output_format,
        partial_images: body.partial_images,
        frame_count: body.frame_count,
        stream: body.stream.unwrap_or(false),
        resolution: body.resolution,
        images: sent
            .into_iter()
            .fold(0, |sum, raw| sum.saturating_add(count(raw))),
    })
}

fn from_form<'a>(
    content_type: Option<&str>,
    body: &'a [u8],
    model: Option<&'a str>,
) -> Result<Asked<'a>, Malformed> {
    let form = Form::read(content_type, body, &KNOWN)?;
    let text =
        |name: &str| -> Result<Option<Cow<'a, str>>, Malformed> { Ok(form.text(name)?.map(Cow::Borrowed)) };
    let model = match model {
        Some(model) => Some(Cow::Borrowed(model)),
        None => text("model")?,
    };
    let count = |name: &str| form.all(name).count() as u64;
    Ok(Asked {
        model: named(model)?,
        prompt_bytes: form.text_bytes(),
        n: form.number("n")?,
        size: text("size")?,
        quality: text("quality")?,
        output_format: text("output_format")?,
        partial_images: form.number("partial_images")?,
        frame_count: form.number("frame_count")?,
        stream: form.flag("stream")?,
        resolution: text("resolution")?,
        images: ["image", "images", "image_url", "mask", "markup"]
            .iter()
            .map(|name| count(name))
            .sum(),
        svg: form.all("svg").next().is_some(),
    })
}

fn named(model: Option<Cow<'_, str>>) -> Result<Cow<'_, str>, Malformed> {
    model.ok_or_else(|| Malformed("missing field `model`".to_owned()))
}

impl Asked<'_> {
    fn facts(self) -> Result<RequestFacts, Malformed> {
        let n = self.n.unwrap_or(1).max(1);
        let many = || Malformed("it asks for more images than can be counted".to_owned());
        let each = self.tokens_each().ok_or_else(many)?;
        let read = self
            .images
            .checked_mul(SENT)
            .and_then(|sum| sum.checked_add(self.prompt_bytes));
        let input = read.and_then(|read| read.checked_mul(n)).ok_or_else(many)?;
        let output = each.checked_mul(n).ok_or_else(many)?;
        // xAI's higher resolution costs at most twice the lower one.
        let fine = self
            .resolution
            .as_deref()
            .is_some_and(|name| !name.eq_ignore_ascii_case("1k"));
        let made = n.checked_mul(if fine { 2 } else { 1 }).ok_or_else(many)?;
        Ok(RequestFacts {
            stream: self.stream,
            output_cap: Some(0),
            choices: 1,
            server_side: self.svg || self.output_format.as_deref() == Some("svg"),
            bound: Some(Bound {
                input,
                output,
                // Where images are billed by number, those that are sent are, too.
                units: Units::of(Unit::Image, made.checked_add(self.images).ok_or_else(many)?),
                sent: Units::of(Unit::Image, self.images),
            }),
            model: self.model.into_owned(),
            ..RequestFacts::default()
        })
    }

    /// Tokens of one image, at most.
    fn tokens_each(&self) -> Option<u64> {
        let quality = self.quality.as_deref().unwrap_or("auto");
        let first = self
            .model
            .strip_prefix("gpt-image-1")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']));
        let image = if first || self.model.starts_with("chatgpt-image") {
            let known = FIRST.iter().find(|(name, _)| *name == quality);
            known.map_or(FIRST_HIGH, |(_, tokens)| *tokens)
        } else {
            let known = EDGE.iter().find(|(name, _)| *name == quality);
            // `auto` is the best quality that the model has.
            let plain = self.model == "gpt-image-2" || self.model.starts_with("gpt-image-2-");
            let finest = if plain && quality == "auto" { 96 } else { FINEST };
            second(known.map_or(finest, |(_, edge)| *edge), self.size.as_deref())?
        };
        let frames = match self.output_format.as_deref() {
            Some("gif") => self.frame_count.unwrap_or(FRAMES).max(1),
            _ => 1,
        };
        let partial = self.partial_images.unwrap_or(0).checked_mul(PARTIAL)?;
        image
            .checked_add(partial)?
            .checked_add(BESIDE)?
            .checked_mul(frames)
    }
}

/// Tokens of an image with so many units on its longer edge.
fn second(edge: u64, size: Option<&str>) -> Option<u64> {
    let pixels = size.and_then(|size| {
        let (width, height) = size.split_once('x')?;
        let (width, height) = (width.parse::<u64>().ok()?, height.parse::<u64>().ok()?);
        let known = (1..=LONGEST).contains(&width) && (1..=LONGEST).contains(&height);
        (known && width * height <= MOST_PIXELS).then_some((width, height))
    });
    let (long, short, area) = match pixels {
        Some((width, height)) => (width.max(height), width.min(height), width * height),
        // Whatever the model chooses, or the provider refuses.
        None => (1, 1, MOST_PIXELS),
    };
    let units = edge.checked_mul((2 * edge * short + long) / (2 * long))?;
    let scaled = units.checked_mul(2_000_000 + area)?.div_ceil(4_000_000);
    Some(scaled)
}

#[cfg(test)]
mod tests;
