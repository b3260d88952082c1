//! Each key of `egress`, from inside a governed cgroup: what may pass does, what may not gets a readable end, and both
//! are in the audit log.

use std::time::{Duration, Instant};

use anyhow::Result;
use guard_tests::clients;
use guard_tests::lab::{Lab, Place};
use guard_tests::netns::NetNs;
use guard_tests::patience::patient;
use guard_tests::process::{Running, Spawn};
use serde_json::Value;

/// The ordinary site's address, where servers of other protocols listen too.
const SITE: &str = "203.0.113.30";
const PRIVATE: &str = "10.9.0.1";
const METADATA: &str = "169.254.169.254";

/// A second site, whose resolver lies.
const SECOND: &str = "203.0.113.31";

const SERVERS: [&str; 10] = [
    "203.0.113.30=25=banner",
    "203.0.113.30=26=banner",
    "203.0.113.30=8080=http",
    "203.0.113.30=853=banner",
    "10.9.0.1=80=http",
    "10.9.0.1=8080=http",
    "169.254.169.254=80=http",
    "203.0.113.31=25=banner",
    "203.0.113.31=8080=http",
    "203.0.113.31=53=dns:git.example.com/203.0.113.31",
];

/// Servers outside the host, on addresses of every kind.
fn servers(lab: &Lab) -> Result<Running> {
    for address in [PRIVATE, METADATA, SECOND] {
        lab.net().ip(&format!("address add {address}/32 dev lo"))?;
    }
    let arguments: Vec<&str> = ["serve"].into_iter().chain(SERVERS).collect();
    let mut running = clients::talk(Spawn::new(lab.python()).netns(lab.net()), &arguments).start()?;
    running.line()?;
    Ok(running)
}

/// The resolver that the host asks, and its agents beside it.
fn resolver(lab: &Lab) -> Result<Running> {
    let names = "db.internal/203.0.113.30,git.example.com/203.0.113.30,second.example.com/203.0.113.31";
    let spec = format!("127.0.0.1=53=dns:{names}");
    let spawn = Spawn::new(lab.python()).netns(lab.host());
    let mut running = clients::talk(spawn, &["serve", &spec]).start()?;
    running.line()?;
    Ok(running)
}

fn talk(lab: &Lab, place: &Place<'_>, arguments: &[&str]) -> Result<String> {
    let done = clients::talk(place.spawn(lab.python()), arguments).run()?.ok()?;
    Ok(done.stdout.trim().to_owned())
}

fn get(lab: &Lab, place: &Place<'_>, host: &str, port: &str, name: &str) -> Result<String> {
    let request = format!("GET / HTTP/1.1\\nHost: {name}\\n\\n");
    talk(lab, place, &[host, port, &request])
}

/// Records of connections, by decision.
/// A connection's record is written when it has ended, which its client sees a moment earlier.
fn records(lab: &Lab, decision: &str) -> Result<Vec<Value>> {
    let deadline = Instant::now() + patient(Duration::from_secs(5));
    loop {
        let all = lab.audit()?.into_iter();
        let found: Vec<_> = all
            .filter(|record| record["kind"] == "connection" && record["decision"] == decision)
            .collect();
        if !found.is_empty() || Instant::now() > deadline {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn with_default_deny_only_what_is_listed_by_address_and_port_or_by_name_passes() -> Result<()> {
    let rules = r#"
providers = ["openai"]
egress = { default = "deny", deny = ["203.0.113.30:26"], allow = ["203.0.113.0/24:25", "203.0.113.30:26", "www.example.org:443", "10.9.0.1:80"] }
"#;
    let lab = Lab::builder().coder(rules).start()?;
    let _servers = servers(&lab)?;
    let coder = lab.coder();

    // The server speaks first: by address and port alone; `deny` wins over `allow`.
    assert_eq!(talk(&lab, &coder, &[SITE, "25"])?, "220 203.0.113.30:25 ready");
    assert_eq!(talk(&lab, &coder, &[SITE, "26"])?, "(closed)");
    let page = get(&lab, &coder, SITE, "8080", "www.example.org:8080")?;
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("egress.default"),
        "{page}"
    );
    // A private address that is listed.
    assert!(get(&lab, &coder, PRIVATE, "80", "10.9.0.1")?.ends_with("10.9.0.1:80"));

    // By name the connection goes to where the name leads, whatever address the client chose.
    for resolve in [
        "www.example.org:443:203.0.113.30",
        "www.example.org:443:203.0.113.77",
    ] {
        let url = "https://www.example.org/";
        let done = coder.curl(["--resolve", resolve, url])?.run()?.ok()?;
        assert!(done.stdout.contains("www.example.org"), "{}", done.stdout);
    }
    let resolve = "evil.example.com:443:203.0.113.30";
    let done = coder
        .curl(["--resolve", resolve, "https://evil.example.com/"])?
        .run()?;
    assert_eq!(
        done.code(),
        35,
        "curl's code for a handshake that failed: {}",
        done.stderr
    );
    assert!(done.stderr.contains("access denied"), "{}", done.stderr);

    // Its provider is not in the list, and reachable all the same; another agent has no such rules.
    assert_eq!(lab.coder().call("openai --model gpt-5")?["ok"], true);
    assert!(get(&lab, &lab.other(), SITE, "8080", "x.example")?.ends_with("203.0.113.30:8080"));

    let refused = records(&lab, "refused")?;
    let rules: Vec<&str> = refused
        .iter()
        .filter_map(|record| record["rule"].as_str())
        .collect();
    assert!(
        rules.contains(&"`egress.deny` lists \"203.0.113.30:26\""),
        "{rules:?}"
    );
    assert!(
        refused.iter().all(|record| record["agent"] == "coder"),
        "{refused:?}"
    );
    let metrics = lab.metrics()?;
    for (cause, least) in [("listed", 1), ("unlisted", 2)] {
        let labels = [("agent", "coder"), ("cause", cause)];
        let count = metrics.count("guard_egress_refused_total", &labels)?;
        assert!(count >= least, "{cause} {count}");
    }
    Ok(())
}

#[test]
fn denied_names_private_networks_metadata_and_resolvers_are_refused_and_the_rest_passes() -> Result<()> {
    let rules = "providers = [\"openai\"]\negress = { deny = [\"*.internal\"], private = \"deny\" }";
    let lab = Lab::builder().coder(rules).start()?;
    let _servers = servers(&lab)?;
    let (coder, other) = (lab.coder(), lab.other());
    assert!(get(&lab, &coder, SITE, "8080", "www.example.org")?.ends_with("203.0.113.30:8080"));
    let page = get(&lab, &coder, SITE, "8080", "db.internal:8080")?;
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("*.internal"),
        "{page}"
    );
    let page = get(&lab, &coder, PRIVATE, "80", "x.example")?;
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("private"),
        "{page}"
    );
    // Without rules of one's own: private networks pass, metadata and resolvers do not.
    assert!(get(&lab, &other, PRIVATE, "80", "x.example")?.ends_with("10.9.0.1:80"));
    let page = get(&lab, &other, METADATA, "80", METADATA)?;
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("metadata"),
        "{page}"
    );
    assert_eq!(talk(&lab, &other, &[SITE, "853", "x"])?, "(closed)");
    let resolve = "dns.google:443:203.0.113.30";
    let done = other
        .curl(["--resolve", resolve, "https://dns.google/dns-query"])?
        .run()?;
    assert_eq!(done.code(), 35, "{}", done.stderr);
    Ok(())
}

#[test]
fn in_observe_mode_the_same_passes_and_the_record_says_what_would_have_been_refused() -> Result<()> {
    let rules = "providers = [\"openai\"]\negress = { default = \"deny\" }";
    let lab = Lab::builder().coder(rules).host("mode = \"observe\"\n").start()?;
    let _servers = servers(&lab)?;
    assert!(get(&lab, &lab.coder(), SITE, "8080", "x.example")?.ends_with("203.0.113.30:8080"));
    let allowed = records(&lab, "allowed")?;
    let rule = allowed[0]["rule"].as_str().unwrap_or_default();
    assert!(
        rule.starts_with("would be refused") && rule.contains("egress.default"),
        "{rule}"
    );
    Ok(())
}

#[test]
fn the_bare_address_of_a_denied_name_is_refused_once_the_agent_has_looked_it_up() -> Result<()> {
    let rules = "providers = [\"openai\"]\negress = { deny = [\"*.internal\"] }";
    let lab = Lab::builder().coder(rules).start()?;
    let (_servers, _resolver) = (servers(&lab)?, resolver(&lab)?);
    let (coder, other) = (lab.coder(), lab.other());
    assert!(talk(&lab, &coder, &[SITE, "25"])?.starts_with("220 "));
    assert_eq!(talk(&lab, &coder, &["ask", "127.0.0.1", "db.internal"])?, SITE);

    assert_eq!(talk(&lab, &coder, &[SITE, "25"])?, "(closed)");
    let page = get(&lab, &coder, SITE, "8080", SITE)?;
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("looked up as \"db.internal\""),
        "{page}"
    );
    // Another name with the address goes to where that name leads: here, or elsewhere.
    assert!(get(&lab, &coder, SITE, "8080", "www.example.org")?.ends_with("203.0.113.30:8080"));
    assert!(get(&lab, &coder, SITE, "8080", "second.example.com")?.ends_with("203.0.113.31:8080"));
    let page = get(&lab, &coder, SITE, "8080", "unheard.example.com")?;
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("cannot resolve"),
        "{page}"
    );
    assert!(talk(&lab, &other, &[SITE, "25"])?.starts_with("220 "));
    Ok(())
}

#[test]
fn a_protocol_without_names_passes_by_the_name_that_was_looked_up_to_where_the_host_says_it_leads()
-> Result<()> {
    let rules = "providers = [\"openai\"]\negress = { default = \"deny\", allow = [\"git.example.com:25\"] }";
    let lab = Lab::builder().coder(rules).start()?;
    let (_servers, _resolver) = (servers(&lab)?, resolver(&lab)?);
    let coder = lab.coder();
    assert_eq!(talk(&lab, &coder, &[SITE, "25"])?, "(closed)");
    assert_eq!(
        talk(&lab, &coder, &["ask", "127.0.0.1", "git.example.com"])?,
        SITE
    );
    assert_eq!(talk(&lab, &coder, &[SITE, "25"])?, "220 203.0.113.30:25 ready");
    assert!(get(&lab, &coder, SITE, "8080", SITE)?.starts_with("HTTP/1.1 403 "));
    // Its own resolver can say what it likes.
    assert_eq!(talk(&lab, &coder, &["ask", SECOND, "git.example.com"])?, SECOND);
    assert_eq!(talk(&lab, &coder, &[SECOND, "25"])?, "220 203.0.113.30:25 ready");
    Ok(())
}

#[test]
fn a_name_that_only_the_client_claims_leads_to_where_the_host_says() -> Result<()> {
    let rules =
        "providers = [\"openai\"]\negress = { default = \"deny\", allow = [\"git.example.com:8080\"] }";
    let lab = Lab::builder().coder(rules).start()?;
    let (_servers, _resolver) = (servers(&lab)?, resolver(&lab)?);
    let coder = lab.coder();
    assert!(get(&lab, &coder, SECOND, "8080", "other.example.com")?.starts_with("HTTP/1.1 403 "));
    let page = get(&lab, &coder, SECOND, "8080", "git.example.com:8080")?;
    assert!(page.ends_with("203.0.113.30:8080"), "it went elsewhere: {page}");
    Ok(())
}

#[test]
fn an_allowed_name_that_leads_to_a_private_address_does_not_pass() -> Result<()> {
    let rules = "providers = [\"openai\"]\negress = { default = \"deny\", allow = [\"db.example.net\"] }";
    let lab = Lab::builder().coder(rules).start()?;
    let _servers = servers(&lab)?;
    let hosts = lab.directory().join("hosts");
    let names = std::fs::read_to_string(&hosts)? + "\n10.9.0.1 db.example.net\n";
    std::fs::write(&hosts, names)?;
    let page = get(&lab, &lab.coder(), SITE, "8080", "db.example.net:8080")?;
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("private address"),
        "{page}"
    );
    Ok(())
}

/// A listener of this place on the host's address and on loopback.
fn listener(lab: &Lab, place: &Place<'_>, port: &str) -> Result<Running> {
    let spec = format!("0.0.0.0={port}=banner");
    let mut running = clients::talk(place.spawn(lab.python()), &["serve", &spec]).start()?;
    running.line()?;
    Ok(running)
}

fn from_outside(lab: &Lab, net: &NetNs, port: &str) -> Result<String> {
    let spawn = Spawn::new(lab.python()).netns(net);
    let done = clients::talk(spawn, &["198.51.100.2", port]).run()?.ok()?;
    Ok(done.stdout.trim().to_owned())
}

#[test]
fn inbound_and_loopback_follow_their_keys() -> Result<()> {
    let rules = "providers = [\"openai\"]\negress = { inbound = \"deny\", loopback = \"deny\" }";
    let lab = Lab::builder().coder(rules).start()?;
    let (coder, other) = (lab.coder(), lab.other());
    let _listeners = [listener(&lab, &coder, "7001")?, listener(&lab, &other, "7002")?];
    assert_eq!(from_outside(&lab, lab.net(), "7001")?, "TimeoutError");
    assert!(from_outside(&lab, lab.net(), "7002")?.starts_with("220 "));
    assert_eq!(
        talk(&lab, &coder, &["127.0.0.1", "7002"])?,
        "ConnectionRefusedError"
    );
    assert!(talk(&lab, &other, &["127.0.0.1", "7002"])?.starts_with("220 "));
    // Its provider is reached through the listener on loopback, which is not its own doing.
    assert_eq!(coder.call("openai --model gpt-5")?["ok"], true);
    Ok(())
}
