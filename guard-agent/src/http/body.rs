//! Reads a request's body as a whole: bounded in bytes, in silence and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::refusal::{Reason, Refusal};
use crate::share::Room;

/// How much and how long Guard reads.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes, as they come and decoded.
    pub bytes: usize,
    /// Between two frames.
    pub silence: Duration,
    /// In all.
    pub total: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            bytes: 32 * 1024 * 1024,
            silence: Duration::from_secs(30),
            total: Duration::from_secs(300),
        }
    }
}

/// Reads the body. One that declares more than the limit is refused before a byte of it is read.
///
/// # Errors
/// The refusal: too large, too slow, broken off, or no room.
pub async fn collect<B>(
    headers: &HeaderMap,
    mut body: B,
    limits: BodyLimits,
    room: &mut Room,
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > limits.bytes as u64) {
        return Err(too_large(limits));
    }
    let deadline = Instant::now() + limits.total;
    let mut whole = BytesMut::new();
    loop {
        let frame = timeout_at(deadline, timeout(limits.silence, body.frame())).await;
        let Ok(Ok(frame)) = frame else {
            return Err(Refusal::new(
                Reason::Malformed,
                "The request body did not arrive in time.",
            ));
        };
        let Some(frame) = frame else {
            return Ok(whole.freeze());
        };
        let Ok(frame) = frame else {
            return Err(Refusal::new(
                Reason::Malformed,
                "The request body was broken off.",
            ));
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > limits.bytes {
            return Err(too_large(limits));
        }
        room.grow_to(whole.len() + data.len())?;
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
}

fn too_large(limits: BodyLimits) -> Refusal {
    let mebibytes = limits.bytes >> 20;
    Refusal::new(
        Reason::BodyTooLarge,
        format!(
            "The request body is larger than {mebibytes} MiB. Send less, for example without attachments or old turns."
        ),
    )
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;
    use crate::share::Share;

    const SMALL: BodyLimits = BodyLimits {
        bytes: 10,
        silence: Duration::from_millis(40),
        total: Duration::from_millis(200),
    };

    fn chunks(parts: &[&'static [u8]]) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
        let frames: Vec<_> = parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part))))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_the_limit() {
        let none = HeaderMap::new();
        let whole = collect(
            &none,
            chunks(&[b"01234", b"56789"]),
            SMALL,
            &mut Share::default().room(),
        )
        .await
        .unwrap();
        assert_eq!(whole.as_ref(), b"0123456789");
        let error = collect(
            &none,
            chunks(&[b"01234", b"567890"]),
            SMALL,
            &mut Share::default().room(),
        )
        .await
        .unwrap_err();
        assert_eq!(error.reason, Reason::BodyTooLarge);
        assert!(
            collect(
                &none,
                Full::new(Bytes::new()),
                SMALL,
                &mut Share::default().room()
            )
            .await
            .unwrap()
            .is_empty()
        );
    }

    #[tokio::test]
    async fn a_declared_length_is_refused_before_reading() {
        let headers = [(CONTENT_LENGTH, "1000000000".parse().unwrap())]
            .into_iter()
            .collect();
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        let error = collect(
            &headers,
            never,
            BodyLimits::default(),
            &mut Share::default().room(),
        )
        .await
        .unwrap_err();
        assert_eq!(error.reason, Reason::BodyTooLarge);
    }

    #[tokio::test]
    async fn a_slow_body_ends_in_bounded_time() {
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        let error = collect(&HeaderMap::new(), never, SMALL, &mut Share::default().room())
            .await
            .unwrap_err();
        assert_eq!(error.reason, Reason::Malformed);
        let dribble = StreamBody::new(Box::pin(stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::new())), ()))
        })));
        let began = Instant::now();
        collect(&HeaderMap::new(), dribble, SMALL, &mut Share::default().room())
            .await
            .unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
