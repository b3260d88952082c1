use super::*;

fn rules(list: &[&str]) -> Vec<Rule> {
    list.iter().map(|text| Rule::parse(text).unwrap()).collect()
}

fn egress(others: Others, deny: &[&str], allow: &[&str]) -> Egress {
    Egress {
        others,
        deny: rules(deny),
        allow: rules(allow),
        ..Egress::default()
    }
}

fn verdict(egress: &Egress, destination: &str, name: Option<&str>) -> Result<Passage, Cause> {
    judge(egress, destination, name, &[])
}

/// With the names for which DNS gave the destination's address.
fn judge(
    egress: &Egress,
    destination: &str,
    name: Option<&str>,
    looked_up: &[&str],
) -> Result<Passage, Cause> {
    let looked_up: Vec<Box<str>> = looked_up.iter().map(|name| (*name).into()).collect();
    egress
        .judge(destination.parse().unwrap(), name, &looked_up)
        .map_err(|refused| refused.cause)
}

fn named(name: &str) -> Result<Passage, Cause> {
    Ok(Passage::Named(name.into()))
}

const OUTSIDE: &str = "203.0.113.9:443";

#[test]
fn deny_wins_over_allow_and_allow_over_the_default() {
    let open = egress(
        Others::Allow,
        &["*.internal", "203.0.113.0/28:25"],
        &["db.internal"],
    );
    assert_eq!(verdict(&open, OUTSIDE, None), Ok(Passage::Original));
    assert_eq!(verdict(&open, OUTSIDE, Some("DB.internal.")), Err(Cause::Listed));
    assert_eq!(verdict(&open, "203.0.113.9:25", None), Err(Cause::Listed));
    assert_eq!(verdict(&open, "203.0.113.9:26", None), Ok(Passage::Original));
    let closed = egress(
        Others::Deny,
        &["bad.example.com"],
        &["*.example.com:443", "10.0.0.0/8:5432"],
    );
    assert_eq!(verdict(&closed, OUTSIDE, None), Err(Cause::Unlisted));
    assert_eq!(
        verdict(&closed, OUTSIDE, Some("other.test")),
        Err(Cause::Unlisted)
    );
    assert_eq!(verdict(&closed, "10.2.3.4:5432", None), Ok(Passage::Original));
    assert_eq!(verdict(&closed, "10.2.3.4:5433", None), Err(Cause::Private));
    assert_eq!(
        verdict(&closed, OUTSIDE, Some("bad.example.com")),
        Err(Cause::Listed)
    );
}

#[test]
fn a_name_that_is_the_reason_to_pass_decides_where_the_connection_goes() {
    let closed = egress(Others::Deny, &["198.51.100.0/24"], &["*.example.com"]);
    assert_eq!(
        verdict(&closed, OUTSIDE, Some("www.example.com")),
        named("www.example.com")
    );
    let leads_to = |address: &str| {
        closed
            .judge_resolved("www.example.com", address.parse().unwrap())
            .map_err(|refused| refused.cause)
    };
    assert_eq!(leads_to("203.0.113.9:443"), Ok(()));
    assert_eq!(leads_to("198.51.100.7:443"), Err(Cause::Listed));
    assert_eq!(leads_to("8.8.8.8:443"), Err(Cause::Resolver));
    let google = "8.8.8.8:443".parse().unwrap();
    assert!(closed.judge_resolved("dns.google", google).is_ok());
    for private in [
        "10.0.0.1:443",
        "169.254.169.254:80",
        "[fd00::1]:443",
        "[fe80::1]:443",
        "100.64.0.1:443",
        "[64:ff9b::a00:1]:443",
        "[2002:a00:1::]:443",
    ] {
        assert_eq!(leads_to(private), Err(Cause::Private), "{private}");
    }
}

#[test]
fn the_bare_address_of_a_denied_name_is_refused_and_another_name_is_dialled_where_it_leads() {
    let open = egress(Others::Allow, &["*.internal:443"], &["203.0.113.0/28"]);
    let looked_up = ["db.internal", "www.example.com"];
    let judge = |destination: &str, name| judge(&open, destination, name, &looked_up);
    assert_eq!(judge("198.51.100.7:443", None), Err(Cause::Listed));
    // Not even where the address is on `allow`: `deny` comes first.
    assert_eq!(judge(OUTSIDE, None), Err(Cause::Listed));
    assert_eq!(judge(OUTSIDE, Some("203.0.113.9")), Err(Cause::Listed));
    assert_eq!(judge(OUTSIDE, Some("db.internal")), Err(Cause::Listed));
    for address in [OUTSIDE, "198.51.100.7:443"] {
        let name = Some("WWW.example.com");
        assert_eq!(judge(address, name), named("www.example.com"), "{address}");
    }
    assert_eq!(judge("198.51.100.7:80", None), Ok(Passage::Original));
    assert_eq!(verdict(&open, "198.51.100.7:443", None), Ok(Passage::Original));
}

#[test]
fn the_bare_address_of_a_resolver_is_refused_too() {
    let open = Egress::default();
    let looked_up = ["dns.nextdns.io"];
    assert_eq!(judge(&open, OUTSIDE, None, &looked_up), Err(Cause::Resolver));
    assert_eq!(
        judge(&open, OUTSIDE, Some("www.example.com"), &looked_up),
        named("www.example.com")
    );
}

#[test]
fn a_protocol_without_names_passes_by_the_name_that_was_looked_up() {
    let closed = egress(Others::Deny, &["bad.example.com"], &["*.example.com:22"]);
    let ssh = "203.0.113.9:22";
    assert_eq!(
        judge(&closed, ssh, None, &["other.test", "git.example.com"]),
        named("git.example.com")
    );
    assert_eq!(judge(&closed, ssh, None, &["other.test"]), Err(Cause::Unlisted));
    assert_eq!(
        judge(&closed, "203.0.113.9:23", None, &["git.example.com"]),
        Err(Cause::Unlisted)
    );
    // What the client says comes before what it looked up.
    assert_eq!(
        judge(&closed, ssh, Some("other.test"), &["git.example.com"]),
        Err(Cause::Unlisted)
    );
    assert_eq!(
        judge(&closed, ssh, None, &["bad.example.com", "git.example.com"]),
        Err(Cause::Listed)
    );
}

#[test]
fn an_address_in_the_place_of_a_name_is_no_name() {
    let closed = egress(Others::Deny, &[], &["2*"]);
    assert_eq!(
        verdict(&closed, OUTSIDE, Some("203.0.113.9")),
        Err(Cause::Unlisted)
    );
}

#[test]
fn private_networks_follow_their_key_and_metadata_services_need_a_word_of_their_own() {
    let mut rules = egress(Others::Allow, &[], &["192.168.7.0/24"]);
    assert_eq!(verdict(&rules, "10.0.0.1:80", None), Ok(Passage::Original));
    for metadata in [
        "169.254.169.254:80",
        "[fd00:ec2::254]:80",
        "[::ffff:169.254.169.254]:80",
    ] {
        assert_eq!(verdict(&rules, metadata, None), Err(Cause::Private), "{metadata}");
    }
    rules.private = Some(Private::Allow);
    assert_eq!(verdict(&rules, "169.254.169.254:80", None), Ok(Passage::Original));
    rules.private = Some(Private::Deny);
    for private in ["10.0.0.1:80", "172.16.0.1:80", "192.168.1.1:80", "[fd12::1]:80"] {
        assert_eq!(verdict(&rules, private, None), Err(Cause::Private), "{private}");
    }
    assert_eq!(verdict(&rules, "192.168.7.9:80", None), Ok(Passage::Original));
    assert_eq!(verdict(&rules, "172.32.0.1:80", None), Ok(Passage::Original));
}

#[test]
fn resolvers_over_https_and_tls_need_to_be_listed() {
    let open = Egress::default();
    for (destination, name) in [
        (OUTSIDE, Some("dns.google")),
        (OUTSIDE, Some("abc123.dns.nextdns.io")),
        ("203.0.113.9:853", None),
        ("1.1.1.1:443", None),
        ("1.1.1.1:8443", None),
        ("1.1.1.1:443", Some("innocent.example")),
        ("[2606:4700:4700::1111]:443", None),
    ] {
        assert_eq!(
            verdict(&open, destination, name),
            Err(Cause::Resolver),
            "{destination} {name:?}"
        );
    }
    assert_eq!(
        verdict(&open, OUTSIDE, Some("notdns.google.example")),
        Ok(Passage::Original)
    );
    let listed = egress(Others::Allow, &[], &["dns.google", "1.1.1.1:443"]);
    assert_eq!(verdict(&listed, OUTSIDE, Some("dns.google")), named("dns.google"));
    assert_eq!(verdict(&listed, "1.1.1.1:443", None), Ok(Passage::Original));
    assert_eq!(verdict(&listed, "1.1.1.1:853", None), Err(Cause::Resolver));
}
