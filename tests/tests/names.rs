//! What would hide from Guard that a connection goes to a provider, or what is asked there: tried from inside a governed
//! cgroup, with a provider at the other end that would answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_tests::clients;
use guard_tests::lab::{Lab, OPENAI_KEY, Place};
use guard_tests::process::{Done, Spawn};
use serde_json::{Value, json};

/// The ordinary site.
const SITE: &str = "203.0.113.30";

/// Misbehaves in one way (`tests/clients/raw.py`).
fn raw(place: &Place<'_>, arguments: &str) -> Result<Value> {
    let client = place.python("raw.py", &format!("{arguments} --patience 20"))?;
    let done = client.patience(Duration::from_secs(40)).run()?.ok()?;
    done.json_lines()?.pop().context("the client said nothing")
}

#[test]
fn a_hello_in_many_pieces_or_padded_leads_to_guard_all_the_same() -> Result<()> {
    let lab = Lab::builder().start()?;
    for way in ["tls-pieces 1", "tls-pieces 7", "tls-pieces 300"] {
        let result = raw(&lab.coder(), way)?;
        assert_eq!(result["status"], 200, "{way}: {result}");
    }
    for seen in lab.openai().seen() {
        assert_eq!(
            seen.credential(),
            Some(OPENAI_KEY),
            "it went to the provider by itself"
        );
    }
    // TLS 1.2, so that the certificate can be seen: Guard's, up to what the length of the extensions can say.
    for padding in [0, 1_200, 16_000, 65_000] {
        let result = raw(&lab.coder(), &format!("tls-padded {padding}"))?;
        let issuers = &result["issuers"];
        assert_eq!(
            issuers,
            &json!({"guard": true, "lab": false}),
            "{padding}: {result}"
        );
    }
    let outside = raw(&lab.outside(), "tls-padded 1200")?;
    assert_eq!(
        outside["issuers"],
        json!({"guard": false, "lab": true}),
        "{outside}"
    );
    Ok(())
}

#[test]
fn no_tunnel_is_made_inside_a_connection_to_a_provider() -> Result<()> {
    let lab = Lab::builder().start()?;
    for way in ["http-upgrade", "http-connect"] {
        let result = raw(&lab.coder(), way)?;
        assert_eq!(result["status"], 426, "{way}: {result}");
        assert!(
            result["body"].to_string().contains("guard_upgrade_required"),
            "{way}: {result}"
        );
    }
    assert!(lab.openai().seen().is_empty());
    let outside = raw(&lab.outside(), "http-upgrade")?;
    assert_eq!(outside["status"], 200, "the provider would answer: {outside}");
    Ok(())
}

#[test]
fn a_client_that_trusts_the_public_roots_only_fails_and_is_reported() -> Result<()> {
    let lab = Lab::builder().start()?;
    let roots = lab.directory().join("public-ca.pem").display().to_string();
    let url = "https://api.openai.com/v1/models";
    let done = lab.coder().curl(["--cacert", &roots, url])?.run()?;
    assert_eq!(
        done.code(),
        60,
        "curl's code for a certificate that it does not trust"
    );
    assert!(lab.openai().seen().is_empty());
    let reported = lab
        .metrics()?
        .count("guard_tls_untrusted_total", &[("agent", "coder")])?;
    assert_eq!(reported, 1, "what nobody hears of");
    // The provider itself is what such a client trusts.
    lab.outside().curl(["--cacert", &roots, url])?.run()?.ok()?;
    Ok(())
}

#[test]
fn a_name_that_is_hidden_behind_a_front_does_not_pass() -> Result<()> {
    let lab = Lab::builder().start()?;
    let spec = format!("127.0.0.1=53=dns:www.example.org/{SITE}");
    let resolver = clients::talk(Spawn::new(lab.python()).netns(lab.host()), &["serve", &spec]);
    let mut resolver = resolver.start()?;
    resolver.line()?;
    let hello =
        |place: &Place<'_>, name: &str| raw(place, &format!("tls-ech --host {name} --address {SITE}"));
    for name in ["cloudflare-ech.com", "www.example.org"] {
        let result = hello(&lab.coder(), name)?;
        assert_eq!(result["answered"], false, "{name}: {result}");
        assert_eq!(
            hello(&lab.outside(), name)?["answered"],
            true,
            "its server would answer"
        );
    }
    // Where Guard's own answer led, without a key for such a thing in it, the extension is GREASE (RFC 9849 §6.2).
    let ask = clients::talk(
        lab.coder().spawn(lab.python()),
        &["ask", "127.0.0.1", "www.example.org"],
    );
    assert_eq!(ask.run()?.ok()?.stdout.trim(), SITE);
    let result = hello(&lab.coder(), "www.example.org")?;
    assert_eq!(result["answered"], true, "{result}");
    Ok(())
}

#[test]
fn a_key_among_the_subprotocols_of_a_socket_is_refused() -> Result<()> {
    let lab = Lab::builder().start()?;
    let result = raw(&lab.coder(), "socket-key")?;
    assert_eq!(result["status"], 400, "{result}");
    assert!(
        result["body"].to_string().contains("guard_key_denied"),
        "{result}"
    );
    assert!(lab.openai().seen().is_empty());
    Ok(())
}

/// `guard-agent` as its operator calls it, from where an agent lives.
fn guard(lab: &Lab, place: &Place<'_>, arguments: &[&str]) -> Result<Done> {
    let command = place.spawn(Lab::program()?).arg("--config").arg(lab.config());
    command.args(arguments).run()
}

#[test]
fn an_agent_gets_nothing_from_the_admin_socket() -> Result<()> {
    let lab = Lab::builder().start()?;
    let attempts: [&[&str]; 4] = [
        &["status", "--json"],
        &["freeze", "second", "--why", "a rival"],
        &[
            "budget",
            "grant",
            "coder",
            "1000",
            "--for",
            "1h",
            "--why",
            "I want it",
        ],
        &["run", "--agent", "second", "--", "true"],
    ];
    for attempt in attempts {
        let done = guard(&lab, &lab.coder(), attempt)?;
        ensure!(
            !done.success(),
            "an agent was served: {attempt:?}: {}",
            done.stdout
        );
        assert!(
            done.stderr.contains("belongs to an agent"),
            "{attempt:?}: {}",
            done.stderr
        );
    }
    for attempt in attempts {
        guard(&lab, &lab.outside(), attempt)?.ok()?;
    }
    Ok(())
}
