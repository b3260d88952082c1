//! What Guard says about itself: a log on standard error, and metrics.

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

pub mod metrics;

/// Environment variable with the log filter, e.g. `info` or `guard_agent::forward=debug`.
pub const FILTER_VARIABLE: &str = "GUARD_LOG";

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event; the journal adds the time.
    #[default]
    Text,
    /// One JSON object per event, with the time.
    Json,
}

impl LogFormat {
    /// As on the command line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Sends the log to standard error, for the whole process.
///
/// # Errors
/// `GUARD_LOG` is not a filter, or a log has been set up already.
pub fn init(format: LogFormat) -> anyhow::Result<()> {
    let directives = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let layer = layer(format, &directives, std::io::stderr)?;
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(())
}

fn layer<S, W>(
    format: LogFormat,
    directives: &str,
    writer: W,
) -> anyhow::Result<Box<dyn Layer<S> + Send + Sync>>
where
    S: tracing::Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    use anyhow::Context as _;
    let wanted = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(directives)
        .with_context(|| format!("{FILTER_VARIABLE} is not a log filter; write for example info"))?;
    let filter = wanted.and(filter_fn(is_ours_or_coarse));
    let base = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false);
    Ok(match format {
        LogFormat::Text => base.without_time().with_filter(filter).boxed(),
        LogFormat::Json => base.json().flatten_event(true).with_filter(filter).boxed(),
    })
}

/// HTTP and TLS libraries write headers into their fine-grained logs, real keys among them: whatever the filter says,
/// they are not listened to below `info`.
fn is_ours_or_coarse(meta: &Metadata<'_>) -> bool {
    meta.target().starts_with("guard_") || *meta.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, directives: &str, act: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = layer(format, directives, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_library_is_not_listened_to_below_info_whatever_the_filter_says() {
        let said = logged(LogFormat::Text, "trace,h2=trace", || {
            tracing::trace!(target: "h2::codec", "authorization: SECRET");
            tracing::debug!(target: "hyper", "SECRET");
            tracing::info!(target: "hyper", "coarse");
            tracing::trace!(target: "guard_agent::proxy", "ours");
        });
        assert!(
            !said.contains("SECRET") && said.contains("coarse") && said.contains("ours"),
            "{said}"
        );
    }

    #[test]
    fn info_is_the_default_and_json_is_json() {
        let said = logged(LogFormat::Json, "", || {
            tracing::debug!(target: "guard_agent", "fine");
            tracing::info!(target: "guard_agent", agent = "coder", "coarse");
        });
        let line: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
        assert_eq!(
            (line["agent"].as_str(), line["message"].as_str()),
            (Some("coder"), Some("coarse"))
        );
    }

    #[test]
    fn a_bad_filter_is_an_error() {
        let built = layer::<tracing_subscriber::Registry, _>(LogFormat::Text, "a=b=c", std::io::sink);
        assert!(built.is_err());
    }
}
