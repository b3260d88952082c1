//! The Prometheus text exposition format, as far as tests ask: names, labels, values.

use anyhow::{Context, Result, ensure};
use guard_agent::money::Pico;

/// One scrape.
#[derive(Debug, Clone)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: String,
}

impl Metrics {
    /// Reads a scrape.
    ///
    /// # Errors
    /// A line is not in the format.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).with_context(|| format!("not a sample: {line}")));
        Ok(Self(samples.collect::<Result<_>>()?))
    }

    /// The value of the one series with this name and (at least) these labels; 0 when there is none, as Prometheus
    /// has it for a counter that was never touched.
    ///
    /// # Errors
    /// Several series match, or the value is not a number.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        self.text(name, labels)?.map_or(Ok(0.0), |text| Ok(text.parse()?))
    }

    /// The same as a whole number.
    ///
    /// # Errors
    /// As above, or the value has a fraction.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        self.text(name, labels)?.map_or(Ok(0), |text| {
            text.parse().with_context(|| format!("{name} is {text}"))
        })
    }

    /// The same as money, exact to the pico-dollar.
    ///
    /// # Errors
    /// As above, or the value has more than twelve decimals that are not rounding of a binary fraction.
    pub fn usd(&self, name: &str, labels: &[(&str, &str)]) -> Result<Pico> {
        let Some(text) = self.text(name, labels)? else {
            return Ok(Pico::ZERO);
        };
        let number: f64 = text.parse()?;
        Pico::from_usd_text(&format!("{number:.12}")).with_context(|| format!("{name} is {text}"))
    }

    /// Every series of this name, as `name{label="value",…} value`, for messages.
    pub fn lines(&self, prefix: &str) -> Vec<String> {
        let shown = |sample: &Sample| {
            let labels: Vec<_> = sample
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value:?}"))
                .collect();
            format!("{}{{{}}} {}", sample.name, labels.join(","), sample.value)
        };
        self.0
            .iter()
            .filter(|sample| sample.name.starts_with(prefix))
            .map(shown)
            .collect()
    }

    fn text(&self, name: &str, labels: &[(&str, &str)]) -> Result<Option<&str>> {
        let has = |sample: &&Sample| {
            let label =
                |(name, value): &(&str, &str)| sample.labels.iter().any(|(n, v)| n == name && v == value);
            sample.name == name && labels.iter().all(label)
        };
        let mut matching = self.0.iter().filter(has);
        let first = matching.next();
        ensure!(
            matching.next().is_none(),
            "several series match {name}{labels:?}: {:?}",
            self.lines(name)
        );
        Ok(first.map(|sample| sample.value.as_str()))
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at_checked(end)?;
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"")?;
            let (value, after) = quoted(value)?;
            labels.push((label.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    // a time stamp may follow the value
    let value = rest.split_ascii_whitespace().next()?;
    value.parse::<f64>().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.to_owned(),
    })
}

/// A label's value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = r#"# HELP guard_calls_total Calls.
# TYPE guard_calls_total counter
guard_calls_total{agent="coder",outcome="ok"} 3
guard_calls_total{agent="coder",outcome="a \"quoted\", {odd}\\ one"} 4
guard_cost_usd_total{agent="coder"} 0.00225
guard_enforcing 1
"#;

    #[test]
    fn reads_names_labels_and_values() {
        let metrics = Metrics::parse(SCRAPE).unwrap();
        assert_eq!(metrics.count("guard_enforcing", &[]).unwrap(), 1);
        assert_eq!(
            metrics.count("guard_calls_total", &[("outcome", "ok")]).unwrap(),
            3
        );
        let odd = [("outcome", "a \"quoted\", {odd}\\ one"), ("agent", "coder")];
        assert_eq!(metrics.count("guard_calls_total", &odd).unwrap(), 4);
        assert_eq!(
            metrics.usd("guard_cost_usd_total", &[]).unwrap(),
            Pico(2_250_000_000)
        );
        assert_eq!(metrics.count("guard_never_touched", &[]).unwrap(), 0);
    }

    #[test]
    fn does_not_guess() {
        let metrics = Metrics::parse(SCRAPE).unwrap();
        assert!(
            metrics.count("guard_calls_total", &[]).is_err(),
            "two series match"
        );
        assert!(
            metrics.count("guard_cost_usd_total", &[]).is_err(),
            "not a whole number"
        );
        for broken in [
            "guard_calls_total",
            "guard_x{a=\"b\" 1",
            "guard_x one",
            "guard_x{a=b} 1",
        ] {
            assert!(Metrics::parse(broken).is_err(), "{broken}");
        }
    }
}
